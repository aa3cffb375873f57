//! The captured bodies, and the same spans cut into bodies of their own.

use std::path::{Path, PathBuf};

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans};
use prost::Message;
use serde_json::Value;

/// One body as it came, with the way it came.
#[derive(Clone)]
pub struct Body {
    pub transport: Transport,
    pub bytes: Vec<u8>,
}

#[derive(Clone, Copy, PartialEq)]
pub enum Transport {
    Grpc,
    Protobuf,
    Json,
}

pub struct Capture {
    pub name: String,
    /// In order of arrival.
    pub bodies: Vec<Body>,
    pub expected: Value,
}

pub fn all() -> Vec<Capture> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/captures");
    let mut folders: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    folders.sort();
    assert!(folders.len() >= 14, "the captures are not here");
    folders.iter().map(|folder| read(folder)).collect()
}

fn read(folder: &Path) -> Capture {
    let index = std::fs::read_to_string(folder.join("index.jsonl")).unwrap();
    let lines = index.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let text = |line: &Value, name: &str| line[name].as_str().unwrap().to_owned();
    let traces = lines.filter(|line| line["path"].as_str().unwrap().contains("race"));
    let body = |line: Value| {
        let (file, path) = (text(&line, "file"), text(&line, "path"));
        let transport = match (file.ends_with(".json"), path.starts_with("/v1/")) {
            (true, _) => Transport::Json,
            (false, true) => Transport::Protobuf,
            (false, false) => Transport::Grpc,
        };
        Body { transport, bytes: std::fs::read(folder.join(file)).unwrap() }
    };
    Capture {
        name: folder.file_name().unwrap().to_string_lossy().into_owned(),
        bodies: traces.map(body).collect(),
        expected: serde_json::from_slice(&std::fs::read(folder.join("expected.json")).unwrap()).unwrap(),
    }
}

impl Body {
    /// Every span in a body of its own.
    pub fn singles(&self) -> Vec<Self> {
        let bodies = match self.transport {
            Transport::Json => singles_of_json(&serde_json::from_slice(&self.bytes).unwrap()),
            Transport::Grpc | Transport::Protobuf => singles_of_protobuf(&self.bytes),
        };
        bodies.into_iter().map(|bytes| Self { transport: self.transport, bytes }).collect()
    }
}

fn singles_of_protobuf(bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut singles = Vec::new();
    for resource in ExportTraceServiceRequest::decode(bytes).unwrap().resource_spans {
        for scope in &resource.scope_spans {
            for span in &scope.spans {
                let scope_spans = vec![ScopeSpans { spans: vec![span.clone()], ..scope.clone() }];
                let resource_spans = vec![ResourceSpans { scope_spans, ..resource.clone() }];
                singles.push(ExportTraceServiceRequest { resource_spans }.encode_to_vec());
            }
        }
    }
    singles
}

fn singles_of_json(body: &Value) -> Vec<Vec<u8>> {
    let mut singles = Vec::new();
    for resource in body["resourceSpans"].as_array().unwrap() {
        for scope in resource["scopeSpans"].as_array().unwrap() {
            for span in scope["spans"].as_array().unwrap() {
                let single = serde_json::json!({"resourceSpans": [{
                    "resource": resource["resource"],
                    "scopeSpans": [{"scope": scope["scope"], "spans": [span]}],
                }]});
                singles.push(single.to_string().into_bytes());
            }
        }
    }
    singles
}
