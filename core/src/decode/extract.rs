//! From attributes to facts: what both readers, protobuf and JSON, do with a span once they have found it. Whatever is not on
//! the dialect's list is never copied. Values become typed in `values`, once.

mod values;

use std::sync::Arc;

use super::lookup::{JSON_RANK, Lookup, Meaning};
use super::{BadSpan, Batch, Rules};
use crate::dialect::{self, JsonRow, Unit, resource};
use crate::domain::facts::{Facts, FactsBuilder, Field};
use crate::domain::ids::{SpanId, TraceId};
use crate::domain::span::{Kind, Origin, Span};
use crate::domain::time::Timestamp;
use values::{Held, LONGEST_MESSAGE, LONGEST_NAME, Reading, clean, parsed, plain, read, value_at};
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
    pub flags: u32,
}

/// The flag that says that the parent is of another process.
const REMOTE_PARENT: u32 = 0x200;

/// Collects one span after the other. Lives as long as the body it reads.
pub(super) struct Extractor<'a> {
    rules: &'a Rules,
    /// One place a field; the ranks decide which of several keys stays.
    slots: [(u8, Held<'a>); Field::COUNT],
    /// Bit `n` is set where slot `n` holds something of the present span.
    taken: u64,
}

const _: () = assert!(Field::COUNT <= 64, "the bits of Extractor::taken");

impl<'a> Extractor<'a> {
    pub(super) fn new(rules: &'a Rules) -> Self {
        let slots = std::array::from_fn(|_| (0, Held::Number(0)));
        Self { rules, slots, taken: 0 }
    }

    pub(super) fn lookup(&self) -> &'a Lookup {
        &self.rules.lookup
    }

    /// Takes an attribute under each of its meanings, unless a key of better rank was there. Of a key that comes twice the first counts.
    #[inline(always)]
    pub(super) fn attribute(&mut self, meanings: &[Meaning], value: Raw<'a>) {
        if let [Meaning { field, rank, unit, mark }] = meanings
            && let Some(held) = plain(*unit, value)
        {
            self.hold(*field, *rank, held);
            return self.remember_key(*field, *rank, *mark);
        }
        self.any_attribute(meanings, value);
    }

    fn any_attribute(&mut self, meanings: &[Meaning], value: Raw<'a>) {
        for meaning in meanings {
            match meaning.unit {
                Unit::Json(rows) => self.json(rows, meaning.mark, value),
                unit => self.take(meaning.field, meaning.rank, meaning.mark, read(unit, value)),
            }
        }
    }

    fn take(&mut self, field: Field, rank: u8, mark: u16, reading: Reading<'a>) {
        match reading {
            Reading::Value(held) => {
                self.hold(field, rank, held);
                self.remember_key(field, rank, mark);
            }
            Reading::Implausible => self.hold(Field::ImplausibleTokens, 0, Held::Number(1)),
            Reading::Absent => {}
        }
    }

    /// Where the counts come from is told to whoever asks.
    #[inline(always)]
    fn remember_key(&mut self, field: Field, rank: u8, mark: u16) {
        match field {
            Field::InputTokens => self.hold(Field::InputKey, rank, Held::Number(mark.into())),
            Field::OutputTokens => self.hold(Field::OutputKey, rank, Held::Number(mark.into())),
            _ => {}
        }
    }

    /// Of a text of JSON, what the paths lead to.
    #[cold]
    fn json(&mut self, rows: &[JsonRow], mark: u16, value: Raw<'a>) {
        let document = parsed(value);
        for (rank, row) in (JSON_RANK..).zip(rows) {
            if row.path.is_empty() {
                self.take(row.field, rank, mark, read(row.unit, value));
            } else if let Some(value) = document.as_ref().and_then(|document| value_at(document, row.path)) {
                self.take(row.field, rank, mark, read(row.unit, value).into_owned());
            }
        }
    }

    /// Ends the span: into the batch it goes, or among the rejected ones.
    pub(super) fn finish(&mut self, head: &Head<'a>, origin: &Arc<Origin>, batch: &mut Batch) {
        match self.span(head, &origin.scope) {
            Ok((trace_id, span)) => {
                batch.extract.push(origin, trace_id, &span, |facts| self.collect(facts));
            }
            Err(bad) => batch.reject(bad, head.span_id),
        }
        self.taken = 0;
    }

    /// Without its facts.
    fn span(&mut self, head: &Head<'a>, scope: &str) -> Result<(TraceId, Span), BadSpan> {
        let trace_id = TraceId::from_bytes(head.trace_id).ok_or(BadSpan::TraceId)?;
        let id = SpanId::from_bytes(head.span_id).ok_or(BadSpan::SpanId)?;
        let parent = match head.parent {
            // Some senders write "no parent" as an id of zeros.
            [] | [0, 0, 0, 0, 0, 0, 0, 0] => None,
            bytes => Some(SpanId::from_bytes(bytes).ok_or(BadSpan::ParentId)?),
        };
        let start = Timestamp(head.start);
        if head.start == 0 || start > Timestamp::LATEST {
            return Err(BadSpan::StartTime);
        }
        // Clocks are set back: a span that ends before it starts took no time, and what it used was used.
        let end = Timestamp(head.end).max(start);
        let kind = Kind::from_otlp(head.kind);
        self.keep_what_counts(kind, head.failed);
        if kind == Kind::Server || parent.is_none() || self.names_a_request_or_call(kind, head.name, scope) {
            self.hold_text(Field::Name, head.name, LONGEST_NAME);
        }
        if head.failed && self.rules.error_messages {
            self.hold_text(Field::ErrorMessage, head.message.as_bytes(), LONGEST_MESSAGE);
        }
        let remote_parent = parent.is_some() && head.flags & REMOTE_PARENT != 0;
        let facts = Facts::default();
        Ok((trace_id, Span { id, parent, remote_parent, kind, start, end, failed: head.failed, facts }))
    }

    /// The same keys mean other things on other spans.
    #[inline]
    fn keep_what_counts(&mut self, kind: Kind, failed: bool) {
        if kind == Kind::Server {
            // It is the server itself.
            self.taken &= !HOST;
        } else {
            if failed && self.taken & HTTP_STATUS != 0 && self.taken & ERROR_CODE == 0 {
                self.slots.swap(Field::HttpStatus as usize, Field::ErrorCode as usize);
                self.taken |= ERROR_CODE;
            }
            self.taken &= !HTTP_FIELDS;
            // Of spans that call nobody it says nothing.
            if kind != Kind::Client && self.taken & MODEL_FIELDS == 0 {
                self.taken &= !HOST;
            }
        }
        if !failed {
            self.taken &= !ERROR_CODE;
        }
    }

    fn names_a_request_or_call(&self, kind: Kind, name: &[u8], scope: &str) -> bool {
        kind == Kind::Consumer || self.taken & MODEL_FIELDS != 0 || dialect::is_call_by_name(scope, name)
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
        let (slot, bit) = (field as usize, 1 << field as u64);
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

const fn bits(fields: &[Field]) -> u64 {
    let (mut bits, mut place) = (0, 0);
    while place < fields.len() {
        bits |= 1 << fields[place] as u64;
        place += 1;
    }
    bits
}

/// What HTTP says counts on server spans only; clients and `http send` spans carry the same keys.
const HTTP_FIELDS: u64 = bits(&[Field::HttpMethod, Field::HttpRoute, Field::HttpPath, Field::HttpStatus]);

const HTTP_STATUS: u64 = bits(&[Field::HttpStatus]);
const ERROR_CODE: u64 = bits(&[Field::ErrorCode]);
const HOST: u64 = bits(&[Field::Host]);

/// What only spans have that have to do with a model.
const MODEL_FIELDS: u64 = bits(&[
    Field::Operation,
    Field::Provider,
    Field::RequestModel,
    Field::ResponseModel,
    Field::InputTokens,
    Field::OutputTokens,
    Field::ReportedCost,
]);

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
