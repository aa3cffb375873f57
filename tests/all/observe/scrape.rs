//! The page as real programs read it: promtool's lint, and a Prometheus that scrapes it with exemplars.

use std::path::Path;

use super::day;
use crate::support::client::{JSON, PROTOBUF, post};
use crate::support::load::Shape;
use crate::support::prometheus::{Prometheus, lint};
use crate::support::tacho_process::Tacho;

const SETTINGS: [(&str, &str); 2] = [("TACHO_ASSEMBLE__QUIET", "100ms"), ("TACHO_METRICS__PER_USER_TOP", "3")];

async fn page(tacho: &Tacho) -> String {
    post(JSON, "").method("GET").path("/metrics").send(tacho.http).await.text()
}

/// Sends some traces and waits until they are counted.
async fn used(tacho: &Tacho) {
    let began = tacho_core::domain::time::Timestamp(1_790_000_000_000_000_000).0;
    let unit = Shape { seed: 7, traces: 20, calls: 2, users: 5, split: false, began }.unit(0);
    for body in unit.bodies {
        assert_eq!(post(PROTOBUF, body).send(tacho.otlp_http).await.status(), 200);
    }
    while !page(tacho).await.contains("tacho_persist_records_total{result=\"new\"} 20\n") {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn promtool_finds_nothing_to_say() {
    let folder = tempfile::tempdir().unwrap();
    let tacho = Tacho::start(folder.path(), "sqlite:tacho.db", &SETTINGS);
    lint(&page(&tacho).await);
    used(&tacho).await;
    lint(&page(&tacho).await);
    lint(&day::last_page());
    tacho.stop();
}

fn configuration(folder: &Path, tacho: &Tacho) -> std::path::PathBuf {
    let path = folder.join("prometheus.yml");
    let config = format!(
        "global: {{ scrape_interval: 1s }}\nscrape_configs:\n- job_name: tacho\n  static_configs: [{{ targets: ['{}'] }}]\n",
        tacho.http
    );
    std::fs::write(&path, config).unwrap();
    path
}

#[tokio::test]
async fn prometheus_keeps_the_exemplars() {
    let folder = tempfile::tempdir().unwrap();
    let tacho = Tacho::start(folder.path(), "sqlite:tacho.db", &SETTINGS);
    let prometheus = Prometheus::start(&configuration(folder.path(), &tacho), |_| {}).await;
    used(&tacho).await;
    prometheus.until("sum(tacho_requests_total) == 20", |found| !found.is_empty()).await;
    let records = post(JSON, "")
        .method("GET")
        .path("/v1/usage?limit=1000")
        .token(&tacho.admin_token())
        .send(tacho.http)
        .await
        .text();
    let (start, end) = ("2026-01-01T00:00:00Z", "2100-01-01T00:00:00Z");
    for family in [
        "tacho_request_duration_seconds_bucket",
        "tacho_llm_call_duration_seconds_bucket",
        "tacho_tokens_total",
        "tacho_cost_usd_total",
    ] {
        let found = prometheus.get("query_exemplars", &[("query", family), ("start", start), ("end", end)]).await;
        let exemplars: Vec<&serde_json::Value> =
            found.as_array().unwrap().iter().flat_map(|series| series["exemplars"].as_array().unwrap()).collect();
        assert!(!exemplars.is_empty(), "{family} has none: {}", prometheus.log());
        for exemplar in exemplars {
            let trace = exemplar["labels"]["trace_id"].as_str().unwrap();
            assert!(records.contains(trace), "{family}: {trace} is of no record");
        }
    }
    tacho.stop();
}
