//! Whether the store is asked at all: the first failure opens the breaker, and while it is open no decision waits.

use std::sync::atomic::{AtomicBool, Ordering};

#[derive(Default)]
pub struct Breaker {
    open: AtomicBool,
}

impl Breaker {
    /// Open from the start: the store has not answered yet.
    pub fn opened() -> Self {
        Self { open: AtomicBool::new(true) }
    }

    pub fn is_open(&self) -> bool {
        self.open.load(Ordering::Acquire)
    }

    /// True if it was closed.
    pub fn trip(&self) -> bool {
        !self.open.swap(true, Ordering::AcqRel)
    }

    /// True if it was open.
    pub fn mend(&self) -> bool {
        self.open.swap(false, Ordering::AcqRel)
    }
}
