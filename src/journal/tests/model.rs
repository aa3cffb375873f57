//! A disk of the worst kind: what was not synced may be there after a crash, or not, or in part, page by page and name by name;
//! writes fail half-way, syncs fail, and the disk fills up.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::journal::disk::{Disk, ENDING};

const PAGE: usize = 64;

#[derive(Clone, Default)]
struct Stored {
    /// As programs see it.
    now: Vec<u8>,
    /// As a crash would leave it at the least.
    durable: Vec<u8>,
    /// Whether the name survives a crash for sure.
    named: bool,
}

/// What goes wrong, in parts of a thousand.
#[derive(Clone, Copy, Default)]
pub(super) struct Faults {
    pub failed_write: u32,
    pub failed_sync: u32,
    /// Bytes on the disk.
    pub room: Option<usize>,
}

struct State {
    files: BTreeMap<String, Stored>,
    aside: BTreeMap<String, Vec<u8>>,
    /// Removed, but not for sure.
    removed: BTreeMap<String, Stored>,
    random: StdRng,
    faults: Faults,
}

/// Cloned, it is another handle to the same disk.
#[derive(Clone)]
pub(super) struct ModelDisk(Arc<Mutex<State>>);

impl ModelDisk {
    pub(super) fn new(seed: u64) -> Self {
        let (files, aside, removed) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        let (random, faults) = (StdRng::seed_from_u64(seed), Faults::default());
        Self(Arc::new(Mutex::new(State { files, aside, removed, random, faults })))
    }

    pub(super) fn faults(&self, faults: Faults) {
        self.0.lock().unwrap().faults = faults;
    }

    /// Power is gone and comes back.
    pub(super) fn crash(&self) {
        let state = &mut *self.0.lock().unwrap();
        for (name, file) in std::mem::take(&mut state.removed) {
            if state.random.random_bool(0.5) {
                state.files.entry(name).or_insert(file);
            }
        }
        let random = &mut state.random;
        state.files.retain(|_, file| file.named || random.random_bool(0.5));
        for file in state.files.values_mut() {
            file.now = survivor(file, &mut state.random);
            file.durable = file.now.clone();
            file.named = true;
        }
    }

    /// Flips a bit in the middle of a segment, as an old disk does.
    pub(super) fn rot(&self, name: &str, byte: usize) {
        let state = &mut *self.0.lock().unwrap();
        let file = state.files.get_mut(name).unwrap();
        file.now[byte] ^= 0x10;
        file.durable[byte] ^= 0x10;
    }

    pub(super) fn aside(&self) -> usize {
        self.0.lock().unwrap().aside.len()
    }
}

/// Each page is the old or the new one, or torn between; the length is one of both or in between.
fn survivor(file: &Stored, random: &mut StdRng) -> Vec<u8> {
    let (short, long) = (file.now.len().min(file.durable.len()), file.now.len().max(file.durable.len()));
    let mut bytes = vec![0; random.random_range(short..=long)];
    for (place, byte) in bytes.iter_mut().enumerate() {
        *byte = file.durable.get(place).copied().unwrap_or(0);
    }
    for start in (0..bytes.len()).step_by(PAGE) {
        let whole = (bytes.len() - start).min(PAGE);
        let new = match random.random_range(0..3) {
            0 => 0,
            1 => whole,
            _ => random.random_range(0..=whole),
        };
        for (byte, place) in bytes[start..start + new].iter_mut().zip(start..) {
            *byte = file.now.get(place).copied().unwrap_or(0);
        }
    }
    bytes
}

impl State {
    fn file(&mut self, name: &str) -> io::Result<&mut Stored> {
        self.files.get_mut(name).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn happens(&mut self, parts: u32) -> bool {
        self.random.random_ratio(parts, 1_000)
    }
}

impl Disk for ModelDisk {
    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.0.lock().unwrap().files.keys().filter(|name| name.ends_with(ENDING)).cloned().collect())
    }

    fn length(&self, name: &str) -> io::Result<u64> {
        Ok(self.0.lock().unwrap().file(name)?.now.len() as u64)
    }

    fn read(&mut self, name: &str, at: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let mut state = self.0.lock().unwrap();
        let rest = &state.file(name)?.now;
        let rest = rest.get(usize::try_from(at).unwrap()..).unwrap_or_default();
        let read = rest.len().min(buffer.len());
        buffer[..read].copy_from_slice(&rest[..read]);
        Ok(read)
    }

    fn write(&mut self, name: &str, at: u64, bytes: &[u8]) -> io::Result<()> {
        let state = &mut *self.0.lock().unwrap();
        let used: usize = state.files.values().map(|file| file.now.len()).sum();
        let room = state.faults.room.map_or(usize::MAX, |room| room.saturating_sub(used));
        let fails = state.happens(state.faults.failed_write);
        let written = if fails { state.random.random_range(0..=bytes.len()) } else { bytes.len().min(room) };
        let file = state.files.entry(name.to_owned()).or_default();
        let at = usize::try_from(at).unwrap();
        if file.now.len() < at + written {
            file.now.resize(at + written, 0);
        }
        file.now[at..at + written].copy_from_slice(&bytes[..written]);
        match (fails, written < bytes.len()) {
            (true, _) => Err(io::Error::other("the disk failed")),
            (false, true) => Err(io::ErrorKind::StorageFull.into()),
            (false, false) => Ok(()),
        }
    }

    fn truncate(&mut self, name: &str, length: u64) -> io::Result<()> {
        self.0.lock().unwrap().file(name)?.now.resize(usize::try_from(length).unwrap(), 0);
        Ok(())
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        let state = &mut *self.0.lock().unwrap();
        let file = state.files.remove(name).ok_or(io::ErrorKind::NotFound)?;
        state.removed.insert(name.to_owned(), file);
        Ok(())
    }

    /// One that fails leaves some pages written, and forgets that the others were not: the next one succeeds without them.
    fn sync(&mut self, name: &str) -> io::Result<()> {
        let state = &mut *self.0.lock().unwrap();
        let fails = state.happens(state.faults.failed_sync);
        let random = &mut state.random;
        let file = state.files.get_mut(name).ok_or(io::ErrorKind::NotFound)?;
        if fails {
            file.durable = survivor(file, random);
            return Err(io::Error::other("the disk failed to sync"));
        }
        file.durable = file.now.clone();
        Ok(())
    }

    fn sync_folder(&mut self) -> io::Result<()> {
        let state = &mut *self.0.lock().unwrap();
        state.files.values_mut().for_each(|file| file.named = true);
        state.removed.clear();
        Ok(())
    }

    fn set_aside(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.0.lock().unwrap().aside.insert(name.to_owned(), bytes.to_vec());
        Ok(())
    }
}
