//! Small inputs made after public reports of meters that count wrong, each with the values that are right as queries: in any order and
//! with any repetition, on both databases.

use std::path::Path;
use std::time::Duration;

use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use serde_json::Value;

use super::durability::query;
use crate::support::captures::{Body, Transport};
use crate::support::client::{JSON, post};
use crate::support::postgres::Postgres;
use crate::support::tacho_process::Tacho;

struct Case {
    name: String,
    bodies: Vec<Body>,
    expected: Value,
}

fn cases() -> Vec<Case> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/cases");
    let mut folders: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    folders.sort();
    assert!(folders.len() >= 10, "the cases are not here");
    let read = |folder: &std::path::PathBuf| {
        let bodies = (1..).map(|n| folder.join(format!("{n}.json"))).take_while(|file| file.exists());
        let body = |file| Body { transport: Transport::Json, bytes: std::fs::read(file).unwrap() };
        Case {
            name: folder.file_name().unwrap().to_string_lossy().into_owned(),
            bodies: bodies.map(body).collect(),
            expected: serde_json::from_slice(&std::fs::read(folder.join("expected.json")).unwrap()).unwrap(),
        }
    };
    folders.iter().map(read).collect()
}

/// Each row as one text: the query is `select a,b from …`.
fn as_texts(sql: &str) -> String {
    let (columns, rest) = sql.strip_prefix("select ").unwrap().split_once(" from ").unwrap();
    let columns: Vec<String> =
        columns.split(',').map(|column| format!("COALESCE(CAST({column} AS TEXT), 'null')")).collect();
    format!("SELECT {} FROM {rest}", columns.join(" || '|' || "))
}

fn as_text(row: &Value) -> String {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    row.as_array().unwrap().iter().map(text).collect::<Vec<_>>().join("|")
}

async fn faults(case: &Case, url: &str, metrics: &str) -> Vec<String> {
    let mut faults = Vec::new();
    for check in case.expected["checks"].as_array().unwrap() {
        let (what, sql) = (&check["what"], check["sql"].as_str().unwrap());
        let want: Vec<String> = check["want"].as_array().unwrap().iter().map(as_text).collect();
        let found = if let Some(text) = sql.strip_prefix("metrics:") {
            vec![metrics.lines().filter(|line| line.contains(text)).count().to_string()]
        } else if sql == "answers" {
            // All bodies were taken, or the run had ended.
            want.clone()
        } else {
            let rows = query(url, &as_texts(sql)).await;
            // Postgres has its own word for 1.
            rows.into_iter().map(|row| row.replace("|true", "|1")).collect()
        };
        if want != found {
            faults.push(format!("{} {what}: expected {want:?}, found {found:?}", case.name));
        }
    }
    faults
}

#[tokio::test(flavor = "multi_thread")]
async fn every_case_has_its_right_values_in_any_order_on_both_databases() {
    let cases = cases();
    let plain: Vec<Body> = cases.iter().flat_map(|case| case.bodies.clone()).collect();
    let backwards: Vec<Body> = plain.iter().rev().cloned().collect();
    let twice: Vec<Body> = plain.iter().flat_map(|body| [body.clone(), body.clone()]).collect();
    let mut singles: Vec<Body> = plain.iter().flat_map(Body::singles).collect();
    singles.shuffle(&mut StdRng::seed_from_u64(7));
    let postgres = Postgres::start();
    for (name, bodies) in [("plain", &plain), ("backwards", &backwards), ("twice", &twice), ("singles", &singles)] {
        for embedded in [true, false] {
            let folder = tempfile::tempdir().unwrap();
            let sqlite = format!("sqlite:{}", folder.path().join("tacho.db").display());
            let url = if embedded { sqlite } else { postgres.database(name) };
            let settings = [("TACHO_ASSEMBLE__IGNORE", "[]"), ("TACHO_ASSEMBLE__QUIET", "300ms")];
            let tacho = Tacho::start(folder.path(), &url, &settings);
            for body in bodies {
                let answer = post(JSON, body.bytes.clone()).send(tacho.otlp_http).await;
                assert_eq!(answer.status(), 200, "{name}: {}", answer.text());
            }
            tokio::time::sleep(Duration::from_millis(1_500)).await;
            let metrics = post(JSON, "").method("GET").path("/metrics").send(tacho.http).await.text();
            tacho.stop();
            let mut all = Vec::new();
            for case in &cases {
                all.extend(faults(case, &url, &metrics).await);
            }
            let records: u64 = cases.iter().map(|case| case.expected["want_records"].as_u64().unwrap()).sum();
            let found = query(&url, "SELECT CAST(COUNT(*) AS TEXT) FROM usage_records").await;
            assert!(all.is_empty(), "{name}, embedded {embedded}:\n{}", all.join("\n"));
            assert_eq!(found, [records.to_string()], "{name}, embedded {embedded}");
        }
    }
}
