//! `/v1/usage/changes`: the feed, for whoever keeps a copy of the records.

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};

use super::extract::Query;
use super::problem::Problem;
use super::{Handles, LARGEST_PAGE};
use crate::persist::{CallRow, Cursor, RecordChange, RecordRow, RecordState};
use tacho_core::domain::time::Timestamp;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ChangesQuery {
    /// `next` of the page before.
    after: Option<String>,
    /// In place of `after`: where the first change of a record that started then or later is.
    since: Option<String>,
    limit: Option<u32>,
}

#[derive(Serialize)]
pub(super) struct Changes {
    changes: Vec<Change>,
    next: String,
}

#[derive(Serialize)]
struct Change {
    state: &'static str,
    revision: i64,
    record: Shown,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Shown {
    Live {
        #[serde(flatten)]
        record: Box<RecordRow>,
        calls: Vec<CallRow>,
    },
    Gone {
        started_at: String,
        trace_id: String,
        span_id: String,
        revision: i64,
        change_seq: i64,
        updated_at: String,
    },
}

pub(super) async fn changes(
    State(handles): State<Handles>,
    Query(query): Query<ChangesQuery>,
) -> Result<Json<Changes>, Problem> {
    let store = handles.store()?;
    let after = match (&query.after, &query.since) {
        (Some(_), Some(_)) => return Err(Problem::Choice { name: "since", known: "after, since: either".to_owned() }),
        (Some(after), None) => Some(after.parse::<Cursor>().map_err(|_| Problem::after(after))?),
        (None, Some(since)) => {
            let problem = || Problem::Time { name: "since", value: since.clone() };
            Some(store.feed_since(Timestamp::parse(since).ok_or_else(problem)?).await?)
        }
        (None, None) => None,
    };
    let limit = query.limit.unwrap_or(100).clamp(1, LARGEST_PAGE);
    let page = store.changes(after.as_ref(), None, limit as usize).await?;
    let changes = page.rows.into_iter().map(Change::from).collect();
    Ok(Json(Changes { changes, next: page.next.to_string() }))
}

impl From<RecordChange> for Change {
    fn from(change: RecordChange) -> Self {
        let RecordChange { key, revision, change_seq, changed_at, state } = change;
        let (state, record) = match state {
            RecordState::Live(record, calls) => ("live", Shown::Live { record, calls }),
            RecordState::Gone => {
                let record = Shown::Gone {
                    started_at: key.started_at.to_string(),
                    trace_id: key.trace_id.to_string(),
                    span_id: key.span_id.to_string(),
                    revision,
                    change_seq,
                    updated_at: changed_at.to_string(),
                };
                ("gone", record)
            }
        };
        Self { state, revision, record }
    }
}
