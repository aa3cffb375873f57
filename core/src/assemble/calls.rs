//! Which spans are calls of a model, each call once however many instrumentations saw it.

use std::collections::BTreeMap;

use super::nested::{self, Decision};
use super::resolve::{self, Owner};
use super::tree::Tree;
use super::twins::{self, Group};
use super::view::{self, Role, View};
use crate::dialect::{self, Failure};
use crate::domain::call::{Tokens, UnknownUsage, Usage};
use crate::domain::facts::Field;

/// One call as its spans show it: places in the tree, the one that gives the numbers first.
pub(super) struct Sighting {
    pub owner: Owner,
    pub numbers: usize,
    pub others: Vec<usize>,
    pub tokens: Option<Tokens>,
}

impl Sighting {
    pub(super) fn spans(&self) -> impl Iterator<Item = usize> {
        std::iter::once(self.numbers).chain(self.others.iter().copied())
    }

    /// The spans in the order in which names are taken from them: the span that is nearest the wire knows fewer.
    pub(super) fn by_names(&self) -> impl Iterator<Item = usize> {
        self.others.iter().copied().chain(std::iter::once(self.numbers))
    }
}

/// What a span was taken for, other than a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Taken {
    Call,
    Aggregate(&'static str),
    /// A further view of the call whose numbers that span gives.
    Twin(usize, &'static str),
    NoCall(&'static str),
    Nothing,
}

/// The calls of a trace, and what each span was taken for.
pub(super) struct Found {
    pub sightings: Vec<Sighting>,
    pub taken: Vec<Taken>,
}

pub(super) fn find(tree: &Tree<'_>) -> Found {
    let views: Vec<View<'_>> = tree.nodes.iter().map(View::of).collect();
    let decisions = nested::decide(tree, &views);
    let groups = twins::join(tree, &views, groups(tree, &views, &decisions));
    let sightings: Vec<Sighting> = groups.iter().map(|group| sighting(tree, &views, group)).collect();
    let taken = taken(&views, &decisions, &groups, &sightings);
    Found { sightings, taken }
}

/// Each call with the views that are nested in it, in the order of their start.
fn groups<'t>(tree: &Tree<'t>, views: &[View<'t>], decisions: &[Option<Decision>]) -> Vec<Group<'t>> {
    let mut members: BTreeMap<usize, Vec<(usize, &'static str)>> = BTreeMap::new();
    let mut of_call: Vec<Option<usize>> = vec![None; decisions.len()];
    for place in tree.downwards.iter().copied() {
        let (call, why) = match decisions[place] {
            Some(Decision::Call) => (place, ""),
            // The outer span was decided to be a call, or to be within one: its place is known already.
            Some(Decision::Within(outer, why)) => (of_call[outer].unwrap_or(place), why),
            Some(Decision::Aggregate(_)) | None => continue,
        };
        of_call[place] = Some(call);
        members.entry(call).or_default().push((place, why));
    }
    let mut calls: Vec<(usize, Vec<(usize, &'static str)>)> = members.into_iter().collect();
    calls.sort_unstable_by_key(|(call, _)| tree.order(*call));
    let group = |(_, members): (usize, Vec<(usize, &'static str)>)| {
        // A call waits for its request only if none of its spans has one.
        let owner = members.iter().map(|(place, _)| resolve::owner(tree, *place)).min();
        Group::of(tree, views, owner.expect("a call has a span"), members)
    };
    calls.into_iter().map(group).collect()
}

/// Numbers come from the span that tells them and is nearest the wire.
fn sighting(tree: &Tree<'_>, views: &[View<'_>], group: &Group<'_>) -> Sighting {
    let rank = |place: &usize| {
        let (node, view) = (&tree.nodes[*place], &views[*place]);
        let distance = dialect::distance_from_wire(view.scope);
        (view.tokens.is_none(), view.failed, distance, usize::MAX - node.depth, node.span.start, node.span.id)
    };
    let mut places: Vec<usize> = group.members.iter().map(|(place, _)| *place).collect();
    places.sort_unstable_by_key(rank);
    let others = places.split_off(1);
    Sighting { owner: group.owner, numbers: places[0], others, tokens: views[places[0]].tokens }
}

fn taken(
    views: &[View<'_>],
    decisions: &[Option<Decision>],
    groups: &[Group<'_>],
    sightings: &[Sighting],
) -> Vec<Taken> {
    let alone = |(view, decision): (&View<'_>, &Option<Decision>)| match (decision, view.role) {
        (Some(Decision::Aggregate(why)), _) => Taken::Aggregate(why),
        (None, Role::Preparation) => Taken::NoCall("its name says that it only prepares a call"),
        (None, Role::OtherWork) => Taken::NoCall("its operation calls no model"),
        (None, Role::Aggregate) => Taken::Aggregate("its operation stands for what is below it"),
        _ => Taken::Nothing,
    };
    let mut taken: Vec<Taken> = views.iter().zip(decisions).map(alone).collect();
    for (group, sighting) in groups.iter().zip(sightings) {
        // The first of a call has no reason of its own; if it is the twin, the reason is that of the span with the numbers.
        let of_numbers = group.members.iter().find(|(place, _)| *place == sighting.numbers).map_or("", |(_, why)| why);
        for &(place, why) in &group.members {
            let why = if why.is_empty() { of_numbers } else { why };
            taken[place] = if place == sighting.numbers { Taken::Call } else { Taken::Twin(sighting.numbers, why) };
        }
    }
    taken
}

/// What a call used.
pub(super) fn usage(tree: &Tree<'_>, sighting: &Sighting) -> Usage {
    let facts = |place: usize| &tree.nodes[place].span.facts;
    let any = |field| sighting.spans().any(|place| facts(place).has(field));
    let streaming = || sighting.spans().any(|place| view::streams(facts(place)));
    match sighting.tokens {
        Some(tokens) => Usage::Reported(tokens),
        None if any(Field::ImplausibleTokens) => Usage::Unknown(UnknownUsage::Implausible),
        None if sighting.spans().any(|place| facts(place).number(Field::AnsweredFromCache) == Some(1)) => {
            Usage::Reported(Tokens::default())
        }
        None if tree.nodes[sighting.numbers].span.failed && cost_nothing(tree, sighting) => {
            Usage::Reported(Tokens::default())
        }
        None if streaming() => Usage::Unknown(UnknownUsage::Stream),
        None => Usage::Unknown(UnknownUsage::Missing),
    }
}

/// Whether a failed call surely was billed nothing: the provider refused it, or nothing says that it began to answer.
fn cost_nothing(tree: &Tree<'_>, sighting: &Sighting) -> bool {
    let nodes = || sighting.spans().map(|place| &tree.nodes[place]);
    let failures = || {
        nodes().map(|node| {
            let facts = &node.span.facts;
            dialect::failure(facts.number(Field::ErrorCode), facts.text(Field::ErrorType))
        })
    };
    if nodes().any(|node| node.span.facts.has(Field::TimeToFirstToken)) {
        return false;
    }
    if failures().any(|failure| failure == Failure::Refused) {
        return true;
    }
    let begun = || nodes().any(|node| view::had_begun(&node.origin.scope, &node.span.facts));
    failures().all(|failure| failure != Failure::CutOff) && !begun()
}

/// The host of each call, by the span of its numbers: the first that one of its spans tells, the nearest to the wire first; else that
/// of a client's span directly below one of them.
pub(super) fn hosts<'t>(tree: &Tree<'t>, sightings: &[Sighting]) -> BTreeMap<usize, &'t str> {
    let host = |place: usize| tree.nodes[place].span.facts.text(Field::Host);
    let mut calls: Vec<Option<usize>> = vec![None; tree.nodes.len()];
    let mut hosts = BTreeMap::new();
    for sighting in sightings {
        sighting.spans().for_each(|place| calls[place] = Some(sighting.numbers));
        if let Some(host) = sighting.spans().find_map(host) {
            hosts.insert(sighting.numbers, host);
        }
    }
    for place in tree.downwards.iter().copied().filter(|place| calls[*place].is_none()) {
        let call = tree.nodes[place].parent.and_then(|parent| calls[parent]);
        if let (Some(call), Some(host)) = (call, host(place)) {
            hosts.entry(call).or_insert(host);
        }
    }
    hosts
}
