//! Label values from names that others choose, kept to a bounded set.

use std::borrow::Cow;
use std::sync::Mutex;

use prometheus::IntCounter;
use rustc_hash::FxHashSet;

/// What is beyond the bound is counted under this name.
const OTHER: &str = "__other__";
/// No service, model or route is longer; what is, is junk and never takes a place.
const LONGEST: usize = 128;

/// Lets the first so many names through and folds the rest. A name that got through stays.
pub(super) struct Cap {
    most: usize,
    names: Mutex<FxHashSet<Box<str>>>,
    folded: IntCounter,
}

impl Cap {
    pub fn new(most: usize, folded: IntCounter) -> Self {
        Self { most, names: Mutex::default(), folded }
    }

    pub fn fold<'n>(&self, name: &'n str) -> Cow<'n, str> {
        let mut names = self.names.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if names.contains(name) {
            return Cow::Borrowed(name);
        }
        let junk = name.is_empty() || name.len() > LONGEST || name.contains('\u{fffd}');
        if junk || names.len() >= self.most {
            self.folded.inc();
            return Cow::Borrowed(OTHER);
        }
        names.insert(name.into());
        Cow::Borrowed(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_beyond_the_cap_and_junk_are_folded_and_known_names_stay() {
        let cap = Cap::new(2, IntCounter::new("folded", "test").unwrap());
        let long = "x".repeat(200);
        let folded: Vec<_> = ["a", &long, "b", "c", "a"].map(|name| cap.fold(name).into_owned()).into();
        assert_eq!(folded, ["a", OTHER, "b", OTHER, "a"]);
        assert_eq!(cap.folded.get(), 2);
    }
}
