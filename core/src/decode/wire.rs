//! A walk over the bytes of an OTLP `ExportTraceServiceRequest` in protobuf. It copies only what the dialect lists, yet it
//! accepts and refuses exactly what a full decoder accepts and refuses: every string is checked, every length, every nesting.

use super::extract::{Extractor, Head, Raw, ResourceReader, is_printable};
use super::lookup::Meaning;
use super::{Batch, Malformed, Rules};
use crate::domain::facts::Field;
use habits::Habits;
use protobuf::{Cursor, Fault, Plain, Wire, text};
use shape::Message;
use value::Value;

mod habits;
mod protobuf;
mod shape;
mod value;

/// Places made ready at once: what says it is a span may be none.
const MOST_RESERVED: usize = 1024;
/// Bytes of the extract of a span, as a guess.
const USUAL_SPAN: usize = 160;

/// Reads a whole body or refuses it whole; single bad spans are rejected within the batch.
pub(super) fn read(body: &[u8], rules: &Rules) -> Result<Batch, Malformed> {
    let (extractor, habits) = (Extractor::new(rules), Habits::none());
    let mut walk = Walk { extractor, batch: Batch::default(), spans: vec![], habits };
    match walk.request(body) {
        Ok(()) => Ok(walk.batch),
        Err(fault) => Err(Malformed(format!("{} at byte {}", fault.what, fault.offset_in(body)))),
    }
}

struct Walk<'a> {
    extractor: Extractor<'a>,
    batch: Batch,
    /// The spans of the scope being read. They wait until the scope's name is known, which may stand behind them.
    spans: Vec<&'a [u8]>,
    habits: Habits<'a>,
}

impl<'a> Walk<'a> {
    fn request(&mut self, bytes: &'a [u8]) -> Result<(), Fault> {
        let mut cursor = Cursor::new(bytes, protobuf::DEEPEST);
        while let Some((tag, wire)) = cursor.next()? {
            match tag {
                1 => self.resource_spans(cursor.nested(wire)?)?,
                _ => cursor.check(Message::Request, tag, wire)?,
            }
        }
        Ok(())
    }

    fn resource_spans(&mut self, mut cursor: Cursor<'a>) -> Result<(), Fault> {
        let mut resource = ResourceReader::default();
        let mut scopes = Vec::new();
        while let Some((tag, wire)) = cursor.next()? {
            match tag {
                1 => read_resource(cursor.nested(wire)?, &mut resource)?,
                2 => scopes.push(cursor.nested(wire)?),
                _ => cursor.check(Message::ResourceSpans, tag, wire)?,
            }
        }
        scopes.into_iter().try_for_each(|scope| self.scope_spans(scope, &resource))
    }

    fn scope_spans(&mut self, mut cursor: Cursor<'a>, resource: &ResourceReader) -> Result<(), Fault> {
        let mut scope = "";
        self.spans.clear();
        while let Some((tag, wire)) = cursor.next()? {
            match tag {
                1 => read_scope(cursor.nested(wire)?, &mut scope)?,
                2 => self.spans.push(cursor.nested(wire)?.rest()),
                _ => cursor.check(Message::ScopeSpans, tag, wire)?,
            }
        }
        let origin = resource.origin(scope);
        self.batch.comes_from(&origin);
        let spans = std::mem::take(&mut self.spans);
        self.batch.extract.reserve(spans.len().min(MOST_RESERVED) * USUAL_SPAN);
        for span in &spans {
            let head = read_span(cursor.deeper(span), &mut self.extractor, &mut self.habits)?;
            self.extractor.finish(&head, &origin, &mut self.batch);
        }
        self.spans = spans;
        Ok(())
    }
}

fn read_resource(mut cursor: Cursor<'_>, resource: &mut ResourceReader) -> Result<(), Fault> {
    while let Some((tag, wire)) = cursor.next()? {
        match tag {
            1 => {
                let (key, value) = read_attribute(cursor.nested(wire)?, ResourceReader::wants)?;
                if let Some(value) = value.filter(|_| ResourceReader::wants(key)) {
                    resource.attribute(key, value);
                }
            }
            _ => cursor.check(Message::Resource, tag, wire)?,
        }
    }
    Ok(())
}

fn read_scope<'a>(mut cursor: Cursor<'a>, name: &mut &'a str) -> Result<(), Fault> {
    while let Some((tag, wire)) = cursor.next()? {
        match tag {
            1 => *name = text(wire)?,
            _ => cursor.check(Message::Scope, tag, wire)?,
        }
    }
    Ok(())
}

fn read_span<'a>(
    mut cursor: Cursor<'a>,
    extractor: &mut Extractor<'a>,
    habits: &mut Habits<'a>,
) -> Result<Head<'a>, Fault> {
    let mut head = plain_head(&mut cursor);
    read_attributes(&mut cursor, extractor, habits)?;
    if let Some(flags) = cursor.plain_flags() {
        head.flags = flags;
    }
    let lookup = extractor.lookup();
    while let Some((tag, wire)) = cursor.next()? {
        match (tag, wire) {
            (1, Wire::Bytes(id)) => head.trace_id = id,
            (2, Wire::Bytes(id)) => head.span_id = id,
            (4, Wire::Bytes(id)) => head.parent = id,
            (5, Wire::Bytes(_)) => head.name = text(wire)?.as_bytes(),
            (6, Wire::Varint(kind)) => head.kind = protobuf::int32(kind),
            (7, Wire::Fixed64(time)) => head.start = time,
            (8, Wire::Fixed64(time)) => head.end = time,
            (9, Wire::Bytes(_)) => {
                read_listed(cursor.nested(wire)?, extractor, |key| lookup.span_key(key))?;
                read_attributes(&mut cursor, extractor, habits)?;
            }
            (16, Wire::Fixed32(flags)) => head.flags = flags,
            (11, Wire::Bytes(_)) => read_event(cursor.nested(wire)?, extractor)?,
            (15, Wire::Bytes(_)) => read_status(cursor.nested(wire)?, &mut head)?,
            _ => cursor.check(Message::Span, tag, wire)?,
        }
    }
    Ok(head)
}

/// The first fields of a span in the order in which every encoder writes them, as far as they are there.
#[inline]
fn plain_head<'a>(cursor: &mut Cursor<'a>) -> Head<'a> {
    let mut head = Head::default();
    head.trace_id = cursor.plain_bytes(1).unwrap_or(head.trace_id);
    head.span_id = cursor.plain_bytes(2).unwrap_or(head.span_id);
    head.parent = cursor.plain_bytes(4).unwrap_or(head.parent);
    let unnamed = cursor.clone();
    if let Some(name) = cursor.plain_bytes(5) {
        if protobuf::is_text(name) {
            head.name = name;
        } else {
            // The long way finds and reports it.
            *cursor = unnamed;
        }
    }
    head.kind = cursor.plain_varint(6).map_or(head.kind, i32::from);
    head.start = cursor.plain_fixed64(7).unwrap_or(head.start);
    head.end = cursor.plain_fixed64(8).unwrap_or(head.end);
    head
}

/// Reads attributes up to the next field that is none, or is too long.
#[inline]
fn read_attributes<'a>(
    cursor: &mut Cursor<'a>,
    extractor: &mut Extractor<'a>,
    habits: &mut Habits<'a>,
) -> Result<(), Fault> {
    let lookup = extractor.lookup();
    let mut habit = &mut habits.first;
    loop {
        let run = cursor.rest();
        let mut place = habit.skip_run(cursor);
        let told = loop {
            let before = cursor.rest();
            if habit.skip_part(place, cursor) {
                place += 1;
                continue;
            }
            let attribute = cursor.plain_bytes(9);
            let told = match attribute {
                Some(attribute) => read_listed(cursor.deeper(attribute), extractor, |key| habit.meanings(key, lookup))?,
                None => None,
            };
            if told.is_some() || attribute.is_none() {
                (habit.run, habit.length) = (&run[..run.len() - before.len()], place);
                break told;
            }
            if let Some(part) = habit.parts.get_mut(place) {
                *part = &before[..before.len() - cursor.rest().len()];
            }
            place += 1;
        };
        let Some(field) = told else { return Ok(()) };
        habit = &mut habits.after[field as usize];
    }
}

fn read_event<'a>(mut cursor: Cursor<'a>, extractor: &mut Extractor<'a>) -> Result<(), Fault> {
    while let Some((tag, wire)) = cursor.next()? {
        match tag {
            3 => {
                let lookup = extractor.lookup();
                read_listed(cursor.nested(wire)?, extractor, |key| lookup.event_key(key))?;
            }
            _ => cursor.check(Message::Event, tag, wire)?,
        }
    }
    Ok(())
}

fn read_status<'a>(mut cursor: Cursor<'a>, head: &mut Head<'a>) -> Result<(), Fault> {
    const ERROR: i32 = 2;
    while let Some((tag, wire)) = cursor.next()? {
        match (tag, wire) {
            (2, Wire::Bytes(_)) => head.message = text(wire)?,
            (3, Wire::Varint(code)) => head.failed = protobuf::int32(code) == ERROR,
            _ => cursor.check(Message::Status, tag, wire)?,
        }
    }
    Ok(())
}

/// Reads an attribute; the (first) field it tells, if it is on the list.
#[inline]
fn read_listed<'a>(
    cursor: Cursor<'a>,
    extractor: &mut Extractor<'a>,
    mut meanings: impl FnMut(&'a [u8]) -> &'a [Meaning],
) -> Result<Option<Field>, Fault> {
    // As nearly all are. What is written otherwise goes the long way.
    if let Some((key, value)) = protobuf::plain_attribute(cursor.rest()) {
        match meanings(key) {
            [] if is_valid(cursor.rest(), key, value) => return Ok(None),
            [] => {}
            meanings => {
                if let Some(raw) = raw(value) {
                    extractor.attribute(meanings, raw);
                    return Ok(Some(meanings[0].field));
                }
            }
        }
    }
    let (key, value) = read_attribute(cursor, |key| !meanings(key).is_empty())?;
    let meanings = meanings(key);
    if let Some(value) = value {
        extractor.attribute(meanings, value);
    }
    Ok(meanings.first().map(|meaning| meaning.field))
}

/// Whether the texts of an attribute nobody wants are UTF-8.
#[inline]
fn is_valid(attribute: &[u8], key: &[u8], value: Plain<'_>) -> bool {
    match value {
        Plain::Text(text) => attribute.is_ascii() || (protobuf::is_text(key) && protobuf::is_text(text)),
        _ => protobuf::is_text(key),
    }
}

#[inline]
fn raw(value: Plain<'_>) -> Option<Raw<'_>> {
    Some(match value {
        Plain::Text(text) if is_printable(text) => Raw::Printable(text),
        Plain::Text(text) => Raw::Text(std::str::from_utf8(text).ok()?),
        Plain::Bool(bool) => Raw::Bool(bool),
        Plain::Int(int) => Raw::Int(int),
        Plain::Double(double) => Raw::Double(double),
    })
}

/// The key and, if the key is wanted, what its value says. A value nobody wants is checked and passed over.
fn read_attribute<'a>(
    mut cursor: Cursor<'a>,
    mut wanted: impl FnMut(&'a [u8]) -> bool,
) -> Result<(&'a [u8], Option<Raw<'a>>), Fault> {
    let mut key: &[u8] = b"";
    let mut value = Value::Nothing;
    while let Some((tag, wire)) = cursor.next()? {
        match tag {
            1 => {
                let Wire::Bytes(bytes) = wire else { return Err(Fault::wrong_type(Message::KeyValue)) };
                // A listed key is valid as it equals one that is.
                if !wanted(bytes) {
                    text(wire)?;
                }
                key = bytes;
            }
            2 => value.merge(cursor.nested(wire)?)?,
            _ => cursor.check(Message::KeyValue, tag, wire)?,
        }
    }
    Ok((key, value.raw()))
}
