//! The limits as the rest of the house uses them: ask before a request, settle after it. It drives the node, keeps its store told,
//! and goes on without the store when that is away.

mod decide;
mod events;
mod settle;
mod sight;
mod turn;

use std::pin::Pin;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use std::time::Duration;

use tokio::sync::Notify;

use super::amount::{Meter, Usage};
use super::attempt::{Attempt, Reason, Refused, Stand, Standing, Step};
use super::breaker::Breaker;
use super::charge::Charge;
use super::config::LimitsConfig;
use super::estimate::Estimates;
use super::hold::{Hold, Holds, Origin, Part, Reservation};
use super::meters::LimitMeters;
use super::node::{Cell, Node};
use super::rule::{Action, Dimension, Kind, Rule, Traits};
use super::shared::{Ask, Key, Ledger, Reporter, What};
use super::store::{Answers, Store};
use super::subject::{Since, Subject};
use crate::telemetry::chain;
pub use sight::Sight;
use tacho_core::domain::call::Tokens;
use tacho_core::domain::ids::{SpanId, TraceId};
use tacho_core::domain::limit_event::LimitEvent;
use tacho_core::domain::money::NanoUsd;
use tacho_core::domain::time::Timestamp;

/// What limits need of the rest of the house.
#[derive(Clone)]
pub struct Outside {
    pub now: fn() -> Timestamp,
    /// What the ledger says of each key; `None` if it cannot be read now.
    pub ledger: Arc<ReadLedger>,
    /// Plan and account of a user.
    pub account: Arc<FindAccount>,
    /// What so many tokens of a model cost now.
    pub price: Arc<Price>,
    /// The name under which calls of a model count, where it has another one.
    pub name: Arc<Name>,
    /// Hears of quotas that are used up, if anybody wants to know. Called where requests wait, so it must be quick.
    pub used_up: Option<Arc<See>>,
    /// Hears of refusals and of thresholds that are reached, of each again and again, if anybody wants to know. As quick.
    pub event: Option<Arc<TellEvent>>,
}

type ReadLedger = dyn Fn(Vec<Key>) -> Later<Option<Vec<Ledger>>> + Send + Sync;
type FindAccount = dyn Fn(Arc<str>, Option<Box<str>>) -> Later<(Arc<str>, Since)> + Send + Sync;
type Name = dyn Fn(&str) -> Option<Box<str>> + Send + Sync;
type Price = dyn Fn(&str, Tokens) -> Option<NanoUsd> + Send + Sync;
type See = dyn Fn(Sight<'_>) + Send + Sync;
type TellEvent = dyn Fn(LimitEvent) + Send + Sync;
pub type Later<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// A request that is about to begin.
#[derive(Clone, Debug, Default)]
pub struct Asked {
    pub tenant: Option<Box<str>>,
    pub user: Option<Box<str>>,
    pub endpoint: Option<Box<str>>,
    pub agent: Option<Box<str>>,
    pub model: Option<Box<str>>,
    pub origin: Origin,
    pub input_tokens: Option<u32>,
    pub max_output_tokens: Option<u32>,
}

impl Asked {
    fn tenant(&self) -> Arc<str> {
        self.tenant.as_deref().unwrap_or(DEFAULT_TENANT).into()
    }

    fn traits<'a>(&'a self, tenant: &'a str, plan: &'a str) -> Traits<'a> {
        Traits {
            tenant,
            user: self.user.as_deref(),
            agent: self.agent.as_deref(),
            model: self.model.as_deref(),
            endpoint: self.endpoint.as_deref(),
            plan,
        }
    }
}

/// The answer to `Asked`.
#[derive(Debug)]
pub enum Decision {
    Admit(Admission),
    Refuse(Refusal),
}

#[derive(Debug)]
pub struct Admission {
    pub reservation: Reservation,
    pub degraded: bool,
    pub limits: Vec<LimitState>,
}

#[derive(Debug)]
pub struct Refusal {
    /// The place in `limits` of the one that refuses for longest.
    pub place: usize,
    pub reason: Reason,
    /// `None` when waiting does not help.
    pub retry_after: Option<Duration>,
    pub degraded: bool,
    pub limits: Vec<LimitState>,
}

/// How one limit stands for the subject of a request.
#[derive(Clone, Debug)]
pub struct LimitState {
    pub name: Arc<str>,
    pub meter: Meter,
    pub action: Action,
    pub subject: Subject,
    /// The period of a rate, or how long one of the quota is.
    pub window: Option<Duration>,
    pub is_quota: bool,
    /// Of a quota: when its period ends, if it does.
    pub ends: Option<Timestamp>,
    /// Of a rate: what the bucket holds.
    pub burst: Option<i64>,
    pub stand: Stand,
    /// What this limit decided on the request, in the word of the metric; `None` where nothing was asked of it.
    pub decision: Option<&'static str>,
    /// The highest threshold of `warn_at` that is reached, in thousandths.
    pub warning: Option<u16>,
}

pub struct Limits {
    node: Node,
    rules: RwLock<Arc<[Arc<Rule>]>>,
    holds: Holds,
    estimates: Estimates,
    store: OnceLock<Store>,
    who: RwLock<Reporter>,
    breaker: Breaker,
    /// What the store's clock is ahead of ours, in nanoseconds.
    offset: AtomicI64,
    /// Wakes those who wait for the answer to somebody else's question, by key.
    answered: [Notify; 64],
    mended: Notify,
    config: LimitsConfig,
    pub meters: LimitMeters,
    outside: Outside,
}

/// As records name it where nothing else does.
const DEFAULT_TENANT: &str = "default";
/// Reports in one message.
const MOST_REPORTS: usize = 200;
/// Rounds of a decision: news, a wish, and again as often as somebody came between. After that it is decided without the store.
const MOST_ROUNDS: usize = 64;

impl Limits {
    pub fn new(config: LimitsConfig, rules: Vec<Rule>, node: Arc<str>, outside: Outside, meters: LimitMeters) -> Self {
        let now = (outside.now)();
        let micros = now.0 / 1_000;
        let rules: Arc<[Arc<Rule>]> = rules.into_iter().map(Arc::new).collect();
        meters.begin(&rules);
        Self {
            node: Node::new(micros, config.max_subjects, config.expected_instances),
            rules: RwLock::new(rules),
            holds: Holds::new(config.max_subjects, now.0),
            estimates: Estimates::new(config.estimate.clone()),
            store: OnceLock::new(),
            who: RwLock::new(Reporter { node, ledger: "".into() }),
            breaker: Breaker::opened(),
            offset: AtomicI64::new(0),
            answered: std::array::from_fn(|_| Notify::new()),
            mended: Notify::new(),
            config,
            meters,
            outside,
        }
    }

    pub fn rules(&self) -> Arc<[Arc<Rule>]> {
        Arc::clone(&self.rules.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Other rules from now on. What was used stays with every limit that counts the same as before.
    pub fn reload(&self, rules: Vec<Rule>) {
        let rules: Arc<[Arc<Rule>]> = rules.into_iter().map(Arc::new).collect();
        self.meters.begin(&rules);
        *self.rules.write().unwrap_or_else(PoisonError::into_inner) = rules;
        self.publish();
    }

    pub fn config(&self) -> &LimitsConfig {
        &self.config
    }

    pub fn node(&self) -> &Node {
        &self.node
    }

    pub fn estimates(&self) -> &Estimates {
        &self.estimates
    }

    /// Which database this instance writes records to.
    pub fn set_ledger(&self, ledger: Arc<str>) {
        self.who.write().unwrap_or_else(PoisonError::into_inner).ledger = ledger;
    }

    /// Opens the way to the store.
    pub fn connect(&self, store: Store) {
        drop(self.store.set(store));
    }

    /// Asks the store without having heard from it.
    pub fn expect_store(&self) {
        self.breaker.mend();
    }

    /// The store's time in nanoseconds, as far as it is known.
    fn now(&self) -> u64 {
        (self.outside.now)().0.saturating_add_signed(self.offset.load(Ordering::Relaxed))
    }

    /// Microseconds until which a hold made now counts.
    fn until(&self, now: u64) -> u64 {
        now.saturating_add(nanos(self.config.hold_ttl)) / 1_000
    }

    /// How each limit stands that is for such a request, without taking anything of it.
    pub async fn show(&self, asked: &Asked) -> Vec<LimitState> {
        let asked = &*self.named(asked);
        let rules = self.rules();
        let tenant = asked.tenant();
        let (plan, since) = self.account(&rules, &tenant, asked).await;
        let traits = asked.traits(&tenant, &plan);
        let mut attempt = Attempt::new(&self.node, &rules, &traits, &since, &Usage::default(), self.now());
        // Nothing is wanted, so nothing is refused.
        self.decide(&mut attempt).await;
        attempt.refresh(&self.node);
        self.states(&attempt, &traits)
    }

    /// Plan and account of the user, if any limit depends on them.
    async fn account(&self, rules: &[Arc<Rule>], tenant: &Arc<str>, asked: &Asked) -> (Arc<str>, Since) {
        if rules.iter().any(|rule| rule.asks_account()) {
            (self.outside.account)(Arc::clone(tenant), asked.user.clone()).await
        } else {
            ("".into(), Since::default())
        }
    }

    fn states(&self, attempt: &Attempt<'_>, traits: &Traits<'_>) -> Vec<LimitState> {
        let now = self.now();
        let state = |limit: &super::attempt::Matched<'_>| {
            let stand = limit.now(now);
            let kind = limit.rule.tier(limit.tier);
            LimitState {
                name: Arc::clone(&limit.rule.name),
                meter: limit.rule.meter,
                action: limit.rule.action,
                subject: Subject::new(&limit.rule.per, traits),
                window: match kind {
                    Kind::Rate(rate) => Some(rate.period),
                    Kind::Quota(_) => limit.period.and_then(|period| Some(period.end?.since(period.start))),
                },
                is_quota: matches!(kind, Kind::Quota(_)),
                ends: limit.period.and_then(|period| period.end),
                burst: match kind {
                    Kind::Rate(rate) => Some(rate.burst.0),
                    Kind::Quota(_) => None,
                },
                stand,
                decision: None,
                warning: limit.rule.warning(kind, &stand),
            }
        };
        attempt.limits.iter().map(state).collect()
    }

    /// Counts the decision of each limit and writes it into its state.
    fn count(&self, attempt: &Attempt<'_>, refused: Option<&Refused>, states: &mut [LimitState]) {
        for ((place, limit), state) in attempt.limits.iter().enumerate().zip(states) {
            let (decision, reason) = match refused {
                Some(refused) if refused.place == place => ("refuse", refused.reason.label()),
                // Another limit refused; this one was not charged.
                Some(_) => {
                    state.decision = Some("allow");
                    continue;
                }
                None if limit.standing == Standing::Passed => match limit.rule.action {
                    Action::Warn => ("warn", Reason::OverLimit.label()),
                    _ => ("shadow", Reason::OverLimit.label()),
                },
                None if attempt.degraded => ("allow", Reason::StoreUnavailable.label()),
                None => ("allow", "within_limit"),
            };
            state.decision = Some(decision);
            self.meters.decided(&limit.rule.name, decision, reason);
        }
    }

    /// Sets the gauges that follow from rules and cells.
    pub fn publish(&self) {
        let rules = self.rules();
        self.meters.publish(&self.node, &rules, self.now());
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Asks on their way. Each cell hears what came of it when this is dropped, also where the client has gone while it waited: a cell
/// whose answer is never heard would be asked about no more.
struct Asking<'l> {
    limits: &'l Limits,
    asks: Vec<(Arc<Cell>, Ask)>,
    answers: Option<Answers>,
}

impl<'l> Asking<'l> {
    fn new(limits: &'l Limits, asks: Vec<(Arc<Cell>, Ask)>) -> Self {
        Self { limits, asks, answers: None }
    }

    async fn ask(&mut self) {
        let only: Vec<Ask> = self.asks.iter().map(|(_, ask)| ask.clone()).collect();
        self.answers = self.limits.ask(&only).await;
    }
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        let now = self.limits.now();
        for (nth, (cell, ask)) in self.asks.iter().enumerate() {
            let told = self.answers.as_ref().and_then(|answers| answers.of(nth));
            self.limits.node.heard(cell, ask, told, now);
            self.limits.answered(ask.key).notify_waiters();
        }
    }
}
