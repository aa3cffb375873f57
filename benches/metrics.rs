//! What a scrape costs: twenty thousand series in both formats, and what it does to a write that counts meanwhile.
//!
//! ```text
//! cargo bench --bench metrics
//! ```

#![allow(clippy::print_stdout, reason = "what was asked for")]

#[path = "../tests/all/support/usage.rs"]
mod usage;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tacho::metrics::{Format, Metrics};
use tacho_core::domain::call::{Cost, Tokens};
use tacho_core::domain::money::NanoUsd;
use tacho_core::domain::record::Request;
use tacho_core::domain::time::Timestamp;
use usage::Asked;

/// As in the binary.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const ROUNDS: usize = 200;

/// One of many bots, routes and models.
fn request(number: u64) -> Request {
    let (service, endpoint) = (format!("service-{}", number % 50), format!("/route/{}", number % 200));
    let (user, model) = (format!("user-{}", number % 500), format!("model-{}", number % 240));
    let asked = Asked {
        number,
        at: Timestamp(1_790_000_000_000_000_000).plus(Duration::from_millis(number)),
        service: &service,
        endpoint: &endpoint,
        user: &user,
        status: 200,
        duration: Duration::from_millis(800),
    };
    let tokens =
        Tokens { input: 900, output: 300, cached_input: 100, cache_write: 0, reasoning: 50, ..Tokens::default() };
    let cost = Cost::Charged { cost: NanoUsd(315_000), price_version: "bench".into(), whole: true };
    asked.request(vec![asked.call(0, "openai", &model, tokens, cost)])
}

/// CPU time of the main thread, which alone is at work when this is read.
fn cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/schedstat").expect("Linux");
    let nanos = stat.split(' ').next().and_then(|nanos| nanos.parse().ok()).expect("the first number");
    Duration::from_nanos(nanos)
}

fn main() {
    let metrics = Metrics::default();
    let requests: Vec<Request> = (0..2_400).map(request).collect();
    metrics.committed(&[], &requests);
    for (name, format) in [("text", Format::Text), ("openmetrics", Format::OpenMetrics)] {
        let page = metrics.exposition(format);
        let series = page.lines().filter(|line| !line.starts_with('#')).count();
        let begun = cpu();
        for _ in 0..ROUNDS {
            std::hint::black_box(metrics.exposition(format));
        }
        let each = (cpu() - begun) / u32::try_from(ROUNDS).expect("it fits");
        println!("{name:<12} {series} series, {} KiB: {each:?} of CPU a scrape", page.len() >> 10);
    }
    let alone = writes(&metrics, &requests);
    let over = AtomicBool::new(false);
    let beside = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                std::hint::black_box(metrics.exposition(Format::OpenMetrics));
            }
        });
        let beside = writes(&metrics, &requests);
        over.store(true, Ordering::Relaxed);
        beside
    });
    for (name, (median, most)) in [("alone", alone), ("scraped without pause", beside)] {
        println!("counting a request, {name}: p50 {median:?}, p99.9 {most:?}");
    }
}

/// How long counting a request takes: the median and the 999th of a thousand.
fn writes(metrics: &Metrics, requests: &[Request]) -> (Duration, Duration) {
    let time = |request: &Request| {
        let begun = Instant::now();
        metrics.committed(&[], std::slice::from_ref(request));
        begun.elapsed()
    };
    let mut times: Vec<Duration> = requests.iter().cycle().take(100_000).map(time).collect();
    times.sort_unstable();
    (times[times.len() / 2], times[times.len() * 999 / 1_000])
}
