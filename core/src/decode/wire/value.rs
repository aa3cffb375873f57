//! The value of an attribute that is not written the plain way, or is no scalar.

use super::protobuf::{Cursor, Fault, Wire, check, text};
use super::shape::Message;
use crate::decode::extract::Raw;

/// An `AnyValue` being read. A field that comes again replaces the value before it; arrays are joined.
pub(super) enum Value<'a> {
    Nothing,
    Scalar(Raw<'a>),
    /// Its first element, if that is a text; `None` while there is no element.
    Array(Option<Option<&'a str>>),
    /// Bytes, lists of attributes: nothing on the list has such a value.
    Other,
}

impl<'a> Value<'a> {
    pub(super) fn merge(&mut self, mut cursor: Cursor<'a>) -> Result<(), Fault> {
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

    pub(super) fn raw(&self) -> Option<Raw<'a>> {
        match self {
            Self::Scalar(raw) => Some(*raw),
            Self::Array(Some(Some(text))) => Some(Raw::Text(text)),
            Self::Array(_) | Self::Nothing | Self::Other => None,
        }
    }
}
