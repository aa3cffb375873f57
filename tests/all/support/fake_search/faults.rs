//! What a fake does wrong on command: to whole requests, or to single items of a bulk request.

use std::time::Duration;

use super::bulk::Item;

/// How often a fault happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Times {
    Next(u32),
    UntilCleared,
}

impl Times {
    /// Whether it happens now; counts down.
    fn take(&mut self) -> bool {
        match self {
            Self::UntilCleared => true,
            Self::Next(0) => false,
            Self::Next(left) => {
                *left -= 1;
                true
            }
        }
    }
}

/// What happens to a whole request. Where nothing else is said, nothing of it is written.
#[derive(Clone, Debug)]
pub enum RequestFault {
    /// 429 `circuit_breaking_exception`: the body is more than the node has memory for.
    CircuitBreaker,
    /// 429 `es_rejected_execution_exception` (`rejected_execution_exception` in OpenSearch): too much is being indexed.
    QueueFull,
    /// 503: no master, or cluster manager, is known.
    NoMaster,
    /// 413 without a body.
    TooLarge,
    Unauthorized,
    Forbidden,
    /// This status with this body, as a proxy in between may say it.
    Answer(u16, &'static str),
    /// Never answered.
    Hang,
    /// Everything is done, and the connection is cut in the middle of the answer.
    CutAnswer,
    /// Done after so long.
    Slow(Duration),
}

/// What happens to an item. Nothing of it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ItemFault {
    /// 429, to be repeated.
    QueueFull,
    /// 429 as the disk is full, until an operator has made room.
    FloodStage,
    /// 400: the document does not fit the mapping.
    Mapping,
    /// 503: the primary shard is away.
    NoShard,
    /// 404, where indices are not made by themselves.
    NoIndex,
    /// 201, yet the document went to the failure store.
    FailureStore,
}

type Picks = Box<dyn Fn(&Item) -> bool + Send>;

#[derive(Default)]
pub(super) struct Faults {
    requests: Vec<(&'static str, RequestFault, Times)>,
    items: Vec<(Picks, ItemFault, Times)>,
}

impl Faults {
    pub(super) fn add_request(&mut self, path: &'static str, fault: RequestFault, times: Times) {
        self.requests.push((path, fault, times));
    }

    pub(super) fn add_item(&mut self, picks: Picks, fault: ItemFault, times: Times) {
        self.items.push((picks, fault, times));
    }

    /// The first that holds for this path and is not used up.
    pub(super) fn of_request(&mut self, path: &str) -> Option<RequestFault> {
        let mut matching = self.requests.iter_mut().filter(|(part, ..)| path.contains(*part));
        matching.find_map(|(_, fault, times)| times.take().then(|| fault.clone()))
    }

    /// The first that picks this item and is not used up.
    pub(super) fn of_item(&mut self, item: &Item) -> Option<ItemFault> {
        let mut matching = self.items.iter_mut().filter(|(picks, ..)| picks(item));
        matching.find_map(|(_, fault, times)| times.take().then_some(*fault))
    }
}
