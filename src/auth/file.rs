//! The tokens on disk: a file of hashes that people hand out tokens of, and the one admin token that each data folder
//! has.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{NoToken, Role, Token, TokenHash};
use crate::rights;
use tacho_core::domain::time::Timestamp;

/// One token that was handed out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// Who has it, for people.
    pub name: String,
    pub role: Role,
    pub sha256: TokenHash,
    #[serde(with = "rfc3339")]
    pub created_at: Timestamp,
    /// Never, if it is not there.
    #[serde(default, with = "maybe_rfc3339", skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
}

impl Entry {
    pub fn is_expired(&self, now: Timestamp) -> bool {
        self.expires_at.is_some_and(|end| end <= now)
    }
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Content {
    #[serde(default, rename = "token")]
    tokens: Vec<Entry>,
}

#[derive(Debug, thiserror::Error)]
pub enum BadTokens {
    #[error("tokens file {}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
    // Of the text only the place is said: somebody may have put a token there.
    #[error("tokens file {}, line {line}: this is not what `tacho token` writes", path.display())]
    Malformed { path: PathBuf, line: usize },
    #[error("{}: {source}", path.display())]
    Admin { path: PathBuf, source: NoToken },
}

/// Written above the entries.
const HEAD: &str = "# Written by `tacho token`. It holds hashes only, so nobody can use a token by reading it.\n";
const NAME: &str = "admin-token";

/// The file named `auth.tokens_file`.
#[derive(Clone, Debug)]
pub struct TokensFile(pub PathBuf);

impl TokensFile {
    /// None where there is no file.
    pub fn read(&self) -> Result<Vec<Entry>, BadTokens> {
        let text = match fs::read_to_string(&self.0) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(self.failed(error)),
        };
        let content: Content = toml::from_str(&text).map_err(|error| {
            let before = error.span().map_or(0, |span| span.start);
            let line = text.bytes().take(before).filter(|byte| *byte == b'\n').count() + 1;
            BadTokens::Malformed { path: self.0.clone(), line }
        })?;
        Ok(content.tokens)
    }

    pub fn add(&self, entry: Entry) -> Result<(), BadTokens> {
        self.change(|entries| entries.push(entry))
    }

    /// Takes out the tokens with this id or name; answers them.
    pub fn remove(&self, named: &str) -> Result<Vec<Entry>, BadTokens> {
        // Tokens without a name are named by their ids alone.
        let is_meant = |entry: &Entry| !named.is_empty() && (entry.name == named || entry.sha256.id() == named);
        let mut removed = Vec::new();
        self.change(|entries| removed = entries.extract_if(.., |entry| is_meant(entry)).collect())?;
        Ok(removed)
    }

    /// One at a time, and whole: no reader sees half of it, and a crash leaves the old file or the new one.
    fn change(&self, change: impl FnOnce(&mut Vec<Entry>)) -> Result<(), BadTokens> {
        // Of a link the file that it leads to is replaced.
        let target = fs::canonicalize(&self.0).unwrap_or_else(|_| self.0.clone());
        let beside = |end: &str| {
            let mut path = target.clone();
            path.as_mut_os_string().push(end);
            path
        };
        let io = |error| self.failed(error);
        let folder = target.parent().filter(|folder| *folder != Path::new("")).unwrap_or(Path::new("."));
        fs::create_dir_all(folder).map_err(io)?;
        let lock = private().write(true).create(true).truncate(false).open(beside(".lock")).map_err(io)?;
        lock.lock().map_err(io)?;
        rights::share_owner(&beside(".lock"), folder).map_err(io)?;
        let mut entries = self.read()?;
        change(&mut entries);
        let text = toml::to_string(&Content { tokens: entries }).expect("entries are texts under names that are texts");
        let new = beside(".new");
        let write = || -> io::Result<()> {
            let mut file = private().write(true).create(true).truncate(true).open(&new)?;
            file.write_all(format!("{HEAD}\n{text}").as_bytes())?;
            file.sync_all()?;
            // Of root, who makes a token for a service that runs as another user.
            let owner = if target.exists() { &target } else { folder };
            rights::share_owner(&new, owner)?;
            fs::rename(&new, &target)
        };
        write().map_err(io)
    }

    fn failed(&self, source: io::Error) -> BadTokens {
        BadTokens::Io { path: self.0.clone(), source }
    }
}

/// Where the admin token of a data folder lies.
pub fn admin_token_path(data_dir: &Path) -> PathBuf {
    data_dir.join(NAME)
}

/// The admin token of this data folder; the first time it is asked for, it is made.
pub fn admin_token(data_dir: &Path) -> Result<Token, BadTokens> {
    let path = admin_token_path(data_dir);
    let failed = |source| BadTokens::Io { path: path.clone(), source };
    let bad = |source| BadTokens::Admin { path: path.clone(), source };
    match fs::read_to_string(&path) {
        Ok(text) => return Token::parse(&text, Role::Admin).map_err(bad),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed(error)),
    }
    let token = Token::new(Role::Admin).map_err(bad)?;
    // Aside first, so that a crash leaves no half of one.
    let new = data_dir.join(format!("{NAME}.new"));
    let write = || -> io::Result<()> {
        let mut file: File = private().write(true).create(true).truncate(true).open(&new)?;
        file.write_all(format!("{}\n", token.reveal()).as_bytes())?;
        file.sync_all()?;
        fs::rename(&new, &path)
    };
    write().map_err(failed)?;
    tracing::info!(path = %path.display(), "made an admin token");
    Ok(token)
}

/// Nobody else's, from its first moment.
fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.mode(0o600);
    options
}

mod rfc3339 {
    use super::{Deserialize, Deserializer, Serializer, Timestamp};

    pub(super) fn serialize<S: Serializer>(time: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(time)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Timestamp, D::Error> {
        let text = String::deserialize(deserializer)?;
        Timestamp::parse(&text).ok_or_else(|| serde::de::Error::custom("is no time"))
    }
}

mod maybe_rfc3339 {
    use super::{Deserializer, Serializer, Timestamp, rfc3339};

    pub(super) fn serialize<S: Serializer>(time: &Option<Timestamp>, serializer: S) -> Result<S::Ok, S::Error> {
        match time {
            Some(time) => rfc3339::serialize(time, serializer),
            None => serializer.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Timestamp>, D::Error> {
        rfc3339::deserialize(deserializer).map(Some)
    }
}
