//! stub
use super::memory::MemoryStore;
use super::shared::{Ask, NodeId, Reporter, Told};
use std::time::Duration;
pub enum Store {
    Memory(MemoryStore),
}
pub struct Answers {
    pub now: u64,
    pub told: Vec<Told>,
}
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("away")]
    Away,
}
impl Store {
    pub fn memory() -> Self {
        Self::Memory(MemoryStore::default())
    }
    pub async fn database(_url: &str) -> Result<Self, StoreError> {
        Err(StoreError::Away)
    }
    pub async fn redis(_url: &str, _timeout: Duration) -> Result<Self, StoreError> {
        Err(StoreError::Away)
    }

    pub async fn ask(&self, who: &Reporter, asks: &[Ask], now: u64) -> Result<Answers, StoreError> {
        match self {
            Self::Memory(store) => Ok(store.ask(who, asks, now)),
        }
    }
    pub async fn heartbeat(&self, _node: &NodeId, _ttl: Duration, _now: u64) -> Result<u32, StoreError> {
        Ok(1)
    }
    pub async fn leave(&self, _node: &NodeId) -> Result<(), StoreError> {
        Ok(())
    }
}
