//! How much a sink is sent at once, and when: it grows while the sink takes all of it and shrinks with each sign that it is too much.
//! Pure: it reads no clock and sends nothing.

use std::time::Duration;

/// Requests that are on their way at once.
const MAX_IN_FLIGHT: f64 = 6.0;
const MAX_DOCUMENTS: usize = 2_000;
const FIRST_DOCUMENTS: usize = 500;
/// Search servers advise 5 to 15 MB; less is held in memory.
const MAX_BYTES: usize = 4 << 20;
const MIN_BYTES: usize = 16 << 10;
/// An answer that takes longer is a sign of too much.
const SLOW: Duration = Duration::from_secs(5);

/// Why documents are sent again later, by what helps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hold {
    /// The sink has too much to do: less at once, and a pause.
    Busy(String),
    /// The sink has too little memory for requests so large.
    Memory(String),
    /// The sink cannot be reached, or is not itself now.
    Away(String),
    /// Somebody must mend something: a right, a full disk, a name.
    Operator(String),
}

/// The present bounds.
#[derive(Debug)]
pub(super) struct Pace {
    in_flight: f64,
    documents: usize,
    bytes: usize,
    troubles: u32,
}

impl Default for Pace {
    fn default() -> Self {
        Self { in_flight: 1.0, documents: FIRST_DOCUMENTS, bytes: MAX_BYTES, troubles: 0 }
    }
}

impl Pace {
    /// How many requests may be on their way.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 1 and 6")]
    pub(super) fn in_flight(&self) -> usize {
        self.in_flight as usize
    }

    /// Most documents in a request.
    pub(super) fn documents(&self) -> usize {
        self.documents
    }

    /// Most bytes in a request that has more than one document.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// All of a request was taken.
    pub(super) fn taken(&mut self, documents: usize, took: Duration) {
        self.troubles = 0;
        if took > SLOW {
            self.documents = (documents / 2).clamp(1, self.documents);
            self.in_flight = (self.in_flight / 2.0).max(1.0);
            return;
        }
        // One more for each round, however many requests make it.
        self.in_flight = (self.in_flight + 1.0 / self.in_flight).min(MAX_IN_FLIGHT);
        if documents >= self.documents {
            self.documents = (self.documents + self.documents / 2 + 1).min(MAX_DOCUMENTS);
        }
    }

    /// A request was too large.
    pub(super) fn too_large(&mut self, bytes: usize) {
        self.bytes = (bytes / 2).clamp(MIN_BYTES, self.bytes);
    }

    /// Something was not taken. How long nothing is sent; `chance` from 0 to 1 keeps instances and sinks apart.
    pub(super) fn held(&mut self, hold: &Hold, chance: f64) -> Duration {
        let (first, longest) = match hold {
            Hold::Busy(_) | Hold::Memory(_) => (Duration::from_millis(200), Duration::from_secs(15)),
            Hold::Away(_) => (Duration::from_millis(500), Duration::from_secs(15)),
            Hold::Operator(_) => (Duration::from_secs(5), Duration::from_secs(60)),
        };
        let whole = (first * (1 << self.troubles.min(10))).min(longest);
        self.troubles += 1;
        self.in_flight = match hold {
            Hold::Busy(_) | Hold::Memory(_) => (self.in_flight / 2.0).max(1.0),
            Hold::Away(_) | Hold::Operator(_) => 1.0,
        };
        if let Hold::Memory(_) = hold {
            self.bytes = (self.bytes / 2).max(MIN_BYTES);
            self.documents = (self.documents / 2).max(1);
        }
        whole.mul_f64(0.5 + chance.clamp(0.0, 1.0) / 2.0)
    }
}

impl Hold {
    /// What the sink said.
    pub fn reason(&self) -> &str {
        match self {
            Self::Busy(reason) | Self::Memory(reason) | Self::Away(reason) | Self::Operator(reason) => reason,
        }
    }

    /// The worse of two.
    pub(super) fn or_worse(self, other: Self) -> Self {
        if other.rank() > self.rank() { other } else { self }
    }

    fn rank(&self) -> u8 {
        match self {
            Self::Busy(_) => 0,
            Self::Memory(_) => 1,
            Self::Away(_) => 2,
            Self::Operator(_) => 3,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUICK: Duration = Duration::from_millis(50);

    #[test]
    fn it_grows_while_all_is_taken_and_stays_within_its_bounds() {
        let mut pace = Pace::default();
        for _ in 0..100 {
            pace.taken(pace.documents(), QUICK);
        }
        assert_eq!((pace.in_flight(), pace.documents(), pace.bytes()), (6, 2_000, MAX_BYTES));
    }

    #[test]
    fn a_part_of_a_batch_says_nothing_about_larger_ones() {
        let mut pace = Pace::default();
        pace.taken(3, QUICK);
        assert_eq!(pace.documents(), FIRST_DOCUMENTS);
    }

    #[test]
    fn pauses_grow_up_to_a_bound_and_end_with_success() {
        let mut pace = Pace::default();
        let busy = Hold::Busy(String::new());
        let pauses: Vec<u128> = (0..9).map(|_| pace.held(&busy, 1.0).as_millis()).collect();
        assert_eq!(pauses, [200, 400, 800, 1600, 3200, 6400, 12800, 15000, 15000]);
        pace.taken(1, QUICK);
        assert_eq!(pace.held(&busy, 0.0).as_millis(), 100);
        assert!(pace.held(&Hold::Operator(String::new()), 1.0) >= Duration::from_secs(10));
    }

    #[test]
    fn too_much_halves_what_was_too_much() {
        let mut pace = Pace::default();
        for _ in 0..100 {
            pace.taken(pace.documents(), QUICK);
        }
        pace.held(&Hold::Busy(String::new()), 1.0);
        assert_eq!((pace.in_flight(), pace.documents()), (3, 2_000));
        pace.held(&Hold::Memory(String::new()), 1.0);
        assert_eq!((pace.in_flight(), pace.documents(), pace.bytes()), (1, 1_000, MAX_BYTES / 2));
        pace.too_large(1 << 20);
        assert_eq!(pace.bytes(), 1 << 19);
        pace.too_large(1);
        assert_eq!(pace.bytes(), MIN_BYTES);
        pace.taken(1_000, Duration::from_secs(6));
        assert_eq!(pace.documents(), 500);
    }
}
