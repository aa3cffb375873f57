//! Values made typed: what each unit takes of a value as it stands in the body.

use std::borrow::Cow;

use serde_json::Value;

use crate::dialect::{self, Unit};
use crate::domain::call::Tokens;
use crate::domain::hash::stable;

/// Longest name kept, in bytes; a longer one is cut and marked with its hash, so that two of them stay two.
pub(super) const LONGEST_NAME: usize = 256;
/// Longest error type kept; anything longer is no class name.
const LONGEST_ERROR_TYPE: usize = 128;
/// Longest error message kept, where messages are asked for.
pub(super) const LONGEST_MESSAGE: usize = 1024;
/// Longest text of JSON that is read: what tells numbers is short, and a text that was cut is none.
const LONGEST_JSON: usize = 64 << 10;

/// A value as it stands in the body. Of an array only the first text counts (captured HTTP headers).
#[derive(Clone, Copy, Debug)]
pub(in crate::decode) enum Raw<'a> {
    Text(&'a str),
    /// A text of which the reader has seen that it is printable ASCII, as nearly all are: it needs no further look.
    Printable(&'a [u8]),
    Bool(bool),
    Int(i64),
    Double(f64),
}

/// `Tokens::MOST`, as the protocol writes it.
const MOST_TOKENS: i64 = Tokens::MOST.cast_signed();

pub(super) enum Held<'a> {
    Number(u64),
    Text(Cow<'a, str>),
    Printable(&'a [u8]),
}

pub(super) enum Reading<'a> {
    Value(Held<'a>),
    /// Not there, or nothing we can use: the next key may be.
    Absent,
    /// A token count that no call could have.
    Implausible,
}

impl Reading<'_> {
    /// For what was read from a text that does not stay.
    pub(super) fn into_owned(self) -> Reading<'static> {
        match self {
            Self::Value(Held::Number(number)) => Reading::Value(Held::Number(number)),
            Self::Value(Held::Text(text)) => Reading::Value(Held::Text(Cow::Owned(text.into_owned()))),
            Self::Value(Held::Printable(text)) => {
                Reading::Value(Held::Text(Cow::Owned(String::from_utf8_lossy(text).into_owned())))
            }
            Self::Implausible => Reading::Implausible,
            Self::Absent => Reading::Absent,
        }
    }
}

impl<'a> From<Option<Held<'a>>> for Reading<'a> {
    fn from(held: Option<Held<'a>>) -> Self {
        held.map_or(Self::Absent, Self::Value)
    }
}

/// What `read` says of the most frequent values, said sooner; `None` where it takes a closer look.
#[inline(always)]
pub(super) fn plain(unit: Unit, value: Raw<'_>) -> Option<Held<'_>> {
    match (unit, value) {
        (Unit::Name | Unit::Operation, Raw::Printable(text)) if text.len() <= LONGEST_NAME && !is_odd(text) => {
            Some(Held::Printable(text))
        }
        (Unit::Host, Raw::Printable(name)) if is_bare_host(name) => Some(Held::Printable(name)),
        (Unit::Tokens, Raw::Int(count @ 0..=MOST_TOKENS)) => Some(Held::Number(count.cast_unsigned())),
        (Unit::Status, Raw::Int(code @ 100..600)) => Some(Held::Number(code.cast_unsigned())),
        (Unit::Path, Raw::Printable(path @ [b'/', ..]))
            if path.len() <= LONGEST_NAME && !path.contains(&b'?') && !path.contains(&b'#') =>
        {
            Some(Held::Printable(path))
        }
        _ => None,
    }
}

pub(super) fn read(unit: Unit, value: Raw<'_>) -> Reading<'_> {
    let value = match value {
        Raw::Printable(text) => Raw::Text(std::str::from_utf8(text).expect("printable ASCII is UTF-8")),
        other => other,
    };
    match unit {
        Unit::Name => name(value).map(Held::Text).into(),
        Unit::Path => text(value).map(|text| Held::Text(clean(path_of(text), LONGEST_NAME))).into(),
        Unit::Route => text(value).and_then(route).map(|route| Held::Text(clean(route, LONGEST_NAME))).into(),
        Unit::Method => {
            text(value).filter(|text| METHODS.contains(text)).map(|text| Held::Text(Cow::Borrowed(text))).into()
        }
        Unit::Host => text(value).and_then(host).map(|host| Held::Text(Cow::Owned(host))).into(),
        Unit::Tokens => tokens(value),
        Unit::Status => number(value).filter(|code| (100.0..600.0).contains(code)).map(whole).into(),
        Unit::Flag => flag(value).map(|set| Held::Number(u64::from(set))).into(),
        Unit::Present => Reading::Value(Held::Number(1)),
        Unit::Equals(wanted) => text(value).filter(|text| *text == wanted).map(|_| Held::Number(1)).into(),
        Unit::Seconds => duration(value, 1e9),
        Unit::Milliseconds => duration(value, 1e6),
        Unit::Dollars => dollars(value).map(Held::Number).into(),
        Unit::Operation => text(value).map(unquoted).filter(|name| !dialect::is_absent(name)).map(name_of).into(),
        Unit::ErrorType => text(value).map(|text| Held::Text(Cow::Borrowed(error_type(text)))).into(),
        // Read by the extractor, as it has many fields.
        Unit::Json(_) => Reading::Absent,
    }
}

fn name_of(text: &str) -> Held<'_> {
    Held::Text(clean(text, LONGEST_NAME))
}

const METHODS: &[&str] = &["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH", "QUERY"];

/// Whether a name needs a closer look: it may be quoted, or only a word for "no value".
#[inline]
fn is_odd(name: &[u8]) -> bool {
    match name {
        [] | [b'"' | b'[' | b' ', ..] => true,
        [b'n' | b'N' | b'u' | b'U', ..] => name.len() <= "undefined".len(),
        _ => false,
    }
}

/// Whether this is a host as it is kept: no URL, no port, nothing in upper case.
#[inline]
fn is_bare_host(name: &[u8]) -> bool {
    let kept = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-_".contains(byte);
    (1..=LONGEST_NAME).contains(&name.len()) && name.iter().all(kept) && name.last() != Some(&b'.')
}

/// Some write every value as JSON, a text in quotes too.
fn unquoted(text: &str) -> &str {
    text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text)
}

/// The document in a text of JSON, if it is one.
pub(super) fn parsed(value: Raw<'_>) -> Option<Value> {
    let text = match value {
        Raw::Text(text) => text.as_bytes(),
        Raw::Printable(text) => text,
        _ => return None,
    };
    if text.len() <= LONGEST_JSON { serde_json::from_slice(text).ok() } else { None }
}

/// What the names lead to, if it is a scalar.
pub(super) fn value_at<'v>(document: &'v Value, path: &[&str]) -> Option<Raw<'v>> {
    let found = path.iter().try_fold(document, |value, name| value.get(name))?;
    match found {
        Value::String(text) => Some(Raw::Text(text)),
        Value::Bool(set) => Some(Raw::Bool(*set)),
        Value::Number(number) => number.as_i64().map(Raw::Int).or_else(|| number.as_f64().map(Raw::Double)),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

fn text(value: Raw<'_>) -> Option<&str> {
    match value {
        Raw::Text(text) if !text.is_empty() => Some(text),
        _ => None,
    }
}

/// Ids are sometimes sent as numbers.
fn name(value: Raw<'_>) -> Option<Cow<'_, str>> {
    match value {
        Raw::Int(number) => Some(Cow::Owned(number.to_string())),
        other => {
            let text = text(other).map(unquoted).filter(|text| !dialect::is_absent(text))?;
            Some(clean(text, LONGEST_NAME))
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "used for bounded quantities only; token counts have their own reader")]
fn number(value: Raw<'_>) -> Option<f64> {
    match value {
        Raw::Int(number) => Some(number as f64),
        Raw::Double(number) => Some(number),
        Raw::Text(text) => text.parse().ok(),
        Raw::Bool(_) | Raw::Printable(_) => None,
    }
    .filter(|number: &f64| number.is_finite())
}

/// For numbers already known to be whole and between 0 and 2^63.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the callers check the range")]
fn whole<'a>(number: f64) -> Held<'a> {
    Held::Number(number as u64)
}

/// Negative counts say "not known" in some dialects. Fractions are no counts.
fn tokens<'a>(value: Raw<'_>) -> Reading<'a> {
    let count = match value {
        Raw::Int(count) => i128::from(count),
        Raw::Double(count) if count.fract() == 0.0 && count.abs() < 1e18 => return tokens_of(count),
        Raw::Double(count) if count.is_finite() && count.abs() >= 1e18 => return Reading::Implausible,
        Raw::Text(text) => match text.parse() {
            Ok(count) => count,
            Err(_) => return Reading::Absent,
        },
        Raw::Double(_) | Raw::Bool(_) | Raw::Printable(_) => return Reading::Absent,
    };
    match u64::try_from(count) {
        Ok(count) if count <= Tokens::MOST => Reading::Value(Held::Number(count)),
        _ if count < 0 => Reading::Absent,
        _ => Reading::Implausible,
    }
}

#[expect(clippy::cast_possible_truncation, reason = "the caller checks that it is whole and below 1e18")]
fn tokens_of<'a>(count: f64) -> Reading<'a> {
    tokens(Raw::Int(count as i64))
}

fn flag(value: Raw<'_>) -> Option<bool> {
    match value {
        Raw::Bool(set) => Some(set),
        Raw::Text(text) if text.eq_ignore_ascii_case("true") => Some(true),
        Raw::Text(text) if text.eq_ignore_ascii_case("false") => Some(false),
        _ => None,
    }
}

/// Whole nano-dollars, rounded up, of the decimal number as it is written: a double is the shortest one that means it.
fn dollars(value: Raw<'_>) -> Option<u64> {
    let dollars = number(value).filter(|dollars| (1e-9..1e9).contains(dollars))?;
    let written = dollars.to_string();
    let (whole, fraction) = written.split_once('.').unwrap_or((&written, ""));
    let (nanos, rest) = fraction.split_at_checked(9).unwrap_or((fraction, ""));
    let nanos: u64 = format!("{nanos:0<9}").parse().ok()?;
    let more = rest.bytes().any(|digit| digit != b'0');
    whole.parse::<u64>().ok()?.checked_mul(1_000_000_000)?.checked_add(nanos)?.checked_add(u64::from(more))
}

/// Up to eleven days: more is a mistaken unit.
fn duration<'a>(value: Raw<'_>, nanos: f64) -> Reading<'a> {
    number(value).map(|amount| amount * nanos).filter(|nanos| (0.0..1e15).contains(nanos)).map(whole).into()
}

/// The host of a URL, or of a name with or without a port, in lower case.
fn host(text: &str) -> Option<String> {
    let rest = text.split_once("://").map_or(text, |(_, rest)| rest);
    let authority = rest.split(['/', '?', '#']).next().unwrap_or(rest);
    let server = authority.rsplit_once('@').map_or(authority, |(_, server)| server);
    let host = match server.strip_prefix('[') {
        Some(v6) => v6.split(']').next().unwrap_or(v6),
        None if server.matches(':').count() == 1 => server.split(':').next().unwrap_or(server),
        None => server,
    };
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    let known = |byte: u8| byte.is_ascii_alphanumeric() || b".-_:".contains(&byte);
    (!host.is_empty() && host.len() <= LONGEST_NAME && host.bytes().all(known)).then_some(host)
}

/// As Micrometer names it; other words in its place say that there was none.
fn route(text: &str) -> Option<&str> {
    match text {
        "root" => Some("/"),
        route => Some(route).filter(|route| route.starts_with('/')),
    }
}

fn path_of(target: &str) -> &str {
    let shown = target.split(['?', '#']).next().unwrap_or(target);
    match shown.split_once("://") {
        Some((_, rest)) if !shown.starts_with('/') => rest.find('/').map_or("/", |slash| &rest[slash..]),
        _ => shown,
    }
}

/// Class names and codes only: provider texts have spaces, and must not pass as a type.
fn error_type(text: &str) -> &str {
    let is_class = |byte: u8| byte.is_ascii_alphanumeric() || b"._:-/".contains(&byte);
    if text.len() <= LONGEST_ERROR_TYPE && text.bytes().all(is_class) { text } else { "_OTHER" }
}

/// Whether all bytes are printable ASCII. Looks at eight bytes at once: a byte below 0x20 borrows, 0x7f carries, and any other
/// that is not printable has its top bit set already, as then has the sum.
#[inline]
pub(in crate::decode) fn is_printable(text: &[u8]) -> bool {
    const EACH: u64 = u64::MAX / 0xff;
    let suspect = |word: u64| (word | word.wrapping_sub(0x20 * EACH) | word.wrapping_add(EACH)) & (0x80 * EACH) != 0;
    let (words, rest) = text.as_chunks::<8>();
    let whole = !words.iter().fold(false, |any, word| any | suspect(u64::from_le_bytes(*word)));
    match text.last_chunk::<8>() {
        // The last word once more, overlapping.
        Some(last) => whole && !suspect(u64::from_le_bytes(*last)),
        None => rest.iter().all(|byte| (0x20..0x7f).contains(byte)),
    }
}

/// Replaces control characters, NUL among them, which no database takes, and cuts what is longer than `longest` bytes.
pub(super) fn clean(text: &str, longest: usize) -> Cow<'_, str> {
    // Without an early end, so that the compiler looks at many bytes at once. 0xc2 begins the control characters beyond ASCII.
    let suspect = text.bytes().fold(false, |suspect, byte| suspect | (byte < 0x20) | (byte == 0x7f) | (byte == 0xc2));
    if text.len() <= longest && !suspect {
        return Cow::Borrowed(text);
    }
    let printable: String = text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
    if printable.len() <= longest {
        return Cow::Owned(printable);
    }
    let mark = format!("~{:016x}", stable(text.as_bytes()));
    let cut = printable.floor_char_boundary(longest - mark.len());
    Cow::Owned(format!("{}{mark}", &printable[..cut]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_lose_host_query_and_fragment() {
        for (target, path) in [
            ("/a/b?token=SECRET", "/a/b"),
            ("http://user:pw@host:1/a?x#y", "/a"),
            ("https://host?q=1", "/"),
            ("/a#f", "/a"),
            ("/r?u=http://x/y", "/r"),
            ("/proxy/http://x/y", "/proxy/http://x/y"),
        ] {
            assert_eq!(path_of(target), path, "{target}");
        }
    }

    #[test]
    fn token_counts_are_whole_plausible_and_not_negative() {
        let read = |value| match tokens(value) {
            Reading::Value(Held::Number(count)) => format!("{count}"),
            Reading::Value(_) => unreachable!(),
            Reading::Absent => "absent".into(),
            Reading::Implausible => "implausible".into(),
        };
        assert_eq!(read(Raw::Int(7)), "7");
        assert_eq!(read(Raw::Double(7.0)), "7");
        assert_eq!(read(Raw::Text("7")), "7");
        assert_eq!(read(Raw::Int(-1)), "absent");
        assert_eq!(read(Raw::Double(7.5)), "absent");
        assert_eq!(read(Raw::Double(f64::NAN)), "absent");
        assert_eq!(read(Raw::Text("many")), "absent");
        assert_eq!(read(Raw::Int(i64::MAX)), "implausible");
        assert_eq!(read(Raw::Double(1e300)), "implausible");
        assert_eq!(read(Raw::Text("99999999999999999999")), "implausible");
    }

    const UNITS: [Unit; 6] = [Unit::Host, Unit::Name, Unit::Operation, Unit::Path, Unit::Tokens, Unit::Status];

    #[test]
    fn told_dollars_are_exact() {
        for (value, nanos) in [
            (Raw::Double(0.000_556_349_999_999_999_9), Some(556_350)),
            (Raw::Double(0.000_123), Some(123_000)),
            (Raw::Double(1.1), Some(1_100_000_000)),
            (Raw::Double(1e-9), Some(1)),
            (Raw::Double(1.5e-9), Some(2)),
            (Raw::Text("0.0075"), Some(7_500_000)),
            (Raw::Int(3), Some(3_000_000_000)),
            (Raw::Double(0.0), None),
            (Raw::Double(f64::NAN), None),
        ] {
            assert_eq!(dollars(value), nanos, "{value:?}");
        }
        for micros in 1..100_000_u32 {
            let dollars_of = f64::from(micros) / 1e6;
            assert_eq!(dollars(Raw::Double(dollars_of)), Some(u64::from(micros) * 1000), "{dollars_of}");
        }
    }

    #[test]
    fn a_host_is_found_in_urls_and_names() {
        for (text, found) in [
            ("https://api.x.ai/v1/", Some("api.x.ai")),
            ("http://user:pw@Host.example:8080/a?b", Some("host.example")),
            ("127.0.0.1:53182", Some("127.0.0.1")),
            ("[::1]:80", Some("::1")),
            ("::1", Some("::1")),
            ("api.openai.com.", Some("api.openai.com")),
            ("a b", None),
            ("/just/a/path", None),
        ] {
            assert_eq!(host(text).as_deref(), found, "{text}");
        }
    }

    #[test]
    fn words_for_no_value_are_no_names_and_quotes_are_no_part_of_one() {
        for (text, name_there) in [
            ("none", None),
            ("None", None),
            ("unknown", None),
            ("", None),
            ("\"\"", None),
            ("[Scrubbed due to 'session']", None),
            ("\"ann\"", Some("ann")),
            ("nonesuch", Some("nonesuch")),
            ("ann", Some("ann")),
        ] {
            assert_eq!(name(Raw::Text(text)).as_deref(), name_there, "{text}");
        }
    }

    #[test]
    fn the_short_way_says_what_the_long_way_says() {
        let long = "/a".repeat(LONGEST_NAME);
        let texts = [
            "",
            "none",
            "\"quoted\"",
            "nobody",
            "chat",
            "Embeddings",
            "invoke_agent",
            "/a/b",
            "/a?q=1",
            "/a#f",
            "http://h/p",
            "/p/http://x/y",
            "200",
            &long,
        ];
        let numbers = [i64::MIN, -1, 0, 99, 100, 200, 599, 600, MOST_TOKENS, MOST_TOKENS + 1, i64::MAX];
        let values: Vec<Raw<'_>> = texts
            .iter()
            .map(|text| Raw::Printable(text.as_bytes()))
            .chain(numbers.map(Raw::Int))
            .chain([Raw::Bool(true), Raw::Double(7.0)])
            .collect();
        let show = |held: &Held<'_>| match held {
            Held::Number(number) => number.to_string(),
            Held::Text(text) => text.to_string(),
            Held::Printable(text) => String::from_utf8_lossy(text).into_owned(),
        };
        let mut short = 0;
        for unit in UNITS {
            for value in &values {
                let Some(held) = plain(unit, *value) else { continue };
                let Reading::Value(same) = read(unit, *value) else {
                    panic!("{unit:?} {value:?} is read by the short way only")
                };
                assert_eq!(show(&held), show(&same), "{unit:?} {value:?}");
                short += 1;
            }
        }
        assert!(short > 20, "{short}");
    }

    #[test]
    fn printable_is_told_at_every_place_and_for_every_byte() {
        for length in 0..20 {
            assert!(is_printable(&vec![b'~'; length]), "{length}");
            for place in 0..length {
                for byte in 0..=u8::MAX {
                    let mut text = vec![b' '; length];
                    text[place] = byte;
                    assert_eq!(is_printable(&text), (0x20..0x7f).contains(&byte), "{byte} at {place} of {length}");
                }
            }
        }
    }

    #[test]
    fn names_are_cleaned_and_long_ones_stay_apart() {
        assert_eq!(clean("a\0b\u{85}c", 64), "a\u{fffd}b\u{fffd}c");
        let (one, two) = ("ä".repeat(300), format!("{}x", "ä".repeat(300)));
        assert!(clean(&one, 256).len() <= 256);
        assert_ne!(clean(&one, 256), clean(&two, 256));
    }

    #[test]
    fn a_providers_text_is_no_error_type() {
        assert_eq!(error_type("openai.RateLimitError"), "openai.RateLimitError");
        assert_eq!(error_type("Rate limit reached for user-secret"), "_OTHER");
    }
}
