//! For whom a limit counts: the values of its dimensions, as one key and as a text.

use std::fmt;

use serde::{Serialize, Serializer};
use sha2::{Digest, Sha256};
use smallvec::SmallVec;

use super::rule::{Dimension, Kind, Quota, Rule, Traits};
use super::shared::Key;
use tacho_core::domain::period::Period;
use tacho_core::domain::time::Timestamp;

/// A hash of the values; the same in every instance. Nobody can make two users share it.
pub type SubjectId = u128;

/// What the account of the user says of periods.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Since {
    /// When the account began.
    pub began: Timestamp,
    /// When it was last reset by hand.
    pub reset: Option<Timestamp>,
}

/// Hashes of one request, each made once however many limits count for the same dimensions.
#[derive(Default)]
pub(super) struct Subjects(SmallVec<[(SmallVec<[Dimension; 5]>, SubjectId); 4]>);

impl Subjects {
    pub(super) fn id(&mut self, per: &[Dimension], traits: &Traits<'_>) -> SubjectId {
        if let Some((_, id)) = self.0.iter().find(|(known, _)| known.as_slice() == per) {
            return *id;
        }
        let id = subject_id(per, traits);
        self.0.push((per.iter().copied().collect(), id));
        id
    }
}

fn subject_id(per: &[Dimension], traits: &Traits<'_>) -> SubjectId {
    let mut hash = Sha256::new();
    for dimension in per {
        // Each value behind its length, so that no two lists of values look the same; none is unlike empty.
        let value = traits.get(*dimension);
        let length = value.map_or(u64::MAX, |value| u64::try_from(value.len()).unwrap_or(u64::MAX - 1));
        hash.update(length.to_be_bytes());
        hash.update(value.unwrap_or_default().as_bytes());
    }
    let hash = hash.finalize();
    u128::from_be_bytes(hash[..16].try_into().expect("a hash has 32 bytes"))
}

/// The values of a subject as they are shown: cut to a length that can be, whatever a client says who he is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Subject(SmallVec<[(Dimension, Option<Box<str>>); 2]>);

impl Subject {
    pub fn new(per: &[Dimension], traits: &Traits<'_>) -> Self {
        let shown = |value| cut(value, LONGEST);
        Self(per.iter().map(|dimension| (*dimension, traits.get(*dimension).map(shown))).collect())
    }

    /// `{"user":"ann"}`, as it is stored.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }
}

/// Characters of a value that are shown.
const LONGEST: usize = 128;

/// At most so many characters of it.
pub(super) fn cut(value: &str, longest: usize) -> Box<str> {
    if value.len() <= longest { value.into() } else { value.chars().take(longest).collect() }
}

/// `{"user":"ann"}`.
impl Serialize for Subject {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(dimension, value)| (dimension.label(), value)))
    }
}

/// `user ann, model gpt-4o`.
impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("everyone together");
        }
        for (place, (dimension, value)) in self.0.iter().enumerate() {
            let comma = if place == 0 { "" } else { ", " };
            write!(f, "{comma}{} {}", dimension.label(), value.as_deref().unwrap_or("(none)"))?;
        }
        Ok(())
    }
}

/// The period that a moment belongs to, for this account. A reset by hand begins a new one for what came after it.
pub(super) fn period(rule: &Rule, quota: &Quota, since: &Since, at: Timestamp) -> Period {
    let period = quota.schedule(since.began).period_at(at);
    match since.reset.filter(|reset| rule.by_user() && *reset <= at) {
        Some(reset) => Period { start: period.start.max(reset), ..period },
        None => period,
    }
}

/// Rates have no period; all else of the key is the same.
pub(super) fn key(rule: &Rule, kind: &Kind, subject: SubjectId, since: &Since, at: Timestamp) -> (Key, Option<Period>) {
    let period = match kind {
        Kind::Rate(_) => None,
        Kind::Quota(quota) => Some(period(rule, quota, since, at)),
    };
    let start = period.map_or(0, |period| period.start.0);
    (Key(mixed(subject, rule.id, start)), period)
}

/// One to one in the subject, whatever the other two.
fn mixed(subject: SubjectId, rule: u64, start: u64) -> u128 {
    const ODD: u128 = 0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835;
    (subject ^ u128::from(rule)).wrapping_mul(ODD).rotate_left(64) ^ (u128::from(start) << 32)
}
