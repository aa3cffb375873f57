//! Protobuf in parts. Messages on the way to a span's attributes are entered, whatever else they hold is taken as it is.

use super::{LONGEST, is_listed};
use crate::decode::{Malformed, Rules, Unread};

/// Key, length and number of a field are no longer than this.
const LONGEST_HEAD: usize = 20;

/// The messages that are entered.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Message {
    Request,
    ResourceSpans,
    Resource,
    ScopeSpans,
    Span,
    Event,
}

impl Message {
    fn entered(self, tag: u64) -> Option<Self> {
        match (self, tag) {
            (Self::Request, 1) => Some(Self::ResourceSpans),
            (Self::ResourceSpans, 1) => Some(Self::Resource),
            (Self::ResourceSpans, 2) => Some(Self::ScopeSpans),
            (Self::ScopeSpans, 2) => Some(Self::Span),
            (Self::Span, 11) => Some(Self::Event),
            _ => None,
        }
    }

    fn is_attribute(self, tag: u64) -> bool {
        matches!((self, tag), (Self::Resource, 1) | (Self::Span, 9) | (Self::Event, 3))
    }
}

/// A message that is being read, and what is kept of it.
struct Level {
    message: Message,
    /// Where in the body it ends.
    end: u64,
    /// Where in what is kept its content begins.
    start: usize,
    /// Its key, as it came.
    key: Vec<u8>,
}

impl Level {
    /// Writes its key and length before its content. The request has neither.
    fn close(&self, kept: &mut Vec<u8>) {
        if self.message != Message::Request {
            let mut head = self.key.clone();
            push_varint(&mut head, (kept.len() - self.start) as u64);
            kept.splice(self.start..self.start, head);
        }
    }
}

/// The content of a field that is coming.
struct Content {
    left: u64,
    is_attribute: bool,
    /// Of one that is too long, its beginning.
    is_cut: bool,
}

pub(super) struct Shrinker {
    /// From the request down to the message that is coming.
    levels: Vec<Level>,
    /// The key and length of the next field, as far as they have come.
    head: Vec<u8>,
    content: Option<Content>,
    /// The field that is coming, with its head.
    field: Vec<u8>,
    kept: Vec<u8>,
    at: u64,
}

impl Default for Shrinker {
    fn default() -> Self {
        let request = Level { message: Message::Request, end: u64::MAX, start: 0, key: vec![] };
        Self { levels: vec![request], head: vec![], content: None, field: vec![], kept: vec![], at: 0 }
    }
}

impl Shrinker {
    pub(super) fn kept(&self) -> usize {
        self.kept.len() + self.field.len()
    }

    pub(super) fn push(&mut self, mut part: &[u8], rules: &Rules, unread: &mut Unread) -> Result<(), Malformed> {
        loop {
            if let Some(content) = &mut self.content {
                let length = part.len().min(usize::try_from(content.left).unwrap_or(usize::MAX));
                let (now, rest) = part.split_at(length);
                let room = LONGEST.saturating_sub(self.field.len());
                self.field.extend_from_slice(&now[..now.len().min(room)]);
                content.left -= length as u64;
                self.at += length as u64;
                part = rest;
                if content.left > 0 {
                    return Ok(());
                }
                self.end_field(rules, unread);
            }
            self.leave_ended();
            let Some((byte, rest)) = part.split_first() else { return Ok(()) };
            self.head.push(*byte);
            self.at += 1;
            part = rest;
            self.read_head()?;
        }
    }

    /// What remains. The body must not end in the middle.
    pub(super) fn finish(self) -> Result<Vec<u8>, Malformed> {
        if self.levels.len() > 1 || !self.head.is_empty() || self.content.is_some() {
            return Err(Malformed(format!("length beyond the end at byte {}", self.at)));
        }
        Ok(self.kept)
    }

    /// What is kept so far, as if the body ended here.
    pub(super) fn so_far(&self) -> Vec<u8> {
        let mut kept = self.kept.clone();
        self.levels.iter().rev().for_each(|level| level.close(&mut kept));
        kept
    }

    /// Looks whether the head is whole, and begins what it announces.
    fn read_head(&mut self) -> Result<(), Malformed> {
        let Some((key, key_length)) = varint(&self.head) else { return self.head_goes_on() };
        let rest = &self.head[key_length..];
        let (tag, left) = match key & 7 {
            0 if varint(rest).is_none() => return self.head_goes_on(),
            0 => (key >> 3, 0),
            1 => (key >> 3, 8),
            5 => (key >> 3, 4),
            2 => match varint(rest) {
                Some((length, _)) => (key >> 3, length),
                None => return self.head_goes_on(),
            },
            3 | 4 => return Err(self.fault("a group in a large body")),
            _ => return Err(self.fault("invalid wire type")),
        };
        let Some(level) = self.levels.last() else { return Err(self.fault("a field of no message")) };
        let message = level.message;
        let end = self.at.checked_add(left).filter(|end| *end <= level.end);
        let Some(end) = end else { return Err(self.fault("length beyond the end")) };
        let entered = message.entered(tag).filter(|_| key & 7 == 2);
        if let Some(message) = entered {
            let key = self.head[..key_length].to_vec();
            self.levels.push(Level { message, end, start: self.kept.len(), key });
        } else {
            self.field.extend_from_slice(&self.head);
            let is_cut = usize::try_from(left).map_or(true, |left| left > LONGEST - LONGEST_HEAD);
            self.content = Some(Content { left, is_attribute: message.is_attribute(tag) && key & 7 == 2, is_cut });
        }
        self.head.clear();
        Ok(())
    }

    fn head_goes_on(&self) -> Result<(), Malformed> {
        if self.head.len() > LONGEST_HEAD { Err(self.fault("varint of more than 64 bits")) } else { Ok(()) }
    }

    /// Keeps the field that has come, unless it is an attribute that nobody reads. What is too long is lost.
    fn end_field(&mut self, rules: &Rules, unread: &mut Unread) {
        if let Some(Content { is_attribute, is_cut, .. }) = self.content.take() {
            let key = if is_attribute { key_of(&self.field) } else { None };
            match key {
                Some(key) if !is_listed(key, rules) => {}
                _ if !is_cut => self.kept.extend_from_slice(&self.field),
                Some(key) => unread.add(&String::from_utf8_lossy(key)),
                None => unread.add("a field of more than 64 KiB"),
            }
            self.field.clear();
        }
    }

    /// Writes the lengths of messages that have ended.
    fn leave_ended(&mut self) {
        while self.head.is_empty()
            && let Some(level) = self.levels.pop_if(|level| level.end == self.at)
        {
            level.close(&mut self.kept);
        }
    }

    fn fault(&self, what: &str) -> Malformed {
        Malformed(format!("{what} at byte {}", self.at))
    }
}

/// The key of an attribute, a field with its head of which the end may be missing. `None` where it is not seen.
fn key_of(field: &[u8]) -> Option<&[u8]> {
    let (_, length) = varint(field)?;
    let field = &field[length..];
    let (_, length) = varint(field)?;
    let mut rest = &field[length..];
    let mut key = None;
    while let Some((head, length)) = varint(rest) {
        rest = &rest[length..];
        let (value, length) = if matches!(head & 7, 0 | 2) { varint(rest)? } else { (0, 0) };
        let size = match head & 7 {
            0 => 0,
            1 => 8,
            2 => usize::try_from(value).ok()?,
            5 => 4,
            _ => return None,
        };
        rest = &rest[length..];
        if head == 0x0a {
            key = Some(rest.get(..size)?);
        }
        // Of one that is cut the value is not all here.
        rest = rest.get(size..).unwrap_or_default();
    }
    key
}

/// The number at the beginning and how many bytes it takes; `None` where it goes on.
fn varint(bytes: &[u8]) -> Option<(u64, usize)> {
    let mut value = 0;
    for (place, byte) in bytes.iter().take(10).enumerate() {
        value |= u64::from(byte & 0x7f) << (7 * place);
        if *byte < 0x80 {
            return Some((value, place + 1));
        }
    }
    None
}

fn push_varint(bytes: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        bytes.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}
