//! OTLP over HTTP/1.1: `/v1/traces` in protobuf and JSON; `/v1/metrics` and `/v1/logs` are accepted and passed over.

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use axum::routing::post;
use http::{HeaderMap, HeaderValue, Request, StatusCode, header};
use tonic::Code;

use super::body::{Parts, Refusal};
use super::inflate::Encoding;
use super::{BODY_TIMEOUT, Intake, Protocol, RETRY_AFTER, Refused, Taken, answer};
use crate::auth::{Guard, Need, Role, problem, wrong_method};

/// What is served. Errors of OTLP have the shape that OTLP says, all others are problems.
pub fn router(intake: Intake, guard: &Guard) -> Router {
    Router::new()
        .route("/v1/traces", post(traces))
        .route("/v1/metrics", post(|state, request| ignored(state, request, "metrics")))
        .route("/v1/logs", post(|state, request| ignored(state, request, "logs")))
        .method_not_allowed_fallback(wrong_method)
        .route_layer(guard.before(Need::Role(Role::Ingest)))
        .fallback_service(guard.not_found())
        .with_state(intake)
}

async fn traces(State(intake): State<Intake>, request: Request<Body>) -> Response {
    let Some(protocol) = protocol(request.headers()) else { return unsupported_type() };
    let answered = take(&intake, protocol, request).await;
    let mut response = match &answered {
        Ok(taken) => success(protocol, taken),
        Err(refusal) => {
            intake.refuse(protocol, refusal);
            failure(protocol, refusal)
        }
    };
    if let Err(Refusal::Refused(Refused::NotKept(_))) = answered {
        response.headers_mut().insert(header::RETRY_AFTER, RETRY_AFTER.as_secs().into());
    }
    response
}

async fn ignored(State(intake): State<Intake>, request: Request<Body>, signal: &'static str) -> Response {
    let Some(protocol) = protocol(request.headers()) else { return unsupported_type() };
    // Read to its end, so that the connection stays usable.
    let passed = Parts::new(intake.metered(request.into_body())).pass(&intake);
    if let Err(refusal) = tokio::time::timeout(BODY_TIMEOUT, passed).await.unwrap_or(Err(Refusal::Slow)) {
        return failure(protocol, &refusal);
    }
    intake.ignore(signal);
    success(protocol, &Taken::default())
}

async fn take(intake: &Intake, protocol: Protocol, request: Request<Body>) -> Result<Taken, Refusal> {
    let encoding = encoding(request.headers()).ok_or_else(|| Refusal::Encoding(UNKNOWN_ENCODING.to_owned()))?;
    // The slot comes before the body is read, so that refusing costs nothing.
    let slot = intake.slot().await?;
    let received = Parts::new(intake.metered(request.into_body())).receive(intake, protocol, encoding);
    let received = tokio::time::timeout(BODY_TIMEOUT, received).await.unwrap_or(Err(Refusal::Slow))?;
    Ok(intake.take(slot, protocol, received).await?)
}

const UNKNOWN_ENCODING: &str = "content encoding is none of gzip, deflate, zstd, identity";

fn protocol(headers: &HeaderMap) -> Option<Protocol> {
    let content_type = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
    match content_type.split(';').next()?.trim().to_ascii_lowercase().as_str() {
        "application/x-protobuf" | "application/protobuf" => Some(Protocol::HttpProtobuf),
        "application/json" => Some(Protocol::HttpJson),
        _ => None,
    }
}

/// Absent means identity; a header that comes twice is a list, which we do not read.
fn encoding(headers: &HeaderMap) -> Option<Encoding> {
    let mut values = headers.get_all(header::CONTENT_ENCODING).iter();
    match (values.next(), values.next()) {
        (None, _) => Some(Encoding::Identity),
        (Some(value), None) => Encoding::parse(value.to_str().ok()?),
        (Some(_), Some(_)) => None,
    }
}

fn success(protocol: Protocol, taken: &Taken) -> Response {
    match protocol {
        Protocol::HttpJson => respond(StatusCode::OK, JSON, answer::success_json(taken)),
        Protocol::HttpProtobuf | Protocol::Grpc => respond(StatusCode::OK, PROTOBUF, answer::success_protobuf(taken)),
    }
}

fn failure(protocol: Protocol, refusal: &Refusal) -> Response {
    let (status, code) = match refusal {
        Refusal::Refused(Refused::NotKept(_)) => (StatusCode::SERVICE_UNAVAILABLE, Code::Unavailable),
        Refusal::TooLarge { .. } => (StatusCode::PAYLOAD_TOO_LARGE, Code::ResourceExhausted),
        Refusal::Slow => (StatusCode::REQUEST_TIMEOUT, Code::DeadlineExceeded),
        Refusal::Encoding(_) => (StatusCode::UNSUPPORTED_MEDIA_TYPE, Code::InvalidArgument),
        Refusal::Refused(Refused::Malformed(_)) | Refusal::Inflate(_) | Refusal::Broken => {
            (StatusCode::BAD_REQUEST, Code::InvalidArgument)
        }
    };
    let message = refusal.to_string();
    match protocol {
        Protocol::HttpJson => respond(status, JSON, answer::error_json(code, &message)),
        Protocol::HttpProtobuf | Protocol::Grpc => respond(status, PROTOBUF, answer::error_protobuf(code, &message)),
    }
}

fn unsupported_type() -> Response {
    let detail = "content type is neither application/x-protobuf nor application/json";
    problem(StatusCode::UNSUPPORTED_MEDIA_TYPE, detail)
}

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const PROTOBUF: HeaderValue = HeaderValue::from_static("application/x-protobuf");

fn respond(status: StatusCode, content_type: HeaderValue, body: Vec<u8>) -> Response {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, content_type);
    response
}
