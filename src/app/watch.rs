//! Files that may be replaced while the process runs: tokens, certificates, keys. They are looked at every few seconds,
//! as the folders that orchestrators mount tell of their changes in many ways.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::AppError;
use crate::telemetry::chain;

/// How often they are looked at.
pub(super) const EVERY: Duration = Duration::from_secs(5);

/// How files are: when they changed, and their size; nothing of one that is not there.
#[derive(Default, PartialEq, Eq)]
pub(super) struct Look(Vec<(PathBuf, Option<(SystemTime, u64)>)>);

impl Look {
    pub(super) fn at(files: impl IntoIterator<Item = impl AsRef<Path>>) -> Self {
        let look = |path: &Path| {
            let about = std::fs::metadata(path).ok();
            let seen = about.and_then(|about| Some((about.modified().ok()?, about.len())));
            (path.to_owned(), seen)
        };
        Self(files.into_iter().map(|path| look(path.as_ref())).collect())
    }
}

/// Keeps one thing as its files are.
pub(super) struct Watch {
    what: &'static str,
    /// How the files were before those that are in use were read.
    used: Look,
    /// What was wrong the last time.
    complaint: Option<String>,
}

impl Watch {
    /// At first nothing is known of the files, so that no change since the start is missed.
    pub(super) fn new(what: &'static str) -> Self {
        Self { what, used: Look::default(), complaint: None }
    }

    /// These are in use now. Looked at before they were read.
    pub(super) fn uses(&mut self, look: Look) {
        (self.used, self.complaint) = (look, None);
    }

    /// Takes the files into use if they have changed, by `take`. Those that are no good are tried again each time and said
    /// once. Whether what is in use is what the files say.
    pub(super) fn keep(&mut self, look: Look, take: impl FnOnce() -> Result<(), AppError>) -> bool {
        if look == self.used {
            return true;
        }
        match take() {
            Ok(()) => {
                if self.used != Look::default() {
                    tracing::info!(what = self.what, "read again");
                }
                self.uses(look);
                true
            }
            Err(error) => {
                let complaint = chain(&error);
                if self.complaint.as_ref() != Some(&complaint) {
                    tracing::error!(what = self.what, error = complaint, "not read again; it stays as it was");
                    self.complaint = Some(complaint);
                }
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_no_good_is_tried_until_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tokens.toml");
        let look = || Look::at([&path]);
        let mut watch = Watch::new("tokens");
        assert!(watch.keep(look(), || Ok(())), "nothing was known");
        assert!(watch.keep(look(), || panic!("nothing has changed")));
        std::fs::write(&path, "x").unwrap();
        for _ in 0..2 {
            assert!(!watch.keep(look(), || Err(AppError::Stage)));
        }
        let mut taken = false;
        assert!(watch.keep(look(), || {
            taken = true;
            Ok(())
        }));
        assert!(taken && watch.keep(look(), || panic!("it is in use")));
    }
}
