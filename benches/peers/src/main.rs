//! Tacho's limits beside those of Limitador, in one process with one harness. First a decision in memory; then eight replicas with
//! a store each that share one Redis, asked ten times for what the limit has room for, and as fast as they can.
//!
//! ```text
//! cargo run --release --manifest-path benches/peers/Cargo.toml
//! ```

#[path = "../../../tests/all/support/redis.rs"]
#[allow(dead_code, reason = "tests use the rest")]
mod redis_process;
mod replica;

use std::collections::HashMap;
use std::hint::black_box;
use std::rc::Rc;
use std::time::{Duration, Instant};

use limitador::RateLimiter;
use redis_process::Redis;
use replica::{Replica, Who, limitador_limit};
use tokio::task::LocalSet;

const REPLICAS: usize = 8;
const TASKS: u32 = 4;
const LIMIT: u32 = 100;
const LASTS: Duration = Duration::from_secs(10);
const ROUNDS: usize = 200_000;
const USERS: usize = 1_000;

fn main() {
    println!("| one decision in memory, {USERS} users | p50 | p99 | decisions a second, one thread |");
    println!("| --- | --- | --- | --- |");
    in_memory();
    println!();
    println!(
        "| {REPLICAS} replicas, {LIMIT} a second, {}x | asked | admitted | ideal | excess | p50 | p99 | Redis calls a decision | with those inside scripts |",
        10
    );
    println!("| --- | --- | --- | --- | --- | --- | --- | --- | --- |");
    for who in Who::ALL {
        with_redis(who, true);
    }
    println!();
    println!(
        "| {REPLICAS} replicas, as fast as they can, {TASKS} at once each | decisions a second | p50 | p99 | Redis calls a decision |"
    );
    println!("| --- | --- | --- | --- | --- |");
    for who in Who::ALL {
        with_redis(who, false);
    }
}

fn in_memory() {
    let users: Vec<String> = (0..USERS).map(|user| format!("user-{user}")).collect();
    let bench = replica::InMemory::new(&users);
    measure("tacho, attempt and node", |round| bench.decide(&users[round % USERS]));
    let limiter = RateLimiter::new(1_000_000);
    limiter.add_limit(limitador_limit(1_000_000_000));
    let namespace = "bench".into();
    let context = |user: &String| HashMap::from([("user".to_owned(), user.clone())]).into();
    let decide = |context: &_| !limiter.check_rate_limited_and_update(&namespace, context, 1).unwrap().limited;
    measure("limitador, in memory, context made for the request", |round| decide(&context(&users[round % USERS])));
    let contexts: Vec<_> = users.iter().map(context).collect();
    measure("limitador, in memory, context at hand", |round| decide(&contexts[round % USERS]));
}

fn measure(name: &str, decide: impl Fn(usize) -> bool) {
    (0..USERS * 2).for_each(|round| assert!(decide(round), "there is room"));
    let mut times = Vec::with_capacity(ROUNDS);
    for round in 0..ROUNDS {
        let started = Instant::now();
        black_box(decide(round));
        times.push(started.elapsed());
    }
    let started = Instant::now();
    for round in 0..ROUNDS {
        black_box(decide(round));
    }
    let each = ROUNDS as f64 / started.elapsed().as_secs_f64();
    times.sort_unstable();
    println!("| {name} | {:?} | {:?} | {each:.0} |", times[ROUNDS / 2], times[ROUNDS * 99 / 100]);
}

/// One decision: whether it was admitted, and how long it took.
type Said = (bool, Duration);

fn with_redis(who: Who, paced: bool) {
    let redis = Redis::start();
    let barrier = std::sync::Barrier::new(REPLICAS + 1);
    let lasts = if paced { LASTS } else { Duration::from_secs(4) };
    let (said, seconds, calls) = std::thread::scope(|scope| {
        let replicas: Vec<_> = (0..REPLICAS)
            .map(|place| {
                let (url, barrier) = (redis.url(), &barrier);
                scope.spawn(move || replica_thread(who, place, &url, barrier, paced, lasts))
            })
            .collect();
        barrier.wait();
        let (before, started) = (replica::calls(&redis.url()), Instant::now());
        let said: Vec<Said> = replicas.into_iter().flat_map(|replica| replica.join().unwrap()).collect();
        let seconds = started.elapsed().as_secs_f64();
        let after = replica::calls(&redis.url());
        (said, seconds, (after.0 - before.0, after.1 - before.1))
    });
    let mut times: Vec<Duration> = said.iter().map(|(_, time)| *time).collect();
    times.sort_unstable();
    let (p50, p99) = (times[times.len() / 2], times[times.len() * 99 / 100]);
    let asked = said.len() as f64;
    let (calls, inside) = (calls.0 as f64 / asked, calls.1 as f64 / asked);
    let name = who.name();
    if paced {
        let admitted = said.iter().filter(|(admitted, _)| *admitted).count();
        // Of a bucket and of windows alike: full at the begin, and so much a second after it.
        let ideal = f64::from(LIMIT) * (1.0 + seconds);
        let excess = admitted as f64 - ideal;
        println!(
            "| {name} | {asked} | {admitted} | {ideal:.0} | {excess:+.0} ({:+.1} %) | {p50:.1?} | {p99:.1?} | {calls:.3} | {inside:.2} |",
            excess / ideal * 100.0
        );
    } else {
        println!("| {name} | {:.0} | {p50:.1?} | {p99:.1?} | {calls:.4} |", asked / seconds);
    }
}

fn replica_thread(
    who: Who,
    place: usize,
    url: &str,
    barrier: &std::sync::Barrier,
    paced: bool,
    lasts: Duration,
) -> Vec<Said> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    LocalSet::new().block_on(&runtime, async {
        let replica = Rc::new(Replica::open(who, place, url, REPLICAS as u32).await);
        barrier.wait();
        let begun = Instant::now();
        let pause = Duration::from_secs(1) * (REPLICAS as u32 * TASKS) / (LIMIT * 10);
        let tasks: Vec<_> = (0..TASKS)
            .map(|nth| {
                let replica = Rc::clone(&replica);
                tokio::task::spawn_local(async move {
                    let (mut said, mut next) = (Vec::new(), begun + pause * nth / TASKS);
                    while next < begun + lasts {
                        if paced {
                            tokio::time::sleep_until(next.into()).await;
                        }
                        let started = Instant::now();
                        let admitted = replica.admits().await;
                        said.push((admitted, started.elapsed()));
                        next = if paced { (next + pause).max(Instant::now()) } else { Instant::now() };
                        if !paced {
                            tokio::task::yield_now().await;
                        }
                    }
                    said
                })
            })
            .collect();
        let mut said = Vec::new();
        for task in tasks {
            said.extend(task.await.unwrap());
        }
        said
    })
}
