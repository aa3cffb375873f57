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

/// The same, read and found good.
pub(super) struct NewEntrance {
    rules: Rules,
    certificates: Certificates,
}

impl NewEntrance {
    pub(super) fn read(config: &Config) -> Result<Self, AppError> {
        let rules = Rules::read(&config.auth, &config.data_dir)?;
        Ok(Self { rules, certificates: Certificates::read(&config.tls)? })
    }
}

impl Entrance {
    pub(super) fn replace(&self, new: NewEntrance) {
        self.guard.replace(new.rules);
        self.common.tls.replace(new.certificates);
    }
}

impl Listeners {
    /// Bound, with what guards them.
    pub(super) async fn open(config: &Config, metrics: &Metrics) -> Result<(Self, Entrance), AppError> {
        let new = NewEntrance::read(config)?;
        let listeners = Self::bind(config).await?;
        listeners.are_guarded(&new)?;
        let guard = Guard::new(new.rules, metrics.access_refused.clone(), super::now);
        let ConnectionFamilies { open, ended } = metrics.connections.clone();
        let max_connections = config.listen.max_connections.get();
        let common = Common { tls: Tls::new(new.certificates), max_connections, open, ended };
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

    fn all(&self) -> impl Iterator<Item = &Listener> {
        [&self.grpc, &self.otlp_http, &self.http].into_iter().chain(&self.metrics)
    }

    /// A listener that strangers can reach needs tokens, or that somebody said it is not needed.
    fn are_guarded(&self, new: &NewEntrance) -> Result<(), AppError> {
        for listener in self.all() {
            let address = listener.address().map_err(|source| listening(listener.name(), source))?;
            if address.ip().to_canonical().is_loopback() {
                continue;
            }
            let (name, address) = (listener.name(), address.to_string());
            if !new.rules.may_leave_loopback() {
                return Err(AppError::Unguarded { name, address });
            }
            if new.rules.is_insecure() {
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
