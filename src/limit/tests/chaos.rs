//! Everything that may go wrong, at once: no bound is passed by more than what went wrong explains, and in the end the store knows
//! exactly what was admitted.

use super::dice::Dice;
use super::plan::Demand;
use super::world::{EPOCH, Event, Fault, MS, Order, SECOND, Weather, World};
use super::{for_seeds, rules};

const SECONDS: u64 = 20;

/// One to four limits of every sort, for each user and for all together.
fn any_rules(dice: &mut Dice, nodes: usize) -> String {
    let mut text = String::new();
    for number in 0..dice.between(1, 4) {
        let mode = dice.pick(&["synced", "synced", "lease", "exact", "local"]);
        let action = dice.pick(&["deny", "deny", "deny", "shadow", "warn"]);
        let away = dice.pick(&["local", "open", "closed"]);
        let per = dice.pick(&["[]", "[\"user\"]"]);
        let meter = dice.pick(&["tokens", "tokens", "requests"]);
        let slack = dice.between(1, 4) * (nodes as u64 - 1).max(1);
        let kind = if dice.chance(500) {
            format!("rate = {{ limit = 10, period = \"1s\", burst = {} }}", dice.between(20, 100))
        } else {
            format!("quota = {{ limit = {}, period = \"month\" }}", dice.between(50, 400))
        };
        text += &format!(
            "[[limit]]\nname = \"l{number}\"\nper = {per}\nmeter = \"{meter}\"\n{kind}\nmode = \"{mode}\"\n\
             action = \"{action}\"\non_store_error = \"{away}\"\nmax_overshoot = {slack}\n"
        );
    }
    text
}

fn any_fault(dice: &mut Dice, nodes: usize) -> Fault {
    let peer = usize::try_from(dice.below(nodes as u64)).unwrap();
    match dice.below(6) {
        0 => Fault::Cut(peer, dice.between(SECOND / 10, 5 * SECOND)),
        1 => Fault::Away(dice.between(SECOND / 10, 3 * SECOND)),
        2 => Fault::Forget,
        3 => Fault::Snapshot,
        4 => Fault::Restore,
        _ => Fault::Crash(peer),
    }
}

fn storm(seed: u64, faults: u64, weather: Weather) {
    let mut dice = Dice::new(seed ^ 0xc4a05);
    let nodes = dice.pick(&[1, 2, 3, 5, 10]);
    let databases = dice.pick(&[1, 1, 2]);
    let rules = rules(&any_rules(&mut dice, nodes));
    let demand = Demand {
        rate: 20,
        least: 1,
        most: dice.pick(&[1, 3, 12]),
        cancelled: dice.pick(&[0, 100, 400]),
        uncertain: dice.chance(500),
        users: &["ann", "bob", "cat"],
        factors: &[0, 1, 2, 10],
    };
    let mut world = World::new(seed, &rules, nodes, databases, weather);
    world.books.epsilon = i64::try_from(3 * weather.delay.1 + SECOND / 20 + weather.timeout).unwrap();
    demand.plan(&mut world, SECONDS);
    for _ in 0..dice.below(faults + 1) {
        let (at, fault) = (dice.below(SECONDS * SECOND), any_fault(&mut dice, nodes));
        world.plan(at, Event::Fault(fault));
    }
    world.run_until(EPOCH + SECONDS * SECOND);
    world.calm();
    world.run_until(EPOCH + (SECONDS + 40) * SECOND);
    // Everybody has something to say once more, so that what was forgotten is said again.
    for peer in 0..nodes {
        for user in demand.users {
            let order = Order { user, amount: 1, actual: Some(1_000), takes: MS };
            world.plan(SECOND * peer as u64, Event::Arrive(peer, order));
        }
    }
    world.quiesce();
}

#[test]
fn no_message_is_sure_to_arrive() {
    for_seeds(12, |seed| storm(seed, 0, Weather::foul()));
}

#[test]
fn the_store_forgets_and_instances_die() {
    for_seeds(12, |seed| storm(seed, 6, Weather::fair(60)));
}

#[test]
fn all_of_it_at_once() {
    for_seeds(12, |seed| storm(seed, 10, Weather::foul()));
}
