//! `tacho accounts`: looks at accounts, resets them, puts them on another plan.

use clap::{Args, Subcommand};
use comfy_table::{CellAlignment, Table, presets};
use serde_json::json;

use super::actor::act;
use super::report::grouped;
use super::verify::{account, plain};
use crate::config::Config;
use crate::persist::{AccountFilter, AccountPage, AccountRow, PersistError, ResetRow, Store};
use tacho_core::domain::account::AccountId;
use tacho_core::domain::money::NanoUsd;
use tacho_core::domain::plan::Plans;
use tacho_core::domain::time::Timestamp;

/// Entries of the history that are shown with an account.
const ENTRIES: u32 = 20;

#[derive(Args)]
pub(super) struct AccountsArguments {
    #[command(subcommand)]
    verb: Verb,
    /// As JSON.
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Subcommand)]
enum Verb {
    /// All accounts, or some of them.
    List {
        #[arg(long)]
        tenant: Option<String>,
        #[arg(long)]
        plan: Option<String>,
        /// Most lines.
        #[arg(long, default_value = "1000")]
        limit: u32,
    },
    /// One account with the last entries of its history.
    Show(Whose),
    /// Put an account on a plan of the configuration.
    SetPlan {
        #[command(flatten)]
        whose: Whose,
        plan: String,
        /// Who wants it, or why; it stands in the history of the account.
        #[arg(long)]
        reason: Option<String>,
    },
    /// Begin a new period now, from nothing. Free requests stay used.
    Reset {
        #[command(flatten)]
        whose: Whose,
        /// Who wants it, or why; it stands in the history of the account.
        #[arg(long)]
        reason: Option<String>,
    },
}

#[derive(Args)]
struct Whose {
    user: String,
    #[arg(long, default_value = "default")]
    tenant: String,
}

#[derive(Debug, thiserror::Error)]
pub(super) enum AccountsError {
    #[error("there is no account {0}")]
    NoAccount(String),
    #[error("there is no plan `{name}`; the configuration has {known}")]
    NoPlan { name: String, known: String },
    #[error("database")]
    Database(#[from] PersistError),
    #[error("accounts could not be written")]
    Json(#[from] serde_json::Error),
}

pub(super) async fn accounts(
    config: &Config,
    arguments: &AccountsArguments,
    now: Timestamp,
) -> Result<String, AccountsError> {
    // Before anything is opened: a slip of the finger needs no database.
    if let Verb::SetPlan { plan, .. } = &arguments.verb {
        known_plan(&config.plans, plan)?;
    }
    let store = Store::open_existing(config.database(), "accounts").await?.with_plans(config.plans.clone());
    let done = done(&store, arguments, now).await;
    store.close().await;
    done
}

async fn done(store: &Store, arguments: &AccountsArguments, now: Timestamp) -> Result<String, AccountsError> {
    let json = arguments.json;
    match &arguments.verb {
        Verb::List { tenant, plan, limit } => {
            let filter = AccountFilter { tenant: tenant.clone(), plan: plan.clone() };
            let rows = store.accounts(&filter, &AccountPage { after: None, limit: *limit }).await?;
            if json { pretty(&json!({"accounts": rows})) } else { Ok(as_list(&rows, *limit)) }
        }
        Verb::Show(whose) => {
            let row = store.account(&whose.id()).await?.ok_or_else(|| whose.missing())?;
            let entries = store.account_resets(&whose.id(), ENTRIES).await?;
            if json {
                pretty(&json!({"account": row, "resets": entries}))
            } else {
                Ok(as_account(&row, &entries, store.plans()))
            }
        }
        Verb::SetPlan { whose, plan, reason } => {
            let plan = known_plan(store.plans(), plan)?;
            let row = store
                .set_plan(&whose.id(), plan, &act(reason.as_deref(), now))
                .await?
                .ok_or_else(|| whose.missing())?;
            if json { pretty(&json!({"account": row})) } else { Ok(as_list(&[row], 1)) }
        }
        Verb::Reset { whose, reason } => {
            let row = store.reset(&whose.id(), &act(reason.as_deref(), now)).await?.ok_or_else(|| whose.missing())?;
            if json { pretty(&json!({"account": row})) } else { Ok(as_list(&[row], 1)) }
        }
    }
}

impl Whose {
    fn id(&self) -> AccountId {
        AccountId { tenant: self.tenant.as_str().into(), user: self.user.as_str().into() }
    }

    fn missing(&self) -> AccountsError {
        AccountsError::NoAccount(account(&self.tenant, &self.user))
    }
}

fn known_plan<'p>(plans: &'p Plans, name: &str) -> Result<&'p tacho_core::domain::plan::Plan, AccountsError> {
    plans.get(name).map(AsRef::as_ref).ok_or_else(|| AccountsError::NoPlan {
        name: plain(name),
        known: plans.iter().map(|plan| plan.name.to_string()).collect::<Vec<_>>().join(", "),
    })
}

fn pretty(value: &serde_json::Value) -> Result<String, AccountsError> {
    Ok(serde_json::to_string_pretty(value)?)
}

fn as_list(rows: &[AccountRow], limit: u32) -> String {
    if rows.is_empty() {
        return "no such accounts".to_owned();
    }
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["account", "plan", "period since", "until", "free", "requests", "tokens", "USD"]);
    table.add_rows(rows.iter().map(|row| {
        let mut cells = vec![account(&row.tenant, &row.user_id), plain(&row.plan)];
        cells.extend([minute(&row.period_started_at), row.period_ends_at.as_deref().map_or("-".into(), minute)]);
        let counted =
            [row.free_requests_used, row.requests_used_current_period, row.tokens_used_current_period].map(grouped);
        cells.extend(counted);
        cells.push(NanoUsd(row.cost_used_current_period_nanousd).to_string());
        cells
    }));
    table.column_iter_mut().skip(4).for_each(|column| column.set_cell_alignment(CellAlignment::Right));
    let full = limit > 1 && rows.len() >= usize::try_from(limit).unwrap_or(usize::MAX);
    let more = if full { "\nthere may be more: narrow by --tenant or --plan, or raise --limit" } else { "" };
    format!("{}{more}", table.trim_fmt())
}

fn as_account(row: &AccountRow, entries: &[ResetRow], plans: &Plans) -> String {
    let free = plans.get(&row.plan).map_or(0, |plan| plan.free_requests);
    let until = row.period_ends_at.as_deref().unwrap_or("(never)");
    let lines = [
        ("account", account(&row.tenant, &row.user_id)),
        ("plan", plain(&row.plan)),
        ("period", format!("{}, {}, {}", row.period_kind, row.period_anchor, row.timezone)),
        ("since", row.period_started_at.clone()),
        ("until", until.to_owned()),
        ("free requests", format!("{} of {}", grouped(row.free_requests_used), grouped(free.into()))),
        ("requests", grouped(row.requests_used_current_period)),
        ("tokens", grouped(row.tokens_used_current_period)),
        ("USD", NanoUsd(row.cost_used_current_period_nanousd).to_string()),
        ("first request", row.first_request_at.clone()),
        ("reset by hand", row.last_manual_reset_at.clone().unwrap_or_else(|| "(never)".to_owned())),
    ];
    let text: Vec<String> = lines.into_iter().map(|(name, value)| format!("{name:<13}  {value}")).collect();
    if entries.is_empty() {
        return text.join("\n");
    }
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["entry", "at", "from", "to", "plan", "requests", "tokens", "USD", "reason"]);
    table.add_rows(entries.iter().map(entry));
    table.column_iter_mut().skip(5).take(3).for_each(|column| column.set_cell_alignment(CellAlignment::Right));
    format!("{}\n\n{}", text.join("\n"), table.trim_fmt())
}

fn entry(entry: &ResetRow) -> Vec<String> {
    let plan = if entry.plan == entry.next_plan {
        plain(&entry.plan)
    } else {
        format!("{} -> {}", plain(&entry.plan), plain(&entry.next_plan))
    };
    let mut cells = vec![entry.kind.clone()];
    cells.extend([&entry.created_at, &entry.period_started_at, &entry.next_period_started_at].map(|time| minute(time)));
    cells.extend([plan, grouped(entry.requests_used), grouped(entry.tokens_used)]);
    cells.push(NanoUsd(entry.cost_used_nanousd).to_string());
    cells.push(plain(entry.reason.as_deref().unwrap_or_default()));
    cells
}

/// Of an RFC 3339 time in UTC, up to its minute.
fn minute(time: &str) -> String {
    time.get(..16).map_or_else(|| time.to_owned(), |minute| format!("{minute}Z"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ann() -> AccountRow {
        AccountRow {
            tenant: "acme".into(),
            user_id: "ann\n".into(),
            plan: "free".into(),
            free_requests_used: 5,
            requests_used_current_period: 1_234,
            tokens_used_current_period: 5_678_901,
            cost_used_current_period_nanousd: 12_500_000_000,
            period_started_at: "2026-04-30T22:00:00.000000Z".into(),
            period_ends_at: Some("2026-05-31T22:00:00.000000Z".into()),
            period_kind: "month".into(),
            period_anchor: "calendar".into(),
            timezone: "Europe/Berlin".into(),
            first_request_at: "2026-01-02T03:04:05.000006Z".into(),
            last_manual_reset_at: None,
            created_at: "2026-01-02T03:04:09.000000Z".into(),
            ended_periods: 1,
        }
    }

    #[test]
    fn an_account_has_a_line() {
        expect_test::expect![[r#"
             account     plan  period since       until              free  requests     tokens    USD
             acme/ann\n  free  2026-04-30T22:00Z  2026-05-31T22:00Z     5     1_234  5_678_901  12.50
             acme/ann\n  free  2026-04-30T22:00Z  2026-05-31T22:00Z     5     1_234  5_678_901  12.50
            there may be more: narrow by --tenant or --plan, or raise --limit"#]]
        .assert_eq(&as_list(&[ann(), ann()], 2));
    }

    #[test]
    fn an_account_is_shown_with_its_history() {
        let plans: Plans = toml::from_str("free = { free_requests = 5 }").unwrap();
        let entry = ResetRow {
            period_started_at: "2026-03-31T22:00:00.000000Z".into(),
            next_period_started_at: "2026-04-30T22:00:00.000000Z".into(),
            created_at: "2026-04-30T22:00:04.000000Z".into(),
            kind: "plan".into(),
            reason: Some("asked\u{1b}[31m".into()),
            plan: "free".into(),
            next_plan: "pro".into(),
            requests_used: 7,
            tokens_used: 8_000,
            cost_used_nanousd: 9,
        };
        expect_test::expect![[r#"
            account        acme/ann\n
            plan           free
            period         month, calendar, Europe/Berlin
            since          2026-04-30T22:00:00.000000Z
            until          2026-05-31T22:00:00.000000Z
            free requests  5 of 5
            requests       1_234
            tokens         5_678_901
            USD            12.50
            first request  2026-01-02T03:04:05.000006Z
            reset by hand  (never)

             entry  at                 from               to                 plan         requests  tokens          USD  reason
             plan   2026-04-30T22:00Z  2026-03-31T22:00Z  2026-04-30T22:00Z  free -> pro         7   8_000  0.000000009  asked\u{1b}[31m"#]].assert_eq(&as_account(&ann(), &[entry], &plans));
    }
}
