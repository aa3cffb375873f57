//! The journal in front of the pipeline: bytes are durable here before anybody is told that they were taken, and are read back from
//! here, now or after a crash. It knows nothing of spans. One thread writes: it takes all that waits, writes it, syncs once and
//! answers all. It never drops: where there is no room it refuses.

mod disk;
mod frame;
mod log;
mod reader;
mod writer;

#[cfg(test)]
mod tests;

use std::fs::{File, TryLockError};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytesize::ByteSize;
use prometheus::{Histogram, IntCounter, IntGauge};
use serde::de::Error;
use serde::{Deserialize, Deserializer};

use tacho_core::domain::lsn::Lsn;
pub(crate) use writer::{Follower, Journal};

/// The section `[journal]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct JournalConfig {
    /// Most bytes on disk. Beyond it spans are refused until the database has caught up.
    #[serde(deserialize_with = "large_enough")]
    pub max_size: ByteSize,
}

impl Default for JournalConfig {
    fn default() -> Self {
        Self { max_size: ByteSize::gib(1) }
    }
}

fn large_enough<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ByteSize, D::Error> {
    let size = ByteSize::deserialize(deserializer)?;
    if size < SMALLEST { Err(D::Error::custom(format!("must be at least {SMALLEST}"))) } else { Ok(size) }
}

/// What the journal counts, as the registry made it.
#[derive(Clone)]
pub(crate) struct JournalMeters {
    pub bytes: IntGauge,
    pub max_bytes: IntGauge,
    pub fsync: Histogram,
    pub quarantined: IntCounter,
    /// Frames in what was set aside.
    pub lost: IntCounter,
}

/// A frame that was read back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub lsn: Lsn,
    pub kind: u8,
    pub payload: Vec<u8>,
}

/// Bytes that were durable once and are damaged now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Quarantined {
    /// In the folder `quarantine`.
    pub file: String,
    pub bytes: usize,
    /// The first frame that is damaged.
    pub from: Lsn,
    /// The first that is not; the same where it is not known how many were lost at the end of a segment.
    pub to: Lsn,
}

/// Why bytes were not appended. Nothing of them stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NotAppended {
    #[error("journal is full")]
    Full,
    /// A sync or a write failed: only a restart can tell what the disk holds.
    #[error("journal cannot be written")]
    Broken,
}

#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    #[error("journal folder")]
    Io(#[from] std::io::Error),
    #[error("segment {name} of the journal has version {version}: a newer Tacho wrote it")]
    Version { name: String, version: u32 },
    #[error("segment {0} of the journal is too long for this machine")]
    TooLong(String),
    #[error("frame {} of the journal is durable but in no segment", .0.0)]
    Missing(Lsn),
    #[error("another process uses the journal in {0}")]
    Locked(PathBuf),
}

/// Room for a body of the usual largest size and a segment that is being emptied.
const SMALLEST: ByteSize = ByteSize::mib(1);
/// Segments are removed whole: this many parts of the journal are given back at a time.
const PARTS: u64 = 32;
const LONGEST_SEGMENT: u64 = 32 << 20;

/// Opens the journal in this folder, mends what a crash left, and starts its thread.
pub(crate) fn open(folder: &Path, config: &JournalConfig, meters: JournalMeters) -> Result<Journal, JournalError> {
    let journal = config.max_size.as_u64();
    let bounds = log::Bounds { journal, segment: (journal / PARTS).min(LONGEST_SEGMENT) };
    let disk = disk::Folder::open(folder)?;
    let place = Place { lock: Arc::new(lock(folder)?), id: identity(folder)?, folder: folder.to_owned() };
    let log = log::Log::open(disk, bounds)?;
    Ok(Journal::start(log, place, meters)?)
}

/// Where a journal lies, and who it is.
#[derive(Clone)]
struct Place {
    folder: PathBuf,
    /// Its name among the journals of all instances on one database.
    id: Arc<str>,
    #[expect(dead_code, reason = "held, not read: the lock is gone when the file is closed")]
    lock: Arc<File>,
}

/// Two processes that append to one journal would tear it. The lock ends with the process, however it ends.
fn lock(folder: &Path) -> Result<File, JournalError> {
    let file = File::options().create(true).write(true).truncate(false).open(folder.join("lock"))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(JournalError::Locked(folder.to_owned())),
        Err(TryLockError::Error(error)) => Err(error.into()),
    }
}

/// Made when the journal is, and kept: its checkpoint is found under it.
fn identity(folder: &Path) -> std::io::Result<Arc<str>> {
    let path = folder.join("id");
    match std::fs::read_to_string(&path) {
        Ok(id) if !id.trim().is_empty() => return Ok(id.trim().into()),
        Ok(_) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    // The standard library's source of random keys.
    let random = || RandomState::new().build_hasher().finish();
    let id = format!("{:016x}{:016x}", random(), random());
    let aside = folder.join("id.new");
    std::fs::write(&aside, &id)?;
    File::open(&aside)?.sync_all()?;
    std::fs::rename(&aside, &path)?;
    File::open(folder)?.sync_all()?;
    Ok(id.into())
}
