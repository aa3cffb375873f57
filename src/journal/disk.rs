//! What the journal asks of a disk. The tests have another one, which loses what was not synced, tears writes, fails and fills up.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// One folder of files.
pub(super) trait Disk: Send + 'static {
    /// Names of the segments, in no order.
    fn list(&self) -> io::Result<Vec<String>>;
    fn length(&self, name: &str) -> io::Result<u64>;
    /// Reads up to the end of the file or of the buffer.
    fn read(&mut self, name: &str, at: u64, buffer: &mut [u8]) -> io::Result<usize>;
    /// Writes there, and makes the file if it is not there. After an error any part may have been written.
    fn write(&mut self, name: &str, at: u64, bytes: &[u8]) -> io::Result<()>;
    fn truncate(&mut self, name: &str, length: u64) -> io::Result<()>;
    fn remove(&mut self, name: &str) -> io::Result<()>;
    /// Makes the content of the file durable.
    fn sync(&mut self, name: &str) -> io::Result<()>;
    /// Makes the names in the folder durable.
    fn sync_folder(&mut self) -> io::Result<()>;
    /// Puts bytes into a file beside the segments, for a person to look at.
    fn set_aside(&mut self, name: &str, bytes: &[u8]) -> io::Result<()>;
}

/// The ending of a segment's name.
pub(super) const ENDING: &str = ".journal";
const QUARANTINE: &str = "quarantine";

/// A folder of the file system.
pub(super) struct Folder {
    path: PathBuf,
    /// The file last used: nearly always the one that is used next.
    open: Option<(String, File)>,
}

impl Folder {
    /// Makes the folder if it is not there.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        fs::create_dir_all(path)?;
        if let Some(parent) = path.parent() {
            File::open(if parent == Path::new("") { Path::new(".") } else { parent })?.sync_all()?;
        }
        Ok(Self { path: path.to_owned(), open: None })
    }

    fn file(&mut self, name: &str, create: bool) -> io::Result<&File> {
        let file = match self.open.take() {
            Some((open, file)) if open == name => file,
            _ => OpenOptions::new().read(true).write(true).create(create).truncate(false).open(self.path.join(name))?,
        };
        Ok(&self.open.insert((name.to_owned(), file)).1)
    }
}

impl Disk for Folder {
    fn list(&self) -> io::Result<Vec<String>> {
        let names = fs::read_dir(&self.path)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
        names.filter(|name: &io::Result<String>| name.as_ref().map_or(true, |name| name.ends_with(ENDING))).collect()
    }

    fn length(&self, name: &str) -> io::Result<u64> {
        Ok(fs::metadata(self.path.join(name))?.len())
    }

    fn read(&mut self, name: &str, at: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let file = self.file(name, false)?;
        let mut filled = 0;
        while filled < buffer.len() {
            match file.read_at(&mut buffer[filled..], at + filled as u64) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }

    fn write(&mut self, name: &str, at: u64, bytes: &[u8]) -> io::Result<()> {
        self.file(name, true)?.write_all_at(bytes, at)
    }

    fn truncate(&mut self, name: &str, length: u64) -> io::Result<()> {
        self.file(name, false)?.set_len(length)
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        self.open.take_if(|(open, _)| open == name);
        fs::remove_file(self.path.join(name))
    }

    fn sync(&mut self, name: &str) -> io::Result<()> {
        self.file(name, false)?.sync_data()
    }

    fn sync_folder(&mut self) -> io::Result<()> {
        File::open(&self.path)?.sync_all()
    }

    fn set_aside(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let folder = self.path.join(QUARANTINE);
        fs::create_dir_all(&folder)?;
        let path = folder.join(name);
        fs::write(&path, bytes)?;
        File::open(path)?.sync_all()
    }
}
