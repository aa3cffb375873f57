//! The listening sockets: bound before anything is served, closed before anything else ends; and who may come in by
//! them.

use std::path::Path;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::AppError;
use crate::api;
use crate::auth::{Guard, Rules};
use crate::config::Config;
use crate::ingest::{self, Intake};
use crate::listen::{self, Certificates, Common, Listener, Protocol, Tls};
use crate::metrics::{ConnectionFamilies, Metrics};

/// Files that are not for connections: journal, database, sinks, and some to spare.
const FILES_FOR_OTHERS: usize = 256;

/// The listening sockets, bound before anything is served.
pub(super) struct Listeners {
    grpc: Listener,
    otlp_http: Listener,
    http: Listener,
    metrics: Option<Listener>,
}

/// Who may come in; a reload can change it.
#[derive(Clone)]
pub(super) struct Entrance {
    guard: Guard,
    common: Common,
}

impl Entrance {
    pub(super) fn replace_rules(&self, rules: Rules) {
        if rules.is_insecure() {
            tracing::warn!("auth.insecure: whoever reaches a listener can send spans and use up limits");
        }
        self.guard.replace(rules);
    }

    pub(super) fn replace_certificates(&self, certificates: Certificates) {
        self.common.tls.replace(certificates);
    }
}

impl Listeners {
    /// Bound, with what guards them.
    pub(super) async fn open(config: &Config, metrics: &Metrics) -> Result<(Self, Entrance), AppError> {
        let rules = Rules::read(&config.auth, &config.data_dir)?;
        let certificates = Certificates::read(&config.tls)?;
        let listeners = Self::bind(config).await?;
        listeners.are_guarded(&rules)?;
        let guard = Guard::new(rules, metrics.access_refused.clone(), super::now);
        let ConnectionFamilies { open, ended } = metrics.connections.clone();
        let max_connections = listeners.affordable(config.listen.max_connections.get());
        let common = Common { tls: Tls::new(certificates), max_connections, open, ended };
        Ok((listeners, Entrance { guard, common }))
    }

    async fn bind(config: &Config) -> Result<Self, AppError> {
        let listen = &config.listen;
        let metrics = Some(&listen.metrics).filter(|address| !address.is_empty());
        Ok(Self {
            grpc: bind("otlp_grpc", Protocol::Http2, &listen.otlp_grpc).await?,
            otlp_http: bind("otlp_http", Protocol::Http1, &listen.otlp_http).await?,
            http: bind("http", Protocol::Http1, &listen.http).await?,
            metrics: match metrics {
                Some(address) => Some(bind("metrics", Protocol::Http1, address).await?),
                None => None,
            },
        })
    }

    /// Most connections of each listener, so that all of them together leave files for journal, database and sinks.
    fn affordable(&self, wanted: usize) -> usize {
        let files = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
        let Some(files) = files.and_then(|files| usize::try_from(files).ok()) else { return wanted };
        let affordable = (files.saturating_sub(FILES_FOR_OTHERS) / self.all().count()).max(1);
        if affordable < wanted {
            tracing::warn!(
                wanted,
                affordable,
                files,
                "fewer connections than listen.max_connections: files are limited"
            );
        }
        affordable.min(wanted)
    }

    fn all(&self) -> impl Iterator<Item = &Listener> {
        [&self.grpc, &self.otlp_http, &self.http].into_iter().chain(&self.metrics)
    }

    /// A listener that strangers can reach needs tokens, or that somebody said it is not needed.
    fn are_guarded(&self, rules: &Rules) -> Result<(), AppError> {
        for listener in self.all() {
            let address = listener.address().map_err(|source| listening(listener.name(), source))?;
            if address.ip().to_canonical().is_loopback() {
                continue;
            }
            let (name, address) = (listener.name(), address.to_string());
            if !rules.may_leave_loopback() {
                return Err(AppError::Unguarded { name, address });
            }
            if rules.is_insecure() {
                tracing::warn!(
                    listener = name,
                    address,
                    "auth.insecure: whoever reaches this address can send spans and use up limits"
                );
            }
        }
        Ok(())
    }

    /// Writes where we listen to `listen.json`, for whoever asked for port 0.
    pub(super) fn tell(&self, data_dir: &Path) -> Result<(), AppError> {
        let tell = || {
            let mut told = serde_json::Map::new();
            for listener in self.all() {
                let address = listener.address()?.to_string();
                tracing::info!(listener = listener.name(), address, "listening");
                told.insert(listener.name().to_owned(), address.into());
            }
            // Written aside and renamed, so that no reader sees half of it.
            let aside = data_dir.join("listen.json.new");
            std::fs::write(&aside, serde_json::Value::from(told).to_string())?;
            std::fs::rename(aside, data_dir.join("listen.json"))
        };
        tell().map_err(|source| AppError::DataDir { path: data_dir.display().to_string(), source })
    }

    /// Serves until `closing`; then each listener ends when what it has begun is answered.
    pub(super) fn serve(
        self,
        intake: Intake,
        handles: api::Handles,
        entrance: &Entrance,
        closing: &CancellationToken,
    ) -> TaskTracker {
        let (tasks, guard) = (TaskTracker::new(), &entrance.guard);
        let has_metrics = self.metrics.is_none();
        let mut served = vec![
            (self.grpc, ingest::grpc::router(intake.clone(), guard)),
            (self.otlp_http, ingest::http::router(intake, guard)),
            (self.http, api::router(handles.clone(), guard, has_metrics)),
        ];
        served.extend(self.metrics.map(|listener| (listener, api::metrics_router(handles, guard))));
        for (listener, router) in served {
            tasks.spawn(listen::serve(listener, router, entrance.common.clone(), closing.clone()));
        }
        tasks.close();
        tasks
    }
}

async fn bind(name: &'static str, protocol: Protocol, address: &str) -> Result<Listener, AppError> {
    Listener::bind(name, protocol, address).await.map_err(|source| listening(address, source))
}

fn listening(address: &str, source: std::io::Error) -> AppError {
    AppError::Listen { address: address.to_owned(), source }
}
