//! One instance alone is governor, and a counter; a request that is refused leaves no trace.

use super::super::cell::{Look, QuotaCell, RateCell, Terms};
use super::super::kernel::{self, Answer};
use super::super::rule::{Kind, Mode, Rule};
use super::super::shared::{Key, Ledger, Reporter, Shared};
use super::dice::Dice;
use super::world::{EPOCH, Event, MS, Order, SECOND, Weather, World};
use super::{for_seeds, rules};

/// So near that a question costs no time that matters.
fn next_door() -> Weather {
    Weather { delay: (0, 0), lost: 0, doubled: 0, stalled: 0, timeout: SECOND }
}

fn orders(dice: &mut Dice, most: u64, count: u64) -> Vec<(u64, Order)> {
    let mut at = 0;
    let mut next = || {
        at += if dice.chance(50) { dice.below(3 * SECOND) } else { dice.below(SECOND / 10) } / 1_000 * 1_000;
        let amount = i64::try_from(dice.between(0, most)).unwrap();
        (at, Order { user: "ann", amount, actual: Some(1_000), takes: MS })
    };
    (0..count).map(|_| next()).collect()
}

#[test]
fn a_rate_of_one_instance_is_governor() {
    for_seeds(8, |seed| {
        let mut dice = Dice::new(seed ^ 0x901);
        let mode = dice.pick(&["synced", "exact"]);
        let rules = rules(&format!(
            "[[limit]]\nname = \"l\"\nmeter = \"tokens\"\nrate = {{ limit = 100, period = \"1s\", burst = {} }}\n\
             mode = \"{mode}\"\nmax_overshoot = {}\n",
            dice.between(5, 100),
            dice.between(0, 10)
        ));
        let Kind::Rate(rate) = &rules[0].kind else { panic!("a rate") };
        let mut world = World::new(seed, &rules, 1, 1, next_door());
        let orders = orders(&mut dice, 12, 400);
        for (at, order) in &orders {
            world.plan(*at, Event::Arrive(0, *order));
        }
        world.run_until(EPOCH + 400 * SECOND);
        let mut tat = 0;
        assert_eq!(world.outcomes.len(), orders.len());
        for outcome in &world.outcomes {
            let wait = outcome.refused.map(|refused| refused.wait);
            let cells = u32::try_from(outcome.order.amount).ok().and_then(std::num::NonZeroU32::new);
            let expected = match cells.map(|cells| kernel::ask(rate.bucket, tat, outcome.at, cells)) {
                None => None,
                Some(Answer::Fits { tat: next }) => {
                    tat = next;
                    None
                }
                Some(Answer::Wait { nanos }) => Some(Some(nanos)),
                Some(Answer::TooMany) => Some(None),
            };
            assert_eq!(wait, expected, "DIFFERENTIAL {mode}: not governor's answer, {outcome:?}");
        }
        world.quiesce();
    });
}

#[test]
fn a_quota_of_one_instance_is_a_counter() {
    for_seeds(6, |seed| {
        let mut dice = Dice::new(seed ^ 0x902);
        let mode = dice.pick(&["synced", "exact", "lease"]);
        let limit = i64::try_from(dice.between(0, 1_000)).unwrap();
        let rules = rules(&format!(
            "[[limit]]\nname = \"l\"\nmeter = \"tokens\"\nquota = {{ limit = {limit}, period = \"month\" }}\n\
             mode = \"{mode}\"\nmax_overshoot = 10\n",
        ));
        let mut world = World::new(seed, &rules, 1, 1, next_door());
        for (at, order) in orders(&mut dice, 12, 400) {
            world.plan(at, Event::Arrive(0, order));
        }
        world.run_until(EPOCH + 400 * SECOND);
        let mut used = 0;
        for outcome in &world.outcomes {
            let fits = used + outcome.order.amount <= limit;
            used += if fits { outcome.order.amount } else { 0 };
            assert_eq!(outcome.refused.is_none(), fits, "DIFFERENTIAL {mode}: not a counter's answer, {outcome:?}");
        }
        world.quiesce();
    });
}

/// One limit of the two is spent, the other is wide: the wide one is as if nobody had asked.
#[test]
fn a_refused_request_changes_no_counter() {
    for_seeds(8, |seed| {
        let mut dice = Dice::new(seed ^ 0x903);
        let kinds =
            ["rate = { limit = 10, period = \"1000s\", burst = 10 }", "quota = { limit = 10, period = \"month\" }"];
        let wide = [
            "rate = { limit = 1000, period = \"1000s\", burst = 1000 }",
            "quota = { limit = 1000, period = \"month\" }",
        ];
        let mut parts = [("tight", dice.pick(&kinds)), ("wide", dice.pick(&wide))];
        if dice.chance(500) {
            parts.reverse();
        }
        let mode = |dice: &mut Dice| dice.pick(&["synced", "exact", "lease"]);
        let text = parts.map(|(name, kind)| {
            let mode = mode(&mut dice);
            format!("[[limit]]\nname = \"{name}\"\nmeter = \"tokens\"\n{kind}\nmode = \"{mode}\"\nmax_overshoot = 0\n")
        });
        let rules = rules(&text.concat());
        let mut world = World::new(seed, &rules, 3, 1, Weather::fair(20));
        // Another instance may be ahead of the news; a purse that is given back may have drained.
        world.books.epsilon = i64::try_from(SECOND / 2).unwrap();
        for _ in 0..60 {
            let (peer, at) = (usize::try_from(dice.below(3)).unwrap(), dice.below(2 * SECOND));
            let order = Order { user: "ann", amount: 5, actual: Some(1_000), takes: MS };
            world.plan(at, Event::Arrive(peer, order));
        }
        world.run_until(EPOCH + 5 * SECOND);
        let granted = world.outcomes.iter().filter(|outcome| outcome.refused.is_none()).count();
        assert_eq!((granted, world.outcomes.len()), (2, 60), "ATOMICITY the tight one has room for two");
        let charged = |rule: &Rule| world.books.admitted[&rules.iter().position(|other| other.id == rule.id).unwrap()];
        assert!(rules.iter().all(|rule| charged(rule) == 10), "ATOMICITY");
        // In the end the store itself is held to what was granted, to the microsecond.
        world.quiesce();
    });
}

/// A sender may tell any amounts: they stop at the greatest number, and nothing panics.
#[test]
fn amounts_that_no_number_holds_leave_a_limit_in_debt() {
    let rules = rules(
        "[[limit]]\nname = \"l\"\nmeter = \"tokens\"\nrate = { limit = 1, period = \"1h\" }\n\
         [[limit]]\nname = \"q\"\nmeter = \"tokens\"\nquota = { limit = 10, period = \"lifetime\" }\n",
    );
    let (Kind::Rate(rate), Kind::Quota(quota)) = (&rules[0].kind, &rules[1].kind) else { panic!("a rate and a quota") };
    let who = Reporter { node: "n".into(), ledger: "l".into() };
    let (mut bucket, mut counter) = (RateCell::new(1), QuotaCell::new(1));
    let (mut of_bucket, mut of_counter) = (None, None);
    for version in 1..5 {
        bucket.charge(rate.nanos_for(i64::MAX), EPOCH);
        counter.hold(i64::MAX);
        counter.settled(Ledger { version, used: i64::MAX });
        let ask = bucket.ask(Key(1), rate, Some((1, i64::MAX)), EPOCH);
        let told = Shared::take(&mut of_bucket, &who, &ask, EPOCH / 1_000);
        assert!(!bucket.learn(&ask, &told, EPOCH));
        let ask = counter.ask(Key(2), Terms { limit: 10, until: u64::MAX, ends: 0 }, Some((1, i64::MAX)));
        let told = Shared::take(&mut of_counter, &who, &ask, EPOCH / 1_000);
        assert!(!counter.learn(&ask, &told, EPOCH));
        assert!(matches!(bucket.look(rate, 1, Mode::Exact, 0, EPOCH), Look::Over(_)));
        assert!(matches!(counter.look(quota, 1, Mode::Lease, 0, None, EPOCH), Look::Over(_)));
    }
    for _ in 0..5 {
        bucket.charge(-i64::MAX, EPOCH);
        counter.hold(-i64::MAX);
        bucket.ask(Key(1), rate, None, EPOCH);
    }
}
