//! What people did by hand: who, what, on what, before and after. A row is added in the transaction of the act itself
//! and never changed.

use serde::Serialize;
use serde_json::{Value as Json, json};

use super::PersistError;
use super::accounts::Locked;
use super::rows::Values;
use super::store::{Store, Tx};
use super::value::Kind::{Text, Time};
use super::value::{Kind, Row, Value};
use tacho_core::domain::account::{AccountId, Used};
use tacho_core::domain::time::Timestamp;

/// Who does something by hand, why, and when.
#[derive(Clone, Debug)]
pub struct Act<'a> {
    /// As people know them: the name of a token, or of a user of the machine.
    pub actor: String,
    pub reason: Option<&'a str>,
    pub at: Timestamp,
}

/// What was done.
#[derive(Clone, Debug)]
pub struct Done<'a> {
    /// `account.reset`, `token.new`, …
    pub action: &'static str,
    /// Whose account it was.
    pub account: Option<&'a AccountId>,
    /// On what else.
    pub object: Option<String>,
    pub before: Option<Json>,
    pub after: Option<Json>,
}

impl<'a> Done<'a> {
    pub fn on(action: &'static str, object: String) -> Self {
        Self { action, account: None, object: Some(object), before: None, after: None }
    }

    pub(super) fn to(action: &'static str, account: &'a AccountId, before: Json, after: Json) -> Self {
        Self { action, account: Some(account), object: None, before: Some(before), after: Some(after) }
    }
}

/// A row of audit_log, with the time as RFC 3339 text and what was before and after as JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AuditRow {
    pub id: i64,
    pub created_at: String,
    pub actor: String,
    pub action: String,
    pub tenant: Option<String>,
    pub user_id: Option<String>,
    pub object: Option<String>,
    pub reason: Option<String>,
    pub before: Option<Json>,
    pub after: Option<Json>,
}

/// Which rows are wanted, the newest first.
#[derive(Clone, Debug, Default)]
pub struct AuditFilter {
    pub since: Option<Timestamp>,
    pub tenant: Option<String>,
    pub user: Option<String>,
    pub limit: u32,
}

const COLUMNS: &str = "created_at, actor, action, tenant, user_id, object, reason, before_act, after_act";
const KINDS: &[Kind] = &[Time, Text, Text, Text, Text, Text, Text, Text, Text];

impl Store {
    /// Notes what was done outside the database.
    pub async fn note(&self, act: &Act<'_>, done: &[Done<'_>]) -> Result<(), PersistError> {
        let mut tx = self.writing().await?;
        note(&mut tx, act, done).await?;
        tx.commit().await
    }

    pub async fn audit(&self, filter: &AuditFilter) -> Result<Vec<AuditRow>, PersistError> {
        let (mut conditions, mut values) = (Vec::new(), Values::new());
        let mut wanted = |condition: &str, value: Option<Value>| {
            if let Some(value) = value {
                values.push(value);
                conditions.push(format!("{condition} ${}", values.len()));
            }
        };
        wanted("created_at >=", filter.since.map(Value::time));
        wanted("tenant =", filter.tenant.as_deref().map(Value::text));
        wanted("user_id =", filter.user.as_deref().map(Value::text));
        let condition = if conditions.is_empty() { "1 = 1".to_owned() } else { conditions.join(" AND ") };
        values.push(Value::Int(filter.limit.into()));
        let limit = values.len();
        let sql = format!("SELECT id, {COLUMNS} FROM audit_log WHERE {condition} ORDER BY id DESC LIMIT ${limit}");
        Ok(self.fetch(&sql, &values).await?.iter().map(to_row).collect::<Result<_, _>>()?)
    }
}

pub(super) async fn note(tx: &mut Tx, act: &Act<'_>, done: &[Done<'_>]) -> Result<(), PersistError> {
    let text = |json: &Option<Json>| Value::optional(json.as_ref().map(Json::to_string).as_deref());
    let row = |done: &Done<'_>| {
        vec![
            Value::time(act.at),
            Value::text(&act.actor),
            Value::text(done.action),
            Value::optional(done.account.map(|account| &*account.tenant)),
            Value::optional(done.account.map(|account| &*account.user)),
            Value::optional(done.object.as_deref()),
            Value::optional(act.reason),
            text(&done.before),
            text(&done.after),
        ]
    };
    let sql = format!("INSERT INTO audit_log ({COLUMNS}) {{rows}}");
    tx.bulk(&sql, KINDS, done.iter().map(row).collect()).await.map(drop)
}

/// What an act can change of an account.
pub(super) fn account(account: &Locked) -> Json {
    let standing = &account.standing;
    let mut json = used(&standing.used);
    json["plan"] = json!(&*standing.plan);
    json["period_started_at"] = json!(standing.period_started_at.to_string());
    json["period_ends_at"] = json!(standing.period_ends_at.map(|end| end.to_string()));
    json
}

pub(super) fn used(used: &Used) -> Json {
    json!({
        "free_requests_used": used.free_requests,
        "requests_used_current_period": used.requests,
        "tokens_used_current_period": used.tokens,
        "cost_used_current_period_nanousd": used.cost_nanousd,
    })
}

fn to_row(row: &Row) -> Result<AuditRow, sqlx::Error> {
    let json = |column| {
        let text: Option<String> = row.maybe_text(column)?;
        text.map(|text| serde_json::from_str(&text)).transpose().map_err(|error| sqlx::Error::Decode(error.into()))
    };
    Ok(AuditRow {
        id: row.int(0)?,
        created_at: row.time(1)?.to_string(),
        actor: row.text(2)?,
        action: row.text(3)?,
        tenant: row.maybe_text(4)?,
        user_id: row.maybe_text(5)?,
        object: row.maybe_text(6)?,
        reason: row.maybe_text(7)?,
        before: json(8)?,
        after: json(9)?,
    })
}
