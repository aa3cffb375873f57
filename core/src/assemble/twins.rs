//! Calls beside each other that are one call, seen by two instrumentations, or twice by one.

use std::collections::BTreeSet;

use rustc_hash::FxHashMap;

use super::resolve::Owner;
use super::same;
use super::tree::Tree;
use super::view::View;
use crate::domain::call::Tokens;
use crate::domain::ids::SpanId;
use crate::domain::span::Span;
use crate::domain::time::Timestamp;

/// How many calls are looked at for a twin, those that are nearest in time: more do not run at once in one request.
const MOST_AT_ONCE: usize = 64;
/// How many spans make one call at most: nobody runs more instrumentations than this.
const MOST_VIEWS: usize = 16;

/// Spans of one call, and why each of them is.
pub(super) struct Group<'t> {
    pub owner: Owner,
    /// In the order of their start, at first those that are nested.
    pub members: Vec<(usize, &'static str)>,
    /// The server whose request it is part of: no call is in two of them.
    server: Option<usize>,
    tokens: Option<Tokens>,
    id: Option<&'t str>,
    scopes: Vec<&'t str>,
    failed: bool,
}

impl<'t> Group<'t> {
    pub(super) fn of(tree: &Tree<'t>, views: &[View<'t>], owner: Owner, members: Vec<(usize, &'static str)>) -> Self {
        let of_members = || members.iter().map(|(place, _)| &views[*place]);
        let mut scopes: Vec<&str> = of_members().map(|view| view.scope).collect();
        scopes.sort_unstable();
        scopes.dedup();
        Self {
            owner,
            tokens: of_members().find_map(|view| view.tokens),
            id: of_members().find_map(|view| view.id),
            failed: of_members().all(|view| view.failed),
            scopes,
            server: members.first().and_then(|(place, _)| tree.nodes[*place].server),
            members,
        }
    }

    fn join(&mut self, other: Self, why: &'static str) {
        // A call waits for its request only if none of its spans has one.
        self.owner = self.owner.min(other.owner);
        self.members
            .extend(other.members.into_iter().map(|(place, own)| (place, if own.is_empty() { why } else { own })));
        self.tokens = self.tokens.or(other.tokens);
        self.id = self.id.or(other.id);
        self.failed &= other.failed;
        self.scopes.extend(other.scopes);
        self.scopes.sort_unstable();
        self.scopes.dedup();
    }

    fn counts(&self) -> Option<(u64, u64)> {
        self.tokens.map(|tokens| (tokens.input, tokens.output))
    }

    fn shares_scope(&self, other: &Self) -> bool {
        self.scopes.iter().any(|scope| other.scopes.contains(scope))
    }
}

/// Joins the groups that are one call. Expects them in the order of their start, and keeps it.
pub(super) fn join<'t>(tree: &Tree<'t>, views: &[View<'t>], groups: Vec<Group<'t>>) -> Vec<Group<'t>> {
    let twins = Twins { tree, views };
    let groups = twins.joined(groups, |group| group.id.map(Mark::Id), Twins::ids_alike);
    let groups = twins.joined(groups, |group| twins.instant(group), |_, a, b| instants_alike(a, b));
    let groups = twins.joined(groups, |group| group.counts().map(Mark::Counts), Twins::counts_alike);
    let groups = twins.with_logs(groups);
    twins.joined(groups, |_| Some(Mark::Nothing), Twins::one_has_no_counts)
}

/// What calls must have in common to be looked at together.
#[derive(PartialEq, Eq, Hash)]
enum Mark<'t> {
    Id(&'t str),
    /// Parent, start, end, model, tokens: no two calls begin and end in the same microsecond with the same counts.
    Instant(Option<SpanId>, Timestamp, Timestamp, Option<&'t str>, (u64, u64)),
    Counts((u64, u64)),
    Nothing,
}

/// The groups of one mark by the scopes that saw them, so that a flood of one scope costs no comparisons.
#[derive(Default)]
struct Open<'t>(Vec<(Vec<&'t str>, BTreeSet<usize>)>);

impl<'t> Open<'t> {
    /// The groups that may be one with this, some of each set of scopes.
    fn near<'o>(
        &'o self,
        group: &'o Group<'t>,
        any_scope: bool,
        latest_first: bool,
    ) -> impl Iterator<Item = usize> + 'o {
        let apart = move |scopes: &[&str]| any_scope || !scopes.iter().any(|scope| group.scopes.contains(scope));
        let sets = self.0.iter().take(MOST_AT_ONCE).filter(move |(scopes, _)| apart(scopes));
        sets.flat_map(move |(_, places)| {
            let (mut first, mut last) = (places.iter(), places.iter().rev());
            std::iter::from_fn(move || if latest_first { last.next() } else { first.next() }).take(MOST_AT_ONCE)
        })
        .copied()
    }

    fn add(&mut self, place: usize, group: &Group<'t>) {
        if group.members.len() >= MOST_VIEWS {
            return;
        }
        match self.0.iter_mut().find(|(scopes, _)| *scopes == group.scopes) {
            Some((_, places)) => drop(places.insert(place)),
            None => self.0.push((group.scopes.clone(), BTreeSet::from([place]))),
        }
    }

    fn remove(&mut self, place: usize, group: &Group<'t>) {
        if let Some(set) = self.0.iter().position(|(scopes, _)| *scopes == group.scopes) {
            self.0[set].1.remove(&place);
            if self.0[set].1.is_empty() {
                self.0.swap_remove(set);
            }
        }
    }
}

fn instants_alike(a: &Group<'_>, b: &Group<'_>) -> Option<&'static str> {
    (a.owner == b.owner).then_some("the same parent, start, end, model and tokens")
}

struct Twins<'w, 't> {
    tree: &'w Tree<'t>,
    views: &'w [View<'t>],
}

impl<'t> Twins<'_, 't> {
    /// Nothing for a span without length: those of one moment may be many.
    fn instant(&self, group: &Group<'t>) -> Option<Mark<'t>> {
        let place = group.members[0].0;
        let span = self.span(place);
        let (start, end) = (span.start.truncated(), span.end.truncated());
        let [given, asked] = self.views[place].models;
        (start < end).then_some(Mark::Instant(span.parent, start, end, given.or(asked), group.counts()?))
    }

    /// Joins each group to one before it, among those with the same mark, of which there is a reason that both are one: one to one, in
    /// the order of time.
    fn joined(
        &self,
        groups: Vec<Group<'t>>,
        mark: impl Fn(&Group<'t>) -> Option<Mark<'t>>,
        why: impl Fn(&Self, &Group<'t>, &Group<'t>) -> Option<&'static str>,
    ) -> Vec<Group<'t>> {
        let mut open: FxHashMap<(Option<usize>, Mark<'t>), Open<'t>> = FxHashMap::default();
        let mut joined: Vec<Group<'t>> = Vec::with_capacity(groups.len());
        for group in groups {
            let Some(mark) = mark(&group) else {
                joined.push(group);
                continue;
            };
            let latest_first = matches!(mark, Mark::Nothing);
            let any_scope = !matches!(mark, Mark::Counts(_) | Mark::Nothing);
            let open = open.entry((group.server, mark)).or_default();
            let found = open
                .near(&group, any_scope, latest_first)
                .filter_map(|place| why(self, &joined[place], &group).map(|why| (place, why)))
                .min_by_key(|(place, _)| if latest_first { usize::MAX - place } else { *place });
            let place = match found {
                Some((place, why)) => {
                    open.remove(place, &joined[place]);
                    joined[place].join(group, why);
                    place
                }
                None => {
                    joined.push(group);
                    joined.len() - 1
                }
            };
            open.add(place, &joined[place]);
        }
        joined
    }

    /// An id is certain. But there are servers that give one id to all their answers: those that one instrumentation saw one after the
    /// other, with other counts, are several.
    fn ids_alike(&self, a: &Group<'t>, b: &Group<'t>) -> Option<&'static str> {
        let other_counts = a.counts().zip(b.counts()).is_some_and(|(one, other)| one != other);
        let several = (other_counts && a.shares_scope(b) || self.one_is_repeated(a, b)) && !self.at_once(a, b);
        let two_requests = matches!((a.owner, b.owner), (Owner::Request(one), Owner::Request(other)) if one != other);
        (!several && !two_requests).then_some("the same id of the answer")
    }

    /// What speaks against it: another id or model, a scope that saw both, or that one is inside the other and was found to be a call
    /// of its own.
    fn may_be_one(&self, a: &Group<'t>, b: &Group<'t>) -> bool {
        let (one, other) = (&self.views[a.members[0].0], &self.views[b.members[0].0]);
        let other_ids = a.id.is_some() && b.id.is_some() && a.id != b.id;
        let is_missing = |group: &Group<'_>| matches!(group.owner, Owner::Missing(_));
        let one_request = a.owner == b.owner || is_missing(a) != is_missing(b);
        one_request
            && !other_ids
            && !a.shares_scope(b)
            && same::by_model(one, other).is_none()
            && !self.is_inside(a, b)
            && !self.is_inside(b, a)
    }

    fn is_inside(&self, inner: &Group<'t>, outer: &Group<'t>) -> bool {
        let above = |place: usize| self.tree.nodes[place].parent;
        let mut way = std::iter::successors(above(inner.members[0].0), |place| above(*place)).take(MOST_AT_ONCE);
        way.any(|place| outer.members.iter().any(|(member, _)| *member == place))
    }

    /// Twins need not run at the same time: some write their span when a lazy stream is read.
    fn counts_alike(&self, a: &Group<'t>, b: &Group<'t>) -> Option<&'static str> {
        let repeated = self.one_is_repeated(a, b) && !self.at_once(a, b);
        (!repeated && a.failed == b.failed && self.may_be_one(a, b))
            .then_some("another instrumentation's view: the same tokens and model")
    }

    fn one_has_no_counts(&self, a: &Group<'t>, b: &Group<'t>) -> Option<&'static str> {
        let both_told = a.tokens.is_some() && b.tokens.is_some();
        (!both_told && a.failed == b.failed && self.at_once(a, b) && self.may_be_one(a, b))
            .then_some("another instrumentation's view: the same model at the same time, and no other numbers")
    }

    /// Whether one of both repeats an answer, with the id and the counts of another call.
    fn one_is_repeated(&self, a: &Group<'t>, b: &Group<'t>) -> bool {
        a.members.iter().chain(&b.members).any(|(place, _)| self.views[*place].from_cache)
    }

    fn at_once(&self, a: &Group<'t>, b: &Group<'t>) -> bool {
        same::one_holds_the_other(self.span(a.members[0].0), self.span(b.members[0].0))
    }

    /// A log that was written of a call, by the same scope below the same parent, belongs to the last one before it that has no numbers
    /// of its own.
    fn with_logs(&self, groups: Vec<Group<'t>>) -> Vec<Group<'t>> {
        let is_log = |group: &Group<'t>| self.views[group.members[0].0].log;
        let mut waiting: FxHashMap<(Owner, Option<SpanId>, &str), Vec<usize>> = FxHashMap::default();
        let mut joined: Vec<Group<'t>> = Vec::with_capacity(groups.len());
        for group in groups {
            let place = group.members[0].0;
            let key = (group.owner, self.span(place).parent, self.views[place].scope);
            let near = waiting.entry(key).or_default();
            let may_be =
                |other: &usize| same::by_model(&self.views[joined[*other].members[0].0], &self.views[place]).is_none();
            let found = if is_log(&group) { near.iter().rposition(may_be) } else { None };
            match found {
                Some(found) => {
                    let other = near.remove(found);
                    joined[other].join(group, "a log of this call");
                }
                None => {
                    if !is_log(&group) && group.tokens.is_none() {
                        near.push(joined.len());
                    }
                    joined.push(group);
                }
            }
        }
        joined
    }

    fn span(&self, place: usize) -> &'t Span {
        self.tree.nodes[place].span
    }
}
