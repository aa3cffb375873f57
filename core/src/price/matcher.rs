//! Which model, or which maker of models, a name in a span means. It never looks at prices.

use std::borrow::Cow;

use rustc_hash::FxHashMap;
use serde::Deserialize;

use super::calendar::Day;

/// A condition on a name. The name given to it must be in lower case already.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Clause {
    Equals(Lower),
    StartsWith(Lower),
    EndsWith(Lower),
    Contains(Lower),
    /// `#` is any one digit; a `*` at the end is anything.
    Like(Lower),
    AnyOf(Vec<Clause>),
    AllOf(Vec<Clause>),
    Not(Box<Clause>),
}

/// Text in lower case.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Deserialize)]
#[serde(from = "String")]
pub(super) struct Lower(Box<str>);

/// Finds the first of a list of clauses that holds, without trying them all. It stands for the list it was made from
/// and must be made anew when that changes.
#[derive(Debug, Default)]
pub(super) struct FirstMatch {
    /// The first place whose clause can be met by being equal to this text.
    equal: FxHashMap<Lower, usize>,
    /// Places of clauses that can be met in other ways, rising.
    other: Vec<usize>,
}

impl Clause {
    pub(super) fn equals(text: &str) -> Self {
        Self::Equals(lower(text).into_owned().into())
    }

    pub(super) fn holds(&self, name: &str) -> bool {
        match self {
            Self::Equals(text) => name == &*text.0,
            Self::StartsWith(text) => name.starts_with(&*text.0),
            Self::EndsWith(text) => name.ends_with(&*text.0),
            Self::Contains(text) => contains(name, &text.0),
            Self::Like(pattern) => like(&pattern.0, name),
            Self::AnyOf(parts) => parts.iter().any(|part| part.holds(name)),
            Self::AllOf(parts) => parts.iter().all(|part| part.holds(name)),
            Self::Not(part) => !part.holds(name),
        }
    }

    /// Calls `equal` with each text to which being equal is enough; true if other ways to hold remain.
    fn visit_equals<'a>(&'a self, equal: &mut impl FnMut(&'a Lower)) -> bool {
        match self {
            Self::Equals(text) => {
                equal(text);
                false
            }
            Self::AnyOf(parts) => {
                let mut others = false;
                for part in parts {
                    others |= part.visit_equals(equal);
                }
                others
            }
            _ => true,
        }
    }
}

impl FirstMatch {
    pub(super) fn new<'a>(clauses: impl Iterator<Item = &'a Clause>) -> Self {
        let mut made = Self::default();
        for (place, clause) in clauses.enumerate() {
            let others = clause.visit_equals(&mut |text| {
                made.equal.entry(text.clone()).or_insert(place);
            });
            if others {
                made.other.push(place);
            }
        }
        made
    }

    /// The first place whose clause holds. `clause` gives the clause at a place.
    pub(super) fn find<'a>(&self, name: &str, clause: impl Fn(usize) -> &'a Clause) -> Option<usize> {
        let equal = self.equal.get(name).copied();
        let before = equal.unwrap_or(usize::MAX);
        self.other
            .iter()
            .copied()
            .take_while(|&place| place < before)
            .find(|&place| clause(place).holds(name))
            .or(equal)
    }
}

impl From<String> for Lower {
    fn from(text: String) -> Self {
        Self(lower(&text).into())
    }
}

impl std::borrow::Borrow<str> for Lower {
    fn borrow(&self) -> &str {
        &self.0
    }
}

/// Most names are in lower case and cost nothing here.
pub(super) fn lower(text: &str) -> Cow<'_, str> {
    if text.bytes().any(|byte| byte.is_ascii_uppercase() || !byte.is_ascii()) {
        Cow::Owned(text.to_lowercase())
    } else {
        Cow::Borrowed(text)
    }
}

/// As `str::contains`, which sets up a search for long texts each time: three times slower on these.
fn contains(name: &str, part: &str) -> bool {
    let (name, part) = (name.as_bytes(), part.as_bytes());
    let Some(last) = part.last() else { return true };
    name.windows(part.len()).any(|window| window.last() == Some(last) && window == part)
}

fn like(pattern: &str, name: &str) -> bool {
    let (pattern, open) = match pattern.strip_suffix('*') {
        Some(start) => (start, true),
        None => (pattern, false),
    };
    let same = |(wanted, byte): (u8, u8)| {
        if wanted == b'#' { byte.is_ascii_digit() } else { wanted == byte }
    };
    (name.len() == pattern.len() || open && name.len() > pattern.len()) && pattern.bytes().zip(name.bytes()).all(same)
}

/// The name with dates like `-20251211` written `-2025-12-11`, or None if it has none. Gateways shorten dates so.
pub(super) fn with_long_dates(name: &str) -> Option<String> {
    let mut long = String::new();
    let mut rest = name;
    while let Some(dash) = rest.find('-') {
        let (before, tail) = rest.split_at(dash);
        long.push_str(before);
        let (kept, after) = match compact_date(tail) {
            Some((date, after)) => (Cow::Owned(date), after),
            None => (Cow::Borrowed("-"), tail.get(1..).unwrap_or_default()),
        };
        long.push_str(&kept);
        rest = after;
    }
    long.push_str(rest);
    (long != name).then_some(long)
}

/// Of a text that starts with `-YYYYMMDD`, that date written with dashes and what follows it.
fn compact_date(text: &str) -> Option<(String, &str)> {
    let digits = text.get(1..9).filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()))?;
    let after = text.get(9..)?;
    if !digits.starts_with("20") || !(after.is_empty() || after.starts_with(['-', ':'])) {
        return None;
    }
    let (year, month, day) = (&digits[..4], &digits[4..6], &digits[6..]);
    Day::from_civil(year.parse().ok()?, month.parse().ok()?, day.parse().ok()?)?;
    Some((format!("-{year}-{month}-{day}"), after))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clause(json: &str) -> Clause {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn each_kind_of_clause_holds_where_it_should() {
        let check = |json: &str, yes: &[&str], no: &[&str]| {
            assert!(yes.iter().all(|name| clause(json).holds(name)), "{json}");
            assert!(!no.iter().any(|name| clause(json).holds(name)), "{json}");
        };
        check(r#"{"equals":"GPT-5"}"#, &["gpt-5"], &["gpt-5x", "xgpt-5"]);
        check(r#"{"starts_with":"gpt-"}"#, &["gpt-5", "gpt-"], &["a-gpt-5"]);
        check(r#"{"ends_with":"-tts"}"#, &["a-tts"], &["a-tts-1"]);
        check(r#"{"contains":"claude"}"#, &["us.claude.x"], &["claud"]);
        check(r#"{"like":"m-##"}"#, &["m-12"], &["m-1", "m-123", "m-1x"]);
        check(r#"{"like":"m-#*"}"#, &["m-1", "m-12x"], &["m-", "m-x"]);
        check(r#"{"all_of":[{"starts_with":"a"},{"not":{"contains":"/"}}]}"#, &["ab"], &["a/b", "b"]);
        check(r#"{"any_of":[{"equals":"a"},{"all_of":[{"equals":"b"}]}]}"#, &["a", "b"], &["c"]);
    }

    #[test]
    fn the_first_clause_that_holds_wins_whatever_its_kind() {
        let clauses = [
            clause(r#"{"any_of":[{"equals":"a-1"},{"equals":"b"}]}"#),
            clause(r#"{"any_of":[{"equals":"c"},{"starts_with":"a-"}]}"#),
            clause(r#"{"equals":"a-2"}"#),
            clause(r#"{"equals":"b"}"#),
        ];
        let index = FirstMatch::new(clauses.iter());
        for (name, place) in [("a-1", Some(0)), ("a-2", Some(1)), ("b", Some(0)), ("c", Some(1)), ("d", None)] {
            assert_eq!(index.find(name, |place| &clauses[place]), place, "{name}");
        }
    }

    #[test]
    fn only_real_dates_at_the_end_of_a_part_are_written_out() {
        assert_eq!(with_long_dates("gpt-5.2-20251211").as_deref(), Some("gpt-5.2-2025-12-11"));
        assert_eq!(with_long_dates("a-20251211:free").as_deref(), Some("a-2025-12-11:free"));
        assert_eq!(with_long_dates("a-20240229-20240230").as_deref(), Some("a-2024-02-29-20240230"));
        for same in ["gpt-5", "a-20251311", "a-19991211", "a-20251211x", "a-é0251211", "20251211", "-", ""] {
            assert_eq!(with_long_dates(same), None, "{same}");
        }
    }
}
