//! What a store of limits answers: each the same as memory, whatever is asked and in whatever order, at the time that the store tells.

mod away;
mod cluster;
mod course;
mod directed;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use tacho::limit::shared::{Ask, Key, Ledger, QuotaAsk, QuotaWish, RateAsk, RateWish, Reporter, Told, What};
use tacho::limit::store::Store;
use tacho::persist;

use crate::support::postgres::Postgres;
use crate::support::redis::Redis;
use course::Course;

/// Longer than any answer takes on a busy machine.
const TIMEOUT: Duration = Duration::from_secs(2);
/// SQLite has no queue for its lock: who never pauses leaves nothing to others.
const PAUSE: Duration = Duration::from_millis(2);
const SECOND: i64 = 1_000_000;

/// A store, and another handle to it, as a second instance has.
pub struct Place<'a> {
    pub name: &'a str,
    pub url: String,
    pub store: Store,
    pub other: Store,
    pub redis: Option<&'a Redis>,
}

#[tokio::test]
async fn every_store_of_limits_answers_as_memory_does() {
    let folder = tempfile::tempdir().unwrap();
    let (postgres, redis) = (Postgres::start(), Redis::start());
    let sqlite = format!("sqlite:{}", folder.path().join("tacho.db").display());
    for (name, url) in [("sqlite", sqlite), ("postgres", postgres.database("limits"))] {
        // Who opens the records makes the tables.
        persist::Store::open(&url, "one").await.unwrap().close().await;
        let [store, other] = [Store::database(&url).await.unwrap(), Store::database(&url).await.unwrap()];
        suite(&Place { name, url, store, other, redis: None }).await;
    }
    let url = redis.url();
    let [store, other] =
        [Store::redis(&url, TIMEOUT).await.unwrap(), Store::redis(&redis.url(), TIMEOUT).await.unwrap()];
    suite(&Place { name: "redis", url, store, other, redis: Some(&redis) }).await;
}

impl Place<'_> {
    async fn forget(&self) {
        match self.redis {
            Some(redis) => drop(redis.cli(&["FLUSHALL"])),
            None => super::faults::execute(&self.url, "DELETE FROM rate_limits").await,
        }
    }
}

async fn suite(place: &Place<'_>) {
    random_courses(place).await;
    many_keys_at_once(place).await;
    two_instances_never_grant_more_than_there_is(place).await;
    overlapping_keys_in_any_order_wait_for_each_other(place).await;
    directed::all(place).await;
    place.store.close().await;
    place.other.close().await;
}

/// Single asks, so that the oracle can be asked at the very time of the store.
async fn random_courses(place: &Place<'_>) {
    for seed in 0..24 {
        let oracle = Store::memory();
        let mut course = Course::new(seed);
        let mut ahead = 0;
        for step in 0..120 {
            // SQLite takes the time that it is told: it may leap over the end of a state.
            ahead += course.leap();
            let now = clock() + ahead;
            let (who, ask) = course.next(if place.name == "sqlite" { now } else { clock() });
            let found = place.store.ask(&who, std::slice::from_ref(&ask), now).await.unwrap();
            let expected = oracle.ask(&who, std::slice::from_ref(&ask), found.now).await.unwrap();
            assert_eq!(found, expected, "{}, seed {seed}, step {step}: {who:?} {ask:?}", place.name);
            course.hear(&who, &ask, found.told[0].unwrap());
        }
    }
}

/// Of Redis each key has a time of its own: the answers are told apart from the oracle's by a little of it.
async fn many_keys_at_once(place: &Place<'_>) {
    let oracle = Store::memory();
    let who = reporter("n", "l");
    for version in 1..=3 {
        let total = i64::try_from(version).unwrap();
        let rate = |key| rate(key, version, total * SECOND, wish(SECOND, 2 * SECOND, 1_000 * SECOND));
        let quota = |key| quota(key, version, total, quota_wish(1, 5, 100));
        let asks: Vec<Ask> =
            (0..200).map(|n| if n % 2 == 0 { rate(key("many", n)) } else { quota(key("many", n)) }).collect();
        let found = place.store.ask(&who, &asks, clock()).await.unwrap();
        let expected = oracle.ask(&who, &asks, found.now).await.unwrap();
        for ((found, expected), ask) in found.told.iter().zip(&expected.told).zip(&asks) {
            let (Some(Told::Rate { tat, granted }), Some(Told::Rate { tat: about, granted: same })) = (found, expected)
            else {
                assert_eq!(found, expected, "{}: {ask:?}", place.name);
                continue;
            };
            assert_eq!(granted, same, "{}: {ask:?}", place.name);
            assert!(tat.abs_diff(*about) < 1_000_000, "{}: {tat} {about}", place.name);
        }
    }
}

/// A bucket gives what it holds and what drains meanwhile; a quota gives its limit, to the last unit.
async fn two_instances_never_grant_more_than_there_is(place: &Place<'_>) {
    let begun = Instant::now();
    let [of_rate, of_quota] = [key("contest rate", 0), key("contest quota", 0)];
    let taker = async |store: &Store, node: &str| {
        let who = reporter(node, node);
        let mut random = StdRng::seed_from_u64(1);
        let (mut charged, mut held) = (0, 0);
        for version in 1..=60 {
            let most = random.random_range(10..70);
            let ask = rate(of_rate, version, charged, wish(10 * SECOND, most * SECOND, 1_000 * SECOND));
            charged += granted(store.ask(&who, &[ask], clock()).await.unwrap().told[0].unwrap());
            let ask = quota(of_quota, version, held, quota_wish(1, most, 1_000));
            held += granted(store.ask(&who, &[ask], clock()).await.unwrap().told[0].unwrap());
            tokio::time::sleep(PAUSE).await;
        }
        (charged, held)
    };
    let (one, two) = tokio::join!(taker(&place.store, "one"), taker(&place.other, "two"));
    let most = 1_000 * SECOND + i64::try_from(begun.elapsed().as_micros()).unwrap();
    assert!((980 * SECOND..=most).contains(&(one.0 + two.0)), "{}: {one:?} {two:?}", place.name);
    assert_eq!(one.1 + two.1, 1_000, "{}: {one:?} {two:?}", place.name);
}

/// Four at once, and the sweeps of heartbeats among them: none is turned away, nothing is lost.
async fn overlapping_keys_in_any_order_wait_for_each_other(place: &Place<'_>) {
    let reports = async |store: &Store, node: u64| {
        let who = reporter(&format!("node {node}"), "l");
        let mut random = StdRng::seed_from_u64(node);
        let mut keys: Vec<Key> = (0..40).map(|n| key("overlap", n)).collect();
        let mut versions: BTreeMap<Key, u64> = BTreeMap::new();
        for round in 0..25 {
            keys.shuffle(&mut random);
            let asks: Vec<Ask> = keys[..30]
                .iter()
                .map(|key| {
                    let version = versions.entry(*key).or_default();
                    *version += 1;
                    quota(*key, *version, i64::try_from(*version).unwrap(), None)
                })
                .collect();
            store.ask(&who, &asks, clock()).await.unwrap();
            tokio::time::sleep(PAUSE).await;
            if round % 5 == 0 {
                store.heartbeat(&who.node, TIMEOUT, clock()).await.unwrap();
            }
        }
        versions
    };
    let stores = [&place.store, &place.other, &place.store, &place.other];
    let all = join_all(stores.into_iter().zip(0..).map(|(store, node)| reports(store, node))).await;
    for n in 0..40 {
        let ask = quota(key("overlap", n), 1, 0, None);
        let told = place.store.ask(&reporter("reader", "l"), &[ask], clock()).await.unwrap().told[0].unwrap();
        let expected: u64 = all.iter().filter_map(|versions| versions.get(&key("overlap", n))).sum();
        let Told::Quota { others, .. } = told else { panic!("{told:?}") };
        assert_eq!(others.unsigned_abs(), expected, "{}: key {n}", place.name);
    }
    for node in 0..4 {
        place.store.leave(&format!("node {node}").into()).await.unwrap();
    }
}

/// What was charged was charged just before it is reported, whoever asks.
pub const JUST_NOW: u64 = 9_007_199_254_740_991;

/// Microseconds since 1970.
#[expect(clippy::disallowed_methods, reason = "the time of the host, as app would pass it in")]
pub fn clock() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    u64::try_from(since.as_micros()).unwrap()
}

pub fn reporter(node: &str, ledger: &str) -> Reporter {
    Reporter { node: node.into(), ledger: ledger.into() }
}

/// One that no other case has, spread as hashes are.
pub fn key(case: &str, number: u64) -> Key {
    let mut hash: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
    for byte in case.bytes().chain(number.to_le_bytes()) {
        hash = (hash ^ u128::from(byte)).wrapping_mul(0x0000_0000_0100_0000_0000_0000_0000_013b);
    }
    Key(hash)
}

pub fn rate(key: Key, version: u64, total: i64, wish: Option<RateWish>) -> Ask {
    let what = RateAsk { total, acked: 0, floor: 0, own: JUST_NOW, cell: 1_000, wish };
    Ask { key, incarnation: 1, version, what: What::Rate(what) }
}

pub fn quota(key: Key, version: u64, out: i64, wish: Option<QuotaWish>) -> Ask {
    let until = clock() + 3_600_000_000;
    let what = QuotaAsk { out, until, ledger: None, wish, ends: 0 };
    Ask { key, incarnation: 1, version, what: What::Quota(what) }
}

pub fn with_ledger(mut ask: Ask, version: u64, used: i64) -> Ask {
    if let What::Quota(quota) = &mut ask.what {
        quota.ledger = Some(Ledger { version, used });
    }
    ask
}

#[expect(clippy::unnecessary_wraps, reason = "as an ask wants it")]
pub fn wish(least: i64, most: i64, capacity: i64) -> Option<RateWish> {
    Some(RateWish { least, most, capacity })
}

#[expect(clippy::unnecessary_wraps, reason = "as an ask wants it")]
pub fn quota_wish(least: i64, most: i64, limit: i64) -> Option<QuotaWish> {
    Some(QuotaWish { least, most, limit })
}

pub fn granted(told: Told) -> i64 {
    match told {
        Told::Rate { granted, .. } | Told::Quota { granted, .. } => granted,
    }
}
