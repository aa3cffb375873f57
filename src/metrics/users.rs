//! Who gets series of his own where the operator asks for users: those that cost most, and nobody twice. Whoever has a series keeps
//! it for the life of the process, as a counter that stops looks like a user who stopped.

use std::sync::{Mutex, PoisonError};

use rustc_hash::{FxHashMap, FxHashSet};

use super::labels::is_junk;

/// Knows who has spent most.
pub(super) struct TopUsers {
    /// So many get series at once; as many again when they spend more.
    most: usize,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    /// What each has spent, as far as is remembered.
    spent: FxHashMap<User, u64>,
    shown: FxHashSet<User>,
}

type User = (Box<str>, Box<str>);

/// Users of whom it is remembered what they spent; of more the lesser half is forgotten.
const REMEMBERED: usize = 20_000;
/// One who is to push in must have spent half as much again as the last of the top.
const HYSTERESIS: (u64, u64) = (3, 2);

impl TopUsers {
    pub(super) fn new(most: usize) -> Self {
        Self { most, known: Mutex::default() }
    }

    pub(super) fn is_off(&self) -> bool {
        self.most == 0
    }

    /// Whether this user is shown by name, now that he has spent so much more.
    pub(super) fn spends(&self, tenant: &str, user: &str, nanousd: u64) -> bool {
        if is_junk(tenant) || is_junk(user) {
            return false;
        }
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let user: User = (tenant.into(), user.into());
        let spent = known.spent.entry(user.clone()).or_default();
        *spent = spent.saturating_add(nanousd);
        let spent = *spent;
        if known.spent.len() > REMEMBERED {
            known.forget();
        }
        if known.shown.contains(&user) {
            return true;
        }
        let shown = known.shown.len();
        let comes = shown < self.most || shown < 2 * self.most && known.beats(self.most, spent);
        if comes {
            known.shown.insert(user);
        }
        comes
    }
}

impl Known {
    /// Whether so much is clearly more than what the last of the first `most` has spent.
    fn beats(&self, most: usize, spent: u64) -> bool {
        let mut shown: Vec<u64> = self.shown.iter().map(|user| self.spent.get(user).copied().unwrap_or(0)).collect();
        shown.sort_unstable_by(|one, other| other.cmp(one));
        let last = shown.get(most - 1).copied().unwrap_or(0);
        spent > last.saturating_mul(HYSTERESIS.0) / HYSTERESIS.1
    }

    fn forget(&mut self) {
        let mut amounts: Vec<u64> = self.spent.values().copied().collect();
        let middle = amounts.len() / 2;
        let (_, median, _) = amounts.select_nth_unstable(middle);
        let (median, shown) = (*median, &self.shown);
        // The median itself may be what most have spent.
        self.spent.retain(|user, spent| *spent > median || shown.contains(user));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_come_in_at_once_and_others_when_they_have_clearly_spent_more() {
        let top = TopUsers::new(2);
        let shown = [("ann", 100), ("bob", 50), ("cem", 60), ("cem", 15), ("cem", 1), ("dora", 10), ("ann", 1)];
        let shown = shown.map(|(user, spent)| top.spends("t", user, spent));
        assert_eq!(shown, [true, true, false, false, true, false, true]);
        // Cem is in the top now, so the last of it is at 76.
        assert!(!top.spends("t", "dora", 104));
        assert!(top.spends("t", "dora", 1));
        assert!(!top.spends("t", "eve", 1_000_000), "there are no more than twice as many");
        assert!(top.spends("t", "bob", 0), "who is shown stays");
    }

    #[test]
    fn memory_has_a_bound_and_junk_is_nobody() {
        let top = TopUsers::new(1);
        for user in 0..3 * REMEMBERED {
            top.spends("t", &user.to_string(), 1);
        }
        assert!(top.known.lock().unwrap().spent.len() <= REMEMBERED + 1);
        assert!(!top.spends("t", "a\nb", u64::MAX) && !top.spends("", "a", u64::MAX));
        assert!(top.spends("t", "0", 0));
    }
}
