//! Requests and calls as the pipeline hands them to the metrics.

use std::time::Duration;

use tacho_core::domain::call::{Call, Cost, Key, Tokens, Usage};
use tacho_core::domain::ids::{SpanId, TraceId};
use tacho_core::domain::record::{Record, Request, Totals};
use tacho_core::domain::time::Timestamp;

pub(crate) struct Asked<'a> {
    pub number: u64,
    pub at: Timestamp,
    pub service: &'a str,
    pub endpoint: &'a str,
    pub user: &'a str,
    pub status: u16,
    pub duration: Duration,
}

impl Asked<'_> {
    pub(crate) fn request(&self, calls: Vec<Call>) -> Request {
        let record = Record {
            key: key(self.number, 0, self.at),
            tenant: "default".into(),
            service: Some(self.service.into()),
            instance: None,
            user: Some(self.user.into()),
            agent: None,
            session: None,
            endpoint: Some(self.endpoint.into()),
            method: Some("POST".into()),
            status: Some(self.status),
            duration: self.duration,
            error: None,
            totals: Totals::of(&calls),
        };
        Request { record, calls }
    }

    /// A streamed chat that used so much.
    pub(crate) fn call(&self, nth: u64, provider: &str, model: &str, tokens: Tokens, cost: Cost) -> Call {
        Call {
            key: key(self.number, nth + 1, self.at),
            provider: Some(provider.into()),
            host: None,
            request_model: Some(model.into()),
            response_model: None,
            model: Some(model.into()),
            operation: Some("chat".into()),
            usage: Usage::Reported(tokens),
            cost,
            reported_cost: None,
            service_tier: None,
            answered_from_cache: false,
            streaming: true,
            duration: self.duration / 2,
            time_to_first_token: Some(self.duration / 10),
            error_type: None,
            dialect: "test".into(),
        }
    }
}

fn key(number: u64, span: u64, at: Timestamp) -> Key {
    Key {
        started_at: at,
        trace_id: TraceId::from_bytes(&u128::from(number + 1).to_be_bytes()).expect("not zero"),
        span_id: SpanId::from_bytes(&(span + 1).to_be_bytes()).expect("not zero"),
    }
}
