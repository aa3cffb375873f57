//! What was charged stays charged, whatever is sent again or comes late, and whichever prices hold by then.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::durability::{query, until};
use crate::install::verbs::tacho as tacho_says;
use crate::support::client::{JSON, post};
use crate::support::postgres::Postgres;
use crate::support::tacho_process::Tacho;

/// An hour of 2026-09-21.
const BEGAN: u64 = 1_790_000_000_000_000_000;

/// A request of this trace, and its calls: a span, how many input tokens, how many milliseconds.
fn body(trace: u8, calls: &[(u8, u64, u64)]) -> Value {
    let text = |key: &str, value: &str| json!({"key": key, "value": {"stringValue": value}});
    let span = |id: u8, kind: u8, milliseconds: u64, attributes: Vec<Value>| {
        json!({"traceId": hex(trace, 16), "spanId": hex(id, 8), "parentSpanId": if id == 1 { String::new() } else { hex(1, 8) },
               "name": "POST /chat", "kind": kind, "startTimeUnixNano": BEGAN.to_string(),
               "endTimeUnixNano": (BEGAN + milliseconds * 1_000_000).to_string(), "attributes": attributes})
    };
    let mut spans = vec![span(1, 2, 900, vec![text("http.request.method", "POST"), text("http.route", "/chat")])];
    for &(id, input, milliseconds) in calls {
        let tokens = json!({"key": "gen_ai.usage.input_tokens", "value": {"intValue": input.to_string()}});
        let model = text("gen_ai.request.model", "model-a");
        spans.push(span(id, 3, milliseconds, vec![text("gen_ai.provider.name", "house"), model, tokens]));
    }
    json!({"scopeSpans": [{"scope": {"name": "test"}, "spans": spans}]})
}

fn hex(byte: u8, bytes: usize) -> String {
    format!("{byte:02x}").repeat(bytes)
}

async fn send(tacho: &Tacho, bodies: &[Value]) {
    let answer = post(JSON, json!({"resourceSpans": bodies}).to_string()).send(tacho.otlp_http).await;
    assert_eq!(answer.status(), 200, "{}", answer.text());
}

fn write_price(path: &Path, input: u64) {
    let own =
        format!(r#"{{"providers":[{{"id":"house","models":[{{"id":"model-a","prices":[{{"input":{input}}}]}}]}}]}}"#);
    std::fs::write(path, own).unwrap();
}

async fn reload(tacho: &Tacho) {
    tacho.signal("-HUP");
    let begun = Instant::now();
    while !tacho.log().contains("configuration reloaded") {
        assert!(begun.elapsed() < Duration::from_secs(60), "not reloaded: {}", tacho.log());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The calls of the first trace: span, cost in nano-dollars, whether the list is the first one.
async fn charged(url: &str, first: &str) -> Vec<String> {
    let sql = format!(
        "SELECT substr(span_id, 1, 2) || ' ' || cost_nanousd || CASE WHEN price_version = '{first}' THEN ' first' \
         ELSE ' second' END FROM llm_calls WHERE trace_id = '{}' ORDER BY span_id",
        hex(1, 16)
    );
    query(url, &sql).await
}

#[tokio::test]
async fn what_was_charged_stays_charged() {
    let server = Postgres::start();
    let sqlite = tempfile::tempdir().unwrap();
    for url in [format!("sqlite:{}", sqlite.path().join("tacho.db").display()), server.database("prices")] {
        let folder = tempfile::tempdir().unwrap();
        let prices = folder.path().join("own.json");
        write_price(&prices, 2_500_000_000);
        let settings = [("TACHO_ASSEMBLE__QUIET", "100ms"), ("TACHO_PRICES__OVERRIDE", prices.to_str().unwrap())];
        let tacho = Tacho::start(folder.path(), &url, &settings);
        let first = body(1, &[(2, 1_000_000, 500)]);
        send(&tacho, std::slice::from_ref(&first)).await;
        until(&tacho, "tacho_persist_records_total{result=\"new\"} 1").await;
        let version = query(&url, "SELECT price_version FROM llm_calls").await.remove(0);
        assert!(version.starts_with("override:") && version.contains("own.json+"), "{version}");
        assert_eq!(charged(&url, &version).await, ["02 2500000000 first"]);

        // Other prices, and the same body again, beside a trace that tells when it was seen.
        write_price(&prices, 9_000_000_000);
        reload(&tacho).await;
        send(&tacho, &[first, body(2, &[(2, 1_000_000, 500)])]).await;
        until(&tacho, "tacho_persist_records_total{result=\"new\"} 2").await;
        assert_eq!(charged(&url, &version).await, ["02 2500000000 first"]);

        // A late call has the new price; the one before it stays as it was.
        send(&tacho, &[body(1, &[(3, 1_000_000, 501)])]).await;
        until(&tacho, "tacho_persist_records_total{result=\"amended\"} 1").await;
        assert_eq!(charged(&url, &version).await, ["02 2500000000 first", "03 9000000000 second"]);

        // A late span of the first call has other tokens.
        send(&tacho, &[body(1, &[(2, 2_000_000, 600)])]).await;
        until(&tacho, "tacho_persist_records_total{result=\"amended\"} 2").await;
        assert_eq!(charged(&url, &version).await, ["02 18000000000 second", "03 9000000000 second"]);
        let cost = "SELECT CAST(cost_nanousd AS TEXT) FROM usage_records ORDER BY trace_id";
        assert_eq!(query(&url, cost).await, ["27000000000", "9000000000"]);
        tacho.stop();
        let mut verify = Command::new(env!("CARGO_BIN_EXE_tacho"));
        let verdict = verify.arg("verify").current_dir(&folder).env("TACHO_DATABASE__URL", &url).output().unwrap();
        assert!(verdict.status.success(), "{verdict:?}");
    }
}

#[test]
fn the_price_of_a_call_can_be_asked() {
    let folder = tempfile::tempdir().unwrap();
    write_price(&folder.path().join("own.json"), 2_500_000_000);
    std::fs::write(folder.path().join("tacho.toml"), "[prices]\noverride = \"own.json\"\n").unwrap();
    let check = |arguments: &str, code: i32, said: &str| {
        let (ended, text) = tacho_says(folder.path(), &arguments.split(' ').collect::<Vec<_>>());
        assert!(ended == code && text.contains(said), "{arguments}: {ended} {text}");
    };
    check("prices model-a --provider house --input 1000", 0, "\ncost: 0.0025 USD\n");
    check("prices model-a --provider house", 0, "model-a of house, by override:own.json+");
    check("prices grok-4-0709 --provider openai --host api.x.ai --input 2000 --output 500", 0, "\ncost: 0.0135 USD\n");
    check("prices gpt-oss-120b --provider openai --host api.cerebras.ai --json", 0, "\"provider\": \"cerebras\"");
    check("prices gpt-4o --at 2026-05-01", 0, "by genai-prices 0.2.3+");
    check("prices none-such --provider openai", 1, "no price (unknown_model)");
    check("prices gpt-4o --host llm.example", 1, "no price (unknown_host)");
    check("prices gpt-4o --at yesterday", 2, "`yesterday` is no date");
    check("prices", 2, "<MODEL>");
    std::fs::write(folder.path().join("own.json"), "{").unwrap();
    check("prices gpt-4o", 2, "own.json, line 1");
}
