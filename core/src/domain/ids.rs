//! The identifiers of OpenTelemetry: 16 bytes for a trace, 8 for a span, shown as lower-case hex.

use std::fmt;

use serde::{Deserialize, Serialize};

/// All spans of one trace share it. Never all zero.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TraceId([u8; 16]);

/// Unique within its trace. Never all zero.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SpanId([u8; 8]);

impl TraceId {
    /// `None` for a wrong length and for the all-zero id, which OpenTelemetry defines as invalid.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        non_zero(bytes).map(Self)
    }

    /// Reads the 32 hex digits that `Display` writes, in either case.
    pub fn parse(text: &str) -> Option<Self> {
        unhex(text).and_then(|bytes: [u8; 16]| Self::from_bytes(&bytes))
    }

    pub fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl SpanId {
    /// `None` for a wrong length and for the all-zero id, which OpenTelemetry defines as invalid.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        non_zero(bytes).map(Self)
    }

    pub fn as_bytes(&self) -> &[u8; 8] {
        &self.0
    }

    /// Reads the 16 hex digits that `Display` writes, in either case.
    pub fn parse(text: &str) -> Option<Self> {
        unhex(text).and_then(|bytes: [u8; 8]| Self::from_bytes(&bytes))
    }
}

fn non_zero<const N: usize>(bytes: &[u8]) -> Option<[u8; N]> {
    let id: [u8; N] = bytes.try_into().ok()?;
    (id != [0; N]).then_some(id)
}

fn unhex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digits = text.as_bytes();
    if digits.len() != 2 * N {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = nibble(pair[0])? << 4 | nibble(pair[1])?;
    }
    Some(bytes)
}

fn nibble(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

fn write_hex(bytes: &[u8], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(&self.0, f)
    }
}

impl fmt::Display for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(&self.0, f)
    }
}

impl fmt::Debug for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(&self.0, f)
    }
}

impl fmt::Debug for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hex_goes_out_and_comes_back() {
        let id = TraceId::parse("00f067aa0ba902b700f067aa0ba902B7").unwrap();
        assert_eq!(id.to_string(), "00f067aa0ba902b700f067aa0ba902b7");
        assert_eq!(SpanId::parse("00f067aa0ba902b7").unwrap().to_string(), "00f067aa0ba902b7");
    }

    #[test]
    fn zero_short_long_and_foreign_ids_are_no_ids() {
        for text in ["0000000000000000", "00f067aa0ba902b", "00f067aa0ba902b70", "00f067aa0ba902bg", "", "äöü00000000"]
        {
            assert_eq!(SpanId::parse(text), None, "{text}");
        }
        assert_eq!(TraceId::from_bytes(&[0; 16]), None);
        assert_eq!(TraceId::from_bytes(&[1; 15]), None);
    }
}
