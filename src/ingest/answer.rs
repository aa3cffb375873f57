//! What an OTLP client is answered, in protobuf and JSON.

use prost::Message;

use super::Taken;

/// `ExportTraceServiceResponse`; the messages of metrics and logs have the same shape.
#[derive(Clone, PartialEq, Message)]
struct ExportResponse {
    #[prost(message, optional, tag = "1")]
    partial_success: Option<PartialSuccess>,
}

#[derive(Clone, PartialEq, Message)]
struct PartialSuccess {
    #[prost(int64, tag = "1")]
    rejected_spans: i64,
    #[prost(string, tag = "2")]
    error_message: String,
}

/// `google.rpc.Status`, the body of an OTLP/HTTP error.
#[derive(Clone, PartialEq, Message)]
struct RpcStatus {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
}

/// A message without rejected spans is a warning to the sender: values of spans that were taken could not be read.
pub(super) fn success_protobuf(taken: &Taken) -> Vec<u8> {
    let error_message = taken.message();
    let partial_success = (!error_message.is_empty()).then(|| PartialSuccess {
        rejected_spans: i64::try_from(taken.rejected.count).unwrap_or(i64::MAX),
        error_message,
    });
    ExportResponse { partial_success }.encode_to_vec()
}

pub(super) fn success_json(taken: &Taken) -> Vec<u8> {
    let message = taken.message();
    let body = if message.is_empty() {
        serde_json::json!({})
    } else {
        // A 64-bit number is a text in protobuf's JSON.
        serde_json::json!({"partialSuccess": {
            "rejectedSpans": taken.rejected.count.to_string(),
            "errorMessage": message,
        }})
    };
    body.to_string().into_bytes()
}

pub(super) fn error_protobuf(code: tonic::Code, message: &str) -> Vec<u8> {
    RpcStatus { code: code.into(), message: message.to_owned() }.encode_to_vec()
}

pub(super) fn error_json(code: tonic::Code, message: &str) -> Vec<u8> {
    serde_json::json!({"code": i32::from(code), "message": message}).to_string().into_bytes()
}
