//! Why a question is not answered, as the asker is told.

use axum::extract::rejection::{JsonRejection, PathRejection, QueryRejection};
use axum::response::{IntoResponse, Response};
use http::StatusCode;

use super::Handles;
use crate::auth::problem;
use crate::limit::Reservation;
use crate::persist::{FeedError, PersistError, Store};

#[derive(Debug, thiserror::Error)]
pub(super) enum Problem {
    #[error("`{name}` is neither a date nor a time: `{value}`")]
    Time { name: &'static str, value: String },
    #[error("`{name}` is not one of {known}")]
    Choice { name: &'static str, known: String },
    #[error("there is no such account")]
    NoAccount,
    #[error("nothing is known of this trace: it never came, or it is not quiet yet")]
    NoTrace,
    #[error("{0}")]
    Body(#[from] JsonRejection),
    #[error("{0}")]
    Query(#[from] QueryRejection),
    #[error("{0}")]
    Path(#[from] PathRejection),
    #[error("the body did not come in time")]
    Slow,
    #[error("`{name}` is not {wanted}: `{value}`")]
    Malformed { name: &'static str, wanted: &'static str, value: String },
    #[error("there is no reservation {0}: it was settled, released, or waited too long")]
    NoReservation(Reservation),
    #[error("the database cannot be read now")]
    Database(#[from] PersistError),
    #[error(
        "the database was restored or has failed over since this cursor was made (epoch {cursor}, now {database}): \
         read again without `after`, or with `since` a day before that"
    )]
    Epoch { cursor: i64, database: i64 },
    #[error("the database could not be opened yet")]
    NotOpen,
    #[error("the records could not be written as CSV")]
    Csv,
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = match &self {
            Self::Time { .. } | Self::Choice { .. } | Self::Query(_) | Self::Malformed { .. } => {
                StatusCode::BAD_REQUEST
            }
            Self::Body(rejection) => rejection.status(),
            Self::Path(rejection) => rejection.status(),
            Self::Slow => StatusCode::REQUEST_TIMEOUT,
            Self::Epoch { .. } => StatusCode::GONE,
            Self::NoAccount | Self::NoTrace | Self::NoReservation(_) => StatusCode::NOT_FOUND,
            Self::Database(_) | Self::NotOpen => StatusCode::SERVICE_UNAVAILABLE,
            Self::Csv => StatusCode::INTERNAL_SERVER_ERROR,
        };
        problem(status, &self.to_string())
    }
}

impl From<FeedError> for Problem {
    fn from(error: FeedError) -> Self {
        match error {
            FeedError::Persist(error) => Self::Database(error),
            FeedError::Epoch { cursor, database } => Self::Epoch { cursor, database },
            FeedError::Foreign(_) => Self::Malformed {
                name: "after",
                wanted: "a cursor of this feed",
                value: "a cursor of another".to_owned(),
            },
        }
    }
}

impl Problem {
    pub(super) fn after(value: &str) -> Self {
        Self::Malformed { name: "after", wanted: "the `next` of a page before", value: value.to_owned() }
    }
}

impl Handles {
    pub(super) fn store(&self) -> Result<&Store, Problem> {
        self.store.get().ok_or(Problem::NotOpen)
    }
}
