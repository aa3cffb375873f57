//! All that one instance knows of limits: its cells, within a bound. It makes an attempt of each request, finds what must be told
//! to the store, and hears what the store tells. It reads no clock and does no I/O.

use std::borrow::Borrow;
use std::collections::VecDeque;
use std::hash::{Hash, Hasher};
use std::num::NonZeroU64;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustc_hash::{FxHashMap, FxHashSet};

use super::amount::Meter;
use super::cell::{Look, QuotaCell, RateCell, Talk, Terms};
use super::meters::Used;
use super::rule::{Kind, Mode, OnStoreError, Rate, Rule, Tier};
use super::shared::{Ask, Key, Ledger, Told};

/// The cells of one instance.
pub struct Node {
    shards: Box<[Shard]>,
    cells: AtomicUsize,
    most_cells: usize,
    /// Tells the incarnations of cells apart, also over restarts: begins with the time.
    births: AtomicU64,
    /// How many instances share the limits, at least one.
    nodes: AtomicU32,
    /// Cells about which the store is to be told something, each once.
    news: Mutex<VecDeque<Arc<Cell>>>,
}

type Shard = Mutex<FxHashSet<Kept>>;

/// One limit and subject, of a quota one period.
pub struct Cell {
    pub key: Key,
    state: Mutex<State>,
}

/// A cell in a set, found by its key.
struct Kept(Arc<Cell>);

pub(super) struct State {
    pub rule: Arc<Rule>,
    tier: Tier,
    /// It stands in the queue of news.
    in_news: bool,
    pub count: Count,
}

pub(super) enum Count {
    Rate(RateCell),
    Quota {
        cell: QuotaCell,
        /// When the period ends, in nanoseconds; `None` for a lifetime.
        ends: Option<NonZeroU64>,
    },
}

/// The shards are locked for a look into a map only.
const SHARDS: usize = 64;
/// Cells that are looked at in a full shard to find one that can go.
const EVICTION_PROBES: usize = 16;
/// The share of what remains that a lease may take, divided by the instances.
const LEASE_SHARE: i64 = 4;

impl Node {
    /// `now` in microseconds.
    pub fn new(now: u64, most_cells: usize, nodes: u32) -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            cells: AtomicUsize::new(0),
            most_cells: most_cells.max(SHARDS),
            births: AtomicU64::new(now),
            nodes: AtomicU32::new(nodes.max(1)),
            news: Mutex::default(),
        }
    }

    pub fn nodes(&self) -> u32 {
        self.nodes.load(Ordering::Relaxed)
    }

    pub fn set_nodes(&self, nodes: u32) {
        self.nodes.store(nodes.max(1), Ordering::Relaxed);
    }

    pub fn subjects(&self) -> usize {
        self.cells.load(Ordering::Relaxed)
    }

    /// How much of this limit one node may be ahead of what the store knows.
    pub fn slack(&self, rule: &Rule, kind: &Kind) -> i64 {
        rule.slack(kind) / i64::from(self.nodes().saturating_sub(1).max(1))
    }

    pub fn find(&self, key: Key) -> Option<Arc<Cell>> {
        lock(self.shard(key)).get(&key).map(|kept| Arc::clone(&kept.0))
    }

    /// The cell of this key, new if need be. `None` when there is no room: every cell has something to tell.
    pub fn cell(&self, key: Key, rule: &Arc<Rule>, tier: Tier, ends: Option<u64>, now: u64) -> Option<Arc<Cell>> {
        let mut shard = lock(self.shard(key));
        if let Some(Kept(cell)) = shard.get(&key) {
            return Some(Arc::clone(cell));
        }
        if self.subjects() >= self.most_cells {
            // Nobody else may have it in hand: what is charged to a forgotten cell would not be known.
            let can_go = |Kept(cell): &&Kept| Arc::strong_count(cell) == 1 && cell.lock().is_clean(now);
            let clean = shard.iter().take(EVICTION_PROBES).find(can_go).map(|Kept(cell)| cell.key);
            shard.remove(&clean?);
            self.cells.fetch_sub(1, Ordering::Relaxed);
        }
        let birth = self.births.fetch_add(1, Ordering::Relaxed);
        let count = match rule.tier(tier) {
            Kind::Rate(_) => Count::Rate(RateCell::new(birth)),
            Kind::Quota(_) => {
                let ends = ends.map(|ends| NonZeroU64::new(ends).unwrap_or(NonZeroU64::MIN));
                Count::Quota { cell: QuotaCell::new(birth), ends }
            }
        };
        let state = State { rule: Arc::clone(rule), tier, in_news: false, count };
        let cell = Arc::new(Cell { key, state: Mutex::new(state) });
        shard.insert(Kept(Arc::clone(&cell)));
        self.cells.fetch_add(1, Ordering::Relaxed);
        Some(cell)
    }

    fn shard(&self, key: Key) -> &Shard {
        // The key is a hash: any of its bits will do.
        let place = usize::try_from(key.0 % 64).expect("less than the number of shards");
        &self.shards[place]
    }

    /// The store is to be told of this cell, unless every instance counts for itself.
    pub fn announce(&self, cell: &Arc<Cell>) {
        let mut state = cell.lock();
        if state.rule.mode != Mode::Local && !std::mem::replace(&mut state.in_news, true) {
            drop(state);
            lock(&self.news).push_back(Arc::clone(cell));
        }
    }

    /// Others may have given back what stands in the way of somebody who looks at this cell.
    pub fn refresh(&self, cell: &Arc<Cell>) {
        cell.lock().talk_mut().looked_at = true;
        self.announce(cell);
    }

    /// Takes up to `most` reports that are due. What is not due yet, or waits for an answer, stays.
    pub fn reports(&self, most: usize, until: u64, now: u64, all: bool) -> Vec<(Arc<Cell>, Ask)> {
        let waiting = lock(&self.news).len();
        let mut asks = Vec::new();
        for _ in 0..waiting {
            if asks.len() >= most {
                break;
            }
            let Some(cell) = lock(&self.news).pop_front() else { break };
            let mut state = cell.lock();
            let slack = self.slack(&state.rule, state.kind());
            if !state.talk().busy && (all || state.is_due(slack, until, now)) {
                state.in_news = false;
                state.talk_mut().busy = true;
                let ask = state.report(cell.key, until, now);
                drop(state);
                asks.push((cell, ask));
            } else {
                drop(state);
                lock(&self.news).push_back(cell);
            }
        }
        asks
    }

    /// Hears what the store told; `None` if it could not be asked.
    pub fn heard(&self, cell: &Arc<Cell>, ask: &Ask, told: Option<&Told>, now: u64) {
        let mut state = cell.lock();
        state.talk_mut().done(ask.version);
        if let Some(told) = told {
            state.learn(ask, told, now);
        }
        let again = state.has_news();
        drop(state);
        if again {
            self.announce(cell);
        }
    }

    /// What the ledger says of a quota now. Answers what is used in all.
    pub fn settled(&self, cell: &Arc<Cell>, ledger: Ledger) -> i64 {
        let used = self.knows(cell, ledger);
        self.announce(cell);
        used
    }

    /// What the ledger said before the store was first asked.
    pub fn knows(&self, cell: &Arc<Cell>, ledger: Ledger) -> i64 {
        let Count::Quota { cell, .. } = &mut cell.lock().count else { return 0 };
        cell.settled(ledger);
        cell.used()
    }

    /// Holds another amount in place of the one that was held since `drained` nanoseconds.
    pub fn correct(&self, cell: &Arc<Cell>, held: i64, now_held: i64, drained: u64, now: u64) {
        if let Count::Quota { cell, .. } = &mut cell.lock().count {
            cell.hold(now_held - held);
        } else {
            return self.replace(cell, held, now_held, drained, now);
        }
        self.announce(cell);
    }

    /// Puts what was really used in place of what was held for it `drained` nanoseconds ago. Of a quota only the hold goes: what
    /// was used comes with the ledger.
    pub fn replace(&self, cell: &Arc<Cell>, held: i64, used: i64, drained: u64, now: u64) {
        let mut state = cell.lock();
        let State { rule, tier, count, .. } = &mut *state;
        match (rule.tier(*tier), count) {
            (Kind::Rate(rate), Count::Rate(bucket)) => {
                let nanos = rate.nanos_for(used).saturating_sub(rate.nanos_for(held));
                // What has drained since it was charged is not there to be given back.
                let nanos = if nanos < 0 { nanos.saturating_add_unsigned(drained).min(0) } else { nanos };
                bucket.charge(nanos, now);
            }
            (_, Count::Quota { cell, .. }) => cell.hold(-held),
            _ => {}
        }
        drop(state);
        self.announce(cell);
    }

    /// All cells, a shard at a time.
    pub fn each(&self, mut look: impl FnMut(&Arc<Cell>)) {
        for shard in &self.shards {
            let cells: Vec<Arc<Cell>> = lock(shard).iter().map(|kept| Arc::clone(&kept.0)).collect();
            cells.iter().for_each(&mut look);
        }
    }
}

impl Cell {
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// Whether an answer about it is on its way.
    pub fn is_busy(&self) -> bool {
        self.lock().talk().busy
    }

    pub fn meter(&self) -> Meter {
        self.lock().rule.meter
    }

    /// How much of the limit is used and held, by the one of these rules that it counts for; `None` if that is gone.
    pub fn used_share<'r>(&self, rules: &FxHashMap<u64, &'r Arc<Rule>>, now: u64) -> Option<(&'r Arc<Rule>, Used)> {
        let mut state = self.lock();
        let rule = *rules.get(&state.rule.id)?;
        // A reload may have changed the amount, and the subject may not come again for long.
        let tier = state.tier;
        state.follow(rule, tier, now);
        let (used, limit, ends) = match (state.kind(), &state.count) {
            (Kind::Rate(rate), Count::Rate(cell)) => (cell.tat.saturating_sub(now), rate.capacity(), None),
            (Kind::Quota(quota), Count::Quota { cell, ends }) if ends.is_none_or(|ends| now < ends.get()) => {
                let used = cell.used().saturating_add(cell.held()).max(0).unsigned_abs();
                (used, quota.limit.0.unsigned_abs(), ends.map(NonZeroU64::get))
            }
            _ => (0, 1, None),
        };
        let millionths = u128::from(used) * 1_000_000 / u128::from(limit.max(1));
        Some((rule, Used { millionths: u64::try_from(millionths).unwrap_or(u64::MAX), ends }))
    }
}

impl Borrow<Key> for Kept {
    fn borrow(&self) -> &Key {
        &self.0.key
    }
}

impl Hash for Kept {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.key.hash(state);
    }
}

impl PartialEq for Kept {
    fn eq(&self, other: &Self) -> bool {
        self.0.key == other.0.key
    }
}

impl Eq for Kept {}

impl State {
    fn kind(&self) -> &Kind {
        self.rule.tier(self.tier)
    }

    fn is_clean(&self, now: u64) -> bool {
        !self.in_news
            && match &self.count {
                Count::Rate(cell) => cell.is_clean(now),
                Count::Quota { cell, .. } => cell.is_clean(),
            }
    }

    /// The rule as it is now: a reload may have changed amounts.
    pub(super) fn follow(&mut self, rule: &Arc<Rule>, tier: Tier, now: u64) {
        if Arc::ptr_eq(&self.rule, rule) && self.tier == tier {
            return;
        }
        if let (Kind::Rate(old), Kind::Rate(new), Count::Rate(cell)) =
            (self.rule.tier(self.tier), rule.tier(tier), &mut self.count)
        {
            cell.rescale(old, new, now);
        }
        (self.rule, self.tier) = (Arc::clone(rule), tier);
    }

    pub(super) fn talk(&self) -> &Talk {
        match &self.count {
            Count::Rate(cell) => &cell.talk,
            Count::Quota { cell, .. } => &cell.talk,
        }
    }

    pub(super) fn talk_mut(&mut self) -> &mut Talk {
        match &mut self.count {
            Count::Rate(cell) => &mut cell.talk,
            Count::Quota { cell, .. } => &mut cell.talk,
        }
    }

    pub(super) fn look(&self, amount: i64, slack: i64, now: u64) -> Look {
        match (self.kind(), &self.count) {
            (Kind::Rate(rate), Count::Rate(cell)) => cell.look(rate, amount, self.rule.mode, slack, now),
            (Kind::Quota(quota), Count::Quota { cell, ends }) => {
                cell.look(quota, amount, self.rule.mode, slack, ends.map(NonZeroU64::get), now)
            }
            _ => Look::Unsure,
        }
    }

    /// Gives back what was taken in advance, if anything was.
    pub(super) fn empty_purse(&mut self, now: u64) -> bool {
        match &mut self.count {
            Count::Rate(cell) if cell.has_purse() => {
                cell.empty_purse(now);
                true
            }
            _ => false,
        }
    }

    /// Takes without the store what the rule's own policy allows.
    pub(super) fn take_alone(&mut self, amount: i64, nodes: u32, now: u64) -> Look {
        let State { rule, tier, count, .. } = self;
        let look = match (rule.on_store_error, rule.tier(*tier), count) {
            (OnStoreError::Closed, ..) => Look::Over(None),
            (OnStoreError::Local, Kind::Rate(rate), Count::Rate(cell)) => {
                cell.take_alone(rate, &rate.share(nodes), amount, now)
            }
            (OnStoreError::Local, Kind::Quota(quota), Count::Quota { cell, .. }) => {
                cell.take_alone(quota, amount, nodes)
            }
            _ => {
                self.take(amount, now);
                Look::Fits
            }
        };
        // What does not fit alone may fit when the store is back.
        if look == Look::Over(None) { Look::Over(Some(AWAY)) } else { look }
    }

    /// Charges a rate or holds of a quota, whether it fits or not.
    pub(super) fn take(&mut self, amount: i64, now: u64) {
        match (self.rule.tier(self.tier), &mut self.count) {
            (Kind::Rate(rate), Count::Rate(cell)) => cell.take(rate.nanos_for(amount), now),
            (_, Count::Quota { cell, .. }) => cell.hold(amount),
            _ => {}
        }
    }

    /// Takes back what `take` has taken at the same moment.
    pub(super) fn undo(&mut self, amount: i64, now: u64) {
        match (self.rule.tier(self.tier), &mut self.count) {
            (Kind::Rate(rate), Count::Rate(cell)) => cell.charge(-rate.nanos_for(amount), now),
            (_, Count::Quota { cell, .. }) => cell.hold(-amount),
            _ => {}
        }
    }

    /// An ask for `amount` more, or only for news, with what those want who wait for the answer.
    pub(super) fn wish(&mut self, key: Key, amount: Option<i64>, nodes: u32, until: u64, now: u64) -> Ask {
        let State { rule, tier, count, .. } = self;
        match (rule.tier(*tier), count) {
            (Kind::Rate(rate), Count::Rate(cell)) => {
                let chunk =
                    if rule.mode == Mode::Lease { cell.free(rate) / (LEASE_SHARE * i64::from(nodes)) } else { 0 };
                let more = chunk.max(cell.talk.waiting);
                let wish = amount.map(|least| (least, least.saturating_add(more)));
                cell.ask(key, rate, wish, now)
            }
            (Kind::Quota(quota), Count::Quota { cell, ends }) => {
                let free = (quota.limit.0 - cell.used()).saturating_sub(cell.held()).max(0);
                let chunk = if rule.mode == Mode::Lease { free / (LEASE_SHARE * i64::from(nodes)) } else { 0 };
                let more = chunk.max(cell.talk.waiting);
                let wish = amount.map(|least| (least, least.saturating_add(more)));
                cell.ask(key, terms(quota.limit.0, *ends, until), wish)
            }
            _ => unreachable!("a cell keeps the kind of its rule, which is part of its key"),
        }
    }

    /// What the store is to be told without a wish; gives back what was taken in advance.
    fn report(&mut self, key: Key, until: u64, now: u64) -> Ask {
        let State { rule, tier, count, .. } = self;
        match (rule.tier(*tier), count) {
            (Kind::Rate(rate), Count::Rate(cell)) => cell.ask(key, rate, None, now),
            (Kind::Quota(quota), Count::Quota { cell, ends }) => {
                cell.ask(key, terms(quota.limit.0, *ends, until), None)
            }
            _ => unreachable!("a cell keeps the kind of its rule, which is part of its key"),
        }
    }

    pub(super) fn learn(&mut self, ask: &Ask, told: &Told, now: u64) -> bool {
        match &mut self.count {
            Count::Rate(cell) => cell.learn(ask, told, now),
            Count::Quota { cell, .. } => cell.learn(ask, told, now),
        }
    }

    /// Whether the store lacks something.
    fn has_news(&self) -> bool {
        match &self.count {
            Count::Rate(cell) => cell.has_news(),
            Count::Quota { cell, .. } => cell.has_news(),
        }
    }

    /// Whether a report should go now: at the latest after the longest silence, at once when half of the slack is used.
    fn is_due(&self, slack: i64, until: u64, now: u64) -> bool {
        let silence = now.saturating_sub(self.talk().at);
        if silence < SHORTEST_SILENCE {
            return false;
        }
        match (self.kind(), &self.count) {
            (Kind::Rate(rate), Count::Rate(cell)) => {
                silence >= LONGEST_SILENCE
                    || cell.unacked() > rate.nanos_for(slack) / 2
                    || silence >= cell.interval(rate, now)
                    || cell.has_purse() && self.rule.mode != Mode::Lease
            }
            (Kind::Quota(quota), Count::Quota { cell, .. }) => {
                let soon = silence >= LONGEST_SILENCE || cell.unpublished() > slack / 2 || cell.is_low(quota);
                cell.has_changed() && soon
                    || cell.is_fading(until, now)
                    || self.talk().looked_at && silence >= LONGEST_SILENCE
            }
            _ => true,
        }
    }
}

/// Between two reports on a key.
const SHORTEST_SILENCE: u64 = 20_000_000;
const LONGEST_SILENCE: u64 = 1_000_000_000;
/// While the store is away, it may be back after so long.
const AWAY: u64 = 1_000_000_000;

fn terms(limit: i64, ends: Option<NonZeroU64>, until: u64) -> Terms {
    Terms { limit, until, ends: ends.map_or(0, |ends| ends.get() / 1_000) }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What is behind it is never left half done.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A rate as a share of one of so many nodes.
impl Rate {
    fn share(&self, nodes: u32) -> Self {
        let mut share = self.clone();
        let cells = (self.cells.get() / nodes).max(1);
        share.cell = self.cell.saturating_mul(u64::from(nodes));
        if let (Some(cells), Some(bucket)) = (
            std::num::NonZeroU32::new(cells),
            governor::Quota::with_period(std::time::Duration::from_nanos(share.cell)),
        ) {
            (share.cells, share.bucket) = (cells, bucket.allow_burst(cells));
        }
        share
    }
}
