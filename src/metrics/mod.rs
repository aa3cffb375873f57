//! The registry: every metric family of the house, with labels from closed or capped sets. It counts what was committed, and
//! never decides anything.

mod capped;
mod catalogue;
mod config;
mod exposition;
mod labels;
mod maker;
mod paper;
mod snapshot;
mod usage;
mod users;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use prometheus::{Gauge, Histogram, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry};

use capped::{Capped, Exemplified};
use labels::Names;
use maker::Maker;
use snapshot::Snapshot;
use tacho_core::domain::account::Drift;
use tacho_core::domain::record::Request;
use usage::UsageFamilies;

pub use config::MetricsConfig;
pub use exposition::Format;
pub use paper::markdown;

/// All families. Cheap to clone are its parts, so stages are handed those they count.
pub struct Metrics {
    registry: Registry,
    usage: UsageFamilies,
    exemplified: Vec<Arc<dyn Exemplified>>,
    pub ingest: IngestFamilies,
    last_span: Arc<Capped<Gauge>>,
    pub open_traces: IntGauge,
    pub journal: JournalFamilies,
    pub persist_up: IntGauge,
    drift: Snapshot<Option<Drift>>,
    pub limits: LimitFamilies,
    /// By sink and result; `export` counts.
    pub export_documents: IntCounterVec,
    export_lag: Snapshot<Vec<ExportLag>>,
    /// In seconds, as `app` sees it.
    pub feed_horizon_age: Gauge,
    pub limit_events: LimitEventLosses,
    /// By result; `notify` counts.
    pub notifications: IntCounterVec,
    /// By listener and reason; `auth` counts.
    pub access_refused: IntCounterVec,
    pub connections: ConnectionFamilies,
    /// 1 if the configuration in use is the one last read.
    pub reloaded: IntGauge,
    names: Names,
}

/// What ingest counts.
#[derive(Clone)]
pub struct IngestFamilies {
    pub spans: IntCounterVec,
    pub bodies_refused: IntCounterVec,
    pub ignored: IntCounterVec,
    pub lost: IngestLosses,
}

/// What came and could not be taken, and will not come again.
#[derive(Clone)]
pub struct IngestLosses {
    /// Values in spans that were taken without them.
    pub unreadable: IntCounter,
    /// Bodies, with spans that nobody has counted.
    pub too_large: IntCounter,
}

/// What the journal counts.
#[derive(Clone)]
pub struct JournalFamilies {
    pub bytes: IntGauge,
    pub max_bytes: IntGauge,
    pub fsync: Histogram,
    pub quarantined: IntCounter,
    /// What was in the parts that were set aside.
    pub lost: IntCounter,
}

/// What the listeners count, by listener; ends by reason too.
#[derive(Clone)]
pub struct ConnectionFamilies {
    pub open: IntGaugeVec,
    pub ended: IntCounterVec,
}

/// What could not be kept, by stage.
struct LossFamilies {
    /// Frames of the journal.
    damaged: IntCounter,
    limit_events: LimitEventLosses,
    ingest: IngestLosses,
}

/// Events of limits that are in no row, by why.
#[derive(Clone)]
pub struct LimitEventLosses {
    pub queue_full: IntCounter,
    pub refused: IntCounter,
    pub stopped: IntCounter,
}

/// What limits count, and how they stand.
#[derive(Clone)]
pub struct LimitFamilies {
    pub decisions: IntCounterVec,
    pub check_duration: Histogram,
    pub store_up: IntGauge,
    pub holds_expired: IntCounter,
    pub unreported: IntCounter,
    standing: Snapshot<Vec<LimitReading>>,
}

/// How a limit stands, with amounts in its unit; of money in dollars.
#[derive(Clone, Debug, PartialEq)]
pub struct LimitReading {
    pub limit: Arc<str>,
    pub amount: f64,
    pub overshoot_bound: f64,
    /// Of the subject that has used most.
    pub used_ratio: f64,
    /// Thresholds, and how many subjects are there or over.
    pub over: Vec<(f64, u64)>,
    /// Of a quota: how long the period is, and when it ends, both in seconds.
    pub period: Option<(f64, f64)>,
}

/// The age of the oldest change that a sink lacks.
#[derive(Clone, Debug, PartialEq)]
pub struct ExportLag {
    pub sink: &'static str,
    pub seconds: f64,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new(&MetricsConfig::default())
    }
}

impl Metrics {
    pub fn new(config: &MetricsConfig) -> Self {
        Self::made(config).expect("the names and labels of our own families are valid and each registered once")
    }

    fn made(config: &MetricsConfig) -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let make = Maker::new(&registry)?;
        make.build_info()?;
        let usage = UsageFamilies::new(&make, config.per_user_top)?;
        let losses = make.losses()?;
        Ok(Self {
            exemplified: usage.exemplified(),
            usage,
            ingest: make.ingest(losses.ingest)?,
            last_span: make.capped_gauges(&catalogue::INGEST_LAST_SPAN)?,
            open_traces: make.gauge(&catalogue::ASSEMBLE_OPEN)?,
            journal: make.journal(losses.damaged)?,
            persist_up: make.gauge(&catalogue::PERSIST_UP)?,
            drift: make.drift()?,
            limits: make.limits()?,
            export_documents: make.counters(&catalogue::EXPORT_DOCUMENTS)?,
            export_lag: make.export_lag()?,
            feed_horizon_age: make.real_gauge(&catalogue::FEED_HORIZON_AGE)?,
            limit_events: losses.limit_events,
            notifications: make.counters(&catalogue::NOTIFICATIONS)?,
            access_refused: make.counters(&catalogue::ACCESS_REFUSED)?,
            connections: make.connections()?,
            reloaded: make.reloaded()?,
            names: Names::default(),
            registry,
        })
    }

    /// The whole registry.
    pub fn exposition(&self, format: Format) -> String {
        exposition::write(&self.registry.gather(), &self.exemplified, format)
    }

    /// The age of the oldest part of the journal, in seconds, is read when somebody asks for it.
    pub fn read_journal_age(&self, read: impl Fn() -> f64 + Send + Sync + 'static) {
        maker::read_at_scrape(&self.registry, &catalogue::JOURNAL_OLDEST, read)
            .expect("there is one journal, whose family is valid");
    }

    /// Spans of this service came at this time, in seconds since 1970.
    pub fn seen(&self, service: &str, seconds: f64) {
        self.last_span.set(&[self.names.services.fold(service)], seconds);
    }

    /// A trace that the database would not take is in the table of dead letters.
    pub fn set_aside(&self) {
        self.usage.set_aside();
    }

    /// What the store has found. Until then the family has no series: not known is not zero.
    pub fn drift(&self, drift: Drift) {
        self.drift.replace(Some(drift));
    }

    /// How far behind the sinks are, in place of what was said before.
    pub fn export_lag(&self, lags: Vec<ExportLag>) {
        self.export_lag.replace(lags);
    }

    /// Counts what a committed write has changed.
    pub fn committed(&self, before: &[Request], after: &[Request]) {
        self.usage.committed(&self.names, before, after);
    }
}

impl LimitFamilies {
    /// How all limits stand now, in place of what was said before.
    pub fn stand(&self, readings: Vec<LimitReading>) {
        self.standing.replace(readings);
    }
}
