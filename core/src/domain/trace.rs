//! All that was received of one trace. Two of them join to the same whole in any order and with any repetition.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::ids::SpanId;
use super::span::{Origin, Span};
use super::time::Timestamp;

/// Spans under the resource and scope they came with.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trace {
    parts: Vec<Part>,
}

/// Since when each parent that has not come is waited for.
pub type Waits = BTreeMap<SpanId, Timestamp>;

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct Part {
    origin: Arc<Origin>,
    spans: Vec<Span>,
}

impl Trace {
    /// Adds a span as it came. Repeats stay until `joined`. Consecutive spans of one origin share a part.
    pub fn push(&mut self, origin: &Arc<Origin>, span: Span) {
        match self.parts.last_mut() {
            Some(part) if Arc::ptr_eq(&part.origin, origin) || part.origin == *origin => part.spans.push(span),
            _ => self.parts.push(Part { origin: Arc::clone(origin), spans: vec![span] }),
        }
    }

    /// The union of both in canonical form: parts by origin, spans by id, each id once. Of two versions of one span the greater
    /// stays, so that the order of arrival does not decide.
    #[must_use]
    pub fn joined(self, other: Self) -> Self {
        let parts = self.parts.into_iter().chain(other.parts);
        let mut spans: Vec<(Span, Arc<Origin>)> =
            parts.flat_map(|part| part.spans.into_iter().map(move |span| (span, Arc::clone(&part.origin)))).collect();
        // Greatest version first within an id, and then only the first of each id is kept.
        spans.sort_unstable_by(|a, b| a.0.id.cmp(&b.0.id).then_with(|| b.cmp(a)));
        spans.dedup_by_key(|(span, _)| span.id);
        let mut parts: BTreeMap<Arc<Origin>, Vec<Span>> = BTreeMap::new();
        for (span, origin) in spans {
            parts.entry(origin).or_default().push(span);
        }
        Self { parts: parts.into_iter().map(|(origin, spans)| Part { origin, spans }).collect() }
    }

    pub fn spans(&self) -> impl Iterator<Item = (&Origin, &Span)> {
        self.parts.iter().flat_map(|part| part.spans.iter().map(|span| (&*part.origin, span)))
    }
}
