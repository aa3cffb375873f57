//! How demand comes: phases of silence, moderate and far too much, herds that start at one moment.

use std::sync::Arc;

use super::super::rule::Rule;
use super::dice::Dice;
use super::world::{Event, MS, Order, SECOND, Weather, World};

/// Demand on all instances together.
#[derive(Clone, Copy, Debug)]
pub(super) struct Demand {
    /// In units of the meter a second, for a factor of one.
    pub rate: i64,
    pub least: i64,
    pub most: i64,
    /// In thousandths of the requests.
    pub cancelled: u64,
    /// Whether what is used is not what was reckoned.
    pub uncertain: bool,
    pub users: &'static [&'static str],
    /// Multiples of the rate, one a phase.
    pub factors: &'static [u64],
}

impl Demand {
    fn order(&self, dice: &mut Dice) -> Order {
        let amount = self.least + i64::try_from(dice.below((self.most - self.least + 1) as u64)).unwrap();
        let actual = match (dice.chance(self.cancelled), self.uncertain) {
            (true, _) => None,
            (false, true) => Some(i64::try_from(dice.between(100, 1_300)).unwrap()),
            (false, false) => Some(1_000),
        };
        Order { user: dice.pick(self.users), amount, actual, takes: dice.between(MS, 3 * SECOND) }
    }

    /// Plans all arrivals of so many seconds.
    pub(super) fn plan(&self, world: &mut World<'_>, seconds: u64) {
        let (mut from, end) = (0, seconds * SECOND);
        let peers = world.peers.len() as u64;
        while from < end {
            let length = world.dice.between(SECOND / 5, 3 * SECOND);
            let factor = world.dice.pick(self.factors);
            // A herd: everybody at once.
            if factor > 1 && world.dice.chance(500) {
                for peer in 0..world.peers.len() {
                    for _ in 0..world.dice.below(8) {
                        let order = self.order(&mut world.dice);
                        world.plan(from, Event::Arrive(peer, order));
                    }
                }
            }
            let mean = (self.least + self.most) as u64 / 2;
            let gap = (SECOND * mean.max(1)).checked_div(self.rate as u64 * factor).unwrap_or(length);
            let mut at = from + world.dice.below(gap);
            while at < (from + length).min(end) && factor > 0 {
                let peer = usize::try_from(world.dice.below(peers)).unwrap();
                let order = self.order(&mut world.dice);
                world.plan(at, Event::Arrive(peer, order));
                at += world.dice.below(2 * gap) + 1;
            }
            from += length;
        }
    }
}

/// A world of these rules with its demand planned.
pub(super) fn world<'r>(
    seed: u64,
    rules: &'r [Arc<Rule>],
    nodes: usize,
    weather: Weather,
    demand: &Demand,
    seconds: u64,
) -> World<'r> {
    let mut world = World::new(seed, rules, nodes, 1, weather);
    demand.plan(&mut world, seconds);
    world
}
