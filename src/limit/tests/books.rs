//! What really happened, seen by one who sees everything at once: the bucket and the counter that all instances together should
//! have been. Every admission is held to the bound of its limit.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;

use super::super::node::{Count, Node};
use super::super::rule::{Kind, Mode, Rate, Rule};
use super::super::shared::{Ask, Key, Ledger, LedgerId, Shared, Told, What};
use super::world::{MS, SECOND};

/// A charge: which key and rule, by whom.
pub(super) struct Entry {
    pub key: Key,
    pub rule: usize,
    pub peer: usize,
    pub life: u32,
    pub amount: i64,
}

pub(super) struct Books {
    rules: Vec<Arc<Rule>>,
    nodes: i64,
    /// Nanoseconds by which a node's clock may be off, and a grant may be old when it is used.
    pub epsilon: i64,
    rates: BTreeMap<Key, RateBook>,
    quotas: BTreeMap<Key, QuotaBook>,
    /// Who has spoken of what since the store last forgot something.
    spoken: BTreeSet<(Key, usize)>,
    forgetful: bool,
    mortal: bool,
    /// By rule: the worst excess over the limit, where nothing but distance explains it, in units of the meter; and the bound.
    pub worst: BTreeMap<usize, (f64, f64)>,
    pub admitted: BTreeMap<usize, i64>,
}

/// All in nanoseconds of the bucket.
struct RateBook {
    rule: usize,
    /// The TAT of the bucket that sees everything at once.
    tat: u64,
    /// What is allowed beyond the bound: charged against the limit's will, or given back late. Gone when the bucket is full.
    credit: i64,
    /// What each has given back and the store does not know yet.
    given: BTreeMap<usize, Vec<(i64, u64)>>,
    /// The last grant to each: of which ask, how much, when; and whether it was heard of.
    grants: BTreeMap<usize, (u64, i64, u64, bool)>,
    /// What each life of each peer has charged, less what it gave back.
    charged: BTreeMap<(usize, u32), i64>,
}

#[derive(Default)]
struct QuotaBook {
    rule: usize,
    ledgers: BTreeMap<LedgerId, Ledger>,
    held: BTreeMap<(usize, u32), i64>,
    credit: i64,
}

impl QuotaBook {
    fn taken(&self) -> i64 {
        self.ledgers.values().map(|ledger| ledger.used).sum::<i64>() + self.held.values().sum::<i64>()
    }
}

fn int(value: u64) -> i64 {
    i64::try_from(value).unwrap()
}

fn rate_of(rule: &Rule) -> &Rate {
    let Kind::Rate(rate) = &rule.kind else { panic!("{} is no rate", rule.name) };
    rate
}

impl Books {
    pub(super) fn new(rules: &[Arc<Rule>], nodes: usize) -> Self {
        Self {
            rules: rules.to_vec(),
            nodes: i64::try_from(nodes).unwrap(),
            epsilon: 0,
            rates: BTreeMap::new(),
            quotas: BTreeMap::new(),
            spoken: BTreeSet::new(),
            forgetful: false,
            mortal: false,
            worst: BTreeMap::new(),
            admitted: BTreeMap::new(),
        }
    }

    fn rate(&mut self, key: Key, rule: usize) -> &mut RateBook {
        self.rates.entry(key).or_insert_with(|| RateBook {
            rule,
            tat: 0,
            credit: 0,
            given: BTreeMap::new(),
            grants: BTreeMap::new(),
            charged: BTreeMap::new(),
        })
    }

    fn slack(&self, rule: &Rule) -> i64 {
        if rule.mode == Mode::Lease { 0 } else { rule.slack(&rule.kind) / (self.nodes - 1).max(1) }
    }

    /// `forced`: whether the limit had nothing to say in it.
    pub(super) fn admit(&mut self, entry: &Entry, forced: bool, now: u64) {
        *self.admitted.entry(entry.rule).or_default() += entry.amount;
        let rule = Arc::clone(&self.rules[entry.rule]);
        match &rule.kind {
            Kind::Rate(rate) => self.admit_rate(entry, &rule, rate, forced, now),
            Kind::Quota(quota) => {
                let bound = (self.nodes - 1) * self.slack(&rule);
                let book = self.quotas.entry(entry.key).or_default();
                book.rule = entry.rule;
                *book.held.entry((entry.peer, entry.life)).or_default() += entry.amount;
                let excess = book.taken() - quota.limit.0;
                if forced || rule.mode == Mode::Local {
                    book.credit += entry.amount;
                    return;
                }
                let (credit, bound) = (book.credit, if rule.mode == Mode::Synced { bound } else { 0 });
                assert!(
                    excess <= bound + credit,
                    "SAFETY {}: {excess} over the quota; allowed are {bound} and {credit} for what else happened",
                    rule.name
                );
                if credit == 0 {
                    self.measure(entry.rule, excess as f64, bound as f64);
                }
            }
        }
    }

    fn measure(&mut self, rule: usize, excess: f64, bound: f64) {
        let worst = self.worst.entry(rule).or_insert((f64::NEG_INFINITY, bound));
        worst.0 = worst.0.max(excess);
    }

    fn admit_rate(&mut self, entry: &Entry, rule: &Rule, rate: &Rate, forced: bool, now: u64) {
        let nanos = rate.nanos_for(entry.amount);
        let mut bound = (self.nodes - 1) * rate.nanos_for(self.slack(rule)) + self.epsilon;
        if rule.mode == Mode::Lease {
            // Each may use later what it has taken in advance: a quarter of what was free, among all of them.
            bound += (int(rate.capacity()) / 4).min(self.nodes * int(SECOND + 100 * MS));
        }
        let book = self.rate(entry.key, entry.rule);
        *book.charged.entry((entry.peer, entry.life)).or_default() += nanos;
        if book.tat <= now && book.given.values().all(Vec::is_empty) && book.grants.values().all(|grant| grant.3) {
            book.credit = 0;
        }
        book.tat = book.tat.max(now) + nanos.unsigned_abs();
        if forced || rule.mode == Mode::Local {
            book.credit += nanos;
            return;
        }
        let (excess, credit) = (int(book.tat - now) - int(rate.capacity()), book.credit);
        assert!(
            excess <= bound + credit,
            "SAFETY {}: {excess} ns over the bucket; allowed are {bound} and {credit} for what else happened",
            rule.name
        );
        if credit == 0 {
            let unit = rate.cell as f64 / rate.scale as f64;
            self.measure(entry.rule, excess as f64 / unit, bound as f64 / unit);
        }
    }

    /// A rate settles: gives back, less what has drained, or charges more.
    pub(super) fn correct(&mut self, entry: &Entry, rate: &Rate, amount: i64, drained: u64, now: u64) {
        let nanos = rate.nanos_for(amount);
        let nanos = if nanos < 0 { (nanos + int(drained)).min(0) } else { nanos };
        let book = self.rate(entry.key, entry.rule);
        *book.charged.entry((entry.peer, entry.life)).or_default() += nanos;
        if nanos < 0 {
            book.tat -= nanos.unsigned_abs();
            book.given.entry(entry.peer).or_default().push((-nanos, now));
        } else if nanos > 0 {
            book.tat = book.tat.max(now) + nanos.unsigned_abs();
            book.credit += nanos;
        }
    }

    pub(super) fn settle(&mut self, entry: &Entry, ledger: LedgerId, actual: Option<i64>) -> Option<Ledger> {
        let book = self.quotas.get_mut(&entry.key).unwrap();
        *book.held.get_mut(&(entry.peer, entry.life)).unwrap() -= entry.amount;
        let actual = actual?;
        book.credit += (actual - entry.amount).max(0);
        let ledger = book.ledgers.entry(ledger).or_insert(Ledger { version: 0, used: 0 });
        ledger.version += 1;
        ledger.used += actual;
        Some(*ledger)
    }

    /// What the database says.
    pub(super) fn ledger(&self, key: Key, ledger: &LedgerId) -> Ledger {
        let known = self.quotas.get(&key).and_then(|book| book.ledgers.get(ledger));
        known.copied().unwrap_or(Ledger { version: 0, used: 0 })
    }

    /// The store hears of an ask. What it only now hears to have been given back was in part drained already: so much may be
    /// admitted twice.
    pub(super) fn stored(&mut self, key: Key, peer: usize, ask: &Ask, (told, asked_at): (&Told, u64), now: u64) {
        self.spoken.insert((key, peer));
        let (What::Rate(_), Told::Rate { granted, .. }) = (&ask.what, told) else { return };
        let Some(book) = self.rates.get_mut(&key) else { return };
        let given = book.given.entry(peer).or_default();
        for (amount, at) in given.extract_if(.., |(_, at)| *at <= asked_at) {
            book.credit += amount.min(int(now - at));
        }
        if let Some((version, amount, at, heard)) = book.grants.get_mut(&peer)
            && !*heard
            && ask.version > *version
        {
            // Nobody heard of that grant: this report takes it back.
            book.credit += (*amount).min(int(now - *at));
            *heard = true;
        }
        if *granted > 0 {
            book.grants.insert(peer, (ask.version, *granted * 1_000, now, false));
        }
    }

    pub(super) fn heard(&mut self, key: Key, peer: usize, ask: &Ask) {
        let grant = self.rates.get_mut(&key).and_then(|book| book.grants.get_mut(&peer));
        if let Some(grant) = grant.filter(|grant| grant.0 == ask.version) {
            grant.3 = true;
        }
    }

    /// The state is about to become another: what is lost may be admitted again.
    pub(super) fn forgot(
        &mut self,
        before: &BTreeMap<Key, Option<Shared>>,
        after: &BTreeMap<Key, Option<Shared>>,
        now: u64,
    ) {
        self.spoken.clear();
        self.forgetful = true;
        for (key, state) in before {
            let old = after.get(key).and_then(Option::as_ref);
            let amount = |state: Option<&Shared>| match state {
                None => 0,
                Some(Shared::Rate { tat, .. }) => int((*tat * 1_000).saturating_sub(now)),
                Some(quota @ Shared::Quota { .. }) => {
                    let (spent, held) = quota_sums(quota);
                    spent.values().sum::<i64>() + held.values().sum::<i64>()
                }
            };
            let lost = (amount(state.as_ref()) - amount(old)).max(0);
            if let Some(book) = self.rates.get_mut(key) {
                book.credit += lost;
            }
            if let Some(book) = self.quotas.get_mut(key) {
                book.credit += lost;
            }
        }
    }

    /// What a dead instance had not told is lost: no more than it may be ahead, or was forced to charge.
    pub(super) fn crashed(&mut self, peer: usize, life: u32) {
        self.mortal = true;
        for book in self.rates.values_mut() {
            let rule = &self.rules[book.rule];
            let slack = rule.slack(&rule.kind) / (self.nodes - 1).max(1);
            book.credit += rate_of(rule).nanos_for(slack);
            book.given.remove(&peer);
            if let Some(grant) = book.grants.get_mut(&peer) {
                grant.3 = true;
            }
        }
        for book in self.quotas.values_mut() {
            book.held.remove(&(peer, life));
        }
    }

    /// The node's own books against these: what it charged is what it admitted.
    pub(super) fn check_node(&self, peer: usize, life: u32, node: &Node) {
        node.each(|cell| match &cell.lock().count {
            Count::Rate(rate) => {
                let (total, _) = rate.books();
                let charged = self.rates.get(&cell.key).and_then(|book| book.charged.get(&(peer, life)));
                assert_eq!(
                    total,
                    charged.copied().unwrap_or(0),
                    "CONSERVATION node {peer}: charged is not what was admitted"
                );
            }
            Count::Quota { cell: quota, .. } => {
                let held = self.quotas.get(&cell.key).and_then(|book| book.held.get(&(peer, life)));
                assert_eq!(
                    quota.out,
                    held.copied().unwrap_or(0),
                    "CONSERVATION node {peer}: held is not what was admitted"
                );
                assert!(quota.out >= 0, "HELD below zero");
            }
        });
    }

    /// The store against these, when all is told: `lives` are those of each peer now.
    pub(super) fn check_store(
        &self,
        store: &BTreeMap<Key, Option<Shared>>,
        lives: &[(String, u32)],
        nodes: &[Rc<Node>],
    ) {
        for (key, book) in &self.rates {
            let rule = &self.rules[book.rule];
            if rule.mode == Mode::Local {
                assert!(!store.contains_key(key), "LOCAL a limit of each for itself is none of the store's");
                continue;
            }
            let state = serde_json::to_value(store.get(key)).unwrap();
            for (peer, (name, life)) in lives.iter().enumerate() {
                let Some(charged) = book.charged.get(&(peer, *life)) else { continue };
                if self.forgetful && !self.spoken.contains(&(*key, peer)) {
                    continue;
                }
                let total = state["Rate"]["instances"][name]["total"].as_i64();
                let cell = nodes[peer].find(*key).unwrap();
                let Count::Rate(rate) = &cell.lock().count else { panic!("a rate is a rate") };
                let (_, wasted) = rate.books();
                assert_eq!(total, Some((charged + wasted).div_euclid(1_000)), "CONSERVATION {} of {name}", rule.name);
            }
        }
        for (key, book) in &self.quotas {
            let rule = &self.rules[book.rule];
            let all_spoke = (0..nodes.len()).all(|peer| self.spoken.contains(&(*key, peer)));
            if rule.mode == Mode::Local || self.forgetful && !all_spoke {
                continue;
            }
            let Some(Some(state)) = store.get(key) else { panic!("CONSERVATION {}: no state", rule.name) };
            let (mut spent, held) = quota_sums(state);
            let mut used: BTreeMap<String, i64> =
                book.ledgers.iter().map(|(ledger, sum)| (ledger.to_string(), sum.used)).collect();
            // Of a ledger in which nothing was counted the store may have heard as much.
            for ledgers in [&mut spent, &mut used] {
                ledgers.retain(|_, used| *used != 0);
            }
            assert!(spent == used, "CONSERVATION {}: ledgers {spent:?}, not {used:?}", rule.name);
            // Of an instance that died or a state that was restored, it goes when its time is over.
            let is_free = self.forgetful || self.mortal || held.values().all(|held| *held == 0);
            assert!(is_free, "CONSERVATION {}: still held {held:?}", rule.name);
            assert!(book.held.values().all(|held| *held == 0), "HELD {}: not all was settled", rule.name);
        }
    }
}

/// What each ledger has spent and each node holds.
fn quota_sums(state: &Shared) -> (BTreeMap<String, i64>, BTreeMap<String, i64>) {
    let value = serde_json::to_value(state).unwrap();
    let sums = |part: &str, field: &str| {
        let entries = value["Quota"][part].as_object().unwrap().iter();
        entries.map(|(name, entry)| (name.clone(), entry[field].as_i64().unwrap())).collect()
    };
    (sums("databases", "used"), sums("shares", "held"))
}
