//! The spans of a trace as a forest. Parents that never came, cycles and spans that are their own parent end in roots of their
//! own; every walk takes linear time and no recursion.

use std::cmp::Reverse;

use rustc_hash::FxHashMap;

use crate::domain::facts::Field;
use crate::domain::ids::SpanId;
use crate::domain::span::{Kind, Origin, Span};
use crate::domain::time::Timestamp;
use crate::domain::trace::Trace;

pub(super) struct Node<'t> {
    pub origin: &'t Origin,
    pub span: &'t Span,
    /// Its parent, where that is here and is not also below it.
    pub parent: Option<usize>,
    /// Its parent, where that is of this process and not here.
    pub missing_parent: Option<SpanId>,
    /// The server span whose request it is part of, itself included: the outermost one that has not ended before.
    pub server: Option<usize>,
    /// The topmost span above it, itself included.
    pub top: usize,
    /// How many spans are above it.
    pub depth: usize,
}

impl Node<'_> {
    pub(super) fn is_http_server(&self) -> bool {
        self.span.kind == Kind::Server && self.span.facts.has(Field::HttpMethod)
    }
}

pub(super) struct Tree<'t> {
    /// In the order of the trace, which is that of no arrival.
    pub nodes: Vec<Node<'t>>,
    /// All nodes, parents before children.
    pub downwards: Vec<usize>,
}

impl<'t> Tree<'t> {
    /// Expects the canonical form: each span id once.
    pub(super) fn of(trace: &'t Trace) -> Self {
        let mut nodes: Vec<Node<'t>> = Vec::new();
        for (top, (origin, span)) in trace.spans().enumerate() {
            nodes.push(Node { origin, span, parent: None, missing_parent: None, server: None, top, depth: 0 });
        }
        let places: FxHashMap<SpanId, usize> = nodes.iter().map(|node| (node.span.id, node.top)).collect();
        let parents: Vec<Option<usize>> =
            nodes.iter().map(|node| node.span.parent.and_then(|parent| places.get(&parent).copied())).collect();
        for (node, parent) in nodes.iter_mut().zip(&parents) {
            // A parent of another process may never come, and what is here is the top of what will.
            node.missing_parent = node.span.parent.filter(|_| parent.is_none() && !node.span.remote_parent);
        }
        let downwards = link(&mut nodes, &parents);
        for place in &downwards {
            inherit(&mut nodes, *place);
        }
        Self { nodes, downwards }
    }

    /// All nodes as a reader wants them: each before those below it, those beside each other in the order of time.
    pub(super) fn walk(&self) -> impl Iterator<Item = usize> + '_ {
        let mut below: Vec<Vec<usize>> = vec![Vec::new(); self.nodes.len()];
        let mut tops = Vec::new();
        for (place, node) in self.nodes.iter().enumerate() {
            node.parent.map_or(&mut tops, |parent| &mut below[parent]).push(place);
        }
        let later_first = |places: &mut Vec<usize>| places.sort_unstable_by_key(|place| Reverse(self.order(*place)));
        later_first(&mut tops);
        below.iter_mut().for_each(later_first);
        std::iter::from_fn(move || {
            let place = tops.pop()?;
            tops.append(&mut below[place]);
            Some(place)
        })
    }

    /// What spans are sorted by where the earliest is wanted.
    pub(super) fn order(&self, place: usize) -> (Timestamp, SpanId) {
        (self.nodes[place].span.start, self.nodes[place].span.id)
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Seen {
    No,
    OnTheWay,
    Placed,
}

/// Sets the parents that break no ring, and gives an order in which parents come first. Where a ring is entered decides where it
/// is cut; as nodes come in canonical order, that is the same for every order of arrival.
fn link(nodes: &mut [Node<'_>], parents: &[Option<usize>]) -> Vec<usize> {
    let mut order = Vec::with_capacity(nodes.len());
    let mut seen = vec![Seen::No; nodes.len()];
    let mut way = Vec::new();
    for start in 0..nodes.len() {
        let mut next = Some(start);
        while let Some(place) = next.filter(|place| seen[*place] == Seen::No) {
            seen[place] = Seen::OnTheWay;
            way.push(place);
            next = parents[place];
        }
        while let Some(place) = way.pop() {
            nodes[place].parent = parents[place].filter(|parent| seen[*parent] == Seen::Placed);
            seen[place] = Seen::Placed;
            order.push(place);
        }
    }
    order
}

fn inherit(nodes: &mut [Node<'_>], place: usize) {
    let above =
        nodes[place].parent.map(|parent| &nodes[parent]).map(|above| (above.server, above.top, above.depth + 1));
    let (server, top, depth) = above.unwrap_or((None, place, 0));
    let ended = server.is_some_and(|server| nodes[server].span.end < nodes[place].span.start);
    let node = &mut nodes[place];
    // A webhook, resumed work, a trace's id that somebody kept: what a server does after the one above it has ended is a request of
    // its own.
    let own = if ended { node.span.kind == Kind::Server } else { server.is_none() && node.is_http_server() };
    node.server = if own { Some(place) } else { server };
    (node.top, node.depth) = (top, depth);
}
