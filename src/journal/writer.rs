//! The thread that appends, and the handles others have to it.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot, watch};

use super::disk::{Disk, Folder};
use super::log::Log;
use super::reader::{Reader, Step};
use super::{Entry, JournalError, JournalMeters, NotAppended, Place};
use tacho_core::domain::lsn::Lsn;

/// Most appends that wait for the thread.
const MOST_WAITING: usize = 1024;
/// Most bytes written before a sync; one payload may be longer.
const MOST_A_SYNC: usize = 8 << 20;
/// Between two notes of how old which frame is.
const MARK_EVERY: Duration = Duration::from_secs(1);

enum Order {
    Append(Append),
    Trim(Lsn),
    /// Nothing but an answer.
    Answer(oneshot::Sender<()>),
}

struct Append {
    kind: u8,
    payload: Vec<u8>,
    answer: oneshot::Sender<Result<Lsn, NotAppended>>,
}

/// What the thread lets others see.
struct Shared {
    bytes: AtomicU64,
    /// With so many bytes there is no room for another segment.
    full: u64,
    broken: AtomicBool,
    /// Since when the oldest frame that is still needed is there.
    oldest: Mutex<Option<Instant>>,
}

/// The way to the journal. The thread ends when the last of these is gone.
#[derive(Clone)]
pub(crate) struct Journal {
    orders: mpsc::Sender<Order>,
    durable: watch::Receiver<Lsn>,
    shared: Arc<Shared>,
    place: Place,
    meters: JournalMeters,
}

impl Journal {
    pub(super) fn start(log: Log<Folder>, place: Place, meters: JournalMeters) -> io::Result<Self> {
        let (orders, waiting) = mpsc::channel(MOST_WAITING);
        let (tell, durable) = watch::channel(log.next().before());
        let (bytes, broken) = (AtomicU64::new(log.bytes()), AtomicBool::new(false));
        let shared = Arc::new(Shared { bytes, full: log.full(), broken, oldest: Mutex::default() });
        meters.max_bytes.set(i64::try_from(log.full()).unwrap_or(i64::MAX));
        let (seen, counted) = (Arc::clone(&shared), meters.clone());
        let thread = Thread { log, tell, shared: seen, meters: counted, marks: VecDeque::new() };
        thread::Builder::new().name("journal".to_owned()).spawn(move || thread.run(waiting))?;
        Ok(Self { orders, durable, shared, place, meters })
    }

    /// Its name among the journals of all instances.
    pub(crate) fn id(&self) -> &Arc<str> {
        &self.place.id
    }

    /// Ends when the payload is durable. A caller that goes away before may find it appended all the same.
    pub(crate) async fn append(&self, kind: u8, payload: Vec<u8>) -> Result<Lsn, NotAppended> {
        let (answer, appended) = oneshot::channel();
        self.orders.send(Order::Append(Append { kind, payload, answer })).await.map_err(|_| NotAppended::Broken)?;
        appended.await.map_err(|_| NotAppended::Broken)?
    }

    /// Whether a payload would be taken now, as far as can be told without its length: there is room for a segment.
    pub(crate) fn has_room(&self) -> bool {
        self.shared.bytes.load(Ordering::Relaxed) < self.shared.full
    }

    /// Whether it takes nothing more until a restart.
    pub(crate) fn is_broken(&self) -> bool {
        self.shared.broken.load(Ordering::Relaxed)
    }

    /// Ends when the thread has come to it; `false` when there is none.
    pub(crate) async fn answers(&self) -> bool {
        let (answer, answered) = oneshot::channel();
        self.orders.send(Order::Answer(answer)).await.is_ok() && answered.await.is_ok()
    }

    /// Reads how old the oldest frame is that is still needed.
    pub(crate) fn age(&self) -> impl Fn() -> Duration + use<> {
        let shared = Arc::clone(&self.shared);
        move || {
            let oldest = shared.oldest.lock().unwrap_or_else(PoisonError::into_inner);
            oldest.map_or(Duration::ZERO, |oldest| oldest.elapsed())
        }
    }

    /// Says that frames before this one are needed no longer. That must be durable elsewhere.
    pub(crate) fn trim(&self, needed: Lsn) {
        // When the queue is full the next call says it again.
        drop(self.orders.try_send(Order::Trim(needed)));
    }

    /// Reads what is durable, from this frame on. To be used in a thread that may wait.
    pub(crate) fn follow(&self, from: Lsn) -> Result<Follower, JournalError> {
        let reader = Reader::new(Folder::open(&self.place.folder)?, from);
        Ok(Follower { reader, durable: self.durable.clone(), meters: self.meters.clone() })
    }
}

/// Frames in their order, as they become durable.
pub(crate) struct Follower {
    reader: Reader<Folder>,
    durable: watch::Receiver<Lsn>,
    meters: JournalMeters,
}

impl Follower {
    /// The next frame, or `None` when all durable ones are read.
    pub(crate) fn read(&mut self) -> Result<Option<Entry>, JournalError> {
        let durable = *self.durable.borrow_and_update();
        loop {
            match self.reader.step(durable)? {
                Step::Entry(entry) => return Ok(Some(entry)),
                Step::End => return Ok(None),
                Step::Quarantined(damaged) => {
                    self.meters.quarantined.inc();
                    // Where it is not known how many there were, it was at least one.
                    self.meters.lost.inc_by(damaged.to.0.saturating_sub(damaged.from.0).max(1));
                    tracing::error!(
                        file = damaged.file,
                        bytes = damaged.bytes,
                        first_lsn = damaged.from.0,
                        end_lsn = damaged.to.0,
                        "damaged part of the journal set aside"
                    );
                }
            }
        }
    }

    /// Waits until more is durable; `false` when nothing more will be.
    pub(crate) async fn more(&mut self) -> bool {
        self.durable.changed().await.is_ok()
    }
}

struct Thread<D> {
    log: Log<D>,
    tell: watch::Sender<Lsn>,
    shared: Arc<Shared>,
    meters: JournalMeters,
    /// Frames with the time when they were appended, a second apart.
    marks: VecDeque<(Lsn, Instant)>,
}

impl<D: Disk> Thread<D> {
    fn run(mut self, mut waiting: mpsc::Receiver<Order>) {
        self.marks.push_back((self.log.first(), Instant::now()));
        self.show();
        let mut appends = Vec::new();
        while let Some(order) = waiting.blocking_recv() {
            let mut bytes = 0;
            let mut next = Some(order);
            while let Some(order) = next {
                match order {
                    Order::Append(append) => {
                        bytes += append.payload.len();
                        appends.push(append);
                    }
                    Order::Trim(needed) => self.trim(needed),
                    // Nobody may wait for it any more.
                    Order::Answer(answer) => drop(answer.send(())),
                }
                next = if bytes < MOST_A_SYNC { waiting.try_recv().ok() } else { None };
            }
            self.append(std::mem::take(&mut appends));
            self.show();
        }
    }

    /// Appends what fits, syncs once, answers all.
    fn append(&mut self, appends: Vec<Append>) {
        let mut pending = 0;
        let mut fitting = Vec::with_capacity(appends.len());
        for append in appends {
            if self.log.fits(pending, append.payload.len()) || self.log.poisoned() {
                pending += (append.payload.len() + super::frame::FRAME_HEADER) as u64;
                fitting.push(append);
            } else {
                answer(append, Err(NotAppended::Full));
            }
        }
        if fitting.is_empty() {
            return;
        }
        let first = self.log.next();
        let result = self.log.append(fitting.iter().map(|append| (append.kind, &*append.payload)));
        if let Ok(last) = result {
            self.meters.fsync.observe(self.log.last_sync.as_secs_f64());
            self.tell.send_replace(last);
            self.mark(last);
        }
        for (append, place) in fitting.into_iter().zip(0..) {
            answer(append, result.map(|_| Lsn(first.0 + place)));
        }
    }

    fn trim(&mut self, needed: Lsn) {
        if let Err(error) = self.log.trim(needed) {
            tracing::warn!(%error, "segment of the journal not removed");
        }
        while let [Some(_), Some((second, _))] = [self.marks.front(), self.marks.get(1)]
            && *second <= needed
        {
            self.marks.pop_front();
        }
        if needed >= self.log.next() {
            self.marks.clear();
        }
    }

    fn mark(&mut self, lsn: Lsn) {
        if self.marks.back().is_none_or(|(_, time)| time.elapsed() >= MARK_EVERY) {
            self.marks.push_back((lsn, Instant::now()));
        }
    }

    fn show(&self) {
        let bytes = self.log.bytes();
        self.shared.bytes.store(bytes, Ordering::Relaxed);
        self.shared.broken.store(self.log.poisoned(), Ordering::Relaxed);
        self.meters.bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
        let oldest = self.marks.front().map(|(_, time)| *time);
        *self.shared.oldest.lock().unwrap_or_else(PoisonError::into_inner) = oldest;
    }
}

fn answer(append: Append, result: Result<Lsn, NotAppended>) {
    if append.answer.send(result).is_err() {
        tracing::debug!("nobody waited for the answer of the journal");
    }
}
