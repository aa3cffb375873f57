//! A day of traffic on two instances, as Prometheus would have scraped it: two bots with a quiet night and a busy noon, models of which
//! one has no price, streams without usage, refusals, a budget that runs up, an hour in which the database was away, and what of
//! Tacho itself moves along.

use std::fmt::Write;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tacho::metrics::{ExportLag, Format, LimitReading, Metrics, MetricsConfig};
use tacho_core::domain::account::Drift;
use tacho_core::domain::call::{Call, Cost, Tokens, UnknownUsage, Usage};
use tacho_core::domain::money::NanoUsd;
use tacho_core::domain::time::Timestamp;

use crate::support::usage::Asked;

/// 2026-09-21 00:00 UTC, in seconds since 1970.
pub const BEGIN: u64 = 1_789_948_800;
pub const END: u64 = BEGIN + DAY;
const DAY: u64 = 86_400;
/// Between two scrapes.
const STEP: u64 = 60;
const INSTANCES: [&str; 2] = ["bot-1:9464", "bot-2:9464"];

const MODELS: [(&str, &str, u64); 4] = [
    ("openai", "gpt-4o-mini", 150),
    ("openai", "gpt-4o", 2_500),
    ("anthropic", "claude-sonnet-4", 3_000),
    ("in-house", "assistant-7b", 0),
];

/// Writes the blocks of the day into a folder of data.
pub fn fill(data: &Path) {
    let samples = data.with_file_name("day.om");
    std::fs::write(&samples, samples_of_the_day()).unwrap();
    let done = Command::new("promtool")
        .args(["tsdb", "create-blocks-from", "openmetrics"])
        .args([&samples, data])
        .output()
        .expect("promtool is missing: run tests/setup.sh");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
}

fn samples_of_the_day() -> String {
    let mut text = String::new();
    for (instance, seed) in INSTANCES.into_iter().zip(0..) {
        let mut bot = Instance::new(seed);
        for scrape in 0..=DAY / STEP {
            let now = BEGIN + scrape * STEP;
            bot.lives_until(now);
            let page = bot.metrics.exposition(Format::Text);
            writeln!(text, "up{{job=\"tacho\",instance=\"{instance}\"}} 1 {now}").unwrap();
            for line in page.lines().filter(|line| !line.starts_with('#')) {
                let (series, value) = line.rsplit_once(' ').unwrap();
                let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
                let comma = if labels == "}" { "" } else { "," };
                writeln!(text, "{name}{{job=\"tacho\",instance=\"{instance}\"{comma}{labels} {value} {now}").unwrap();
            }
        }
    }
    text + "# EOF\n"
}

/// The page of an instance at the end of a few hours.
pub fn last_page() -> String {
    let mut bot = Instance::new(0);
    (0..600).for_each(|scrape| bot.lives_until(BEGIN + scrape * STEP));
    bot.metrics.exposition(Format::Text)
}

struct Instance {
    metrics: Metrics,
    random: StdRng,
    requests: u64,
    spent: f64,
    age: Arc<AtomicU64>,
}

impl Instance {
    fn new(seed: u64) -> Self {
        let metrics = Metrics::new(&MetricsConfig { per_user_top: 5 });
        let age = Arc::new(AtomicU64::new(0));
        let read = Arc::clone(&age);
        metrics.read_journal_age(move || f64::from(u32::try_from(read.load(Ordering::Relaxed)).unwrap()));
        metrics.journal.max_bytes.set(1 << 30);
        metrics.limits.store_up.set(1);
        metrics.persist_up.set(1);
        metrics.drift(Drift::default());
        Self { metrics, random: StdRng::seed_from_u64(seed), requests: 0, spent: 0.0, age }
    }

    /// What happens between the last scrape and this one.
    fn lives_until(&mut self, now: u64) {
        let hour = (now - BEGIN) / 3_600;
        // Quiet at night, busiest at two in the afternoon.
        let busy = 12 - hour.abs_diff(14).min(12);
        for _ in 0..self.random.random_range(busy..=2 * busy + 1) {
            self.request(now);
        }
        self.itself(now, hour, busy);
        self.limits(now);
    }

    fn request(&mut self, now: u64) {
        self.requests += 1;
        let at = Timestamp((now - self.random.random_range(0..STEP)) * 1_000_000_000);
        let service = ["support-bot", "sales-bot"][self.random.random_range(0..2)];
        let endpoint =
            ["/agents/{agent_id}/invoke", "/agents/{agent_id}/stream", "/chat"][self.random.random_range(0..3)];
        let user = format!("user-{}", self.random.random_range(0u32..40).pow(2) / 40);
        let status = match self.random.random_range(0..100) {
            0..2 => 500,
            2..5 => 429,
            _ => 200,
        };
        let duration = Duration::from_millis(self.random.random_range(200..9_000));
        let asked = Asked { number: self.requests, at, service, endpoint, user: &user, status, duration };
        let calls: Vec<Call> = (0..self.random.random_range(1..4)).map(|nth| self.call(&asked, nth)).collect();
        let whole = asked.request(calls);
        let mut early = whole.clone();
        if self.requests.is_multiple_of(50) {
            early.calls.pop();
            self.metrics.committed(&[], std::slice::from_ref(&early));
            self.metrics.committed(&[early], &[whole]);
        } else {
            self.metrics.committed(&[], &[whole]);
        }
        self.metrics.seen(service, f64::from(u32::try_from(now).unwrap()));
    }

    fn call(&mut self, asked: &Asked<'_>, nth: u64) -> Call {
        let (provider, model, rate) = MODELS[[0, 0, 0, 0, 0, 0, 1, 1, 2, 3][self.random.random_range(0..10)]];
        let (input, output) = (self.random.random_range(200..4_000), self.random.random_range(50..900));
        let tokens = Tokens {
            input,
            output,
            cached_input: input / 3,
            cache_write: input / 20,
            reasoning: output / 4,
            ..Tokens::default()
        };
        let cost = i64::try_from((input + 4 * output) * rate).unwrap();
        let price = if rate == 0 {
            Cost::Unpriced
        } else {
            Cost::Charged { cost: NanoUsd(cost), price_version: "test".into(), whole: true }
        };
        let mut call = asked.call(nth, provider, model, tokens, price);
        match self.random.random_range(0..100) {
            0 => (call.usage, call.cost) = (Usage::Unknown(UnknownUsage::Stream), Cost::Unknown),
            1 => call.error_type = Some("timeout".into()),
            _ => self.spent += f64::from(u32::try_from(cost / 1_000).unwrap()) / 1e6,
        }
        call
    }

    fn itself(&mut self, now: u64, hour: u64, busy: u64) {
        let Metrics { ingest, journal, open_traces, persist_up, .. } = &self.metrics;
        ingest.spans.with_label_values(&["grpc", "accepted"]).inc_by(busy * 8);
        ingest.spans.with_label_values(&["http_protobuf", "accepted"]).inc_by(busy);
        ingest.spans.with_label_values(&["grpc", "rejected"]).inc_by(u64::from(now.is_multiple_of(3_600)));
        ingest.ignored.with_label_values(&["logs"]).inc_by(busy);
        // The database is away from three to four.
        let is_away = hour == 3;
        persist_up.set(i64::from(!is_away));
        let waiting = if is_away { now % 3_600 } else { 2 };
        self.age.store(waiting, Ordering::Relaxed);
        journal.bytes.set(i64::try_from((8 << 20) + waiting * 10_000).unwrap());
        if is_away {
            ingest.bodies_refused.with_label_values(&["grpc", "overloaded"]).inc();
        }
        // The sink is away from four to five, and then catches up.
        let sink_is_away = hour == 4;
        let behind = if sink_is_away { f64::from(u32::try_from(now % 3_600).unwrap()) } else { 0.0 };
        self.metrics.export_lag(vec![ExportLag { sink: "elasticsearch", seconds: behind }]);
        self.metrics.feed_horizon_age.set(f64::from(u32::try_from(now % 5).unwrap()));
        let result = if sink_is_away { "failed" } else { "written" };
        self.metrics.export_documents.with_label_values(&["elasticsearch", result]).inc_by(busy);
        for _ in 0..busy {
            journal.fsync.observe(f64::from(self.random.random_range(1u32..40)) / 10_000.0);
        }
        open_traces.set(i64::try_from(busy * 2).unwrap());
    }

    fn limits(&mut self, now: u64) {
        let used = f64::from(u32::try_from(now - BEGIN).unwrap()) / 90_000.0;
        let reading = |limit: &str, amount, used_ratio: f64, period| LimitReading {
            limit: limit.into(),
            amount,
            overshoot_bound: amount / 100.0,
            used_ratio,
            over: [0.8, 0.9, 1.0].map(|threshold| (threshold, u64::from(used_ratio >= threshold))).to_vec(),
            period,
        };
        let end = f64::from(u32::try_from(END).unwrap());
        let rate = f64::from(self.random.random_range(0u32..100)) / 100.0;
        self.metrics.limits.stand(vec![
            reading("daily-budget", 20.0, used, Some((86_400.0, end + 3_600.0))),
            reading("user-requests", 60.0, rate, None),
        ]);
        for (limit, decision, reason, times) in [
            ("daily-budget", "allow", "within_limit", 6),
            ("user-requests", "allow", "within_limit", 5),
            ("user-requests", "refuse", "over_limit", u64::from(rate > 0.8)),
            ("daily-budget", "warn", "over_limit", u64::from(used > 0.9)),
            ("user-requests", "allow", "store_unavailable", u64::from(now.is_multiple_of(7_200))),
        ] {
            self.metrics.limits.decisions.with_label_values(&[limit, decision, reason]).inc_by(times);
        }
        for _ in 0..5 {
            self.metrics.limits.check_duration.observe(f64::from(self.random.random_range(5u32..900)) / 1e6);
        }
        self.metrics.limits.holds_expired.inc_by(u64::from(now.is_multiple_of(10_800)));
    }
}
