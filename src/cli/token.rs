//! `tacho token`: hands out tokens and takes them back. A token is shown once; what is kept is its hash.

use std::time::Duration;

use clap::{Args, Subcommand};
use comfy_table::{Table, presets};
use serde::Serialize;
use serde_json::json;

use super::actor::act;
use super::verify::plain;
use crate::auth::{BadTokens, Entry, NoToken, Role, Token, TokensFile};
use crate::config::Config;
use crate::persist::{Done, Store};
use tacho_core::domain::time::Timestamp;

#[derive(Args)]
pub(super) struct TokenArguments {
    #[command(subcommand)]
    verb: TokenVerb,
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Subcommand)]
enum TokenVerb {
    /// Make a token and show it, this once.
    New {
        role: Role,
        /// Who will have it.
        #[arg(long, default_value = "")]
        name: String,
        /// How long it is good for, such as 90d; without it, until it is revoked.
        #[arg(long, value_parser = humantime_serde::re::humantime::parse_duration)]
        expires_in: Option<Duration>,
    },
    /// Which tokens there are; not what they are.
    List,
    /// Take back the token with this id, or all with this name.
    Revoke { token: String },
}

#[derive(Debug, thiserror::Error)]
pub(super) enum TokenError {
    #[error(transparent)]
    Tokens(#[from] BadTokens),
    #[error(transparent)]
    NotMade(#[from] NoToken),
    #[error("there is no token with the id or the name `{0}`")]
    NoSuch(String),
    #[error("tokens could not be written")]
    Json(#[from] serde_json::Error),
}

#[derive(Serialize)]
struct Shown<'a> {
    id: String,
    name: &'a str,
    role: Role,
    created_at: String,
    expires_at: Option<String>,
    is_expired: bool,
}

pub(super) async fn token(config: &Config, arguments: &TokenArguments, now: Timestamp) -> Result<String, TokenError> {
    let file = TokensFile(config.auth.tokens_path(&config.data_dir));
    match &arguments.verb {
        TokenVerb::New { role, name, expires_in } => {
            let token = Token::new(*role)?;
            let expires_at = expires_in.map(|span| now.plus(span));
            let entry = Entry { name: name.clone(), role: *role, sha256: token.hash(), created_at: now, expires_at };
            file.add(entry.clone())?;
            note(config, "token.new", std::slice::from_ref(&entry), now).await;
            if arguments.json {
                let mut shown = serde_json::to_value(shown(&entry, now))?;
                shown["token"] = json!(token.reveal());
                return Ok(serde_json::to_string_pretty(&shown)?);
            }
            Ok(token.reveal().to_owned())
        }
        TokenVerb::List => {
            let entries = file.read()?;
            if arguments.json {
                let shown: Vec<_> = entries.iter().map(|entry| shown(entry, now)).collect();
                return Ok(serde_json::to_string_pretty(&json!({"tokens": shown}))?);
            }
            Ok(as_table(&entries, now))
        }
        TokenVerb::Revoke { token } => {
            let removed = file.remove(token)?;
            if removed.is_empty() {
                return Err(TokenError::NoSuch(token.clone()));
            }
            note(config, "token.revoke", &removed, now).await;
            if arguments.json {
                let shown: Vec<_> = removed.iter().map(|entry| shown(entry, now)).collect();
                return Ok(serde_json::to_string_pretty(&json!({"revoked": shown}))?);
            }
            Ok(format!("{} revoked; a running Tacho refuses it within seconds", removed.len()))
        }
    }
}

/// In the audit log, if there is a database yet: tokens can be made before the first start.
async fn note(config: &Config, action: &'static str, entries: &[Entry], now: Timestamp) {
    let done = |entry: &Entry| {
        let what =
            json!({"name": entry.name, "role": entry.role, "expires_at": entry.expires_at.map(|at| at.to_string())});
        let mut done = Done::on(action, entry.sha256.id());
        (done.before, done.after) = if action == "token.new" { (None, Some(what)) } else { (Some(what), None) };
        done
    };
    let noted = async {
        let store = Store::open_existing(config.database(), "token").await?;
        let noted = store.note(&act(None, now), &entries.iter().map(done).collect::<Vec<_>>()).await;
        store.close().await;
        noted
    };
    if let Err(error) = noted.await {
        super::say_error(&format!("not in the audit log: {}", crate::telemetry::chain(&error)));
    }
}

fn shown(entry: &Entry, now: Timestamp) -> Shown<'_> {
    Shown {
        id: entry.sha256.id(),
        name: &entry.name,
        role: entry.role,
        created_at: entry.created_at.to_string(),
        expires_at: entry.expires_at.map(|end| end.to_string()),
        is_expired: entry.is_expired(now),
    }
}

fn as_table(entries: &[Entry], now: Timestamp) -> String {
    if entries.is_empty() {
        return "there are no tokens but the admin token in the data folder".to_owned();
    }
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["id", "name", "role", "created", "expires"]);
    for entry in entries {
        let expires = match entry.expires_at {
            None => "never".to_owned(),
            Some(end) if entry.is_expired(now) => format!("{end} (expired)"),
            Some(end) => end.to_string(),
        };
        let [id, created] = [entry.sha256.id(), entry.created_at.to_string()];
        table.add_row([&id, &plain(&entry.name), entry.role.label(), &created, &expires]);
    }
    table.trim_fmt()
}
