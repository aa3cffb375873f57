//! A walk over the bytes of an OTLP `ExportTraceServiceRequest` in protobuf. It copies only what the dialect lists, yet it
//! accepts and refuses exactly what a full decoder accepts and refuses: every string is checked, every length, every nesting.

use super::dialect::Meaning;
use super::extract::{Extractor, Head, Raw, ResourceReader};
use super::{Batch, Malformed, Rules};
use protobuf::{Cursor, Fault, Message, Wire, check, text};

mod protobuf;

/// Reads a whole body or refuses it whole; single bad spans are rejected within the batch.
pub(super) fn read(body: &[u8], rules: &Rules) -> Result<Batch, Malformed> {
    let mut walk = Walk { extractor: Extractor::new(rules), batch: Batch::default(), spans: Vec::new() };
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
        let spans = std::mem::take(&mut self.spans);
        for span in &spans {
            let head = read_span(cursor.deeper(span), &mut self.extractor)?;
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

fn read_span<'a>(mut cursor: Cursor<'a>, extractor: &mut Extractor<'a>) -> Result<Head<'a>, Fault> {
    let mut head = Head::default();
    let dialect = extractor.dialect();
    loop {
        // Most fields of a span are attributes.
        while let Some(attribute) = cursor.short_field(9) {
            read_listed(cursor.deeper(attribute), extractor, |key| dialect.span_key(key))?;
        }
        let Some((tag, wire)) = cursor.next()? else { return Ok(head) };
        match (tag, wire) {
            (9, Wire::Bytes(_)) => read_listed(cursor.nested(wire)?, extractor, |key| dialect.span_key(key))?,
            (1, Wire::Bytes(id)) => head.trace_id = id,
            (2, Wire::Bytes(id)) => head.span_id = id,
            (4, Wire::Bytes(id)) => head.parent = id,
            (5, Wire::Bytes(_)) => head.name = text(wire)?,
            (6, Wire::Varint(kind)) => head.kind = protobuf::int32(kind),
            (7, Wire::Fixed64(time)) => head.start = time,
            (8, Wire::Fixed64(time)) => head.end = time,
            (11, Wire::Bytes(_)) => read_event(cursor.nested(wire)?, extractor)?,
            (15, Wire::Bytes(_)) => read_status(cursor.nested(wire)?, &mut head)?,
            _ => cursor.check(Message::Span, tag, wire)?,
        }
    }
}

fn read_event<'a>(mut cursor: Cursor<'a>, extractor: &mut Extractor<'a>) -> Result<(), Fault> {
    while let Some((tag, wire)) = cursor.next()? {
        match tag {
            3 => {
                let dialect = extractor.dialect();
                read_listed(cursor.nested(wire)?, extractor, |key| dialect.event_key(key))?;
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

fn read_listed<'a>(
    cursor: Cursor<'a>,
    extractor: &mut Extractor<'a>,
    meanings: impl Fn(&[u8]) -> &'a [Meaning],
) -> Result<(), Fault> {
    // As every encoder writes it: key, then value, nothing else. What is written otherwise goes the long way.
    if let Some((key, value)) = protobuf::plain_attribute(cursor.rest()) {
        let meanings = meanings(key);
        if meanings.is_empty() {
            if protobuf::is_text(key) && protobuf::is_plain_scalar(value) {
                return Ok(());
            }
        } else if let Some(raw) = plain_scalar(value) {
            extractor.attribute(meanings, raw);
            return Ok(());
        }
    }
    let (key, value) = read_attribute(cursor, |key| !meanings(key).is_empty())?;
    if let Some(value) = value {
        extractor.attribute(meanings(key), value);
    }
    Ok(())
}

fn plain_scalar(value: &[u8]) -> Option<Raw<'_>> {
    match protobuf::plain_value(value)? {
        (1, Wire::Bytes(text)) => std::str::from_utf8(text).ok().map(Raw::Text),
        (2, Wire::Varint(bool)) => Some(Raw::Bool(bool != 0)),
        (3, Wire::Varint(int)) => Some(Raw::Int(int.cast_signed())),
        (4, Wire::Fixed64(bits)) => Some(Raw::Double(f64::from_bits(bits))),
        _ => None,
    }
}

/// The key and, if the key is wanted, what its value says. A value nobody wants is checked and passed over.
fn read_attribute<'a>(
    mut cursor: Cursor<'a>,
    wanted: impl Fn(&[u8]) -> bool,
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

/// An `AnyValue` being read. A field that comes again replaces the value before it; arrays are joined.
enum Value<'a> {
    Nothing,
    Scalar(Raw<'a>),
    /// Its first element, if that is a text; `None` while there is no element.
    Array(Option<Option<&'a str>>),
    /// Bytes, lists of attributes: nothing on the list has such a value.
    Other,
}

impl<'a> Value<'a> {
    fn merge(&mut self, mut cursor: Cursor<'a>) -> Result<(), Fault> {
        while let Some((tag, wire)) = cursor.next()? {
            match (tag, wire) {
                (1, Wire::Bytes(_)) => *self = Self::Scalar(Raw::Text(text(wire)?)),
                (2, Wire::Varint(bool)) => *self = Self::Scalar(Raw::Bool(bool != 0)),
                (3, Wire::Varint(int)) => *self = Self::Scalar(Raw::Int(int.cast_signed())),
                (4, Wire::Fixed64(bits)) => *self = Self::Scalar(Raw::Double(f64::from_bits(bits))),
                (5, Wire::Bytes(_)) => self.merge_array(cursor.nested(wire)?)?,
                (6, Wire::Bytes(_)) => {
                    check(Message::KeyValueList, cursor.nested(wire)?)?;
                    *self = Self::Other;
                }
                (7, Wire::Bytes(_)) | (8, Wire::Varint(_)) => *self = Self::Other,
                _ => cursor.check(Message::AnyValue, tag, wire)?,
            }
        }
        Ok(())
    }

    fn merge_array(&mut self, mut cursor: Cursor<'a>) -> Result<(), Fault> {
        let mut first = match self {
            Self::Array(first) => *first,
            _ => None,
        };
        while let Some((tag, wire)) = cursor.next()? {
            match tag {
                1 if first.is_none() => {
                    let mut element = Value::Nothing;
                    element.merge(cursor.nested(wire)?)?;
                    first = Some(match element {
                        Value::Scalar(Raw::Text(text)) => Some(text),
                        _ => None,
                    });
                }
                _ => cursor.check(Message::ArrayValue, tag, wire)?,
            }
        }
        *self = Self::Array(first);
        Ok(())
    }

    fn raw(&self) -> Option<Raw<'a>> {
        match self {
            Self::Scalar(raw) => Some(*raw),
            Self::Array(Some(Some(text))) => Some(Raw::Text(text)),
            Self::Array(_) | Self::Nothing | Self::Other => None,
        }
    }
}
