//! The time between two attempts.

use std::time::Duration;

use super::now;

/// Between attempts: longer each time, and never quite the same, so that many instances do not come at once.
#[derive(Default)]
pub(super) struct Pause(u32);

impl Pause {
    const FIRST_MILLIS: u64 = 100;
    const LONGEST_MILLIS: u64 = 5_000;

    pub(super) async fn wait(&mut self) {
        let whole = (Self::FIRST_MILLIS << self.0.min(10)).min(Self::LONGEST_MILLIS);
        self.0 += 1;
        let jitter = now().0 % (whole / 2);
        tokio::time::sleep(Duration::from_millis(whole - jitter)).await;
    }
}
