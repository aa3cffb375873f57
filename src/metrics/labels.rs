//! Label values from names that others choose, kept to a bounded set.

use std::borrow::Cow;
use std::sync::{Mutex, PoisonError};

use rustc_hash::FxHashSet;

/// What is beyond a bound is counted under this name.
pub(super) const OTHER: &str = "__other__";
/// Bytes. No service, model or route is longer; what is, is junk and never takes a place.
const LONGEST: usize = 128;

/// Lets the first so many names through and folds the rest. A name that got through stays, so that its counters never stop.
pub(super) struct Cap {
    most: usize,
    names: Mutex<FxHashSet<Box<str>>>,
}

impl Cap {
    fn new(most: usize) -> Self {
        Self { most, names: Mutex::default() }
    }

    pub(super) fn fold<'n>(&self, name: &'n str) -> &'n str {
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        if names.contains(name) {
            return name;
        }
        if is_junk(name) || names.len() >= self.most {
            return OTHER;
        }
        names.insert(name.into());
        name
    }
}

/// Nobody named anything so: it would only make a series that nobody can read.
pub(super) fn is_junk(name: &str) -> bool {
    name.is_empty() || name.len() > LONGEST || name.chars().any(|char| char.is_control() || char == '\u{fffd}')
}

/// The names that others choose, each kind within its bound.
pub(super) struct Names {
    pub services: Cap,
    pub endpoints: Cap,
    pub statuses: Cap,
    pub providers: Cap,
    pub models: Cap,
    pub operations: Cap,
}

impl Default for Names {
    fn default() -> Self {
        Self {
            services: Cap::new(100),
            endpoints: Cap::new(300),
            statuses: Cap::new(100),
            providers: Cap::new(50),
            models: Cap::new(300),
            operations: Cap::new(30),
        }
    }
}

/// A status as a label: three digits at most, however many a span has.
pub(super) fn status(status: Option<u16>) -> Cow<'static, str> {
    status.map_or(Cow::Borrowed("none"), |status| Cow::Owned(status.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_beyond_the_cap_and_junk_are_folded_and_known_names_stay() {
        let cap = Cap::new(2);
        let long = "x".repeat(LONGEST + 1);
        let folded = ["a", &long, "", "line\nbreak", "\u{7f}", "b\u{fffd}", "b", "c", "a"].map(|name| cap.fold(name));
        assert_eq!(folded, ["a", OTHER, OTHER, OTHER, OTHER, OTHER, "b", OTHER, "a"]);
    }
}
