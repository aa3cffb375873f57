//! Why a request does not come in, and how its sender is told.

use std::time::Duration;

use axum::response::Response;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use super::problem::problem;
use super::{Need, Role};

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refused {
    #[error("the host that the request names is none of this Tacho's: use its address, or add the name to auth.hosts")]
    Host,
    #[error("a page in a browser may not make requests here")]
    CrossSite,
    #[error("this listener takes only clients with a certificate of its authority (tls.client_ca_file)")]
    Certificate,
    #[error("this needs a token of the role {}: send it as `Authorization: Bearer TOKEN`", .0.label())]
    NoToken(Role),
    #[error("the token is none of this Tacho's")]
    WrongToken,
    #[error("the token has expired")]
    ExpiredToken,
    #[error("the token's role is {}, and this needs the role {}", has.label(), needs.label())]
    WrongRole { has: Role, needs: Role },
    #[error("the token has made too many requests in this second (auth.requests_per_second); try again")]
    TooMany,
}

/// When one that asked too often may come again.
const RETRY_AFTER: Duration = Duration::from_secs(1);

impl Refused {
    /// Metric label.
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::CrossSite => "cross_site",
            Self::Certificate => "no_certificate",
            Self::NoToken(_) => "no_token",
            Self::WrongToken => "wrong_token",
            Self::ExpiredToken => "expired_token",
            Self::WrongRole { .. } => "wrong_role",
            Self::TooMany => "too_many",
        }
    }

    fn status(self) -> StatusCode {
        match self {
            Self::Host => StatusCode::MISDIRECTED_REQUEST,
            Self::CrossSite | Self::Certificate | Self::WrongRole { .. } => StatusCode::FORBIDDEN,
            Self::NoToken(_) | Self::WrongToken | Self::ExpiredToken => StatusCode::UNAUTHORIZED,
            Self::TooMany => StatusCode::TOO_MANY_REQUESTS,
        }
    }

    /// As gRPC where the request is gRPC, else as a problem.
    pub(super) fn respond(self, request: &HeaderMap) -> Response {
        let kind = request.get(header::CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes);
        if kind.starts_with(b"application/grpc") { self.as_grpc() } else { self.as_http() }
    }

    fn as_http(self) -> Response {
        let mut response = problem(self.status(), &self.to_string());
        let headers = response.headers_mut();
        match self {
            // By RFC 6750.
            Self::NoToken(_) => drop(headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"))),
            Self::WrongToken | Self::ExpiredToken => {
                let value = HeaderValue::from_static("Bearer error=\"invalid_token\"");
                headers.insert(header::WWW_AUTHENTICATE, value);
            }
            Self::TooMany => drop(headers.insert(header::RETRY_AFTER, RETRY_AFTER.as_secs().into())),
            _ => {}
        }
        response
    }

    fn as_grpc(self) -> Response {
        let code = match self.status() {
            StatusCode::UNAUTHORIZED => Code::Unauthenticated,
            // What OTLP tells clients to send again.
            StatusCode::TOO_MANY_REQUESTS => Code::Unavailable,
            _ => Code::PermissionDenied,
        };
        let details = match self {
            Self::TooMany => ErrorDetails::with_retry_info(Some(RETRY_AFTER)),
            _ => ErrorDetails::new(),
        };
        Status::with_error_details(code, self.to_string(), details).into_http()
    }
}

impl Need {
    /// Who asks too often or without a token is told what would do.
    pub(super) fn role(self) -> Option<Role> {
        match self {
            Self::Nothing => None,
            Self::Metrics => Some(Role::Read),
            Self::Role(role) => Some(role),
        }
    }
}
