//! Sinks beside the pipeline: they begin when the database is open, and lag where they must. How far they are behind is
//! looked at by every instance, whoever serves them.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::now;
use crate::export::{self, Export, ExportMeters, Sink, Start};
use crate::metrics::{ExportLag, Metrics};
use crate::persist::{Horizon, PersistError, Store};
use tacho_core::domain::time::Timestamp;

/// How often the lag of the sinks and the horizon of the feed are looked at.
const LOOK: Duration = Duration::from_secs(5);

/// Exports until `stop`, and gives the leases back.
pub(super) async fn work(
    sinks: Vec<(Sink, Start)>,
    store: Arc<OnceLock<Store>>,
    metrics: Arc<Metrics>,
    stop: CancellationToken,
) {
    let Some(store) = opened(&store, &stop).await else { return };
    let mut tasks = JoinSet::new();
    let mut followers = Vec::new();
    let names: Vec<&'static str> = sinks.iter().map(|(sink, _)| sink.name()).collect();
    for (sink, start) in sinks {
        let export = Export { meters: meters(&metrics, &sink), sink, store: store.clone(), now };
        followers.push(export::follow(&export, start, &stop));
    }
    tasks.spawn(watch(store, names, metrics, stop));
    for follower in followers {
        follower.join_all().await;
    }
    tasks.join_all().await;
}

/// The counters of this sink.
pub fn meters(metrics: &Metrics, sink: &Sink) -> ExportMeters {
    let of = |result| metrics.export_documents.with_label_values(&[sink.name(), result]);
    ExportMeters { written: of("written"), failed: of("failed"), dead_letters: of("dead_letter") }
}

async fn opened(store: &OnceLock<Store>, stop: &CancellationToken) -> Option<Store> {
    loop {
        if let Some(store) = store.get() {
            return Some(store.clone());
        }
        tokio::select! {
            () = tokio::time::sleep(Duration::from_millis(50)) => {}
            () = stop.cancelled() => return None,
        }
    }
}

async fn watch(store: Store, sinks: Vec<&'static str>, metrics: Arc<Metrics>, stop: CancellationToken) {
    let mut held_back = None;
    loop {
        match store.look_at_feed().await {
            Ok(horizon) => metrics.feed_horizon_age.set(age(&mut held_back, horizon).as_secs_f64()),
            Err(error) => tracing::debug!(%error, "horizon of the feed not known"),
        }
        match lags(&store, &sinks, now()).await {
            Ok(lags) => metrics.export_lag(lags),
            Err(error) => tracing::debug!(%error, "lag of the sinks not known"),
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK) => {}
            () = stop.cancelled() => return,
        }
    }
}

/// How long the horizon has stood where it is although there are newer transactions. `held_back`: since when it has,
/// and where.
fn age(held_back: &mut Option<(Instant, Horizon)>, horizon: Horizon) -> Duration {
    let moves = horizon.position == horizon.newest;
    match held_back {
        Some((since, seen)) if !moves && seen.position == horizon.position => since.elapsed(),
        _ => {
            *held_back = (!moves).then(|| (Instant::now(), horizon));
            Duration::ZERO
        }
    }
}

/// The age of the oldest change that each sink lacks; none where a sink has not begun.
async fn lags(store: &Store, sinks: &[&'static str], now: Timestamp) -> Result<Vec<ExportLag>, PersistError> {
    let mut lags: Vec<ExportLag> = Vec::new();
    for cursor in store.export_cursors().await? {
        let Some(sink) = sinks.iter().find(|sink| **sink == cursor.sink) else { continue };
        let lacking = store.lacking_since(&cursor).await?;
        let seconds = lacking.map_or(Duration::ZERO, |since| now.since(since)).as_secs_f64();
        match lags.iter_mut().find(|lag| lag.sink == *sink) {
            Some(lag) => lag.seconds = lag.seconds.max(seconds),
            None => lags.push(ExportLag { sink, seconds }),
        }
    }
    Ok(lags)
}
