//! A decision in memory: one limit, four at once, one that is used up, and a million subjects. Prints what each takes at the
//! median and at the 99th percentile, and how often it allocates.
//!
//! ```text
//! cargo bench --bench limits
//! ```

#![allow(clippy::print_stdout, reason = "what was asked for")]

use std::collections::BTreeMap;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use tacho::limit::attempt::{Attempt, Step};
use tacho::limit::node::Node;
use tacho::limit::shared::{Key, Reporter, Shared};
use tacho::limit::{Rule, Rules, Since, Traits, Usage};

const FOUR: &str = r#"
[[limit]]
name = "user-requests"
per = ["user"]
meter = "requests"
rate = { limit = 1_000_000_000, period = "1s" }
[[limit]]
name = "user-tokens"
per = ["user"]
meter = "tokens"
rate = { limit = 1_000_000_000_000, period = "1m" }
[[limit]]
name = "model-tokens"
per = ["tenant", "model"]
meter = "output_tokens"
rate = { limit = 1_000_000_000_000, period = "1m" }
[[limit]]
name = "budget"
per = ["user"]
meter = "cost"
quota = { limit = 1_000_000, period = "month" }
mode = "synced"
"#;

const ONE: &str = r#"
[[limit]]
name = "user-requests"
per = ["user"]
meter = "requests"
rate = { limit = 1_000_000_000, period = "1s" }
"#;

const USED_UP: &str = r#"
[[limit]]
name = "user-requests"
per = ["user"]
meter = "requests"
rate = { limit = 1, period = "1h" }
"#;

/// 2026-09-21, in nanoseconds.
const START: u64 = 1_790_000_000_000_000_000;
const ROUNDS: u64 = 200_000;

struct Bench {
    node: Node,
    rules: Vec<Arc<Rule>>,
    store: BTreeMap<Key, Option<Shared>>,
    who: Reporter,
    users: Vec<String>,
}

#[derive(serde::Deserialize)]
struct File {
    limit: Rules,
}

impl Bench {
    fn new(limits: &str, users: usize) -> Self {
        let file: File = toml::from_str(limits).expect("the limits of the bench are valid");
        Self {
            node: Node::new(START / 1_000, 5_000_000, 1),
            rules: file.limit.0.into_iter().map(Arc::new).collect(),
            store: BTreeMap::new(),
            who: Reporter { node: "bench".into(), ledger: "bench".into() },
            users: (0..users).map(|user| format!("user-{user}")).collect(),
        }
    }

    fn decide(&self, user: usize, now: u64) -> (Attempt<'_>, Step) {
        let traits = Traits {
            tenant: "default",
            user: Some(&self.users[user]),
            agent: Some("support"),
            model: Some("gpt-4o-mini"),
            endpoint: Some("/agents/{agent_id}/invoke"),
            plan: "default",
        };
        let usage = Usage { requests: 1, input_tokens: 900, output_tokens: 300, cost_nanousd: 315_000 };
        let mut attempt = Attempt::new(&self.node, &self.rules, &traits, &Since::default(), &usage, now);
        let step = attempt.step(&self.node, now / 1_000, now);
        (attempt, step)
    }

    /// Nobody answers what it asks, so its cells go on waiting: they are met again as if they were new.
    fn meet(&self, user: usize) {
        if let Step::Ask(asks) = self.decide(user, START).1 {
            for (_, ask) in asks {
                let cell = self.node.find(ask.key).expect("it asked");
                self.node.heard(&cell, &ask, None, START);
            }
        }
    }

    /// Makes every cell known, so that nothing is left to ask.
    fn warm(&mut self) {
        for user in 0..self.users.len() {
            for _ in 0..8 {
                let Step::Ask(asks) = self.decide(user, START).1 else { break };
                for (_, ask) in asks {
                    let state = self.store.entry(ask.key).or_default();
                    let told = Shared::take(state, &self.who, &ask, START / 1_000);
                    let cell = self.node.find(ask.key).expect("it asked");
                    self.node.heard(&cell, &ask, Some(&told), START);
                }
            }
        }
    }

    fn measure(&self, name: &str) {
        let mut times = Vec::with_capacity(usize::try_from(ROUNDS).expect("it fits"));
        let user = |round: u64| usize::try_from(round * 7_919).expect("it fits") % self.users.len();
        for round in 0..ROUNDS {
            let started = Instant::now();
            black_box(self.decide(user(round), START + round * 1_000));
            times.push(started.elapsed());
        }
        let allocated = allocation_counter::measure(|| {
            for round in 0..1_000 {
                black_box(self.decide(user(round), START + (ROUNDS + round) * 1_000));
            }
        });
        times.sort_unstable();
        let at = |share: usize| times[times.len() * share / 1_000];
        println!(
            "{name:<28} p50 {:>8?}  p99 {:>8?}  p99.9 {:>8?}  allocations {:.3} a decision",
            at(500),
            at(990),
            at(999),
            allocated.count_total as f64 / 1_000.0
        );
    }
}

fn main() {
    for (name, limits, users) in [
        ("one limit", ONE, 1_000),
        ("four limits", FOUR, 1_000),
        ("four limits, 250 000 users", FOUR, 250_000),
        ("used up", USED_UP, 1_000),
    ] {
        let mut bench = Bench::new(limits, users);
        // Met for the first time: what stays is the cells.
        let cells = allocation_counter::measure(|| (0..users).for_each(|user| bench.meet(user)));
        let each = cells.bytes_current / i64::try_from(bench.node.subjects()).expect("it fits");
        bench.warm();
        bench.measure(name);
        println!("{:<28} {} subjects of {each} bytes", "", bench.node.subjects());
    }
}
