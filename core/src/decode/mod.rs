//! From the bytes of an OTLP request to a usage extract: protobuf and JSON, one table of attribute keys for both. It never copies an
//! attribute that is not in that table. Of protobuf it accepts and refuses what a full decoder does; of JSON it takes what can be
//! understood, and counts the rest.

mod extract;
mod json;
mod lookup;
mod shrink;
mod unread;
mod wire;

use std::sync::Arc;

use crate::domain::extract::Extract;
use crate::domain::span::Origin;
use lookup::Lookup;
pub use shrink::{NotShrunk, Shrinker};
pub use unread::Unread;

/// Attribute keys that are tried before those of the table, by what they name.
#[derive(Clone, Copy, Debug, Default)]
pub struct OwnKeys<'k> {
    pub user: &'k [String],
    pub tenant: &'k [String],
    pub agent: &'k [String],
}

/// What the readers go by.
pub struct Rules {
    lookup: Lookup,
    /// Keep the messages of failed spans: they may quote content.
    error_messages: bool,
}

impl Rules {
    pub fn new(keys: OwnKeys<'_>, error_messages: bool) -> Self {
        Self { lookup: Lookup::new(keys.user, keys.tenant, keys.agent), error_messages }
    }
}

/// The spans of one body.
#[derive(Debug, Default, PartialEq)]
pub struct Batch {
    pub extract: Extract,
    pub rejected: Rejected,
    /// Values that were wanted and could not be read. Protobuf has none.
    pub unread: Unread,
    /// The services that spans came from, each once.
    pub services: Vec<Arc<Origin>>,
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
    fn comes_from(&mut self, origin: &Arc<Origin>) {
        if self.services.iter().all(|known| known.service != origin.service) {
            self.services.push(Arc::clone(origin));
        }
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
