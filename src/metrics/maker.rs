//! Makes families from the catalogue and registers them.

use std::sync::Arc;

use prometheus::core::Collector;
use prometheus::{
    Counter, CounterVec, Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Opts, Registry,
};

use super::capped::{Capped, Series};
use super::catalogue::{self, Family, Kind, Values};
use super::snapshot::{Row, Snapshot};
use super::{
    ConnectionFamilies, ExportLag, IngestFamilies, IngestLosses, JournalFamilies, LimitEventLosses, LimitFamilies,
    LimitReading, LossFamilies,
};
use tacho_core::domain::account::Drift;

pub(super) struct Maker<'r> {
    registry: &'r Registry,
    dropped: IntCounterVec,
}

type Made<T> = Result<T, prometheus::Error>;

impl<'r> Maker<'r> {
    pub(super) fn new(registry: &'r Registry) -> Made<Self> {
        let dropped = IntCounterVec::new(opts(&catalogue::SERIES_DROPPED), &catalogue::SERIES_DROPPED.label_names())?;
        registry.register(Box::new(dropped.clone()))?;
        Ok(Self { registry, dropped })
    }

    fn register<C: Collector + Clone + 'static>(&self, collector: C) -> Made<C> {
        self.registry.register(Box::new(collector.clone()))?;
        Ok(collector)
    }

    pub(super) fn counter(&self, family: &Family) -> Made<IntCounter> {
        self.register(IntCounter::with_opts(opts(family))?)
    }

    pub(super) fn real_gauge(&self, family: &Family) -> Made<Gauge> {
        self.register(Gauge::with_opts(opts(family))?)
    }

    pub(super) fn gauge(&self, family: &Family) -> Made<IntGauge> {
        self.register(IntGauge::with_opts(opts(family))?)
    }

    fn histogram(&self, family: &Family) -> Made<Histogram> {
        self.register(Histogram::with_opts(buckets(family))?)
    }

    /// Where all labels are closed every series is there from the start: what appears with its first count never rose.
    pub(super) fn counters(&self, family: &Family) -> Made<IntCounterVec> {
        let counters = self.register(IntCounterVec::new(opts(family), &family.label_names())?)?;
        for values in family.closed_sets() {
            counters.with_label_values(&values);
        }
        Ok(counters)
    }

    pub(super) fn capped_counters(&self, family: &'static Family) -> Made<Arc<Capped<IntCounter>>> {
        let vec = self.register(IntCounterVec::new(opts(family), &family.label_names())?)?;
        Ok(self.capped(family, Box::new(move |values| vec.with_label_values(values))))
    }

    pub(super) fn capped_floats(&self, family: &'static Family) -> Made<Arc<Capped<Counter>>> {
        let vec = self.register(CounterVec::new(opts(family), &family.label_names())?)?;
        Ok(self.capped(family, Box::new(move |values| vec.with_label_values(values))))
    }

    pub(super) fn capped_gauges(&self, family: &'static Family) -> Made<Arc<Capped<Gauge>>> {
        let vec = self.register(GaugeVec::new(opts(family), &family.label_names())?)?;
        Ok(self.capped(family, Box::new(move |values| vec.with_label_values(values))))
    }

    pub(super) fn capped_histograms(&self, family: &'static Family) -> Made<Arc<Capped<Histogram>>> {
        let vec = self.register(HistogramVec::new(buckets(family), &family.label_names())?)?;
        Ok(self.capped(family, Box::new(move |values| vec.with_label_values(values))))
    }

    fn capped<M>(&self, family: &'static Family, series: Box<Series<M>>) -> Arc<Capped<M>> {
        let watched = catalogue::WATCHED.contains(&family.name);
        Arc::new(Capped::new(family, series, watched.then(|| self.dropped.with_label_values(&[family.name]))))
    }

    pub(super) fn ingest(&self, lost: IngestLosses) -> Made<IngestFamilies> {
        Ok(IngestFamilies {
            spans: self.counters(&catalogue::INGEST_SPANS)?,
            bodies_refused: self.counters(&catalogue::INGEST_REFUSED)?,
            ignored: self.counters(&catalogue::INGEST_IGNORED)?,
            lost,
        })
    }

    /// From the start with the series that can be: not every stage has every reason.
    pub(super) fn losses(&self) -> Made<LossFamilies> {
        let family = &catalogue::LOSSES;
        let losses = self.register(IntCounterVec::new(opts(family), &family.label_names())?)?;
        let [damaged, queue_full, refused, stopped, unreadable, too_large] =
            catalogue::LOST.map(|lost| losses.with_label_values(&lost));
        Ok(LossFamilies {
            damaged,
            limit_events: LimitEventLosses { queue_full, refused, stopped },
            ingest: IngestLosses { unreadable, too_large },
        })
    }

    pub(super) fn journal(&self, lost: IntCounter) -> Made<JournalFamilies> {
        Ok(JournalFamilies {
            bytes: self.gauge(&catalogue::JOURNAL_BYTES)?,
            max_bytes: self.gauge(&catalogue::JOURNAL_MAX_BYTES)?,
            fsync: self.histogram(&catalogue::JOURNAL_FSYNC)?,
            quarantined: self.counter(&catalogue::JOURNAL_QUARANTINED)?,
            lost,
        })
    }

    pub(super) fn limits(&self) -> Made<LimitFamilies> {
        Ok(LimitFamilies {
            decisions: self.counters(&catalogue::LIMIT_DECISIONS)?,
            check_duration: self.histogram(&catalogue::LIMIT_CHECK_DURATION)?,
            store_up: self.gauge(&catalogue::LIMIT_STORE_UP)?,
            holds_expired: self.counter(&catalogue::LIMIT_HOLDS_EXPIRED)?,
            unreported: self.counter(&catalogue::LIMIT_UNREPORTED)?,
            standing: self.standing()?,
        })
    }

    fn standing(&self) -> Made<Snapshot<Vec<LimitReading>>> {
        type Read = Box<dyn Fn(&Vec<LimitReading>) -> Vec<Row> + Send + Sync>;
        fn each(read: impl Fn(&LimitReading) -> Option<f64> + Send + Sync + 'static) -> Read {
            let row = move |reading: &LimitReading| Some((vec![reading.limit.to_string()], read(reading)?));
            Box::new(move |readings| readings.iter().filter_map(&row).collect())
        }
        let max = |reading: &LimitReading| (vec![reading.limit.to_string(), "max".to_owned()], reading.used_ratio);
        #[expect(clippy::cast_precision_loss, reason = "all samples are floats")]
        let over = |reading: &LimitReading| {
            let row = |(threshold, subjects): &(f64, u64)| {
                (vec![reading.limit.to_string(), threshold.to_string()], *subjects as f64)
            };
            reading.over.iter().map(row).collect::<Vec<_>>()
        };
        self.register(Snapshot::new(
            Vec::new(),
            [
                (&catalogue::LIMIT_LIMIT, each(|reading| Some(reading.amount))),
                (&catalogue::LIMIT_OVERSHOOT_BOUND, each(|reading| Some(reading.overshoot_bound))),
                (&catalogue::LIMIT_PERIOD, each(|reading| Some(reading.period?.0))),
                (&catalogue::LIMIT_RESET, each(|reading| Some(reading.period?.1))),
                (&catalogue::LIMIT_USED_RATIO, Box::new(move |readings: &Vec<_>| readings.iter().map(max).collect())),
                (
                    &catalogue::LIMIT_SUBJECTS_OVER,
                    Box::new(move |readings: &Vec<_>| readings.iter().flat_map(over).collect()),
                ),
            ],
        )?)
    }

    pub(super) fn drift(&self) -> Made<Snapshot<Option<Drift>>> {
        #[expect(clippy::cast_precision_loss, reason = "all samples are floats")]
        let rows = |drift: &Option<Drift>| {
            let row = |drift: &Drift| {
                let Drift { free_requests, requests, tokens, cost_nanousd } = *drift;
                let counters = ["free_requests", "requests", "tokens", "cost_nanousd"];
                let values = [free_requests, requests, tokens, cost_nanousd];
                counters.iter().zip(values).map(|(counter, by)| (vec![(*counter).to_owned()], by as f64)).collect()
            };
            drift.as_ref().map(row).unwrap_or_default()
        };
        self.register(Snapshot::new(None, [(&catalogue::LEDGER_DRIFT, Box::new(rows) as _)])?)
    }

    pub(super) fn export_lag(&self) -> Made<Snapshot<Vec<ExportLag>>> {
        let rows = |lags: &Vec<ExportLag>| lags.iter().map(|lag| (vec![lag.sink.to_owned()], lag.seconds)).collect();
        self.register(Snapshot::new(Vec::new(), [(&catalogue::EXPORT_LAG, Box::new(rows) as _)])?)
    }

    pub(super) fn connections(&self) -> Made<ConnectionFamilies> {
        let family = &catalogue::CONNECTIONS;
        let open = self.register(IntGaugeVec::new(opts(family), &family.label_names())?)?;
        family.closed_sets().iter().for_each(|values| drop(open.with_label_values(values)));
        Ok(ConnectionFamilies { open, ended: self.counters(&catalogue::CONNECTIONS_ENDED)? })
    }

    pub(super) fn reloaded(&self) -> Made<IntGauge> {
        let reloaded = self.gauge(&catalogue::RELOADED)?;
        reloaded.set(1);
        Ok(reloaded)
    }

    pub(super) fn build_info(&self) -> Made<()> {
        let build =
            self.register(GaugeVec::new(opts(&catalogue::BUILD_INFO), &catalogue::BUILD_INFO.label_names())?)?;
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1.0);
        Ok(())
    }
}

/// A gauge that is read when it is asked for.
pub(super) fn read_at_scrape(
    registry: &Registry,
    family: &'static Family,
    read: impl Fn() -> f64 + Send + Sync + 'static,
) -> Made<()> {
    let snapshot = Snapshot::new((), [(family, Box::new(move |(): &()| vec![(Vec::new(), read())]) as _)])?;
    registry.register(Box::new(snapshot))
}

fn opts(family: &Family) -> Opts {
    Opts::new(family.name, family.help)
}

fn buckets(family: &Family) -> HistogramOpts {
    let bounds = if let Kind::Histogram(bounds) = family.kind { bounds } else { &[] };
    HistogramOpts::new(family.name, family.help).buckets(bounds.to_vec())
}

impl Family {
    /// Every combination of labels, if all are closed.
    fn closed_sets(&self) -> Vec<Vec<&'static str>> {
        self.labels.iter().fold(vec![Vec::new()], |sets, label| {
            let Values::Closed(values) = label.values else { return Vec::new() };
            sets.iter()
                .flat_map(|set| values.iter().map(|value| set.iter().copied().chain([*value]).collect()))
                .collect()
        })
    }
}
