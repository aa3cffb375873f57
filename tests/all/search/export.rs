//! The real binary exports into a strict fake that does what a healthy server does not: whatever it answers, its documents end as the
//! records are, and only what can never be taken is set aside.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;
use tacho::persist::Store;

use crate::support::captures;
use crate::support::client::{JSON, PROTOBUF, call, post};
use crate::support::fake_search::{Document, FakeSearch, Item, ItemFault, Product, RequestFault, Times};
use crate::support::load::Shape;
use crate::support::proxy::{Fault, FaultProxy};
use crate::support::tacho_process::Tacho;

const PATIENCE: Duration = Duration::from_secs(60);

/// Tacho with a database of its own, before a fake.
struct Exporting {
    folder: tempfile::TempDir,
    fake: FakeSearch,
    tacho: Option<Tacho>,
    units: u64,
}

impl Exporting {
    async fn start(product: Product, more: &[(&str, &str)]) -> Self {
        let exporting = Self::before(product).await;
        exporting.verb(&["setup", "elasticsearch"]);
        exporting.run(more)
    }

    /// Nothing is set up, and Tacho does not run yet.
    async fn before(product: Product) -> Self {
        Self { folder: tempfile::tempdir().unwrap(), fake: FakeSearch::start(product).await, tacho: None, units: 0 }
    }

    fn run(mut self, more: &[(&str, &str)]) -> Self {
        self.stop();
        let settings = self.settings();
        let mut settings: Vec<(&str, &str)> = settings.iter().map(|(name, value)| (*name, value.as_str())).collect();
        settings.extend(more);
        self.tacho = Some(Tacho::start(self.folder.path(), &self.url(), &settings));
        self
    }

    fn stop(&mut self) {
        if let Some(tacho) = self.tacho.take() {
            tacho.stop();
        }
    }

    fn url(&self) -> String {
        format!("sqlite:{}", self.folder.path().join("tacho.db").display())
    }

    fn settings(&self) -> [(&'static str, String); 4] {
        [
            ("TACHO_ASSEMBLE__QUIET", "100ms".to_owned()),
            ("TACHO_EXPORT__ELASTICSEARCH__URLS", format!("[\"{}\"]", self.fake.url())),
            ("TACHO_EXPORT__ELASTICSEARCH__START", "all".to_owned()),
            ("TACHO_TELEMETRY__LOG", "info".to_owned()),
        ]
    }

    /// What a verb of the command line says.
    fn verb(&self, arguments: &[&str]) -> String {
        let done = Command::new(env!("CARGO_BIN_EXE_tacho"))
            .args(arguments)
            .current_dir(self.folder.path())
            .env("TACHO_DATABASE__URL", self.url())
            .envs(self.settings())
            .output()
            .unwrap();
        assert!(done.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8(done.stdout).unwrap()
    }

    /// So many requests more, each with two calls.
    async fn requests(&mut self, traces: u64) {
        let began = tacho::app::now().0 - 1_000_000_000;
        let shape = Shape { seed: 5, traces, calls: 2, users: 9, split: false, began };
        let tacho = self.tacho.as_ref().unwrap();
        for body in shape.unit(self.units).bodies {
            assert_eq!(post(PROTOBUF, body).send(tacho.otlp_http).await.status(), 200);
        }
        self.units += 1;
    }

    /// Waits until there are so many documents.
    async fn documents(&self, how_many: usize) -> BTreeMap<String, Document> {
        let begun = Instant::now();
        loop {
            let indices = self.fake.indices().into_iter().filter(|index| index.starts_with("tacho-usage"));
            let documents: BTreeMap<_, _> = indices.flat_map(|index| self.fake.documents(&index)).collect();
            if documents.len() == how_many {
                return documents;
            }
            let log = self.tacho.as_ref().map(Tacho::log).unwrap_or_default();
            assert!(begun.elapsed() < PATIENCE, "{} of {how_many} documents: {log}", documents.len());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn metric(&self, name: &str) -> f64 {
        let metrics =
            post(JSON, "").method("GET").path("/metrics").send(self.tacho.as_ref().unwrap().http).await.text();
        let found = metrics.lines().find_map(|line| line.strip_prefix(name));
        found.map_or(f64::NAN, |value| value.trim().parse().unwrap())
    }

    fn log(&self) -> String {
        self.tacho.as_ref().unwrap().log()
    }
}

fn user(item: &Item) -> &str {
    item.source["user"]["id"].as_str().unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_a_server_answers_its_documents_end_as_the_records() {
    let mut exporting = Exporting::start(Product::OpenSearch3, &[]).await;
    let fake = &exporting.fake;
    for fault in [
        RequestFault::CircuitBreaker,
        RequestFault::QueueFull,
        RequestFault::NoMaster,
        RequestFault::CutAnswer,
        RequestFault::TooLarge,
        RequestFault::Slow(Duration::from_millis(200)),
        RequestFault::Answer(502, "<html>bad gateway</html>"),
        RequestFault::Answer(200, "<html>a proxy says hello</html>"),
    ] {
        fake.fail_requests("_bulk", fault, Times::Next(1));
    }
    fake.fail_items(|item| user(item) == "user-1", ItemFault::QueueFull, Times::Next(5));
    fake.fail_items(|item| user(item) == "user-2", ItemFault::NoShard, Times::Next(5));
    for _ in 0..3 {
        exporting.requests(40).await;
    }
    let documents = exporting.documents(120).await;
    assert!(documents.values().all(|document| document.version == (1 << 32) + 1));
    assert_eq!(exporting.verb(&["dead-letters", "list"]).trim(), "nothing was set aside");
    assert!(exporting.metric("tacho_export_documents_total{result=\"failed\",sink=\"elasticsearch\"}").await >= 10.0);
    exporting.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_somebody_must_mend_holds_the_export_and_is_said_once() {
    let mut exporting = Exporting::start(Product::Elasticsearch9, &[]).await;
    exporting.requests(3).await;
    let mut all = 3;
    exporting.documents(all).await;
    for (fault, said) in [(RequestFault::Unauthorized, "status 401"), (RequestFault::Answer(406, ""), "status 406")] {
        exporting.fake.fail_requests("_bulk", fault, Times::Next(2));
        exporting.requests(3).await;
        all += 3;
        exporting.documents(all).await;
        let log = exporting.log();
        let told = log.lines().filter(|line| line.contains("export stands still") && line.contains(said)).count();
        assert_eq!(told, 1, "{said}: {log}");
    }
    for (fault, said) in [(ItemFault::FloodStage, "flood-stage"), (ItemFault::NoIndex, "index_not_found_exception")] {
        exporting.fake.fail_items(|_| true, fault, Times::Next(3));
        exporting.requests(3).await;
        all += 3;
        exporting.documents(all).await;
        assert!(exporting.log().contains(said), "{said}");
    }
    assert_eq!(exporting.verb(&["dead-letters", "list"]).trim(), "nothing was set aside");
    exporting.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn poison_is_set_aside_and_the_rest_flows_on() {
    let mut exporting = Exporting::start(Product::Elasticsearch9, &[]).await;
    exporting.fake.fail_items(|item| user(item) == "user-3", ItemFault::Mapping, Times::UntilCleared);
    exporting.fake.fail_items(|item| user(item) == "user-4", ItemFault::FailureStore, Times::UntilCleared);
    exporting.requests(60).await;
    let store = Store::open(&exporting.url(), "test").await.unwrap();
    let begun = Instant::now();
    let letters = loop {
        let letters = store.export_dead_letters(None, None, 1000).await.unwrap();
        let cursors = store.export_cursors().await.unwrap();
        let lacks = store.lacking_since(cursors.iter().find(|c| c.stream.label() == "usage").unwrap()).await.unwrap();
        if !letters.is_empty() && lacks.is_none() {
            break letters;
        }
        assert!(begun.elapsed() < PATIENCE, "{letters:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    let documents = exporting.documents(60 - letters.len()).await;
    assert!(
        documents
            .values()
            .all(|document| !["user-3", "user-4"].contains(&document.source["user"]["id"].as_str().unwrap()))
    );
    assert!(letters.iter().any(|letter| letter.reason.contains("parsing_exception")));
    assert!(letters.iter().any(|letter| letter.reason.contains("failure store")));
    let key = letters[0].key.to_string();
    let shown = exporting.verb(&["dead-letters", "show", &key, "--sink", "elasticsearch"]);
    assert!(shown.contains("\"user_id\": \"user-"), "{shown}");
    // Still refused: it stays. Mended: it goes.
    let stays = format!("0 sent, {} refused again", letters.len());
    assert_eq!(exporting.verb(&["dead-letters", "retry", "--sink", "elasticsearch"]).trim(), stays);
    exporting.fake.clear_faults();
    let goes = format!("{} sent, 0 refused again", letters.len());
    assert_eq!(exporting.verb(&["dead-letters", "retry", "--sink", "elasticsearch"]).trim(), goes);
    exporting.documents(60).await;
    assert_eq!(exporting.verb(&["dead-letters", "list"]).trim(), "nothing was set aside");
    store.close().await;
    exporting.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_is_too_large_is_divided() {
    let mut exporting = Exporting::start(Product::OpenSearch2, &[]).await;
    exporting.fake.limit_body(4_000);
    exporting.requests(50).await;
    exporting.documents(50).await;
    assert!(exporting.fake.counts().biggest_body > 4_000);
    exporting.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sink_that_is_away_lags_and_gets_all_of_it_later() {
    const LAG: &str = "tacho_export_lag_seconds{sink=\"elasticsearch\"}";
    let exporting = Exporting::before(Product::OpenSearch3).await;
    exporting.verb(&["setup", "elasticsearch"]);
    let proxy = FaultProxy::before(exporting.fake.address()).await;
    proxy.set(Fault::Refuse).await;
    let through = format!("[\"{}\"]", proxy.url());
    let mut exporting = exporting.run(&[("TACHO_EXPORT__ELASTICSEARCH__URLS", &through)]);
    for _ in 0..20 {
        exporting.requests(100).await;
    }
    let begun = Instant::now();
    while exporting.metric(LAG).await.partial_cmp(&1.0) != Some(std::cmp::Ordering::Greater) {
        assert!(begun.elapsed() < PATIENCE, "{}", exporting.log());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(exporting.fake.counts().bulks, 0);
    proxy.set(Fault::None).await;
    exporting.documents(2_000).await;
    while exporting.metric(LAG).await != 0.0 {
        assert!(begun.elapsed() < PATIENCE, "{}", exporting.log());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    exporting.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_time_is_sent_again_and_the_cursor_stays() {
    let mut exporting = Exporting::start(Product::OpenSearch3, &[("TACHO_EXPORT__ELASTICSEARCH__START", "now")]).await;
    // Records of before, which a sink that starts now leaves out.
    exporting.stop();
    let settings = [("TACHO_ASSEMBLE__QUIET", "100ms")];
    exporting.tacho = Some(Tacho::start(exporting.folder.path(), &exporting.url(), &settings));
    exporting.requests(30).await;
    exporting.stop();
    let store = Store::open(&exporting.url(), "test").await.unwrap();
    sqlx::Connection::close({
        let mut raw = <sqlx::SqliteConnection as sqlx::Connection>::connect(&exporting.url()).await.unwrap();
        sqlx::query("DELETE FROM export_cursors").execute(&mut raw).await.unwrap();
        raw
    })
    .await
    .unwrap();
    let mut exporting = exporting.run(&[("TACHO_EXPORT__ELASTICSEARCH__START", "now")]);
    let begun = Instant::now();
    while store.export_cursors().await.unwrap().len() < 2 {
        assert!(begun.elapsed() < PATIENCE);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    exporting.requests(10).await;
    exporting.documents(10).await;
    let cursor =
        async || store.export_cursors().await.unwrap().iter().map(|c| c.cursor.to_string()).collect::<Vec<_>>();
    // The acknowledgement comes right behind the last document.
    tokio::time::sleep(Duration::from_millis(500)).await;
    let before = cursor().await;
    let said = exporting.verb(&["export", "elasticsearch", "--since", "1d"]);
    assert_eq!(said.trim(), "40 documents sent to elasticsearch");
    exporting.documents(40).await;
    assert_eq!(cursor().await, before);
    let status: Value = serde_json::from_str(&exporting.verb(&["export", "status", "--json"])).unwrap();
    assert_eq!(status["sinks"][0]["lag_seconds"], 0.0, "{status}");
    store.close().await;
    exporting.stop();
}

/// All fields of a document or a mapping, by their full name.
fn fields(value: &Value, name: &str, into: &mut BTreeSet<String>) {
    match value {
        Value::Object(parts) => {
            for (part, value) in parts {
                fields(value, &if name.is_empty() { part.clone() } else { format!("{name}.{part}") }, into);
            }
        }
        Value::Array(values) => values.iter().for_each(|value| fields(value, name, into)),
        _ => drop(into.insert(name.to_owned())),
    }
}

fn mapped(properties: &Value, name: &str, into: &mut BTreeSet<String>) {
    for (part, mapping) in properties.as_object().unwrap() {
        let name = if name.is_empty() { part.clone() } else { format!("{name}.{part}") };
        match mapping.get("properties") {
            Some(properties) => mapped(properties, &name, into),
            None => drop(into.insert(name)),
        }
    }
}

/// The fields of the shipped mappings.
pub(super) fn mapped_fields(file: &str) -> BTreeSet<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/elasticsearch").join(file);
    let template: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let mut all = BTreeSet::new();
    mapped(&template["template"]["mappings"]["properties"], "", &mut all);
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn all_captures_arrive_with_mapped_fields_only_and_fill_each_of_them() {
    let mut exporting = Exporting::start(Product::Elasticsearch8, &[("TACHO_ASSEMBLE__IGNORE", "[]")]).await;
    let tacho = exporting.tacho.as_ref().unwrap();
    for body in captures::all().iter().flat_map(|capture| &capture.bodies) {
        match body.transport {
            captures::Transport::Grpc => drop(call(&body.bytes).send(tacho.grpc).await),
            captures::Transport::Protobuf => drop(post(PROTOBUF, body.bytes.clone()).send(tacho.otlp_http).await),
            captures::Transport::Json => drop(post(JSON, body.bytes.clone()).send(tacho.otlp_http).await),
        }
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    let store = Store::open(&exporting.url(), "test").await.unwrap();
    let page = tacho::persist::Page { after: None, limit: 1000 };
    let rows = store.records(&tacho::persist::RecordFilter::default(), page).await.unwrap();
    assert!(rows.len() > 20);
    let documents = exporting.documents(rows.len()).await;
    let (mut sent, known) = (BTreeSet::new(), mapped_fields("component-template.json"));
    documents.values().for_each(|document| fields(&document.source, "", &mut sent));
    assert_eq!(sent.difference(&known).collect::<Vec<_>>(), Vec::<&String>::new(), "unmapped");
    assert_eq!(known.difference(&sent).collect::<Vec<_>>(), Vec::<&String>::new(), "never filled");
    for row in rows {
        let id = format!(
            "{}-{}-{}",
            tacho_core::domain::time::Timestamp::parse(&row.started_at).unwrap().to_micros(),
            row.trace_id,
            row.span_id
        );
        let own = &documents[&id].source["tacho"];
        assert_eq!(own["total_tokens"], row.total_tokens);
        assert_eq!(own["cost_nanousd"].as_i64(), row.cost_nanousd);
        assert_eq!(own["calls"].as_array().map_or(0, Vec::len), usize::try_from(row.llm_calls).unwrap());
    }
    store.close().await;
    exporting.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn limit_events_go_to_a_data_stream_or_to_monthly_indexes() {
    const NO_STREAMS: &str =
        r#"{"error":{"type":"illegal_argument_exception","reason":"unknown field [data_stream]"},"status":400}"#;
    for (product, is_stream) in [(Product::OpenSearch2, true), (Product::Elasticsearch7, false)] {
        let mut exporting = Exporting::before(product).await;
        if !is_stream {
            let refused = RequestFault::Answer(400, NO_STREAMS);
            exporting.fake.fail_requests("_index_template/tacho-limits", refused, Times::Next(1));
        }
        exporting.verb(&["setup", "elasticsearch"]);
        let limit = "[[limit]]\nname = \"few\"\nper = [\"tenant\", \"user\"]\nmeter = \"requests\"\n\
                     quota = { limit = 1, period = \"day\" }\nwarn_at = [0.5]\n";
        std::fs::write(exporting.folder.path().join("tacho.toml"), limit).unwrap();
        exporting = exporting.run(&[]);
        let http = exporting.tacho.as_ref().unwrap().http;
        let check = || post(JSON, r#"{"tenant": "acme", "user": "ann"}"#).path("/v1/check");
        assert_eq!(check().send(http).await.status(), 200);
        assert_eq!(check().send(http).await.status(), 429);
        let name = if is_stream { "tacho-limits".to_owned() } else { format!("tacho-limits-{}", this_month()) };
        let begun = Instant::now();
        let documents = loop {
            let documents = exporting.fake.documents(&name);
            if !documents.is_empty() {
                break documents;
            }
            assert!(begun.elapsed() < PATIENCE, "{:?}: {}", exporting.fake.indices(), exporting.log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        let (id, document) = documents.first_key_value().unwrap();
        assert_eq!(document.source["event"]["id"], id.as_str());
        assert_eq!(document.source["tacho"]["limit"], "few");
        assert_eq!(document.source["user"]["id"], "ann");
        let (mut sent, known) = (BTreeSet::new(), mapped_fields("limits-component-template.json"));
        fields(&document.source, "", &mut sent);
        assert_eq!(sent.difference(&known).collect::<Vec<_>>(), Vec::<&String>::new(), "unmapped");
        exporting.stop();
    }
}

fn this_month() -> String {
    tacho::app::now().to_string()[..7].replace('-', ".")
}
