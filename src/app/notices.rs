//! Between limits and notices: what limits see used up goes on the board, and what is on it is looked at and told.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream;
use tokio::sync::Notify;
use tokio::task::JoinSet;

use super::now;
use crate::limit::rule::Action;
use crate::limit::{Asked, LimitState, Limits, Meter, Sight};
use crate::metrics::Metrics;
use crate::notify::{self, Alert, Board, Budget, Found, NotBuilt, NotifyConfig, Pushes, Seen, Stand, Unit};

/// Looks at once: each may wait for the store of limits.
const LOOKS: usize = 16;
/// Between two looks at what is new, so that a burst of refusals makes one message.
const PAUSE: Duration = Duration::from_millis(100);

pub(super) struct Notices {
    board: Mutex<Board<Arc<Asked>>>,
    wake: Notify,
}

impl Notices {
    /// `None` where nobody is to be told.
    pub(super) fn new(config: &NotifyConfig) -> Option<Arc<Self>> {
        let board = || Mutex::new(Board::new(config.resend_interval, notify::MOST, now()));
        (!config.alertmanager_urls.is_empty()).then(|| Arc::new(Self { board: board(), wake: Notify::new() }))
    }

    pub(super) fn saw(&self, sight: &Sight<'_>) {
        let budget = Budget { limit: Arc::clone(sight.limit), subject: sight.subject.to_string().into() };
        let seen = self.board().saw(budget, || Arc::new(sight.asked.clone()), sight.refused, now());
        if seen == Seen::New {
            self.wake.notify_one();
        }
    }

    /// The work of it, to be dropped when the house closes: what is told then ends by itself. All of it, and each
    /// Alertmanager's part, goes on for itself.
    pub(super) fn work(
        self: Arc<Self>,
        config: &NotifyConfig,
        limits: Arc<Limits>,
        metrics: &Metrics,
    ) -> Result<JoinSet<()>, NotBuilt> {
        let (pushes, work) = notify::pushes(config, metrics.notifications.clone())?;
        let mut tasks = JoinSet::new();
        work.into_iter().for_each(|work| drop(tasks.spawn(work)));
        tasks.spawn(async move { self.keep(&limits, &pushes).await });
        Ok(tasks)
    }

    async fn keep(&self, limits: &Limits, pushes: &Pushes) {
        let mut is_full = false;
        loop {
            self.wait().await;
            let turned_away = self.board().begin_round(now());
            if let Some(sights) = turned_away {
                pushes.failed(sights);
                if (sights > 0) != is_full {
                    is_full = sights > 0;
                    tell_full(is_full, sights);
                }
            }
            let alerts = self.look(limits, turned_away.is_some()).await;
            pushes.push(&alerts);
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Until there is something to look at.
    async fn wait(&self) {
        let (has_new, round) = {
            let board = self.board();
            (board.has_new(), board.round())
        };
        if !has_new {
            tokio::select! {
                () = self.wake.notified() => {}
                () = tokio::time::sleep(round.since(now())) => {}
            }
        }
    }

    /// Asks the limits how everything stands that is to be looked at. What is to be said of it.
    async fn look(&self, limits: &Limits, all: bool) -> Vec<Alert> {
        let looks = self.board().take_due(all).into_iter().map(|(budget, asked)| async move {
            let found = find(limits, &budget, &asked).await;
            (budget, found)
        });
        let found: Vec<_> = stream::iter(looks).buffer_unordered(LOOKS).collect().await;
        let (mut board, now) = (self.board(), now());
        found.into_iter().filter_map(|(budget, found)| board.found(&budget, found, now)).collect()
    }

    fn board(&self) -> MutexGuard<'_, Board<Arc<Asked>>> {
        // Nothing in there is left half done.
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn tell_full(is_full: bool, dropped: u64) {
    let max = notify::MOST;
    if is_full {
        tracing::warn!(max, dropped, "more quotas used up than are told of: those seen from now on count as failed");
    } else {
        tracing::info!(max, "every quota that is used up is told of again");
    }
}

/// How the budget stands for such a request now, whatever was reloaded, reset or over since it was seen.
async fn find(limits: &Limits, budget: &Budget, asked: &Asked) -> Found {
    let states = limits.show(asked).await;
    let is_it = |state: &&LimitState| {
        let may_be = state.is_quota && state.action != Action::Shadow && state.name == budget.limit;
        may_be && *state.subject.to_string() == *budget.subject
    };
    match (states.iter().find(is_it).map(stand), limits.store_is_away()) {
        (Some(stand), false) => Found::Stands(stand),
        (Some(stand), true) => Found::AtLeast(stand),
        (None, false) => Found::Gone,
        (None, true) => Found::Unknown,
    }
}

fn stand(state: &LimitState) -> Stand {
    Stand {
        limit: state.stand.limit,
        used: state.stand.used,
        held: state.stand.held,
        unit: match state.meter {
            Meter::Cost => Unit::Usd,
            meter => Unit::Whole(meter.unit()),
        },
        refuses: state.action == Action::Deny,
        ends: state.ends,
    }
}
