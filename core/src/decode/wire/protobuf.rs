//! Protobuf's wire format: fields, lengths, groups. It knows nothing of spans. It refuses what `prost` refuses, so that no client
//! sees another answer because we read less.

use super::shape::{Message, Shape};

/// How deep messages and groups may lie in one another.
pub(super) const DEEPEST: u32 = 100;

/// Why the bytes are no OTLP request, and where.
#[derive(Debug)]
pub(super) struct Fault {
    pub what: &'static str,
    /// Address of the byte where reading stopped; compared, never followed.
    address: Option<usize>,
}

impl Fault {
    pub(super) fn wrong_type(message: Message) -> Self {
        Self { what: message.wrong_type(), address: None }
    }

    pub(super) fn offset_in(&self, body: &[u8]) -> String {
        match self.address.and_then(|address| address.checked_sub(body.as_ptr().addr())) {
            Some(offset) if offset <= body.len() => offset.to_string(),
            _ => "unknown".to_owned(),
        }
    }
}

/// The value of one field.
#[derive(Clone, Copy)]
pub(super) enum Wire<'a> {
    Varint(u64),
    Fixed64(u64),
    Bytes(&'a [u8]),
    /// The start of a group; its fields follow. OTLP has none, but an unknown field may be one.
    Group,
    Fixed32(u32),
}

/// Reads the fields of one message.
#[derive(Clone)]
pub(super) struct Cursor<'a> {
    rest: &'a [u8],
    /// How many further levels may follow below this one.
    levels: u32,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(bytes: &'a [u8], levels: u32) -> Self {
        Self { rest: bytes, levels }
    }

    #[inline]
    pub(super) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// The next field, or `None` at the end.
    #[inline]
    pub(super) fn next(&mut self) -> Result<Option<(u32, Wire<'a>)>, Fault> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let (tag, kind) = self.key()?;
        let wire = match kind {
            0 => Wire::Varint(self.varint()?),
            1 => Wire::Fixed64(u64::from_le_bytes(self.array()?)),
            2 => {
                let length = self.varint()?;
                let length = usize::try_from(length).map_err(|_| self.fault("length beyond the end"))?;
                Wire::Bytes(self.take(length)?)
            }
            3 => Wire::Group,
            4 => return Err(self.fault("end of a group that was not begun")),
            5 => Wire::Fixed32(u32::from_le_bytes(self.array()?)),
            _ => return Err(self.fault("invalid wire type")),
        };
        Ok(Some((tag, wire)))
    }

    /// The content of the next field, if it has this number (below 16), is length-delimited and short. Otherwise nothing is
    /// read, and `next` has the word; so it is with the other `plain` readers.
    #[inline]
    pub(super) fn plain_bytes(&mut self, tag: u8) -> Option<&'a [u8]> {
        let [key, rest @ ..] = self.rest else { return None };
        if *key != tag << 3 | LENGTH_DELIMITED {
            return None;
        }
        let (field, rest) = short(rest)?;
        self.rest = rest;
        Some(field)
    }

    #[inline]
    pub(super) fn plain_varint(&mut self, tag: u8) -> Option<u8> {
        match self.rest {
            [key, byte, rest @ ..] if *key == tag << 3 | VARINT && *byte < 0x80 => {
                self.rest = rest;
                Some(*byte)
            }
            _ => None,
        }
    }

    #[inline]
    pub(super) fn plain_fixed64(&mut self, tag: u8) -> Option<u64> {
        let (field, rest) = self.rest.split_first_chunk::<9>()?;
        let [key, bits @ ..] = *field;
        if key != tag << 3 | FIXED64 {
            return None;
        }
        self.rest = rest;
        Some(u64::from_le_bytes(bits))
    }

    /// The flags of a span, field 16, if they are what follows.
    #[inline]
    pub(super) fn plain_flags(&mut self) -> Option<u32> {
        let [0x85, 0x01, a, b, c, d, rest @ ..] = self.rest else { return None };
        self.rest = rest;
        Some(u32::from_le_bytes([*a, *b, *c, *d]))
    }

    /// Passes over these bytes, if they are some and are what follows.
    #[inline]
    pub(super) fn skip(&mut self, known: &[u8]) -> bool {
        // To compare with nothing would touch its dangling address, which some processors take very slowly.
        if known.is_empty() {
            return false;
        }
        match self.rest.strip_prefix(known) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    /// A cursor over a message inside this one.
    #[inline]
    pub(super) fn nested(&self, wire: Wire<'a>) -> Result<Cursor<'a>, Fault> {
        let Wire::Bytes(bytes) = wire else { return Err(self.fault("a message field has the wrong wire type")) };
        if self.levels == 0 {
            return Err(self.fault("nested too deep"));
        }
        Ok(self.deeper(bytes))
    }

    /// As `nested`, for bytes that came out of `nested` before.
    #[inline]
    pub(super) fn deeper(&self, bytes: &'a [u8]) -> Cursor<'a> {
        Cursor { rest: bytes, levels: self.levels.saturating_sub(1) }
    }

    /// Checks a field nobody wants: that it has the type it should have, and is well-formed inside.
    pub(super) fn check(&mut self, message: Message, tag: u32, wire: Wire<'a>) -> Result<(), Fault> {
        match (message.shape(tag), wire) {
            (Some(Shape::Varint), Wire::Varint(_))
            | (Some(Shape::Fixed64), Wire::Fixed64(_))
            | (Some(Shape::Fixed32), Wire::Fixed32(_))
            | (Some(Shape::Bytes), Wire::Bytes(_)) => Ok(()),
            (Some(Shape::Text), Wire::Bytes(bytes)) if bytes.is_ascii() => Ok(()),
            (Some(Shape::Text), Wire::Bytes(_)) => text(wire).map(drop),
            (Some(Shape::Message(inner)), Wire::Bytes(_)) => check(inner, self.nested(wire)?),
            (Some(_), _) => Err(self.fault(message.wrong_type())),
            (None, Wire::Group) => self.skip_group(tag, self.levels),
            (None, _) if self.levels == 0 => Err(self.fault("nested too deep")),
            (None, _) => Ok(()),
        }
    }

    fn skip_group(&mut self, tag: u32, levels: u32) -> Result<(), Fault> {
        if levels == 0 {
            return Err(self.fault("nested too deep"));
        }
        loop {
            if self.rest.is_empty() {
                return Err(self.fault("group without an end"));
            }
            let before = self.rest;
            let (inner, kind) = self.key()?;
            if kind == 4 {
                return if inner == tag { Ok(()) } else { Err(self.fault("group ended by another group's end")) };
            }
            if kind == 3 {
                self.skip_group(inner, levels - 1)?;
                continue;
            }
            if levels == 1 {
                return Err(self.fault("nested too deep"));
            }
            self.rest = before;
            self.next()?;
        }
    }

    #[inline]
    fn key(&mut self) -> Result<(u32, u8), Fault> {
        let key = u32::try_from(self.varint()?).map_err(|_| self.fault("invalid field key"))?;
        if key < 8 {
            return Err(self.fault("field number 0"));
        }
        Ok((key >> 3, (key & 7) as u8))
    }

    #[inline]
    fn varint(&mut self) -> Result<u64, Fault> {
        match self.rest {
            [byte, rest @ ..] if *byte < 0x80 => {
                self.rest = rest;
                Ok(u64::from(*byte))
            }
            [low, high, rest @ ..] if *high < 0x80 => {
                self.rest = rest;
                Ok(u64::from(*low & 0x7f) | u64::from(*high) << 7)
            }
            _ => self.long_varint(),
        }
    }

    fn long_varint(&mut self) -> Result<u64, Fault> {
        let mut value = 0;
        for (position, byte) in self.rest.iter().take(10).enumerate() {
            value |= u64::from(byte & 0x7f) << (7 * position);
            if *byte < 0x80 {
                // The tenth byte has room for one bit only.
                if position == 9 && *byte > 1 {
                    return Err(self.fault("varint of more than 64 bits"));
                }
                self.rest = &self.rest[position + 1..];
                return Ok(value);
            }
        }
        Err(self.fault(if self.rest.len() < 10 { "truncated varint" } else { "varint of more than 64 bits" }))
    }

    #[inline]
    fn take(&mut self, length: usize) -> Result<&'a [u8], Fault> {
        let Some((taken, rest)) = self.rest.split_at_checked(length) else {
            return Err(self.fault("length beyond the end"));
        };
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Fault> {
        let Some((taken, rest)) = self.rest.split_first_chunk::<N>() else {
            return Err(self.fault("truncated number"));
        };
        self.rest = rest;
        Ok(*taken)
    }

    #[cold]
    fn fault(&self, what: &'static str) -> Fault {
        Fault { what, address: Some(self.rest.as_ptr().addr()) }
    }
}

/// Wire types.
const VARINT: u8 = 0;
const FIXED64: u8 = 1;
/// Texts, bytes and messages.
const LENGTH_DELIMITED: u8 = 2;

/// Splits off what a length of one or two bytes announces.
#[inline(always)]
fn short(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    match bytes {
        [length, rest @ ..] if *length < 0x80 => rest.split_at_checked(usize::from(*length)),
        [low, high, rest @ ..] if *high < 0x80 => {
            rest.split_at_checked(usize::from(*low & 0x7f) | usize::from(*high) << 7)
        }
        _ => None,
    }
}

/// The value of an attribute that is one scalar and nothing else; the text is not checked yet.
#[derive(Clone, Copy)]
pub(super) enum Plain<'a> {
    Text(&'a [u8]),
    Bool(bool),
    Int(i64),
    Double(f64),
}

/// Key and value of an attribute as every encoder writes it: these two in this order and nothing else, the value a scalar. The
/// key is not checked yet.
#[inline(always)]
pub(super) fn plain_attribute(bytes: &[u8]) -> Option<(&[u8], Plain<'_>)> {
    let [0x0a, rest @ ..] = bytes else { return None };
    let (key, rest) = short(rest)?;
    let [0x12, rest @ ..] = rest else { return None };
    let (value, []) = short(rest)? else { return None };
    let value = match value {
        [0x0a, text @ ..] => match short(text)? {
            (text, []) => Plain::Text(text),
            _ => return None,
        },
        [0x10, byte] if *byte < 0x80 => Plain::Bool(*byte != 0),
        [0x18, byte] if *byte < 0x80 => Plain::Int(i64::from(*byte)),
        [0x18, low, high] if *low >= 0x80 && *high < 0x80 => Plain::Int(i64::from(*low & 0x7f) | i64::from(*high) << 7),
        [0x18, low, mid, high] if *low >= 0x80 && *mid >= 0x80 && *high < 0x80 => {
            Plain::Int(i64::from(*low & 0x7f) | i64::from(*mid & 0x7f) << 7 | i64::from(*high) << 14)
        }
        [0x21, bits @ ..] => Plain::Double(f64::from_le_bytes(bits.try_into().ok()?)),
        _ => return None,
    };
    Some((key, value))
}

/// Nearly all text is ASCII, which is quicker to see than to validate as UTF-8.
#[inline]
pub(super) fn is_text(bytes: &[u8]) -> bool {
    bytes.is_ascii() || std::str::from_utf8(bytes).is_ok()
}

/// Checks a message nobody wants.
pub(super) fn check(message: Message, mut cursor: Cursor<'_>) -> Result<(), Fault> {
    while let Some((tag, wire)) = cursor.next()? {
        cursor.check(message, tag, wire)?;
    }
    Ok(())
}

#[inline]
pub(super) fn text(wire: Wire<'_>) -> Result<&str, Fault> {
    let Wire::Bytes(bytes) = wire else {
        return Err(Fault { what: "a text field has the wrong wire type", address: None });
    };
    std::str::from_utf8(bytes)
        .map_err(|_| Fault { what: "text that is not UTF-8", address: Some(bytes.as_ptr().addr()) })
}

/// Protobuf cuts the varint of a 32-bit field to its low 32 bits.
#[expect(clippy::cast_possible_truncation, reason = "defined so by the wire format")]
pub(super) fn int32(varint: u64) -> i32 {
    (varint as u32).cast_signed()
}
