//! The door for spans: OTLP over gRPC and HTTP, protobuf and JSON. It takes a slot in the queue, reads the body into usage
//! extracts, hands them on and answers. It never keeps data of its own and never copies an attribute that is not on the list.

mod answer;
mod dialect;
mod extract;
pub mod grpc;
pub mod http;
mod inflate;
mod json;
mod wire;

use std::sync::Arc;
use std::time::Duration;

use bytesize::ByteSize;
use prometheus::IntCounterVec;
use serde::Deserialize;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

pub use dialect::Dialect;

use crate::domain::span::Received;

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

impl Default for IngestConfig {
    fn default() -> Self {
        Self { max_body: ByteSize::mib(16), user_keys: vec![], tenant_keys: vec![], agent_keys: vec![] }
    }
}

/// What the readers go by.
pub struct Rules {
    dialect: Dialect,
    /// Keep the messages of failed spans: they may quote content.
    error_messages: bool,
}

impl Rules {
    pub fn new(config: &IngestConfig, error_messages: bool) -> Self {
        let dialect = Dialect::new(&config.user_keys, &config.tenant_keys, &config.agent_keys);
        Self { dialect, error_messages }
    }
}

/// The spans of one body.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Batch {
    pub spans: Vec<Received>,
    pub rejected: Rejected,
}

/// The spans of a body that could not be taken.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Rejected {
    pub count: u64,
    /// The first few, by id and fault.
    named: Vec<String>,
}

/// Most bad spans named in an answer.
const MOST_NAMED: usize = 5;

impl Batch {
    fn push(&mut self, span: Received) {
        self.spans.push(span);
    }

    fn reject(&mut self, bad: BadSpan, span_id: &[u8]) {
        self.rejected.count += 1;
        if self.rejected.named.len() < MOST_NAMED {
            let id: String = span_id.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
            self.rejected.named.push(format!("span {id}: {bad}"));
        }
    }
}

impl Rejected {
    /// One line for the answer's `error_message`; empty where nothing was rejected.
    pub fn message(&self) -> String {
        let unnamed = self.count.saturating_sub(self.named.len() as u64);
        let more = if unnamed > 0 { format!("; and {unnamed} more") } else { String::new() };
        format!("{}{more}", self.named.join("; "))
    }
}

/// Why a single span cannot be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadSpan {
    #[error("trace id is missing or not 16 bytes")]
    TraceId,
    #[error("span id is missing or not 8 bytes")]
    SpanId,
    #[error("parent span id is not 8 bytes")]
    ParentId,
    #[error("start time is missing or after the year 2199")]
    StartTime,
    #[error("end time is before the start time")]
    EndBeforeStart,
}

/// The body is no OTLP request: what is wrong and where. Names no value of the body.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(String);

/// Reads a protobuf body.
pub fn read_protobuf(body: &[u8], rules: &Rules) -> Result<Batch, Malformed> {
    wire::read(body, rules)
}

/// Reads a JSON body.
pub fn read_json(body: &[u8], rules: &Rules) -> Result<Batch, Malformed> {
    json::read(body, rules)
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

/// Spans on their way, with the share of the queue's memory they hold.
pub struct Delivery {
    pub spans: Vec<Received>,
    /// Given back when the spans were taken over.
    pub held: OwnedSemaphorePermit,
}

/// Most deliveries in the queue, those being read included.
const MOST_DELIVERIES: usize = 256;
/// Most KiB of bodies whose spans wait in the queue.
const MOST_KIB: usize = 64 * 1024;
/// When a client that was refused may come again.
pub const RETRY_AFTER: Duration = Duration::from_secs(1);

/// A body that is not here by then holds its slot no longer: exporters give up after ten seconds.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// Full: the client keeps the data and comes again.
#[derive(Debug, thiserror::Error)]
#[error("too many spans wait to be stored; try again")]
pub struct Overloaded;

#[derive(Debug, thiserror::Error)]
pub enum Refused {
    #[error(transparent)]
    Overloaded(#[from] Overloaded),
    #[error("malformed body: {0}")]
    Malformed(#[from] Malformed),
}

impl Refused {
    /// Metric label.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Overloaded(_) => "overloaded",
            Self::Malformed(_) => "malformed",
        }
    }
}

/// The way in, shared by all connections.
#[derive(Clone)]
pub struct Intake {
    queue: mpsc::Sender<Delivery>,
    memory: Arc<Semaphore>,
    rules: Arc<Rules>,
    meters: IngestMeters,
    /// Largest body after decompression, in bytes.
    pub max_body: usize,
}

/// A place in the queue, taken before any work is done.
#[must_use = "a slot is a place others wait for"]
pub struct Slot {
    place: mpsc::OwnedPermit<Delivery>,
}

impl Intake {
    /// The queue's other end goes to whoever takes the spans.
    pub fn new(config: &IngestConfig, rules: Rules, meters: IngestMeters) -> (Self, mpsc::Receiver<Delivery>) {
        let (queue, deliveries) = mpsc::channel(MOST_DELIVERIES);
        let max_body = usize::try_from(config.max_body.as_u64()).unwrap_or(usize::MAX);
        // A body of the largest size must find room in an empty queue.
        let memory = Arc::new(Semaphore::new(MOST_KIB.max(kib(max_body))));
        (Self { queue, memory, rules: Arc::new(rules), meters, max_body }, deliveries)
    }

    pub fn slot(&self) -> Result<Slot, Overloaded> {
        self.queue.clone().try_reserve_owned().map(|place| Slot { place }).map_err(|_| Overloaded)
    }

    /// Reads the body and puts its spans into the slot. This is where the journal will make them durable before the answer;
    /// until then an answer means: taken into a bounded queue.
    pub fn take(&self, slot: Slot, protocol: Protocol, body: &[u8]) -> Result<Rejected, Refused> {
        let share = u32::try_from(kib(body.len())).unwrap_or(u32::MAX);
        let Ok(held) = Arc::clone(&self.memory).try_acquire_many_owned(share) else {
            return Err(Overloaded.into());
        };
        let read = match protocol {
            Protocol::HttpJson => read_json(body, &self.rules),
            Protocol::Grpc | Protocol::HttpProtobuf => read_protobuf(body, &self.rules),
        };
        let batch = read?;
        self.count(protocol, &batch);
        if !batch.spans.is_empty() {
            slot.place.send(Delivery { spans: batch.spans, held });
        }
        Ok(batch.rejected)
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

    fn count(&self, protocol: Protocol, batch: &Batch) {
        let spans = |result| self.meters.spans.with_label_values(&[protocol.label(), result]);
        spans("accepted").inc_by(batch.spans.len() as u64);
        spans("rejected").inc_by(batch.rejected.count);
        if batch.rejected.count > 0 {
            tracing::warn!(spans = batch.rejected.count, named = batch.rejected.message(), "bad spans rejected");
        }
        let mut last: Option<&Received> = None;
        for received in &batch.spans {
            // Spans of one service come together: tell once a run.
            if last.is_none_or(|last| last.origin.service != received.origin.service) {
                (self.meters.seen)(received.origin.service.as_deref().unwrap_or("unknown"));
            }
            last = Some(received);
        }
    }
}

fn kib(bytes: usize) -> usize {
    bytes.div_ceil(1024).max(1)
}
