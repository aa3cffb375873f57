//! What the store and a cell make of messages that come twice, late, out of order or from the dead.

use super::super::cell::RateCell;
use super::super::rule::Kind;
use super::super::shared::{Ask, Key, QuotaAsk, RateAsk, Reporter, Shared, Told, What};
use super::rules;
use super::world::{EPOCH, SECOND};

const NOW: u64 = EPOCH / 1_000;

fn who() -> Reporter {
    Reporter { node: "node".into(), ledger: "ledger".into() }
}

fn rate(incarnation: u64, version: u64, total: i64) -> Ask {
    let what = RateAsk { total, acked: 0, floor: 0, own: NOW + total.unsigned_abs(), cell: 10_000_000, wish: None };
    Ask { key: Key(1), incarnation, version, what: What::Rate(what) }
}

fn quota(incarnation: u64, version: u64, out: i64) -> Ask {
    let what = QuotaAsk { out, until: NOW + 60_000_000, ledger: None, wish: None, ends: 0 };
    Ask { key: Key(1), incarnation, version, what: What::Quota(what) }
}

/// The state after these asks, of which the backlog or what is held.
fn after(asks: &[Ask]) -> i64 {
    let mut state = None;
    for ask in asks {
        Shared::take(&mut state, &who(), ask, NOW);
    }
    let value = serde_json::to_value(&state).unwrap();
    match state {
        Some(Shared::Rate { tat, .. }) => i64::try_from(tat - NOW).unwrap(),
        _ => value["Quota"]["shares"]["node"]["held"].as_i64().unwrap(),
    }
}

#[test]
fn a_report_that_comes_twice_or_late_counts_once() {
    assert_eq!(after(&[rate(7, 1, 100), rate(7, 1, 100)]), 100);
    assert_eq!(after(&[rate(7, 1, 100), rate(7, 3, 300), rate(7, 2, 200)]), 300);
    assert_eq!(after(&[rate(7, 2, 300), rate(7, 3, 100), rate(7, 2, 300)]), 100);
    assert_eq!(after(&[quota(7, 2, 5), quota(7, 3, 0), quota(7, 2, 5)]), 0);
}

#[test]
fn a_new_incarnation_begins_at_nothing_and_an_old_one_is_not_heard() {
    assert_eq!(after(&[rate(7, 5, 100), rate(8, 1, 40)]), 140);
    assert_eq!(after(&[rate(7, 5, 100), rate(8, 1, 40), rate(7, 6, 200)]), 140);
    assert_eq!(after(&[quota(7, 5, 9), quota(8, 1, 2)]), 2);
    assert_eq!(after(&[quota(8, 1, 2), quota(7, 9, 9)]), 2);
}

#[test]
fn what_is_told_is_believed_also_if_it_is_less_and_only_in_answer_to_the_last_ask() {
    let rules = rules("[[limit]]\nname = \"l\"\nmeter = \"tokens\"\nrate = { limit = 100, period = \"1s\" }\n");
    let Kind::Rate(rate) = &rules[0].kind else { panic!("a rate") };
    let mut cell = RateCell::new(7);
    let told = |seconds: u64, granted: i64| Told::Rate { tat: (EPOCH + seconds * SECOND) / 1_000, granted };
    let first = cell.ask(Key(1), rate, None, EPOCH);
    cell.learn(&first, &told(9, 0), EPOCH);
    let second = cell.ask(Key(1), rate, None, EPOCH);
    cell.learn(&second, &told(5, 0), EPOCH);
    assert_eq!(cell.tat, EPOCH + 5 * SECOND);
    let third = cell.ask(Key(1), rate, Some((10, 10)), EPOCH);
    cell.ask(Key(1), rate, None, EPOCH);
    assert!(!cell.learn(&third, &told(6, 100_000), EPOCH), "the fourth has taken back what the third was granted");
    assert_eq!((cell.tat, cell.has_purse()), (EPOCH + 5 * SECOND, false));
}

/// What was taken in advance and drained is not given back.
#[test]
fn a_purse_drains() {
    let rules = rules("[[limit]]\nname = \"l\"\nmeter = \"tokens\"\nrate = { limit = 100, period = \"1s\" }\n");
    let Kind::Rate(rate) = &rules[0].kind else { panic!("a rate") };
    let mut cell = RateCell::new(7);
    let ask = cell.ask(Key(1), rate, Some((10, 50)), EPOCH);
    let tat = (EPOCH + SECOND / 2) / 1_000;
    assert!(cell.learn(&ask, &Told::Rate { tat, granted: 500_000 }, EPOCH));
    cell.empty_purse(EPOCH + SECOND / 5);
    assert_eq!((cell.tat, cell.unacked()), (EPOCH + SECOND / 5, -300_000_000));
}

/// A report on its way that gives back leaves no room under the cap beside what it gives.
#[test]
fn what_is_being_given_back_does_not_count_twice() {
    let rules = rules("[[limit]]\nname = \"l\"\nmeter = \"tokens\"\nrate = { limit = 100, period = \"1s\" }\n");
    let Kind::Rate(rate) = &rules[0].kind else { panic!("a rate") };
    let mut cell = RateCell::new(7);
    cell.charge(500_000_000, EPOCH);
    let ask = cell.ask(Key(1), rate, None, EPOCH);
    let tat = (EPOCH + SECOND / 2) / 1_000;
    cell.learn(&ask, &Told::Rate { tat, granted: 0 }, EPOCH);
    cell.charge(-300_000_000, EPOCH);
    cell.ask(Key(1), rate, None, EPOCH);
    assert_eq!(cell.unacked(), 0, "the store may know already");
}
