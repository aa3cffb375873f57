//! Whether the store is asked at all: the first failure opens the breaker, and while it is open no decision waits.

use std::sync::atomic::{AtomicBool, Ordering};

#[derive(Default)]
pub struct Breaker {
    open: AtomicBool,
    /// It was said once why.
    told: AtomicBool,
}

impl Breaker {
    /// Open from the start: the store has not answered yet.
    pub fn opened() -> Self {
        Self { open: AtomicBool::new(true), told: AtomicBool::new(false) }
    }

    pub fn is_open(&self) -> bool {
        self.open.load(Ordering::Acquire)
    }

    /// True if this is news: it was closed, or the store has never been there and nobody was told.
    pub fn trip(&self) -> bool {
        let was_closed = !self.open.swap(true, Ordering::AcqRel);
        let was_told = self.told.swap(true, Ordering::AcqRel);
        was_closed || !was_told
    }

    /// True if it was open.
    pub fn mend(&self) -> bool {
        self.open.swap(false, Ordering::AcqRel)
    }
}
