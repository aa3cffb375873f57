//! What is promised while nothing but distance stands between the instances.

use super::dice::Dice;
use super::plan::{self, Demand};
use super::world::{EPOCH, SECOND, Weather};
use super::{for_seeds, rules, tell};

const NODES: [usize; 5] = [1, 2, 5, 10, 20];

fn demand(rate: i64, most: i64) -> Demand {
    Demand { rate, least: 1, most, cancelled: 0, uncertain: false, users: &["ann"], factors: &[0, 1, 2, 10] }
}

/// Runs one rule through all numbers of instances and tells the worst excess beside the bound.
fn hold_to_the_bound(name: &str, few: u64, text: impl Fn(usize, &mut Dice) -> (String, Demand)) {
    let mut worst = std::collections::BTreeMap::<usize, (f64, f64)>::new();
    for_seeds(few, |seed| {
        let mut dice = Dice::new(seed ^ 0xabcd);
        let nodes = dice.pick(&NODES);
        let longest = dice.pick(&[1, 5, 60]);
        let (text, demand) = text(nodes, &mut dice);
        let rules = rules(&text);
        let weather = Weather::fair(longest);
        let mut world = plan::world(seed, &rules, nodes, weather, &demand, 15);
        world.books.epsilon = i64::try_from(3 * weather.delay.1 + SECOND / 20).unwrap();
        world.run_until(EPOCH + 15 * SECOND);
        world.quiesce();
        for (excess, bound) in world.books.worst.values() {
            let known = worst.entry(nodes).or_insert((f64::NEG_INFINITY, *bound));
            if excess - bound > known.0 - known.1 {
                *known = (*excess, *bound);
            }
        }
    });
    for (nodes, (excess, bound)) in worst {
        tell(&format!("{name} {nodes:>2} nodes: {excess:8.2} of {bound:8.2}"));
    }
}

fn rate(mode: &str, nodes: usize, dice: &mut Dice) -> (String, Demand) {
    let a = dice.between(1, 5) as usize;
    let burst = dice.pick(&[10, 30, 100]).max(2 * a * nodes);
    let text = format!(
        "[[limit]]\nname = \"r\"\nmeter = \"tokens\"\nrate = {{ limit = 10, period = \"1s\", burst = {burst} }}\n\
         mode = \"{mode}\"\nmax_overshoot = {}\n",
        a * (nodes - 1).max(1)
    );
    let most = dice.pick(&[1, a as i64, 3 * a as i64]);
    (text, demand(10, most))
}

#[test]
fn a_synced_rate_is_over_by_one_cap_for_each_other_instance_at_most() {
    hold_to_the_bound("synced rate", 12, |nodes, dice| rate("synced", nodes, dice));
}

#[test]
fn an_exact_rate_is_never_over() {
    hold_to_the_bound("exact rate", 8, |nodes, dice| rate("exact", nodes, dice));
}

#[test]
fn a_leased_rate_is_over_by_its_leases_at_most() {
    hold_to_the_bound("lease rate", 8, |nodes, dice| rate("lease", nodes, dice));
}

fn quota(mode: &str, nodes: usize, dice: &mut Dice) -> (String, Demand) {
    let a = dice.between(1, 5) as usize;
    let limit = dice.pick(&[50, 200, 1_000]);
    let text = format!(
        "[[limit]]\nname = \"q\"\nmeter = \"tokens\"\nquota = {{ limit = {limit}, period = \"month\" }}\n\
         mode = \"{mode}\"\nmax_overshoot = {}\n",
        a * (nodes - 1).max(1)
    );
    let most = dice.pick(&[1, a as i64, 3 * a as i64]);
    (text, demand(limit / 10, most))
}

#[test]
fn a_synced_quota_is_over_by_one_cap_for_each_other_instance_at_most() {
    hold_to_the_bound("synced quota", 8, |nodes, dice| quota("synced", nodes, dice));
}

#[test]
fn a_leased_quota_is_never_over() {
    hold_to_the_bound("lease quota", 8, |nodes, dice| quota("lease", nodes, dice));
}

#[test]
fn an_exact_quota_is_never_over() {
    hold_to_the_bound("exact quota", 8, |nodes, dice| quota("exact", nodes, dice));
}
