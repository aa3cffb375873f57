//! Which spans are calls of a model: the deepest span with tokens, each call once however many instrumentations saw it.

use std::time::Duration;

use rustc_hash::FxHashMap;

use super::tree::{Node, Tree};
use crate::domain::call::{Tokens, UnknownUsage, Usage};
use crate::domain::facts::{Facts, Field};
use crate::domain::ids::SpanId;
use crate::domain::span::Span;

/// The span made by Anthropic's own SDK: nearest the wire, so its numbers win over those of another span of the same call.
const NEAREST_THE_WIRE: &str = "com.anthropic.sdk.python";

/// One call as its spans show it: places in the tree, the one that gives the numbers first.
pub(super) struct Sighting {
    pub numbers: usize,
    pub others: Vec<usize>,
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

/// All calls of the trace.
pub(super) fn find(tree: &Tree<'_>) -> Vec<Sighting> {
    let mut places = candidates(tree);
    places.sort_unstable_by_key(|place| tree.order(*place));
    merge_twins(tree, &places)
}

fn has_tokens(facts: &Facts) -> bool {
    facts.has(Field::InputTokens) || facts.has(Field::OutputTokens) || facts.has(Field::ImplausibleTokens)
}

fn calls_a_model(facts: &Facts) -> bool {
    facts.has(Field::ModelOperation)
}

/// Spans with tokens that have no tokens below them; and spans of a model operation without tokens that have no such span
/// below them either. The latter are failed calls or calls of unknown usage.
fn candidates(tree: &Tree<'_>) -> Vec<usize> {
    let count = tree.nodes.len();
    let (mut tokens_below, mut calls_below) = (vec![false; count], vec![false; count]);
    for place in tree.downwards.iter().rev().copied() {
        let facts = &tree.nodes[place].span.facts;
        if let Some(parent) = tree.nodes[place].parent {
            tokens_below[parent] |= tokens_below[place] || has_tokens(facts);
            calls_below[parent] |= calls_below[place] || has_tokens(facts) || calls_a_model(facts);
        }
    }
    // Below a call that counts, a span without tokens is another view of that call: an inner client, an attempt.
    let mut inside_a_call = vec![false; count];
    let mut found = Vec::new();
    for place in tree.downwards.iter().copied() {
        let node = &tree.nodes[place];
        let facts = &node.span.facts;
        inside_a_call[place] = node.parent.is_some_and(|parent| inside_a_call[parent]);
        if has_tokens(facts) && !tokens_below[place] {
            found.push(place);
            inside_a_call[place] |= calls_a_model(facts);
        } else if !has_tokens(facts) && calls_a_model(facts) && !calls_below[place] && !inside_a_call[place] {
            found.push(place);
        }
    }
    found
}

/// Spans of one call that lie beside each other: from different scopes, at the same time, with the same id of the answer; or,
/// where an id is missing, below the same parent, with the same model and tokens. Of one scope only one span joins a call.
fn merge_twins(tree: &Tree<'_>, places: &[usize]) -> Vec<Sighting> {
    let mut groups: Vec<Vec<usize>> = Vec::new();
    let mut by_answer = FxHashMap::<(Option<usize>, u64), Vec<usize>>::default();
    let mut without_id = Vec::new();
    for place in places.iter().copied() {
        let Some(id) = tree.nodes[place].span.facts.number(Field::ResponseId) else {
            without_id.push(place);
            continue;
        };
        let same_id = by_answer.entry((tree.nodes[place].server, id)).or_default();
        if let Some(group) = best(tree, &groups, latest(same_id), place, |_, _| true) {
            groups[group].push(place);
        } else {
            same_id.push(groups.len());
            groups.push(vec![place]);
        }
    }
    // By the parent's id and not its place: two parents that never came are not the same. The groups with an id come first, all
    // of them, then those without; both in the order of their starts.
    let mut by_parent = FxHashMap::<Option<SpanId>, [Vec<usize>; 2]>::default();
    for (group, members) in groups.iter().enumerate() {
        by_parent.entry(tree.nodes[members[0]].span.parent).or_default()[0].push(group);
    }
    for place in without_id {
        let [with_id, others] = by_parent.entry(tree.nodes[place].span.parent).or_default();
        let near = around(tree, &groups, with_id, place).iter().copied().chain(latest(others));
        if let Some(group) = best(tree, &groups, near, place, alike) {
            groups[group].push(place);
        } else {
            others.push(groups.len());
            groups.push(vec![place]);
        }
    }
    groups.into_iter().map(|group| sighting(tree, group)).collect()
}

/// How many groups are looked at for a twin, to either side: more calls than this do not run at once below one parent.
const MOST_AT_ONCE: usize = 64;
/// How many spans make one call at most: nobody runs more instrumentations than this.
const MOST_VIEWS: usize = 16;

/// The groups that began last.
fn latest(groups: &[usize]) -> impl Iterator<Item = usize> {
    groups.iter().rev().take(MOST_AT_ONCE).copied()
}

/// The groups that began at about the time of this span; expects them in the order of their starts.
fn around<'g>(tree: &Tree<'_>, groups: &[Vec<usize>], among: &'g [usize], place: usize) -> &'g [usize] {
    let start = tree.nodes[place].span.start;
    let middle = among.partition_point(|group| tree.nodes[groups[*group][0]].span.start <= start);
    &among[middle.saturating_sub(MOST_AT_ONCE)..among.len().min(middle + MOST_AT_ONCE)]
}

/// The group whose call this span may be another view of; of several, the one that began at the nearest time.
fn best(
    tree: &Tree<'_>,
    groups: &[Vec<usize>],
    among: impl Iterator<Item = usize>,
    place: usize,
    alike: impl Fn(&Node<'_>, &Node<'_>) -> bool,
) -> Option<usize> {
    let node = &tree.nodes[place];
    let may_join = |group: &usize| {
        let members = || groups[*group].iter().map(|member| &tree.nodes[*member]);
        groups[*group].len() < MOST_VIEWS
            && members().all(|member| member.origin.scope != node.origin.scope)
            && members().any(|member| overlap(member.span, node.span) && alike(member, node))
    };
    let distance = |group: &usize| node.span.start.0.abs_diff(tree.nodes[groups[*group][0]].span.start.0);
    among.filter(may_join).min_by_key(distance)
}

fn overlap(a: &Span, b: &Span) -> bool {
    a.start <= b.end && b.start <= a.end
}

fn alike(a: &Node<'_>, b: &Node<'_>) -> bool {
    let counts = |node: &Node<'_>| (has_tokens(&node.span.facts), tokens(&node.span.facts));
    a.span.failed == b.span.failed && counts(a) == counts(b) && same_model(&a.span.facts, &b.span.facts)
}

/// A span that names no model does not contradict.
fn same_model(a: &Facts, b: &Facts) -> bool {
    let unnamed = models(a).next().is_none() || models(b).next().is_none();
    unnamed || models(a).any(|model| models(b).any(|other| model == other))
}

fn models(facts: &Facts) -> impl Iterator<Item = &str> {
    [facts.text(Field::ResponseModel), facts.text(Field::RequestModel)].into_iter().flatten()
}

fn sighting(tree: &Tree<'_>, group: Vec<usize>) -> Sighting {
    let rank = |place: &usize| {
        let node = &tree.nodes[*place];
        let far = &*node.origin.scope != NEAREST_THE_WIRE;
        (!has_tokens(&node.span.facts), far, node.span.start, node.span.id)
    };
    let mut places = group;
    places.sort_unstable_by_key(rank);
    let others = places.split_off(1);
    Sighting { numbers: places[0], others }
}

/// The token counts with `input` including the cached part and `output` the reasoning part, whatever the dialect left out.
pub(super) fn tokens(facts: &Facts) -> Tokens {
    let count = |field| facts.number(field).unwrap_or(0);
    let (cached_input, cache_write) = (count(Field::CachedInputTokens), count(Field::CacheWriteTokens));
    let (mut input, mut output) = (count(Field::InputTokens), count(Field::OutputTokens));
    let reasoning = count(Field::ReasoningTokens);
    // A part greater than the whole proves that the whole was given without it.
    if facts.has(Field::InputWithoutCache) || cached_input.saturating_add(cache_write) > input {
        input = input.saturating_add(cached_input).saturating_add(cache_write);
    }
    if reasoning > output {
        output = output.saturating_add(reasoning);
    }
    Tokens { input, output, cached_input, cache_write, reasoning, ..Tokens::default() }
}

/// What a call used; a failed call without counts used nothing that anyone would charge.
pub(super) fn usage(span: &Span, streaming: bool) -> Usage {
    if span.facts.has(Field::ImplausibleTokens) {
        Usage::Unknown(UnknownUsage::Implausible)
    } else if has_tokens(&span.facts) || span.failed {
        Usage::Reported(tokens(&span.facts))
    } else if streaming {
        Usage::Unknown(UnknownUsage::Stream)
    } else {
        Usage::Unknown(UnknownUsage::Missing)
    }
}

pub(super) fn streams(facts: &Facts) -> bool {
    facts.number(Field::Streaming) == Some(1) || facts.has(Field::TimeToFirstToken)
}

pub(super) fn time_to_first_token(facts: &Facts) -> Option<Duration> {
    facts.number(Field::TimeToFirstToken).map(Duration::from_nanos)
}
