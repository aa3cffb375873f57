//! The real services on free ports of this machine, with a small limit for bodies.

use std::net::SocketAddr;
use std::process::Command;
use std::sync::Arc;

use prometheus::{IntCounter, IntCounterVec, IntGaugeVec, Opts};
use tacho::auth::{AuthConfig, Guard, Rules};
use tacho::ingest::{self, IngestConfig, IngestMeters, Intake, Keeper, NotKept};
use tacho::listen::{self, Certificates, Common, Listener, Protocol, Tls, TlsConfig};
use tacho_core::domain::extract::Extract;
use tokio::sync::mpsc::Receiver;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Largest body of the services under test, in bytes.
pub const MAX_BODY: usize = 1 << 20;

/// Bodies that the test's journal has room for.
pub const MOST_KEPT: usize = 64;

pub struct Service {
    pub http: SocketAddr,
    pub grpc: SocketAddr,
    pub intake: Intake,
    pub meters: IngestMeters,
    /// What was kept. Its bound is that of the test's journal.
    pub kept: Receiver<Vec<u8>>,
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
        unreadable: IntCounter::new("unreadable", "help").unwrap(),
        too_large: IntCounter::new("too_large", "help").unwrap(),
        seen: Arc::new(|_| ()),
    };
    let (keep, kept) = tokio::sync::mpsc::channel(MOST_KEPT);
    let room = keep.clone();
    let keeper = Keeper {
        has_room: Arc::new(move || room.capacity() > 0),
        keep: Arc::new(move |extract| {
            let result = keep.try_send(extract).map_err(|_| NotKept::Full);
            Box::pin(std::future::ready(result))
        }),
    };
    let intake = Intake::new(&config, config.rules(false), meters.clone(), keeper);
    let for_http = Listener::bind("otlp_http", Protocol::Http1, "127.0.0.1:0").await.unwrap();
    let for_grpc = Listener::bind("otlp_grpc", Protocol::Http2, "127.0.0.1:0").await.unwrap();
    let (http, grpc) = (for_http.address().unwrap(), for_grpc.address().unwrap());
    let mut servers = JoinSet::new();
    let (one, other) = (intake.clone(), intake.clone());
    let guard = guard();
    servers.spawn(listen::serve(for_http, ingest::http::router(one, &guard), common(), CancellationToken::new()));
    servers.spawn(listen::serve(for_grpc, ingest::grpc::router(other, &guard), common(), CancellationToken::new()));
    Service { http, grpc, intake, meters, kept, _servers: servers }
}

/// Every place for a body there is.
pub async fn all_slots(intake: &Intake) -> Vec<ingest::Slot> {
    let mut slots = Vec::new();
    while let Ok(slot) = intake.slot().await {
        slots.push(slot);
    }
    slots
}

/// As in the binary, on loopback.
fn guard() -> Guard {
    let folder = tempfile::tempdir().unwrap();
    let rules = Rules::read(&AuthConfig::default(), folder.path()).unwrap();
    let refused = IntCounterVec::new(Opts::new("refused", "help"), &["listener", "reason"]).unwrap();
    Guard::new(rules, refused, tacho::app::now)
}

fn common() -> Common {
    Common {
        tls: Tls::new(Certificates::read(&TlsConfig::default()).unwrap()),
        max_connections: 1024,
        open: IntGaugeVec::new(Opts::new("open", "help"), &["listener"]).unwrap(),
        ended: IntCounterVec::new(Opts::new("ended", "help"), &["listener", "reason"]).unwrap(),
    }
}

impl Service {
    /// Spans that came through since the last time.
    pub fn taken(&mut self) -> usize {
        std::iter::from_fn(|| self.kept.try_recv().ok()).map(|extract| Extract::read(&extract).unwrap().len()).sum()
    }
}

/// Runs an ignored test in a process of its own: its peak of memory is that of nothing else.
pub fn alone(test: &str) {
    let mut child = Command::new(std::env::current_exe().unwrap());
    let ended = child.args(["--exact", test, "--ignored", "--nocapture"]).output().unwrap();
    let said = String::from_utf8_lossy(&[ended.stdout, ended.stderr].concat()).into_owned();
    assert!(ended.status.success() && said.contains("1 passed"), "{test}: {said}");
}

/// Peak of this process's resident memory, in KiB.
pub fn peak_kib() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}
