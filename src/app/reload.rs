//! What changes while the house stands: limits, prices, the log filter, tokens and certificates, all or nothing.

use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};

use tokio::sync::mpsc;

use super::listeners::Entrance;
use super::watch::{self, Look, Watch};
use super::{limits, price_book, service};
use crate::auth::{Rules, admin_token_path};
use crate::config::Config;
use crate::limit::Limits;
use crate::listen::Certificates;
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
    reach: Reach,
    metrics: Arc<Metrics>,
    /// The one in use.
    config: Config,
    /// Whether it is the one last read.
    is_last: bool,
    tokens: Watch,
    certificates: Watch,
}

impl Reloads {
    pub(super) fn new(reach: Reach, metrics: Arc<Metrics>, config: Config) -> Self {
        let (tokens, certificates) = (Watch::new("tokens"), Watch::new("certificates"));
        Self { reach, metrics, config, is_last: true, tokens, certificates }
    }

    pub(super) async fn follow(mut self, mut reloads: mpsc::Receiver<Reload>) {
        loop {
            match tokio::time::timeout(watch::EVERY, reloads.recv()).await {
                Ok(Some(reload)) => {
                    service::reloading().await;
                    self.reload(reload);
                    service::reloaded().await;
                }
                Ok(None) => break,
                Err(_) => {}
            }
            self.keep_files();
        }
    }

    fn reload(&mut self, reload: Reload) {
        let done = reload.and_then(|config| {
            let looks = (Look::at(token_files(&config)), Look::at(config.tls.files()));
            self.reach.apply(&config).map(|limits| (config, limits, looks))
        });
        self.is_last = done.is_ok();
        match done {
            Ok((config, limits, (tokens, certificates))) => {
                self.config = config;
                self.tokens.uses(tokens);
                self.certificates.uses(certificates);
                tracing::info!(limits, "configuration reloaded");
            }
            Err(error) => tracing::error!(error, "configuration not reloaded; all stays as it was"),
        }
    }

    /// Tokens and certificates as their files are, each for itself: a certificate that is half replaced must not keep a
    /// token that was revoked.
    fn keep_files(&mut self) {
        let (config, entrance) = (&self.config, &self.reach.entrance);
        let tokens = self.tokens.keep(Look::at(token_files(config)), || {
            entrance.replace_rules(Rules::read(&config.auth, &config.data_dir)?);
            Ok(())
        });
        let certificates = self.certificates.keep(Look::at(config.tls.files()), || {
            entrance.replace_certificates(Certificates::read(&config.tls)?);
            Ok(())
        });
        self.metrics.reloaded.set(i64::from(self.is_last && tokens && certificates));
    }
}

fn token_files(config: &Config) -> [PathBuf; 2] {
    [config.auth.tokens_path(&config.data_dir), admin_token_path(&config.data_dir)]
}

impl Reach {
    /// Everything that can fail first, so that nothing is half changed.
    fn apply(&self, config: &Config) -> Result<usize, String> {
        let book = price_book(config).map_err(|error| error.to_string())?;
        let rules = Rules::read(&config.auth, &config.data_dir).map_err(|error| chain(&error))?;
        let certificates = Certificates::read(&config.tls).map_err(|error| chain(&error))?;
        if let Some(filter) = &self.filter {
            filter.set(&config.telemetry)?;
        }
        self.entrance.replace_rules(rules);
        self.entrance.replace_certificates(certificates);
        self.book.replace(book);
        let rules = limits::rules(config);
        let many = rules.len();
        self.limits.reload(rules);
        Ok(many)
    }
}
