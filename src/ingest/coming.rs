//! Bodies that are still coming, counted against common bounds, so that many slow or large ones cannot fill the memory.
//! One that has been coming for long gives way when others find no room.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::{NotKept, kib};

/// An exporter's body is here in much less; what takes longer gives way when others wait.
const UNHURRIED: Duration = Duration::from_secs(1);
/// So long is waited for the room that another has left.
const PATIENCE: Duration = Duration::from_secs(1);

/// All bodies that are coming.
pub(super) struct Coming {
    /// Bodies, from before they are read until they are kept.
    places: Arc<Semaphore>,
    /// KiB of what has come.
    memory: Arc<Semaphore>,
    /// The oldest first.
    bodies: Mutex<Bodies>,
}

#[derive(Default)]
struct Bodies {
    next: u64,
    coming: BTreeMap<u64, (Instant, CancellationToken)>,
}

impl Coming {
    pub(super) fn new(most: usize, most_kib: usize) -> Arc<Self> {
        let [places, memory] = [most, most_kib].map(|bound| Arc::new(Semaphore::new(bound)));
        Arc::new(Self { places, memory, bodies: Mutex::default() })
    }

    pub(super) async fn place(&self) -> Result<OwnedSemaphorePermit, NotKept> {
        if let Ok(place) = Arc::clone(&self.places).try_acquire_owned() {
            return Ok(place);
        }
        if !self.cut_oldest() {
            return Err(NotKept::Overloaded);
        }
        let place = timeout(PATIENCE, Arc::clone(&self.places).acquire_owned()).await;
        place.ok().and_then(Result::ok).ok_or(NotKept::Overloaded)
    }

    /// The body, counted while it comes.
    pub(super) fn metered(self: &Arc<Self>, body: Body) -> Metered {
        let cut = CancellationToken::new();
        let mut bodies = self.lock();
        let id = bodies.next;
        bodies.next += 1;
        bodies.coming.insert(id, (Instant::now(), cut.clone()));
        drop(bodies);
        let (coming, entry) = (Arc::clone(self), Entry { id, coming: Arc::clone(self) });
        Metered {
            body,
            coming,
            bytes: 0,
            held: None,
            waits: None,
            cut: Box::pin(cut.cancelled_owned()),
            entry: Some(entry),
        }
    }

    /// Ends the body that has been coming for longest, if that is long; `false` where there is none.
    fn cut_oldest(&self) -> bool {
        let mut bodies = self.lock();
        match bodies.coming.first_entry() {
            Some(oldest) if oldest.get().0.elapsed() >= UNHURRIED => {
                oldest.remove().1.cancel();
                true
            }
            _ => false,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Bodies> {
        self.bodies.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A body among those that are coming; no more when this is dropped.
struct Entry {
    id: u64,
    coming: Arc<Coming>,
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.coming.lock().coming.remove(&self.id);
    }
}

type Wait = Pin<Box<dyn Future<Output = Result<OwnedSemaphorePermit, AcquireError>> + Send>>;

/// A body that takes its share of the memory as it comes, and gives it back when it is dropped.
pub(super) struct Metered {
    body: Body,
    coming: Arc<Coming>,
    /// Of it in memory.
    bytes: usize,
    held: Option<OwnedSemaphorePermit>,
    /// A frame that has come, and the memory that it waits for.
    waits: Option<(Frame<Bytes>, Wait)>,
    cut: Pin<Box<WaitForCancellationFutureOwned>>,
    /// None once the body is here.
    entry: Option<Entry>,
}

impl Metered {
    /// Takes memory for this frame, or waits for it where another body gives way.
    fn grow(&mut self, frame: Frame<Bytes>) -> Result<Option<Frame<Bytes>>, NotKept> {
        if self.entry.is_none() {
            return Ok(Some(frame));
        }
        let had = self.held.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        self.bytes = self.bytes.saturating_add(frame.data_ref().map_or(0, Bytes::len));
        let more = u32::try_from(kib(self.bytes).saturating_sub(had)).map_err(|_| NotKept::Overloaded)?;
        let memory = &self.coming.memory;
        if let Ok(permit) = Arc::clone(memory).try_acquire_many_owned(more) {
            self.hold(permit);
            return Ok(Some(frame));
        }
        if !self.coming.cut_oldest() {
            return Err(NotKept::Overloaded);
        }
        self.waits = Some((frame, Box::pin(Arc::clone(memory).acquire_many_owned(more))));
        Ok(None)
    }

    /// So much of it is in memory now, and not all that has come.
    pub(super) async fn holds(&mut self, bytes: usize) -> Result<(), NotKept> {
        self.bytes = bytes;
        let had = self.held.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        if let Some(less) = had.checked_sub(kib(bytes)) {
            // Given back.
            drop(self.held.as_mut().and_then(|held| held.split(less)));
            return Ok(());
        }
        let more = u32::try_from(kib(bytes) - had).map_err(|_| NotKept::Overloaded)?;
        let memory = Arc::clone(&self.coming.memory);
        let permit = match Arc::clone(&memory).try_acquire_many_owned(more) {
            Ok(permit) => permit,
            Err(_) if !self.coming.cut_oldest() => return Err(NotKept::Overloaded),
            Err(_) => {
                let freed = timeout(PATIENCE, memory.acquire_many_owned(more)).await;
                freed.ok().and_then(Result::ok).ok_or(NotKept::Overloaded)?
            }
        };
        self.hold(permit);
        Ok(())
    }

    fn hold(&mut self, permit: OwnedSemaphorePermit) {
        match &mut self.held {
            Some(held) => held.merge(permit),
            None => self.held = Some(permit),
        }
    }
}

/// Why a body did not come to its end.
#[derive(Debug, thiserror::Error)]
pub(super) enum NotHere {
    #[error(transparent)]
    NotKept(NotKept),
    #[error("the body broke off")]
    Broken(#[source] axum::Error),
}

impl http_body::Body for Metered {
    type Data = Bytes;
    type Error = NotHere;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, NotHere>>> {
        if self.entry.is_some() && self.cut.as_mut().poll(context).is_ready() {
            return Poll::Ready(Some(Err(NotHere::NotKept(NotKept::Overloaded))));
        }
        loop {
            if let Some((_, wait)) = &mut self.waits {
                let permit = ready!(wait.as_mut().poll(context));
                let frame = self.waits.take().map(|(frame, _)| frame);
                self.hold(permit.map_err(|_| NotHere::NotKept(NotKept::Overloaded))?);
                return Poll::Ready(frame.map(Ok));
            }
            let Some(frame) = ready!(Pin::new(&mut self.body).poll_frame(context)) else {
                self.entry = None;
                return Poll::Ready(None);
            };
            let frame = frame.map_err(NotHere::Broken)?;
            if let Some(frame) = self.grow(frame).map_err(NotHere::NotKept)? {
                return Poll::Ready(Some(Ok(frame)));
            }
        }
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
