//! Holds the spans of open traces until they are quiet. It decides only *when* a trace is looked at, never what is in it, so a
//! trace that is handed out too early costs a second look and nothing else.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, btree_map};
use std::time::Duration;

use rustc_hash::FxHashMap;

use super::AssembleConfig;
use crate::domain::ids::TraceId;
use crate::domain::lsn::Lsn;
use crate::domain::span::{Received, Span};
use crate::domain::time::Timestamp;
use crate::domain::trace::Trace;

/// Most open traces; beyond it the one that is due first is handed out early.
const MOST_TRACES: usize = 100_000;
/// Most bytes in open traces.
const MOST_BYTES: usize = 16 << 20;
/// A trace in which something always happens is looked at so many times `quiet` after the first span that is not yet written.
const LONGEST_WAIT: u32 = 3;
/// The part of the bounds that is made free when they are reached.
const ROOM_KEPT: usize = 4;
/// What a trace costs beside its spans: its places in the map and in the heap.
const TRACE_OVERHEAD: usize = 160;

/// A trace that is to be looked at: it was quiet, or had waited long enough, or there was no more room.
#[derive(Debug)]
pub struct Closed {
    pub trace_id: TraceId,
    pub trace: Trace,
    /// When its first span came.
    pub first_seen: Timestamp,
    /// The frame in which its first span came.
    pub since: Lsn,
}

struct Open {
    since: Lsn,
    trace: Trace,
    first_seen: Timestamp,
    last_seen: Timestamp,
    bytes: usize,
}

/// The open traces.
pub struct Gatherer {
    quiet: Duration,
    open: FxHashMap<TraceId, Open>,
    /// When to look at a trace; one entry an open trace. Spans that came since push it back when its time comes.
    due: BinaryHeap<Reverse<(Timestamp, TraceId)>>,
    bytes: usize,
    /// How many open traces began in each frame.
    since: BTreeMap<Lsn, usize>,
    most_traces: usize,
    most_bytes: usize,
}

impl Gatherer {
    pub fn new(config: &AssembleConfig) -> Self {
        Self::bounded(config, MOST_TRACES, MOST_BYTES)
    }

    pub fn bounded(config: &AssembleConfig, most_traces: usize, most_bytes: usize) -> Self {
        let (open, due) = (FxHashMap::default(), BinaryHeap::new());
        Self { quiet: config.quiet, open, due, bytes: 0, since: BTreeMap::new(), most_traces, most_bytes }
    }

    /// Takes a span that came in this frame of the journal.
    pub fn add(&mut self, received: Received, frame: Lsn, now: Timestamp) {
        let Received { trace_id, origin, span } = received;
        let open = self.open.entry(trace_id).or_insert_with(|| {
            self.due.push(Reverse((now.plus(self.quiet), trace_id)));
            self.bytes += TRACE_OVERHEAD;
            *self.since.entry(frame).or_default() += 1;
            Open { since: frame, trace: Trace::default(), first_seen: now, last_seen: now, bytes: TRACE_OVERHEAD }
        });
        let size = size_of::<Span>() + span.facts.size();
        open.trace.push(&origin, span);
        open.last_seen = open.last_seen.max(now);
        open.bytes += size;
        self.bytes += size;
    }

    /// Takes out what is due at `now` or beyond the bounds, at most `most` traces, the first due first.
    pub fn close_due(&mut self, now: Timestamp, most: usize) -> Vec<Closed> {
        let mut closed = Vec::new();
        // Some more than must be, as many small batches cost more than few large ones.
        let kept = if self.over(1) { ROOM_KEPT } else { 1 };
        while closed.len() < most
            && let Some(Reverse((due, trace_id))) = self.due.peek().copied()
        {
            if due > now && !self.over(kept) {
                break;
            }
            self.due.pop();
            // Pushed back even where there is no more room: a trace that still grows is not the first due.
            let pushed_back = self.due_of(&trace_id);
            if pushed_back > due {
                self.due.push(Reverse((pushed_back, trace_id)));
            } else {
                closed.extend(self.take(trace_id));
            }
        }
        closed
    }

    /// Takes out everything, at most `most` traces a time.
    pub fn close_all(&mut self, most: usize) -> Vec<Closed> {
        self.close_due(Timestamp(u64::MAX), most)
    }

    /// The first frame of all open traces.
    pub fn oldest(&self) -> Option<Lsn> {
        self.since.first_key_value().map(|(frame, _)| *frame)
    }

    pub fn len(&self) -> usize {
        self.open.len()
    }

    pub fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// Whether there is more than the bounds less their `part`th part; than the whole bounds for 1.
    fn over(&self, part: usize) -> bool {
        let bound = |most: usize| if part == 1 { most } else { most - most / part };
        self.open.len() > bound(self.most_traces) || self.bytes > bound(self.most_bytes)
    }

    fn due_of(&self, trace_id: &TraceId) -> Timestamp {
        let open = self.open.get(trace_id).expect("every entry of the heap has its open trace");
        open.last_seen.plus(self.quiet).min(open.first_seen.plus(self.quiet * LONGEST_WAIT))
    }

    fn take(&mut self, trace_id: TraceId) -> Option<Closed> {
        let open = self.open.remove(&trace_id)?;
        self.bytes -= open.bytes;
        if let btree_map::Entry::Occupied(mut count) = self.since.entry(open.since) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
        Some(Closed { trace_id, trace: open.trace, first_seen: open.first_seen, since: open.since })
    }
}
