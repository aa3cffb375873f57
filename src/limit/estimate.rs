//! What a request will probably use: what it says itself, else what requests like it used, else what the operator configured.

use std::sync::{Mutex, MutexGuard, PoisonError};

use rustc_hash::FxHashMap;

use super::config::EstimateConfig;
use tacho_core::domain::call::Tokens;

/// Tokens of the last requests, by model and agent.
pub struct Estimates {
    configured: EstimateConfig,
    seen: Mutex<FxHashMap<Like, Seen>>,
}

/// Requests that are alike.
type Like = (Box<str>, Box<str>);

#[derive(Default)]
struct Seen {
    input: Recent,
    output: Recent,
}

/// The last counts, in a ring.
#[derive(Default)]
struct Recent {
    counts: Vec<u64>,
    next: usize,
}

/// Requests remembered of each kind.
const RING: usize = 64;
/// Fewer say nothing.
const ENOUGH: usize = 8;
/// Kinds remembered; those beyond it get what is configured.
const MOST_KINDS: usize = 2_000;

impl Estimates {
    pub fn new(configured: EstimateConfig) -> Self {
        Self { configured, seen: Mutex::default() }
    }

    /// A request of this model and agent used so much.
    pub fn observe(&self, model: Option<&str>, agent: Option<&str>, tokens: &Tokens) {
        let mut seen = self.lock();
        let like = like(model, agent);
        if seen.len() >= MOST_KINDS && !seen.contains_key(&like) {
            return;
        }
        let seen = seen.entry(like).or_default();
        seen.input.add(tokens.input);
        seen.output.add(tokens.output);
    }

    /// Of requests like it 95 in 100 used no more.
    pub fn tokens(&self, model: Option<&str>, agent: Option<&str>, input: Option<u32>, output: Option<u32>) -> Tokens {
        let seen = self.lock();
        let seen = seen.get(&like(model, agent));
        let guess = |told: Option<u32>, recent: Option<&Recent>, configured: u32| {
            told.map(u64::from).or_else(|| recent.and_then(Recent::high)).unwrap_or(u64::from(configured))
        };
        Tokens {
            input: guess(input, seen.map(|seen| &seen.input), self.configured.input_tokens),
            output: guess(output, seen.map(|seen| &seen.output), self.configured.output_tokens),
            ..Tokens::default()
        }
    }

    fn lock(&self) -> MutexGuard<'_, FxHashMap<Like, Seen>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn like(model: Option<&str>, agent: Option<&str>) -> Like {
    // A hostile name must not fill the memory.
    let short = |name: Option<&str>| name.unwrap_or_default().chars().take(128).collect::<String>().into_boxed_str();
    (short(model), short(agent))
}

impl Recent {
    fn add(&mut self, count: u64) {
        if self.counts.len() < RING {
            self.counts.push(count);
        } else {
            self.counts[self.next] = count;
            self.next = (self.next + 1) % RING;
        }
    }

    fn high(&self) -> Option<u64> {
        if self.counts.len() < ENOUGH {
            return None;
        }
        let mut sorted = self.counts.clone();
        sorted.sort_unstable();
        Some(sorted[(sorted.len() * 95).div_ceil(100) - 1])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_goes_before_what_was_seen_and_that_before_what_is_configured() {
        let estimates = Estimates::new(EstimateConfig::default());
        let guess = |output| estimates.tokens(Some("m"), Some("a"), None, output).output;
        assert_eq!((guess(None), guess(Some(7))), (500, 7));
        for output in 1..=100 {
            estimates.observe(Some("m"), Some("a"), &Tokens { output, ..Tokens::default() });
        }
        // Of the last 64, 37 to 100, the 61st.
        assert_eq!((guess(None), guess(Some(7))), (97, 7));
        assert_eq!(estimates.tokens(Some("m"), None, None, None).output, 500);
    }
}
