//! What a request is charged while its usage is not known, and when it becomes known: by the real binary, on both databases and
//! with each store of limits, over a restart.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tacho::persist::Store;

use crate::contract::execute;
use crate::support::client::{JSON, post};
use crate::support::postgres::Postgres;
use crate::support::redis::Redis;
use crate::support::tacho_process::Tacho;

const LIMITS: &str = r#"
[[limit]]
name = "tokens"
per = ["user"]
meter = "tokens"
quota = { limit = 100_000, period = "lifetime" }

[[limit]]
name = "of-models"
match = { model = "gpt-4o*" }
per = ["user", "model"]
meter = "output_tokens"
quota = { limit = 100_000, period = "lifetime" }

[[limit]]
name = "requests"
per = []
meter = "requests"
quota = { limit = 100, period = "lifetime" }

[[limit]]
name = "rate"
per = ["user"]
meter = "tokens"
rate = { limit = 100_000, period = "24h" }
"#;

const SETTINGS: [(&str, &str); 1] = [("TACHO_ASSEMBLE__QUIET", "200ms")];
const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";

/// Another one, that is newer than the record.
const LATER: &str = r#"
[[limit]]
name = "later"
per = ["user"]
meter = "tokens"
quota = { limit = 100_000, period = "lifetime" }
"#;

struct Place {
    backend: String,
    folder: tempfile::TempDir,
    url: String,
}

impl Place {
    fn new(backend: &str, url: Option<String>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let sqlite = || format!("sqlite:{}", folder.path().join("tacho.db").display());
        let url = url.unwrap_or_else(sqlite);
        let place = Self { backend: backend.to_owned(), folder, url };
        place.configure(LIMITS);
        place
    }

    fn configure(&self, limits: &str) {
        let Self { backend, folder, url } = self;
        let text = format!("[database]\nurl = \"{url}\"\n[limits]\ntimeout = \"5s\"\n{backend}\n{limits}");
        std::fs::write(folder.path().join("tacho.toml"), text).unwrap();
    }

    fn start(&self) -> Tacho {
        Tacho::start(self.folder.path(), &self.url, &SETTINGS)
    }

    fn says(&self, verb: &str) -> (i32, String) {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_tacho"));
        let output = command.arg(verb).current_dir(&self.folder).output().unwrap();
        let said = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap()).concat();
        (output.status.code().unwrap(), said)
    }

    /// What the database says of the limits, in their order.
    async fn used(&self) -> [i64; 4] {
        let store = Store::open(&*self.url, "test").await.unwrap();
        let mut used = [0; 4];
        for (used, limit) in used.iter_mut().zip(["tokens", "of-models", "requests", "later"]) {
            let found = store.counters(Some(limit), tacho::app::now(), 10).await.unwrap();
            *used = found.iter().map(|row| row.used).sum();
        }
        store.close().await;
        used
    }
}

fn attribute((key, value): (&str, Value)) -> Value {
    let kind = if value.is_number() { "intValue" } else { "stringValue" };
    json!({"key": key, "value": {kind: value}})
}

/// A body of one span; its scope is of its own, so that two of them may be one call.
fn body(trace: &str, span: u8, parent: Option<u8>, failed: bool, attributes: Vec<(&str, Value)>) -> String {
    let id = |number: u8| format!("{:016x}", u64::from(number) + 0xa0);
    let (start, scope) = (START.with(|start| *start), format!("scope {span}"));
    let span = json!({
        "traceId": trace,
        "spanId": id(span),
        "parentSpanId": parent.map(id).unwrap_or_default(),
        "name": "POST /chat",
        "kind": if parent.is_none() { 2 } else { 3 },
        "startTimeUnixNano": (start + u64::from(span)).to_string(),
        "endTimeUnixNano": (start + 1_000_000_000 - u64::from(span)).to_string(),
        "status": {"code": if failed { 2 } else { 0 }},
        "attributes": attributes.into_iter().map(attribute).collect::<Vec<_>>(),
    });
    json!({"resourceSpans": [{"scopeSpans": [{"scope": {"name": scope}, "spans": [span]}]}]}).to_string()
}

thread_local! {
    /// A second ago, the same for all bodies of a test.
    static START: u64 = tacho::app::now().0 - 2_000_000_000;
}

fn server(trace: &str, user: &str) -> String {
    let http = vec![
        ("http.request.method", json!("POST")),
        ("http.route", json!("/chat")),
        ("http.response.status_code", json!(200)),
        ("user.id", json!(user)),
    ];
    body(trace, 1, None, false, http)
}

fn chat(trace: &str, span: u8, parent: u8, failed: bool, more: Vec<(&str, Value)>) -> String {
    let mut attributes = vec![
        ("gen_ai.operation.name", json!("chat")),
        ("gen_ai.provider.name", json!("openai")),
        ("gen_ai.request.model", json!("gpt-4o-mini")),
    ];
    attributes.extend(more);
    body(trace, span, Some(parent), failed, attributes)
}

/// The call as its stream was cut off, and what another instrumentation says of it later.
fn cut(trace: &str) -> String {
    chat(trace, 2, 1, false, vec![])
}

fn known(trace: &str) -> String {
    let usage = vec![
        ("gen_ai.response.model", json!("gpt-4o-mini-2024-07-18")),
        ("gen_ai.usage.input_tokens", json!(500)),
        ("gen_ai.usage.output_tokens", json!(100)),
    ];
    chat(trace, 3, 2, false, usage)
}

async fn send(tacho: &Tacho, body: String) {
    let answer = post(JSON, body).send(tacho.otlp_http).await;
    assert_eq!(answer.status(), 200, "{}", answer.text());
}

async fn get(tacho: &Tacho, path: &'static str) -> Value {
    let answer = post(JSON, "").method("GET").path(path).token(&tacho.admin_token()).send(tacho.http).await;
    serde_json::from_str(&answer.text()).unwrap()
}

/// Waits until the limits of ann say so, and nothing is held.
async fn settled(tacho: &Tacho, used: [i64; 2]) {
    let begun = Instant::now();
    loop {
        let limits = get(tacho, "/v1/limits?user=ann&model=gpt-4o-mini").await["limits"].clone();
        if (0..2).all(|n| limits[n]["used"] == used[n] && limits[n]["held"] == 0) {
            return;
        }
        assert!(begun.elapsed() < Duration::from_secs(20), "{limits:#}, and not {used:?}\n{}", tacho.log());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn check(tacho: &Tacho, user: &str, trace: &str) {
    // By the dated name, and charged by the one in the price list.
    let ask = json!({
        "user": user, "model": "gpt-4o-mini-2024-07-18", "trace_id": trace, "input_tokens": 1000, "max_output_tokens": 2000,
    });
    let admitted = post(JSON, ask.to_string()).path("/v1/check").send(tacho.http).await;
    assert_eq!(admitted.status(), 200, "{}", admitted.text());
}

async fn what_becomes_known_replaces_what_was_held(place: &Place, between: &str) {
    let tacho = place.start();
    check(&tacho, "ann", TRACE).await;
    send(&tacho, server(TRACE, "ann")).await;
    send(&tacho, cut(TRACE)).await;
    settled(&tacho, [3000, 2000]).await;
    tacho.stop();
    assert_eq!(place.used().await, [3000, 2000, 1, 0]);
    let (code, said) = place.says("verify");
    assert_eq!(code, 0, "{said}");

    // The hold is forgotten, what was charged for it is not: even while other limits or none are configured.
    place.configure(between);
    let tacho = place.start();
    send(&tacho, known(TRACE)).await;
    until(&tacho, |records| records[0]["total_tokens"] == 600).await;
    tacho.stop();
    assert_eq!(place.used().await, [600, 100, 1, 0]);
    place.configure(LIMITS);
    let tacho = place.start();
    settled(&tacho, [600, 100]).await;
    for body in [cut(TRACE), known(TRACE), server(TRACE, "ann"), cut(TRACE)] {
        send(&tacho, body).await;
    }
    // A failed call, which names only what was asked for.
    let other = "0bf7651916cd43dd8448eb211c80319c";
    send(&tacho, server(other, "ann")).await;
    send(&tacho, chat(other, 2, 1, true, vec![("error.type", json!("RateLimitError"))])).await;
    until(&tacho, |records| records.len() == 2).await;
    let models = get(&tacho, "/v1/usage/summary?by=model").await["summary"].clone();
    let [model] = &models.as_array().unwrap()[..] else { panic!("{models:#}") };
    assert_eq!((&model["model"], &model["llm_calls"]), (&json!("gpt-4o-mini"), &json!(2)), "{models:#}");
    settled(&tacho, [600, 100]).await;
    tacho.stop();
    assert_eq!(place.used().await, [600, 100, 2, 0]);
    let (code, said) = place.says("verify");
    assert_eq!(code, 0, "{said}");
}

/// A bucket drains meanwhile, so it lacks no more than that.
async fn a_rate_gets_back_what_was_held(place: &Place) {
    const BOB: &str = "/v1/limits?user=bob&model=gpt-4o-mini";
    let trace = "0cf7651916cd43dd8448eb211c80319c";
    let tacho = place.start();
    check(&tacho, "bob", trace).await;
    send(&tacho, server(trace, "bob")).await;
    send(&tacho, cut(trace)).await;
    let of_bob = |records: &[Value]| records.iter().find(|row| row["user_id"] == "bob").cloned().unwrap_or_default();
    until(&tacho, |records| of_bob(records)["unknown_usage_calls"] == 1).await;
    let rate = async || get(&tacho, BOB).await["limits"][3]["used"].as_i64().unwrap();
    let lacks = rate().await;
    assert!((2000..=3000).contains(&lacks), "{lacks}");
    send(&tacho, known(trace)).await;
    until(&tacho, |records| of_bob(records)["total_tokens"] == 600).await;
    let begun = Instant::now();
    while rate().await > 600 {
        assert!(begun.elapsed() < Duration::from_secs(20), "{}", tacho.log());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    tacho.stop();
}

async fn until(tacho: &Tacho, is: impl Fn(&[Value]) -> bool) {
    let begun = Instant::now();
    while !is(get(tacho, "/v1/usage").await["records"].as_array().unwrap()) {
        assert!(begun.elapsed() < Duration::from_secs(20), "{}", tacho.log());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Somebody else spoils the counter of a quota and what a record is charged: it is named, and mended.
async fn what_is_spoilt_is_mended(place: &Place) {
    for (spoilt, named, mended) in [
        ("UPDATE limit_usage SET used = 3600 WHERE limit_name = 'tokens'", "limit usage", "3_600 -> 600"),
        ("UPDATE limit_charges SET estimate = 3000 WHERE amount = 600", "limit charge", "charges of records: 1"),
        ("UPDATE limit_charges SET amount = 7 WHERE amount = 600", "limit charge", "charges of records: 1"),
        ("DELETE FROM limit_usage WHERE limit_name = 'of-models'", "limit usage", "nothing -> 100"),
    ] {
        execute(&place.url, spoilt).await;
        let (code, said) = place.says("verify");
        assert!(code == 1 && said.contains(named), "{spoilt}: {said}");
        let (code, said) = place.says("rebuild");
        assert!(code == 0 && said.contains(mended), "{spoilt}: {said}");
        let (code, said) = place.says("verify");
        assert_eq!(code, 0, "{spoilt}: {said}");
    }
    execute(&place.url, "UPDATE limit_usage SET limit_name = 'of-models' WHERE limit_name = '?'").await;
    assert_eq!(place.used().await, [600, 100, 2, 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn usage_that_comes_late_is_charged_as_the_record_says_it() {
    let (postgres, redis) = (Postgres::start(), Redis::start());
    let shared = format!("backend = \"redis\"\nurl = \"{}\"", redis.url());
    let (later, database) = (format!("{LIMITS}{LATER}"), "backend = \"database\"");
    for (place, between) in [
        (Place::new("backend = \"memory\"", None), LIMITS),
        (Place::new(database, None), ""),
        (Place::new(database, Some(postgres.database("charges"))), &later),
        (Place::new(&shared, Some(postgres.database("shared"))), LIMITS),
    ] {
        what_becomes_known_replaces_what_was_held(&place, between).await;
        what_is_spoilt_is_mended(&place).await;
        a_rate_gets_back_what_was_held(&place).await;
    }
}
