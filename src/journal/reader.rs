//! Reads frames back in their order, from any place up to what is durable, in pieces of bounded size. Damaged bytes go to the
//! quarantine, and reading goes on behind them.

use std::io;

use super::disk::Disk;
use super::frame::{self, Found, Frame, SEGMENT_HEADER};
use super::{Entry, JournalError, Quarantined, log};
use tacho_core::domain::lsn::Lsn;

/// Bytes read at once, unless a frame is longer.
const PIECE: usize = 256 << 10;

/// Where in the files the next frame is expected.
pub(super) struct Reader<D> {
    disk: D,
    /// The number of the next frame.
    next: Lsn,
    /// The segment being read, and the place in it of the first byte in `buffer`.
    segment: Option<Lsn>,
    place: u64,
    buffer: Vec<u8>,
    /// How much of the buffer is read already.
    used: usize,
    /// The last frame that was durable when what is in the buffer was read. What lies behind it may have been overwritten since.
    sure: Lsn,
}

/// What the next look brought.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    Entry(Entry),
    Quarantined(Quarantined),
    /// All that is durable is read.
    End,
}

impl<D: Disk> Reader<D> {
    /// Reads from this frame on, or from the first one that is there behind it.
    pub(super) fn new(disk: D, from: Lsn) -> Self {
        Self { disk, next: from, segment: None, place: 0, buffer: Vec::new(), used: 0, sure: from.before() }
    }

    /// The next frame, not beyond `durable`.
    pub(super) fn step(&mut self, durable: Lsn) -> Result<Step, JournalError> {
        loop {
            if self.next > durable {
                return Ok(Step::End);
            }
            if self.next > self.sure {
                self.buffer.truncate(self.used);
                self.sure = durable;
            }
            if self.segment.is_none() && !self.enter()? {
                return Ok(Step::End);
            }
            match frame::at(&self.buffer[self.used..]) {
                Found::Frame(frame) if frame.lsn == self.next => return self.entry(frame).map(Step::Entry),
                // Where reading begins in the middle of a segment.
                Found::Frame(frame) if frame.lsn < self.next => self.used += frame.length,
                Found::Short(needed) if self.fill(needed)? => {}
                Found::Short(_) if self.used == self.buffer.len() => self.leave()?,
                Found::Frame(_) | Found::Short(_) | Found::Bad => {
                    return Ok(self.pass_over(durable)?.map_or(Step::End, Step::Quarantined));
                }
            }
        }
    }

    fn entry(&mut self, frame: Frame) -> Result<Entry, JournalError> {
        let payload = &self.buffer[self.used + frame::FRAME_HEADER..self.used + frame.length];
        let entry = Entry { lsn: frame.lsn, kind: frame.kind, payload: payload.to_vec() };
        self.used += frame.length;
        self.next = frame.lsn.next();
        Ok(entry)
    }

    /// Opens the last segment that begins at or before the next frame, else the first one behind it.
    fn enter(&mut self) -> Result<bool, JournalError> {
        let firsts = log::firsts(&self.disk)?;
        let place = firsts.partition_point(|first| *first <= self.next);
        let Some(first) = place.checked_sub(1).map_or(firsts.first(), |place| firsts.get(place)).copied() else {
            return Ok(false);
        };
        self.open(first);
        Ok(true)
    }

    fn open(&mut self, first: Lsn) {
        self.segment = Some(first);
        self.next = self.next.max(first);
        self.place = SEGMENT_HEADER as u64;
        self.buffer.clear();
        self.used = 0;
    }

    /// At the end of a segment: on to the one behind it. That there is one follows from `next` being durable, unless frames at
    /// the end of this one were damaged beyond finding.
    fn leave(&mut self) -> Result<(), JournalError> {
        let current = self.segment.unwrap_or_default();
        let behind = log::firsts(&self.disk)?.into_iter().find(|first| *first > current);
        let first = behind.ok_or(JournalError::Missing(self.next))?;
        self.open(first);
        Ok(())
    }

    /// Makes so many bytes from the present place on available, and tells whether there are more than before.
    fn fill(&mut self, needed: usize) -> io::Result<bool> {
        self.place += self.used as u64;
        self.buffer.drain(..self.used);
        self.used = 0;
        let had = self.buffer.len();
        let name = log::name(self.segment.unwrap_or_default());
        // A damaged length asks for more than there is.
        let left = self.disk.length(&name)?.saturating_sub(self.place);
        let wanted = usize::try_from(left).unwrap_or(usize::MAX).min(needed.max(PIECE));
        self.buffer.resize(wanted.max(had), 0);
        let read = self.disk.read(&name, self.place + had as u64, &mut self.buffer[had..])?;
        self.buffer.truncate(had + read);
        Ok(self.buffer.len() >= needed || read > 0)
    }

    /// Sets aside what is damaged up to the next intact frame, or to the end of a segment that grows no more. At the end of one
    /// that still grows nothing can be said until an intact frame stands behind the damage.
    fn pass_over(&mut self, durable: Lsn) -> Result<Option<Quarantined>, JournalError> {
        self.fill(usize::MAX)?;
        let segment = self.segment.unwrap_or_default();
        let found = frame::next_intact(&self.buffer, self.next).filter(|(_, frame)| frame.lsn <= durable);
        let (bytes, to) = match found {
            Some((place, frame)) => (place, frame.lsn),
            None if log::firsts(&self.disk)?.iter().any(|first| *first > segment) => (self.buffer.len(), self.next),
            None => return Ok(None),
        };
        let file = format!("{:020}-{}.damaged", segment.0, self.place);
        self.disk.set_aside(&file, &self.buffer[..bytes])?;
        let from = std::mem::replace(&mut self.next, to);
        self.used = bytes;
        Ok(Some(Quarantined { file, bytes, from, to }))
    }
}
