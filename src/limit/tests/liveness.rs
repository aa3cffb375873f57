//! What is asked for and within the limit is granted: no limit is left unused, a wait that was named is enough, nobody is refused who
//! is far from it.

use super::dice::Dice;
use super::plan::Demand;
use super::world::{EPOCH, Event, MS, Order, SECOND, Weather, World};
use super::{for_seeds, rules};

fn one(amount: i64) -> Order {
    Order { user: "ann", amount, actual: Some(1_000), takes: MS }
}

fn limit(kind: &str, mode: &str, slack: u64) -> String {
    format!("[[limit]]\nname = \"l\"\nmeter = \"tokens\"\n{kind}\nmode = \"{mode}\"\nmax_overshoot = {slack}\n")
}

const RATE: &str = "rate = { limit = 100, period = \"1s\", burst = 100 }";
const QUOTA: &str = "quota = { limit = 1000, period = \"month\" }";

#[test]
fn of_a_limit_that_all_want_95_per_cent_are_granted() {
    for_seeds(6, |seed| {
        let mut dice = Dice::new(seed ^ 0x11fe);
        let nodes = dice.pick(&[1, 2, 5, 10, 20]);
        let kind = dice.pick(&[RATE, QUOTA]);
        let mode = dice.pick(&["synced", "lease", "exact"]);
        let rules = rules(&limit(kind, mode, dice.between(1, 5) * (nodes as u64 - 1).max(1)));
        let demand = Demand {
            rate: 100,
            least: 1,
            most: dice.pick(&[1, 3]),
            cancelled: 0,
            uncertain: false,
            users: &["ann"],
            factors: &[10],
        };
        let mut world = World::new(seed, &rules, nodes, 1, Weather::fair(dice.pick(&[1, 20])));
        world.books.epsilon = i64::try_from(SECOND).unwrap();
        demand.plan(&mut world, 15);
        world.run_until(EPOCH + 15 * SECOND);
        let admitted = world.books.admitted[&0];
        let possible = if kind == RATE { 100 + 100 * 15 } else { 1_000 };
        assert!(
            admitted * 100 >= possible * 95,
            "LIVENESS {mode} {kind} on {nodes}: only {admitted} of {possible} were granted"
        );
        world.quiesce();
    });
}

#[test]
fn nobody_is_refused_while_all_want_half_of_the_limit() {
    for_seeds(10, |seed| {
        let mut dice = Dice::new(seed ^ 0xfa15e);
        let nodes = dice.pick(&[1, 2, 5, 10, 20]);
        let kind = dice.pick(&[RATE, QUOTA]);
        let mode = dice.pick(&["synced", "lease", "exact"]);
        let rules = rules(&limit(kind, mode, dice.between(1, 5) * (nodes as u64 - 1).max(1)));
        let mut world = World::new(seed, &rules, nodes, 1, Weather::fair(dice.pick(&[1, 20, 60])));
        world.books.epsilon = i64::try_from(SECOND).unwrap();
        let amount = dice.pick(&[1, 2, 5]);
        let total = if kind == RATE { 50 + 50 * 10 } else { 500 };
        let (mut sum, mut burst) = (0, true);
        while sum + amount <= total {
            // Half of the bucket at once, then half of what comes back.
            burst &= sum + amount <= 50;
            let at = if burst || kind == QUOTA { dice.below(SECOND / 100) } else { SECOND * (sum as u64 - 49) / 50 };
            let peer = usize::try_from(dice.below(nodes as u64)).unwrap();
            let order = Order { takes: dice.between(MS, SECOND), ..one(amount) };
            world.plan(at, Event::Arrive(peer, order));
            sum += amount;
        }
        world.run_until(EPOCH + 20 * SECOND);
        let refused = world.outcomes.iter().find(|outcome| outcome.refused.is_some());
        assert!(refused.is_none(), "LIVENESS {mode} {kind} on {nodes}: {refused:?}");
        world.quiesce();
    });
}

#[test]
fn who_waits_as_long_as_he_was_told_is_granted() {
    for_seeds(20, |seed| {
        let mut dice = Dice::new(seed ^ 0x3a17);
        let nodes = dice.pick(&[1, 2, 5, 10]);
        let mode = dice.pick(&["synced", "lease", "exact"]);
        let rules = rules(&limit(RATE, mode, dice.between(1, 5) * (nodes as u64 - 1).max(1)));
        let mut world = World::new(seed, &rules, nodes, 1, Weather::fair(dice.pick(&[1, 20])));
        world.books.epsilon = i64::try_from(SECOND).unwrap();
        let amount = i64::try_from(dice.between(1, 40)).unwrap();
        for _ in 0..300 {
            let (peer, at) = (usize::try_from(dice.below(nodes as u64)).unwrap(), dice.below(SECOND));
            world.plan(at, Event::Arrive(peer, one(amount)));
        }
        world.run_until(EPOCH + 2 * SECOND);
        let refused = world.outcomes.iter().rev().find_map(|outcome| Some((outcome.at, outcome.refused?.wait?)));
        let (at, wait) = refused.expect("three times the bucket is too much");
        world.run_until((at + wait).max(world.now));
        let before = world.outcomes.len();
        let peer = usize::try_from(dice.below(nodes as u64)).unwrap();
        world.plan(0, Event::Arrive(peer, one(amount)));
        world.run_until(world.now + SECOND);
        let outcome = &world.outcomes[before];
        assert!(outcome.refused.is_none(), "LIVENESS {mode} on {nodes}: waited {wait} ns, and then {outcome:?}");
        world.quiesce();
    });
}

/// What others only held, and did not use, is free again for those who were refused for it.
#[test]
fn what_is_given_back_elsewhere_is_found() {
    for mode in ["synced", "lease", "exact"] {
        for kind in [QUOTA, "rate = { limit = 1000, period = \"1000s\", burst = 1000 }"] {
            let rules = rules(&limit(kind, mode, 5));
            let mut world = World::new(1, &rules, 2, 1, Weather::fair(5));
            let whole = Order { user: "ann", amount: 1_000, actual: None, takes: 3 * SECOND };
            world.plan(0, Event::Arrive(0, whole));
            for second in 1..20 {
                world.plan(second * SECOND, Event::Arrive(1, one(900)));
            }
            world.run_until(EPOCH + 20 * SECOND);
            let times: Vec<_> = world.outcomes.iter().map(|outcome| outcome.refused.is_none()).collect();
            assert_eq!(times[..3], [true, false, false], "LIVENESS {mode} {kind}");
            assert!(times[3..8].contains(&true), "LIVENESS {mode} {kind}: {times:?}");
            world.quiesce();
        }
    }
}

/// Where nobody asks, nothing is said: what is held is said again only before it fades.
#[test]
fn an_idle_hold_is_renewed_and_no_more() {
    let rules = rules(&limit(QUOTA, "synced", 5));
    let mut world = World::new(1, &rules, 2, 1, Weather::fair(5));
    world.plan(0, Event::Arrive(0, Order { takes: 300 * SECOND, ..one(10) }));
    world.run_until(EPOCH + 299 * SECOND);
    let held = serde_json::to_value(world.store.values().next()).unwrap();
    let until = held["Quota"]["shares"]["node-0"]["until"].as_u64().unwrap();
    assert!(until * 1_000 > world.now, "HELD too short: it is not renewed");
    assert!(world.messages <= 14, "{} messages for one hold in five minutes", world.messages);
    world.quiesce();
}
