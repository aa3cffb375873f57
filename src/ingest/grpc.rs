//! OTLP over gRPC. Messages are taken apart here and not by tonic, which would hold each of them whole.

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::routing::any;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, header};
use http_body_util::{BodyExt, Full};
use tonic::metadata::MetadataValue;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};
use tower_layer::Layer as _;

use super::body::{Parts, Refusal};
use super::inflate::Encoding;
use super::{BODY_TIMEOUT, Intake, Protocol, RETRY_AFTER, Refused, Taken, answer};
use crate::auth::{Guard, Need, Role};

const TRACES: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";
const METRICS: &str = "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export";
const LOGS: &str = "/opentelemetry.proto.collector.logs.v1.LogsService/Export";

/// What is served.
pub fn router(intake: Intake, guard: &Guard) -> Router {
    Router::new()
        .route(TRACES, any(traces))
        .route(METRICS, any(|state, request| ignored(state, request, "metrics")))
        .route(LOGS, any(|state, request| ignored(state, request, "logs")))
        .layer(guard.before(Need::Role(Role::Ingest)))
        .fallback_service(guard.before(Need::Nothing).layer(any(unknown)))
        .with_state(intake)
}

async fn unknown() -> Response<Body> {
    Status::unimplemented("not an OTLP service").into_http()
}

async fn traces(State(intake): State<Intake>, request: Request<Body>) -> Response<Body> {
    match take(&intake, request).await {
        Ok(taken) => success(&taken),
        Err(refusal) => {
            intake.refuse(Protocol::Grpc, &refusal);
            status(&refusal).into_http()
        }
    }
}

async fn ignored(State(intake): State<Intake>, request: Request<Body>, signal: &'static str) -> Response<Body> {
    let passed = async {
        let (message, _) = Parts::message(intake.metered(request.into_body())).await?;
        message.pass(&intake).await
    };
    match tokio::time::timeout(BODY_TIMEOUT, passed).await.unwrap_or(Err(Refusal::Slow)) {
        Ok(()) => {
            intake.ignore(signal);
            success(&Taken::default())
        }
        Err(refusal) => status(&refusal).into_http(),
    }
}

async fn take(intake: &Intake, request: Request<Body>) -> Result<Taken, Refusal> {
    // The slot comes before the body is read, so that refusing costs nothing.
    let slot = intake.slot().await?;
    let declared = encoding(request.headers())?;
    let received = async {
        let (message, is_compressed) = Parts::message(intake.metered(request.into_body())).await?;
        let encoding = match (is_compressed, declared) {
            (false, _) => Encoding::Identity,
            (true, Some(encoding)) => encoding,
            (true, None) => return Err(Refusal::Encoding("a compressed message without grpc-encoding".to_owned())),
        };
        message.receive(intake, Protocol::Grpc, encoding).await
    };
    let received = tokio::time::timeout(BODY_TIMEOUT, received).await.unwrap_or(Err(Refusal::Slow))?;
    Ok(intake.take(slot, Protocol::Grpc, received).await?)
}

const ENCODING: &str = "grpc-encoding";
const ACCEPTED: &str = "gzip,deflate,zstd";

/// `None` where none is declared.
fn encoding(headers: &HeaderMap) -> Result<Option<Encoding>, Refusal> {
    let Some(name) = headers.get(ENCODING) else { return Ok(None) };
    match name.to_str().ok().and_then(Encoding::parse) {
        Some(Encoding::Identity) => Ok(None),
        Some(encoding) => Ok(Some(encoding)),
        None => Err(Refusal::Encoding(format!("{ENCODING} is none of {ACCEPTED}"))),
    }
}

fn status(refusal: &Refusal) -> Status {
    let message = refusal.to_string();
    match refusal {
        Refusal::Refused(Refused::NotKept(_)) => {
            Status::with_error_details(Code::Unavailable, message, ErrorDetails::with_retry_info(Some(RETRY_AFTER)))
        }
        Refusal::Refused(Refused::Malformed(_)) => Status::invalid_argument(message),
        // Not OUT_OF_RANGE, which OTLP tells clients to send again: it would never fit.
        Refusal::TooLarge { .. } => Status::resource_exhausted(message),
        Refusal::Encoding(_) => {
            let mut status = Status::unimplemented(message);
            status.metadata_mut().insert("grpc-accept-encoding", MetadataValue::from_static(ACCEPTED));
            status
        }
        Refusal::Inflate(_) | Refusal::Broken => Status::internal(message),
        Refusal::Slow => Status::deadline_exceeded(message),
    }
}

/// One message, then the status.
fn success(taken: &Taken) -> Response<Body> {
    let message = answer::success_protobuf(taken);
    let length = u32::try_from(message.len()).expect("an answer names a few spans");
    let frame = [&[0], &length.to_be_bytes()[..], &message].concat();
    let trailers =
        HeaderMap::from_iter([(http::HeaderName::from_static("grpc-status"), HeaderValue::from_static("0"))]);
    let body = Full::new(Bytes::from(frame)).with_trailers(std::future::ready(Some(Ok(trailers))));
    let mut response = Response::new(Body::new(body));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    response
}
