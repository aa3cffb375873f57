//! OTLP in JSON. Names are lowerCamelCase, ids hex, 64-bit numbers are texts or numbers; unknown names are passed over. As in
//! protobuf, only what the dialect lists is copied.
//!
//! What is odd costs itself and no neighbour: a value that cannot be read is counted, a span without ids and start is rejected.
//! Refused whole is only what is no JSON, and what is no object with `resourceSpans` as an array.

use std::borrow::Cow;
use std::sync::Arc;

use super::extract::{Extractor, Head, ResourceReader};
use super::lookup::Meaning;
use super::{Batch, Malformed, Rules};
use crate::domain::span::Origin;
pub(super) use cursor::{Cursor, plain_length};
use cursor::{Fault, Token};
use value::{Id, Value};

mod cursor;
mod value;

/// Reads a whole body.
pub(super) fn read(body: &[u8], rules: &Rules) -> Result<Batch, Malformed> {
    // Checked here, once and for all: what is passed over is not looked into.
    let body = std::str::from_utf8(body)
        .map_err(|error| Malformed(format!("text that is not UTF-8 at byte {}", error.valid_up_to())))?;
    let mut walk = Walk { rules, batch: Batch::default() };
    match walk.request(&mut Cursor::new(body)) {
        Ok(()) => Ok(walk.batch),
        Err(fault) => Err(Malformed(format!("{} at byte {}", fault.what, fault.at))),
    }
}

struct Walk<'r> {
    rules: &'r Rules,
    batch: Batch,
}

/// What is read of a span.
#[derive(Default)]
struct Span<'a> {
    trace_id: Id,
    id: Id,
    parent: Id,
    name: Cow<'a, str>,
    kind: i32,
    start: u64,
    end: u64,
    flags: u32,
    failed: bool,
    message: Cow<'a, str>,
    /// The attributes of the span and of its events that are on the list.
    listed: Vec<(&'a [Meaning], Value<'a>)>,
}

impl<'a> Walk<'a> {
    fn request(&mut self, cursor: &mut Cursor<'a>) -> Result<(), Fault> {
        if !cursor.is_object() {
            return Err(cursor.fault("a request that is no object"));
        }
        cursor.members(|cursor, name| match name {
            "resourceSpans" if cursor.is_array() => cursor.elements(|cursor| self.resource_spans(cursor)),
            "resourceSpans" => match cursor.token()? {
                Token::Null => Ok(()),
                _ => Err(cursor.fault("resourceSpans that are no array")),
            },
            _ => cursor.skip(),
        })?;
        cursor.end()
    }

    /// Spans that stand before their resource, as no exporter writes them, wait for it.
    fn resource_spans(&mut self, cursor: &mut Cursor<'a>) -> Result<(), Fault> {
        let (mut resource, mut waiting) = (None, Vec::new());
        self.object(cursor, "resourceSpans", |walk, cursor, name| match (name, &resource) {
            ("resource", _) => walk.resource(cursor, resource.get_or_insert_default()),
            ("scopeSpans", Some(resource)) => walk.scopes(cursor, resource),
            ("scopeSpans", None) => {
                waiting.push(cursor.same());
                cursor.skip()
            }
            _ => cursor.skip(),
        })?;
        let resource = resource.unwrap_or_default();
        waiting.iter_mut().try_for_each(|cursor| self.scopes(cursor, &resource))
    }

    fn resource(&mut self, cursor: &mut Cursor<'a>, resource: &mut ResourceReader) -> Result<(), Fault> {
        self.object(cursor, "resource", |walk, cursor, name| match name {
            "attributes" => walk.attributes(cursor, |walk, key, mut value| {
                if ResourceReader::wants(key.as_bytes())
                    && let Some(raw) = walk.value(key, &mut value)?.raw()
                {
                    resource.attribute(key.as_bytes(), raw);
                }
                Ok(())
            }),
            _ => cursor.skip(),
        })
    }

    fn scopes(&mut self, cursor: &mut Cursor<'a>, resource: &ResourceReader) -> Result<(), Fault> {
        self.array(cursor, "scopeSpans", |walk, cursor| walk.scope_spans(cursor, resource))
    }

    /// Spans that stand before their scope wait for it.
    fn scope_spans(&mut self, cursor: &mut Cursor<'a>, resource: &ResourceReader) -> Result<(), Fault> {
        let (mut origin, mut waiting) = (None, Vec::new());
        self.object(cursor, "scopeSpans", |walk, cursor, name| match (name, &origin) {
            ("scope", _) => {
                origin = Some(resource.origin(&walk.scope(cursor)?));
                Ok(())
            }
            ("spans", Some(origin)) => walk.spans(cursor, origin),
            ("spans", None) => {
                waiting.push(cursor.same());
                cursor.skip()
            }
            _ => cursor.skip(),
        })?;
        let origin = origin.unwrap_or_else(|| resource.origin(""));
        self.batch.comes_from(&origin);
        waiting.iter_mut().try_for_each(|cursor| self.spans(cursor, &origin))
    }

    fn scope(&mut self, cursor: &mut Cursor<'a>) -> Result<Cow<'a, str>, Fault> {
        let mut scope = Cow::default();
        self.object(cursor, "scope", |walk, cursor, name| match name {
            "name" => walk.scalar(cursor, "scope.name", value::text, &mut scope),
            _ => cursor.skip(),
        })?;
        Ok(scope)
    }

    fn spans(&mut self, cursor: &mut Cursor<'a>, origin: &Arc<Origin>) -> Result<(), Fault> {
        self.array(cursor, "spans", |walk, cursor| walk.span(cursor, origin))
    }

    fn span(&mut self, cursor: &mut Cursor<'a>, origin: &Arc<Origin>) -> Result<(), Fault> {
        let mut span = Span::default();
        if cursor.is_object() {
            cursor.members(|cursor, name| self.member(cursor, name, &mut span))?;
        } else {
            // Without ids it is rejected.
            cursor.skip()?;
        }
        let mut extractor = Extractor::new(self.rules);
        for (meanings, value) in &span.listed {
            if let Some(raw) = value.raw() {
                extractor.attribute(meanings, raw);
            }
        }
        extractor.finish(&span.head(), origin, &mut self.batch);
        Ok(())
    }

    fn member(&mut self, cursor: &mut Cursor<'a>, name: &str, span: &mut Span<'a>) -> Result<(), Fault> {
        let lookup = &self.rules.lookup;
        match name {
            "traceId" => span.trace_id = Id::read(cursor.token()?),
            "spanId" => span.id = Id::read(cursor.token()?),
            "parentSpanId" => span.parent = Id::read(cursor.token()?),
            "name" => self.scalar(cursor, "name", value::text, &mut span.name)?,
            "kind" => self.scalar(cursor, "kind", value::kind, &mut span.kind)?,
            "startTimeUnixNano" => span.start = value::time(cursor.token()?).unwrap_or_default(),
            "endTimeUnixNano" => self.scalar(cursor, "endTimeUnixNano", value::time, &mut span.end)?,
            "flags" => self.scalar(cursor, "flags", value::flags, &mut span.flags)?,
            "attributes" => {
                self.listed(cursor, &mut span.listed, |key| lookup.span_key(key.as_bytes()))?;
            }
            "events" => self.array(cursor, "events", |walk, cursor| {
                walk.object(cursor, "events", |walk, cursor, name| match name {
                    "attributes" => walk.listed(cursor, &mut span.listed, |key| lookup.event_key(key.as_bytes())),
                    _ => cursor.skip(),
                })
            })?,
            "status" => self.status(cursor, span)?,
            _ => cursor.skip()?,
        }
        Ok(())
    }

    fn status(&mut self, cursor: &mut Cursor<'a>, span: &mut Span<'a>) -> Result<(), Fault> {
        const ERROR: i32 = 2;
        let mut code = 0;
        self.object(cursor, "status", |walk, cursor, name| match name {
            "message" => walk.scalar(cursor, "status.message", value::text, &mut span.message),
            "code" => walk.scalar(cursor, "status.code", value::code, &mut code),
            _ => cursor.skip(),
        })?;
        span.failed = code == ERROR;
        Ok(())
    }

    /// Adds the attributes that mean something.
    fn listed(
        &mut self,
        cursor: &mut Cursor<'a>,
        listed: &mut Vec<(&'a [Meaning], Value<'a>)>,
        meanings: impl Fn(&str) -> &'a [Meaning],
    ) -> Result<(), Fault> {
        self.attributes(cursor, |walk, key, mut value| {
            let meanings = meanings(key);
            if !meanings.is_empty() {
                listed.push((meanings, walk.value(key, &mut value)?));
            }
            Ok(())
        })
    }

    /// Hands on the attributes of a list, each with the place of its value. What has no key is none.
    fn attributes(
        &mut self,
        cursor: &mut Cursor<'a>,
        mut each: impl FnMut(&mut Self, &str, Cursor<'a>) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        self.array(cursor, "attributes", |walk, cursor| match attribute(cursor)? {
            Some((key, value)) => each(walk, &key, value),
            None => Ok(()),
        })
    }

    fn value(&mut self, key: &str, cursor: &mut Cursor<'a>) -> Result<Value<'a>, Fault> {
        let value = Value::read(cursor)?;
        if value == Value::Unreadable {
            self.batch.unread.add(key);
        }
        Ok(value)
    }

    /// Reads a scalar into its place. `null` says nothing, as it does in protobuf's JSON.
    fn scalar<T>(
        &mut self,
        cursor: &mut Cursor<'a>,
        name: &str,
        read: impl Fn(Token<'a>) -> Option<T>,
        into: &mut T,
    ) -> Result<(), Fault> {
        let token = cursor.token()?;
        match read(token) {
            Some(value) => *into = value,
            None if token == Token::Null => {}
            None => self.batch.unread.add(name),
        }
        Ok(())
    }

    /// Hands on the members of the object that is next; counts what is none.
    fn object(
        &mut self,
        cursor: &mut Cursor<'a>,
        name: &str,
        mut each: impl FnMut(&mut Self, &mut Cursor<'a>, &str) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        if cursor.is_object() {
            cursor.members(|cursor, name| each(self, cursor, name))
        } else {
            self.odd(cursor, name)
        }
    }

    /// Likewise the elements of an array.
    fn array(
        &mut self,
        cursor: &mut Cursor<'a>,
        name: &str,
        mut each: impl FnMut(&mut Self, &mut Cursor<'a>) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        if cursor.is_array() { cursor.elements(|cursor| each(self, cursor)) } else { self.odd(cursor, name) }
    }

    fn odd(&mut self, cursor: &mut Cursor<'a>, name: &str) -> Result<(), Fault> {
        if cursor.token()? != Token::Null {
            self.batch.unread.add(name);
        }
        Ok(())
    }
}

/// The key of an attribute and the place of its value, which has been passed over.
pub(super) fn attribute<'a>(cursor: &mut Cursor<'a>) -> Result<Option<(Cow<'a, str>, Cursor<'a>)>, Fault> {
    if !cursor.is_object() {
        return cursor.skip().map(|()| None);
    }
    let (mut key, mut value) = (None, None);
    cursor.members(|cursor, name| match name {
        "key" => {
            key = value::text(cursor.token()?);
            Ok(())
        }
        "value" => {
            value = Some(cursor.same());
            cursor.skip()
        }
        _ => cursor.skip(),
    })?;
    Ok(key.zip(value))
}

impl Span<'_> {
    fn head(&self) -> Head<'_> {
        Head {
            trace_id: self.trace_id.bytes(),
            span_id: self.id.bytes(),
            parent: self.parent.bytes(),
            name: self.name.as_bytes(),
            kind: self.kind,
            start: self.start,
            end: self.end,
            failed: self.failed,
            message: &self.message,
            flags: self.flags,
        }
    }
}
