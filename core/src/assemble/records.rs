//! What the record of a request says, and whose it is: the request's own user's, and one for each other user it worked for.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::calls::{self, Sighting};
use super::endpoint::{agent_in_path, endpoint};
use super::resolve::Owner;
use super::tree::{Node, Tree};
use super::view;
use crate::dialect;
use crate::domain::call::{Call, Cost, Key};
use crate::domain::facts::Field;
use crate::domain::ids::{SpanId, TraceId};
use crate::domain::money::NanoUsd;
use crate::domain::record::{Record, Request, Totals};

/// Tenant of whom no span says otherwise.
const DEFAULT_TENANT: &str = "default";

/// Status of a request that failed and does not say how.
const FAILED: u16 = 500;

/// What OpenTelemetry calls an error of which no class is known.
const UNKNOWN_ERROR: &str = "_OTHER";

/// A trace and what is known of it, as records are made of it.
pub(super) struct About<'t> {
    pub(super) trace_id: TraceId,
    pub(super) tree: &'t Tree<'t>,
    pub(super) members: BTreeMap<Owner, Vec<usize>>,
    pub(super) users: Vec<Option<usize>>,
    /// Of each call, by the span that gives its numbers.
    pub(super) hosts: BTreeMap<usize, &'t str>,
    /// By span: no two records of a trace have the same.
    pub(super) stored: FxHashMap<SpanId, Key>,
}

impl<'t> About<'t> {
    /// The record of the request itself, and one for each other user for whom it worked.
    pub(super) fn requests(&self, owner: Owner, sightings: Vec<Sighting>) -> Vec<Request> {
        // Where nobody is named, the installation of a program stands for its user.
        let user = self.spans(owner).find_map(|place| self.users[place].is_some().then(|| self.user(place)).flatten());
        let user = user.map(Box::from).or_else(|| self.first(owner, Field::User, |_| true));
        let (mut own, mut of_others) = (Vec::new(), BTreeMap::<&str, Vec<(usize, Sighting)>>::new());
        for sighting in sightings {
            match self.user_of(owner, &sighting).filter(|(name, _)| Some(*name) != user.as_deref()) {
                Some((name, place)) => of_others.entry(name).or_default().push((place, sighting)),
                None => own.push(sighting),
            }
        }
        let record = match owner {
            Owner::Request(place) => self.attributed(owner, place, user),
            Owner::Missing(parent) => self.unattributed(owner, parent, user, &own, &of_others),
        };
        let others = of_others.into_values().map(|places_and_calls| {
            let (places, sightings): (Vec<usize>, Vec<Sighting>) = places_and_calls.into_iter().unzip();
            self.request(self.of_other_user(owner, &record, places), &sightings)
        });
        let others: Vec<Request> = others.collect();
        // A request is a record even where it called no model; a parent that never came is not.
        let own = (matches!(owner, Owner::Request(_)) || !own.is_empty()).then(|| self.request(record, &own));
        own.into_iter().chain(others).collect()
    }

    fn request(&self, record: Record, sightings: &[Sighting]) -> Request {
        let mut calls: Vec<Call> = sightings.iter().map(|sighting| self.call(sighting)).collect();
        calls.sort_unstable_by_key(|call| call.key);
        Request { record: Record { totals: Totals::of(&calls), ..record }, calls }
    }

    /// Whose call it is, and the span of this request that says so: the lowest one, where several spans of the call have one above
    /// them.
    fn user_of(&self, owner: Owner, sighting: &Sighting) -> Option<(&'t str, usize)> {
        let named = sighting.spans().filter_map(|place| self.users[place]);
        let named = named.filter(|place| super::resolve::owner(self.tree, *place) == owner);
        let place = named.max_by_key(|place| (self.tree.nodes[*place].depth, Reverse(self.tree.order(*place))))?;
        self.tree.nodes[place].span.facts.text(Field::User).map(|name| (name, place))
    }

    fn attributed(&self, owner: Owner, place: usize, user: Option<Box<str>>) -> Record {
        let node = &self.tree.nodes[place];
        let facts = &node.span.facts;
        let http = node.is_http_server();
        let method = if http { facts.text(Field::HttpMethod).unwrap_or_default() } else { node.span.kind.label() };
        let endpoint = if http { endpoint(facts) } else { facts.text(Field::Name).map(Into::into) };
        let status = facts.number(Field::HttpStatus).filter(|_| http).and_then(|code| u16::try_from(code).ok());
        let status = status.or(node.span.failed.then_some(FAILED));
        let path = facts.text(Field::HttpPath).unwrap_or_default();
        let in_path = || endpoint.as_deref().and_then(|template| agent_in_path(template, path)).map(Into::into);
        Record {
            key: self.key(node),
            tenant: self.tenant(owner, node, user.as_deref()),
            service: node.origin.service.clone(),
            instance: node.origin.instance.clone(),
            agent: self.of_own_user(owner, user.as_deref(), Field::Agent).or_else(in_path),
            session: session(|field| self.of_own_user(owner, user.as_deref(), field)),
            user,
            method: Some(method.into()),
            status,
            duration: node.span.end.since(node.span.start),
            error: error(node, status),
            endpoint,
            totals: Totals::default(),
        }
    }

    /// The record for the calls below a parent that never came, under the key of that parent. As nobody knows when it began, the
    /// first of its calls that was known when the record was first written says so, and later ones change it no more.
    fn unattributed(
        &self,
        owner: Owner,
        parent: SpanId,
        user: Option<Box<str>>,
        own: &[Sighting],
        of_others: &BTreeMap<&str, Vec<(usize, Sighting)>>,
    ) -> Record {
        let of_others = of_others.values().flatten().map(|(_, sighting)| sighting);
        let numbers = || own.iter().chain(of_others.clone()).map(|sighting| sighting.numbers);
        let earliest =
            numbers().min_by_key(|place| self.tree.order(*place)).expect("a missing parent has calls below it");
        let earliest = &self.tree.nodes[earliest];
        let end = numbers().map(|place| self.tree.nodes[place].span.end).max().unwrap_or(earliest.span.end);
        let stored = self.stored.get(&parent).copied();
        Record {
            key: stored.unwrap_or(Key { span_id: parent, ..self.key(earliest) }),
            tenant: self.tenant(owner, earliest, user.as_deref()),
            service: earliest.origin.service.clone(),
            instance: earliest.origin.instance.clone(),
            agent: self.of_own_user(owner, user.as_deref(), Field::Agent),
            session: session(|field| self.of_own_user(owner, user.as_deref(), field)),
            user,
            endpoint: None,
            method: None,
            status: None,
            duration: end.since(earliest.span.start),
            error: None,
            totals: Totals::default(),
        }
    }

    /// The record for work that a request did for another user than its own. Its key is that of the first span that names the user;
    /// where one of several is in use, it stays in use.
    fn of_other_user(&self, owner: Owner, whole: &Record, mut places: Vec<usize>) -> Record {
        places.sort_unstable_by_key(|place| self.tree.order(*place));
        let in_use = |place: &usize| {
            let key = self.key(&self.tree.nodes[*place]);
            self.stored.get(&key.span_id) == Some(&key)
        };
        let place = places.iter().copied().find(in_use).unwrap_or(places[0]);
        let node = &self.tree.nodes[place];
        let facts = &node.span.facts;
        let code = facts.number(Field::HttpStatus).and_then(|code| u16::try_from(code).ok());
        let status = node.span.failed.then(|| code.unwrap_or(FAILED));
        let user = facts.text(Field::User).unwrap_or_default();
        let tenant = self.of_user(owner, user, Field::Tenant);
        Record {
            key: self.key(node),
            tenant: tenant.map_or_else(|| Arc::clone(&whole.tenant), Into::into),
            service: node.origin.service.clone(),
            instance: node.origin.instance.clone(),
            agent: self.of_user(owner, user, Field::Agent).or_else(|| whole.agent.clone()),
            session: session(|field| self.of_user(owner, user, field)).or_else(|| whole.session.clone()),
            user: Some(user.into()),
            endpoint: whole.endpoint.clone(),
            method: whole.method.as_ref().map(|_| node.span.kind.label().into()),
            status,
            duration: node.span.end.since(node.span.start),
            error: error(node, status),
            totals: Totals::default(),
        }
    }

    fn call(&self, sighting: &Sighting) -> Call {
        let node = &self.tree.nodes[sighting.numbers];
        let facts = |place: usize| &self.tree.nodes[place].span.facts;
        let said = |field| sighting.by_names().find_map(|place| facts(place).text(field));
        // What was answered is known best nearest the wire.
        let answered = |field| sighting.spans().find_map(|place| facts(place).text(field)).map(Box::from);
        let any = |field| sighting.spans().any(|place| facts(place).number(field) == Some(1));
        let streaming = sighting.spans().any(|place| view::streams(facts(place)));
        let class = || sighting.spans().find_map(|place| facts(place).text(Field::ErrorType)).unwrap_or(UNKNOWN_ERROR);
        let providers = || sighting.by_names().filter_map(|place| facts(place).text(Field::Provider));
        let provider = providers().find(|name| !dialect::is_framework(name));
        let operations = sighting.by_names().filter_map(|place| facts(place).text(Field::Operation));
        Call {
            key: self.key(node),
            provider: provider.map(|name| dialect::provider_name(name).into()),
            request_model: said(Field::RequestModel).map(Box::from),
            response_model: answered(Field::ResponseModel),
            model: None,
            operation: operations.map(dialect::operation_name).next().map(Box::from),
            usage: calls::usage(self.tree, sighting),
            cost: Cost::Unknown,
            reported_cost: sighting.spans().find_map(|place| reported_cost(&self.tree.nodes[place])),
            service_tier: answered(Field::ServiceTier),
            host: self.hosts.get(&sighting.numbers).copied().map(Box::from),
            answered_from_cache: any(Field::AnsweredFromCache),
            streaming,
            duration: node.span.end.since(node.span.start),
            time_to_first_token: sighting.spans().find_map(|place| view::time_to_first_token(&self.tree.nodes[place])),
            error_type: node.span.failed.then(|| class().into()),
            dialect: node.origin.scope.clone(),
        }
    }

    fn key(&self, node: &Node<'_>) -> Key {
        Key { started_at: node.span.start.truncated(), trace_id: self.trace_id, span_id: node.span.id }
    }

    fn tenant(&self, owner: Owner, node: &Node<'_>, user: Option<&str>) -> Arc<str> {
        let said = self.of_own_user(owner, user, Field::Tenant).or_else(|| node.origin.namespace.clone());
        said.map_or_else(|| DEFAULT_TENANT.into(), Into::into)
    }

    /// What the spans of a request say, first its own span and then the others from the earliest on; of those that are to be asked.
    fn first(&self, owner: Owner, field: Field, asked: impl Fn(Option<&str>) -> bool) -> Option<Box<str>> {
        let mut places = self.spans(owner).filter(|place| asked(self.user(*place)));
        places.find_map(|place| self.tree.nodes[place].span.facts.text(field)).map(Into::into)
    }

    /// As `first`, of those spans that worked for the request's own user: they name this one, or none is named above them.
    fn of_own_user(&self, owner: Owner, user: Option<&str>, field: Field) -> Option<Box<str>> {
        self.first(owner, field, |named| named.is_none() || named == user)
    }

    /// As `first`, of those spans that worked for another user.
    fn of_user(&self, owner: Owner, user: &str, field: Field) -> Option<Box<str>> {
        self.first(owner, field, |named| named == Some(user))
    }

    /// The user named nearest above this span, or by it.
    fn user(&self, place: usize) -> Option<&'t str> {
        self.users[place].and_then(|named| self.tree.nodes[named].span.facts.text(Field::User))
    }

    fn spans(&self, owner: Owner) -> impl Iterator<Item = usize> {
        let own = match owner {
            Owner::Request(place) => Some(place),
            Owner::Missing(_) => None,
        };
        own.into_iter().chain(self.members.get(&owner).into_iter().flatten().copied())
    }
}

/// A session that any span names goes before every conversation, as frameworks make up conversations by themselves.
fn session(said: impl Fn(Field) -> Option<Box<str>>) -> Option<Box<str>> {
    said(Field::Session).or_else(|| said(Field::Conversation))
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
