//! Real SDKs in real bots: what Tacho recorded equals what the model server says it was asked for.

use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;
use tacho_core::domain::call::Usage;

use super::truth::rows_of;
use crate::support::bot::{Program, cache, python};
use crate::support::tacho_process::Tacho;

/// user, model, then input, output, cached and reasoning tokens.
type Line = (String, String, [u64; 4]);

fn logged(log: &Path) -> Vec<Line> {
    let text = std::fs::read_to_string(log).unwrap();
    let line = |line: &str| {
        let call: Value = serde_json::from_str(line).unwrap();
        let text = |name: &str| call[name].as_str().unwrap().to_owned();
        let counts = ["input", "output", "cached", "reasoning"].map(|name| call[name].as_u64().unwrap());
        (text("user"), text("model"), counts)
    };
    let mut lines: Vec<Line> = text.lines().map(line).collect();
    lines.sort_unstable();
    lines
}

async fn check(bot: impl FnOnce(&Tacho) -> Command) {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("calls.jsonl");
    let (model, model_address) = Program::start(python("llm_stand_in.py").arg("--log").arg(&log));
    let url = format!("sqlite:{}", folder.path().join("tacho.db").display());
    let tacho = Tacho::start(folder.path(), &url, &[]);
    let (bot, bot_address) = Program::start(
        bot(&tacho)
            .env("OPENAI_BASE_URL", format!("http://{model_address}/v1"))
            .env("OPENAI_API_KEY", "none")
            .env("OTEL_SERVICE_NAME", "bot-under-test")
            .env("OTEL_BSP_SCHEDULE_DELAY", "300")
            .env("OTEL_BSP_MAX_QUEUE_SIZE", "65536"),
    );
    let url_of_bot = format!("http://{bot_address}");
    let traffic = python("traffic.py")
        .args(["--url", &url_of_bot, "--requests", "400", "--concurrency", "200", "--users", "7"])
        .stdout(Stdio::null())
        .status()
        .unwrap();
    assert!(traffic.success());
    bot.stop();
    tacho.stop();
    model.stop();

    let rows = rows_of(&url).await;
    assert_eq!(rows.len(), 400, "one record a request, none for the health checks");
    let mut recorded: Vec<Line> = Vec::new();
    for request in &rows {
        assert_eq!(request.record.totals.unpriced_calls, 0);
        for call in &request.calls {
            let Usage::Reported(tokens) = call.usage else { panic!("usage unknown: {call:?}") };
            let user = request.record.user.as_deref().unwrap().to_owned();
            let counts = [tokens.input, tokens.output, tokens.cached_input, tokens.reasoning];
            recorded.push((user, call.told_model().unwrap().to_owned(), counts));
        }
    }
    recorded.sort_unstable();
    assert_eq!(recorded, logged(&log));
}

fn python_bot(tacho: &Tacho, protocol: &str, gzip: bool) -> Command {
    let address = if protocol == "grpc" { tacho.grpc } else { tacho.otlp_http };
    let mut bot = python("bot.py");
    bot.env("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://{address}")).env("OTEL_EXPORTER_OTLP_PROTOCOL", protocol);
    if gzip {
        bot.env("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip");
    }
    bot
}

#[tokio::test(flavor = "multi_thread")]
async fn a_python_bot_over_grpc() {
    check(|tacho| python_bot(tacho, "grpc", false)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_python_bot_over_grpc_with_gzip() {
    check(|tacho| python_bot(tacho, "grpc", true)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_python_bot_over_http_with_gzip() {
    check(|tacho| python_bot(tacho, "http/protobuf", true)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_bot_over_http_in_json() {
    check(|tacho| {
        let script = cache().join("node-client/bot.mjs");
        assert!(script.exists(), "{} is missing: run tests/setup.sh", script.display());
        let mut bot = Command::new("node");
        bot.arg(script).env("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://{}", tacho.otlp_http));
        bot
    })
    .await;
}
