//! What is kept of a received OTLP span: its place in the trace and the allow-listed facts. Nothing else of it exists here.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::ids::{SpanId, TraceId};
use super::time::Timestamp;

/// A span just read, with the trace it belongs to and the resource and scope it came under.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received {
    pub trace_id: TraceId,
    pub origin: Arc<Origin>,
    pub span: Span,
}

/// What all spans of one resource and scope share.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Origin {
    /// `service.name`.
    pub service: Option<Box<str>>,
    /// `service.instance.id`, else the host or pod name.
    pub instance: Option<Box<str>>,
    /// `service.namespace`, the fallback for the tenant.
    pub namespace: Option<Box<str>>,
    /// Name of the instrumentation scope.
    pub scope: Box<str>,
}

/// The usage extract of one span. The order is arbitrary but total: of two versions of one span the greater is kept.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Span {
    pub id: SpanId,
    pub parent: Option<SpanId>,
    pub kind: Kind,
    pub start: Timestamp,
    pub end: Timestamp,
    /// Status code ERROR.
    pub failed: bool,
    pub facts: Facts,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Kind {
    #[default]
    Unspecified,
    Internal,
    Server,
    Client,
    Producer,
    Consumer,
}

impl Kind {
    /// The number of the OTLP enum; numbers it does not know are `Unspecified`.
    pub fn from_otlp(number: i32) -> Self {
        match number {
            1 => Self::Internal,
            2 => Self::Server,
            3 => Self::Client,
            4 => Self::Producer,
            5 => Self::Consumer,
            _ => Self::Unspecified,
        }
    }

    /// What stands in the place of an HTTP method for a request that is none.
    pub fn label(self) -> &'static str {
        match self {
            Self::Unspecified | Self::Internal => "INTERNAL",
            Self::Server => "SERVER",
            Self::Client => "CLIENT",
            Self::Producer => "PRODUCER",
            Self::Consumer => "CONSUMER",
        }
    }
}

/// The allow-listed facts of a span: at most one value a field, in the order of the fields, their texts in one string.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Facts {
    text: Box<str>,
    items: Box<[(Field, Fact)]>,
}

/// Text is a range of `Facts::text`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
enum Fact {
    Number(u64),
    Text(u32, u32),
}

/// What a dialect can tell us. Every value that enters the house from an attribute enters under one of these names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[repr(u8)]
pub enum Field {
    /// Text: the span's name; kept for spans that may be a request.
    Name,
    HttpMethod,
    HttpRoute,
    HttpPath,
    HttpStatus,
    User,
    Tenant,
    Agent,
    /// Text: `chat`, `embeddings`, … only for operations that call a model.
    ModelOperation,
    Provider,
    RequestModel,
    ResponseModel,
    ServiceTier,
    /// Number: hash of the provider's id of the answer.
    ResponseId,
    InputTokens,
    /// Number: 1 where the dialect gives the input without its cached part.
    InputWithoutCache,
    OutputTokens,
    CachedInputTokens,
    CacheWriteTokens,
    ReasoningTokens,
    /// Number: 1 where a token count was present but no number a call could have.
    ImplausibleTokens,
    /// Number: nano-dollars as the instrumentation reckoned them.
    ReportedCost,
    Streaming,
    /// Number: nanoseconds.
    TimeToFirstToken,
    ErrorType,
    /// Text: only where the operator asked for error messages.
    ErrorMessage,
}

impl Field {
    /// How many fields there are.
    pub const COUNT: usize = Self::ErrorMessage as usize + 1;
}

impl Facts {
    /// The number stored under this field.
    pub fn number(&self, field: Field) -> Option<u64> {
        match self.get(field)? {
            Fact::Number(number) => Some(number),
            Fact::Text(..) => None,
        }
    }

    /// The text stored under this field.
    pub fn text(&self, field: Field) -> Option<&str> {
        match self.get(field)? {
            Fact::Text(start, end) => self.text.get(start as usize..end as usize),
            Fact::Number(_) => None,
        }
    }

    pub fn has(&self, field: Field) -> bool {
        self.get(field).is_some()
    }

    /// Bytes on the heap, for the bounds of the queues.
    pub fn size(&self) -> usize {
        self.text.len() + size_of_val(&*self.items)
    }

    fn get(&self, field: Field) -> Option<Fact> {
        self.items.iter().find(|(name, _)| *name == field).map(|(_, fact)| *fact)
    }
}

/// Collects the facts of one span after the other, reusing its buffers.
#[derive(Default)]
pub struct FactsBuilder {
    text: String,
    items: Vec<(Field, Fact)>,
}

impl FactsBuilder {
    /// Fields must come in their order, each at most once.
    pub fn number(&mut self, field: Field, number: u64) {
        self.push(field, Fact::Number(number));
    }

    /// Fields must come in their order, each at most once.
    pub fn text(&mut self, field: Field, text: &str) {
        let position = |length: usize| u32::try_from(length).expect("texts are cut long before 4 GiB");
        let start = position(self.text.len());
        self.text.push_str(text);
        self.push(field, Fact::Text(start, position(self.text.len())));
    }

    /// Hands out what was collected and starts anew.
    pub fn take(&mut self) -> Facts {
        let facts = Facts { text: self.text.as_str().into(), items: self.items.as_slice().into() };
        self.text.clear();
        self.items.clear();
        facts
    }

    fn push(&mut self, field: Field, fact: Fact) {
        assert!(self.items.last().is_none_or(|(last, _)| *last < field), "{field:?} comes out of order or twice");
        self.items.push((field, fact));
    }
}
