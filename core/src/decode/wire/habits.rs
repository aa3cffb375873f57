//! What exporters repeat from span to span, so that it is looked up and checked once.

use super::protobuf::Cursor;
use crate::decode::lookup::{Lookup, Meaning};
use crate::domain::facts::Field;

/// What followed each field in the spans before, or came first. An exporter repeats the order of the keys, and most attributes
/// nobody wants letter by letter, from span to span; what was looked up or checked once needs no second look.
pub(super) struct Habits<'a> {
    pub first: Habit<'a>,
    pub after: [Habit<'a>; Field::COUNT],
}

impl Habits<'_> {
    pub(super) fn none() -> Self {
        Self { first: Habit::default(), after: [Habit::default(); Field::COUNT] }
    }
}

/// What followed one field.
#[derive(Clone, Copy, Default)]
pub(super) struct Habit<'a> {
    /// Attributes nobody wants, and how many they are.
    pub run: &'a [u8],
    pub length: usize,
    /// The first of them, each by itself: often one of many differs.
    pub parts: [&'a [u8]; 8],
    /// The listed key behind them.
    key: &'a [u8],
    meanings: &'a [Meaning],
}

impl<'a> Habit<'a> {
    /// How many attributes were passed over.
    #[inline]
    pub(super) fn skip_run(&self, cursor: &mut Cursor<'a>) -> usize {
        if cursor.skip(self.run) { self.length } else { 0 }
    }

    #[inline]
    pub(super) fn skip_part(&self, place: usize, cursor: &mut Cursor<'a>) -> bool {
        self.parts.get(place).is_some_and(|part| cursor.skip(part))
    }

    #[inline]
    pub(super) fn meanings(&mut self, key: &'a [u8], lookup: &'a Lookup) -> &'a [Meaning] {
        if key == self.key {
            return self.meanings;
        }
        let meanings = lookup.span_key(key);
        if !meanings.is_empty() {
            (self.key, self.meanings) = (key, meanings);
        }
        meanings
    }
}
