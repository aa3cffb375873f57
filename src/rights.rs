//! Who may read what Tacho writes: the user it runs as, and nobody else. What is new is made so from the start, by the
//! umask of the process; what an older version left open is tightened.

use std::fs::{self, Metadata, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use rustix::fs::Mode;
use rustix::process::{geteuid, umask};

/// All rights of all others.
const OTHERS: u32 = 0o077;
/// What of Tacho's lies in its data folder; with names that begin so. The folder may hold other things, which are left
/// alone.
const OURS: [&str; 5] = ["journal", "listen.json", "tacho.db", "admin-token", "tokens.toml"];

/// From now on this process makes files that only its user can read, and likewise folders. What others made is not
/// changed.
pub(crate) fn keep_private() {
    umask(Mode::from_raw_mode(OTHERS));
}

/// What was tightened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tightened {
    pub files: u64,
    pub folders: u64,
}

/// Takes from others what rights they have to what is ours in the data folder; to the folder itself only where nothing
/// else is in it, as it might be `/tmp` or somebody's home. What belongs to another user stays as it is.
pub(crate) fn tighten_folder(data_dir: &Path) -> io::Result<Tightened> {
    let mut done = Tightened::default();
    let mut is_only_ours = true;
    for entry in fs::read_dir(data_dir)? {
        let entry = entry?;
        let name = entry.file_name();
        if OURS.iter().any(|ours| name.to_string_lossy().starts_with(ours)) {
            tighten_all(&entry.path(), &mut done)?;
        } else {
            is_only_ours = false;
        }
    }
    if is_only_ours {
        tighten(data_dir, &fs::metadata(data_dir)?, &mut done)?;
    }
    Ok(done)
}

/// A single file, if there is one. Links are not followed.
pub(crate) fn tighten_file(path: &Path) -> io::Result<Tightened> {
    let mut done = Tightened::default();
    match fs::symlink_metadata(path) {
        Ok(found) => tighten(path, &found, &mut done)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    Ok(done)
}

fn tighten_all(path: &Path, done: &mut Tightened) -> io::Result<()> {
    let found = fs::symlink_metadata(path)?;
    // The folder first, so that nobody gets at what is in it meanwhile.
    tighten(path, &found, done)?;
    if found.is_dir() {
        for entry in fs::read_dir(path)? {
            tighten_all(&entry?.path(), done)?;
        }
    }
    Ok(())
}

fn tighten(path: &Path, found: &Metadata, done: &mut Tightened) -> io::Result<()> {
    let (mode, is_ours) = (found.mode(), found.uid() == geteuid().as_raw());
    if mode & OTHERS == 0 || !is_ours || !(found.is_file() || found.is_dir()) {
        return Ok(());
    }
    fs::set_permissions(path, Permissions::from_mode(mode & 0o7777 & !OTHERS))?;
    if found.is_dir() {
        done.folders += 1
    } else {
        done.files += 1
    }
    Ok(())
}

/// Gives the file to whoever has the other one. For root, who looks at the database of a service.
pub(crate) fn share_owner(file: &Path, with: &Path) -> io::Result<()> {
    let (file_now, owner) = (fs::metadata(file)?, fs::metadata(with)?);
    if (file_now.uid(), file_now.gid()) == (owner.uid(), owner.gid()) || !geteuid().is_root() {
        return Ok(());
    }
    std::os::unix::fs::chown(file, Some(owner.uid()), Some(owner.gid()))
}
