//! The way in for spans: OTLP over gRPC and HTTP, protobuf and JSON. It takes a slot, reads the body into a usage
//! extract, has it kept and answers. It never keeps data of its own and never copies an attribute that is not on the
//! list.

mod answer;
mod coming;
pub mod grpc;
pub mod http;
mod inflate;

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use bytesize::ByteSize;
use prometheus::IntCounterVec;
use serde::Deserialize;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use coming::{Coming, Metered};

use tacho_core::decode::{Batch, Malformed, OwnKeys, Rejected, Rules, read_json, read_protobuf};
use tacho_core::domain::span::Origin;

/// The section `[ingest]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct IngestConfig {
    /// Largest body taken, after decompression.
    pub max_body: ByteSize,
    /// Attribute keys tried for the user before the built-in ones.
    pub user_keys: Vec<String>,
    pub tenant_keys: Vec<String>,
    pub agent_keys: Vec<String>,
}

impl IngestConfig {
    /// What the readers go by.
    pub fn rules(&self, error_messages: bool) -> Rules {
        let keys = OwnKeys { user: &self.user_keys, tenant: &self.tenant_keys, agent: &self.agent_keys };
        Rules::new(keys, error_messages)
    }
}

impl Default for IngestConfig {
    fn default() -> Self {
        Self { max_body: ByteSize::mib(16), user_keys: vec![], tenant_keys: vec![], agent_keys: vec![] }
    }
}

/// How a body came in; at once the metric label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    Grpc,
    HttpProtobuf,
    HttpJson,
}

impl Protocol {
    pub const ALL: [Self; 3] = [Self::Grpc, Self::HttpProtobuf, Self::HttpJson];

    pub fn label(self) -> &'static str {
        match self {
            Self::Grpc => "grpc",
            Self::HttpProtobuf => "http_protobuf",
            Self::HttpJson => "http_json",
        }
    }
}

/// What ingest counts, as the registry made it.
#[derive(Clone)]
pub struct IngestMeters {
    /// By protocol and result: accepted, rejected, malformed (bodies), refused (bodies).
    pub spans: IntCounterVec,
    pub bodies_refused: IntCounterVec,
    pub ignored_signals: IntCounterVec,
    /// Told the service of spans just taken.
    pub seen: Arc<dyn Fn(&str) + Send + Sync>,
}

/// Keeps the extract of a body where it survives a crash; ends when it does.
pub type Keep = Arc<dyn Fn(Vec<u8>) -> Pin<Box<dyn Future<Output = Result<(), NotKept>> + Send>> + Send + Sync>;

/// Where extracts go.
#[derive(Clone)]
pub struct Keeper {
    /// Whether there is room for more. Asked before a body is read.
    pub has_room: Arc<dyn Fn() -> bool + Send + Sync>,
    pub keep: Keep,
}

/// Most bodies read at a time.
const MOST_BODIES: usize = 256;
/// Most KiB of bodies that come, and likewise of those that are read and kept.
const MOST_KIB: usize = 32 * 1024;
/// When a client that was refused may come again.
pub const RETRY_AFTER: Duration = Duration::from_secs(1);

/// A body that is not here by then holds its slot no longer: exporters give up after ten seconds.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// Why an extract was not kept. The client has the data still, and comes again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotKept {
    #[error("too many bodies at a time; try again")]
    Overloaded,
    #[error("the journal is full until the database has caught up; try again")]
    Full,
    #[error("the journal cannot be written; it takes no more until a restart")]
    Broken,
}

impl NotKept {
    /// Metric label.
    pub fn label(self) -> &'static str {
        match self {
            Self::Overloaded => "overloaded",
            Self::Full => "journal_full",
            Self::Broken => "journal_broken",
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum Refused {
    #[error(transparent)]
    NotKept(#[from] NotKept),
    #[error("malformed body: {0}")]
    Malformed(#[from] Malformed),
}

impl Refused {
    /// Metric label.
    pub fn label(&self) -> &'static str {
        match self {
            Self::NotKept(why) => why.label(),
            Self::Malformed(_) => "malformed",
        }
    }
}

/// The way in, shared by all connections.
#[derive(Clone)]
pub struct Intake {
    keeper: Keeper,
    coming: Arc<Coming>,
    memory: Arc<Semaphore>,
    rules: Arc<Rules>,
    meters: IngestMeters,
    /// Largest body after decompression, in bytes.
    pub max_body: usize,
}

/// A place among the bodies that are read, taken before any work is done.
#[must_use = "a slot is a place others wait for"]
pub struct Slot {
    _place: OwnedSemaphorePermit,
}

impl Intake {
    pub fn new(config: &IngestConfig, rules: Rules, meters: IngestMeters, keeper: Keeper) -> Self {
        let max_body = usize::try_from(config.max_body.as_u64()).unwrap_or(usize::MAX);
        // A body of the largest size must find room when there is no other.
        let most_kib = MOST_KIB.max(kib(max_body));
        let (coming, memory) = (Coming::new(MOST_BODIES, most_kib), Arc::new(Semaphore::new(most_kib)));
        Self { keeper, coming, memory, rules: Arc::new(rules), meters, max_body }
    }

    /// The body, counted while it comes.
    fn metered(&self, body: Body) -> Metered {
        self.coming.metered(body)
    }

    /// A place for one body; of those that take long one gives way when there is none.
    pub async fn slot(&self) -> Result<Slot, NotKept> {
        if !(self.keeper.has_room)() {
            return Err(NotKept::Full);
        }
        Ok(Slot { _place: self.coming.place().await? })
    }

    /// Reads the body and has its extract kept. What it answers holds after a crash.
    pub async fn take(&self, _slot: Slot, protocol: Protocol, body: Bytes) -> Result<Rejected, Refused> {
        let share = u32::try_from(kib(body.len())).unwrap_or(u32::MAX);
        let _held = Arc::clone(&self.memory).try_acquire_many_owned(share).map_err(|_| NotKept::Overloaded)?;
        let read = match protocol {
            Protocol::HttpJson => read_json(&body, &self.rules),
            Protocol::Grpc | Protocol::HttpProtobuf => read_protobuf(&body, &self.rules),
        };
        drop(body);
        let Batch { extract, rejected, services } = read?;
        let spans = extract.len();
        if !extract.is_empty() {
            (self.keeper.keep)(extract.into_bytes()).await?;
        }
        self.count(protocol, spans, &rejected, &services);
        Ok(rejected)
    }

    /// A body of another signal, which is accepted and not looked at.
    pub fn ignore(&self, signal: &'static str) {
        self.meters.ignored_signals.with_label_values(&[signal]).inc();
    }

    /// Counts a body that was refused whole.
    pub fn refuse(&self, protocol: Protocol, reason: &'static str) {
        self.meters.bodies_refused.with_label_values(&[protocol.label(), reason]).inc();
        tracing::debug!(protocol = protocol.label(), reason, "body refused");
    }

    fn count(&self, protocol: Protocol, accepted: usize, rejected: &Rejected, services: &[Arc<Origin>]) {
        let spans = |result| self.meters.spans.with_label_values(&[protocol.label(), result]);
        spans("accepted").inc_by(accepted as u64);
        spans("rejected").inc_by(rejected.count);
        if rejected.count > 0 {
            tracing::warn!(spans = rejected.count, error = rejected.message(), "bad spans rejected");
        }
        for origin in services {
            (self.meters.seen)(origin.service.as_deref().unwrap_or("unknown"));
        }
    }
}

fn kib(bytes: usize) -> usize {
    bytes.div_ceil(1024).max(1)
}
