//! `/v1/accounts`: accounts and their history; a plan is set and an account reset by POST.

use axum::Json;
use axum::extract::{Extension, State};
use serde::Deserialize;
use serde_json::{Value, json};

use super::extract::{Body, Path, Query};
use super::problem::Problem;
use super::{Handles, LARGEST_PAGE};
use crate::auth::Caller;
use crate::persist::{AccountFilter, AccountPage, Act};
use tacho_core::domain::account::AccountId;

/// Entries of the history that are shown with an account.
const ENTRIES: u32 = 100;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AccountsQuery {
    tenant: Option<String>,
    plan: Option<String>,
    /// `next` of the page before.
    after: Option<String>,
    limit: Option<u32>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SetPlan {
    plan: String,
    reason: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Reset {
    reason: Option<String>,
}

pub(super) async fn list(
    State(handles): State<Handles>,
    Query(query): Query<AccountsQuery>,
) -> Result<Json<Value>, Problem> {
    let limit = query.limit.unwrap_or(100).clamp(1, LARGEST_PAGE);
    let place = |after: &str| from_cursor(after).ok_or_else(|| Problem::after(after));
    let after = query.after.as_deref().map(place).transpose()?;
    let filter = AccountFilter { tenant: query.tenant, plan: query.plan };
    let rows = handles.store()?.accounts(&filter, &AccountPage { after, limit }).await?;
    // A full page may have a next one.
    let last = rows.last().filter(|_| rows.len() == limit as usize);
    let next = last.map(|row| to_cursor(&row.tenant, &row.user_id));
    Ok(Json(json!({"accounts": rows, "next": next})))
}

/// The place behind an account, as text that needs no escaping in a URL: its names as JSON, in hex.
fn to_cursor(tenant: &str, user: &str) -> String {
    json!([tenant, user]).to_string().bytes().map(|byte| format!("{byte:02x}")).collect()
}

fn from_cursor(cursor: &str) -> Option<AccountId> {
    let digits = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    let bytes = cursor.as_bytes().chunks(2).map(digits).collect::<Option<Vec<u8>>>()?;
    let (tenant, user): (String, String) = serde_json::from_slice(&bytes).ok()?;
    Some(AccountId { tenant: tenant.into(), user: user.into() })
}

pub(super) async fn show(State(handles): State<Handles>, Path(path): Path<Whose>) -> Result<Json<Value>, Problem> {
    let (store, id) = (handles.store()?, path.id());
    let row = store.account(&id).await?.ok_or(Problem::NoAccount)?;
    let resets = store.account_resets(&id, ENTRIES).await?;
    Ok(Json(json!({"account": row, "resets": resets})))
}

pub(super) async fn set_plan(
    State(handles): State<Handles>,
    Path(path): Path<Whose>,
    Extension(caller): Extension<Caller>,
    Body(wish): Body<SetPlan>,
) -> Result<Json<Value>, Problem> {
    let store = handles.store()?;
    let plan = store.plans().get(&wish.plan).ok_or_else(|| Problem::Choice {
        name: "plan",
        known: store.plans().iter().map(|plan| plan.name.to_string()).collect::<Vec<_>>().join(", "),
    })?;
    let row = store.set_plan(&path.id(), plan, &by(&caller, wish.reason.as_deref(), &handles)).await?;
    Ok(Json(json!({"account": row.ok_or(Problem::NoAccount)?})))
}

pub(super) async fn reset(
    State(handles): State<Handles>,
    Path(path): Path<Whose>,
    Extension(caller): Extension<Caller>,
    Body(wish): Body<Reset>,
) -> Result<Json<Value>, Problem> {
    let row = handles.store()?.reset(&path.id(), &by(&caller, wish.reason.as_deref(), &handles)).await?;
    Ok(Json(json!({"account": row.ok_or(Problem::NoAccount)?})))
}

/// Who does it: by the name and the id of the token.
fn by<'a>(caller: &Caller, reason: Option<&'a str>, handles: &Handles) -> Act<'a> {
    Act { actor: format!("token {} ({})", caller.name, caller.token), reason, at: (handles.now)() }
}

#[derive(Deserialize)]
pub(super) struct Whose {
    tenant: String,
    user: String,
}

impl Whose {
    fn id(&self) -> AccountId {
        AccountId { tenant: self.tenant.as_str().into(), user: self.user.as_str().into() }
    }
}
