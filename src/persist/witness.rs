//! A file beside the SQLite database that tells how far its feed had come. A database that is behind it, or stands without it, was
//! put back from a backup: whoever follows the feed must know.

use std::path::{Path, PathBuf};

use sqlx::sqlite::SqlitePool;

use super::PersistError;
use crate::rights;

/// The file of this database.
#[derive(Clone, Debug)]
pub(super) struct Witness {
    path: PathBuf,
    database: PathBuf,
}

impl Witness {
    /// `None` for a database that is no file.
    pub(super) fn of(database: &Path) -> Option<Self> {
        let name = database.file_name()?.to_str()?;
        if name.contains(":memory:") {
            return None;
        }
        let path = database.with_file_name(format!("{name}-feed-position"));
        Some(Self { path, database: database.to_owned() })
    }

    /// Raises the epoch if the database is not the one that the file was written beside.
    pub(super) async fn compare(&self, writer: &SqlitePool) -> Result<(), PersistError> {
        let position: i64 = sqlx::query_scalar("SELECT position FROM feed").fetch_one(writer).await?;
        let noted = tokio::fs::read_to_string(&self.path).await.ok().and_then(|text| text.trim().parse::<i64>().ok());
        let was_put_back = noted.map_or(position > 0, |noted| noted > position);
        if was_put_back {
            let sql = "UPDATE feed SET epoch = epoch + 1 RETURNING epoch";
            let epoch: i64 = sqlx::query_scalar(sql).fetch_one(writer).await?;
            tracing::warn!(epoch, "database was restored: who follows the records must read again");
        }
        // A file that is missing is no reason to stop; the next start takes its absence for a restore.
        self.note(position).await;
        Ok(())
    }

    /// In one step, so that a crash leaves the old text or the new one.
    pub(super) async fn note(&self, position: i64) {
        let mut new = self.path.clone();
        new.as_mut_os_string().push(".new");
        let written = async {
            tokio::fs::write(&new, format!("{position}\n")).await?;
            // Who runs the service must be able to read what root wrote here: without it the database looks restored.
            rights::share_owner(&new, &self.database)?;
            tokio::fs::rename(&new, &self.path).await
        };
        if let Err(error) = written.await {
            tracing::debug!(%error, path = %self.path.display(), "position of the feed not noted");
        }
    }
}
