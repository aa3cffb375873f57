//! `tacho audit`: what people did by hand, over HTTP and on the command line; the newest last.

use clap::Args;
use comfy_table::{Table, presets};
use serde_json::Value;

use super::report::{self, ReportError};
use super::verify::{account, plain};
use crate::config::Config;
use crate::persist::{AuditFilter, AuditRow, PersistError, Store};
use tacho_core::domain::time::Timestamp;

#[derive(Args)]
pub(super) struct AuditArguments {
    /// A date, a time, or how long ago, such as 7d.
    #[arg(long)]
    since: Option<String>,
    /// What was done to this user's accounts.
    #[arg(long)]
    user: Option<String>,
    #[arg(long)]
    tenant: Option<String>,
    /// Most lines.
    #[arg(long, default_value_t = 100)]
    limit: u32,
    #[arg(long)]
    json: bool,
}

#[derive(Debug, thiserror::Error)]
pub(super) enum AuditError {
    #[error(transparent)]
    Time(#[from] ReportError),
    #[error("database")]
    Database(#[from] PersistError),
    #[error("the audit log could not be written")]
    Json(#[from] serde_json::Error),
}

pub(super) async fn audit(config: &Config, arguments: &AuditArguments, now: Timestamp) -> Result<String, AuditError> {
    let since = arguments.since.as_deref().map(|since| report::time(since, now)).transpose()?;
    let (tenant, user) = (arguments.tenant.clone(), arguments.user.clone());
    let filter = AuditFilter { since, tenant, user, limit: arguments.limit };
    let store = Store::open_existing(config.database(), "audit").await?;
    let found = store.audit(&filter).await;
    store.close().await;
    let mut rows = found?;
    rows.reverse();
    if arguments.json {
        return Ok(serde_json::to_string_pretty(&serde_json::json!({"audit": rows}))?);
    }
    Ok(as_table(&rows))
}

fn as_table(rows: &[AuditRow]) -> String {
    if rows.is_empty() {
        return "nobody did anything by hand".to_owned();
    }
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["at", "who", "what", "on", "before", "after", "reason"]);
    for row in rows {
        let whose = row.tenant.as_deref().zip(row.user_id.as_deref());
        let whose = whose.map(|(tenant, user)| account(tenant, user));
        let object = whose.or_else(|| row.object.as_deref().map(plain)).unwrap_or_default();
        let [before, after] = changed(row.before.as_ref(), row.after.as_ref());
        let reason = plain(row.reason.as_deref().unwrap_or_default());
        table.add_row([row.created_at.clone(), plain(&row.actor), row.action.clone(), object, before, after, reason]);
    }
    table.trim_fmt()
}

/// Of both sides what differs.
fn changed(before: Option<&Value>, after: Option<&Value>) -> [String; 2] {
    let show = |side: Option<&Value>, other: Option<&Value>| {
        let fields = side.and_then(Value::as_object).into_iter().flatten();
        let differs = |name: &str, value: &Value| other.and_then(|other| other.get(name)) != Some(value);
        let fields = fields.filter(|(name, value)| differs(name, value) && !value.is_null());
        let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), plain);
        fields.map(|(name, value)| format!("{name} {}", text(value))).collect::<Vec<_>>().join(", ")
    };
    [show(before, after), show(after, before)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_act_is_shown_by_what_it_changed() {
        let row = |id: i64, before: Option<Value>, after: Option<Value>| AuditRow {
            id,
            created_at: "2026-05-01T00:00:00.000000Z".to_owned(),
            actor: "token ops (0a1b2c)".to_owned(),
            action: "account.set_plan".to_owned(),
            tenant: Some("acme".to_owned()),
            user_id: Some("ann\n".to_owned()),
            object: None,
            reason: Some("asked".to_owned()),
            before,
            after,
        };
        let plan =
            |plan| Some(serde_json::json!({"plan": plan, "tokens_used_current_period": 7, "period_ends_at": null}));
        let mut token = row(2, None, Some(serde_json::json!({"role": "read"})));
        (token.tenant, token.user_id, token.object) = (None, None, Some("0a1b2c3d4e5f".to_owned()));
        let table = as_table(&[row(1, plan("free"), plan("pro")), token]);
        // The first blank of each line would be taken for indentation.
        expect_test::expect![[r#"
            table:
             at                           who                 what              on            before     after      reason
             2026-05-01T00:00:00.000000Z  token ops (0a1b2c)  account.set_plan  acme/ann\n    plan free  plan pro   asked
             2026-05-01T00:00:00.000000Z  token ops (0a1b2c)  account.set_plan  0a1b2c3d4e5f             role read  asked"#]].assert_eq(&format!("table:\n{table}"));
    }
}
