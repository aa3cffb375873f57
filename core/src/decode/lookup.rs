//! The table of attribute keys made ready for looking up.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use crate::dialect::{EXCEPTION_TYPE, JSON_KEYS, SPAN_KEYS, Unit, mark};
use crate::domain::facts::Field;

/// What an attribute key means: one of its fields, its place in the field's order, and how to read the value.
#[derive(Clone, Copy, Debug)]
pub(super) struct Meaning {
    pub field: Field,
    pub rank: u8,
    pub unit: Unit,
    /// Of its key.
    pub mark: u16,
}

/// What stands in a text of JSON is tried after all keys of its field, in the order of its rows.
pub(super) const JSON_RANK: u8 = 128;

/// The table made ready for looking up, with the operator's own keys in front.
pub(super) struct Lookup {
    span_keys: HashMap<Box<[u8]>, Box<[Meaning]>, BuildHasherDefault<KeyHasher>>,
    exception_type: Meaning,
}

impl Lookup {
    /// The operator's keys for user, tenant and agent are tried before the built-in ones.
    pub(super) fn new(user_keys: &[String], tenant_keys: &[String], agent_keys: &[String]) -> Self {
        let mut keys: HashMap<Box<[u8]>, Vec<Meaning>> = HashMap::new();
        let mut next_rank = [0u8; Field::COUNT];
        let mut add = |field: Field, unit: Unit, key: &str| {
            let rank = next_rank[field as usize];
            next_rank[field as usize] = rank.saturating_add(1);
            keys.entry(key.as_bytes().into()).or_default().push(Meaning { field, rank, unit, mark: mark(key) });
        };
        for (field, own) in [(Field::User, user_keys), (Field::Tenant, tenant_keys), (Field::Agent, agent_keys)] {
            own.iter().for_each(|key| add(field, Unit::Name, key));
        }
        for (field, unit, keys) in SPAN_KEYS {
            keys.iter().for_each(|key| add(*field, *unit, key));
        }
        for (key, rows) in JSON_KEYS {
            let field = rows.first().map_or(Field::Name, |row| row.field);
            keys.entry(key.as_bytes().into()).or_default().push(Meaning {
                field,
                rank: JSON_RANK,
                unit: Unit::Json(rows),
                mark: mark(key),
            });
        }
        let exception_type = Meaning { field: Field::ErrorType, rank: u8::MAX, unit: Unit::ErrorType, mark: 0 };
        let span_keys = keys.into_iter().map(|(key, meanings)| (key, meanings.into())).collect();
        Self { span_keys, exception_type }
    }

    /// Nothing for keys that are not on the list: their values are never looked at.
    #[inline]
    pub(super) fn span_key(&self, key: &[u8]) -> &[Meaning] {
        self.span_keys.get(key).map_or(&[], |meanings| meanings)
    }

    pub(super) fn event_key(&self, key: &[u8]) -> &[Meaning] {
        if key == EXCEPTION_TYPE.as_bytes() { std::slice::from_ref(&self.exception_type) } else { &[] }
    }
}

/// Hashes a key by its length, its middle and its end: keys of one vendor begin alike. That two of them may meet costs a
/// comparison and nothing else, for only our own table is ever inserted.
#[derive(Default)]
struct KeyHasher(u64);

impl Hasher for KeyHasher {
    #[inline]
    fn write(&mut self, key: &[u8]) {
        let word = |end: usize| end.checked_sub(8).and_then(|start| key.get(start..end)?.first_chunk().copied());
        let word = |end| word(end).map_or(0, u64::from_le_bytes);
        let (end, middle) = (word(key.len()), word(key.len() / 2 + 4));
        let mixed = (end ^ middle.rotate_left(29)).wrapping_add(key.len() as u64);
        self.0 = mixed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    fn write_usize(&mut self, _length: usize) {}

    fn finish(&self) -> u64 {
        self.0 ^ self.0 >> 32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_key_stands_twice_in_one_field() {
        let lookup = Lookup::new(&[], &[], &[]);
        for (key, meanings) in &lookup.span_keys {
            let mut fields: Vec<Field> = meanings.iter().map(|meaning| meaning.field).collect();
            fields.sort_unstable();
            fields.dedup();
            assert_eq!(fields.len(), meanings.len(), "{}", String::from_utf8_lossy(key));
        }
    }

    #[test]
    fn the_operators_keys_are_tried_first() {
        let lookup = Lookup::new(&["app.customer".into()], &[], &[]);
        let rank = |key: &str| lookup.span_key(key.as_bytes())[0].rank;
        assert!(rank("app.customer") < rank("enduser.id"));
        assert!(rank("enduser.id") < rank("user.id"));
    }

    #[test]
    fn content_is_on_no_list() {
        let lookup = Lookup::new(&[], &[], &[]);
        for key in ["gen_ai.input.messages", "input.value", "ai.prompt", "url.query", "exception.message"] {
            assert!(lookup.span_key(key.as_bytes()).is_empty(), "{key}");
        }
    }
}
