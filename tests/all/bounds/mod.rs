//! What limits promise, held to with real processes: several instances, each with a database of its own, one Redis, ten times the
//! demand; and Redis dying under load. A short form is among the tests, the long one is `make bounds`.

mod demand;
mod outage;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::support::redis::Redis;
use crate::support::tacho_process::Tacho;
use demand::{Demand, Said, metric, worst_excess};

/// Some instances that share a Redis.
struct House {
    redis: Redis,
    instances: Vec<Tacho>,
    _folders: Vec<tempfile::TempDir>,
}

impl House {
    fn start(instances: usize, timeout: &str, limits: &str) -> Self {
        let redis = Redis::start();
        let url = redis.url();
        let file = format!(
            "[limits]\nbackend = \"redis\"\nurl = \"{url}\"\nexpected_instances = {instances}\ntimeout = \"{timeout}\"\n{limits}"
        );
        let folders: Vec<_> = (0..instances).map(|_| tempfile::tempdir().unwrap()).collect();
        let start = |folder: &tempfile::TempDir| {
            std::fs::write(folder.path().join("tacho.toml"), &file).unwrap();
            let database = format!("sqlite:{}", folder.path().join("tacho.db").display());
            Tacho::start(folder.path(), &database, &[("TACHO_TELEMETRY__LOG", "tacho=info")])
        };
        Self { redis, instances: folders.iter().map(start).collect(), _folders: folders }
    }

    fn addresses(&self) -> Vec<SocketAddr> {
        self.instances.iter().map(|tacho| tacho.http).collect()
    }

    /// Waits until every instance says that its store is there.
    async fn store_is_there(&self) {
        let begun = Instant::now();
        for tacho in &self.instances {
            while metric(tacho.http, "tacho_limit_store_up").await != Some(1.0) {
                assert!(begun.elapsed() < Duration::from_secs(30), "no store: {}", tacho.log());
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
    }
}

/// A limit under ten times the demand that it has room for.
#[derive(Clone, Copy)]
struct Case {
    name: &'static str,
    kind: Kind,
    mode: &'static str,
    seconds: u32,
}

#[derive(Clone, Copy)]
enum Kind {
    /// So many a second, and as many at once.
    Rate(u32),
    Lifetime(u32),
}

impl Case {
    const fn rate(name: &'static str, rate: u32, mode: &'static str, seconds: u32) -> Self {
        Self { name, kind: Kind::Rate(rate), mode, seconds }
    }

    const fn quota(name: &'static str, quota: u32, mode: &'static str, seconds: u32) -> Self {
        Self { name, kind: Kind::Lifetime(quota), mode, seconds }
    }

    fn toml(self) -> String {
        let Self { name, kind, mode, .. } = self;
        let amount = match kind {
            Kind::Rate(rate) => format!("rate = {{ limit = {rate}, period = \"1s\" }}"),
            Kind::Lifetime(quota) => format!("quota = {{ limit = {quota}, period = \"lifetime\" }}"),
        };
        format!(
            "[[limit]]\nname = \"{name}\"\nmatch = {{ agent = \"{name}\" }}\nper = [\"user\"]\nmeter = \"requests\"\nmode = \"{mode}\"\n{amount}\n"
        )
    }

    async fn run(self, house: &House) -> Outcome {
        let wanted = match self.kind {
            Kind::Rate(rate) => rate,
            Kind::Lifetime(quota) => quota.div_ceil(self.seconds),
        };
        let demand = Demand {
            agent: self.name,
            per_second: wanted * 10,
            connections_each: if wanted >= 100 { 4 } else { 1 },
            lasts: Duration::from_secs(self.seconds.into()),
        };
        let addresses = house.addresses();
        let overshoot = metric(addresses[0], &format!("tacho_limit_overshoot_bound{{limit=\"{}\"}}", self.name)).await;
        let done = tokio_util::sync::CancellationToken::new();
        let (said, clock) = tokio::join!(
            async {
                let said = demand.on(&addresses).await;
                done.cancel();
                said
            },
            slowest_ping(house.redis.port, done.clone())
        );
        Outcome::new(self, &said, overshoot.unwrap(), clock)
    }
}

/// The longest round trip to Redis meanwhile: clocks that follow Redis's are apart by no more than half of that each way.
async fn slowest_ping(port: u16, done: tokio_util::sync::CancellationToken) -> Duration {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let mut slowest = Duration::ZERO;
    while !done.is_cancelled() {
        let sent = Instant::now();
        stream.write_all(b"PING\r\n").await.unwrap();
        stream.read_exact(&mut [0; 7]).await.unwrap();
        slowest = slowest.max(sent.elapsed());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    slowest
}

/// What came of a case, in requests.
struct Outcome {
    case: Case,
    seconds: f64,
    asked: usize,
    admitted: usize,
    degraded: usize,
    /// What a single bucket or quota would have let through.
    ideal: f64,
    overshoot: f64,
    /// What the limit lets through while clocks are apart.
    clock: f64,
    /// Of the worst window.
    excess: f64,
}

impl Outcome {
    fn new(case: Case, said: &[Said], overshoot: f64, clock: Duration) -> Self {
        let (first, last) = (said.first().unwrap().sent, said.iter().map(|said| said.heard).max().unwrap());
        let seconds = (last - first).as_secs_f64();
        let admitted = said.iter().filter(|said| said.admitted).count();
        let (burst, rate) = match case.kind {
            Kind::Rate(rate) => (f64::from(rate), f64::from(rate)),
            Kind::Lifetime(quota) => (f64::from(quota), 0.0),
        };
        Self {
            case,
            seconds,
            asked: said.len(),
            admitted,
            degraded: said.iter().filter(|said| said.degraded).count(),
            ideal: burst + rate * seconds,
            overshoot,
            clock: rate * clock.as_secs_f64(),
            excess: worst_excess(said, burst, rate, None),
        }
    }

    fn utilisation(&self) -> f64 {
        self.admitted as f64 / self.ideal
    }

    fn line(&self) -> String {
        let limit = match self.case.kind {
            Kind::Rate(rate) => format!("{rate} a second"),
            Kind::Lifetime(quota) => format!("{quota} in all"),
        };
        format!(
            "| {limit} | {} | {:.1} | {} | {} | {:.0} | {:.0} | {:.1} | {:+.1} | {:.1} % |",
            self.case.mode,
            self.seconds,
            self.asked,
            self.admitted,
            self.ideal,
            self.ideal + self.overshoot,
            self.clock,
            self.excess,
            self.utilisation() * 100.0
        )
    }

    /// `used`: the least share of the ideal that must have been let through, where enough was asked for.
    fn assert_promised(&self, used: f64) {
        let line = self.line();
        // Where many ask for one subject at once, a few come too often between and are decided without the store.
        assert!(self.degraded * 1_000 <= self.asked, "{} degraded although the store was there: {line}", self.degraded);
        assert!(self.excess <= self.overshoot + self.clock, "over the bound: {line}");
        assert!(self.asked as f64 >= 1.5 * self.ideal, "the machine was too slow to ask: {line}");
        assert!(self.utilisation() >= used, "too much was refused: {line}");
    }
}

const HEAD: &str = "| limit | mode | seconds | asked | admitted | ideal | promised | clock term | excess of the worst window | utilisation |
| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |";

/// A machine that does other things at the same time is slow, and this is not a test of what happens then.
const PATIENT: &str = "5s";

async fn bounds(instances: usize, cases: &[Case], used: f64) {
    let limits: String = cases.iter().map(|case| case.toml()).collect();
    let house = House::start(instances, PATIENT, &limits);
    house.store_is_there().await;
    println!("{instances} instances\n{HEAD}");
    let mut outcomes = Vec::new();
    for case in cases {
        let outcome = case.run(&house).await;
        println!("{}", outcome.line());
        outcomes.push(outcome);
    }
    outcomes.iter().for_each(|outcome| outcome.assert_promised(used));
    house.instances.into_iter().for_each(Tacho::stop);
}

/// With fewer instances, and less to be used, as all tests share the machine.
#[tokio::test(flavor = "multi_thread")]
async fn short_ten_times_the_demand() {
    let cases = [
        Case::rate("rate-synced", 100, "synced", 4),
        Case::rate("rate-lease", 100, "lease", 4),
        Case::quota("quota-lease", 1_000, "lease", 4),
    ];
    bounds(4, &cases, 0.9).await;
}

/// What `make bounds` runs.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes: run by `make bounds`"]
async fn long_ten_times_the_demand() {
    let cases = [
        Case::rate("rate-10-synced", 10, "synced", 10),
        Case::rate("rate-10-lease", 10, "lease", 10),
        Case::rate("rate-10-exact", 10, "exact", 10),
        Case::rate("rate-100-synced", 100, "synced", 10),
        Case::rate("rate-100-lease", 100, "lease", 10),
        Case::rate("rate-100-exact", 100, "exact", 10),
        Case::rate("rate-1000-synced", 1_000, "synced", 10),
        Case::rate("rate-1000-lease", 1_000, "lease", 10),
        Case::rate("rate-1000-exact", 1_000, "exact", 10),
        Case::quota("quota-1000-synced", 1_000, "synced", 10),
        Case::quota("quota-1000-lease", 1_000, "lease", 10),
        Case::quota("quota-1000-exact", 1_000, "exact", 10),
    ];
    bounds(8, &cases, 0.95).await;
}
