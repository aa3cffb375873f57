//! Records into a real search server, beside a plain loop that sends the same documents: how many a second, and what each costs.
//!
//!     cargo bench --bench export -- [sqlite|postgres] [UNITS] [CALLS A REQUEST]
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a measurement stops at the first surprise, and prints")]

#[path = "../tests/all/support/bot.rs"]
#[allow(dead_code, unreachable_pub, reason = "others use the rest")]
mod bot;
#[path = "../tests/all/support/client.rs"]
#[allow(dead_code, reason = "others use the rest")]
mod client;
#[path = "../tests/all/support/load.rs"]
#[allow(dead_code, reason = "others use the rest")]
mod load;
#[path = "../tests/all/support/postgres.rs"]
#[allow(dead_code, reason = "others use the rest")]
mod postgres;
#[path = "../tests/all/support/search.rs"]
#[allow(dead_code, unreachable_pub, reason = "others use the rest")]
mod search;
#[path = "../tests/all/support/tacho_process.rs"]
#[allow(dead_code, reason = "others use the rest")]
mod tacho_process;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sqlx::{Connection, PgConnection, SqliteConnection};
use tokio::task::JoinSet;

use client::{Channel, JSON, call, post};
use load::Shape;
use postgres::Postgres;
use search::{SearchKind, SearchServer};
use tacho_process::Tacho;

/// Documents in a request of the plain loop.
const BATCH: usize = 2_000;

#[tokio::main]
async fn main() {
    // Cargo adds `--bench`.
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    let number = |place: usize, default| arguments.get(place).map_or(default, |text| text.parse().unwrap());
    let folder = tempfile::tempdir().unwrap();
    let server = (arguments.first().map(String::as_str) == Some("postgres")).then(Postgres::start);
    let url = server.as_ref().map_or_else(
        || format!("sqlite:{}", folder.path().join("tacho.db").display()),
        |server| server.database("bench"),
    );
    let records = fill(folder.path(), &url, number(1, 400), number(2, 3)).await;
    let search = SearchServer::start(SearchKind::OpenSearch2).await;
    let mut template: Value =
        serde_json::from_str(include_str!("../deploy/elasticsearch/component-template.json")).unwrap();
    template["index_patterns"] = json!(["round*", "plain*"]);
    search.put("/_index_template/all", &template).await;
    // The first run warms the server up.
    for round in 0..3 {
        export(folder.path(), &url, &search, records, round).await;
        for connections in [1, 4] {
            plain(&search, records, round, connections).await;
        }
    }
}

/// Records in the database, before there is a sink.
async fn fill(folder: &Path, url: &str, units: u64, calls: u64) -> usize {
    let tacho = Tacho::start(folder, url, &[("TACHO_TELEMETRY__LOG", "warn")]);
    let began = tacho::app::now().0 - 2_000_000_000;
    let shape = Shape { seed: 1, traces: 512 / (1 + calls), calls, users: 10_000, split: false, began };
    let mut channel = Channel::open(tacho.grpc).await.unwrap();
    for unit in 0..units {
        while channel.send(&call(&shape.unit(unit).bodies[0])).await.unwrap() != "Ok" {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
    let records = usize::try_from(shape.traces * units).unwrap();
    while metric(&tacho, "tacho_persist_records_total{result=\"new\"}").await < records {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    tacho.stop();
    println!("{records} records with {calls} calls each");
    records
}

async fn export(folder: &Path, url: &str, search: &SearchServer, records: usize, round: u32) {
    let (urls, index) = (format!("[\"{}\"]", search.url()), format!("round{round}-usage"));
    let settings = [
        ("TACHO_TELEMETRY__LOG", "warn"),
        ("TACHO_EXPORT__ELASTICSEARCH__URLS", urls.as_str()),
        ("TACHO_EXPORT__ELASTICSEARCH__INDEX", &index),
        ("TACHO_EXPORT__ELASTICSEARCH__START", "all"),
    ];
    begin_anew(url).await;
    let tacho = Tacho::start(folder, url, &settings);
    let written = "tacho_export_documents_total{result=\"written\",sink=\"elasticsearch\"}";
    while metric(&tacho, written).await == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let (before, begun, cpu) = (metric(&tacho, written).await, Instant::now(), tacho.cpu_time());
    while metric(&tacho, written).await < records {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let (documents, time, cpu) = ((records - before) as f64, begun.elapsed(), tacho.cpu_time() - cpu);
    println!(
        "tacho:              {:>6.0} documents/s, {:.1} us of CPU each, peak memory {} MiB",
        documents / time.as_secs_f64(),
        cpu.as_secs_f64() * 1e6 / documents,
        tacho.peak_memory() >> 20
    );
    tacho.stop();
}

/// As if there had been no sink yet.
async fn begin_anew(url: &str) {
    const FORGET: &str = "DELETE FROM export_cursors";
    if url.starts_with("sqlite:") {
        let mut database = SqliteConnection::connect(url).await.unwrap();
        sqlx::query(FORGET).execute(&mut database).await.unwrap();
        return database.close().await.unwrap();
    }
    let mut database = PgConnection::connect(url).await.unwrap();
    sqlx::query(FORGET).execute(&mut database).await.unwrap();
}

/// The same documents, made ready before, by so many connections.
async fn plain(search: &SearchServer, records: usize, round: u32, connections: usize) {
    let bodies = Arc::new(bodies(search, round, connections).await);
    let (next, begun) = (Arc::new(AtomicUsize::new(0)), Instant::now());
    let mut senders = JoinSet::new();
    for _ in 0..connections {
        let (bodies, next, url) = (Arc::clone(&bodies), Arc::clone(&next), format!("{}/_bulk", search.url()));
        senders.spawn(async move {
            let client = reqwest::Client::builder().no_proxy().build().unwrap();
            while let Some(body) = bodies.get(next.fetch_add(1, Ordering::Relaxed)) {
                let ask = client.post(&url).header("content-type", "application/x-ndjson").body(body.clone());
                let answer: Value = serde_json::from_slice(&ask.send().await.unwrap().bytes().await.unwrap()).unwrap();
                assert_eq!(answer["errors"], false);
            }
        });
    }
    senders.join_all().await;
    println!("plain, {connections} connections: {:>6.0} documents/s", records as f64 / begun.elapsed().as_secs_f64());
}

async fn bodies(search: &SearchServer, round: u32, connections: usize) -> Vec<String> {
    let index = format!("round{round}-usage-*");
    search.refresh(&index).await;
    let (mut bodies, mut after) = (Vec::new(), Value::Null);
    loop {
        let mut query = json!({"size": BATCH, "sort": ["_doc"], "query": {"match_all": {}}});
        query["sort"] = json!([{"_id": "asc"}]);
        if !after.is_null() {
            query["search_after"] = after;
        }
        let found = search.search(&index, &query).await;
        let hits = found["hits"]["hits"].as_array().unwrap();
        let Some(last) = hits.last() else { return bodies };
        after = last["sort"].clone();
        let lines = hits.iter().map(|hit| {
            let action = json!({"index": {
                "_index": format!("plain{round}-{connections}"), "_id": hit["_id"], "version": 1, "version_type": "external",
            }});
            format!("{action}\n{}\n", hit["_source"])
        });
        bodies.push(lines.collect());
    }
}

async fn metric(tacho: &Tacho, name: &str) -> usize {
    let metrics = post(JSON, "").method("GET").path("/metrics").send(tacho.http).await.text();
    metrics.lines().find_map(|line| line.strip_prefix(name)).map_or(0, |count| count.trim().parse().unwrap())
}
