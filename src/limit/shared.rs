//! What all instances share of one limit and subject, and what becomes of it when one of them reports. Pure: memory and database
//! keep it as it is, Redis has the same in Lua, and one suite holds them to each other.
//!
//! A report says the *whole* of what its node has added so far, never a difference. So it may come twice, late or in any order,
//! and a report that got lost is made good by the next one.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// Names a state in the store: a limit, a subject and, for a quota, a period.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
// Aligned to 16 bytes it would make each cell larger by as many.
#[repr(Rust, packed(8))]
pub struct Key(pub u128);

/// 32 hex digits.
impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:032x}", { self.0 })
    }
}

/// An instance, for as long as its data folder lives.
pub type NodeId = Arc<str>;
/// A database of records: what was settled there is one part of what is spent.
pub type LedgerId = Arc<str>;

/// Who reports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reporter {
    pub node: NodeId,
    pub ledger: LedgerId,
}

/// A report on one key, perhaps with a wish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ask {
    pub key: Key,
    /// Told apart from what the node knew of the key before it forgot it.
    pub incarnation: u64,
    /// Counts up with every report of this incarnation.
    pub version: u64,
    pub what: What,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    Rate(RateAsk),
    Quota(QuotaAsk),
}

/// All in microseconds: of time, and of what a bucket's TAT moves by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RateAsk {
    /// What this node has charged so far.
    pub total: i64,
    /// So much of it the node knows to be in the store.
    pub acked: i64,
    /// The TAT that the node last saw, for a store that has forgotten it.
    pub floor: u64,
    /// What the TAT would be if nobody but this node had charged: says how late it charged what it reports.
    pub own: u64,
    /// Nanoseconds a cell, so that a changed limit carries its backlog along.
    pub cell: u64,
    pub wish: Option<RateWish>,
}

/// Charge at least `least` more, up to `most`, if the bucket takes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateWish {
    pub least: i64,
    pub most: i64,
    /// What the bucket holds.
    pub capacity: i64,
}

/// All in units of the meter, times in microseconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuotaAsk {
    /// What this node holds for requests that are not in the ledger yet.
    pub out: i64,
    /// After this time it counts no longer.
    pub until: u64,
    /// What the node's ledger says is used, if the node knows.
    pub ledger: Option<Ledger>,
    pub wish: Option<QuotaWish>,
    /// The state may be forgotten after this time; 0 for never.
    pub ends: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ledger {
    /// Counts up with every change of `used`.
    pub version: u64,
    pub used: i64,
}

/// Hold `least` more, up to `most`, if that stays within the limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QuotaWish {
    pub least: i64,
    pub most: i64,
    pub limit: i64,
}

/// What the store answers to one ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    Rate {
        tat: u64,
        /// What was charged for the wish; 0 if it does not fit.
        granted: i64,
    },
    Quota {
        /// The sum of all ledgers.
        spent: i64,
        /// What the asking node's ledger has there.
        ledger: Option<Ledger>,
        /// What the other nodes hold.
        others: i64,
        /// What was added to its hold for the wish; 0 if it does not fit.
        granted: i64,
    },
}

/// The state of one key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Shared {
    Rate { tat: u64, cell: u64, instances: BTreeMap<NodeId, Total> },
    Quota { shares: BTreeMap<NodeId, Share>, databases: BTreeMap<LedgerId, Ledger>, ends: u64 },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Total {
    incarnation: u64,
    version: u64,
    total: i64,
    /// When the node last reported.
    at: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Share {
    incarnation: u64,
    version: u64,
    held: i64,
    until: u64,
}

impl Shared {
    /// The state after an ask at time `now`, made from nothing if there is none, and the answer.
    pub fn take(state: &mut Option<Self>, who: &Reporter, ask: &Ask, now: u64) -> Told {
        match &ask.what {
            What::Rate(rate) => take_rate(state, who, ask, rate, now),
            What::Quota(quota) => take_quota(state, who, ask, quota, now),
        }
    }

    /// When the state is as good as none.
    pub fn expires(&self) -> Option<u64> {
        match self {
            Self::Rate { tat, .. } => Some(tat.saturating_add(SLACK)),
            Self::Quota { ends: 0, .. } => None,
            Self::Quota { ends, .. } => Some(ends.saturating_add(KEPT)),
        }
    }
}

impl Shared {
    pub fn is_over(&self, now: u64) -> bool {
        self.expires().is_some_and(|end| end <= now)
    }
}

/// A full bucket is kept so long, for clocks that differ.
pub const SLACK: u64 = 10_000_000;
/// A quota is kept so long after its period, for what is settled late: 48 hours.
pub const KEPT: u64 = 172_800_000_000;

fn take_rate(state: &mut Option<Shared>, who: &Reporter, ask: &Ask, rate: &RateAsk, now: u64) -> Told {
    if !matches!(state, Some(Shared::Rate { .. })) {
        *state = Some(Shared::Rate { tat: rate.floor, cell: rate.cell, instances: BTreeMap::new() });
    }
    let Some(Shared::Rate { tat, cell, instances }) = state else { unreachable!("made above") };
    let before = match instances.get(&who.node) {
        Some(known) if (known.incarnation, known.version) >= (ask.incarnation, ask.version) => {
            return Told::Rate { tat: *tat, granted: 0 };
        }
        Some(known) if known.incarnation == ask.incarnation => known.total,
        _ => rate.acked,
    };
    if *cell != rate.cell {
        let backlog = u128::from(tat.saturating_sub(now)) * u128::from(rate.cell) / u128::from((*cell).max(1));
        (*tat, *cell) = (now.saturating_add(u64::try_from(backlog).unwrap_or(MOST)), rate.cell);
    }
    *tat = joined(*tat, rate.total.saturating_sub(before), rate.own, now).min(MOST);
    let room = |wish: RateWish| i128::from(wish.capacity) - i128::from(*tat - now);
    let granted = rate.wish.map_or(0, |wish| granted(room(wish), wish.least, wish.most));
    *tat = tat.saturating_add_signed(granted).min(MOST);
    let total = Total {
        incarnation: ask.incarnation,
        version: ask.version,
        total: rate.total.saturating_add(granted),
        at: now,
    };
    if instances.len() >= MANY_NODES && !instances.contains_key(&who.node) {
        instances.retain(|_, known| known.at.saturating_add(SILENCE) > now);
    }
    instances.insert(who.node.clone(), total);
    Told::Rate { tat: *tat, granted }
}

/// The TAT of a bucket to which a node has added so much, some time ago. When, says `own`, the TAT that what it ever added makes
/// alone: so nothing is counted twice, and no refill is lost between the charge and the report. At the latest it was now.
pub fn joined(tat: u64, added: i64, own: u64, now: u64) -> u64 {
    let moved = |from: u64| i128::from(from) + i128::from(added);
    let joined = moved(tat).max(i128::from(own).min(moved(tat.max(now))));
    u64::try_from(joined).unwrap_or(0).max(now)
}

/// Of so many nodes those that were not heard for an hour are forgotten, as instances come and go.
const MANY_NODES: usize = 32;
const SILENCE: u64 = 3_600_000_000;

/// The year 2255: every microsecond up to here is a number that Lua keeps exactly.
pub(super) const MOST: u64 = 9_007_199_254_740_991;

fn take_quota(state: &mut Option<Shared>, who: &Reporter, ask: &Ask, quota: &QuotaAsk, now: u64) -> Told {
    if !matches!(state, Some(Shared::Quota { .. })) {
        *state = Some(Shared::Quota { shares: BTreeMap::new(), databases: BTreeMap::new(), ends: quota.ends });
    }
    let Some(Shared::Quota { shares, databases, .. }) = state else { unreachable!("made above") };
    if let Some(ledger) = quota.ledger {
        let stored = databases.entry(who.ledger.clone()).or_insert(ledger);
        if ledger.version > stored.version {
            *stored = ledger;
        }
    }
    shares.retain(|_, share| share.until > now);
    let sum = |amounts: &mut dyn Iterator<Item = i64>| amounts.fold(0i64, i64::saturating_add);
    let spent = sum(&mut databases.values().map(|ledger| ledger.used));
    let others = sum(&mut shares.iter().filter(|(node, _)| **node != who.node).map(|(_, share)| share.held));
    let is_old = |known: &Share| (known.incarnation, known.version) >= (ask.incarnation, ask.version);
    let granted = if shares.get(&who.node).is_some_and(is_old) {
        0
    } else {
        let room = |wish: QuotaWish| {
            [spent, others, quota.out].iter().fold(i128::from(wish.limit), |room, part| room - i128::from(*part))
        };
        let granted = quota.wish.map_or(0, |wish| granted(room(wish), wish.least, wish.most));
        let share = Share {
            incarnation: ask.incarnation,
            version: ask.version,
            held: quota.out.saturating_add(granted),
            until: quota.until,
        };
        shares.insert(who.node.clone(), share);
        granted
    };
    Told::Quota { spent, ledger: databases.get(&who.ledger).copied(), others, granted }
}

fn granted(room: i128, least: i64, most: i64) -> i64 {
    if room < i128::from(least) { 0 } else { i64::try_from(room).unwrap_or(i64::MAX).min(most) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_800_000_000_000_000;

    fn rate_ask(incarnation: u64, version: u64, total: i64, wish: Option<(i64, i64, i64)>) -> Ask {
        let wish = wish.map(|(least, most, capacity)| RateWish { least, most, capacity });
        let what = RateAsk { total, acked: 0, floor: 0, own: MOST, cell: 10, wish };
        Ask { key: Key(1), incarnation, version, what: What::Rate(what) }
    }

    /// Backlog and grant after each ask, all of one node at one time.
    fn rates(asks: &[Ask]) -> Vec<(u64, i64)> {
        let (mut state, who) = (None, Reporter { node: "n".into(), ledger: "l".into() });
        let told = asks.iter().map(|ask| Shared::take(&mut state, &who, ask, NOW));
        told.map(|told| match told {
            Told::Rate { tat, granted } => (tat - NOW, granted),
            Told::Quota { .. } => unreachable!("a bucket was asked for"),
        })
        .collect()
    }

    #[test]
    fn what_is_stale_or_repeated_changes_nothing() {
        let (first, second) = (rate_ask(1, 1, 5, None), rate_ask(1, 2, 7, Some((1, 3, 100))));
        let asks = [second.clone(), first, second, rate_ask(1, 3, 10, None)];
        assert_eq!(rates(&asks), [(10, 3), (10, 0), (10, 0), (10, 0)]);
    }

    #[test]
    fn another_incarnation_begins_from_what_it_knows_to_be_there() {
        let mut known = rate_ask(2, 1, 60, None);
        let What::Rate(rate) = &mut known.what else { unreachable!() };
        rate.acked = 50;
        assert_eq!(rates(&[rate_ask(1, 9, 50, None), known, rate_ask(2, 2, 61, None)]), [(50, 0), (60, 0), (61, 0)]);
    }

    #[test]
    fn a_grant_is_all_that_fits_between_least_and_most() {
        for ((least, most, capacity), granted) in [
            ((1, 50, 100), 50),
            ((1, 50, 40), 30),
            ((30, 50, 40), 30),
            ((31, 50, 40), 0),
            ((0, 0, 40), 0),
            ((0, 5, 10), 0),
            ((0, 5, 9), 0),
        ] {
            let asks = [rate_ask(1, 1, 10, Some((least, most, capacity)))];
            assert_eq!(rates(&asks), [(10 + u64::try_from(granted).expect("not negative"), granted)], "{least} {most}");
        }
    }

    #[test]
    fn a_changed_cell_keeps_the_count_and_not_the_time() {
        let with_cell = |version, cell| {
            let mut ask = rate_ask(1, version, 1_000, None);
            let What::Rate(rate) = &mut ask.what else { unreachable!() };
            rate.cell = cell;
            ask
        };
        let asks = [with_cell(1, 10), with_cell(2, 25), with_cell(3, 1), with_cell(4, 0), with_cell(5, 7)];
        assert_eq!(rates(&asks), [(1_000, 0), (2_500, 0), (100, 0), (0, 0), (0, 0)]);
    }

    /// Numbers at the end of what there is: no panic, and nothing is granted that is not there.
    #[test]
    fn what_is_too_much_stops_at_the_end() {
        let most = MOST - NOW;
        let asks = [
            rate_ask(1, 1, i64::MAX, Some((1, 5, i64::MAX))),
            rate_ask(1, 2, i64::MAX, Some((1, 5, 100))),
            rate_ask(1, 3, i64::MIN, None),
            rate_ask(1, 4, i64::MAX, None),
        ];
        assert_eq!(rates(&asks), [(most, 5), (most, 0), (0, 0), (most, 0)]);
        let (mut state, node) =
            (None, |node: &str, ledger: &str| Reporter { node: node.into(), ledger: ledger.into() });
        let ask = |version, out, least| {
            let ledger = Some(Ledger { version: 1, used: i64::MAX });
            let wish = Some(QuotaWish { least, most: i64::MAX, limit: i64::MAX });
            let what = What::Quota(QuotaAsk { out, until: u64::MAX, ledger, wish, ends: u64::MAX });
            Ask { key: Key(1), incarnation: 1, version, what }
        };
        for (who, version, out) in [("a", 1, i64::MAX), ("b", 1, i64::MAX), ("b", 2, 0)] {
            let told = Shared::take(&mut state, &node(who, who), &ask(version, out, 1), NOW);
            let Told::Quota { spent, granted, .. } = told else { unreachable!() };
            assert_eq!((spent, granted), (i64::MAX, 0));
        }
        assert_eq!(state.and_then(|state| state.expires()), Some(u64::MAX));
    }
}
