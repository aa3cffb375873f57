//! What goes wrong, and when: a seeded script.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use sqlx::Connection;
use tokio::sync::watch;

use super::JOURNAL;
use super::conserved::{Conserved, conserved, limits};
use crate::support::client::{JSON, post};
use crate::support::postgres::Postgres;
use crate::support::redis::Redis;
use crate::support::tacho_process::Tacho;

/// Faults that were injected.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    pub kills: u32,
    /// Ordered stops.
    pub terms: u32,
    pub outages: u32,
    /// Starts while the database was away.
    pub apart: u32,
    /// Crashes of the store of limits, each of which forgets everything.
    pub forgotten: u32,
}

#[derive(Clone, Copy)]
pub enum Database {
    Sqlite,
    Postgres,
}

pub enum Open {
    Sqlite { url: String },
    Postgres { url: String, server: Postgres },
}

impl Database {
    pub fn open(self, folder: &Path) -> Open {
        match self {
            Self::Sqlite => Open::Sqlite { url: format!("sqlite:{}", folder.join("tacho.db").display()) },
            Self::Postgres => {
                let server = Postgres::start();
                Open::Postgres { url: server.database("drill"), server }
            }
        }
    }
}

impl Open {
    pub fn url(&self) -> &str {
        match self {
            Self::Sqlite { url } | Self::Postgres { url, .. } => url,
        }
    }
}

pub struct Script {
    random: StdRng,
    folder: PathBuf,
    database: Open,
    tacho: Option<Tacho>,
    redis: Redis,
    address: watch::Sender<SocketAddr>,
    faults: Faults,
}

impl Script {
    pub fn new(seed: u64, folder: &Path, database: Open) -> Self {
        let redis = Redis::start();
        std::fs::write(folder.join("tacho.toml"), limits(&redis.url())).unwrap();
        let tacho = start(folder, &database);
        let (address, _) = watch::channel(tacho.grpc);
        let (random, faults) = (StdRng::seed_from_u64(!seed), Faults::default());
        Self { random, folder: folder.to_owned(), database, tacho: Some(tacho), redis, address, faults }
    }

    /// Where Tacho listens, from one start to the next.
    pub fn address(&self) -> watch::Receiver<SocketAddr> {
        self.address.subscribe()
    }

    /// So many kills and outages, in any order.
    pub async fn run(&mut self, kills: u32, outages: u32) {
        while self.faults.kills < kills || self.faults.outages < outages {
            self.pause(50..600).await;
            let left = (kills.saturating_sub(self.faults.kills), outages.saturating_sub(self.faults.outages));
            if self.random.random_range(0..left.0 + left.1) < left.1 {
                self.outage(left.0 > 0).await;
            } else if self.random.random_bool(0.1) {
                self.stop().await;
            } else if self.random.random_bool(0.2) {
                self.forget();
            } else {
                self.kill();
            }
        }
        self.pause(50..600).await;
    }

    /// Waits until all is in the database and the store of limits says the same, and stops. The database, for whoever wants to look.
    pub async fn finish(mut self) -> (Open, Faults, Conserved) {
        let http = self.tacho.as_ref().unwrap().http;
        loop {
            let metrics = post(JSON, "").method("GET").path("/metrics").send(http).await.text();
            let is_zero = |name: &str| metrics.lines().any(|line| line == format!("{name} 0"));
            if is_zero("tacho_journal_oldest_seconds") && is_zero("tacho_assemble_open_traces") {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let conserved = conserved(self.database.url(), &self.redis.url()).await;
        let tacho = self.tacho.take().unwrap();
        tokio::task::spawn_blocking(|| tacho.stop()).await.unwrap();
        (self.database, self.faults, conserved)
    }

    /// The store of limits crashes and knows nothing when it is back.
    fn forget(&mut self) {
        self.redis.kill();
        self.redis.again();
        self.faults.forgotten += 1;
    }

    /// As a crash, or as somebody who pulls the plug of the container.
    fn kill(&mut self) {
        drop(self.tacho.take());
        self.faults.kills += 1;
        self.start();
    }

    async fn stop(&mut self) {
        let tacho = self.tacho.take().unwrap();
        tokio::task::spawn_blocking(|| tacho.stop()).await.unwrap();
        self.faults.terms += 1;
        self.start();
    }

    fn start(&mut self) {
        let tacho = start(&self.folder, &self.database);
        self.address.send_replace(tacho.grpc);
        self.tacho = Some(tacho);
    }

    /// The database goes away, and comes back after a while; Tacho may be killed meanwhile, and start without it.
    async fn outage(&mut self, may_kill: bool) {
        let kill = may_kill && self.random.random_bool(0.3);
        match &self.database {
            Open::Postgres { server, .. } => {
                server.halt();
                self.pause(500..4_000).await;
                if kill {
                    self.kill();
                    self.faults.apart += 1;
                }
                let Open::Postgres { server, .. } = &self.database else { unreachable!() };
                server.resume();
            }
            Open::Sqlite { url } => {
                // Another process holds the lock.
                let mut other = sqlx::SqliteConnection::connect(url).await.unwrap();
                let lock = other.begin_with("BEGIN IMMEDIATE").await;
                self.pause(500..7_000).await;
                drop(lock);
                drop(other.close().await);
            }
        }
        self.faults.outages += 1;
    }

    async fn pause(&mut self, millis: std::ops::Range<u64>) {
        tokio::time::sleep(Duration::from_millis(self.random.random_range(millis))).await;
    }
}

fn start(folder: &Path, database: &Open) -> Tacho {
    let settings =
        [("TACHO_JOURNAL__MAX_SIZE", JOURNAL), ("TACHO_ASSEMBLE__QUIET", "200ms"), ("TACHO_TELEMETRY__LOG", "info")];
    Tacho::start(folder, database.url(), &settings)
}
