//! The segments on a disk: appended to in batches, synced once a batch, cut where a crash tore them, removed when no longer needed.
//! It does one thing after the other and knows no threads.

use std::collections::VecDeque;
use std::io;
use std::time::{Duration, Instant};

use super::disk::{Disk, ENDING};
use super::frame::{self, Found, SEGMENT_HEADER};
use super::{JournalError, NotAppended};
use tacho_core::domain::lsn::Lsn;

/// Bounds of the files, in bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// Of all segments together; beyond it nothing is taken.
    pub journal: u64,
    /// When a segment has so many, the next batch begins a new one.
    pub segment: u64,
}

/// More than the frames that can be in a tail.
const GAP: u64 = 1 << 32;

struct Segment {
    first: Lsn,
    bytes: u64,
}

impl Segment {
    fn name(&self) -> String {
        name(self.first)
    }
}

/// The journal as its one writer sees it.
pub(super) struct Log<D> {
    disk: D,
    bounds: Bounds,
    /// In order; the last one is appended to.
    segments: VecDeque<Segment>,
    next: Lsn,
    /// After a failed sync the kernel may have dropped what it could not write, and a second sync would not tell.
    poisoned: bool,
    buffer: Vec<u8>,
    /// How long the last sync took.
    pub last_sync: Duration,
}

impl<D: Disk> Log<D> {
    /// Cuts off a torn tail and makes what stays durable.
    pub(super) fn open(mut disk: D, bounds: Bounds) -> Result<Self, JournalError> {
        let mut segments = VecDeque::new();
        for first in firsts(&disk)? {
            segments.push_back(Segment { first, bytes: disk.length(&name(first))? });
        }
        let (next, cut) = match segments.back_mut() {
            Some(last) => mend(&mut disk, last)?,
            None => (Lsn::FIRST, true),
        };
        let (poisoned, buffer, last_sync) = (false, Vec::new(), Duration::ZERO);
        let mut log = Self { disk, bounds, segments, next, poisoned, buffer, last_sync };
        if cut {
            // Should the tail have been more than torn, its numbers are written down elsewhere: they are not given again.
            log.next = log.segments.back().map_or(next, |_| Lsn(next.0 + GAP));
            log.begin_segment()?;
        }
        Ok(log)
    }

    /// The number of the next frame.
    pub(super) fn next(&self) -> Lsn {
        self.next
    }

    /// The first frame that is still there.
    pub(super) fn first(&self) -> Lsn {
        self.segments.front().map_or(self.next, |segment| segment.first)
    }

    pub(super) fn bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.bytes).sum()
    }

    /// With so many bytes there is no room for another segment.
    pub(super) fn full(&self) -> u64 {
        self.bounds.journal.saturating_sub(self.bounds.segment)
    }

    pub(super) fn poisoned(&self) -> bool {
        self.poisoned
    }

    /// Whether a payload of so many bytes more would fit, with `pending` bytes already promised room.
    pub(super) fn fits(&self, pending: u64, payload: usize) -> bool {
        let frame = (frame::FRAME_HEADER + payload) as u64;
        self.bytes() + pending + frame + SEGMENT_HEADER as u64 <= self.bounds.journal
    }

    /// Appends all or none. When it returns the last frame's number, all are durable.
    pub(super) fn append<'p>(&mut self, payloads: impl Iterator<Item = (u8, &'p [u8])>) -> Result<Lsn, NotAppended> {
        if self.poisoned {
            return Err(NotAppended::Broken);
        }
        if self.segments.back().is_some_and(|last| last.bytes >= self.bounds.segment) {
            self.begin_segment().map_err(|error| self.failed(&error))?;
        }
        let durable = self.next.before();
        let mut next = self.next;
        self.buffer.clear();
        for (kind, payload) in payloads {
            frame::push(&mut self.buffer, kind, next, durable, payload);
            next = next.next();
        }
        self.write().map_err(|error| self.failed(&error))?;
        self.next = next;
        Ok(next.before())
    }

    fn write(&mut self) -> io::Result<()> {
        let last = self.segments.back_mut().expect("a log has a segment to append to");
        let name = last.name();
        if let Err(error) = self.disk.write(&name, last.bytes, &self.buffer) {
            // What was not promised must not stay: a later, shorter batch would leave a rest of it behind itself.
            if self.disk.truncate(&name, last.bytes).and_then(|()| self.disk.sync(&name)).is_err() {
                self.poisoned = true;
            }
            return Err(error);
        }
        let begun = Instant::now();
        if let Err(error) = self.disk.sync(&name) {
            self.poisoned = true;
            return Err(error);
        }
        self.last_sync = begun.elapsed();
        last.bytes += self.buffer.len() as u64;
        Ok(())
    }

    /// The one before is durable, as every batch is synced.
    fn begin_segment(&mut self) -> io::Result<()> {
        let segment = Segment { first: self.next, bytes: SEGMENT_HEADER as u64 };
        let name = segment.name();
        let made = self
            .disk
            .write(&name, 0, &frame::segment_header(self.next))
            .and_then(|()| self.disk.truncate(&name, SEGMENT_HEADER as u64))
            .and_then(|()| self.disk.sync(&name))
            .and_then(|()| self.disk.sync_folder());
        if let Err(error) = made {
            // A full disk leaves nothing that the next attempt does not overwrite. Anything else is not to be trusted.
            self.poisoned |= !is_full(&error);
            return Err(error);
        }
        self.segments.push_back(segment);
        Ok(())
    }

    fn failed(&mut self, error: &io::Error) -> NotAppended {
        if is_full(error) && !self.poisoned {
            return NotAppended::Full;
        }
        self.poisoned = true;
        tracing::error!(%error, "journal cannot be written; it takes no more until a restart");
        NotAppended::Broken
    }

    /// Removes the segments of which no frame from `needed` on is one. Where that fails they stay until the next time.
    pub(super) fn trim(&mut self, needed: Lsn) -> io::Result<()> {
        let mut removed = false;
        while let [Some(oldest), Some(after)] = [self.segments.front(), self.segments.get(1)]
            && after.first <= needed
        {
            self.disk.remove(&oldest.name())?;
            self.segments.pop_front();
            removed = true;
        }
        if removed { self.disk.sync_folder() } else { Ok(()) }
    }
}

pub(super) fn name(first: Lsn) -> String {
    format!("{:020}{ENDING}", first.0)
}

/// The first numbers of all segments, in order. Files with other names are left alone.
pub(super) fn firsts(disk: &impl Disk) -> io::Result<Vec<Lsn>> {
    let names = disk.list()?;
    let first = |name: &String| name.strip_suffix(ENDING)?.parse().ok().filter(|first| *first > 0).map(Lsn);
    let mut firsts: Vec<Lsn> = names.iter().filter_map(first).collect();
    firsts.sort_unstable();
    Ok(firsts)
}

/// Whether there was no room, or no file descriptor left: that passes, and nothing is lost by it.
fn is_full(error: &io::Error) -> bool {
    use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    use rustix::io::Errno;
    let is_short = || {
        error.raw_os_error().is_some_and(|code| [Errno::MFILE, Errno::NFILE].map(Errno::raw_os_error).contains(&code))
    };
    matches!(error.kind(), StorageFull | QuotaExceeded | FileTooLarge) || is_short()
}

/// Looks through the last segment, the only one that can be torn, and cuts it where it is. The number of the next frame, and
/// whether anything was cut.
fn mend(disk: &mut impl Disk, segment: &mut Segment) -> Result<(Lsn, bool), JournalError> {
    let name = segment.name();
    let mut bytes = vec![0; usize::try_from(segment.bytes).map_err(|_| JournalError::TooLong(name.clone()))?];
    let read = disk.read(&name, 0, &mut bytes)?;
    bytes.truncate(read);
    if let Some(version) = frame::segment_version(&bytes).filter(|version| *version != frame::VERSION) {
        return Err(JournalError::Version { name, version });
    }
    let (end, next) = intact(&bytes, segment.first);
    let cut = end < bytes.len() || end < SEGMENT_HEADER;
    if cut {
        tracing::warn!(segment = name, bytes = bytes.len() - end, "torn tail of the journal cut off");
        disk.truncate(&name, end as u64)?;
    }
    segment.bytes = end as u64;
    // What was read may lie in the cache only, and is about to be relied upon.
    disk.sync(&name)?;
    disk.sync_folder()?;
    Ok((next, cut))
}

/// Where the segment ends that was promised to somebody, and the number of the frame to come there.
fn intact(bytes: &[u8], first: Lsn) -> (usize, Lsn) {
    if bytes.len() < SEGMENT_HEADER {
        return (0, first);
    }
    let (mut place, mut expected) = (SEGMENT_HEADER, first);
    loop {
        match frame::at(&bytes[place..]) {
            Found::Frame(frame) if frame.lsn == expected => {
                place += frame.length;
                expected = expected.next();
            }
            Found::Frame(_) | Found::Short(_) | Found::Bad => match durable_again(&bytes[place..], expected) {
                Some((further, frame)) => {
                    place += further + frame.length;
                    expected = frame.lsn.next();
                }
                None => return (place, expected),
            },
        }
    }
}

/// The first frame behind a damaged one, if any of those behind was written after the damaged one had become durable.
fn durable_again(bytes: &[u8], damaged: Lsn) -> Option<(usize, frame::Frame)> {
    let first = frame::next_intact(bytes, damaged)?;
    let mut behind = Some(first);
    let mut place = 0;
    while let Some((further, frame)) = behind {
        if frame.durable >= damaged {
            return Some(first);
        }
        place += further + frame.length;
        behind = frame::next_intact(&bytes[place..], frame.lsn.next());
    }
    None
}
