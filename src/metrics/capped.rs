//! A family with names that others choose among its labels: so many label sets get series, the rest are counted together. Each
//! series remembers the trace it last saw.

use std::sync::{Mutex, MutexGuard, PoisonError};

use prometheus::{Counter, Gauge, Histogram, IntCounter};
use rustc_hash::FxHashMap;

use super::catalogue::{Family, Kind, Values};
use super::labels::OTHER;
use tacho_core::domain::ids::TraceId;

/// An example of what a series counted. All traces that come were sampled: of others nothing is exported. It has no time of its own:
/// Prometheus takes none that is older than the last, so one bot whose clock is ahead would keep out all others.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Exemplar {
    pub trace: TraceId,
    pub value: f64,
}

pub(super) struct Capped<M> {
    family: &'static Family,
    /// Makes a series in the registry.
    series: Box<Series<M>>,
    /// The places of the labels, sorted by their names: so they stand in what is exposed.
    order: Vec<usize>,
    sets: Mutex<Sets<M>>,
    /// Counts what was folded.
    dropped: Option<IntCounter>,
}

pub(super) type Series<M> = dyn Fn(&[&str]) -> M + Send + Sync;

struct Sets<M> {
    known: FxHashMap<Box<str>, Set<M>>,
    /// Those that count against the bound.
    named: usize,
    /// Room for the key that is looked for.
    key: String,
}

struct Set<M> {
    metric: M,
    /// Of a histogram one a bucket.
    exemplars: Box<[Option<Exemplar>]>,
}

/// The exemplars of one series, by bucket.
pub(super) type Exemplars = Box<[Option<Exemplar>]>;

/// What exposition asks of a family.
pub(super) trait Exemplified: Send + Sync {
    fn name(&self) -> &'static str;
    /// By the values of the labels, sorted by the names of these and joined by `push_value`.
    fn exemplars(&self) -> FxHashMap<Box<str>, Exemplars>;
}

/// No value has a control character: such are junk.
pub(super) fn push_value(key: &mut String, value: &str) {
    key.push_str(value);
    key.push('\u{1f}');
}

impl<M> Capped<M> {
    pub(super) fn new(family: &'static Family, series: Box<Series<M>>, dropped: Option<IntCounter>) -> Self {
        let mut order: Vec<usize> = (0..family.labels.len()).collect();
        order.sort_by_key(|place| family.labels[*place].name);
        let sets = Sets { known: FxHashMap::default(), named: 0, key: String::new() };
        Self { family, series, order, sets: Mutex::new(sets), dropped }
    }

    fn lock(&self) -> MutexGuard<'_, Sets<M>> {
        self.sets.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The series of these values, in the order of the family's labels, or the one for the rest.
    fn with(&self, values: &[&str], count: impl FnOnce(&mut Set<M>)) {
        let mut sets = self.lock();
        let is_full = sets.named >= self.family.most && self.find(&mut sets, values).is_none();
        if let Some(dropped) = self.dropped.as_ref().filter(|_| is_full || values.contains(&OTHER)) {
            dropped.inc();
        }
        if is_full {
            let labels = values.iter().zip(self.family.labels);
            let folded: Vec<&str> = labels.map(|(value, label)| fold(label, value)).collect();
            count(self.make(&mut sets, &folded));
        } else {
            count(self.make(&mut sets, values));
        }
    }

    fn find<'s>(&self, sets: &'s mut Sets<M>, values: &[&str]) -> Option<&'s mut Set<M>> {
        sets.key.clear();
        for place in &self.order {
            push_value(&mut sets.key, values[*place]);
        }
        sets.known.get_mut(&*sets.key)
    }

    fn make<'s>(&self, sets: &'s mut Sets<M>, values: &[&str]) -> &'s mut Set<M> {
        if self.find(sets, values).is_none() {
            let slots = match self.family.kind {
                Kind::Histogram(bounds) => bounds.len() + 1,
                _ => 1,
            };
            let set = Set { metric: (self.series)(values), exemplars: vec![None; slots].into() };
            let mut names =
                values.iter().zip(self.family.labels).filter(|(_, label)| matches!(label.values, Values::Names));
            sets.named += usize::from(names.any(|(value, _)| *value != OTHER));
            sets.known.insert(sets.key.as_str().into(), set);
        }
        sets.known.get_mut(&*sets.key).expect("it was found or made")
    }
}

fn fold<'v>(label: &super::catalogue::Label, value: &'v str) -> &'v str {
    if matches!(label.values, Values::Names) { OTHER } else { value }
}

impl<M> Set<M> {
    fn show(&mut self, slot: usize, trace: TraceId, value: f64) {
        self.exemplars[slot] = Some(Exemplar { trace, value });
    }
}

impl Capped<IntCounter> {
    pub(super) fn add(&self, values: &[&str], by: u64) {
        self.with(values, |set| set.metric.inc_by(by));
    }

    #[expect(clippy::cast_precision_loss, reason = "an example, not a count")]
    pub(super) fn add_from(&self, values: &[&str], by: u64, trace: TraceId) {
        self.with(values, |set| {
            set.metric.inc_by(by);
            if by > 0 {
                set.show(0, trace, by as f64);
            }
        });
    }
}

impl Capped<Counter> {
    /// Nothing below zero: a counter never falls.
    pub(super) fn add_from(&self, values: &[&str], by: f64, trace: TraceId) {
        self.with(values, |set| {
            set.metric.inc_by(by.max(0.0));
            if by > 0.0 {
                set.show(0, trace, by);
            }
        });
    }
}

impl Capped<Histogram> {
    pub(super) fn observe(&self, values: &[&str], seconds: f64, trace: TraceId) {
        let Kind::Histogram(bounds) = self.family.kind else { return };
        self.with(values, |set| {
            set.metric.observe(seconds);
            set.show(bounds.partition_point(|bound| *bound < seconds), trace, seconds);
        });
    }
}

impl Capped<Gauge> {
    pub(super) fn set(&self, values: &[&str], value: f64) {
        self.with(values, |set| set.metric.set(value));
    }
}

impl<M: Send + Sync> Exemplified for Capped<M> {
    fn name(&self) -> &'static str {
        self.family.name
    }

    fn exemplars(&self) -> FxHashMap<Box<str>, Exemplars> {
        let sets = self.lock();
        let seen = sets.known.iter().filter(|(_, set)| set.exemplars.iter().any(Option::is_some));
        seen.map(|(key, set)| (key.clone(), set.exemplars.clone())).collect()
    }
}
