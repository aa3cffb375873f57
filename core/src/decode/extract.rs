//! From attributes to facts: what both readers, protobuf and JSON, do with a span once they have found it. Whatever is not on
//! the dialect's list is never copied. Values become typed in `values`, once.

mod values;

use std::sync::Arc;

use super::dialect::{self, Dialect, Meaning, resource};
use super::{BadSpan, Batch, Rules};
use crate::domain::facts::{Facts, FactsBuilder, Field};
use crate::domain::ids::{SpanId, TraceId};
use crate::domain::span::{Kind, Origin, Span};
use crate::domain::time::Timestamp;
use values::{Held, LONGEST_MESSAGE, LONGEST_NAME, Reading, clean, plain, read};
pub(super) use values::{Raw, is_printable};

/// The parts of a span that are not attributes, as they stand in the body.
#[derive(Default)]
pub(super) struct Head<'a> {
    pub trace_id: &'a [u8],
    pub span_id: &'a [u8],
    pub parent: &'a [u8],
    /// UTF-8.
    pub name: &'a [u8],
    pub kind: i32,
    pub start: u64,
    pub end: u64,
    pub failed: bool,
    pub message: &'a str,
    #[expect(dead_code, reason = "nobody asks for it yet")]
    pub flags: u32,
}

/// Collects one span after the other. Lives as long as the body it reads.
pub(super) struct Extractor<'a> {
    rules: &'a Rules,
    /// One place a field; the ranks decide which of several keys stays.
    slots: [(u8, Held<'a>); Field::COUNT],
    /// Bit `n` is set where slot `n` holds something of the present span.
    taken: u32,
}

const _: () = assert!(Field::COUNT <= 32, "the bits of Extractor::taken");

impl<'a> Extractor<'a> {
    pub(super) fn new(rules: &'a Rules) -> Self {
        let slots = std::array::from_fn(|_| (0, Held::Number(0)));
        Self { rules, slots, taken: 0 }
    }

    pub(super) fn dialect(&self) -> &'a Dialect {
        &self.rules.dialect
    }

    /// Takes an attribute under each of its meanings, unless a key of better rank was there. Of a key that comes twice the first counts.
    #[inline(always)]
    pub(super) fn attribute(&mut self, meanings: &[Meaning], value: Raw<'a>) {
        if let [Meaning { field, rank, unit }] = meanings
            && let Some(held) = plain(*unit, value)
        {
            return self.hold(*field, *rank, held);
        }
        self.any_attribute(meanings, value);
    }

    fn any_attribute(&mut self, meanings: &[Meaning], value: Raw<'a>) {
        for meaning in meanings {
            match read(meaning.unit, value) {
                Reading::Value(held) => self.hold(meaning.field, meaning.rank, held),
                Reading::Implausible => self.hold(Field::ImplausibleTokens, 0, Held::Number(1)),
                Reading::Absent => {}
            }
        }
    }

    /// Ends the span: into the batch it goes, or among the rejected ones.
    pub(super) fn finish(&mut self, head: &Head<'a>, origin: &Arc<Origin>, batch: &mut Batch) {
        if dialect::input_lacks_cache(&origin.scope) {
            self.hold(Field::InputWithoutCache, 0, Held::Number(1));
        }
        match self.span(head) {
            Ok((trace_id, span)) => {
                batch.extract.push(origin, trace_id, &span, |facts| self.collect(facts));
            }
            Err(bad) => batch.reject(bad, head.span_id),
        }
        self.taken = 0;
    }

    /// Without its facts.
    fn span(&mut self, head: &Head<'a>) -> Result<(TraceId, Span), BadSpan> {
        let trace_id = TraceId::from_bytes(head.trace_id).ok_or(BadSpan::TraceId)?;
        let id = SpanId::from_bytes(head.span_id).ok_or(BadSpan::SpanId)?;
        let parent = match head.parent {
            // Some senders write "no parent" as an id of zeros.
            [] | [0, 0, 0, 0, 0, 0, 0, 0] => None,
            bytes => Some(SpanId::from_bytes(bytes).ok_or(BadSpan::ParentId)?),
        };
        let (start, end) = (Timestamp(head.start), Timestamp(head.end));
        if head.start == 0 || start > Timestamp::LATEST {
            return Err(BadSpan::StartTime);
        }
        if end < start {
            return Err(BadSpan::EndBeforeStart);
        }
        let kind = Kind::from_otlp(head.kind);
        if kind != Kind::Server {
            self.taken &= !HTTP_FIELDS;
        }
        if kind == Kind::Server || parent.is_none() {
            self.hold_text(Field::Name, head.name, LONGEST_NAME);
        }
        if head.failed && self.rules.error_messages {
            self.hold_text(Field::ErrorMessage, head.message.as_bytes(), LONGEST_MESSAGE);
        }
        Ok((trace_id, Span { id, parent, kind, start, end, failed: head.failed, facts: Facts::default() }))
    }

    fn hold_text(&mut self, field: Field, text: &'a [u8], longest: usize) {
        if is_printable(text) && (1..=longest).contains(&text.len()) {
            self.hold(field, 0, Held::Printable(text));
        } else if let Ok(text) = std::str::from_utf8(text)
            && !text.is_empty()
        {
            self.hold(field, 0, Held::Text(clean(text, longest)));
        }
    }

    #[inline(always)]
    fn hold(&mut self, field: Field, rank: u8, held: Held<'a>) {
        let (slot, bit) = (field as usize, 1 << field as u32);
        if self.taken & bit == 0 || rank < self.slots[slot].0 {
            self.slots[slot] = (rank, held);
            self.taken |= bit;
        }
    }

    fn collect(&self, facts: &mut FactsBuilder) {
        let mut taken = self.taken;
        while taken != 0 {
            let position = taken.trailing_zeros() as usize;
            taken &= taken - 1;
            match &self.slots[position].1 {
                Held::Number(number) => facts.number(Field::ALL[position], *number),
                Held::Text(text) => facts.text(Field::ALL[position], text),
                Held::Printable(text) => facts.ascii(Field::ALL[position], text),
            }
        }
    }
}

/// What HTTP says counts on server spans only; clients and `http send` spans carry the same keys.
const HTTP_FIELDS: u32 = 1 << Field::HttpMethod as u32
    | 1 << Field::HttpRoute as u32
    | 1 << Field::HttpPath as u32
    | 1 << Field::HttpStatus as u32;

/// Collects the attributes of a resource; of a repeated key the first counts.
#[derive(Default)]
pub(super) struct ResourceReader {
    origin: Origin,
    /// Place in `resource::INSTANCE` of the key that gave the instance.
    instance_rank: Option<usize>,
}

impl ResourceReader {
    pub(super) fn wants(key: &[u8]) -> bool {
        [resource::SERVICE, resource::NAMESPACE].iter().chain(resource::INSTANCE).any(|known| known.as_bytes() == key)
    }

    pub(super) fn attribute(&mut self, key: &[u8], value: Raw<'_>) {
        let Raw::Text(text) = value else { return };
        if text.is_empty() {
            return;
        }
        let named = || Some(Box::from(clean(text, LONGEST_NAME)));
        if key == resource::SERVICE.as_bytes() {
            self.origin.service = self.origin.service.take().or_else(named);
        } else if key == resource::NAMESPACE.as_bytes() {
            self.origin.namespace = self.origin.namespace.take().or_else(named);
        } else if let Some(rank) = resource::INSTANCE.iter().position(|known| known.as_bytes() == key)
            && self.instance_rank.is_none_or(|held| rank < held)
        {
            self.instance_rank = Some(rank);
            self.origin.instance = named();
        }
    }

    pub(super) fn origin(&self, scope: &str) -> Arc<Origin> {
        Arc::new(Origin { scope: clean(scope, LONGEST_NAME).into(), ..self.origin.clone() })
    }
}
