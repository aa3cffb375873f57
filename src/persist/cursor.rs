//! Places in the feed, and their text.

use std::fmt;
use std::str::FromStr;

use tacho_core::domain::call::Key;
use tacho_core::domain::ids::{SpanId, TraceId};
use tacho_core::domain::time::Timestamp;

/// How far a follower has come. Its text is opaque to others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cursor {
    pub(super) epoch: i64,
    pub(super) position: i64,
    /// The last row that was seen of those at this position; `None`: all were.
    pub(super) row: Option<FeedKey>,
}

/// Names a row among those of one transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FeedKey {
    Record(Key),
    /// The id of a row of limit_events.
    Event(i64),
}

#[derive(Debug, thiserror::Error)]
#[error("the cursor is none of this feed")]
pub struct NotACursor;

impl FeedKey {
    /// The key, if it is of a record.
    pub fn record(&self) -> Option<Key> {
        match self {
            Self::Record(key) => Some(*key),
            Self::Event(_) => None,
        }
    }

    /// The number of the event, if it is of one.
    pub fn event(&self) -> Option<i64> {
        match self {
            Self::Record(_) => None,
            Self::Event(id) => Some(*id),
        }
    }
}

impl Cursor {
    /// Behind this change.
    pub fn behind(epoch: i64, change_seq: i64, row: FeedKey) -> Self {
        Self { epoch, position: change_seq, row: Some(row) }
    }

    pub fn epoch(&self) -> i64 {
        self.epoch
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.epoch, self.position)?;
        self.row.map_or(Ok(()), |row| write!(f, "-{row}"))
    }
}

impl FromStr for Cursor {
    type Err = NotACursor;

    fn from_str(text: &str) -> Result<Self, NotACursor> {
        let mut parts = text.splitn(3, '-');
        let mut number = || parts.next()?.parse::<i64>().ok().filter(|number| *number >= 0);
        let (epoch, position) = number().zip(number()).ok_or(NotACursor)?;
        let row = parts.next().map(str::parse).transpose()?;
        Ok(Self { epoch, position, row })
    }
}

impl fmt::Display for FeedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Record(key) => write!(f, "r{}-{}-{}", key.started_at.to_micros(), key.trace_id, key.span_id),
            Self::Event(id) => write!(f, "e{id}"),
        }
    }
}

impl FromStr for FeedKey {
    type Err = NotACursor;

    fn from_str(text: &str) -> Result<Self, NotACursor> {
        key_of(text).ok_or(NotACursor)
    }
}

fn key_of(text: &str) -> Option<FeedKey> {
    match text.split_at_checked(1)? {
        ("e", id) => Some(FeedKey::Event(id.parse().ok()?)),
        ("r", key) => {
            let mut parts = key.splitn(3, '-');
            Some(FeedKey::Record(Key {
                started_at: Timestamp::from_micros(parts.next()?.parse().ok()?)?,
                trace_id: TraceId::parse(parts.next()?)?,
                span_id: SpanId::parse(parts.next()?)?,
            }))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_what_its_text_says() {
        let key = Key {
            started_at: Timestamp::from_micros(1_779_273_600_123_456).unwrap(),
            trace_id: TraceId::parse("0123456789abcdef0123456789abcdef").unwrap(),
            span_id: SpanId::parse("0123456789abcdef").unwrap(),
        };
        for row in [None, Some(FeedKey::Record(key)), Some(FeedKey::Event(7))] {
            let cursor = Cursor { epoch: 3, position: 99, row };
            assert_eq!(cursor.to_string().parse::<Cursor>().unwrap(), cursor);
        }
    }

    #[test]
    fn what_is_no_cursor_is_refused() {
        for text in ["", "1", "a-1", "1-2-x", "1-2-r3", "1-2-e1-1", "-1-2", "1-2-é", "1-99999999999999999999"] {
            assert!(text.parse::<Cursor>().is_err(), "{text}");
        }
    }
}
