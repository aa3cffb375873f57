//! OTLP over gRPC. The messages stay bytes: the walk reads them, tonic does not decode.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::routing::any;
use bytes::{Buf, BufMut, Bytes};
use http_body_util::BodyExt;
use tonic::body::Body;
use tonic::codec::{Codec, CompressionEncoding, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::server::{Grpc, UnaryService};
use tonic::{Code, Request, Response, Status};
use tonic_types::{ErrorDetails, StatusExt};
use tower_layer::Layer as _;

use super::coming::Unread;
use super::{BODY_TIMEOUT, Intake, Protocol, RETRY_AFTER, Refused, Rejected, Slot, answer};
use crate::auth::{Guard, Need, Role};

const TRACES: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";
const METRICS: &str = "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export";
const LOGS: &str = "/opentelemetry.proto.collector.logs.v1.LogsService/Export";

/// What is served.
pub fn router(intake: Intake, guard: &Guard) -> axum::Router {
    let traces = Export { intake: intake.clone(), signal: Signal::Traces };
    let metrics = Export { intake: intake.clone(), signal: Signal::Ignored("metrics") };
    let logs = Export { intake, signal: Signal::Ignored("logs") };
    axum::Router::new()
        .route_service(TRACES, traces)
        .route_service(METRICS, metrics)
        .route_service(LOGS, logs)
        .layer(guard.before(Need::Role(Role::Ingest)))
        .fallback_service(guard.before(Need::Nothing).layer(any(unknown)))
}

async fn unknown() -> http::Response<axum::body::Body> {
    Status::unimplemented("not an OTLP service").into_http()
}

#[derive(Clone, Copy)]
enum Signal {
    Traces,
    Ignored(&'static str),
}

#[derive(Clone)]
struct Export {
    intake: Intake,
    signal: Signal,
}

type Answer = Pin<Box<dyn Future<Output = Result<http::Response<Body>, Infallible>> + Send>>;

impl tower_service::Service<http::Request<axum::body::Body>> for Export {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Answer;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<axum::body::Body>) -> Answer {
        let (intake, signal) = (self.intake.clone(), self.signal);
        Box::pin(async move {
            let method = match signal {
                // The slot comes before the body is read, so that refusing costs nothing.
                Signal::Traces => match intake.slot().await {
                    Ok(slot) => Method::Take(slot),
                    Err(why) => {
                        intake.refuse(Protocol::Grpc, why.label());
                        return Ok(status(&why.into()).into_http());
                    }
                },
                Signal::Ignored(signal) => Method::Ignore(signal),
            };
            let limit = intake.max_body;
            let mut grpc = Grpc::new(Raw)
                .accept_compressed(CompressionEncoding::Gzip)
                .accept_compressed(CompressionEncoding::Deflate)
                .accept_compressed(CompressionEncoding::Zstd)
                .max_decoding_message_size(limit);
            let unread = |unread| match unread {
                Unread::NotKept(why) => status(&why.into()),
                Unread::Broken(error) => Status::from_error(error.into_inner()),
            };
            let request = request.map(|body| intake.metered(body).map_err(unread));
            let answered =
                tokio::time::timeout(BODY_TIMEOUT, grpc.unary(Call { intake: intake.clone(), method }, request));
            let mut response = answered
                .await
                .unwrap_or_else(|_| Status::deadline_exceeded("the body did not come in time").into_http());
            refuse_for_good(&mut response);
            if let Some(reason) = refused(&response) {
                intake.refuse(Protocol::Grpc, reason);
            }
            Ok(response)
        })
    }
}

/// tonic answers OUT_OF_RANGE to a message over the limit, which OTLP tells clients to send again. It would never fit.
fn refuse_for_good(response: &mut http::Response<Body>) {
    let out_of_range = i32::from(Code::OutOfRange).to_string();
    if let Some(code) = response.headers_mut().get_mut("grpc-status")
        && code.as_bytes() == out_of_range.as_bytes()
    {
        *code = i32::from(Code::ResourceExhausted).into();
    }
}

/// Metric label of an answer that is no success. A success has its status in the trailers.
fn refused(response: &http::Response<Body>) -> Option<&'static str> {
    match Status::from_header_map(response.headers())?.code() {
        Code::Ok => None,
        Code::Unavailable => Some("overloaded"),
        Code::InvalidArgument => Some("malformed"),
        Code::ResourceExhausted => Some("too_large"),
        Code::Unimplemented | Code::Internal => Some("encoding"),
        _ => Some("incomplete"),
    }
}

enum Method {
    Take(Slot),
    Ignore(&'static str),
    Answered,
}

struct Call {
    intake: Intake,
    method: Method,
}

impl UnaryService<Bytes> for Call {
    type Response = Vec<u8>;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Vec<u8>>, Status>> + Send>>;

    fn call(&mut self, request: Request<Bytes>) -> Self::Future {
        let (intake, body) = (self.intake.clone(), request.into_inner());
        match std::mem::replace(&mut self.method, Method::Answered) {
            Method::Take(slot) => Box::pin(async move {
                match intake.take(slot, Protocol::Grpc, body).await {
                    Ok(rejected) => Ok(Response::new(answer::success_protobuf(&rejected))),
                    Err(refused) => Err(status(&refused)),
                }
            }),
            Method::Ignore(signal) => {
                intake.ignore(signal);
                Box::pin(std::future::ready(Ok(Response::new(answer::success_protobuf(&Rejected::default())))))
            }
            Method::Answered => Box::pin(std::future::ready(Err(Status::internal("a call is answered once")))),
        }
    }
}

fn status(refused: &Refused) -> Status {
    match refused {
        Refused::Malformed(_) => Status::invalid_argument(refused.to_string()),
        Refused::NotKept(_) => Status::with_error_details(
            Code::Unavailable,
            refused.to_string(),
            ErrorDetails::with_retry_info(Some(RETRY_AFTER)),
        ),
    }
}

/// Messages as bytes in both directions.
#[derive(Clone, Copy)]
struct Raw;

impl Codec for Raw {
    type Encode = Vec<u8>;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, item: Vec<u8>, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put_slice(&item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(buffer.copy_to_bytes(buffer.remaining())))
    }
}
