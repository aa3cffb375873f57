//! The listening sockets: bound before anything is served, closed before anything else ends.

use std::path::Path;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::AppError;
use crate::api;
use crate::config::Config;
use crate::ingest::{self, Intake};

/// The listening sockets, bound before anything is served.
pub(super) struct Doors {
    grpc: TcpListener,
    otlp_http: TcpListener,
    http: TcpListener,
}

impl Doors {
    pub(super) async fn open(config: &Config) -> Result<Self, AppError> {
        let listen = &config.listen;
        Ok(Self {
            grpc: bind(&listen.otlp_grpc).await?,
            otlp_http: bind(&listen.otlp_http).await?,
            http: bind(&listen.http).await?,
        })
    }

    /// Writes where we listen to `listen.json`, for whoever asked for port 0.
    pub(super) fn tell(&self, data_dir: &Path) -> Result<(), AppError> {
        let address = |listener: &TcpListener| listener.local_addr().map(|address| address.to_string());
        let tell = || {
            let (grpc, otlp_http, http) = (address(&self.grpc)?, address(&self.otlp_http)?, address(&self.http)?);
            tracing::info!(otlp_grpc = grpc, otlp_http, http, "listening");
            let told = serde_json::json!({"otlp_grpc": grpc, "otlp_http": otlp_http, "http": http});
            // Written aside and renamed, so that no reader sees half of it.
            let aside = data_dir.join("listen.json.new");
            std::fs::write(&aside, told.to_string())?;
            std::fs::rename(aside, data_dir.join("listen.json"))
        };
        tell().map_err(|source| AppError::DataDir { path: data_dir.display().to_string(), source })
    }

    /// Serves until `closing`; then each door ends when what it has begun is answered.
    pub(super) fn serve(self, intake: Intake, handles: api::Handles, closing: &CancellationToken) -> TaskTracker {
        let tasks = TaskTracker::new();
        let closed = || closing.clone().cancelled_owned();
        let (grpc, http) = (
            ingest::grpc::serve(self.grpc, intake.clone(), closed()),
            ingest::http::serve(self.otlp_http, intake, closed()),
        );
        tasks.spawn(async move { ended("otlp grpc", grpc.await) });
        tasks.spawn(async move { ended("otlp http", http.await) });
        let api = api::serve(self.http, handles, closed());
        tasks.spawn(async move { ended("http", api.await) });
        tasks.close();
        tasks
    }
}

fn ended<E: std::error::Error>(listener: &str, result: Result<(), E>) {
    match result {
        Ok(()) => tracing::debug!(listener, "closed"),
        Err(error) => tracing::error!(listener, %error, "listener closed by an error"),
    }
}

async fn bind(address: &str) -> Result<TcpListener, AppError> {
    TcpListener::bind(address).await.map_err(|source| AppError::Listen { address: address.to_owned(), source })
}
