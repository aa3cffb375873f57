//! The pure heart: all spans of a trace in, its requests with their calls out. The order in which the spans came changes nothing.

use std::collections::BTreeMap;
use std::time::Duration;

use super::AssembleConfig;
use super::calls::{self, Found, Sighting};
use super::records::About;
use super::tree::Tree;
use crate::dialect;
use crate::domain::call::Key;
use crate::domain::facts::Field;
use crate::domain::ids::{SpanId, TraceId};
use crate::domain::pattern::Pattern;
use crate::domain::record::{Record, Request};
use crate::domain::time::Timestamp;
use crate::domain::trace::{Trace, Waits};

/// What a trace comes to, as far as its spans are known.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Resolution {
    /// By key.
    pub requests: Vec<Request>,
    /// Each parent that has not come and has calls below it, whether or not these have a record by now.
    pub waits: Waits,
    /// When to look again without a new span: a wait ends.
    pub due: Option<Timestamp>,
}

/// What is known of a trace beside its spans, and when it is looked at.
#[derive(Clone, Copy, Debug)]
pub struct Look<'k> {
    /// The keys of the records that it has: where a key could be one of several, it stays what it was.
    pub stored: &'k [Key],
    pub waits: &'k Waits,
    /// When the first span of the trace came.
    pub first_seen: Timestamp,
    /// When the first span came that no look has seen yet: a parent that is missed for the first time is missed since then.
    pub came: Timestamp,
    pub now: Timestamp,
}

/// The rules of the operator that decide what becomes a record.
pub struct Resolver {
    ignore: Vec<Pattern>,
    max_age: Duration,
}

/// What a call belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Owner {
    /// The place of the request's span.
    Request(usize),
    /// The parent at the top of these spans, which has not come.
    Missing(SpanId),
}

impl Resolver {
    pub fn new(config: &AssembleConfig) -> Self {
        let ignore = config.ignore.iter().map(|pattern| Pattern::new(pattern)).collect();
        Self { ignore, max_age: config.max_age }
    }

    /// Expects a trace in canonical form.
    pub fn resolve(&self, trace_id: TraceId, trace: &Trace, look: Look<'_>) -> Resolution {
        let tree = Tree::of(trace);
        self.resolved(&tree, calls::find(&tree), trace_id, look)
    }

    pub(super) fn resolved(&self, tree: &Tree<'_>, found: Found, trace_id: TraceId, look: Look<'_>) -> Resolution {
        let (members, users) = (members(tree), nearest_users(tree));
        let stored = look.stored.iter().map(|key| (key.span_id, *key)).collect();
        let hosts = calls::hosts(tree, &found.sightings);
        let about = About { trace_id, stored, members, users, hosts, tree };
        let mut owners: BTreeMap<Owner, Vec<Sighting>> = BTreeMap::new();
        for (place, node) in tree.nodes.iter().enumerate() {
            if node.server == Some(place) && node.is_http_server() {
                owners.insert(Owner::Request(place), Vec::new());
            }
        }
        for sighting in found.sightings {
            owners.entry(sighting.owner).or_default().push(sighting);
        }
        let nothing_yet = owners.is_empty().then_some(look.first_seen);
        let mut waits = Waits::new();
        owners.retain(|owner, _| match owner {
            Owner::Request(_) => true,
            Owner::Missing(parent) => {
                let since = look.waits.get(parent).copied().unwrap_or(look.came);
                waits.insert(*parent, since);
                // What has a record keeps it, also by a clock that is behind the one by which it was written.
                since.plus(self.max_age) <= look.now || about.stored.contains_key(parent)
            }
        });
        let ends = waits.values().copied().chain(nothing_yet).map(|since| since.plus(self.max_age));
        let due = ends.filter(|end| *end > look.now).min();
        let requests = owners.into_iter().flat_map(|(owner, sightings)| about.requests(owner, sightings));
        let mut requests: Vec<Request> = requests.filter(|request| !self.ignores(request)).collect();
        requests.sort_unstable_by_key(|request| request.record.key);
        Resolution { requests, waits, due }
    }

    /// A request that called a model is money, and stays.
    fn ignores(&self, request: &Request) -> bool {
        let Record { method: Some(method), endpoint: Some(endpoint), .. } = &request.record else { return false };
        request.calls.is_empty() && self.ignore.iter().any(|pattern| pattern.matches(&format!("{method} {endpoint}")))
    }
}

/// Above a span whose parents are a ring nothing will come either.
pub(super) fn owner(tree: &Tree<'_>, place: usize) -> Owner {
    let node = &tree.nodes[place];
    match (node.server, tree.nodes[node.top].missing_parent) {
        (Some(server), _) => Owner::Request(server),
        (None, None) => Owner::Request(node.top),
        (None, Some(parent)) => Owner::Missing(parent),
    }
}

/// The spans of each owner, the earliest first: a user or tenant that the request's own span lacks is looked for in that order.
fn members(tree: &Tree<'_>) -> BTreeMap<Owner, Vec<usize>> {
    let mut members: BTreeMap<Owner, Vec<usize>> = BTreeMap::new();
    for place in 0..tree.nodes.len() {
        members.entry(owner(tree, place)).or_default().push(place);
    }
    for places in members.values_mut() {
        places.sort_unstable_by_key(|place| tree.order(*place));
    }
    members
}

/// For each span, the nearest one that names a user: itself, or one above it in the same request.
fn nearest_users(tree: &Tree<'_>) -> Vec<Option<usize>> {
    let mut nearest = vec![None; tree.nodes.len()];
    for place in tree.downwards.iter().copied() {
        let node = &tree.nodes[place];
        let parent = node.parent.filter(|parent| owner(tree, *parent) == owner(tree, place));
        let names = node.span.facts.has(Field::User) && !dialect::names_installations(&node.origin.scope);
        nearest[place] = if names { Some(place) } else { parent.and_then(|parent| nearest[parent]) };
    }
    nearest
}
