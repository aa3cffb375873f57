//! What is kept of a received OTLP span: its place in the trace and the allow-listed facts. Nothing else of it exists here.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::facts::Facts;
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
    /// The parent is of another process: it may never come, and nothing else above it will.
    pub remote_parent: bool,
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
    /// In the order of their numbers.
    pub const ALL: [Self; 6] =
        [Self::Unspecified, Self::Internal, Self::Server, Self::Client, Self::Producer, Self::Consumer];

    /// The number of the OTLP enum; numbers it does not know are `Unspecified`.
    pub fn from_otlp(number: i32) -> Self {
        usize::try_from(number).ok().and_then(|number| Self::ALL.get(number)).copied().unwrap_or_default()
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
