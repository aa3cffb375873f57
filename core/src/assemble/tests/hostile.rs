//! Traces that nobody's bot sends. Work must grow with their size and not with its square: at these sizes a square does not end.

use super::*;
use crate::domain::record::Totals;

const MANY: u64 = 100_000;

/// Resolves the spans to the number of their requests and the totals of all.
fn sum_up(sketches: impl Iterator<Item = Sketch>) -> (usize, Totals) {
    let sketches: Vec<Sketch> = sketches.collect();
    let requests = resolve(&sketches, true).requests;
    let calls: Vec<Call> = requests.iter().flat_map(|request| request.calls.iter().cloned()).collect();
    (requests.len(), Totals::of(&calls))
}

fn check_sum(sketches: impl Iterator<Item = Sketch>, requests: usize, calls: u64, input: u64) {
    let (found, totals) = sum_up(sketches);
    assert_eq!((found, totals.calls, totals.tokens.input), (requests, calls, input));
}

fn call(id: u64) -> Sketch {
    chat(id).tokens(1, 0).at(id, id + 1)
}

/// A server as span 1, and below it as many spans as there can be.
fn below_a_server(make: impl Fn(u64) -> Sketch) -> impl Iterator<Item = Sketch> {
    std::iter::once(server(1)).chain((2..=MANY).map(make))
}

#[test]
fn a_deep_chain_is_one_call_at_its_end() {
    check_sum(below_a_server(|id| call(id).under(id - 1)), 1, 1, 1);
}

#[test]
fn a_deep_chain_of_servers_is_one_request() {
    check_sum((1..=MANY).map(|id| server(id).under(id + 1)), 1, 0, 0);
}

#[test]
fn a_wide_fan_is_as_many_calls() {
    check_sum(below_a_server(|id| call(id).answer(id).under(1)), 1, MANY - 1, MANY - 1);
}

#[test]
fn one_answers_id_for_all_calls_of_one_scope_merges_nothing_but_equal_counts() {
    check_sum(below_a_server(|id| call(id).tokens(id, 0).answer(7).under(1)), 1, MANY - 1, MANY * (MANY + 1) / 2 - 1);
}

#[test]
fn calls_without_ids_of_one_scope_merge_nothing() {
    check_sum(below_a_server(|id| call(id).under(1)), 1, MANY - 1, MANY - 1);
}

#[test]
fn calls_without_ids_of_two_scopes_merge_in_pairs() {
    let scope = |id: u64| if id.is_multiple_of(2) { "a" } else { "b" };
    check_sum((1..=MANY).map(|id| call(id).under(MANY + 1).scope(scope(id))), 1, MANY / 2, MANY / 2);
}

#[test]
fn calls_without_ids_that_only_seem_alike_stay_apart() {
    let spans = below_a_server(|id| call(id).tokens(id, 0).under(1).scope(if id < MANY / 2 { "a" } else { "b" }));
    check_sum(spans, 1, MANY - 1, MANY * (MANY + 1) / 2 - 1);
}

/// Fewer than elsewhere, for a trace looks through its origins one by one.
#[test]
fn as_many_scopes_as_spans_do_not_end_in_one_call() {
    let spans = (1..=4_000).map(|id: u64| call(id).at(1, 2).answer(7).under(9_999).scope(&id.to_string()));
    check_sum(spans, 1, 4_000 / 16, 4_000 / 16);
}

#[test]
fn one_ring_of_all_spans_is_one_unattributed_call() {
    check_sum((1..=MANY).map(|id| call(id).under(id % MANY + 1)), 1, 1, 1);
}

#[test]
fn a_ring_with_a_server_is_one_request() {
    let ring =
        below_a_server(|id| span(id).under(id - 1)).map(|span| if span.id == 1 { span.under(MANY) } else { span });
    check_sum(ring, 1, 0, 0);
}

#[test]
fn spans_that_are_their_own_parents_are_as_many_records() {
    check_sum((1..=MANY).map(|id| call(id).under(id)), usize::try_from(MANY).unwrap(), MANY, MANY);
}

#[test]
fn parents_that_never_come_are_as_many_records() {
    check_sum((1..=MANY).map(|id| call(id).under(id + MANY)), usize::try_from(MANY).unwrap(), MANY, MANY);
}

#[test]
fn roots_without_number_are_as_many_requests() {
    check_sum((1..=MANY).map(call), usize::try_from(MANY).unwrap(), MANY, MANY);
}

#[test]
fn servers_without_number_are_as_many_requests() {
    check_sum((1..=MANY).map(server), usize::try_from(MANY).unwrap(), 0, 0);
}

#[test]
fn the_greatest_counts_saturate() {
    let greatest = |id| chat(id).tokens(u64::MAX, u64::MAX).number(Field::CachedInputTokens, u64::MAX).under(1);
    let spans = [server(1), greatest(2), greatest(3).scope("openlit.instrumentation.anthropic")];
    check_sum(spans.into_iter(), 1, 1, u64::MAX);
}

#[test]
fn the_latest_times_are_borne() {
    let spans = [server(1).at(0, u64::MAX / 1_000_000), call(2).under(1).at(u64::MAX / 1_000_000, 0)];
    check_sum(spans.into_iter(), 1, 1, 1);
}
