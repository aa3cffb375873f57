//! `tacho explain` of five captured traces, as golden files: they must read well.

use std::process::Command;

use expect_test::expect_file;

use super::durability::{query, until};
use crate::support::captures::{self, Transport};
use crate::support::client::{JSON, PROTOBUF, call, post};
use crate::support::tacho_process::Tacho;

/// A capture, a scenario in it, and what is explained by it.
const EXPLAINED: [(&str, &str, &str); 5] = [
    ("js-langchain-openinference-plus-openai-koa", "chain2", "twins"),
    ("litellm-otel-default-grpc", "two_providers", "server"),
    ("logfire-openai-anthropic", "anthropic_stream", "log"),
    ("strands-agents", "delegate", "agents"),
    ("bedrock-botocore-django", "llm500", "failure"),
];

#[tokio::test(flavor = "multi_thread")]
async fn a_trace_is_explained_on_the_command_line_and_over_http() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}", folder.path().join("tacho.db").display());
    let tacho = Tacho::start(folder.path(), &url, &[("TACHO_ASSEMBLE__QUIET", "300ms")]);
    let captures = captures::all();
    for body in captures
        .iter()
        .filter(|capture| EXPLAINED.iter().any(|(name, ..)| capture.name == *name))
        .flat_map(|c| &c.bodies)
    {
        let answer = match body.transport {
            Transport::Grpc => call(&body.bytes).send(tacho.grpc).await,
            Transport::Protobuf => post(PROTOBUF, body.bytes.clone()).send(tacho.otlp_http).await.line(),
            Transport::Json => post(JSON, body.bytes.clone()).send(tacho.otlp_http).await.line(),
        };
        assert!(answer.starts_with("200") || answer.starts_with("Ok"), "{answer}");
    }
    until(&tacho, "tacho_assemble_open_traces 0").await;
    tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    for (name, scenario, file) in EXPLAINED {
        let capture = captures.iter().find(|capture| capture.name == name).unwrap();
        let requests = capture.expected["requests"].as_array().unwrap();
        let request = requests.iter().find(|request| request["scenario"] == scenario).unwrap();
        let span = request["observable"]["server_span_id"].as_str().unwrap();
        let trace =
            query(&url, &format!("SELECT trace_id FROM usage_records WHERE span_id = '{span}'")).await.remove(0);
        let text = said(folder.path(), &url, &["explain", &trace]);
        expect_file![format!("../../golden/explain/{file}.txt")].assert_eq(&text);
        let json: serde_json::Value =
            serde_json::from_str(&said(folder.path(), &url, &["explain", &trace, "--json"])).unwrap();
        let answer = post(JSON, "").method("GET").path(&*format!("/v1/traces/{trace}/explain").leak());
        let answer = answer.token(&tacho.admin_token()).send(tacho.http).await;
        assert_eq!(serde_json::from_str::<serde_json::Value>(&answer.text()).unwrap(), json);
        let known = ["request", "call", "aggregate", "twin", "no_call", "ignored"];
        assert!(
            json["spans"].as_array().unwrap().iter().all(|span| known.contains(&span["taken_for"].as_str().unwrap()))
        );
    }
    let unknown = "0".repeat(31) + "1";
    let answer = post(JSON, "").method("GET").path(&*format!("/v1/traces/{unknown}/explain").leak());
    assert_eq!(answer.token(&tacho.admin_token()).send(tacho.http).await.status(), 404);
    tacho.stop();
}

fn said(folder: &std::path::Path, url: &str, arguments: &[&str]) -> String {
    let mut tacho = Command::new(env!("CARGO_BIN_EXE_tacho"));
    let output = tacho.args(arguments).env("TACHO_DATABASE__URL", url).current_dir(folder).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}
