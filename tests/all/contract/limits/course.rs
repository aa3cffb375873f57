//! A random course of asks, by its seed: several nodes on several keys, who report, wish, repeat themselves, are late, forget what they
//! knew, get no answer, give back.

use std::collections::BTreeMap;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tacho::limit::shared::{Ask, Key, Ledger, QuotaAsk, QuotaWish, RateAsk, RateWish, Reporter, Told, What};

use super::{JUST_NOW, key, reporter};

pub struct Course {
    random: StdRng,
    seed: u64,
    /// Every third course is of amounts near the greatest that Lua keeps exactly.
    big: bool,
    sides: BTreeMap<(usize, Key), Side>,
    ledgers: BTreeMap<(String, Key), Ledger>,
}

/// What one node knows of one key.
#[derive(Clone, Default)]
struct Side {
    incarnation: u64,
    version: u64,
    total: i64,
    acked: i64,
    held: i64,
    tat: u64,
    asked: Vec<Ask>,
}

/// Nodes and the ledgers that they write.
const NODES: [(&str, &str); 3] = [("bot-a:1", "ledger 1"), ("bot-b", "ledger 1"), ("s:l:n", "l:2")];
/// Three times as much or as little: a backlog carried along stays a number that Lua keeps exactly.
const CELLS: [u64; 3] = [999_983, 1_000_000, 3_000_001];
const BIG: i64 = 9_000_000_000_000_000;

impl Course {
    pub fn new(seed: u64) -> Self {
        let (sides, ledgers) = (BTreeMap::new(), BTreeMap::new());
        Self { random: StdRng::seed_from_u64(seed), seed, big: seed % 3 == 2, sides, ledgers }
    }

    /// Microseconds to skip: mostly none, at times more than a state is kept.
    pub fn leap(&mut self) -> u64 {
        match self.random.random_range(0..40) {
            0 => self.random.random_range(0..40_000_000),
            1 => 200_000_000_000,
            _ => 0,
        }
    }

    pub fn next(&mut self, now: u64) -> (Reporter, Ask) {
        let node = self.random.random_range(0..NODES.len());
        let number = self.random.random_range(0..4);
        let key = key("course", self.seed * 10 + number);
        let who = reporter(NODES[node].0, NODES[node].1);
        let mut side = self.sides.remove(&(node, key)).unwrap_or_default();
        let ask = match self.random.random_range(0..10) {
            // The same again, or one that was on its way for long.
            0 if !side.asked.is_empty() => side.asked[self.random.random_range(0..side.asked.len())].clone(),
            1 => {
                side = Side { incarnation: side.incarnation + 1, tat: side.tat, ..Side::default() };
                self.fresh(&mut side, &who, key, number, now)
            }
            _ => self.fresh(&mut side, &who, key, number, now),
        };
        self.sides.insert((node, key), side);
        (who, ask)
    }

    /// Every fifth answer is lost.
    pub fn hear(&mut self, who: &Reporter, ask: &Ask, told: Told) {
        let node = NODES.iter().position(|(node, _)| *node == &*who.node).unwrap();
        let side = self.sides.get_mut(&(node, ask.key)).unwrap();
        if ask.incarnation != side.incarnation || ask.version != side.version || self.random.random_range(0..5) == 0 {
            return;
        }
        match (told, &ask.what) {
            (Told::Rate { tat, granted }, What::Rate(rate)) => {
                side.total += granted;
                side.acked = rate.total + granted;
                side.tat = tat;
            }
            (Told::Quota { granted, .. }, _) => side.held += granted,
            _ => panic!("{told:?} to {ask:?}"),
        }
    }

    fn fresh(&mut self, side: &mut Side, who: &Reporter, key: Key, number: u64, now: u64) -> Ask {
        side.version += 1;
        let what = if number < 2 { self.rate(side, now) } else { self.quota(side, who, key, now) };
        let ask = Ask { key, incarnation: side.incarnation, version: side.version, what };
        side.asked.push(ask.clone());
        ask
    }

    fn rate(&mut self, side: &mut Side, now: u64) -> What {
        let most = if self.big { BIG / 2 } else { 100_000_000 };
        let change = match self.random.random_range(0..4) {
            0 => 0,
            1 => -self.random.random_range(0..=most / 3),
            _ => self.random.random_range(0..=most / 3),
        };
        side.total = (side.total + change).clamp(-most, most);
        let wish = self.random.random_bool(0.5).then(|| {
            let least = self.random.random_range(0..=most / 10);
            let capacity = self.random.random_range(0..=most * 2);
            RateWish { least, most: least + self.random.random_range(0..=most / 10), capacity }
        });
        let floor = match self.random.random_range(0..3) {
            0 => side.tat,
            1 => 0,
            _ => now + self.random.random_range(0..50_000_000),
        };
        // What was carried along to another size is not a whole number for Lua when it is big.
        let cell =
            if self.big || self.random.random_bool(0.9) { CELLS[1] } else { CELLS[self.random.random_range(0..3)] };
        let own = match self.random.random_range(0..3) {
            0 => JUST_NOW,
            1 => 0,
            _ => now - 50_000_000 + self.random.random_range(0..100_000_000),
        };
        What::Rate(RateAsk { total: side.total, acked: side.acked, floor, own, cell, wish })
    }

    fn quota(&mut self, side: &mut Side, who: &Reporter, key: Key, now: u64) -> What {
        // Two ledgers and three nodes together stay below 2^53.
        let most = if self.big { BIG / 8 } else { 1_000 };
        side.held = (side.held + self.random.random_range(-most / 4..=most / 4)).clamp(0, most);
        let name = (who.ledger.to_string(), key);
        let known = self.ledgers.entry(name).or_insert(Ledger { version: 0, used: 0 });
        let ledger = self.random.random_bool(0.6).then(|| {
            // What is used falls as well: a record is taken back. And a report can be older than what is known.
            let version = known.version + self.random.random_range(0..3);
            let old = Ledger { version: version.saturating_sub(3), used: known.used };
            *known = Ledger { version, used: self.random.random_range(-most / 100..=most) };
            if self.random.random_bool(0.2) { old } else { *known }
        });
        let wish = self.random.random_bool(0.6).then(|| {
            let least = self.random.random_range(0..=most / 4);
            let limit = self.random.random_range(0..=most * 4);
            QuotaWish { least, most: least + self.random.random_range(0..=most / 4), limit }
        });
        let until = match self.random.random_range(0..4) {
            // Over within the next asks, or already.
            0 => now + self.random.random_range(0..3_000),
            1 => now.saturating_sub(1),
            _ => now + 3_600_000_000,
        };
        // A key names one period, so its end is the same for all.
        let ends = if key.0.is_multiple_of(2) { 0 } else { 1_900_000_000_000_000 };
        What::Quota(QuotaAsk { out: side.held, until, ledger, wish, ends })
    }
}
