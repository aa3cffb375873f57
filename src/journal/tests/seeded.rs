//! Whatever is done in whatever order on a disk that misbehaves: what was promised is read back, once, in order and unchanged,
//! and nothing is read that was never written.

use std::collections::BTreeMap;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::model::{Faults, ModelDisk};
use crate::journal::disk::Disk;
use crate::journal::log::{self, Bounds, Log};
use crate::journal::reader::{Reader, Step};
use crate::journal::{Entry, NotAppended};
use tacho_core::domain::lsn::Lsn;

const BOUNDS: Bounds = Bounds { journal: 6_000, segment: 900 };

/// What the journal has promised, and what it may hold beside.
#[derive(Default)]
struct Model {
    promised: BTreeMap<Lsn, Vec<u8>>,
    /// Payloads whose append failed or was cut off by a crash.
    doubtful: Vec<Vec<u8>>,
    /// What is needed no longer is this side of it.
    needed: Lsn,
}

struct Run {
    random: StdRng,
    disk: ModelDisk,
    log: Log<ModelDisk>,
    model: Model,
    written: u64,
    seed: u64,
}

impl Run {
    fn new(seed: u64) -> Self {
        let disk = ModelDisk::new(seed);
        let log = Log::open(disk.clone(), BOUNDS).unwrap();
        let model = Model { needed: Lsn::FIRST, ..Model::default() };
        Self { random: StdRng::seed_from_u64(!seed), disk, log, model, written: 0, seed }
    }

    fn payload(&mut self) -> Vec<u8> {
        self.written += 1;
        let length = self.random.random_range(0..200);
        // Each its own, and full of what looks like frames.
        let mut payload = self.written.to_le_bytes().to_vec();
        payload.extend((0..length).map(|_| self.random.random_range(0..4)));
        payload
    }

    fn append(&mut self) {
        let payloads: Vec<Vec<u8>> = (0..self.random.random_range(1..5)).map(|_| self.payload()).collect();
        let total: usize = payloads.iter().map(|payload| payload.len() + 20).sum();
        if !self.log.fits(0, total) && !self.log.poisoned() {
            return;
        }
        let first = self.log.next();
        match self.log.append(payloads.iter().map(|payload| (1, &**payload))) {
            Ok(last) => {
                assert_eq!(last.0, first.0 + payloads.len() as u64 - 1, "seed {}", self.seed);
                self.model.promised.extend((first.0..).map(Lsn).zip(payloads));
            }
            // Refused for want of room means that nothing of it stays.
            Err(NotAppended::Full) => {}
            Err(NotAppended::Broken) => self.model.doubtful.extend(payloads),
        }
        assert!(self.log.bytes() <= BOUNDS.journal, "seed {}", self.seed);
    }

    /// Reads all that is promised, from what is needed on.
    fn read(&self) -> Vec<Entry> {
        let mut reader = Reader::new(self.disk.clone(), self.model.needed);
        let mut entries = Vec::new();
        loop {
            match reader.step(self.log.next().before()).unwrap() {
                Step::Entry(entry) => entries.push(entry),
                Step::Quarantined(damaged) => panic!("seed {}: {damaged:?}", self.seed),
                Step::End => return entries,
            }
        }
    }

    fn check(&self) {
        let mut promised = self.model.promised.range(self.model.needed..);
        let mut last = Lsn(0);
        for entry in self.read() {
            assert!(entry.lsn > last, "seed {}: {entry:?} after {last:?}", self.seed);
            last = entry.lsn;
            if self.model.promised.contains_key(&entry.lsn) {
                let (lsn, payload) = promised.next().unwrap();
                assert_eq!((entry.lsn, &entry.payload), (*lsn, payload), "seed {}", self.seed);
            } else {
                assert!(self.model.doubtful.contains(&entry.payload), "seed {}: {entry:?} from nowhere", self.seed);
            }
        }
        assert_eq!(promised.next(), None, "seed {}: a promised frame is not there", self.seed);
    }

    /// Everything so far is written down elsewhere, or a part of it.
    fn trim(&mut self) {
        let last = self.log.next().0;
        self.model.needed = Lsn(self.random.random_range(self.model.needed.0.min(last)..=last)).max(self.model.needed);
        self.log.trim(self.model.needed).unwrap();
    }

    fn crash(&mut self) {
        // In the middle of an append, as often as not.
        if self.random.random_bool(0.5) {
            self.disk.faults(Faults { failed_sync: 1_000, ..Faults::default() });
            self.append();
        }
        self.disk.crash();
        self.disk.faults(Faults::default());
        self.log = Log::open(self.disk.clone(), BOUNDS).unwrap();
        // What survived of the doubtful was there at the first look, and is there for good.
        let promised = &self.model.promised;
        let survived: Vec<Entry> = self.read().into_iter().filter(|entry| !promised.contains_key(&entry.lsn)).collect();
        for entry in survived {
            assert!(self.model.doubtful.contains(&entry.payload), "seed {}: {entry:?} from nowhere", self.seed);
            self.model.promised.insert(entry.lsn, entry.payload);
        }
    }
}

#[test]
fn what_was_promised_is_read_back_once_in_order_and_unchanged() {
    for seed in 0..250 {
        let mut run = Run::new(seed);
        for _ in 0..60 {
            match run.random.random_range(0..20) {
                0 => run.crash(),
                1 | 2 => run.trim(),
                3 => {
                    let faults = Faults { failed_write: 100, failed_sync: 50, room: Some(5_000) };
                    run.disk.faults(faults);
                }
                4 => run.disk.faults(Faults::default()),
                _ => run.append(),
            }
            run.check();
        }
    }
}

/// A disk that is full refuses and is written again when there is room.
#[test]
fn a_full_disk_passes() {
    let disk = ModelDisk::new(1);
    let mut log = Log::open(disk.clone(), BOUNDS).unwrap();
    disk.faults(Faults { room: Some(500), ..Faults::default() });
    let payload = vec![7; 100];
    let taken = (0..20).map(|_| log.append([(1, &*payload)].into_iter())).take_while(Result::is_ok).count();
    assert!((1..5).contains(&taken), "{taken}");
    assert_eq!(log.append([(1, &*payload)].into_iter()), Err(NotAppended::Full));
    disk.faults(Faults::default());
    assert_eq!(log.append([(1, &*payload)].into_iter()), Ok(Lsn(taken as u64 + 1)));
}

#[test]
fn the_first_failed_sync_ends_it_until_a_restart() {
    let disk = ModelDisk::new(1);
    let mut log = Log::open(disk.clone(), BOUNDS).unwrap();
    log.append([(1, &b"one"[..])].into_iter()).unwrap();
    disk.faults(Faults { failed_sync: 1_000, ..Faults::default() });
    assert_eq!(log.append([(1, &b"two"[..])].into_iter()), Err(NotAppended::Broken));
    disk.faults(Faults::default());
    assert_eq!(log.append([(1, &b"three"[..])].into_iter()), Err(NotAppended::Broken));
    let mut log = Log::open(disk, BOUNDS).unwrap();
    assert!(log.append([(1, &b"three"[..])].into_iter()).is_ok());
}

/// Bits that rot in frames long durable: those frames are set aside, all others are read.
#[test]
fn a_damaged_frame_is_set_aside_and_reading_goes_on() {
    for seed in 0..300 {
        let mut random = StdRng::seed_from_u64(seed);
        let disk = ModelDisk::new(seed);
        let mut log = Log::open(disk.clone(), BOUNDS).unwrap();
        for n in 0..30u8 {
            log.append([(1, &*vec![n; usize::from(n)])].into_iter()).unwrap();
        }
        let last = log.next().before();
        let segments = log::firsts(&disk).unwrap();
        // Not in the last frame: if that is damaged at a restart, nothing shows that it was durable.
        let segment = segments[random.random_range(0..segments.len() - 1)];
        let name = log::name(segment);
        let length = Disk::length(&disk, &name).unwrap();
        disk.rot(&name, random.random_range(24..usize::try_from(length).unwrap()));
        if random.random_bool(0.5) {
            drop(log);
            assert_eq!(Log::open(disk.clone(), BOUNDS).unwrap().next(), last.next(), "seed {seed}");
        }
        let mut reader = Reader::new(disk.clone(), Lsn::FIRST);
        let (mut read, mut damaged) = (0, 0);
        loop {
            match reader.step(last).unwrap() {
                Step::Entry(entry) => {
                    assert_eq!(entry.payload, vec![entry.lsn.0 as u8 - 1; entry.lsn.0 as usize - 1], "seed {seed}");
                    read += 1;
                }
                Step::Quarantined(_) => damaged += 1,
                Step::End => break,
            }
        }
        assert_eq!((read, damaged, disk.aside()), (29, 1, 1), "seed {seed}");
    }
}

/// What is read ahead of what is durable may be refused and overwritten: it is read again.
#[test]
fn a_reader_that_keeps_up_never_tells_what_was_refused() {
    let disk = ModelDisk::new(5);
    let mut log = Log::open(disk.clone(), BOUNDS).unwrap();
    let mut reader = Reader::new(disk.clone(), Lsn::FIRST);
    log.append([(1, &b"one"[..])].into_iter()).unwrap();
    // An append that is under way, as a reader in another thread may see it, and then fails.
    let name = log::name(Lsn::FIRST);
    let mut under_way = disk.clone();
    let length = Disk::length(&under_way, &name).unwrap();
    let mut refused = Vec::new();
    crate::journal::frame::push(&mut refused, 1, Lsn(2), Lsn(1), b"not");
    under_way.write(&name, length, &refused).unwrap();
    assert!(matches!(reader.step(Lsn(1)).unwrap(), Step::Entry(entry) if entry.payload == b"one"));
    under_way.truncate(&name, length).unwrap();
    log.append([(1, &b"two"[..])].into_iter()).unwrap();
    assert!(matches!(reader.step(Lsn(2)).unwrap(), Step::Entry(entry) if entry.payload == b"two"));
    assert_eq!(reader.step(Lsn(2)).unwrap(), Step::End);
}

/// Damage in the segment that is still written, whose last frames prove that the damaged one was durable.
#[test]
fn a_damaged_frame_in_the_last_segment_is_no_torn_tail() {
    let disk = ModelDisk::new(3);
    let mut log = Log::open(disk.clone(), BOUNDS).unwrap();
    for n in 0..4u8 {
        log.append([(1, &*vec![n; 50])].into_iter()).unwrap();
    }
    drop(log);
    disk.rot(&log::name(Lsn::FIRST), 24 + 70 + 30);
    let mut log = Log::open(disk.clone(), BOUNDS).unwrap();
    assert_eq!(log.next(), Lsn(5));
    log.append([(1, &b"on"[..])].into_iter()).unwrap();
    let mut reader = Reader::new(disk, Lsn::FIRST);
    let steps: Vec<String> = std::iter::from_fn(|| match reader.step(Lsn(5)).unwrap() {
        Step::Entry(entry) => Some(entry.lsn.0.to_string()),
        Step::Quarantined(damaged) => Some(format!("{}..{} away", damaged.from.0, damaged.to.0)),
        Step::End => None,
    })
    .collect();
    assert_eq!(steps, ["1", "2..3 away", "3", "4", "5"]);
}
