//! The real services on free ports of this machine, with a small limit for bodies.

use std::net::SocketAddr;
use std::sync::Arc;

use prometheus::{IntCounterVec, Opts};
use tacho::ingest::{self, Delivery, IngestConfig, IngestMeters, Intake, Rules};
use tokio::net::TcpListener;
use tokio::sync::mpsc::Receiver;
use tokio::task::JoinSet;

/// Largest body of the services under test, in bytes.
pub const MAX_BODY: usize = 1 << 20;

pub struct Service {
    pub http: SocketAddr,
    pub grpc: SocketAddr,
    pub intake: Intake,
    pub meters: IngestMeters,
    pub deliveries: Receiver<Delivery>,
    /// The servers run until this is dropped.
    _servers: JoinSet<()>,
}

pub async fn start() -> Service {
    let config = IngestConfig { max_body: bytesize::ByteSize(MAX_BODY as u64), ..IngestConfig::default() };
    let counter = |name, labels| IntCounterVec::new(Opts::new(name, "help"), labels).unwrap();
    let meters = IngestMeters {
        spans: counter("spans", &["protocol", "result"]),
        bodies_refused: counter("bodies", &["protocol", "reason"]),
        ignored_signals: counter("signals", &["signal"]),
        seen: Arc::new(|_| ()),
    };
    let (intake, deliveries) = Intake::new(&config, Rules::new(&config, false), meters.clone());
    let (for_http, for_grpc) = (listener().await, listener().await);
    let (http, grpc) = (for_http.local_addr().unwrap(), for_grpc.local_addr().unwrap());
    let mut servers = JoinSet::new();
    let (one, other) = (intake.clone(), intake.clone());
    servers.spawn(async { ingest::http::serve(for_http, one, std::future::pending()).await.unwrap() });
    servers.spawn(async { ingest::grpc::serve(for_grpc, other, std::future::pending()).await.unwrap() });
    Service { http, grpc, intake, meters, deliveries, _servers: servers }
}

async fn listener() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").await.unwrap()
}

impl Service {
    /// Spans that came through since the last time.
    pub fn taken(&mut self) -> usize {
        std::iter::from_fn(|| self.deliveries.try_recv().ok()).map(|delivery| delivery.spans.len()).sum()
    }
}

/// Peak of this process's resident memory, in KiB.
pub fn peak_kib() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}
