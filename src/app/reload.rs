//! What changes while the house stands: limits, prices, the log filter, tokens and certificates, all or nothing.

use std::sync::{Arc, PoisonError, RwLock};

use tokio::sync::mpsc;

use super::listeners::{Entrance, NewEntrance};
use super::watch::{self, Watch};
use super::{limits, price_book, service};
use crate::config::Config;
use crate::limit::Limits;
use crate::metrics::Metrics;
use crate::telemetry::{Filter, chain};
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
pub(super) struct Reach {
    pub limits: Arc<Limits>,
    pub book: Arc<Book>,
    pub filter: Option<Filter>,
    pub entrance: Entrance,
}

pub(super) struct Reloads {
    pub reach: Reach,
    pub metrics: Arc<Metrics>,
    /// The one in use.
    pub config: Config,
}

impl Reloads {
    pub(super) async fn follow(mut self, mut reloads: mpsc::Receiver<Reload>) {
        let mut watch = Watch::of(&self.config);
        loop {
            match tokio::time::timeout(watch::EVERY, reloads.recv()).await {
                Ok(Some(reload)) => {
                    service::reloading();
                    self.reload(reload);
                    service::reloaded();
                    watch = Watch::of(&self.config);
                }
                Ok(None) => break,
                Err(_) if watch.has_changed(&self.config) => self.read_again(),
                Err(_) => {}
            }
        }
    }

    fn reload(&mut self, reload: Reload) {
        let done = reload.and_then(|config| self.reach.apply(&config).map(|limits| (config, limits)));
        self.metrics.reloaded.set(i64::from(done.is_ok()));
        match done {
            Ok((config, limits)) => {
                self.config = config;
                tracing::info!(limits, "configuration reloaded");
            }
            Err(error) => tracing::error!(error, "configuration not reloaded; all stays as it was"),
        }
    }

    /// Tokens and certificates, because their files have changed.
    fn read_again(&self) {
        match NewEntrance::read(&self.config) {
            Ok(new) => {
                self.reach.entrance.replace(new);
                tracing::info!("tokens and certificates read again");
            }
            Err(error) => tracing::error!(error = chain(&error), "tokens and certificates stay as they were"),
        }
    }
}

impl Reach {
    /// Everything that can fail first, so that nothing is half changed.
    fn apply(&self, config: &Config) -> Result<usize, String> {
        let book = price_book(config).map_err(|error| error.to_string())?;
        let entrance = NewEntrance::read(config).map_err(|error| chain(&error))?;
        if let Some(filter) = &self.filter {
            filter.set(&config.telemetry)?;
        }
        self.entrance.replace(entrance);
        self.book.replace(book);
        let rules = limits::rules(config);
        let many = rules.len();
        self.limits.reload(rules);
        Ok(many)
    }
}
