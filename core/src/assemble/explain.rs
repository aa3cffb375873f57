//! What each span of a trace was taken for, and why: told by the code that makes the records.

use std::collections::BTreeMap;

use super::calls::{self, Found, Taken};
use super::resolve::{self, Look, Owner, Resolution, Resolver};
use super::tree::{Node, Tree};
use crate::dialect;

use crate::domain::facts::Field;
use crate::domain::ids::{SpanId, TraceId};
use crate::domain::span::Kind;
use crate::domain::time::Timestamp;
use crate::domain::trace::Trace;

/// A trace explained: its spans, parents before children, and what they come to.
#[derive(Debug)]
pub struct Explanation {
    pub spans: Vec<Explained>,
    pub resolution: Resolution,
}

/// One span and what it was taken for.
#[derive(Debug)]
pub struct Explained {
    pub span_id: SpanId,
    /// As the span says it, whether or not that came.
    pub parent: Option<SpanId>,
    /// How many spans of the trace are above it.
    pub depth: usize,
    /// Of those spans of which names are kept: the ones that may be a request or tell of a model.
    pub name: Option<Box<str>>,
    pub kind: Kind,
    pub scope: Box<str>,
    pub service: Option<Box<str>>,
    pub start: Timestamp,
    pub end: Timestamp,
    pub failed: bool,
    pub taken_for: TakenFor,
    /// The call that a twin is another view of; the span whose request a call is part of.
    pub of: Option<SpanId>,
    pub why: String,
    /// The attributes that its numbers came from.
    pub keys: Vec<&'static str>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TakenFor {
    Request,
    Call,
    Aggregate,
    Twin,
    NoCall,
    Ignored,
}

impl TakenFor {
    pub fn label(self) -> &'static str {
        match self {
            Self::Request => "request",
            Self::Call => "call",
            Self::Aggregate => "aggregate",
            Self::Twin => "twin",
            Self::NoCall => "no_call",
            Self::Ignored => "ignored",
        }
    }
}

impl Resolver {
    /// As `resolve`, and tells of each span what it was taken for. Expects a trace in canonical form.
    pub fn explain(&self, trace_id: TraceId, trace: &Trace, look: Look<'_>) -> Explanation {
        let tree = Tree::of(trace);
        let found = calls::find(&tree);
        let about = Explaining::of(&tree, &found);
        let spans = tree.walk().map(|place| about.span(place)).collect();
        Explanation { spans, resolution: self.resolved(&tree, found, trace_id, look) }
    }
}

struct Explaining<'e, 't> {
    tree: &'e Tree<'t>,
    taken: Vec<Taken>,
    /// The owner of each call, by the span that gives its numbers.
    owners: BTreeMap<usize, Owner>,
}

impl<'e, 't> Explaining<'e, 't> {
    fn of(tree: &'e Tree<'t>, found: &Found) -> Self {
        let owners = found.sightings.iter().map(|sighting| (sighting.numbers, sighting.owner)).collect();
        Self { tree, taken: found.taken.clone(), owners }
    }

    fn span(&self, place: usize) -> Explained {
        let node = &self.tree.nodes[place];
        let facts = &node.span.facts;
        let (taken_for, of, why) = self.verdict(place, node);
        let keys = [(Field::InputTokens, Field::InputKey), (Field::OutputTokens, Field::OutputKey)];
        let keys = keys.into_iter().filter_map(|(field, mark)| dialect::key_of(field, facts.number(mark)?));
        Explained {
            span_id: node.span.id,
            parent: node.span.parent,
            depth: node.depth,
            name: facts.text(Field::Name).map(Box::from),
            kind: node.span.kind,
            scope: node.origin.scope.clone(),
            service: node.origin.service.clone(),
            start: node.span.start,
            end: node.span.end,
            failed: node.span.failed,
            taken_for,
            of,
            why,
            keys: keys.collect(),
        }
    }

    fn verdict(&self, place: usize, node: &Node<'t>) -> (TakenFor, Option<SpanId>, String) {
        let id = |place: usize| self.tree.nodes[place].span.id;
        let request = self.is_request(place, node);
        let (taken_for, of, why) = match &self.taken[place] {
            Taken::Call => {
                let owner = self.owners.get(&place).map(|owner| match owner {
                    Owner::Request(request) => id(*request),
                    Owner::Missing(parent) => *parent,
                });
                (TakenFor::Call, owner, call_reason(node))
            }
            Taken::Twin(of, why) => (TakenFor::Twin, Some(id(*of)), (*why).to_owned()),
            Taken::Aggregate(why) => (TakenFor::Aggregate, None, (*why).to_owned()),
            Taken::NoCall(why) => (TakenFor::NoCall, None, (*why).to_owned()),
            Taken::Nothing => (TakenFor::Ignored, None, "it tells neither of a request nor of a model".to_owned()),
        };
        match request {
            Some(why_request) if taken_for == TakenFor::Ignored => (TakenFor::Request, None, why_request.to_owned()),
            Some(why_request) => {
                let of = of.filter(|of| *of != node.span.id);
                (TakenFor::Request, of, format!("{why_request}; it is a {} too: {why}", taken_for.label()))
            }
            None => (taken_for, of, why),
        }
    }

    fn is_request(&self, place: usize, node: &Node<'t>) -> Option<&'static str> {
        if node.server == Some(place) {
            let above = node.parent.is_some_and(|parent| self.tree.nodes[parent].server.is_some());
            return (node.is_http_server() || self.owns_calls(place)).then_some(if above {
                "a server's span that starts after the server above it has ended"
            } else {
                "the outermost span of an HTTP server"
            });
        }
        let top = resolve::owner(self.tree, place) == Owner::Request(place) && self.owns_calls(place);
        top.then_some("the topmost span with calls below it, as no HTTP server is above them")
    }

    fn owns_calls(&self, place: usize) -> bool {
        self.owners.values().any(|owner| *owner == Owner::Request(place))
    }
}

fn call_reason(node: &Node<'_>) -> String {
    let facts = &node.span.facts;
    if facts.text(Field::Name).is_some_and(|name| dialect::is_call_by_name(&node.origin.scope, name.as_bytes())) {
        return "its name says that it calls a model".to_owned();
    }
    match facts.text(Field::Operation) {
        Some(operation) => format!("its operation is {operation}"),
        None if facts.has(Field::InputTokens) || facts.has(Field::OutputTokens) => "it tells tokens".to_owned(),
        None => "it names a model".to_owned(),
    }
}
