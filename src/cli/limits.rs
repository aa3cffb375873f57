//! `tacho limits explain` and `tacho limits show`: what the limits say, and how they stand.

use std::sync::{Arc, OnceLock};

use clap::{Args, Subcommand};
use comfy_table::{Table, presets};
use serde_json::json;

use crate::app;
use crate::config::Config;
use crate::limit::{Asked, LimitState, StoreError, explain};
use crate::persist::{PersistError, Store};
use tacho_core::domain::time::Timestamp;

#[derive(Args)]
pub(super) struct LimitsArguments {
    #[command(subcommand)]
    verb: LimitsVerb,
}

#[derive(Subcommand)]
enum LimitsVerb {
    /// Each limit in words, with the most that can be used beyond it.
    Explain {
        /// How many instances share the limits; by default `limits.expected_instances`.
        #[arg(long)]
        instances: Option<u32>,
        #[arg(long)]
        json: bool,
    },
    /// How limits stand: for one subject, or the greatest of each quota.
    Show(ShowArguments),
}

#[derive(Args)]
struct ShowArguments {
    /// A user; the options narrow it or name others.
    user: Option<Box<str>>,
    #[arg(long)]
    tenant: Option<Box<str>>,
    #[arg(long)]
    agent: Option<Box<str>>,
    #[arg(long)]
    model: Option<Box<str>>,
    #[arg(long)]
    endpoint: Option<Box<str>>,
    /// Most lines of each limit, without a subject.
    #[arg(long, default_value_t = 50)]
    top: u32,
    #[arg(long)]
    json: bool,
}

#[derive(Debug, thiserror::Error)]
pub(super) enum LimitsError {
    #[error("the store of limits cannot be asked")]
    Store(#[from] StoreError),
    #[error(transparent)]
    Database(#[from] PersistError),
}

pub(super) async fn limits(
    config: &Config,
    arguments: &LimitsArguments,
    now: Timestamp,
) -> Result<String, LimitsError> {
    match &arguments.verb {
        LimitsVerb::Explain { instances, json } => {
            Ok(explained(config, instances.unwrap_or(config.limits.expected_instances), *json))
        }
        LimitsVerb::Show(arguments) if arguments.names_subject() => show(config, arguments).await,
        LimitsVerb::Show(arguments) => greatest(config, arguments, now).await,
    }
}

fn explained(config: &Config, instances: u32, as_json: bool) -> String {
    let limits: Vec<_> = app::rules(config).iter().map(|rule| explain(rule, instances)).collect();
    if as_json {
        return json!({"instances": instances, "limits": limits}).to_string();
    }
    if limits.is_empty() {
        return "no limits are configured".to_owned();
    }
    let lines = limits.iter().map(|limit| {
        let bound: Vec<String> = limit.bound_terms.iter().map(|line| format!("      {line}")).collect();
        format!(
            "{}\n  {}\n  over it: {}\n  {}\n  most that can be used, with {instances} instances:\n{}",
            limit.name,
            limit.allows,
            limit.on_excess,
            limit.consistency,
            bound.join("\n")
        )
    });
    lines.collect::<Vec<_>>().join("\n\n")
}

impl ShowArguments {
    fn names_subject(&self) -> bool {
        [&self.user, &self.tenant, &self.agent, &self.model, &self.endpoint].iter().any(|value| value.is_some())
    }
}

/// Asks the store as an instance that charges nothing.
async fn show(config: &Config, arguments: &ShowArguments) -> Result<String, LimitsError> {
    let store = Arc::new(OnceLock::new());
    drop(store.set(Store::open_existing(config.database(), "limits").await?));
    let limits = app::looking_limits(config, store).await?;
    let asked = Asked {
        tenant: arguments.tenant.clone(),
        user: arguments.user.clone(),
        endpoint: arguments.endpoint.clone(),
        agent: arguments.agent.clone(),
        model: arguments.model.clone(),
        ..Asked::default()
    };
    let states = limits.show(&asked).await;
    if arguments.json {
        let limits: Vec<_> = states.iter().map(crate::api::limit_body).collect();
        return Ok(json!({"limits": limits}).to_string());
    }
    if states.is_empty() {
        return Ok("no limit matches".to_owned());
    }
    Ok(table(&["limit", "subject", "used", "held", "of", "left"], states.iter().map(line).collect()))
}

fn line(state: &LimitState) -> Vec<String> {
    let show = |amount| state.meter.show(amount);
    let stand = &state.stand;
    let amounts = [stand.used, stand.held, stand.limit, stand.remaining].map(show);
    [state.name.to_string(), state.subject.to_string()].into_iter().chain(amounts).collect()
}

/// From the database: what was recorded, without what is held.
async fn greatest(config: &Config, arguments: &ShowArguments, now: Timestamp) -> Result<String, LimitsError> {
    let store = Store::open_existing(config.database(), "limits").await?;
    let rules = app::rules(config);
    let mut rows = Vec::new();
    for rule in &rules {
        for counter in store.counters(Some(&rule.name), now, arguments.top).await? {
            rows.push((rule, counter));
        }
    }
    store.close().await;
    if arguments.json {
        let limits = rows.iter().map(|(rule, counter)| {
            let subject: serde_json::Value = serde_json::from_str(&counter.subject).unwrap_or_default();
            let since = counter.period_started_at.to_string();
            json!({"name": &*rule.name, "subject": subject, "used": rule.meter.figure(counter.used),
                   "limit": rule.meter.figure(rule.kind.limit().0), "meter": rule.meter.label(), "unit": rule.meter.unit(),
                   "period_started_at": since})
        });
        return Ok(json!({"limits": limits.collect::<Vec<_>>()}).to_string());
    }
    if rows.is_empty() {
        return Ok("nothing was used of any quota; name a user to see its rates".to_owned());
    }
    let lines = rows.iter().map(|(rule, counter)| {
        let show = |amount| rule.meter.show(amount);
        let since = counter.period_started_at.to_string();
        vec![rule.name.to_string(), counter.subject.clone(), show(counter.used), show(rule.kind.limit().0), since]
    });
    Ok(table(&["limit", "subject", "used", "of", "since"], lines.collect()))
}

fn table(head: &[&str], lines: Vec<Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(head.iter().copied());
    table.add_rows(lines);
    table.trim_fmt()
}
