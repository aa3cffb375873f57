//! The drill: load with an exact account, sent to the real binary while it is killed and restarted, its database is away, its
//! journal runs full and connections are cut. At the end the sums per user are those of the account: nothing lost, nothing doubled.

mod conserved;
mod faults;
mod senders;

use std::time::Instant;

use tacho::persist::{Group, RecordFilter, Store};

use crate::support::load::{Account, Shape, Used};
use conserved::Conserved;
use faults::{Database, Faults, Script};
use senders::Senders;

/// How much of everything.
#[derive(Clone, Copy)]
struct Plan {
    seed: u64,
    kills: u32,
    outages: u32,
}

/// What happened, and what came of it.
#[derive(Debug)]
struct Outcome {
    faults: Faults,
    bodies: u64,
    refused: u64,
    broken: u64,
    again: u64,
    records: u64,
    lost: u64,
    doubled: u64,
    /// What limits count is what was recorded.
    conserved: Conserved,
    seconds: u64,
}

/// Small, so that an outage fills it.
const JOURNAL: &str = "1MiB";

async fn drill(name: &str, plan: Plan, database: Database) -> Outcome {
    let begun = Instant::now();
    let folder = tempfile::tempdir().unwrap();
    let shape = Shape {
        seed: plan.seed,
        traces: 8,
        calls: 2,
        users: 50,
        split: true,
        began: tacho::app::now().0 - 2_000_000_000,
    };
    let mut script = Script::new(plan.seed, folder.path(), database.open(folder.path()));
    let senders = Senders::start(shape, plan.seed, script.address());
    script.run(plan.kills, plan.outages).await;
    let sent = senders.finish().await;
    let (database, faults, conserved) = script.finish().await;
    let written = written(database.url()).await;
    let (lost, doubled) = differences(&sent.account, &written);
    let outcome = Outcome {
        faults,
        bodies: sent.bodies,
        refused: sent.refused,
        broken: sent.broken,
        again: sent.again,
        records: written.values().map(|used| used.requests).sum(),
        lost,
        doubled,
        conserved,
        seconds: begun.elapsed().as_secs(),
    };
    show(name, plan, &outcome);
    outcome
}

/// What the rows say, and that the billing accounts and the calls say the same.
async fn written(url: &str) -> Account {
    let mut verify = std::process::Command::new(env!("CARGO_BIN_EXE_tacho"));
    let verified = verify.arg("verify").env("TACHO_DATABASE__URL", url).output().unwrap();
    assert!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stdout));
    let store = Store::open(url, "drill").await.unwrap();
    let rows = store.summary(Group::User, &RecordFilter::default()).await.unwrap();
    let count = |number: i64| u64::try_from(number).unwrap();
    let used = |row: &tacho::persist::SummaryRow| Used {
        requests: count(row.requests),
        calls: count(row.llm_calls),
        input: count(row.input_tokens),
        output: count(row.output_tokens),
    };
    store.close().await;
    rows.iter().map(|row| (row.group.clone(), used(row))).collect()
}

/// Requests, calls and tokens that are missing, and those that are too many.
fn differences(sent: &Account, written: &Account) -> (u64, u64) {
    let none = Used::default();
    let users = sent.keys().chain(written.keys().filter(|user| !sent.contains_key(*user)));
    let (mut lost, mut doubled) = (0, 0);
    for user in users {
        let parts = |account: &Account| {
            let used = *account.get(user).unwrap_or(&none);
            [used.requests, used.calls, used.input, used.output]
        };
        for (sent, written) in parts(sent).into_iter().zip(parts(written)) {
            lost += sent.saturating_sub(written);
            doubled += written.saturating_sub(sent);
        }
    }
    (lost, doubled)
}

fn show(name: &str, plan: Plan, outcome: &Outcome) {
    let Faults { kills, terms, outages, apart, forgotten } = outcome.faults;
    println!(
        "{name:9} seed {:<3} {:>4} s | kills {kills:>3}  stops {terms:>2}  outages {outages:>2}  starts without {apart:>2}  limits forgotten {forgotten:>2}  full {:>5} \
         | bodies {:>6}  broken {:>4}  sent again {:>5} | records {:>6}  lost {}  doubled {} | counters {} = records = redis",
        plan.seed,
        outcome.seconds,
        outcome.refused,
        outcome.bodies,
        outcome.broken,
        outcome.again,
        outcome.records,
        outcome.lost,
        outcome.doubled,
        outcome.conserved.counters
    );
}

fn assert_exact(outcome: &Outcome, plan: Plan) {
    assert_eq!((outcome.lost, outcome.doubled), (0, 0), "seed {}: {outcome:?}", plan.seed);
    assert!(outcome.faults.kills >= plan.kills && outcome.faults.outages >= plan.outages, "{outcome:?}");
    assert_eq!(u64::try_from(outcome.conserved.requests).unwrap(), outcome.records, "seed {}", plan.seed);
    assert!(outcome.records > 0 && outcome.broken > 0 && outcome.again > 0, "{outcome:?}");
}

/// Three seeds, half a minute each.
#[tokio::test(flavor = "multi_thread")]
async fn short_on_sqlite() {
    for seed in 1..=3 {
        let plan = Plan { seed, kills: 6, outages: 2 };
        assert_exact(&drill("SQLite", plan, Database::Sqlite).await, plan);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn short_on_postgres() {
    let mut refused = 0;
    for seed in 1..=3 {
        let plan = Plan { seed, kills: 6, outages: 2 };
        let outcome = drill("Postgres", plan, Database::Postgres).await;
        assert_exact(&outcome, plan);
        refused += outcome.refused;
    }
    assert!(refused > 0, "the journal never ran full");
}

/// What `make drill` runs.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes: run by `make drill`"]
async fn long() {
    let number = |name: &str, default| std::env::var(name).map_or(default, |text| text.parse().unwrap());
    let kills = u32::try_from(number("DRILL_KILLS", 100)).unwrap();
    let outages = u32::try_from(number("DRILL_OUTAGES", 20)).unwrap();
    let plan = Plan { seed: number("DRILL_SEED", 1), kills, outages };
    for (name, database) in [("SQLite", Database::Sqlite), ("Postgres", Database::Postgres)] {
        assert_exact(&drill(name, plan, database).await, plan);
    }
}
