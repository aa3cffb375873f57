//! What may go wrong.

use super::world::MS;

/// What the network and the clocks are like.
#[derive(Clone, Copy, Debug)]
pub(super) struct Weather {
    pub delay: (u64, u64),
    /// In thousandths of the messages.
    pub lost: u64,
    pub doubled: u64,
    pub stalled: u64,
    pub timeout: u64,
}

impl Weather {
    /// Nothing is lost, and nobody waits in vain.
    pub(super) fn fair(longest_ms: u64) -> Self {
        Self { delay: (MS / 10, longest_ms * MS), lost: 0, doubled: 0, stalled: 0, timeout: 3 * longest_ms * MS }
    }

    pub(super) fn foul() -> Self {
        Self { delay: (MS, 60 * MS), lost: 50, doubled: 100, stalled: 20, timeout: 50 * MS }
    }
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Fault {
    /// This instance is cut off for so long.
    Cut(usize, u64),
    /// The store is away for so long, and keeps its state.
    Away(u64),
    /// The store forgets everything.
    Forget,
    Snapshot,
    /// The store is as it was at the last snapshot.
    Restore,
    /// An instance dies and comes back with nothing but its name.
    Crash(usize),
}
