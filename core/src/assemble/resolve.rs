//! The pure heart: all spans of a trace in, its requests with their calls out. The order in which the spans came changes nothing.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::AssembleConfig;
use super::calls::{self, Sighting};
use super::endpoint::{agent_in_path, endpoint};
use super::tree::{Node, Tree};
use crate::domain::call::{Call, Cost, Key};
use crate::domain::facts::Field;
use crate::domain::ids::TraceId;
use crate::domain::money::NanoUsd;
use crate::domain::pattern::Pattern;
use crate::domain::record::{Record, Request, Totals};
use crate::domain::trace::Trace;

/// What a trace comes to, as far as its spans are known.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Resolution {
    /// By key.
    pub requests: Vec<Request>,
    /// There are calls whose request has not come, or nothing yet that leaves a record.
    pub waiting: bool,
}

/// The rules of the operator that decide what becomes a record.
pub struct Resolver {
    ignore: Vec<Pattern>,
}

/// Tenant of whom no span says otherwise.
const DEFAULT_TENANT: &str = "default";

/// What OpenTelemetry calls an error of which no class is known.
const UNKNOWN_ERROR: &str = "_OTHER";

/// What a call belongs to.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Owner {
    /// The place of the request's span.
    Request(usize),
    /// The parents of these calls have not come.
    Unknown,
}

impl Resolver {
    pub fn new(config: &AssembleConfig) -> Self {
        Self { ignore: config.ignore.iter().map(|pattern| Pattern::new(pattern)).collect() }
    }

    /// `last_word`: calls without a request wait no longer and get a record of their own. Expects a trace in canonical form.
    pub fn resolve(&self, trace_id: TraceId, trace: &Trace, last_word: bool) -> Resolution {
        let tree = Tree::of(trace);
        let mut owners: BTreeMap<Owner, Vec<Sighting>> = BTreeMap::new();
        for place in 0..tree.nodes.len() {
            if tree.nodes[place].server == Some(place) {
                owners.insert(Owner::Request(place), Vec::new());
            }
        }
        for sighting in calls::find(&tree) {
            owners.entry(owner_of_call(&tree, &sighting)).or_default().push(sighting);
        }
        let orphans = owners.contains_key(&Owner::Unknown);
        let nothing_yet = owners.is_empty();
        if !last_word {
            owners.remove(&Owner::Unknown);
        }
        let about = About { trace_id, tree: &tree, members: members(&tree) };
        let requests = owners.into_iter().map(|(owner, sightings)| about.request(owner, &sightings));
        let mut requests: Vec<Request> = requests.filter(|request| !self.ignores(request)).collect();
        requests.sort_unstable_by(|a, b| a.record.key.cmp(&b.record.key));
        Resolution { requests, waiting: !last_word && (orphans || nothing_yet) }
    }

    /// A request that called a model is money, and stays.
    fn ignores(&self, request: &Request) -> bool {
        let Record { method: Some(method), endpoint: Some(endpoint), .. } = &request.record else { return false };
        request.calls.is_empty() && self.ignore.iter().any(|pattern| pattern.matches(&format!("{method} {endpoint}")))
    }
}

fn owner(tree: &Tree<'_>, place: usize) -> Owner {
    let node = &tree.nodes[place];
    let root = Some(node.top).filter(|top| tree.nodes[*top].is_true_root());
    node.server.or(root).map_or(Owner::Unknown, Owner::Request)
}

/// A call waits for its request only if none of its spans has one.
fn owner_of_call(tree: &Tree<'_>, sighting: &Sighting) -> Owner {
    sighting.spans().map(|place| owner(tree, place)).min().unwrap_or(Owner::Unknown)
}

/// The spans of each owner, the earliest first: a user or tenant that the request's own span lacks is looked for in that order.
fn members(tree: &Tree<'_>) -> BTreeMap<Owner, Vec<usize>> {
    let mut members: BTreeMap<Owner, Vec<usize>> = BTreeMap::new();
    for place in 0..tree.nodes.len() {
        members.entry(owner(tree, place)).or_default().push(place);
    }
    for places in members.values_mut() {
        places.sort_unstable_by_key(|place| (tree.nodes[*place].span.start, tree.nodes[*place].span.id));
    }
    members
}

struct About<'t> {
    trace_id: TraceId,
    tree: &'t Tree<'t>,
    members: BTreeMap<Owner, Vec<usize>>,
}

impl<'t> About<'t> {
    fn request(&self, owner: Owner, sightings: &[Sighting]) -> Request {
        let record = match owner {
            Owner::Request(place) => self.attributed(place),
            Owner::Unknown => self.unattributed(sightings),
        };
        let span_id = match owner {
            Owner::Request(place) => Some(self.tree.nodes[place].span.id),
            Owner::Unknown => None,
        };
        let mut calls: Vec<Call> = sightings
            .iter()
            .map(|sighting| Call { request: span_id, ..self.call(sighting, &record.key.tenant) })
            .collect();
        calls.sort_unstable_by(|a, b| a.key.cmp(&b.key));
        Request { record: Record { totals: Totals::of(&calls), ..record }, calls }
    }

    fn attributed(&self, place: usize) -> Record {
        let node = &self.tree.nodes[place];
        let facts = &node.span.facts;
        let owner = Owner::Request(place);
        let http = node.server.is_some();
        let method = if http { facts.text(Field::HttpMethod).unwrap_or_default() } else { node.span.kind.label() };
        let endpoint = if http { endpoint(facts) } else { facts.text(Field::Name).map(Into::into) };
        let status = facts.number(Field::HttpStatus).filter(|_| http).and_then(|code| u16::try_from(code).ok());
        let status = status.or(node.span.failed.then_some(500));
        let path = facts.text(Field::HttpPath).unwrap_or_default();
        let in_path = || endpoint.as_deref().and_then(|template| agent_in_path(template, path)).map(Into::into);
        Record {
            key: self.key(node, self.tenant(owner, node)),
            service: node.origin.service.clone(),
            instance: node.origin.instance.clone(),
            user: self.first(owner, Field::User),
            agent: self.first(owner, Field::Agent).or_else(in_path),
            method: Some(method.into()),
            status,
            duration: node.span.end.since(node.span.start),
            error: error(node, status),
            endpoint,
            totals: Totals::default(),
        }
    }

    /// One record for all calls of a trace whose requests never came, under the key of the earliest.
    fn unattributed(&self, sightings: &[Sighting]) -> Record {
        let nodes = || sightings.iter().map(|sighting| &self.tree.nodes[sighting.numbers]);
        let earliest =
            nodes().min_by_key(|node| (node.span.start, node.span.id)).expect("an owner without a span has calls");
        let end = nodes().map(|node| node.span.end).max().unwrap_or(earliest.span.end);
        Record {
            key: self.key(earliest, self.tenant(Owner::Unknown, earliest)),
            service: earliest.origin.service.clone(),
            instance: earliest.origin.instance.clone(),
            user: self.first(Owner::Unknown, Field::User),
            agent: self.first(Owner::Unknown, Field::Agent),
            endpoint: None,
            method: None,
            status: None,
            duration: end.since(earliest.span.start),
            error: None,
            totals: Totals::default(),
        }
    }

    fn call(&self, sighting: &Sighting, tenant: &Arc<str>) -> Call {
        let node = &self.tree.nodes[sighting.numbers];
        let facts = |place: usize| &self.tree.nodes[place].span.facts;
        let name = |field| sighting.by_names().find_map(|place| facts(place).text(field)).map(Box::from);
        let streaming = sighting.spans().any(|place| calls::streams(facts(place)));
        let class = || sighting.spans().find_map(|place| facts(place).text(Field::ErrorType)).unwrap_or(UNKNOWN_ERROR);
        Call {
            key: self.key(node, Arc::clone(tenant)),
            request: None,
            provider: name(Field::Provider),
            request_model: name(Field::RequestModel),
            response_model: name(Field::ResponseModel),
            operation: name(Field::ModelOperation),
            usage: calls::usage(node.span, streaming),
            cost: Cost::Unknown,
            reported_cost: sighting.spans().find_map(|place| reported_cost(&self.tree.nodes[place])),
            service_tier: name(Field::ServiceTier),
            streaming,
            duration: node.span.end.since(node.span.start),
            time_to_first_token: sighting.spans().find_map(|place| calls::time_to_first_token(facts(place))),
            error_type: node.span.failed.then(|| class().into()),
            dialect: node.origin.scope.clone(),
        }
    }

    fn key(&self, node: &Node<'_>, tenant: Arc<str>) -> Key {
        Key { started_at: node.span.start.truncated(), trace_id: self.trace_id, span_id: node.span.id, tenant }
    }

    fn tenant(&self, owner: Owner, node: &Node<'_>) -> Arc<str> {
        let said = self.first(owner, Field::Tenant).or_else(|| node.origin.namespace.clone());
        said.map_or_else(|| DEFAULT_TENANT.into(), Into::into)
    }

    /// The request's own span first, then the others of the request from the earliest on.
    fn first(&self, owner: Owner, field: Field) -> Option<Box<str>> {
        let own = match owner {
            Owner::Request(place) => Some(place),
            Owner::Unknown => None,
        };
        let others = self.members.get(&owner).into_iter().flatten().copied();
        own.into_iter().chain(others).find_map(|place| self.tree.nodes[place].span.facts.text(field)).map(Into::into)
    }
}

fn reported_cost(node: &Node<'_>) -> Option<NanoUsd> {
    let nano = node.span.facts.number(Field::ReportedCost)?;
    i64::try_from(nano).ok().map(NanoUsd)
}

fn error(node: &Node<'_>, status: Option<u16>) -> Option<Box<str>> {
    let status = status.filter(|status| *status >= 400);
    if !node.span.failed && status.is_none() {
        return None;
    }
    let facts = &node.span.facts;
    let said = facts.text(Field::ErrorMessage).or_else(|| facts.text(Field::ErrorType));
    said.map(Into::into).or_else(|| status.map(|status| status.to_string().into())).or(Some(UNKNOWN_ERROR.into()))
}
