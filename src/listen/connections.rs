//! The connections of one listener, within a bound. When there are too many, one that nobody waits for makes room: of
//! those that were never let in first, then of the others, and of these the one that has been idle for longest.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;

pub(super) struct Connections {
    most: usize,
    entries: Mutex<HashMap<u64, Arc<Entry>>>,
    /// Counts what happens, so that what was earlier has the smaller number.
    clock: AtomicU64,
}

/// One connection.
#[derive(Default)]
struct Entry {
    /// Requests that are being answered.
    busy: AtomicU32,
    has_asked: AtomicBool,
    was_let_in: Arc<AtomicBool>,
    last_used: AtomicU64,
    displaced: CancellationToken,
}

/// What came of one more connection.
pub(super) enum Room {
    Free(Place),
    /// Another connection has made room.
    MadeBy(Place),
    /// All others have requests under way.
    None,
}

/// A connection's place; it is free again when this is dropped.
pub(super) struct Place {
    id: u64,
    entry: Arc<Entry>,
    connections: Arc<Connections>,
}

/// A request that is being answered.
pub(super) struct Busy {
    entry: Arc<Entry>,
    connections: Arc<Connections>,
}

impl Connections {
    pub(super) fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { most, entries: Mutex::default(), clock: AtomicU64::default() })
    }

    pub(super) fn enter(self: &Arc<Self>) -> Room {
        let id = self.tick();
        let entry = Arc::new(Entry { last_used: AtomicU64::new(id), ..Entry::default() });
        let mut entries = self.lock();
        let is_full = entries.len() >= self.most;
        if is_full && !make_room(&mut entries) {
            return Room::None;
        }
        entries.insert(id, Arc::clone(&entry));
        let place = Place { id, entry, connections: Arc::clone(self) };
        if is_full { Room::MadeBy(place) } else { Room::Free(place) }
    }

    /// Ends one that nobody waits for; `false` where there is none.
    pub(super) fn end_one(&self) -> bool {
        make_room(&mut self.lock())
    }

    fn tick(&self) -> u64 {
        self.clock.fetch_add(1, Relaxed)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Arc<Entry>>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn make_room(entries: &mut HashMap<u64, Arc<Entry>>) -> bool {
    let idle = entries.iter().filter(|(_, entry)| entry.busy.load(Relaxed) == 0);
    let order = |entry: &Entry| (entry.was_let_in.load(Relaxed), entry.last_used.load(Relaxed));
    let Some(id) = idle.min_by_key(|(_, entry)| order(entry)).map(|(id, _)| *id) else { return false };
    if let Some(entry) = entries.remove(&id) {
        entry.displaced.cancel();
    }
    true
}

impl Place {
    /// Ends when another connection takes this place.
    pub(super) async fn displaced(&self) {
        self.entry.displaced.cancelled().await;
    }

    /// To be set when a request of it is let in.
    pub(super) fn was_let_in(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.entry.was_let_in)
    }

    /// Whether a request has come over it yet.
    pub(super) fn has_asked(&self) -> bool {
        self.entry.has_asked.load(Relaxed)
    }

    pub(super) fn begin(&self) -> Busy {
        self.entry.busy.fetch_add(1, Relaxed);
        self.entry.has_asked.store(true, Relaxed);
        Busy { entry: Arc::clone(&self.entry), connections: Arc::clone(&self.connections) }
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.entry.last_used.store(self.connections.tick(), Relaxed);
        self.entry.busy.fetch_sub(1, Relaxed);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.connections.lock().remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(room: Room) -> (Place, bool) {
        match room {
            Room::Free(place) => (place, false),
            Room::MadeBy(place) => (place, true),
            Room::None => panic!("no room"),
        }
    }

    fn is_displaced(place: &Place) -> bool {
        place.entry.displaced.is_cancelled()
    }

    #[test]
    fn strangers_make_room_before_those_who_were_let_in() {
        let connections = Connections::new(3);
        let [(known, _), (busy, _), (stranger, _)] = [(); 3].map(|()| place(connections.enter()));
        known.was_let_in().store(true, Relaxed);
        drop(known.begin());
        let under_way = busy.begin();
        // The stranger is the youngest, and still the one that goes.
        let (second, made) = place(connections.enter());
        assert!(made && is_displaced(&stranger) && !is_displaced(&known));
        let (third, _) = place(connections.enter());
        assert!(is_displaced(&second) && !is_displaced(&known));
        drop((stranger, second));
        let answered = third.begin();
        let (fourth, _) = place(connections.enter());
        assert!(is_displaced(&known) && !is_displaced(&busy) && !is_displaced(&third));
        let last = fourth.begin();
        assert!(matches!(connections.enter(), Room::None) && !connections.end_one());
        drop((under_way, answered, last, busy));
        assert!(!place(connections.enter()).1);
    }
}
