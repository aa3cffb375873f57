//! What the limits count, after all that went wrong: the sum over the records, the counters beside them and the store of limits say the
//! same of every user.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use tacho::persist::{Group, RecordFilter, Store};

/// Counters that were compared, and the sums of the requests and tokens that they count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Conserved {
    pub counters: usize,
    pub requests: i64,
    pub tokens: i64,
}

/// Limits that nobody reaches, in Redis.
pub fn limits(redis: &str) -> String {
    let quota = |name: &str, per: &str, meter: &str| {
        format!(
            "[[limit]]\nname = \"{name}\"\nper = [{per}]\nmeter = \"{meter}\"\nquota = {{ limit = 1_000_000_000_000, period = \"lifetime\" }}\n"
        )
    };
    let (requests, tokens) = (quota("requests", "\"user\"", "requests"), quota("tokens", "\"user\"", "tokens"));
    let all = quota("all", "", "requests");
    format!("[limits]\nbackend = \"redis\"\nurl = \"{redis}\"\ntimeout = \"2s\"\n{requests}{tokens}{all}")
}

/// Waits for the store to hear the last of it.
pub async fn conserved(database: &str, redis: &str) -> Conserved {
    let begun = Instant::now();
    loop {
        let (counted, stored) = (counted(database).await, stored(redis).await);
        if counted.keys == stored {
            return counted.sums;
        }
        let differing: Vec<_> =
            counted.keys.iter().filter(|(key, used)| stored.get(*key) != Some(used)).take(5).collect();
        let (told, known) = (stored.len(), counted.keys.len());
        assert!(
            begun.elapsed() < Duration::from_secs(30),
            "of {known} counters redis has {told}; {differing:?} differ"
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

struct Counted {
    keys: BTreeMap<String, i64>,
    sums: Conserved,
}

/// The counters, which must be the sums of the records.
async fn counted(url: &str) -> Counted {
    let store = Store::open(url, "drill").await.unwrap();
    let mut keys = BTreeMap::new();
    let mut sums = Conserved::default();
    for limit in ["requests", "tokens", "all"] {
        for counter in store.counters(Some(limit), tacho::app::now(), 10_000).await.unwrap() {
            keys.insert(format!("{:032x}", counter.key), counter.used);
            match limit {
                "requests" => sums.requests += counter.used,
                "tokens" => sums.tokens += counter.used,
                _ => {}
            }
        }
    }
    sums.counters = keys.len();
    let rows = store.summary(Group::User, &RecordFilter::default()).await.unwrap();
    let of_records: (i64, i64) =
        rows.iter().fold((0, 0), |sum, row| (sum.0 + row.requests, sum.1 + row.input_tokens + row.output_tokens));
    assert_eq!((sums.requests, sums.tokens), of_records, "counters and records");
    store.close().await;
    Counted { keys, sums }
}

/// What Redis has from this ledger, by key; nothing may be held.
async fn stored(url: &str) -> BTreeMap<String, i64> {
    let client = ::redis::Client::open(url).unwrap();
    let mut redis = client.get_multiplexed_async_connection().await.unwrap();
    let names: Vec<String> = ::redis::cmd("KEYS").arg("tacho:limit:*").query_async(&mut redis).await.unwrap();
    let mut stored = BTreeMap::new();
    for name in names {
        let fields: BTreeMap<String, String> =
            ::redis::cmd("HGETALL").arg(&name).query_async(&mut redis).await.unwrap();
        let used = |(field, value): (&String, &String)| {
            assert!(!field.starts_with("s:") || value.split(':').nth(2) == Some("0"), "{name} {field} holds {value}");
            field.starts_with("l:").then(|| value.split(':').nth(1).unwrap().parse::<i64>().unwrap())
        };
        let key = name.trim_start_matches("tacho:limit:{").trim_end_matches('}').to_owned();
        stored.insert(key, fields.iter().filter_map(used).sum());
    }
    stored
}
