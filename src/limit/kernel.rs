//! The decision itself: governor's rate limiter over a store that holds one value, ours. A value goes in, a value comes out; who
//! keeps it is not decided here.
//!
//! Governor keeps times relative to the first reading of its clock. Our clock's first reading is zero, so that a theoretical
//! arrival time (TAT) is absolute and can be shared; the differential test below holds that to governor's own store.

use std::cell::Cell;
use std::num::NonZeroU32;

use governor::clock::Clock;
use governor::middleware::NoOpMiddleware;
use governor::nanos::Nanos;
use governor::state::{NotKeyed, StateStore};
use governor::{Quota, RateLimiter};

/// What a bucket answers to a wish for cells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The bucket's TAT if the wish is granted.
    Fits { tat: u64 },
    /// It fits this many nanoseconds later, if nobody else comes first.
    Wait { nanos: u64 },
    /// The bucket never holds so many.
    TooMany,
}

/// Asks for `cells` at time `now` of a bucket whose TAT is `tat`; all in nanoseconds since 1970. Changes nothing.
pub fn ask(quota: Quota, tat: u64, now: u64, cells: NonZeroU32) -> Answer {
    let limiter =
        RateLimiter::<NotKeyed, Slot, At, NoOpMiddleware<Nanos>>::new(quota, Slot(Cell::new(tat)), At::new(now));
    match limiter.check_n(cells) {
        Ok(Ok(())) => Answer::Fits { tat: limiter.into_state_store().0.get() },
        Ok(Err(not_until)) => {
            let earliest = not_until.earliest_possible().as_u64();
            Answer::Wait { nanos: earliest.saturating_sub(now) }
        }
        Err(_) => Answer::TooMany,
    }
}

/// The store: one TAT.
struct Slot(Cell<u64>);

impl StateStore for Slot {
    type Key = NotKeyed;

    fn measure_and_replace<T, F, E>(&self, _key: &NotKeyed, decide: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        let (decision, tat) = decide(Some(Nanos::new(self.0.get())))?;
        self.0.set(tat.as_u64());
        Ok(decision)
    }
}

/// The clock: zero when the limiter is made, then the time it was given.
struct At {
    now: u64,
    made: Cell<bool>,
}

impl At {
    fn new(now: u64) -> Self {
        Self { now, made: Cell::new(false) }
    }
}

impl Clock for At {
    type Instant = Nanos;

    fn now(&self) -> Nanos {
        if self.made.replace(true) { Nanos::new(self.now) } else { Nanos::new(0) }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use governor::clock::FakeRelativeClock;
    use proptest::prelude::*;

    use super::*;

    const EPOCH: u64 = 1_790_000_000_000_000_000;

    proptest! {
        /// Wish for wish the answer of governor's own limiter with its own store and clock, at absolute times.
        #[test]
        fn the_answers_are_those_of_stock_governor(
            step in 1_000u64..2_000_000_000,
            burst in 1u32..200,
            wishes in prop::collection::vec((0u64..3_000_000_000, 1u32..250), 1..100),
        ) {
            let quota = Quota::with_period(Duration::from_nanos(step)).unwrap().allow_burst(burst.try_into().unwrap());
            let clock = FakeRelativeClock::default();
            let stock = RateLimiter::direct_with_clock(quota, clock.clone());
            let (mut now, mut tat) = (EPOCH, 0);
            for (pause, cells) in wishes {
                now += pause;
                clock.advance(Duration::from_nanos(pause));
                let cells = cells.try_into().unwrap();
                let expected = stock.check_n(cells);
                // A question changes nothing, however often it is asked.
                prop_assert_eq!(ask(quota, tat, now, cells), ask(quota, tat, now, cells));
                match ask(quota, tat, now, cells) {
                    Answer::Fits { tat: next } => {
                        prop_assert!(matches!(expected, Ok(Ok(()))));
                        prop_assert_eq!(next, tat.max(now) + step * u64::from(cells.get()));
                        tat = next;
                    }
                    Answer::Wait { nanos } => {
                        prop_assert!(matches!(expected, Ok(Err(_))));
                        // Waiting that long is enough, and a nanosecond less is not.
                        let fits = |at| matches!(ask(quota, tat, at, cells), Answer::Fits { .. });
                        prop_assert!(fits(now + nanos) && !fits(now + nanos - 1));
                    }
                    Answer::TooMany => prop_assert!(expected.is_err()),
                }
            }
        }
    }
}
