//! Where instances meet: what each kind of store is asked, the same of all.

use std::time::Duration;

use super::database::DatabaseStore;
use super::memory::MemoryStore;
use super::redis::RedisStore;
use super::shared::{Ask, NodeId, Reporter, Told};
use crate::remote::Target;

pub enum Store {
    Memory(MemoryStore),
    Database(DatabaseStore),
    Redis(Box<RedisStore>),
}

/// What came of some asks, in their order, and the store's time in microseconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answers {
    pub now: u64,
    /// `None` of a key whose part of the store is away.
    pub told: Vec<Option<Told>>,
}

impl Answers {
    pub fn of(&self, nth: usize) -> Option<&Told> {
        self.told.get(nth)?.as_ref()
    }
}

type Source = Box<dyn std::error::Error + Send + Sync>;

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// It may answer the next time.
    #[error("the store does not answer")]
    Away(#[source] Source),
    /// Somebody must mend it: an answer that means nothing to us, no rights, an address that is none.
    #[error("the store cannot be used as it is")]
    Unusable(#[source] Source),
}

impl Store {
    pub fn memory() -> Self {
        Self::Memory(MemoryStore::default())
    }

    /// On the database of the records, whose migrations have made the tables.
    pub async fn database(target: impl Into<Target>) -> Result<Self, StoreError> {
        DatabaseStore::open(&target.into()).await.map(Self::Database)
    }

    /// Several addresses, parted by commas, are those of a cluster.
    pub async fn redis(target: impl Into<Target>, timeout: Duration) -> Result<Self, StoreError> {
        RedisStore::open(&target.into(), timeout).await.map(|store| Self::Redis(Box::new(store)))
    }

    /// Puts reports to the store, of each key at most one. `now`: the caller's time in microseconds, for stores without a clock of
    /// their own.
    pub async fn ask(&self, who: &Reporter, asks: &[Ask], now: u64) -> Result<Answers, StoreError> {
        match self {
            Self::Memory(store) => Ok(store.ask(who, asks, now)),
            Self::Database(store) => store.ask(who, asks, now).await,
            Self::Redis(store) => store.ask(who, asks).await,
        }
    }

    /// Says that this node lives for so long, and hears how many do.
    pub async fn heartbeat(&self, node: &NodeId, ttl: Duration, now: u64) -> Result<u32, StoreError> {
        match self {
            Self::Memory(_) => Ok(1),
            Self::Database(store) => store.heartbeat(node, ttl, now).await,
            Self::Redis(store) => store.heartbeat(node, ttl).await,
        }
    }

    pub async fn leave(&self, node: &NodeId) -> Result<(), StoreError> {
        match self {
            Self::Memory(_) => Ok(()),
            Self::Database(store) => store.leave(node).await,
            Self::Redis(store) => store.heartbeat(node, Duration::ZERO).await.map(drop),
        }
    }

    pub async fn close(&self) {
        if let Self::Database(store) = self {
            store.close().await;
        }
    }
}
