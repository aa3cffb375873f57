//! The spans of a trace as a forest. Parents that never came, cycles and spans that are their own parent end in roots of their
//! own; every walk takes linear time and no recursion.

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
    /// Its parent, where that is not here.
    pub missing_parent: Option<SpanId>,
    /// The outermost HTTP server span above it, itself included.
    pub server: Option<usize>,
    /// The topmost span above it, itself included.
    pub top: usize,
    /// How many spans are above it.
    pub depth: usize,
}

impl Node<'_> {
    fn is_http_server(&self) -> bool {
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
            node.missing_parent = node.span.parent.filter(|_| parent.is_none());
        }
        let downwards = link(&mut nodes, &parents);
        for place in &downwards {
            inherit(&mut nodes, *place);
        }
        Self { nodes, downwards }
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
    let node = &mut nodes[place];
    let own = node.is_http_server().then_some(place);
    let (server, top, depth) = above.unwrap_or((None, place, 0));
    node.server = server.or(own);
    (node.top, node.depth) = (top, depth);
}
