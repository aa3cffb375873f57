//! The store of one instance alone, and what the other stores are held to.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use super::shared::{Ask, Key, Reporter, Shared};
use super::store::Answers;

#[derive(Default)]
pub struct MemoryStore(Mutex<States>);

#[derive(Default)]
struct States {
    by_key: BTreeMap<Key, Shared>,
    /// The key that was last looked at for being over.
    swept: Key,
}

/// States looked at with every ask, so that what is over does not stay.
const SWEEP: usize = 4;

impl MemoryStore {
    pub fn ask(&self, who: &Reporter, asks: &[Ask], now: u64) -> Answers {
        // Nothing in here is left half done.
        let mut states = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let told = asks.iter().map(|ask| Some(states.take(who, ask, now))).collect();
        Answers { now, told }
    }
}

impl States {
    fn take(&mut self, who: &Reporter, ask: &Ask, now: u64) -> super::shared::Told {
        self.sweep(now);
        let mut state = self.by_key.remove(&ask.key).filter(|state| !state.is_over(now));
        let told = Shared::take(&mut state, who, ask, now);
        self.by_key.extend(state.map(|state| (ask.key, state)));
        told
    }

    fn sweep(&mut self, now: u64) {
        let after = (std::ops::Bound::Excluded(self.swept), std::ops::Bound::Unbounded);
        let looked: Vec<(Key, bool)> =
            self.by_key.range(after).take(SWEEP).map(|(key, state)| (*key, state.is_over(now))).collect();
        for (key, _) in looked.iter().filter(|(_, over)| *over) {
            self.by_key.remove(key);
        }
        self.swept = looked.last().map_or(Key(0), |(key, _)| *key);
    }
}
