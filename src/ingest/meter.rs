//! Bodies that are still coming, counted against a common bound, so that many slow or large ones cannot fill the memory.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use axum::body::Body;
use bytes::Bytes;
use http_body::Frame;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{NotKept, kib};

/// A body that takes its share of the memory as it comes, and gives it back when it is dropped.
pub(super) struct Metered {
    body: Body,
    memory: Arc<Semaphore>,
    bytes: usize,
    held: Option<OwnedSemaphorePermit>,
}

impl Metered {
    pub(super) fn new(body: Body, memory: Arc<Semaphore>) -> Self {
        Self { body, memory, bytes: 0, held: None }
    }

    fn grow(&mut self, bytes: usize) -> Result<(), NotKept> {
        let had = self.held.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        self.bytes = self.bytes.saturating_add(bytes);
        let more = u32::try_from(kib(self.bytes).saturating_sub(had)).map_err(|_| NotKept::Overloaded)?;
        let permit = Arc::clone(&self.memory).try_acquire_many_owned(more).map_err(|_| NotKept::Overloaded)?;
        match &mut self.held {
            Some(held) => held.merge(permit),
            None => self.held = Some(permit),
        }
        Ok(())
    }
}

/// Why a body did not come to its end.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unread {
    #[error(transparent)]
    NotKept(NotKept),
    #[error("the body broke off")]
    Broken(#[source] axum::Error),
}

impl http_body::Body for Metered {
    type Data = Bytes;
    type Error = Unread;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Unread>>> {
        let Some(frame) = ready!(Pin::new(&mut self.body).poll_frame(context)) else { return Poll::Ready(None) };
        let frame = frame.map_err(Unread::Broken)?;
        if let Some(data) = frame.data_ref() {
            self.grow(data.len()).map_err(Unread::NotKept)?;
        }
        Poll::Ready(Some(Ok(frame)))
    }
}
