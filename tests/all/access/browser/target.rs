//! The Tacho that is attacked, and all that must stay as it is.

use std::collections::BTreeMap;
use std::process::Command;

use serde::Serialize;
use serde_json::{Value, json};

use super::until;
use crate::support::client::{Answer, JSON, TRACES, post};
use crate::support::tacho_process::Tacho;

/// What a page would like to read.
pub const READS: [&str; 6] =
    ["/v1/usage", "/v1/accounts", "/v1/accounts/default/ann", "/v1/limits?user=ann", "/metrics", "/livez"];

const CONFIG: &str = r#"
[plans.free]
default = true
period = "lifetime"

[plans.pro]
period = "lifetime"

[[limit]]
name = "requests"
per = ["user"]
meter = "requests"
quota = { limit = 100, period = "lifetime" }

[[limit]]
name = "tokens"
per = ["user"]
meter = "tokens"
quota = { limit = 100000, period = "lifetime" }
"#;

pub struct Target {
    pub tacho: Tacho,
    folder: tempfile::TempDir,
    /// Two holds of ann's.
    reservations: [String; 2],
}

/// How many, by listener and reason.
pub type Refusals = BTreeMap<(String, String), usize>;

/// A request that changes something where it is let in.
#[derive(Serialize)]
pub struct Write {
    pub listener: &'static str,
    /// No other listener has it.
    pub path: &'static str,
    pub body: String,
}

impl Target {
    /// Ann has used something, and two of her requests are under way.
    pub async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("tacho.toml"), CONFIG).unwrap();
        let tacho = Tacho::start(folder.path(), "sqlite:tacho.db", &[("TACHO_ASSEMBLE__QUIET", "100ms")]);
        let mut target = Self { tacho, folder, reservations: Default::default() };
        assert_eq!(post(JSON, spans("ann", 1).to_string()).send(target.tacho.otlp_http).await.status(), 200);
        until("the usage is not recorded", async || target.limits().await[0]["used"] == 1).await;
        for place in 0..2 {
            let asked = post(JSON, r#"{"user": "ann"}"#).path("/v1/check").send(target.tacho.http).await;
            let allowed: Value = serde_json::from_str(&asked.text()).unwrap();
            target.reservations[place] = allowed["reservation"].as_str().unwrap().to_owned();
        }
        until("two requests are not held", async || target.limits().await[0]["held"] == 2).await;
        target
    }

    pub fn token(&self) -> String {
        self.tacho.admin_token()
    }

    /// Where it can be, a body has an equals sign, so that a form can send it as it is.
    pub fn writes(&self) -> Vec<Write> {
        let [one, two] = &self.reservations;
        let write = |listener, path, body: Value| Write { listener, path, body: body.to_string() };
        vec![
            write("http", "/v1/check", json!({"user": "ann", "endpoint": "a=b"})),
            write("http", "/v1/settle", json!({"reservation": one, "input_tokens": 5})),
            write("http", "/v1/release", json!({"reservation": two})),
            write("http", "/v1/accounts/default/ann/reset", json!({"reason": "a=b"})),
            write("http", "/v1/accounts/default/ann/plan", json!({"plan": "pro", "reason": "a=b"})),
            write("otlp_http", "/v1/traces", spans("eve", 2)),
            write("otlp_http", "/v1/logs", json!({"resourceLogs": [], "a": "a=b"})),
            write("otlp_grpc", TRACES, spans("eve", 2)),
        ]
    }

    async fn get(&self, path: &'static str) -> Answer {
        post(JSON, "").method("GET").path(path).token(&self.token()).send(self.tacho.http).await
    }

    /// How ann's limits stand.
    async fn limits(&self) -> Value {
        serde_json::from_str::<Value>(&self.get("/v1/limits?user=ann").await.text()).unwrap()["limits"].take()
    }

    /// All rows of the database but those of the store of limits, which renews them by itself; how ann's limits stand;
    /// and all metrics but `MOVING`.
    pub async fn state(&self) -> String {
        let output = Command::new("sqlite3").arg(self.folder.path().join("tacho.db")).arg(".dump").output();
        let output = output.expect("sqlite3 is missing: run tests/setup.sh");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let rows = String::from_utf8(output.stdout).unwrap();
        let renewed = ["INSERT INTO rate_limits ", "INSERT INTO limit_instances "];
        let rows: Vec<&str> = rows.lines().filter(|row| !renewed.iter().any(|begin| row.starts_with(begin))).collect();
        assert!(rows.iter().any(|row| row.contains("'ann'")), "the reading of rows is broken");
        let metrics = self.get("/metrics").await.text();
        let metrics = metrics.lines().filter(|line| !line.starts_with(['#']) && !may_move(line));
        let rows = rows.join("\n");
        format!("{rows}\n{:#}\n{}\n", self.limits().await, metrics.collect::<Vec<_>>().join("\n"))
    }

    /// The same requests from a program, which change something each.
    pub async fn programs_can(&self) {
        for Write { listener, path, body } in self.writes() {
            let address = match listener {
                "http" => self.tacho.http,
                "otlp_http" => self.tacho.otlp_http,
                // It takes no JSON.
                _ => continue,
            };
            let before = self.state().await;
            let answer = post(JSON, body).path(path).token(&self.token()).send(address).await;
            assert_eq!(answer.status(), 200, "{path}: {}", answer.text());
            until(&format!("{path} changes nothing"), async || self.state().await != before).await;
        }
    }

    /// Requests that were refused, by listener and reason.
    pub async fn refused(&self) -> Refusals {
        let metrics = self.get("/metrics").await.text();
        let refused = metrics.lines().filter_map(|line| {
            let (labels, count) = line.strip_prefix("tacho_access_refused_total{")?.split_once("} ")?;
            let mut values = labels.split('"').skip(1).step_by(2).map(str::to_owned);
            Some(((values.next()?, values.next()?), count.parse().unwrap()))
        });
        refused.filter(|(_, count)| *count > 0).collect()
    }
}

/// What may move: connections, refusals, and gauges that follow with a delay what `/v1/limits` says at once.
const MOVING: [&str; 4] =
    ["tacho_access_refused_total", "tacho_connections", "tacho_limit_subjects_over", "tacho_limit_used_ratio"];

fn may_move(line: &str) -> bool {
    MOVING.iter().any(|name| line.starts_with(name))
}

/// A request of this user with a call.
fn spans(user: &str, trace: u8) -> Value {
    let attribute = |key: &str, value: Value| json!({"key": key, "value": value});
    let text = |key: &str, value: &str| attribute(key, json!({"stringValue": value}));
    let count = |key: &str, value: &str| attribute(key, json!({"intValue": value}));
    let span = |id: u8, kind: u8, attributes: Value| {
        json!({
            "traceId": format!("{trace:032x}"), "spanId": format!("{id:016x}"), "name": "a=b", "kind": kind,
            "startTimeUnixNano": "1790000000000000000", "endTimeUnixNano": "1790000001000000000",
            "attributes": attributes,
        })
    };
    let mut call = span(
        2,
        3,
        json!([
            text("gen_ai.operation.name", "chat"),
            text("gen_ai.provider.name", "openai"),
            text("gen_ai.request.model", "gpt-4o"),
            count("gen_ai.usage.input_tokens", "120"),
            count("gen_ai.usage.output_tokens", "40"),
        ]),
    );
    call["parentSpanId"] = format!("{:016x}", 1).into();
    let request = span(
        1,
        2,
        json!([
            text("http.request.method", "POST"),
            text("http.route", "/chat"),
            text("enduser.id", user),
            count("http.response.status_code", "200"),
        ]),
    );
    json!({"resourceSpans": [{
        "resource": {"attributes": [text("service.name", "bot")]}, "scopeSpans": [{"spans": [request, call]}],
    }]})
}
