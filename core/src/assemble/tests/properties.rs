//! What holds for every trace, sensible or not.

use std::collections::BTreeSet;

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

use super::*;
use crate::assemble::tree::Tree;
use crate::domain::record::Totals;

const KINDS: [Kind; 4] = [Kind::Internal, Kind::Server, Kind::Client, Kind::Consumer];
const SCOPES: [&str; 3] = ["a", "b", "com.anthropic.sdk.python"];

/// Any span out of a small pool: the ids repeat, so that spans have versions, children, rings and parents that never come.
fn sketch() -> impl Strategy<Value = Sketch> {
    let place = (1..12_u64, option::of(1..15_u64), select(&KINDS[..]), select(&SCOPES[..]));
    let time = (0..6_u64, 0..4_u64, any::<bool>());
    let call = (any::<bool>(), option::of(0..3_u64), option::of(0..2_u64), option::of(7..9_u64), 0..20_u8);
    (place, time, call, any::<bool>(), option::of(select(&["m", "n"][..])), option::of(select(&["ann", "bob"][..])))
        .prop_map(|(place, time, call, http, model, user)| {
            let (id, parent, kind, scope) = place;
            let mut sketch = span(id).kind(kind).scope(scope).at(time.0 * 100, (time.0 + time.1) * 100);
            sketch.parent = parent;
            sketch.failed = time.2;
            let (operation, input, output, answer, odd) = call;
            let texts = [
                (Field::HttpMethod, http.then_some("POST")),
                (Field::Operation, operation.then_some("chat")),
                (Field::RequestModel, model),
                (Field::User, user),
                (Field::Tenant, user.filter(|_| odd == 0).map(|_| "acme")),
                (Field::Session, model.filter(|_| odd == 2)),
                (Field::Conversation, model.filter(|_| odd == 3)),
                (Field::ResponseId, answer.map(|answer| if answer == 7 { "seven" } else { "eight" })),
            ];
            let numbers = [
                (Field::InputTokens, input.map(|count| count * 10)),
                (Field::OutputTokens, output.map(|count| count * 5)),
                (Field::ImplausibleTokens, (odd == 1).then_some(1)),
            ];
            for (field, text) in texts {
                sketch = text.into_iter().fold(sketch, |sketch, text| sketch.text(field, text));
            }
            for (field, number) in numbers {
                sketch = number.into_iter().fold(sketch, |sketch, number| sketch.number(field, number));
            }
            sketch
        })
}

fn forest() -> impl Strategy<Value = Vec<Sketch>> {
    vec(sketch(), 0..16)
}

/// The spans in two orders, each with the number of the delivery it comes in.
fn twice_in_some_order() -> impl Strategy<Value = (Vec<Sketch>, Vec<(Sketch, usize)>)> {
    forest().prop_flat_map(|spans| {
        let repeated: Vec<Sketch> = spans.iter().chain(&spans).cloned().collect();
        let deliveries = vec(0..4_usize, repeated.len());
        let shuffled = (Just(repeated).prop_shuffle(), deliveries);
        (Just(spans), shuffled.prop_map(|(spans, deliveries)| spans.into_iter().zip(deliveries).collect()))
    })
}

fn joined(spans: &[Sketch]) -> Trace {
    Trace::default().joined(delivery(spans))
}

fn calls_of(resolution: &Resolution) -> impl Iterator<Item = &Call> {
    resolution.requests.iter().flat_map(|request| &request.calls)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn order_repetition_and_deliveries_change_nothing((spans, again) in twice_in_some_order()) {
        let mut whole = Trace::default();
        for number in 0..4 {
            let part = again.iter().filter(|(_, delivery)| *delivery == number).map(|(sketch, _)| sketch);
            whole = whole.joined(delivery(part));
        }
        let once = joined(&spans);
        prop_assert_eq!(&once, &whole);
        let resolver = Resolver::new(&AssembleConfig::default());
        for expired in [false, true] {
            prop_assert_eq!(
                resolver.resolve(trace_id(), &once, look(&[], &Waits::new(), expired)),
                resolver.resolve(trace_id(), &whole, look(&[], &Waits::new(), expired))
            );
        }
    }

    #[test]
    fn the_forest_has_no_rings_and_parents_come_first(spans in forest()) {
        let trace = joined(&spans);
        let tree = Tree::of(&trace);
        let mut seen = vec![false; tree.nodes.len()];
        for place in tree.downwards.iter().copied() {
            prop_assert!(!seen[place]);
            seen[place] = true;
            let node = &tree.nodes[place];
            prop_assert!(node.parent.is_none_or(|parent| seen[parent]));
            prop_assert_eq!(node.parent.map(|parent| tree.nodes[parent].top).unwrap_or(place), node.top);
            if let Some(parent) = node.parent {
                prop_assert_eq!(node.span.parent, Some(tree.nodes[parent].span.id));
            }
        }
        prop_assert!(seen.into_iter().all(|seen| seen));
    }

    #[test]
    fn the_sums_of_the_records_are_the_sums_of_the_calls(spans in forest()) {
        let resolution = resolve(&spans, true);
        let all: Vec<Call> = calls_of(&resolution).cloned().collect();
        let whole = Totals::of(&all);
        let records: Vec<Totals> = resolution.requests.into_iter().map(|request| request.record.totals).collect();
        let sum = |part: fn(&Totals) -> u64| records.iter().map(part).sum::<u64>();
        prop_assert_eq!(whole.calls, sum(|totals| totals.calls));
        prop_assert_eq!(whole.failed_calls, sum(|totals| totals.failed_calls));
        prop_assert_eq!(whole.unknown_usage_calls, sum(|totals| totals.unknown_usage_calls));
        prop_assert_eq!(whole.tokens.input, sum(|totals| totals.tokens.input));
        prop_assert_eq!(whole.tokens.output, sum(|totals| totals.tokens.output));
    }

    #[test]
    fn keys_are_unique_and_each_call_belongs_to_one_record(spans in forest()) {
        let resolution = resolve(&spans, true);
        let keys: BTreeSet<_> = resolution.requests.iter().map(|request| request.record.key).collect();
        prop_assert_eq!(keys.len(), resolution.requests.len());
        prop_assert!(resolution.requests.is_sorted_by(|a, b| a.record.key < b.record.key));
        let mut calls = BTreeSet::new();
        for request in &resolution.requests {
            prop_assert!(request.calls.is_sorted_by(|a, b| a.key < b.key));
            prop_assert!(request.calls.iter().all(|call| calls.insert(call.key)), "a call stands in two records");
        }
    }

    #[test]
    fn each_parent_that_never_came_has_its_own_records(spans in forest()) {
        let first = resolve(&spans, false);
        let last = resolve(&spans, true);
        prop_assert_eq!(&first.waits, &last.waits);
        let (attributed, others): (Vec<Request>, Vec<Request>) =
            last.requests.into_iter().partition(|request| request.record.method.is_some());
        prop_assert_eq!(first.requests, attributed);
        prop_assert_eq!(first.waits.is_empty(), others.is_empty());
        prop_assert!(others.iter().all(|other| !other.calls.is_empty()), "a parent without calls leaves no record");
    }

    /// Whatever came before: what a trace comes to with the keys that its records had is what it comes to without them, but for the
    /// keys; and a key stays in use as long as there is a record that could bear it.
    #[test]
    fn keys_that_are_stored_stay_and_change_nothing_else((spans, again) in twice_in_some_order()) {
        let resolver = Resolver::new(&AssembleConfig::default());
        let (mut whole, mut stored) = (Trace::default(), Vec::<Key>::new());
        for number in 0..4 {
            let part = again.iter().filter(|(_, delivery)| *delivery == number).map(|(sketch, _)| sketch);
            whole = whole.joined(delivery(part));
            let now = resolver.resolve(trace_id(), &whole, look(&stored, &Waits::new(), true)).requests;
            stored = now.iter().map(|request| request.record.key).collect();
            let kept = resolver.resolve(trace_id(), &whole, look(&stored, &Waits::new(), true)).requests;
            prop_assert_eq!(&now, &kept, "a second look moves no key");
        }
        let keyless = |requests: Vec<Request>| {
            let calls = requests.into_iter().map(|request| (request.record.user, request.record.endpoint, request.calls));
            let mut calls: Vec<_> = calls.collect();
            calls.sort_by_key(|(user, _, calls)| (calls.first().map(|call| call.key), user.clone()));
            calls
        };
        let fresh = resolver.resolve(trace_id(), &joined(&spans), look(&[], &Waits::new(), true)).requests;
        let followed = resolver.resolve(trace_id(), &whole, look(&stored, &Waits::new(), true)).requests;
        prop_assert_eq!(keyless(fresh), keyless(followed));
    }

    /// Told by a walk of its own, where no call has two spans: all numbers differ, and none is the sum of others.
    #[test]
    fn a_call_is_of_the_user_named_nearest_above_it(spans in forest()) {
        let apart = |span: Sketch| {
            let (id, told) = (span.id, span.facts.contains_key(&Field::InputTokens));
            let bare = span.scope("a").without(Field::ResponseId).without(Field::ImplausibleTokens);
            let bare = bare.without(Field::OutputTokens).without(Field::Operation).without(Field::RequestModel);
            if told { bare.text(Field::Operation, "chat").tokens(1 << id, 1 << id) } else { bare }
        };
        let spans: Vec<Sketch> = spans.into_iter().map(apart).collect();
        let trace = joined(&spans);
        let tree = Tree::of(&trace);
        let resolution = resolve(&spans, true);
        for request in &resolution.requests {
            for call in &request.calls {
                let start = tree.nodes.iter().position(|node| node.span.id == call.key.span_id).unwrap();
                let root = tree.nodes[start].server;
                let mut next = Some(start);
                let mut named = None;
                while let Some(place) = next {
                    named = tree.nodes[place].span.facts.text(Field::User);
                    next = tree.nodes[place].parent.filter(|_| named.is_none() && Some(place) != root);
                }
                if named.is_some() {
                    prop_assert_eq!(request.record.user.as_deref(), named);
                }
            }
        }
    }
}
