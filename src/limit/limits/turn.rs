//! Beside the requests: the store is kept told, its time followed, its absence noticed.

use super::*;
use crate::limit::shared::QuotaAsk;

/// How long a store that was away may take to answer.
const CONNECTING: Duration = Duration::from_secs(2);
/// No node is called so.
const TELLER: &str = "ledger";

impl Limits {
    /// A turn of the work that nobody waits for: tells the store what is new, lets old holds go. `all`: also what could wait.
    pub async fn turn(&self, all: bool) -> bool {
        let now = self.now();
        for hold in self.holds.expired(now) {
            self.meters.holds_expired.inc();
            hold.release(&self.node, now);
        }
        if self.breaker.is_open() {
            return false;
        }
        let reports = self.node.reports(MOST_REPORTS, self.until(now), now, all);
        if reports.is_empty() {
            return false;
        }
        let full = reports.len() == MOST_REPORTS;
        Asking::new(self, reports).ask().await;
        full || all
    }

    /// Says that this instance lives, hears how many do, and finds out whether the store is back.
    pub async fn heartbeat(&self, ttl: Duration) {
        let Some(store) = self.store.get() else { return };
        let node = Arc::clone(&self.who.read().unwrap_or_else(PoisonError::into_inner).node);
        let now = (self.outside.now)().0 / 1_000;
        // Nobody waits for it, and to connect takes longer than to ask.
        let patience = self.config.patience().max(CONNECTING);
        match tokio::time::timeout(patience, store.heartbeat(&node, ttl, now)).await {
            Ok(Ok(instances)) => {
                self.node.set_nodes(instances.max(self.config.expected_instances));
                self.meters.store_up.set(1);
                if self.breaker.mend() {
                    tracing::info!(instances, "limit store there");
                    self.mended.notify_one();
                }
            }
            Ok(Err(error)) => self.trip(&chain(&error)),
            Err(_) => self.trip("no answer in time"),
        }
    }

    /// Ends when the store has come, or come back: it may have forgotten what was told.
    pub async fn mended(&self) {
        self.mended.notified().await;
    }

    /// Tells the store what the ledger says, without a word about holds. False if it is away.
    pub async fn retell(&self, ledgers: &[(Key, Ledger, Option<Timestamp>)]) -> bool {
        let incarnation = (self.outside.now)().0 / 1_000;
        let ask = |(key, ledger, ends): &(Key, Ledger, Option<Timestamp>)| {
            let ends = ends.map_or(0, |ends| ends.0 / 1_000);
            // A share of nothing that is over already.
            let quota = QuotaAsk { out: 0, until: 0, ledger: Some(*ledger), wish: None, ends };
            Ask { key: *key, incarnation, version: 1, what: What::Quota(quota) }
        };
        let asks: Vec<Ask> = ledgers.iter().map(ask).collect();
        for asks in asks.chunks(MOST_REPORTS) {
            let ledger = Arc::clone(&self.who.read().unwrap_or_else(PoisonError::into_inner).ledger);
            // Under a name of its own, so that what this node holds stays as it is.
            let who = Reporter { node: TELLER.into(), ledger };
            if self.ask_as(&who, asks).await.is_none() {
                return false;
            }
        }
        true
    }

    pub fn store_is_away(&self) -> bool {
        self.breaker.is_open()
    }

    /// Tells all that is left, and that this instance is gone.
    pub async fn leave(&self) {
        for hold in self.holds.all() {
            hold.release(&self.node, self.now());
        }
        while self.turn(true).await {
            if self.breaker.is_open() {
                break;
            }
        }
        if let Some(store) = self.store.get() {
            let node = Arc::clone(&self.who.read().unwrap_or_else(PoisonError::into_inner).node);
            drop(tokio::time::timeout(self.config.patience(), store.leave(&node)).await);
        }
    }
}
