//! What the service manager is told: systemd, or whoever else gives a NOTIFY_SOCKET. Without one, nothing is said to
//! anybody.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use sd_notify::NotifyState;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;

use crate::journal::Journal;
use crate::metrics::Metrics;

/// How often the status is looked at where no watchdog asks for more.
const LOOK: Duration = Duration::from_secs(30);
/// Most of the time between two looks that the journal may take to answer.
const JOURNAL: u32 = 2;

/// Shows that the gatherer works. It counts its turns, and says when it waits: for the database to be opened, or for
/// the writers, who may wait for the database as long as they need to. That is no reason for a restart.
pub(super) struct Pulse {
    turns: AtomicU64,
    waits: AtomicBool,
}

impl Default for Pulse {
    /// It has not begun.
    fn default() -> Self {
        Self { turns: AtomicU64::new(0), waits: AtomicBool::new(true) }
    }
}

impl Pulse {
    pub(super) fn turn(&self) {
        self.turns.fetch_add(1, Ordering::Relaxed);
        self.waits.store(false, Ordering::Relaxed);
    }

    pub(super) fn wait(&self) {
        self.waits.store(true, Ordering::Relaxed);
    }

    /// Whether it has turned since `seen`, or may stand still.
    fn is_alive(&self, seen: &mut u64) -> bool {
        let before = std::mem::replace(seen, self.turns.load(Ordering::Relaxed));
        *seen != before || self.waits.load(Ordering::Relaxed)
    }
}

/// What is looked at to see whether the pipeline works.
pub(super) struct Watched {
    pub pulse: Arc<Pulse>,
    pub journal: Journal,
    pub metrics: Arc<Metrics>,
    pub closing: CancellationToken,
}

/// Says that it serves, and from then on that it is alive. Ends when what it returns is dropped.
pub(super) fn serving(watched: Watched) -> JoinSet<()> {
    let mut task = JoinSet::new();
    if std::env::var_os("NOTIFY_SOCKET").is_some() {
        let watchdog = sd_notify::watchdog_enabled();
        drop(tell([NotifyState::Ready]));
        task.spawn(watched.look(watchdog));
    }
    task
}

pub(super) fn stopping() {
    drop(tell([NotifyState::Stopping, NotifyState::Status("draining")]));
}

/// To be followed by `reloaded`, whatever comes of it.
pub(super) async fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => told([NotifyState::Reloading, now]).await,
        Err(error) => tracing::debug!(%error, "service manager not told of the reload"),
    }
}

pub(super) async fn reloaded() {
    told([NotifyState::Ready]).await;
}

/// On a thread that may wait: the socket takes a few messages until the manager reads them, and nothing here may stand
/// still because it does not.
fn tell<const N: usize>(what: [NotifyState<'static>; N]) -> JoinHandle<()> {
    tokio::task::spawn_blocking(move || {
        if let Err(error) = sd_notify::notify(&what) {
            tracing::debug!(%error, "service manager not told");
        }
    })
}

/// Each message is on its way before the next is thought of.
async fn told<const N: usize>(what: [NotifyState<'static>; N]) {
    if let Err(error) = tell(what).await {
        tracing::debug!(%error, "service manager not told");
    }
}

impl Watched {
    /// Feeds the watchdog twice in its time, but only after having looked: the runtime has run this task, the journal
    /// has answered and can be written, and the gatherer turns. A database that is away, or slow, is nothing that a
    /// restart would mend.
    async fn look(self, watchdog: Option<Duration>) {
        let every = watchdog.map_or(LOOK, |time| time / 2).max(Duration::from_millis(1));
        let mut tick = interval(every);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut seen, mut said) = (u64::MAX, "");
        loop {
            tick.tick().await;
            let fault = self.fault(&mut seen, every / JOURNAL).await;
            if let Some(fault) = fault {
                tracing::error!(fault, "the pipeline does not work; the watchdog will see that");
            } else if watchdog.is_some() {
                told([NotifyState::Watchdog]).await;
            }
            let status = fault.unwrap_or_else(|| self.status());
            if (status != said || fault.is_some()) && !self.closing.is_cancelled() {
                told([NotifyState::Status(status)]).await;
                said = status;
            }
        }
    }

    /// While it drains, the stages end one by one, and the drain has its own deadlines.
    async fn fault(&self, seen: &mut u64, patience: Duration) -> Option<&'static str> {
        let gathers = self.pulse.is_alive(seen);
        let answers = timeout(patience, self.journal.answers()).await.unwrap_or(false);
        let faults = [
            (self.journal.is_broken(), "the journal cannot be written"),
            (!answers, "the journal does not answer"),
            (!gathers, "the gatherer stands still"),
        ];
        let fault = faults.into_iter().find_map(|(holds, fault)| holds.then_some(fault));
        fault.filter(|_| !self.closing.is_cancelled())
    }

    fn status(&self) -> &'static str {
        if self.metrics.persist_up.get() == 1 {
            "takes spans and writes records"
        } else {
            "takes spans; the database is away, so the journal keeps them"
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_neither_turns_nor_waits_is_not_alive() {
        let (pulse, mut seen) = (Pulse::default(), 0);
        assert!(pulse.is_alive(&mut seen), "it has not begun");
        pulse.turn();
        assert!(pulse.is_alive(&mut seen));
        assert!(!pulse.is_alive(&mut seen), "it has not turned since");
        pulse.turn();
        pulse.wait();
        assert!(pulse.is_alive(&mut seen) && pulse.is_alive(&mut seen), "it waits for the writers");
        pulse.turn();
        assert!(pulse.is_alive(&mut seen));
        assert!(!pulse.is_alive(&mut seen));
    }
}
