//! The drill of the sinks: two instances on one Postgres export into a real server while it is stopped, slow, refuses and cuts, and
//! while they are killed. At the end its documents are the records, and its own sums are those of the database.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};
use sqlx::{Connection, PgConnection, Row};
use tokio::task::JoinSet;

use super::export::mapped_fields;
use crate::support::captures::{self, Transport};
use crate::support::client::{JSON, PROTOBUF, call, post};
use crate::support::half_refuser::HalfRefuser;
use crate::support::load::Shape;
use crate::support::postgres::Postgres;
use crate::support::proxy::{Fault, FaultProxy};
use crate::support::search::{SearchKind, SearchServer};
use crate::support::tacho_process::Tacho;

const PATIENCE: Duration = Duration::from_secs(120);
/// In the head of an answer or soon behind it.
const CUT: Fault = Fault::CutAfter(150);

#[tokio::test(flavor = "multi_thread")]
async fn documents_are_records_in_elasticsearch_7() {
    drill(SearchKind::Elasticsearch7, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn documents_are_records_in_opensearch_2() {
    drill(SearchKind::OpenSearch2, 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn documents_are_records_in_opensearch_3() {
    drill(SearchKind::OpenSearch3, 3).await;
}

async fn drill(kind: SearchKind, seed: u64) {
    let (folder, postgres) = (tempfile::tempdir().unwrap(), Postgres::start());
    let (mut server, url) = (SearchServer::start(kind).await, postgres.database("drill"));
    let half = HalfRefuser::before(server.url()).await;
    let proxy = FaultProxy::before(half.address()).await;
    set_up(folder.path(), &url, &proxy);
    let start = |name: &str| {
        let folder = folder.path().join(name);
        std::fs::create_dir_all(&folder).unwrap();
        Tacho::start(&folder, &url, &settings(&proxy).each_ref().map(|(name, value)| (*name, value.as_str())))
    };
    let mut twins = vec![start("one"), start("two")];
    let addresses = Arc::new(Mutex::new(Vec::new()));
    let listen = |twins: &[Tacho]| *addresses.lock().unwrap() = twins.iter().map(|tacho| tacho.otlp_http).collect();
    listen(&twins);
    let senders = Senders::start(seed, &addresses);
    let pause = |millis| tokio::time::sleep(Duration::from_millis(millis));
    pause(2_500).await;
    half.refuse(true);
    pause(2_500).await;
    half.refuse(false);
    for fault in [Fault::Delay(Duration::from_millis(700)), CUT, Fault::Refuse] {
        proxy.set(fault).await;
        pause(2_500).await;
    }
    proxy.set(Fault::None).await;
    server.kill();
    // Whoever serves the sink dies meanwhile; its twin takes over.
    twins.remove(0).signal("-KILL");
    pause(1_000).await;
    half.refuse(true);
    server.restart().await;
    pause(7_000).await;
    half.refuse(false);
    twins.push(start("one"));
    listen(&twins);
    proxy.set(CUT).await;
    pause(1_500).await;
    server.pause();
    twins.remove(0).signal("-KILL");
    pause(1_500).await;
    server.resume();
    twins.push(start("two"));
    listen(&twins);
    pause(3_000).await;
    proxy.set(Fault::None).await;
    let traces = senders.finish(&twins).await;
    let records = settled(&url, traces).await;
    let (refused, cut) = (half.refused(), proxy.answers_cut());
    assert!(refused > 0 && cut > 0, "{refused} documents refused, {cut} answers cut");
    equal(&server, &url, &records).await;
    let gone = records.values().filter(|record| record.state == "gone").count();
    let amended = records.values().filter(|record| record.revision > 1).count();
    println!(
        "{kind:?}: {} documents, {gone} gone, {amended} amended; {refused} refused, {cut} answers cut",
        records.len()
    );
    assert!(gone > 0 && amended > gone, "{gone} gone, {amended} amended");
    every_field_is_found(&server, &url, &twins[0]).await;
    for tacho in twins {
        tokio::task::spawn_blocking(|| tacho.stop()).await.unwrap();
    }
}

/// With all captures there is a document for each field of the shipped mappings, and the server finds it.
async fn every_field_is_found(server: &SearchServer, url: &str, tacho: &Tacho) {
    for body in captures::all().iter().flat_map(|capture| &capture.bodies) {
        match body.transport {
            Transport::Grpc => assert_eq!(call(&body.bytes).send(tacho.grpc).await, "Ok"),
            Transport::Protobuf => assert!(sent(tacho.otlp_http, &body.bytes).await),
            Transport::Json => {
                assert_eq!(post(JSON, body.bytes.clone()).send(tacho.otlp_http).await.status(), 200);
            }
        }
    }
    let begun = Instant::now();
    loop {
        server.refresh("tacho-usage-*").await;
        let mut missing = Vec::new();
        for field in mapped_fields("component-template.json") {
            let query = json!({"size": 0, "track_total_hits": true, "query": {"exists": {"field": &field}}});
            let found = server.search("tacho-usage-*", &query).await;
            if found["hits"]["total"]["value"].as_u64() == Some(0) {
                missing.push(field);
            }
        }
        if missing.is_empty() {
            return;
        }
        assert!(begun.elapsed() < PATIENCE, "in no document: {missing:?}; {url}");
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

fn settings(proxy: &FaultProxy) -> [(&'static str, String); 5] {
    [
        ("TACHO_ASSEMBLE__QUIET", "200ms".to_owned()),
        ("TACHO_ASSEMBLE__MAX_AGE", "1s".to_owned()),
        ("TACHO_TELEMETRY__LOG", "info".to_owned()),
        ("TACHO_EXPORT__ELASTICSEARCH__URLS", format!("[\"{}\"]", proxy.url())),
        ("TACHO_EXPORT__ELASTICSEARCH__START", "all".to_owned()),
    ]
}

fn set_up(folder: &Path, url: &str, proxy: &FaultProxy) {
    let done = std::process::Command::new(env!("CARGO_BIN_EXE_tacho"))
        .args(["setup", "elasticsearch"])
        .current_dir(folder)
        .env("TACHO_DATABASE__URL", url)
        .envs(settings(proxy))
        .output()
        .unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
}

/// Send calls first and their requests a while later, some too late: then the calls have a record of their own, which goes.
struct Senders {
    tasks: JoinSet<Vec<Vec<u8>>>,
    stop: Arc<AtomicBool>,
    traces: Arc<AtomicU64>,
}

impl Senders {
    fn start(seed: u64, addresses: &Arc<Mutex<Vec<SocketAddr>>>) -> Self {
        let (stop, traces) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let mut tasks = JoinSet::new();
        for sender in 0..3 {
            let (stop, traces) = (Arc::clone(&stop), Arc::clone(&traces));
            let addresses = Arc::clone(addresses);
            let mut random = StdRng::seed_from_u64(seed * 100 + sender);
            // Around the end of a month.
            let month_end = tacho_core::domain::time::Timestamp::parse("2026-11-01T00:00:00Z").unwrap().0;
            tasks.spawn(async move {
                let mut unsent = Vec::new();
                for unit in 0.. {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    let began = month_end - 500_000_000 + random.random_range(0..1_000_000_000);
                    let shape =
                        Shape { seed: seed * 100 + sender, traces: 20, calls: 2, users: 30, split: true, began };
                    let bodies = shape.unit(unit).bodies;
                    traces.fetch_add(shape.traces, Ordering::Relaxed);
                    let pauses =
                        [random.random_range(0..100), random.random_range(0..2) * random.random_range(800..3_000)];
                    for (body, pause) in bodies.into_iter().zip(pauses.into_iter().rev()) {
                        let address = {
                            let addresses = addresses.lock().unwrap();
                            addresses[random.random_range(0..addresses.len())]
                        };
                        if !sent(address, &body).await {
                            unsent.push(body);
                        }
                        tokio::time::sleep(Duration::from_millis(pause)).await;
                    }
                }
                unsent
            });
        }
        Self { tasks, stop, traces }
    }

    /// How many traces were sent, when the last body has been taken.
    async fn finish(self, twins: &[Tacho]) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        for body in self.tasks.join_all().await.into_iter().flatten() {
            while !sent(twins[0].otlp_http, &body).await {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
        self.traces.load(Ordering::Relaxed)
    }
}

/// Whether it was taken. A connection that fails is no fault of the test: its instance was killed.
async fn sent(address: SocketAddr, body: &[u8]) -> bool {
    let ask = post(PROTOBUF, body);
    let mut one = JoinSet::new();
    one.spawn(async move {
        tokio::net::TcpStream::connect(address).await.ok()?;
        Some(ask.send(address).await.status())
    });
    one.join_next().await.is_some_and(|answer| answer.is_ok_and(|status| status == Some(200)))
}

#[derive(Debug, PartialEq)]
struct Stored {
    state: String,
    revision: i64,
    user: Option<String>,
    tokens: i64,
    cost: Option<i64>,
    calls: usize,
    month: String,
}

/// Waits until every trace has its record and the sink has come to the end of the feed. The records and tombstones, by the id of their
/// document.
async fn settled(url: &str, traces: u64) -> BTreeMap<String, Stored> {
    let begun = Instant::now();
    let mut database = PgConnection::connect(url).await.unwrap();
    let count = "SELECT COUNT(*) FROM usage_records WHERE endpoint IS NOT NULL AND llm_calls = 2";
    let store = tacho::persist::Store::open(url, "drill").await.unwrap();
    loop {
        let written: i64 = sqlx::query_scalar(count).fetch_one(&mut database).await.unwrap();
        let cursors = store.export_cursors().await.unwrap();
        let usage = cursors.iter().find(|cursor| cursor.stream == tacho::persist::Stream::Usage).unwrap();
        let lacking = store.lacking_since(usage).await.unwrap();
        if written.cast_unsigned() == traces && lacking.is_none() {
            break;
        }
        assert!(begun.elapsed() < PATIENCE, "{written} of {traces} records, sink lacks since {lacking:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    store.close().await;
    let sql = "SELECT (EXTRACT(EPOCH FROM started_at) * 1000000)::bigint || '-' || trace_id || '-' || span_id, 'live', revision, \
               user_id, total_tokens, cost_nanousd, llm_calls, to_char(started_at AT TIME ZONE 'UTC', 'YYYY.MM') FROM usage_records \
               UNION ALL SELECT (EXTRACT(EPOCH FROM started_at) * 1000000)::bigint || '-' || trace_id || '-' || span_id, 'gone', \
               revision, NULL, 0, NULL, 0, to_char(started_at AT TIME ZONE 'UTC', 'YYYY.MM') FROM record_tombstones";
    let rows = sqlx::query(sql).fetch_all(&mut database).await.unwrap();
    let stored = rows.iter().map(|row| {
        let stored = Stored {
            state: row.get(1),
            revision: row.get(2),
            user: row.get(3),
            tokens: row.get(4),
            cost: row.get(5),
            calls: usize::try_from(row.get::<i64, _>(6)).unwrap(),
            month: row.get(7),
        };
        (row.get(0), stored)
    });
    stored.collect()
}

/// Every document against its record, and the sums that the server itself makes, without any filter.
async fn equal(server: &SearchServer, url: &str, records: &BTreeMap<String, Stored>) {
    server.refresh("tacho-usage-*").await;
    let mut documents = BTreeMap::new();
    let mut after = None;
    loop {
        let mut query = json!({"size": 5_000, "sort": [{"trace.id": "asc"}, {"span.id": "asc"}, {"@timestamp": "asc"}], "version": true});
        if let Some(after) = after {
            query["search_after"] = after;
        }
        let found = server.search("tacho-usage-*", &query).await;
        let hits = found["hits"]["hits"].as_array().unwrap();
        let Some(last) = hits.last() else { break };
        after = Some(last["sort"].clone());
        for hit in hits {
            let source = &hit["_source"];
            let stored = Stored {
                state: source["tacho"]["state"].as_str().unwrap().to_owned(),
                revision: source["tacho"]["revision"].as_i64().unwrap(),
                user: source["user"]["id"].as_str().map(str::to_owned),
                tokens: source["tacho"]["total_tokens"].as_i64().unwrap_or_default(),
                cost: source["tacho"]["cost_nanousd"].as_i64(),
                calls: source["tacho"]["calls"].as_array().map_or(0, Vec::len),
                month: hit["_index"].as_str().unwrap().trim_start_matches("tacho-usage-").to_owned(),
            };
            assert_eq!(hit["_version"].as_i64().unwrap(), (1 << 32) + stored.revision);
            assert!(documents.insert(hit["_id"].as_str().unwrap().to_owned(), stored).is_none(), "twice: {hit}");
        }
    }
    assert_eq!(documents.len(), records.len());
    assert_eq!(&documents, records);
    assert!(records.values().map(|record| &record.month).collect::<std::collections::BTreeSet<_>>().len() > 1);
    let mut database = PgConnection::connect(url).await.unwrap();
    for (field, column) in [("user.id", "user_id"), ("tacho.model", "model")] {
        let sum = |field: &str| json!({"sum": {"field": field}});
        let query = json!({"size": 0, "aggs": {"by": {
            "terms": {"field": field, "size": 1000},
            "aggs": {"tokens": sum("tacho.total_tokens"), "cost": sum("tacho.cost_nanousd"), "calls": sum("tacho.llm_calls")},
        }}});
        let found = server.search("tacho-usage-*", &query).await;
        let whole = |value: &Value| value["value"].as_f64().unwrap() as i64;
        let buckets = found["aggregations"]["by"]["buckets"].as_array().unwrap().iter();
        let theirs: BTreeMap<String, [i64; 3]> = buckets
            .map(|bucket| {
                let sums = ["tokens", "cost", "calls"].map(|name| whole(&bucket[name]));
                (bucket["key"].as_str().unwrap().to_owned(), sums)
            })
            .collect();
        let sql = format!(
            "SELECT {column}, SUM(total_tokens)::bigint, SUM(cost_nanousd)::bigint, SUM(llm_calls)::bigint FROM usage_records \
             WHERE {column} IS NOT NULL GROUP BY 1"
        );
        let rows = sqlx::query(sqlx::AssertSqlSafe(sql)).fetch_all(&mut database).await.unwrap();
        let ours = rows.iter().map(|row| (row.get(0), [row.get(1), row.get(2), row.get(3)])).collect();
        assert_eq!(theirs, ours, "by {field}");
    }
}
