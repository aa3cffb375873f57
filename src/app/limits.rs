//! The limits among the stages: what they ask of the others, and the turns of their own work.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use rustc_hash::FxHashMap;
use tokio_util::sync::CancellationToken;

use super::limit_events::LimitEvents;
use super::notices::Notices;
use super::now;
use super::pause::Pause;
use super::reload::Book;
use crate::config::Config;
use crate::limit::{
    self, Backend, Key, Ledger, LimitMeters, Limits, Meter, Outside, Rule, Sight, Since, Store as LimitStore,
    StoreError, plan_rule,
};
use crate::metrics::{LimitReading, Metrics};
use crate::persist::Store;
use crate::telemetry::chain;
use tacho_core::domain::account::AccountId;
use tacho_core::domain::call::Tokens;
use tacho_core::domain::limit_event::LimitEvent;
use tacho_core::domain::money::NanoUsd;
use tacho_core::domain::plan::{Overage, Plans};
use tacho_core::domain::time::Timestamp;
use tacho_core::price::{PriceBook, Priced};

/// How often the store of limits is told what is new, at the most.
const TURN: Duration = Duration::from_millis(20);
/// How often an instance says that it lives; one that is silent for the second time counts no longer.
const HEARTBEAT: Duration = Duration::from_secs(2);
const HEARTBEAT_TTL: Duration = Duration::from_secs(10);
/// How often the metrics of limits are reckoned.
const SHOWN: Duration = Duration::from_secs(5);
/// While the store is away it is tried so often.
const PROBE: Duration = Duration::from_millis(250);
/// So long a changed plan may go unnoticed.
const ACCOUNT_AGE: Duration = Duration::from_secs(2);
/// Counters told to a store that has come back, in one step.
const PAGE: u32 = 1_000;
/// Accounts remembered; then all are forgotten.
const MOST_ACCOUNTS: usize = 100_000;

/// `[[limit]]` and what the plans say.
pub fn rules(config: &Config) -> Vec<Rule> {
    let denying = config.plans.iter().filter(|plan| plan.overage == Overage::Deny);
    let of_plans = denying.map(|plan| plan_rule(&plan.name, plan.free_requests));
    config.rules.0.iter().cloned().chain(of_plans).collect()
}

/// The stages that limits ask or tell something.
pub(super) struct Others<'m> {
    pub metrics: &'m Metrics,
    pub book: Arc<Book>,
    pub store: Arc<OnceLock<Store>>,
    pub notices: Option<Arc<Notices>>,
    pub events: Option<Arc<LimitEvents>>,
}

/// Limits of this instance, which is known to others by `node`.
pub(super) fn limits(config: &Config, node: Arc<str>, others: Others<'_>) -> Limits {
    let Others { metrics, book, store, notices, events } = others;
    let accounts =
        Arc::new(Accounts { plans: config.plans.clone(), store: Arc::clone(&store), known: Mutex::default() });
    let outside = Outside {
        now,
        ledger: Arc::new(move |keys| Box::pin(ledger(Arc::clone(&store), keys))),
        account: Arc::new(move |tenant, user| {
            let accounts = Arc::clone(&accounts);
            Box::pin(async move { accounts.find(tenant, user).await })
        }),
        name: {
            let book = Arc::clone(&book);
            Arc::new(move |model| listed_name(&book.now(), model))
        },
        price: Arc::new(move |model, tokens| price(&book.now(), model, tokens)),
        used_up: notices.map(|notices| Arc::new(move |sight: Sight<'_>| notices.saw(&sight)) as _),
        event: events.map(|events| Arc::new(move |event: LimitEvent| events.add(event)) as _),
    };
    Limits::new(config.limits.clone(), rules(config), node, outside, meters(metrics))
}

fn meters(metrics: &Metrics) -> LimitMeters {
    let families = metrics.limits.clone();
    LimitMeters {
        decisions: families.decisions.clone(),
        check_duration: families.check_duration.clone(),
        store_up: families.store_up.clone(),
        holds_expired: families.holds_expired.clone(),
        unreported: families.unreported.clone(),
        stand: Arc::new(move |readings| families.stand(readings.iter().map(shown).collect())),
    }
}

/// As Prometheus has it: seconds, shares, and money in dollars.
#[expect(clippy::cast_precision_loss, reason = "shown, not decided by")]
fn shown(reading: &limit::LimitReading) -> LimitReading {
    let unit = if reading.meter == Meter::Cost { 1e9 } else { 1.0 };
    let seconds = |time: Timestamp| time.0 as f64 / 1e9;
    LimitReading {
        limit: Arc::clone(&reading.limit),
        amount: reading.amount as f64 / unit,
        overshoot_bound: reading.overshoot_bound as f64 / unit,
        used_ratio: reading.used as f64 / 1e6,
        over: reading.over.iter().map(|(threshold, subjects)| (f64::from(*threshold) / 1e3, *subjects)).collect(),
        period: reading.period.and_then(|period| {
            let ends = period.end?;
            Some((ends.since(period.start).as_secs_f64(), seconds(ends)))
        }),
    }
}

async fn ledger(store: Arc<OnceLock<Store>>, keys: Vec<Key>) -> Option<Vec<Ledger>> {
    let wanted: Vec<u128> = keys.iter().map(|key| key.0).collect();
    let counted = store.get()?.counted(&wanted).await.ok()?;
    let of = |key: &Key| counted.iter().find(|counted| counted.key == key.0);
    // What no record was counted in is nothing, and older than anything.
    let none = Ledger { version: 0, used: 0 };
    Some(
        keys.iter()
            .map(|key| of(key).map_or(none, |found| Ledger { version: found.version, used: found.used }))
            .collect(),
    )
}

fn price(book: &PriceBook, model: &str, tokens: Tokens) -> Option<NanoUsd> {
    book.price(&priced(model, tokens)).ok().map(|charge| charge.cost)
}

/// What the price list calls a model, where that is another name.
fn listed_name(book: &PriceBook, model: &str) -> Option<Box<str>> {
    let found = book.find(&priced(model, Tokens::default())).ok()?;
    (found.model != model).then(|| found.model.into())
}

fn priced(model: &str, tokens: Tokens) -> Priced<'_> {
    Priced {
        provider: None,
        host: None,
        model_given: None,
        model_asked: Some(model),
        service_tier: None,
        started_at: now(),
        tokens,
    }
}

/// Plans of accounts, remembered for a moment.
struct Accounts {
    plans: Plans,
    store: Arc<OnceLock<Store>>,
    known: Mutex<FxHashMap<AccountId, (Account, Timestamp)>>,
}

type Account = (Arc<str>, Since);

impl Accounts {
    /// Who has no account yet is on the plan of new ones.
    async fn find(&self, tenant: Arc<str>, user: Option<Box<str>>) -> Account {
        let new = || (Arc::clone(&self.plans.default_plan().name), Since { began: now(), reset: None });
        let (Some(user), Some(store)) = (user, self.store.get()) else { return new() };
        let id = AccountId { tenant, user };
        if let Some(account) = self.remembered(&id) {
            return account;
        }
        // A database that is slow or away must not hold up a request.
        let read = tokio::time::timeout(PROBE, store.standings(std::slice::from_ref(&id))).await;
        let Ok(Ok(mut standings)) = read else { return self.last(&id).unwrap_or_else(new) };
        let account = standings.remove(&id).map_or_else(new, |standing| {
            (Arc::clone(&standing.plan), Since { began: standing.first_request_at, reset: standing.reset_at })
        });
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MOST_ACCOUNTS {
            known.clear();
        }
        known.insert(id, (account.clone(), now()));
        account
    }

    fn remembered(&self, id: &AccountId) -> Option<Account> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(id).filter(|(_, at)| now().since(*at) < ACCOUNT_AGE).map(|(account, _)| account.clone())
    }

    fn last(&self, id: &AccountId) -> Option<Account> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(id).map(|(account, _)| account.clone())
    }
}

/// Ends when the store of limits answers, or was waited for long enough: a request that comes before is decided without
/// it.
pub(super) async fn opened(limits: &Limits) {
    let open = async {
        while limits.store_is_away() && !limits.rules().is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    drop(tokio::time::timeout(HEARTBEAT, open).await);
}

/// Connects, then keeps the store told until `closing`; what is left is told at the end.
pub(super) async fn work(limits: Arc<Limits>, config: Config, store: Arc<OnceLock<Store>>, closing: CancellationToken) {
    let begin = async {
        // The store is not asked for while there is nothing to agree on; a reload may bring the first limit.
        limits.meters.store_up.set(1);
        while limits.rules().is_empty() {
            tokio::time::sleep(PROBE).await;
        }
        connect(&limits, &config, &store).await;
    };
    tokio::select! {
        () = begin => {}
        () = closing.cancelled() => return,
    }
    tokio::select! {
        () = turns(&limits) => {}
        () = retell(&limits, &store) => {}
        () = closing.cancelled() => {}
    }
    limits.leave().await;
}

async fn turns(limits: &Limits) {
    let (mut turn, mut beat) = (tokio::time::interval(TURN), tokio::time::interval(PROBE));
    let mut show = tokio::time::interval(SHOWN);
    turn.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut last_beat = Timestamp(0);
    loop {
        tokio::select! {
            _ = turn.tick() => while limits.turn(false).await {},
            // A look at every state, of which there may be a million.
            _ = show.tick() => tokio::task::block_in_place(|| limits.publish()),
            _ = beat.tick() => {
                if limits.store_is_away() || now().since(last_beat) >= HEARTBEAT {
                    last_beat = now();
                    limits.heartbeat(HEARTBEAT_TTL).await;
                }
            }
        }
    }
}

/// Whenever the store has come back it hears all that the ledger says: it may have forgotten it, and what was settled
/// when this instance ended it was never told.
async fn retell(limits: &Limits, store: &OnceLock<Store>) {
    loop {
        limits.mended().await;
        let Some(store) = store.get() else { continue };
        let mut after = None;
        loop {
            let page = match store.open_counters(now(), after, PAGE).await {
                Ok(page) => page,
                Err(error) => {
                    tracing::debug!(%error, "counters of quotas not read");
                    tokio::time::sleep(HEARTBEAT).await;
                    continue;
                }
            };
            let told: Vec<_> = page
                .iter()
                .map(|(counted, ends)| {
                    (Key(counted.key), Ledger { version: counted.version, used: counted.used }, *ends)
                })
                .collect();
            let Some((last, ..)) = told.last() else { break };
            after = Some(last.0);
            if !limits.retell(&told).await {
                break;
            }
        }
    }
}

/// Tries until both the database of records and the store of limits could be opened.
async fn connect(limits: &Limits, config: &Config, store: &OnceLock<Store>) {
    let mut pause = Pause::default();
    let ledger = loop {
        if let Some(store) = store.get() {
            match store.database_id().await {
                Ok(id) => break id,
                Err(error) => tracing::debug!(%error, "name of the database not read"),
            }
        }
        pause.wait().await;
    };
    limits.set_ledger(ledger);
    let mut pause = Pause::default();
    loop {
        match open(config).await {
            Ok(store) => return limits.connect(store),
            Err(error) => tracing::warn!(error = chain(&error), "limit store cannot be opened"),
        }
        pause.wait().await;
    }
}

/// Limits for one who only looks: they charge nothing, and no instance counts them as one.
pub async fn looking_limits(config: &Config, store: Arc<OnceLock<Store>>) -> Result<Limits, StoreError> {
    let book = Arc::new(Book::new(PriceBook::shipped()));
    let others = Others { metrics: &Metrics::default(), book, store: Arc::clone(&store), notices: None, events: None };
    let limits = limits(config, "looking".into(), others);
    if let Some(store) = store.get()
        && let Ok(ledger) = store.database_id().await
    {
        limits.set_ledger(ledger);
    }
    limits.connect(open(config).await?);
    limits.expect_store();
    Ok(limits)
}

async fn open(config: &Config) -> Result<LimitStore, StoreError> {
    let limits = &config.limits;
    match limits.backend {
        Backend::Memory => Ok(LimitStore::memory()),
        Backend::Database => LimitStore::database(config.database()).await,
        Backend::Redis => LimitStore::redis(limits.redis(), limits.patience()).await,
    }
}
