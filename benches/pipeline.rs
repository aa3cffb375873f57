//! The whole path, measured on the real binary: batches over gRPC in, records in the database out.
//!
//!     cargo bench --bench pipeline -- [sqlite|postgres] [UNITS] [CALLS A REQUEST]
//!     cargo bench --bench pipeline -- outage [SECONDS]        # Postgres away under full load, then a kill and the replay
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a measurement stops at the first surprise, and prints")]

#[path = "../tests/all/support/client.rs"]
#[allow(dead_code, reason = "others use the rest")]
mod client;
#[path = "../tests/all/support/load.rs"]
#[allow(dead_code, reason = "others use the rest")]
mod load;
#[path = "../tests/all/support/postgres.rs"]
#[allow(dead_code, reason = "others use the rest")]
mod postgres;
#[path = "../tests/all/support/tacho_process.rs"]
#[allow(dead_code, reason = "others use the rest")]
mod tacho_process;

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use client::{Channel, JSON, call, post};
use load::Shape;
use postgres::Postgres;
use tacho_process::Tacho;

const CONNECTIONS: usize = 4;
const SPANS: u64 = 512;

#[tokio::main]
async fn main() {
    // Cargo adds `--bench`.
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    let number = |place: usize, default| arguments.get(place).map_or(default, |text| text.parse().unwrap());
    match arguments.first().map(String::as_str) {
        Some("outage") => outage(Duration::from_secs(number(1, 120))).await,
        Some("postgres") => path(Some(Postgres::start()), number(1, 400), number(2, 3)).await,
        _ => path(None, number(1, 400), number(2, 3)).await,
    }
}

fn shape(calls: u64) -> Shape {
    let began = tacho::app::now().0 - 2_000_000_000;
    Shape { seed: 1, traces: SPANS / (1 + calls), calls, users: 10_000, split: false, began }
}

fn start(folder: &Path, url: &str) -> Tacho {
    Tacho::start(folder, url, &[("TACHO_TELEMETRY__LOG", "warn")])
}

/// So many units in, all of their records out.
async fn path(server: Option<Postgres>, units: u64, calls: u64) {
    let folder = tempfile::tempdir().unwrap();
    let (name, url) = match &server {
        Some(server) => ("Postgres", server.database("bench")),
        None => ("SQLite", format!("sqlite:{}", folder.path().join("tacho.db").display())),
    };
    let tacho = start(folder.path(), &url);
    let shape = shape(calls);
    println!("{units} units of {} spans, {calls} calls a request, {CONNECTIONS} connections, {name}", spans_of(&shape));
    let bodies: Vec<Vec<u8>> = (0..units).flat_map(|unit| shape.unit(unit).bodies).collect();
    measure(&tacho, bodies, spans_of(&shape) * units, shape.traces * units).await;
    let [p50, p99] = fsyncs(folder.path());
    println!("fsync of 64 KiB beside it: p50 {p50:.2} ms, p99 {p99:.2} ms");
    tacho.stop();
}

/// The database is away while clients send what they can; then Tacho is killed, and reads its journal.
async fn outage(length: Duration) {
    const REPLAY: Duration = Duration::from_secs(20);
    let folder = tempfile::tempdir().unwrap();
    let server = Postgres::start();
    let url = server.database("outage");
    let tacho = start(folder.path(), &url);
    server.halt();
    let (cpu, taken, refused) = (tacho.cpu_time(), Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let (shape, next, end) = (shape(3), Arc::new(AtomicU64::new(0)), Instant::now() + length);
    let mut senders = JoinSet::new();
    for _ in 0..CONNECTIONS {
        let (address, next) = (tacho.grpc, Arc::clone(&next));
        let (taken, refused) = (Arc::clone(&taken), Arc::clone(&refused));
        senders.spawn(async move {
            let mut channel = Channel::open(address).await.unwrap();
            while Instant::now() < end {
                let unit = shape.unit(next.fetch_add(1, Ordering::Relaxed));
                if channel.send(&call(&unit.bodies[0])).await.unwrap() == "Ok" {
                    taken.fetch_add(spans_of(&shape), Ordering::Relaxed);
                } else {
                    refused.fetch_add(1, Ordering::Relaxed);
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            }
        });
    }
    senders.join_all().await;
    let (spans, cpu) = (taken.load(Ordering::Relaxed), tacho.cpu_time() - cpu);
    println!("Postgres away for {} s under full load, {CONNECTIONS} connections", length.as_secs());
    println!("acknowledged: {spans} spans, {:.0} per CPU-second", spans as f64 / cpu.as_secs_f64());
    println!("refused:      {} bodies, when the journal was full", refused.load(Ordering::Relaxed));
    println!("peak memory:  {} MiB", tacho.peak_memory() >> 20);
    tacho.signal("-KILL");
    assert!(!tacho.wait().success());
    server.resume();
    let begun = Instant::now();
    let tacho = start(folder.path(), &url);
    println!("killed, and listening again after {} ms", begun.elapsed().as_millis());
    tokio::time::sleep(REPLAY).await;
    let rate = written(&tacho).await as f64 / REPLAY.as_secs_f64();
    println!("replay:       {rate:.0} records/s with {} calls each, into Postgres", shape.calls);
    println!("peak memory:  {} MiB while replaying", tacho.peak_memory() >> 20);
}

async fn measure(tacho: &Tacho, bodies: Vec<Vec<u8>>, spans: u64, records: u64) {
    let cpu_before = tacho.cpu_time();
    let begun = Instant::now();
    let mut acks = send(tacho, bodies).await;
    let (sent, cpu_sent) = (begun.elapsed(), tacho.cpu_time() - cpu_before);
    let mut first = None;
    let writing = loop {
        let written = written(tacho).await;
        // The traces must be quiet first: the clock of the writer begins when it does.
        let since = *first.get_or_insert_with(Instant::now);
        if written >= records {
            break since.elapsed();
        }
        if written == 0 {
            first = None;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    let cpu = tacho.cpu_time() - cpu_before;
    acks.sort_unstable();
    let rate = |count: u64, time: Duration| count as f64 / time.as_secs_f64();
    let [p50, p99] = percentiles(&acks);
    println!("acknowledged: {:.0} spans/s, p50 {p50:.2} ms, p99 {p99:.2} ms", rate(spans, sent));
    println!("written:      {:.0} records/s, from the first record on", rate(records, writing));
    println!("CPU:          {:.0} spans per CPU-second to the last answer", rate(spans, cpu_sent));
    println!("              {:.0} spans per CPU-second to the last record", rate(spans, cpu));
    println!("peak memory:  {} MiB", tacho.peak_memory() >> 20);
}

/// How long each answer took.
async fn send(tacho: &Tacho, bodies: Vec<Vec<u8>>) -> Vec<Duration> {
    let (bodies, next) = (Arc::new(bodies), Arc::new(AtomicU64::new(0)));
    let mut senders = JoinSet::new();
    for _ in 0..CONNECTIONS {
        let (address, bodies, next) = (tacho.grpc, Arc::clone(&bodies), Arc::clone(&next));
        senders.spawn(async move {
            let mut channel = Channel::open(address).await.unwrap();
            let mut acks = Vec::new();
            while let Some(body) = bodies.get(usize::try_from(next.fetch_add(1, Ordering::Relaxed)).unwrap()) {
                let call = call(body);
                loop {
                    let begun = Instant::now();
                    let answer = channel.send(&call).await.unwrap();
                    if answer == "Ok" {
                        acks.push(begun.elapsed());
                        break;
                    }
                    assert!(answer.starts_with("Unavailable"), "{answer}");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
            acks
        });
    }
    senders.join_all().await.concat()
}

async fn written(tacho: &Tacho) -> u64 {
    let metrics = post(JSON, "").method("GET").path("/metrics").send(tacho.http).await.text();
    let new = metrics.lines().find_map(|line| line.strip_prefix("tacho_persist_records_total{result=\"new\"} "));
    new.map_or(0, |count| count.parse().unwrap())
}

fn fsyncs(folder: &Path) -> [f64; 2] {
    let mut file = File::create(folder.join("fsync")).unwrap();
    let mut times: Vec<Duration> = (0..200)
        .map(|_| {
            file.write_all(&[7; 64 << 10]).unwrap();
            let begun = Instant::now();
            file.sync_data().unwrap();
            begun.elapsed()
        })
        .collect();
    times.sort_unstable();
    percentiles(&times)
}

/// In milliseconds, of sorted times.
fn percentiles(sorted: &[Duration]) -> [f64; 2] {
    [50, 99].map(|percent| sorted[(sorted.len() - 1) * percent / 100].as_secs_f64() * 1e3)
}

fn spans_of(shape: &Shape) -> u64 {
    shape.traces * (1 + shape.calls)
}
