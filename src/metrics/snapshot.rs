//! Families that are read when they are asked for: what is not there any more has no series.

use std::sync::{Arc, Mutex, PoisonError};

use prometheus::core::{Collector, Desc};
use prometheus::proto::{Gauge, LabelPair, Metric, MetricFamily, MetricType};

use super::catalogue::{Family, Kind};

/// One series of a snapshot: the values of its labels, in the order of the family's, and its value.
pub(super) type Row = (Vec<String>, f64);
type Read<S> = dyn Fn(&S) -> Vec<Row> + Send + Sync;

/// Families made of one value, which is replaced as a whole: a scrape sees all of the old one or all of the new one.
pub(super) struct Snapshot<S> {
    value: Arc<Mutex<S>>,
    families: Arc<[Described<S>]>,
}

type Described<S> = (&'static Family, Desc, Box<Read<S>>);

impl<S> Clone for Snapshot<S> {
    fn clone(&self) -> Self {
        Self { value: Arc::clone(&self.value), families: Arc::clone(&self.families) }
    }
}

impl<S> Snapshot<S> {
    pub(super) fn new(
        value: S,
        families: impl IntoIterator<Item = (&'static Family, Box<Read<S>>)>,
    ) -> Result<Self, prometheus::Error> {
        let described = families.into_iter().map(|(family, read)| {
            let labels = family.label_names().into_iter().map(str::to_owned).collect();
            Ok((family, Desc::new(family.name.to_owned(), family.help.to_owned(), labels, Default::default())?, read))
        });
        let families: Vec<_> = described.collect::<Result<_, prometheus::Error>>()?;
        Ok(Self { value: Arc::new(Mutex::new(value)), families: families.into() })
    }

    pub(super) fn replace(&self, value: S) {
        *self.value.lock().unwrap_or_else(PoisonError::into_inner) = value;
    }
}

impl<S: Send> Collector for Snapshot<S> {
    fn desc(&self) -> Vec<&Desc> {
        self.families.iter().map(|(_, desc, _)| desc).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let value = self.value.lock().unwrap_or_else(PoisonError::into_inner);
        self.families.iter().map(|(family, _, read)| exposed(family, read(&value))).collect()
    }
}

fn exposed(family: &Family, rows: Vec<Row>) -> MetricFamily {
    let mut exposed = MetricFamily::default();
    exposed.set_name(family.name.to_owned());
    exposed.set_help(family.help.to_owned());
    let untyped = family.kind == Kind::Untyped;
    exposed.set_field_type(if untyped { MetricType::UNTYPED } else { MetricType::GAUGE });
    exposed.set_metric(rows.into_iter().map(|row| metric(family, row)).collect());
    exposed
}

fn metric(family: &Family, (values, value): Row) -> Metric {
    let mut labels: Vec<LabelPair> =
        family.labels.iter().zip(values).map(|(label, value)| pair(label.name, value)).collect();
    labels.sort_by(|one, other| one.name().cmp(other.name()));
    let mut gauge = Gauge::default();
    gauge.set_value(value);
    let mut metric = Metric::from_label(labels);
    metric.set_gauge(gauge);
    metric
}

fn pair(name: &str, value: String) -> LabelPair {
    let mut pair = LabelPair::default();
    pair.set_name(name.to_owned());
    pair.set_value(value);
    pair
}
