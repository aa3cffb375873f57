//! One replica of each of those that are compared, and one decision of it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use limitador::AsyncRateLimiter;
use limitador::limit::Limit;
use limitador::storage::redis::{AsyncRedisStorage, CachedRedisStorage};
use tacho_core::domain::time::Timestamp;
use tacho::limit::attempt::{Attempt, Step};
use tacho::limit::node::Node;
use tacho::limit::shared::{Key, Reporter, Shared};
use tacho::limit::{
    Asked, Backend, Decision, Ledger, LimitMeters, Limits, LimitsConfig, Outside, Rule, Rules, Since, Store, Traits,
    Usage,
};

#[derive(Clone, Copy)]
pub enum Who {
    Synced,
    Lease,
    Exact,
    LimitadorRedis,
    LimitadorCached,
}

impl Who {
    pub const ALL: [Self; 5] = [Self::Synced, Self::Lease, Self::Exact, Self::LimitadorRedis, Self::LimitadorCached];

    pub fn name(self) -> &'static str {
        match self {
            Self::Synced => "tacho, synced",
            Self::Lease => "tacho, lease",
            Self::Exact => "tacho, exact",
            Self::LimitadorRedis => "limitador, AsyncRedisStorage",
            Self::LimitadorCached => "limitador, CachedRedisStorage",
        }
    }
}

pub enum Replica {
    Tacho(Arc<Limits>),
    Limitador(Box<AsyncRateLimiter>),
}

pub fn limitador_limit(limit: u64) -> Limit {
    Limit::new("bench", limit, 1, vec![], vec!["user".try_into().expect("an expression")])
}

impl Replica {
    pub async fn open(who: Who, place: usize, url: &str, replicas: u32) -> Self {
        let limitador: Box<dyn limitador::storage::AsyncCounterStorage> = match who {
            Who::Synced => return tacho("synced", place, url, replicas).await,
            Who::Lease => return tacho("lease", place, url, replicas).await,
            Who::Exact => return tacho("exact", place, url, replicas).await,
            Who::LimitadorRedis => Box::new(AsyncRedisStorage::new(url).await.unwrap()),
            Who::LimitadorCached => Box::new(CachedRedisStorage::new(url).await.unwrap()),
        };
        let limiter = AsyncRateLimiter::new_with_storage(limitador);
        limiter.add_limit(limitador_limit(super::LIMIT.into()));
        Self::Limitador(Box::new(limiter))
    }

    pub async fn admits(&self) -> bool {
        match self {
            Self::Tacho(limits) => {
                let asked = Asked { user: Some("ann".into()), ..Asked::default() };
                matches!(limits.check(&asked).await, Decision::Admit(_))
            }
            Self::Limitador(limiter) => {
                let context = HashMap::from([("user".to_owned(), "ann".to_owned())]).into();
                !limiter.check_rate_limited_and_update(&"bench".into(), &context, 1).await.unwrap().limited
            }
        }
    }
}

#[derive(serde::Deserialize)]
struct File {
    limit: Rules,
}

fn rules(text: &str) -> Vec<Rule> {
    toml::from_str::<File>(text).expect("the limits of the bench are valid").limit.0
}

fn outside() -> Outside {
    Outside {
        now: tacho::app::now,
        ledger: Arc::new(|keys| Box::pin(async move { Some(vec![Ledger { version: 0, used: 0 }; keys.len()]) })),
        account: Arc::new(|_, _| Box::pin(async { ("default".into(), Since::default()) })),
        name: Arc::new(|_| None),
        price: Arc::new(|_, _| None),
        used_up: None,
        event: None,
    }
}

async fn tacho(mode: &str, place: usize, url: &str, replicas: u32) -> Replica {
    let limit = super::LIMIT;
    let rules = rules(&format!(
        "[[limit]]\nname = \"bench\"\nper = [\"user\"]\nmeter = \"requests\"\nmode = \"{mode}\"\nrate = {{ limit = {limit}, period = \"1s\" }}\n"
    ));
    let families = tacho::metrics::Metrics::default().limits.clone();
    let meters = LimitMeters {
        decisions: families.decisions,
        check_duration: families.check_duration,
        store_up: families.store_up,
        holds_expired: families.holds_expired,
        unreported: families.unreported,
        stand: Arc::new(|_| {}),
    };
    let config = LimitsConfig {
        backend: Backend::Redis,
        url: url.to_owned(),
        // The threads of a bench share few cores.
        timeout: Some(Duration::from_secs(5)),
        expected_instances: replicas,
        ..LimitsConfig::default()
    };
    let limits = Arc::new(Limits::new(config, rules, format!("node-{place}").into(), outside(), meters));
    limits.set_ledger("bench".into());
    limits.connect(Store::redis(url, Duration::from_secs(5)).await.unwrap());
    limits.heartbeat(Duration::from_secs(10)).await;
    let working = Arc::clone(&limits);
    // As the house does it beside the requests.
    tokio::task::spawn_local(async move {
        let (mut turn, mut beat) =
            (tokio::time::interval(Duration::from_millis(20)), tokio::time::interval(Duration::from_secs(2)));
        loop {
            tokio::select! {
                _ = turn.tick() => while working.turn(false).await {},
                _ = beat.tick() => working.heartbeat(Duration::from_secs(10)).await,
            }
        }
    });
    Replica::Tacho(limits)
}

/// Decisions with nothing left to ask, as in the bench `limits` of the house.
pub struct InMemory {
    node: Node,
    rules: Vec<Arc<Rule>>,
}

impl InMemory {
    pub fn new(users: &[String]) -> Self {
        let rules = rules(
            "[[limit]]\nname = \"bench\"\nper = [\"user\"]\nmeter = \"requests\"\nrate = { limit = 1_000_000_000, period = \"1s\" }\n",
        );
        let now = tacho::app::now().0;
        let bench =
            Self { node: Node::new(now / 1_000, 1_000_000, 1), rules: rules.into_iter().map(Arc::new).collect() };
        let who = Reporter { node: "bench".into(), ledger: "bench".into() };
        let mut store: BTreeMap<Key, Option<Shared>> = BTreeMap::new();
        for user in users {
            for _ in 0..8 {
                let Step::Ask(asks) = bench.attempt(user).1 else { break };
                for (_, ask) in asks {
                    let told = Shared::take(store.entry(ask.key).or_default(), &who, &ask, now / 1_000);
                    let cell = bench.node.find(ask.key).expect("it asked");
                    bench.node.heard(&cell, &ask, Some(&told), now);
                }
            }
        }
        bench
    }

    fn attempt(&self, user: &str) -> (Attempt<'_>, Step) {
        let traits = Traits { tenant: "default", user: Some(user), plan: "default", ..Traits::default() };
        let usage = Usage { requests: 1, ..Usage::default() };
        let Timestamp(now) = tacho::app::now();
        let mut attempt = Attempt::new(&self.node, &self.rules, &traits, &Since::default(), &usage, now);
        let step = attempt.step(&self.node, now / 1_000, now);
        (attempt, step)
    }

    pub fn decide(&self, user: &str) -> bool {
        matches!(self.attempt(user).1, Step::Granted)
    }
}

/// What Redis was asked so far: by clients, and with what their scripts called.
pub fn calls(url: &str) -> (u64, u64) {
    let mut connection = redis::Client::open(url).unwrap().get_connection().unwrap();
    let text: String = redis::cmd("INFO").arg("commandstats").query(&mut connection).unwrap();
    let (mut clients, mut all) = (0, 0);
    for line in text.lines().filter_map(|line| line.strip_prefix("cmdstat_")) {
        let (name, rest) = line.split_once(":calls=").unwrap();
        let calls: u64 = rest.split(',').next().unwrap().parse().unwrap();
        all += calls;
        if ["eval", "evalsha"].contains(&name) {
            clients += calls;
        }
    }
    (clients, all)
}
