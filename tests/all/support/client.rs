//! Clients that send what they are told, byte for byte, and put each answer on one line.

use std::borrow::Cow;
use std::net::SocketAddr;

use bytes::Bytes;
use http::HeaderMap;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use prost::Message;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tonic_types::StatusExt;

pub(crate) const PROTOBUF: &str = "application/x-protobuf";
pub(crate) const JSON: &str = "application/json";
pub(crate) const TRACES: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";

/// One HTTP request.
#[derive(Clone)]
pub(crate) struct Ask {
    method: &'static str,
    path: Cow<'static, str>,
    headers: Vec<(&'static str, Cow<'static, str>)>,
    body: Vec<u8>,
}

pub(crate) fn post(content_type: &'static str, body: impl Into<Vec<u8>>) -> Ask {
    Ask {
        method: "POST",
        path: "/v1/traces".into(),
        headers: vec![("content-type", content_type.into())],
        body: body.into(),
    }
}

impl Ask {
    pub(crate) fn method(mut self, method: &'static str) -> Self {
        self.method = method;
        self
    }

    pub(crate) fn path(mut self, path: impl Into<Cow<'static, str>>) -> Self {
        self.path = path.into();
        self
    }

    pub(crate) fn encoding(mut self, encoding: &'static str) -> Self {
        self.headers.push(("content-encoding", encoding.into()));
        self
    }

    pub(crate) fn header(mut self, name: &'static str, value: impl Into<Cow<'static, str>>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    pub(crate) fn token(self, token: &str) -> Self {
        self.header("authorization", format!("Bearer {token}"))
    }

    pub(crate) fn without_headers(mut self) -> Self {
        self.headers.clear();
        self
    }

    /// Sends it over a connection of its own.
    pub(crate) async fn send(&self, address: SocketAddr) -> Answer {
        let connection = TcpStream::connect(address).await.unwrap();
        self.exchange(connection, address).await.unwrap_or_else(|why| panic!("no answer; {why}"))
    }

    /// Sends it over this connection, and reads to its end; what went wrong where no whole answer came.
    #[allow(dead_code, reason = "benches take this file too")]
    pub(crate) async fn exchange(
        &self,
        mut connection: impl AsyncRead + AsyncWrite + Unpin,
        address: SocketAddr,
    ) -> Result<Answer, String> {
        let mut head = format!("{} {} HTTP/1.1\r\nconnection: close\r\n", self.method, self.path);
        if !self.headers.iter().any(|(name, _)| *name == "host") {
            head += &format!("host: {address}\r\n");
        }
        for (name, value) in &self.headers {
            head += &format!("{name}: {value}\r\n");
        }
        head += &format!("content-length: {}\r\n\r\n", self.body.len());
        // An early answer may close the connection before the body is out.
        let sent = match connection.write_all(head.as_bytes()).await {
            Ok(()) => connection.write_all(&self.body).await,
            failed => failed,
        };
        let mut answer = Vec::new();
        let read = connection.read_to_end(&mut answer).await;
        Answer::parse(&answer).ok_or_else(|| format!("sent: {sent:?}, read: {read:?}"))
    }
}

/// What came back.
pub(crate) struct Answer {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

/// `google.rpc.Status`, the body of an error.
#[derive(Clone, PartialEq, Message)]
struct RpcStatus {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
}

impl Answer {
    fn parse(bytes: &[u8]) -> Option<Self> {
        let end = bytes.windows(4).position(|four| four == b"\r\n\r\n")?;
        let mut lines = std::str::from_utf8(&bytes[..end]).ok()?.split("\r\n");
        let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
        let header = |line: &str| line.split_once(": ").map(|(name, value)| (name.to_lowercase(), value.to_owned()));
        let mut answer = Self { status, headers: lines.filter_map(header).collect(), body: bytes[end + 4..].to_vec() };
        if answer.header("transfer-encoding") == Some("chunked") {
            answer.body = unchunked(&answer.body)?;
            return Some(answer);
        }
        let length = answer.header("content-length").map_or(0, |length| length.parse().unwrap());
        (answer.body.len() == length).then_some(answer)
    }

    pub(crate) fn status(&self) -> u16 {
        self.status
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// Status, what the body says, and the headers that tell the client what to do.
    pub(crate) fn line(&self) -> String {
        let said = match self.header("content-type") {
            Some(PROTOBUF) if self.status == 200 => said(&ExportTraceServiceResponse::decode(&*self.body).unwrap()),
            Some(PROTOBUF) => {
                let status = RpcStatus::decode(&*self.body).unwrap();
                format!(" {:?}: {}", tonic::Code::from(status.code), status.message)
            }
            Some(JSON) => said_json(&serde_json::from_slice(&self.body).unwrap()),
            _ => String::from_utf8_lossy(&self.body).into_owned(),
        };
        let told =
            ["allow", "retry-after"].into_iter().filter_map(|name| Some(format!(" [{name}: {}]", self.header(name)?)));
        format!("{}{said}{}", self.status, told.collect::<String>())
    }
}

/// `None` where the last chunk is missing.
fn unchunked(mut rest: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let line = rest.windows(2).position(|two| two == b"\r\n")?;
        let length = usize::from_str_radix(std::str::from_utf8(&rest[..line]).ok()?, 16).ok()?;
        let chunk = rest.get(line + 2..line + 2 + length)?;
        if length == 0 {
            return Some(body);
        }
        body.extend_from_slice(chunk);
        rest = rest.get(line + length + 4..)?;
    }
}

fn said(response: &ExportTraceServiceResponse) -> String {
    response
        .partial_success
        .as_ref()
        .map_or(String::new(), |partial| format!(" rejected {}: {}", partial.rejected_spans, partial.error_message))
}

fn said_json(body: &serde_json::Value) -> String {
    if let Some(code) = body["code"].as_i64() {
        let code = tonic::Code::from(i32::try_from(code).unwrap());
        return format!(" {code:?}: {}", body["message"].as_str().unwrap());
    }
    let partial = &body["partialSuccess"];
    match partial["rejectedSpans"].as_str() {
        Some(count) => format!(" rejected {count}: {}", partial["errorMessage"].as_str().unwrap()),
        None => String::new(),
    }
}

/// One gRPC call.
#[derive(Clone)]
pub(crate) struct Call {
    path: &'static str,
    encoding: Option<&'static str>,
    headers: Vec<(&'static str, Cow<'static, str>)>,
    frames: Bytes,
}

pub(crate) fn call(message: impl AsRef<[u8]>) -> Call {
    Call { path: TRACES, encoding: None, headers: vec![], frames: frame(0, message.as_ref()).into() }
}

/// A call whose message says that it is compressed.
pub(crate) fn compressed(encoding: &'static str, message: impl AsRef<[u8]>) -> Call {
    Call { path: TRACES, encoding: Some(encoding), headers: vec![], frames: frame(1, message.as_ref()).into() }
}

fn frame(flag: u8, message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len()).unwrap().to_be_bytes();
    [&[flag], &length[..], message].concat()
}

impl Call {
    pub(crate) fn path(mut self, path: &'static str) -> Self {
        self.path = path;
        self
    }

    #[allow(dead_code, reason = "benches take this file too")]
    pub(crate) fn header(mut self, name: &'static str, value: impl Into<Cow<'static, str>>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// These bytes in the place of a framed message.
    pub(crate) fn frames(mut self, frames: impl Into<Vec<u8>>) -> Self {
        self.frames = frames.into().into();
        self
    }

    /// Sends it over a connection of its own; the answer on one line.
    pub(crate) async fn send(&self, address: SocketAddr) -> String {
        Channel::open(address).await.unwrap().send(self).await.unwrap()
    }
}

/// A gRPC connection that takes one call after the other.
pub(crate) struct Channel {
    address: SocketAddr,
    sender: h2::client::SendRequest<Bytes>,
    _driver: JoinSet<Result<(), h2::Error>>,
}

impl Channel {
    pub(crate) async fn open(address: SocketAddr) -> Result<Self, Cut> {
        let tcp = TcpStream::connect(address).await?;
        tcp.set_nodelay(true)?;
        Self::over(tcp, address).await
    }

    pub(crate) async fn over(
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        address: SocketAddr,
    ) -> Result<Self, Cut> {
        let (sender, connection) = h2::client::handshake(stream).await?;
        let mut driver = JoinSet::new();
        driver.spawn(connection);
        Ok(Self { address, sender, _driver: driver })
    }

    /// The answer on one line.
    pub(crate) async fn send(&mut self, call: &Call) -> Result<String, Cut> {
        let mut request = http::Request::post(format!("http://{}{}", self.address, call.path))
            .header("content-type", "application/grpc")
            .header("te", "trailers");
        for (name, value) in &call.headers {
            request = request.header(*name, value.as_ref());
        }
        if let Some(encoding) = call.encoding {
            request = request.header("grpc-encoding", encoding);
        }
        let (response, mut body) = self.sender.send_request(request.body(()).unwrap(), false)?;
        // Who is refused may have its answer before its body is sent; the stream is closed then, and the answer is read all the same.
        let _sent = body.send_data(call.frames.clone(), true);
        let (head, mut data) = response.await?.into_parts();
        let mut message = Vec::new();
        while let Some(chunk) = data.data().await {
            let chunk = chunk?;
            data.flow_control().release_capacity(chunk.len())?;
            message.extend_from_slice(&chunk);
        }
        let trailers = data.trailers().await?.unwrap_or_default();
        Ok(line(head.status, &head.headers, &trailers, &message))
    }
}

/// The connection ended before the answer did.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Cut {
    #[error("connection")]
    Io(#[from] std::io::Error),
    #[error("HTTP/2")]
    H2(#[from] h2::Error),
}

fn line(http: http::StatusCode, headers: &HeaderMap, trailers: &HeaderMap, message: &[u8]) -> String {
    let status = tonic::Status::from_header_map(headers).or_else(|| tonic::Status::from_header_map(trailers));
    let Some(status) = status else { return format!("no gRPC status, HTTP {http}") };
    if status.code() == tonic::Code::Ok {
        let [0, _, _, _, _, message @ ..] = message else { panic!("no plain message in {message:?}") };
        return format!("Ok{}", said(&ExportTraceServiceResponse::decode(message).unwrap()));
    }
    let retry = status.get_error_details().retry_info().and_then(|info| info.retry_delay);
    let retry = retry.map_or(String::new(), |delay| format!(" [retry after {delay:?}]"));
    format!("{:?}: {}{retry}", status.code(), status.message())
}
