//! What the scalars of OTLP's JSON say, also where they are written otherwise than its rules have it. `None` is what cannot be read.

use std::borrow::Cow;

use super::cursor::{Cursor, Fault, Token};
use crate::decode::extract::Raw;

/// A number or a boolean in the place of a text is taken as it is written.
pub(super) fn text(token: Token<'_>) -> Option<Cow<'_, str>> {
    match token {
        Token::Text(quoted) => Some(quoted.text()),
        Token::Number(number) => Some(Cow::Borrowed(number)),
        Token::Bool(set) => Some(Cow::Borrowed(if set { "true" } else { "false" })),
        Token::Null | Token::Nested => None,
    }
}

enum Number {
    Whole(i128),
    Fraction(f64),
}

fn number(token: Token<'_>) -> Option<Number> {
    let written = written(token)?;
    let written = written.trim();
    // As text, because a double would round a time: 1790000000000000001.0 is whole.
    let whole = match written.split_once('.') {
        Some((whole, fraction)) if fraction.bytes().all(|digit| digit == b'0') => whole,
        _ => written,
    };
    match whole.parse() {
        Ok(whole) => Some(Number::Whole(whole)),
        Err(_) => Some(of_double(written.parse().ok()?)),
    }
}

/// A number, or the text of one.
fn written(token: Token<'_>) -> Option<Cow<'_, str>> {
    match token {
        Token::Number(number) => Some(Cow::Borrowed(number)),
        Token::Text(quoted) => Some(quoted.text()),
        Token::Null | Token::Bool(_) | Token::Nested => None,
    }
}

#[expect(clippy::cast_possible_truncation, reason = "checked to be whole and in range")]
fn of_double(number: f64) -> Number {
    if number.fract() == 0.0 && number.abs() < 1e19 { Number::Whole(number as i128) } else { Number::Fraction(number) }
}

fn whole<T: TryFrom<i128>>(token: Token<'_>) -> Option<T> {
    match number(token)? {
        Number::Whole(number) => T::try_from(number).ok(),
        Number::Fraction(_) => None,
    }
}

/// Nanoseconds since 1970.
pub(super) fn time(token: Token<'_>) -> Option<u64> {
    whole(token)
}

pub(super) fn flags(token: Token<'_>) -> Option<u32> {
    whole(token)
}

/// The kind of a span: a number, or a name such as `SPAN_KIND_SERVER`.
pub(super) fn kind(token: Token<'_>) -> Option<i32> {
    value_of(token, "SPAN_KIND_", &["UNSPECIFIED", "INTERNAL", "SERVER", "CLIENT", "PRODUCER", "CONSUMER"])
}

/// The code of a status likewise.
pub(super) fn code(token: Token<'_>) -> Option<i32> {
    value_of(token, "STATUS_CODE_", &["UNSET", "OK", "ERROR"])
}

fn value_of(token: Token<'_>, prefix: &str, names: &[&str]) -> Option<i32> {
    if let Some(number) = whole(token) {
        return Some(number);
    }
    let Token::Text(quoted) = token else { return None };
    let text = quoted.text().trim().to_ascii_uppercase();
    let name = text.strip_prefix(prefix).unwrap_or(&text);
    names.iter().position(|known| *known == name).and_then(|number| i32::try_from(number).ok())
}

/// The bytes of a hex id. Of one that is too long enough is kept to see that it is.
#[derive(Default)]
pub(super) struct Id {
    bytes: [u8; 17],
    length: usize,
}

impl Id {
    /// A text that is no hex, and all that is no text, becomes a single byte: the wrong length for every id.
    pub(super) fn read(token: Token<'_>) -> Self {
        match token {
            Token::Null => Self::default(),
            Token::Text(quoted) => Self::of_hex(quoted.text().as_bytes()).unwrap_or(Self::NONE),
            Token::Bool(_) | Token::Number(_) | Token::Nested => Self::NONE,
        }
    }

    const NONE: Self = Self { bytes: [0; 17], length: 1 };

    fn of_hex(text: &[u8]) -> Option<Self> {
        let mut id = Self::default();
        let digit = |digit: u8| char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok());
        for pair in text.chunks(2).take(id.bytes.len()) {
            id.bytes[id.length] = digit(pair[0])? << 4 | digit(*pair.get(1)?)?;
            id.length += 1;
        }
        Some(id)
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

/// The value of an attribute.
#[derive(Debug, PartialEq)]
pub(super) enum Value<'a> {
    /// None, or one of a shape that nothing on the list has.
    Nothing,
    /// It should be one of those below, and cannot be read.
    Unreadable,
    Text(Cow<'a, str>),
    Bool(bool),
    Int(i64),
    Double(f64),
}

impl<'a> Value<'a> {
    /// Reads an `AnyValue`. Of several alternatives the first that can be read counts, in the order of the type.
    pub(super) fn read(cursor: &mut Cursor<'a>) -> Result<Self, Fault> {
        if !cursor.is_object() {
            return Ok(if cursor.token()? == Token::Null { Self::Nothing } else { Self::Unreadable });
        }
        let [mut text, mut bool, mut int, mut double, mut array] = [const { Self::Nothing }; 5];
        cursor.members(|cursor, name| {
            match name {
                "stringValue" => text = Self::text(cursor.token()?),
                "boolValue" => bool = Self::bool(cursor.token()?),
                "intValue" => int = Self::int(cursor.token()?),
                "doubleValue" => double = Self::double(cursor.token()?),
                "arrayValue" => array = Self::array(cursor)?,
                _ => cursor.skip()?,
            }
            Ok(())
        })?;
        let alternatives = [text, bool, int, double, array];
        let unreadable = alternatives.contains(&Self::Unreadable);
        let read = alternatives.into_iter().find(|value| !matches!(value, Self::Nothing | Self::Unreadable));
        Ok(read.unwrap_or(if unreadable { Self::Unreadable } else { Self::Nothing }))
    }

    fn text(token: Token<'a>) -> Self {
        match text(token) {
            Some(text) => Self::Text(text),
            None if token == Token::Null => Self::Nothing,
            None => Self::Unreadable,
        }
    }

    fn bool(token: Token<'a>) -> Self {
        match text(token).as_deref() {
            Some("true" | "True" | "TRUE" | "1") => Self::Bool(true),
            Some("false" | "False" | "FALSE" | "0") => Self::Bool(false),
            None if token == Token::Null => Self::Nothing,
            _ => Self::Unreadable,
        }
    }

    /// What is beyond 64 bits or no whole number is left to whoever wants the attribute. `null` is JavaScript's NaN.
    #[expect(clippy::cast_precision_loss, reason = "beyond 64 bits no count is plausible, however it ends")]
    fn int(token: Token<'a>) -> Self {
        match number(token) {
            Some(Number::Whole(number)) => i64::try_from(number).map_or(Self::Double(number as f64), Self::Int),
            Some(Number::Fraction(number)) if number.is_finite() => Self::Double(number),
            Some(Number::Fraction(_)) | None => Self::Unreadable,
        }
    }

    fn double(token: Token<'a>) -> Self {
        let number = written(token).and_then(|written| written.trim().parse().ok());
        number.map_or(Self::Unreadable, Self::Double)
    }

    /// The first element, if that is a text. What else may be in it is passed over, so that no depth of arrays is too deep.
    fn array(cursor: &mut Cursor<'a>) -> Result<Self, Fault> {
        if !cursor.is_object() {
            return Ok(if cursor.token()? == Token::Null { Self::Nothing } else { Self::Unreadable });
        }
        let mut first = Self::Nothing;
        cursor.members(|cursor, name| {
            if name != "values" || !cursor.is_array() {
                let is_odd = cursor.token()? != Token::Null && name == "values";
                first = if is_odd { Self::Unreadable } else { std::mem::replace(&mut first, Self::Nothing) };
                return Ok(());
            }
            let mut place = 0;
            cursor.elements(|cursor| {
                place += 1;
                if place > 1 || !cursor.is_object() {
                    return cursor.skip();
                }
                cursor.members(|cursor, name| {
                    let token = cursor.token()?;
                    if name == "stringValue" {
                        first = Self::text(token);
                    }
                    Ok(())
                })
            })
        })?;
        Ok(first)
    }

    pub(super) fn raw(&self) -> Option<Raw<'_>> {
        match self {
            Self::Nothing | Self::Unreadable => None,
            Self::Text(text) => Some(Raw::Text(text)),
            Self::Bool(set) => Some(Raw::Bool(*set)),
            Self::Int(number) => Some(Raw::Int(*number)),
            Self::Double(number) => Some(Raw::Double(*number)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(json: &str) -> Token<'_> {
        Cursor::new(json).token().unwrap()
    }

    #[test]
    fn whole_numbers_are_read_however_they_are_written() {
        for (json, expected) in [
            ("7", Some(7)),
            ("\"7\"", Some(7)),
            ("\" 7 \"", Some(7)),
            ("7.0", Some(7)),
            ("\"7.00\"", Some(7)),
            ("7e2", Some(700)),
            ("\"7E2\"", Some(700)),
            ("-7", Some(-7)),
            ("1790000000000000001.0", Some(1_790_000_000_000_000_001)),
            ("18446744073709551615", Some(18_446_744_073_709_551_615)),
            ("7.5", None),
            ("1e21", None),
            ("\"seven\"", None),
            ("\"\"", None),
            ("true", None),
            ("null", None),
            ("[7]", None),
        ] {
            assert_eq!(whole::<i128>(token(json)), expected, "{json}");
        }
        assert_eq!(time(token("-7")), None);
        assert_eq!(flags(token("4294967296")), None);
    }

    #[test]
    fn names_of_enums_are_numbers() {
        for (json, expected) in [
            ("\"SPAN_KIND_SERVER\"", Some(2)),
            ("\"Server\"", Some(2)),
            ("\"SPAN_KIND_UNSPECIFIED\"", Some(0)),
            ("\"3\"", Some(3)),
            ("77", Some(77)),
            ("\"SPAN_KIND_OTHER\"", None),
            ("1e21", None),
            ("{}", None),
        ] {
            assert_eq!(kind(token(json)), expected, "{json}");
        }
        assert_eq!(code(token("\"STATUS_CODE_ERROR\"")), Some(2));
        assert_eq!(code(token("\"SPAN_KIND_SERVER\"")), None);
    }

    #[test]
    fn ids_are_hex() {
        assert_eq!(Id::read(token("\"0aFF\"")).bytes(), [0x0a, 0xff]);
        assert!(Id::read(token("null")).bytes().is_empty());
        for odd in ["\"0a0\"", "\"xx\"", "7", "{}"] {
            assert_eq!(Id::read(token(odd)).bytes(), [0], "{odd}");
        }
        assert_eq!(Id::read(token(&format!("\"{}\"", "ab".repeat(10_000)))).bytes().len(), 17);
    }

    #[test]
    fn values_are_read_where_their_meaning_is_clear() {
        let text = |text: &'static str| Value::Text(text.into());
        for (json, expected) in [
            (r#"{"stringValue":"a"}"#, text("a")),
            (r#"{"stringValue":1.50}"#, text("1.50")),
            (r#"{"stringValue":true}"#, text("true")),
            (r#"{"stringValue":{}}"#, Value::Unreadable),
            (r#"{"stringValue":null}"#, Value::Nothing),
            (r#"{"stringValue":[],"intValue":7}"#, Value::Int(7)),
            (r#"{"stringValue":"a","stringValue":"b"}"#, text("b")),
            (r#"{"boolValue":false}"#, Value::Bool(false)),
            (r#"{"boolValue":"true"}"#, Value::Bool(true)),
            (r#"{"boolValue":1}"#, Value::Bool(true)),
            (r#"{"boolValue":"maybe"}"#, Value::Unreadable),
            (r#"{"intValue":"1.0"}"#, Value::Int(1)),
            (r#"{"intValue":7.5}"#, Value::Double(7.5)),
            (r#"{"intValue":1e21}"#, Value::Double(1e21)),
            (r#"{"intValue":18446744073709551615}"#, Value::Double(18_446_744_073_709_551_615.0)),
            (r#"{"intValue":"NaN"}"#, Value::Unreadable),
            (r#"{"intValue":null}"#, Value::Unreadable),
            (r#"{"doubleValue":7}"#, Value::Double(7.0)),
            (r#"{"doubleValue":"-Infinity"}"#, Value::Double(f64::NEG_INFINITY)),
            (r#"{"doubleValue":null}"#, Value::Unreadable),
            (r#"{"doubleValue":true}"#, Value::Unreadable),
            (r#"{"arrayValue":{"values":[{"stringValue":"a"},5]}}"#, text("a")),
            (r#"{"arrayValue":{"values":[{"intValue":5},{"stringValue":"a"}]}}"#, Value::Nothing),
            (r#"{"arrayValue":{"values":[]}}"#, Value::Nothing),
            (r#"{"arrayValue":{"values":{}}}"#, Value::Unreadable),
            (r#"{"arrayValue":["a"]}"#, Value::Unreadable),
            (r#"{"bytesValue":"AAEC"}"#, Value::Nothing),
            (r#"{"kvlistValue":{"values":[{"key":"a"}]}}"#, Value::Nothing),
            (r#"{"value":7}"#, Value::Nothing),
            ("{}", Value::Nothing),
            ("null", Value::Nothing),
            ("\"a\"", Value::Unreadable),
        ] {
            assert_eq!(Value::read(&mut Cursor::new(json)).unwrap(), expected, "{json}");
        }
    }
}
