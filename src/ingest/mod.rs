//! The way in for spans: OTLP over gRPC and HTTP, protobuf and JSON. It takes a slot, reads the body into a usage
//! extract, has it kept and answers. It never keeps data of its own and never copies an attribute that is not on the
//! list.

mod answer;
mod body;
mod coming;
pub mod grpc;
pub mod http;
mod inflate;

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use bytesize::ByteSize;
use prometheus::{IntCounter, IntCounterVec};
use serde::Deserialize;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use body::{Received, Refusal};
use coming::{Coming, Metered};

use tacho_core::decode::{Batch, Malformed, OwnKeys, Rejected, Rules, Unread, read_json, read_protobuf};
use tacho_core::domain::span::Origin;

/// The section `[ingest]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct IngestConfig {
    /// Most bytes of a body in memory. One may be larger by what nobody reads, prompts above all.
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
    /// Values that were wanted and could not be read.
    pub unreadable: IntCounter,
    /// Bodies that were lost because they are too large.
    pub too_large: IntCounter,
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
    /// Most bytes of a body in memory.
    max_body: usize,
}

/// What a sender is told of a body that was taken.
#[derive(Debug, Default)]
pub struct Taken {
    pub rejected: Rejected,
    pub unread: Unread,
}

impl Taken {
    /// One line; empty where nothing is missing.
    fn message(&self) -> String {
        let told = [self.rejected.message(), self.unread.message()];
        told.iter().filter(|part| !part.is_empty()).map(String::as_str).collect::<Vec<_>>().join("; ")
    }
}

/// A place among the bodies that are read, taken before any work is done.
#[must_use = "a slot is a place others wait for"]
pub struct Slot {
    _place: OwnedSemaphorePermit,
}

impl Intake {
    pub fn new(config: &IngestConfig, rules: Rules, meters: IngestMeters, keeper: Keeper) -> Self {
        let max_body = usize::try_from(config.max_body.as_u64()).unwrap_or(usize::MAX);
        // A body of the largest size must find room when there is no other, as it came and as it becomes.
        let most_kib = MOST_KIB.max(2 * kib(max_body));
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
    pub async fn take(&self, _slot: Slot, protocol: Protocol, body: Received) -> Result<Taken, Refused> {
        let Received { bytes: body, unread: left_out } = body;
        let share = u32::try_from(kib(body.len())).unwrap_or(u32::MAX);
        let _held = Arc::clone(&self.memory).try_acquire_many_owned(share).map_err(|_| NotKept::Overloaded)?;
        let read = match protocol {
            Protocol::HttpJson => read_json(&body, &self.rules),
            Protocol::Grpc | Protocol::HttpProtobuf => read_protobuf(&body, &self.rules),
        };
        drop(body);
        let Batch { extract, rejected, mut unread, services } = read?;
        unread.join(left_out);
        let spans = extract.len();
        if !extract.is_empty() {
            (self.keeper.keep)(extract.into_bytes()).await?;
        }
        let taken = Taken { rejected, unread };
        self.count(protocol, spans, &taken, &services);
        Ok(taken)
    }

    /// A body of another signal, which is accepted and not looked at.
    pub fn ignore(&self, signal: &'static str) {
        self.meters.ignored_signals.with_label_values(&[signal]).inc();
    }

    /// Counts a body that was refused whole.
    fn refuse(&self, protocol: Protocol, refusal: &Refusal) {
        let (protocol, reason) = (protocol.label(), refusal.label());
        self.meters.bodies_refused.with_label_values(&[protocol, reason]).inc();
        if let Refusal::TooLarge { sender, .. } = refusal {
            // No exporter sends it again.
            self.meters.too_large.inc();
            let service = sender.as_ref().and_then(|origin| origin.service.as_deref()).unwrap_or("unknown");
            tracing::warn!(protocol, service, error = %refusal, "body lost with all its spans");
        }
        tracing::debug!(protocol, reason, "body refused");
    }

    fn count(&self, protocol: Protocol, accepted: usize, taken: &Taken, services: &[Arc<Origin>]) {
        let Taken { rejected, unread } = taken;
        let spans = |result| self.meters.spans.with_label_values(&[protocol.label(), result]);
        spans("accepted").inc_by(accepted as u64);
        spans("rejected").inc_by(rejected.count);
        self.meters.unreadable.inc_by(unread.count);
        if rejected.count > 0 {
            tracing::warn!(spans = rejected.count, error = rejected.message(), "bad spans rejected");
        }
        if unread.count > 0 {
            let service = services.first().and_then(|origin| origin.service.as_deref()).unwrap_or("unknown");
            tracing::warn!(values = unread.count, service, error = unread.message(), "unreadable values passed over");
        }
        for origin in services {
            (self.meters.seen)(origin.service.as_deref().unwrap_or("unknown"));
        }
    }
}

fn kib(bytes: usize) -> usize {
    bytes.div_ceil(1024).max(1)
}
