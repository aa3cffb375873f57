//! The allow-listed facts of a span, packed into a few dozen bytes: every received span carries them through queues and files.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

/// What a dialect can tell us. Every value that enters the house from an attribute enters under one of these names. The numbers
/// are stored: a new field takes the next free one, and none is used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Field {
    /// Text: the span's name; kept for spans that may be a request, and for those that tell of a model.
    Name,
    HttpMethod,
    HttpRoute,
    HttpPath,
    HttpStatus,
    User,
    Tenant,
    Agent,
    /// Text: an operation or kind of span, as its dialect names it.
    Operation,
    Provider,
    RequestModel,
    ResponseModel,
    /// Text: the tier that was served.
    ServiceTier,
    /// Text: the provider's id of the answer.
    ResponseId,
    /// Text: the host that was called, in lower case.
    Host,
    InputTokens,
    /// Number: which attribute told the input, by the mark of its key.
    InputKey,
    /// Number: 1 where the parts of the input are told.
    InputDetails,
    OutputTokens,
    OutputKey,
    /// Number: evidence of what the other counts include, never an amount.
    TotalTokens,
    CachedInputTokens,
    CacheWriteTokens,
    /// Number: of the tokens written to a cache, those that stay there for an hour.
    CacheWrite1hTokens,
    ReasoningTokens,
    AudioInputTokens,
    /// Number: of the audio, what was read from a cache.
    CachedAudioTokens,
    AudioOutputTokens,
    /// Number: 1 where a token count was present but no number a call could have.
    ImplausibleTokens,
    /// Number: nano-dollars as the instrumentation reckoned them.
    ReportedCost,
    /// Number: 1 where no model was asked, as a cache had the answer.
    AnsweredFromCache,
    /// Number: 1 where the span only logs what another one did.
    Log,
    Streaming,
    /// Number: nanoseconds.
    TimeToFirstToken,
    ErrorType,
    /// Number: the status of the call that failed.
    ErrorCode,
    /// Text: only where the operator asked for error messages.
    ErrorMessage,
    Session,
    /// Text: what stands for a session where none is named; some frameworks make a new one for each run.
    Conversation,
}

impl Field {
    /// How many fields there are.
    pub const COUNT: usize = Self::Conversation as usize + 1;

    /// All fields in their order.
    pub const ALL: [Self; Self::COUNT] = [
        Self::Name,
        Self::HttpMethod,
        Self::HttpRoute,
        Self::HttpPath,
        Self::HttpStatus,
        Self::User,
        Self::Tenant,
        Self::Agent,
        Self::Operation,
        Self::Provider,
        Self::RequestModel,
        Self::ResponseModel,
        Self::ServiceTier,
        Self::ResponseId,
        Self::Host,
        Self::InputTokens,
        Self::InputKey,
        Self::InputDetails,
        Self::OutputTokens,
        Self::OutputKey,
        Self::TotalTokens,
        Self::CachedInputTokens,
        Self::CacheWriteTokens,
        Self::CacheWrite1hTokens,
        Self::ReasoningTokens,
        Self::AudioInputTokens,
        Self::CachedAudioTokens,
        Self::AudioOutputTokens,
        Self::ImplausibleTokens,
        Self::ReportedCost,
        Self::AnsweredFromCache,
        Self::Log,
        Self::Streaming,
        Self::TimeToFirstToken,
        Self::ErrorType,
        Self::ErrorCode,
        Self::ErrorMessage,
        Self::Session,
        Self::Conversation,
    ];
}

/// At most one value a field, in the order of the fields.
///
/// Each is the field's number, with `TEXT` set for a text, and a varint: the number itself, or the length of the text, which
/// follows. The order of facts is arbitrary but total.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "ByteBuf", into = "ByteBuf")]
pub struct Facts(Box<[u8]>);

const TEXT: u8 = 0x80;

#[derive(Clone, Copy, Debug)]
enum Fact<'a> {
    Number(u64),
    Text(&'a [u8]),
}

impl Facts {
    /// The number stored under this field.
    pub fn number(&self, field: Field) -> Option<u64> {
        match self.get(field)? {
            Fact::Number(number) => Some(number),
            Fact::Text(_) => None,
        }
    }

    /// The text stored under this field.
    pub fn text(&self, field: Field) -> Option<&str> {
        match self.get(field)? {
            Fact::Text(text) => std::str::from_utf8(text).ok(),
            Fact::Number(_) => None,
        }
    }

    pub fn has(&self, field: Field) -> bool {
        self.get(field).is_some()
    }

    /// Bytes on the heap, for the bounds of the queues.
    pub fn size(&self) -> usize {
        self.0.len()
    }

    /// From packed bytes; `None` if they are none.
    pub(super) fn from_packed(packed: &[u8]) -> Option<Self> {
        is_packed(packed).then(|| Self(packed.into()))
    }

    fn get(&self, wanted: Field) -> Option<Fact<'_>> {
        self.iter()
            .find(|(field, _)| *field >= wanted as u8)
            .filter(|(field, _)| *field == wanted as u8)
            .map(|(_, fact)| fact)
    }

    fn iter(&self) -> impl Iterator<Item = (u8, Fact<'_>)> {
        let mut rest = &*self.0;
        std::iter::from_fn(move || split_fact(&mut rest))
    }
}

/// The next fact, or `None` at the end and where the bytes are no facts.
fn split_fact<'a>(rest: &mut &'a [u8]) -> Option<(u8, Fact<'a>)> {
    let (key, tail) = rest.split_first()?;
    *rest = tail;
    let number = split_varint(rest)?;
    if key & TEXT == 0 {
        return Some((*key, Fact::Number(number)));
    }
    let (text, tail) = rest.split_at_checked(usize::try_from(number).ok()?)?;
    *rest = tail;
    Some((key & !TEXT, Fact::Text(text)))
}

fn split_varint(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, tail) = rest.split_first()?;
        *rest = tail;
        value |= u64::from(byte & 0x7f) << shift;
        if *byte < 0x80 {
            return Some(value);
        }
    }
    None
}

/// Whether these bytes are what `FactsBuilder` makes.
fn is_packed(bytes: &[u8]) -> bool {
    let mut rest = bytes;
    let mut last = None;
    while !rest.is_empty() {
        let Some((field, fact)) = split_fact(&mut rest) else { return false };
        let is_text = |text| std::str::from_utf8(text).is_ok();
        let known = usize::from(field) < Field::COUNT && last.is_none_or(|last| last < field);
        if !known || matches!(fact, Fact::Text(text) if !is_text(text)) {
            return false;
        }
        last = Some(field);
    }
    true
}

#[derive(Debug, thiserror::Error)]
#[error("not the packed facts of a span")]
pub struct NoFacts;

impl TryFrom<ByteBuf> for Facts {
    type Error = NoFacts;

    fn try_from(bytes: ByteBuf) -> Result<Self, NoFacts> {
        if is_packed(&bytes) { Ok(Self(bytes.into_vec().into())) } else { Err(NoFacts) }
    }
}

impl From<Facts> for ByteBuf {
    fn from(facts: Facts) -> Self {
        Self::from(facts.0.into_vec())
    }
}

impl fmt::Debug for Facts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut map = f.debug_map();
        for (field, fact) in self.iter() {
            let name = Field::ALL.get(usize::from(field));
            match fact {
                Fact::Number(number) => map.entry(&name, &number),
                Fact::Text(text) => map.entry(&name, &String::from_utf8_lossy(text)),
            };
        }
        map.finish()
    }
}

/// Collects the facts of one span after the other, reusing its buffer.
#[derive(Default)]
pub struct FactsBuilder {
    packed: Vec<u8>,
    last: Option<Field>,
}

impl FactsBuilder {
    /// Fields must come in their order, each at most once.
    #[inline]
    pub fn number(&mut self, field: Field, number: u64) {
        self.head(field, 0, number);
    }

    /// Fields must come in their order, each at most once.
    pub fn text(&mut self, field: Field, text: &str) {
        self.valid_text(field, text.as_bytes());
    }

    /// As `text`, for a text that its reader has already seen to be printable ASCII.
    ///
    /// # Panics
    /// In debug builds, if it is not.
    pub fn ascii(&mut self, field: Field, text: &[u8]) {
        debug_assert!(text.is_ascii(), "{field:?} is said to be ASCII");
        self.valid_text(field, text);
    }

    /// Hands out what was collected and starts anew.
    pub fn take(&mut self) -> Facts {
        let facts = Facts(self.packed.as_slice().into());
        self.packed.clear();
        self.last = None;
        facts
    }

    /// Goes on behind these bytes, which are handed out again with what was collected.
    pub(super) fn behind(bytes: Vec<u8>) -> Self {
        Self { packed: bytes, last: None }
    }

    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.packed
    }

    #[inline]
    fn valid_text(&mut self, field: Field, text: &[u8]) {
        self.head(field, TEXT, text.len() as u64);
        self.packed.extend_from_slice(text);
    }

    #[inline]
    fn head(&mut self, field: Field, kind: u8, number: u64) {
        assert!(self.last.is_none_or(|last| last < field), "{field:?} comes out of order or twice");
        self.last = Some(field);
        let key = field as u8 | kind;
        // Nearly all numbers and lengths have one or two bytes.
        match number {
            0..0x80 => return self.packed.extend_from_slice(&[key, number as u8]),
            0x80..0x4000 => {
                return self.packed.extend_from_slice(&[key, (number & 0x7f) as u8 | 0x80, (number >> 7) as u8]);
            }
            _ => {}
        }
        self.packed.push(key);
        push_varint(&mut self.packed, number);
    }
}

fn push_varint(bytes: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        bytes.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packed() -> Facts {
        let mut builder = FactsBuilder::default();
        builder.text(Field::HttpMethod, "POST");
        builder.text(Field::User, "Zoë");
        builder.number(Field::InputTokens, u64::MAX);
        builder.number(Field::OutputTokens, 0);
        builder.take()
    }

    #[test]
    fn what_goes_in_comes_out_under_its_field_only() {
        let facts = packed();
        assert_eq!(facts.text(Field::User), Some("Zoë"));
        assert_eq!(facts.number(Field::InputTokens), Some(u64::MAX));
        assert_eq!(facts.number(Field::OutputTokens), Some(0));
        assert_eq!(facts.number(Field::User), None);
        assert_eq!(facts.text(Field::InputTokens), None);
        for absent in [Field::Name, Field::HttpRoute, Field::Tenant, Field::ErrorMessage] {
            assert!(!facts.has(absent), "{absent:?}");
        }
    }

    #[test]
    fn the_list_of_fields_is_complete_and_in_order() {
        assert!(Field::ALL.iter().enumerate().all(|(position, field)| *field as usize == position));
    }

    #[test]
    fn bytes_from_a_file_are_checked() {
        let whole = packed().0.into_vec();
        assert_eq!(Facts::try_from(ByteBuf::from(whole.clone())).unwrap(), packed());
        let twice = [whole.clone(), whole.clone()].concat();
        let cut = whole[..whole.len() - 1].to_vec();
        let unknown = vec![Field::COUNT as u8, 0];
        let not_utf8 = vec![Field::User as u8 | TEXT, 1, 0xff];
        let endless = vec![0x80; 11];
        for (name, bytes) in
            [("twice", twice), ("cut", cut), ("unknown", unknown), ("utf-8", not_utf8), ("varint", endless)]
        {
            assert!(Facts::try_from(ByteBuf::from(bytes)).is_err(), "{name}");
        }
    }
}
