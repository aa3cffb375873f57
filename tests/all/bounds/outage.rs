//! Redis dies while checks go on: no decision waits for it, each limit does as its `on_store_error` says, the log says it once, and
//! when Redis is back all is as before.

use super::*;
use demand::{Connection, waits};
use tokio::task::JoinSet;

/// How long each part lasts, how long a decision may wait for the store, and how much longer the machine may make it.
#[derive(Clone, Copy)]
struct Plan {
    part: Duration,
    timeout: Duration,
    margin: Duration,
}

const INSTANCES: usize = 3;
const RATE: u32 = 100;

/// A rate that goes on with its share, a quota that closes, one that opens; each is asked for more than it has but the second.
const LIMITS: &str = r#"
[[limit]]
name = "local"
match = { agent = "local" }
per = ["user"]
meter = "requests"
rate = { limit = 100, period = "1s" }
[[limit]]
name = "closed"
match = { agent = "closed" }
per = ["user"]
meter = "requests"
mode = "exact"
quota = { limit = 1_000_000, period = "lifetime" }
[[limit]]
name = "open"
match = { agent = "open" }
per = ["user"]
meter = "requests"
mode = "exact"
on_store_error = "open"
rate = { limit = 10, period = "1s" }
"#;

const AGENTS: [(&str, u32); 3] = [("local", 6 * RATE), ("closed", 60), ("open", 60)];

#[derive(Clone, Copy, Debug)]
enum Fault {
    Killed,
    /// It takes connections and does not answer.
    Stopped,
}

/// When Redis went, when it came back, and when every instance had noticed.
struct Times {
    away: Instant,
    back: Instant,
    noticed: Instant,
}

async fn outage(house: &mut House, fault: Fault, plan: Plan) {
    let addresses = house.addresses();
    let mut asking = JoinSet::new();
    for (agent, per_second) in AGENTS {
        let demand = Demand { agent, per_second, connections_each: 2, lasts: plan.part * 3 };
        let addresses = addresses.clone();
        asking.spawn(async move { (agent, demand.on(&addresses).await) });
    }
    tokio::time::sleep(plan.part).await;
    let away = Instant::now();
    match fault {
        Fault::Killed => house.redis.kill(),
        Fault::Stopped => house.redis.signal("-STOP"),
    }
    tokio::time::sleep(plan.part).await;
    match fault {
        Fault::Killed => house.redis.again(),
        Fault::Stopped => house.redis.signal("-CONT"),
    }
    let back = Instant::now();
    house.store_is_there().await;
    let times = Times { away, back, noticed: Instant::now() };
    println!("redis {fault:?} for {:.1?}, noticed {:.1?} after it was back", times.back - away, times.noticed - back);
    for (agent, said) in asking.join_all().await {
        show(agent, &said, &times);
        let longest = waits(said.iter())[2];
        assert!(longest <= plan.timeout + plan.margin, "{agent}: a decision took {longest:?}");
        match agent {
            "local" => assert_local(&said, &times),
            "closed" => assert_closed(&said, &times, plan),
            _ => assert_open(&said, &times, plan),
        }
        let late = said.iter().filter(|said| said.sent > times.noticed);
        assert!(late.clone().count() > 0, "the last part is too short to see {agent} come back");
        assert_eq!(late.filter(|said| said.degraded).count(), 0, "{agent} is degraded although the store is there");
    }
}

fn show(agent: &str, said: &[Said], times: &Times) {
    let part = |name: &str, is_in: &dyn Fn(&Said) -> bool| {
        let said: Vec<&Said> = said.iter().filter(|said| is_in(said)).collect();
        let [p50, p99, longest] = waits(said.iter().copied());
        let admitted = said.iter().filter(|said| said.admitted).count();
        let degraded = said.iter().filter(|said| said.degraded).count();
        println!(
            "{agent:<7} {name:<7} asked {:>5}  admitted {admitted:>5}  degraded {degraded:>5}  p50 {p50:>9.1?}  p99 {p99:>9.1?}  longest {longest:>9.1?}",
            said.len()
        );
    };
    part("before", &|said| said.heard < times.away);
    part("during", &|said| said.heard >= times.away && said.sent <= times.noticed);
    part("after", &|said| said.sent > times.noticed);
}

/// All instances together stay within one bucket, what they had not told each other, and what the outage adds: as much again.
fn assert_local(said: &[Said], times: &Times) {
    let rate = f64::from(RATE);
    let slack = 5.0;
    let outage = rate + rate * (times.noticed - times.away).as_secs_f64();
    let excess = worst_excess(said, rate, rate, None);
    let after = worst_excess(said, rate, rate, Some(times.noticed));
    println!(
        "local   excess of the worst window {excess:+.1} of {:.1}, and after it {after:+.1} of {slack}",
        slack + outage
    );
    assert!(excess <= slack + outage, "{excess} over the limit");
    assert!(after <= slack, "{after} over the limit after the store was back");
    let alone = said.iter().filter(|said| said.degraded && said.admitted).count();
    assert!(alone > 0, "nothing was let through without the store");
}

/// Whether it was decided surely without the store: asked when all had noticed, answered before it was back.
fn is_away(said: &Said, times: &Times, plan: Plan) -> bool {
    said.sent > times.away + plan.timeout + plan.margin / 10 && said.heard < times.back
}

fn assert_closed(said: &[Said], times: &Times, plan: Plan) {
    for said in said.iter().filter(|said| is_away(said, times, plan)) {
        assert!(!said.admitted && said.degraded && said.retry_after, "{said:?}");
    }
    let there = said.iter().filter(|said| said.heard < times.away || said.sent > times.noticed);
    assert!(there.clone().all(|said| said.admitted), "refused although there was room and the store");
}

fn assert_open(said: &[Said], times: &Times, plan: Plan) {
    for said in said.iter().filter(|said| is_away(said, times, plan)) {
        assert!(said.admitted && said.degraded, "{said:?}");
    }
    assert!(said.iter().any(|said| !said.admitted && said.heard < times.away), "the limit did not hold before");
}

async fn outages(plan: Plan) {
    let mut house = House::start(INSTANCES, &format!("{}ms", plan.timeout.as_millis()), LIMITS);
    house.store_is_there().await;
    for fault in [Fault::Killed, Fault::Stopped] {
        outage(&mut house, fault, plan).await;
    }
    for tacho in &house.instances {
        let log = tacho.log();
        let lines = |text: &str| log.lines().filter(|line| line.contains(text)).count();
        // Once for each time that it went, and that it came; also at the start.
        assert_eq!((lines("limit store away"), lines("limit store there")), (2, 3), "{log}");
    }
    house.instances.into_iter().for_each(Tacho::stop);
}

#[tokio::test(flavor = "multi_thread")]
async fn short_redis_dies_under_load() {
    outages(Plan {
        part: Duration::from_millis(2_500),
        timeout: Duration::from_millis(500),
        margin: Duration::from_secs(5),
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes: run by `make bounds`"]
async fn long_redis_dies_under_load() {
    outages(Plan {
        part: Duration::from_secs(10),
        timeout: Duration::from_millis(100),
        margin: Duration::from_secs(2),
    })
    .await;
}

/// A client that hangs up while its check waits for Redis leaves nothing behind on which the next one would wait.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_holds_up_nobody() {
    let house = House::start(1, PATIENT, LIMITS);
    house.store_is_there().await;
    let address = house.addresses()[0];
    let body = r#"{"user":"ann","agent":"closed"}"#;
    assert!(Connection::open(address).await.check(body).await.admitted);
    house.redis.signal("-STOP");
    let mut leaving = Connection::open(address).await;
    drop(tokio::time::timeout(Duration::from_millis(200), leaving.check(body)).await);
    drop(leaving);
    tokio::time::sleep(Duration::from_millis(200)).await;
    house.redis.signal("-CONT");
    let said = Connection::open(address).await.check(body).await;
    assert!(said.admitted && !said.degraded, "{said:?}");
}
