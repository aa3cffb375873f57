//! What is set aside for requests that have begun: found again by reservation or by trace, dropped when nothing comes.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustc_hash::FxHashMap;
use smallvec::SmallVec;

use super::node::{Cell, Node};
use super::shared::Key;
use tacho_core::domain::ids::{SpanId, TraceId};

/// Names a hold in answers and requests: 32 hex digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Reservation(pub u128);

impl Reservation {
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() != 32 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        u128::from_str_radix(text, 16).ok().map(Self)
    }
}

impl std::fmt::Display for Reservation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// The amounts set aside for one request.
pub struct Hold {
    pub origin: Origin,
    /// When it was made, in nanoseconds.
    pub at: u64,
    pub parts: SmallVec<[Part; 4]>,
}

/// The request it is for, as far as that was told. The span is that of the request itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Origin {
    pub trace: Option<TraceId>,
    pub span: Option<SpanId>,
}

pub struct Part {
    pub cell: Arc<Cell>,
    pub amount: i64,
}

impl Hold {
    /// What it holds of this limit and subject.
    pub fn of(&self, key: Key) -> Option<i64> {
        self.parts.iter().find(|part| part.cell.key == key).map(|part| part.amount)
    }

    /// Gives all of it back.
    pub fn release(self, node: &Node, now: u64) {
        for part in &self.parts {
            node.replace(&part.cell, part.amount, 0, now.saturating_sub(self.at), now);
        }
    }
}

/// All holds of this instance, within a bound: a hold beyond it pushes out the oldest, as if that had waited in vain.
pub struct Holds {
    most: usize,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    holds: FxHashMap<Reservation, Hold>,
    by_trace: FxHashMap<TraceId, SmallVec<[Reservation; 1]>>,
    /// In the order in which they end.
    ends: VecDeque<(u64, Reservation)>,
    last: u128,
}

impl Holds {
    /// `seed` makes reservations of this process unlike those of others.
    pub fn new(most: usize, seed: u64) -> Self {
        let inner = Inner { last: u128::from(seed) << 64, ..Inner::default() };
        Self { most: most.max(1), inner: Mutex::new(inner) }
    }

    /// `ends` must not be before that of the hold before. What was pushed out is answered too.
    pub fn add(&self, hold: Hold, ends: u64) -> (Reservation, Option<Hold>) {
        let mut inner = self.lock();
        let pushed_out = if inner.holds.len() >= self.most { inner.pop_oldest() } else { None };
        inner.last += 1;
        let reservation = Reservation(inner.last);
        if let Some(trace) = hold.origin.trace {
            inner.by_trace.entry(trace).or_default().push(reservation);
        }
        inner.holds.insert(reservation, hold);
        inner.ends.push_back((ends, reservation));
        (reservation, pushed_out)
    }

    pub fn take(&self, reservation: Reservation) -> Option<Hold> {
        self.lock().remove(reservation)
    }

    /// The hold of a request that was recorded: the one of its span, else one of its trace that names no span, else its oldest.
    pub fn take_for(&self, trace: TraceId, span: SpanId) -> Option<Hold> {
        let mut inner = self.lock();
        let found = inner.find(trace, span)?;
        inner.remove(found)
    }

    /// What the hold that `take_for` would take has of this limit.
    pub fn held_for(&self, trace: TraceId, span: SpanId, key: Key) -> Option<i64> {
        let inner = self.lock();
        inner.holds.get(&inner.find(trace, span)?)?.of(key)
    }

    /// Sets other amounts; `None` if there is no such hold. What it makes of each is up to `change`.
    pub fn change(&self, reservation: Reservation, change: impl FnMut(&mut Part)) -> Option<u64> {
        let mut inner = self.lock();
        let hold = inner.holds.get_mut(&reservation)?;
        hold.parts.iter_mut().for_each(change);
        Some(hold.at)
    }

    /// Those whose time is over.
    pub fn expired(&self, now: u64) -> Vec<Hold> {
        let mut inner = self.lock();
        let mut expired = Vec::new();
        while inner.ends.front().is_some_and(|(ends, _)| *ends <= now) {
            let next = inner.pop_next();
            expired.extend(next);
        }
        expired
    }

    pub fn all(&self) -> Vec<Hold> {
        let mut inner = self.lock();
        inner.ends.clear();
        inner.by_trace.clear();
        inner.holds.drain().map(|(_, hold)| hold).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Nothing in here is left half done.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn find(&self, trace: TraceId, span: SpanId) -> Option<Reservation> {
        let of_trace = self.by_trace.get(&trace)?;
        let with = |wanted: Option<SpanId>| {
            let is = |id: &&Reservation| self.holds.get(id).is_some_and(|hold| hold.origin.span == wanted);
            of_trace.iter().find(is)
        };
        // A check outside of the server span knows only the span of the caller.
        with(Some(span)).or_else(|| with(None)).or_else(|| of_trace.first()).copied()
    }

    fn remove(&mut self, reservation: Reservation) -> Option<Hold> {
        let hold = self.holds.remove(&reservation)?;
        if let Some(trace) = hold.origin.trace
            && let Some(of_trace) = self.by_trace.get_mut(&trace)
        {
            of_trace.retain(|known| *known != reservation);
            if of_trace.is_empty() {
                self.by_trace.remove(&trace);
            }
        }
        Some(hold)
    }

    /// The one that ends next, if it is still there.
    fn pop_next(&mut self) -> Option<Hold> {
        let (_, reservation) = self.ends.pop_front()?;
        self.remove(reservation)
    }

    fn pop_oldest(&mut self) -> Option<Hold> {
        while !self.ends.is_empty() {
            if let Some(hold) = self.pop_next() {
                return Some(hold);
            }
        }
        None
    }
}
