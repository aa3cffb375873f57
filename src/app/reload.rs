//! What changes while the house stands: limits, prices and the log filter, all or nothing.

use std::sync::{Arc, PoisonError, RwLock};

use tokio::sync::mpsc;

use super::{limits, price_book};
use crate::config::Config;
use crate::limit::Limits;
use crate::metrics::Metrics;
use crate::telemetry::Filter;
use tacho_core::price::PriceBook;

/// The configuration as it was read again, or why that failed.
pub type Reload = Result<Config, String>;

/// The price book in use.
pub(super) struct Book(RwLock<Arc<PriceBook>>);

impl Book {
    pub(super) fn new(book: PriceBook) -> Self {
        Self(RwLock::new(Arc::new(book)))
    }

    pub(super) fn now(&self) -> Arc<PriceBook> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn replace(&self, book: PriceBook) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(book);
    }
}

/// All that a reload reaches.
pub(super) struct Reloads {
    pub limits: Arc<Limits>,
    pub book: Arc<Book>,
    pub metrics: Arc<Metrics>,
    pub filter: Option<Filter>,
}

impl Reloads {
    pub(super) async fn follow(self, mut reloads: mpsc::Receiver<Reload>) {
        while let Some(reload) = reloads.recv().await {
            let done = reload.and_then(|config| self.apply(&config));
            self.metrics.reloaded.set(i64::from(done.is_ok()));
            match done {
                Ok(limits) => tracing::info!(limits, "configuration reloaded"),
                Err(error) => tracing::error!(error, "configuration not reloaded; all stays as it was"),
            }
        }
    }

    /// Everything that can fail first, so that nothing is half changed.
    fn apply(&self, config: &Config) -> Result<usize, String> {
        let book = price_book(config).map_err(|error| error.to_string())?;
        if let Some(filter) = &self.filter {
            filter.set(&config.telemetry)?;
        }
        self.book.replace(book);
        let rules = limits::rules(config);
        let many = rules.len();
        self.limits.reload(rules);
        Ok(many)
    }
}
