//! Calls inside of calls: what an outer span is, seen together with those below it. An outer span may be a view of the same call, a
//! call of its own, or the sum of the calls below.

use super::same::{self, Verdict};
use super::tree::Tree;
use super::view::{Role, View};
use crate::domain::call::Tokens;
use crate::domain::span::Kind;

/// What was decided about a span that may be a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Decision {
    Call,
    /// It stands for the calls below it.
    Aggregate(&'static str),
    /// It is another view of the call of this span, which is above it.
    Within(usize, &'static str),
}

/// The spans that may be calls, as a forest of their own.
struct Forest {
    /// For each span, the nearest candidate above it.
    above: Vec<Option<usize>>,
    /// Whether an agent, a tool or other work lies between it and that candidate.
    apart: Vec<bool>,
}

/// Candidates that lie directly below another, or below aggregates below it.
#[derive(Clone, Default)]
struct Below {
    /// Those that were decided to be calls.
    calls: Vec<usize>,
    with_tokens: usize,
}

/// What each span that may be a call is; `None` for the others.
pub(super) fn decide(tree: &Tree<'_>, views: &[View<'_>]) -> Vec<Option<Decision>> {
    let forest = forest(tree, views);
    let mut decisions: Vec<Option<Decision>> = vec![None; views.len()];
    let mut below: Vec<Below> = vec![Below::default(); views.len()];
    // Tokens of a call, where those are told by a span below its own.
    let mut tokens: Vec<_> = views.iter().map(|view| view.tokens).collect();
    for place in tree.downwards.iter().rev().copied() {
        if !views[place].is_candidate() {
            continue;
        }
        let mine = std::mem::take(&mut below[place]);
        let decision = if mine.calls.is_empty() {
            Decision::Call
        } else {
            let mut outer =
                Outer { tree, views, forest: &forest, place, tokens: &mut tokens, decisions: &mut decisions };
            outer.decide(&mine)
        };
        decisions[place] = Some(decision);
        if let Some(above) = forest.above[place] {
            let sum = &mut below[above];
            if matches!(decision, Decision::Aggregate(_)) {
                sum.with_tokens += mine.with_tokens;
                append(&mut sum.calls, mine.calls);
            } else {
                sum.with_tokens += usize::from(tokens[place].is_some());
                sum.calls.push(place);
            }
        }
    }
    decisions
}

/// The shorter list is moved, so that a chain of aggregates costs no more than its calls.
fn append(to: &mut Vec<usize>, mut from: Vec<usize>) {
    if to.len() < from.len() {
        std::mem::swap(to, &mut from);
    }
    to.append(&mut from);
}

fn forest(tree: &Tree<'_>, views: &[View<'_>]) -> Forest {
    let mut forest = Forest { above: vec![None; views.len()], apart: vec![false; views.len()] };
    for place in tree.downwards.iter().copied() {
        let Some(parent) = tree.nodes[place].parent else { continue };
        if views[parent].is_candidate() {
            forest.above[place] = Some(parent);
            forest.apart[place] = views[parent].role == Role::Aggregate;
        } else {
            forest.above[place] = forest.above[parent];
            let work = matches!(views[parent].role, Role::OtherWork | Role::Aggregate);
            forest.apart[place] = forest.apart[parent] || work;
        }
    }
    forest
}

const UNLISTED: &str = "calls are below it, and its operation is none that is known to call a model";

/// Nothing speaks for it or against it.
const SILENT: Verdict = Verdict::Same("it lies inside that call, and tells nothing else");

/// A candidate with calls below it.
struct Outer<'o, 't> {
    tree: &'o Tree<'t>,
    views: &'o [View<'t>],
    forest: &'o Forest,
    place: usize,
    tokens: &'o mut Vec<Option<Tokens>>,
    decisions: &'o mut Vec<Option<Decision>>,
}

impl Outer<'_, '_> {
    fn decide(&mut self, below: &Below) -> Decision {
        let is_server = self.tree.nodes[self.place].span.kind == Kind::Server;
        let role = self.views[self.place].role;
        if role == Role::Aggregate {
            return if below.with_tokens > 0 {
                Decision::Aggregate("its numbers repeat those of the calls below it")
            } else {
                Decision::Call
            };
        }
        let unlisted = role == Role::Unlisted && !is_server;
        if unlisted && below.calls.len() > 1 {
            let alone = self.tokens[self.place].is_some() && below.with_tokens == 0;
            return if alone { Decision::Call } else { Decision::Aggregate(UNLISTED) };
        }
        let apart = self.take_views(below);
        if !is_server && self.is_sum_of(&apart) {
            Decision::Aggregate("its numbers are the sum of the calls below it")
        } else if unlisted && apart.len() == below.calls.len() {
            Decision::Aggregate(UNLISTED)
        } else {
            Decision::Call
        }
    }

    /// Marks the calls below that are views of this one; the others are handed back. Of one scope only one is a view, but all attempts
    /// that failed are.
    fn take_views(&mut self, below: &Below) -> Vec<usize> {
        let mut calls = below.calls.clone();
        calls.sort_unstable_by_key(|place| self.tree.order(*place));
        // Those that say the same as this one go before those that say nothing.
        calls.sort_by_key(|place| self.verdict(*place) == Some(SILENT));
        let (mut scopes, mut apart) = (Vec::new(), Vec::new());
        for place in calls {
            let inner = &self.views[place];
            let attempt = inner.failed && self.tokens[place].is_none();
            match self.verdict(place) {
                Some(Verdict::Same(why)) if attempt || !scopes.contains(&inner.scope) => {
                    if !attempt {
                        scopes.push(inner.scope);
                    }
                    self.decisions[place] = Some(Decision::Within(self.place, why));
                    self.tokens[self.place] = self.tokens[self.place].or(self.tokens[place]);
                }
                _ => apart.push(place),
            }
        }
        apart
    }

    fn verdict(&self, place: usize) -> Option<Verdict> {
        let (mut outer, mut inner) = (self.views[self.place].clone(), self.views[place].clone());
        (outer.tokens, inner.tokens) = (self.tokens[self.place], self.tokens[place]);
        if self.forest.apart[place] || !self.is_directly_below(place) {
            return None;
        }
        same::by_id(&outer, &inner)
            .or_else(|| same::by_model(&outer, &inner))
            .or_else(|| same::by_tokens(&outer, &inner))
            .or(Some(SILENT))
    }

    fn is_directly_below(&self, place: usize) -> bool {
        self.forest.above[place] == Some(self.place)
    }

    fn is_sum_of(&self, calls: &[usize]) -> bool {
        let counted = calls.iter().filter_map(|place| self.tokens[*place]);
        let sum = counted.clone().fold((0_u64, 0_u64), |(input, output), tokens| {
            (input.saturating_add(tokens.input), output.saturating_add(tokens.output))
        });
        counted.count() > 1 && self.views[self.place].tokens.is_some_and(|own| (own.input, own.output) == sum)
    }
}
