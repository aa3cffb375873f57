//! Files that may be replaced while the process runs: tokens, certificates, keys. They are looked at every few seconds,
//! as the folders that orchestrators mount tell of their changes in many ways.

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use crate::config::Config;

/// How often they are looked at.
pub(super) const EVERY: Duration = Duration::from_secs(5);

/// How the files were when they were last looked at: when they changed, and their size; nothing of one that is not
/// there.
#[derive(Default, PartialEq, Eq)]
pub(super) struct Watch(Vec<(PathBuf, Option<(SystemTime, u64)>)>);

impl Watch {
    pub(super) fn of(config: &Config) -> Self {
        let tokens = config.auth.tokens_path(&config.data_dir);
        let files = config.tls.files().map(Into::into).chain([tokens]);
        let look = |path: PathBuf| {
            let about = std::fs::metadata(&path).ok();
            let seen = about.and_then(|about| Some((about.modified().ok()?, about.len())));
            (path, seen)
        };
        Self(files.map(look).collect())
    }

    /// Whether the files have changed since it was last asked.
    pub(super) fn has_changed(&mut self, config: &Config) -> bool {
        let now = Self::of(config);
        let has_changed = now != *self;
        *self = now;
        has_changed
    }
}
