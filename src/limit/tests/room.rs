//! However many subjects come, the memory for them has a bound: what has something to tell stays, what is as good as new goes.

use std::collections::BTreeMap;

use super::super::attempt::{Attempt, Reason, Step};
use super::super::node::{Cell, Node};
use super::super::rule::Traits;
use super::super::shared::{Key, Reporter, Shared};
use super::super::subject::Since;
use super::super::{Rule, Usage};
use super::rules;
use super::world::{EPOCH, SECOND};

const MOST: usize = 256;

struct Crowd {
    node: Node,
    rules: Vec<std::sync::Arc<Rule>>,
    store: BTreeMap<Key, Option<Shared>>,
    who: Reporter,
}

impl Crowd {
    fn new() -> Self {
        let limit =
            "[[limit]]\nname = \"l\"\nper = [\"user\"]\nmeter = \"requests\"\nrate = { limit = 1, period = \"1s\" }\n";
        let who = Reporter { node: "node".into(), ledger: "ledger".into() };
        Self { node: Node::new(EPOCH / 1_000, MOST, 1), rules: rules(limit), store: BTreeMap::new(), who }
    }

    /// One request of this user, with a store that answers at once.
    fn comes(&mut self, user: &str, now: u64) -> Result<(), Reason> {
        let traits = Traits { user: Some(user), ..Traits::default() };
        let usage = Usage { requests: 1, ..Usage::default() };
        let mut attempt = Attempt::new(&self.node, &self.rules, &traits, &Since::default(), &usage, now);
        loop {
            match attempt.step(&self.node, now / 1_000 + 60_000_000, now) {
                Step::Granted => return Ok(()),
                Step::Refused(refused) => return Err(refused.reason),
                Step::Wait(_) => unreachable!("nobody else asks"),
                Step::Ask(asks) => {
                    for (place, ask) in asks {
                        let told = Shared::take(self.store.entry(ask.key).or_default(), &self.who, &ask, now / 1_000);
                        let cell = attempt.limits[place].cell.clone().expect("it asked");
                        self.node.heard(&cell, &ask, Some(&told), now);
                    }
                }
            }
        }
    }

    fn report(&mut self, now: u64) {
        for (cell, ask) in self.node.reports(usize::MAX, now / 1_000 + 60_000_000, now, true) {
            let told = Shared::take(self.store.entry(ask.key).or_default(), &self.who, &ask, now / 1_000);
            self.node.heard(&cell, &ask, Some(&told), now);
        }
    }
}

#[test]
fn hostile_subjects_fill_no_memory_and_turn_nobody_away_for_long() {
    let mut crowd = Crowd::new();
    let mut refused = 0;
    for user in 0..5_000 {
        refused += usize::from(crowd.comes(&format!("user {user}"), EPOCH) == Err(Reason::TooManySubjects));
        assert!(crowd.node.subjects() <= MOST);
    }
    // Whatever was admitted is remembered: nobody gets in twice because others came.
    assert!(refused >= 5_000 - MOST, "{refused}");
    assert_eq!(crowd.comes("user 0", EPOCH), Err(Reason::OverLimit));
    // Told and drained, they make room for others, within the bound.
    let later = EPOCH + 3 * SECOND;
    crowd.report(later);
    crowd.report(later);
    for user in 0..5_000 {
        if crowd.comes(&format!("other {user}"), later + user * SECOND).is_err() {
            crowd.report(later + user * SECOND);
        }
        crowd.report(later + user * SECOND);
        assert!(crowd.node.subjects() <= MOST);
    }
    assert_eq!(crowd.comes("new", later + 6_000 * SECOND), Ok(()));
}

/// A set has at least seven places for sixteen, each a pointer and a byte; two counts stand before what is shared.
#[test]
fn a_subject_takes_no_more_than_200_bytes() {
    let (counts, pointer) = (2 * size_of::<usize>(), size_of::<usize>() + 1);
    assert!(size_of::<Cell>() + counts + pointer * 16 / 7 <= 200);
}
