//! The servers of the test: the attacker's, which serves pages and hears what they report, and one that permits
//! everything, against which the pages must succeed.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use base64::Engine as _;
use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Limited};
use serde_json::Value;
use sha1_smol::Sha1;
use tokio::net::TcpListener;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::task::JoinSet;

const MAX_BODY: usize = 1 << 20;

const PAGE: &str =
    "<!doctype html><meta charset=utf-8><link rel=icon href='data:,'><body><script src=/page.js></script>";

/// The attacker's server.
pub struct Attacker {
    pub address: SocketAddr,
    /// What pages reported; `loaded` is said by the rebinding page before it goes on.
    pub reports: Receiver<Value>,
    _server: JoinSet<()>,
}

#[derive(Clone)]
struct Pages {
    script: Arc<str>,
    reports: Sender<Value>,
}

impl Attacker {
    /// Its page runs `scripts` with what `setup` says, to which the place for reports is added.
    pub async fn start(scripts: &[&str], setup: impl FnOnce(SocketAddr) -> Value) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut setup = setup(address);
        setup["report"] = format!("http://{address}/report").into();
        let script = format!("const setup = {setup};\n{}", scripts.join("\n"));
        let (sender, reports) = channel(1024);
        let router = Router::new().fallback(serve).with_state(Pages { script: script.into(), reports: sender });
        let mut server = JoinSet::new();
        server.spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { address, reports, _server: server }
    }
}

async fn serve(State(pages): State<Pages>, request: Request<Body>) -> Response {
    let (head, body) = request.into_parts();
    // The query of both is one encoded URL.
    let named = head.uri.query().and_then(|query| query.split_once('=')).map(|(_, url)| decoded(url));
    // By this the rebinding page knows that its name leads here still.
    let answer = Response::builder().header("x-first", "yes").header(header::CACHE_CONTROL, "no-store");
    let answer = match (head.uri.path(), named) {
        ("/", _) => answer.header(header::CONTENT_TYPE, "text/html").body(PAGE.into()),
        ("/page.js", _) => answer.header(header::CONTENT_TYPE, "text/javascript").body(pages.script.to_string().into()),
        ("/redirect", Some(url)) => {
            answer.status(StatusCode::TEMPORARY_REDIRECT).header(header::LOCATION, url).body(Body::empty())
        }
        ("/policy", Some(url)) => {
            let policy = format!("img-src 'none'; report-uri {url}");
            let answer = answer.header(header::CONTENT_TYPE, "text/html").header("content-security-policy", policy);
            answer.body("<img src='/none'>".into())
        }
        ("/report", _) => {
            let report = serde_json::from_slice(&read(body).await).unwrap();
            pages.reports.send(report).await.unwrap();
            answer.body(Body::empty())
        }
        ("/loaded", _) => {
            pages.reports.send("loaded".into()).await.unwrap();
            answer.body(Body::empty())
        }
        _ => answer.status(StatusCode::NOT_FOUND).body(Body::empty()),
    };
    answer.unwrap()
}

async fn read(body: Body) -> Bytes {
    Limited::new(body, MAX_BODY).collect().await.unwrap().to_bytes()
}

/// Undoes the escapes of a URL's part.
pub fn decoded(text: &str) -> String {
    let mut parts = text.split('%');
    let mut bytes = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        let (digits, rest) = part.split_at(2);
        bytes.push(u8::from_str_radix(digits, 16).unwrap());
        bytes.extend_from_slice(rest.as_bytes());
    }
    String::from_utf8(bytes).unwrap()
}

/// A request as it came to the permissive server.
#[derive(Clone, Debug)]
pub struct Arrival {
    pub method: Method,
    pub uri: Uri,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Arrival {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

/// Takes everything and shows everything to everyone.
pub struct Permissive {
    pub address: SocketAddr,
    arrivals: Arc<Mutex<Vec<Arrival>>>,
    _server: JoinSet<()>,
}

impl Permissive {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let arrivals = Arc::default();
        let router = Router::new().fallback(permit).with_state(Arc::clone(&arrivals));
        let mut server = JoinSet::new();
        server.spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { address, arrivals, _server: server }
    }

    pub fn arrivals(&self) -> Vec<Arrival> {
        self.arrivals.lock().unwrap().clone()
    }
}

async fn permit(State(arrivals): State<Arc<Mutex<Vec<Arrival>>>>, request: Request<Body>) -> Response {
    let (head, body) = request.into_parts();
    let body = read(body).await;
    let arrival = Arrival { method: head.method, uri: head.uri, headers: head.headers, body };
    let answer = permitted(&arrival);
    arrivals.lock().unwrap().push(arrival);
    answer
}

/// An answer of the kind that was asked for.
fn permitted(arrival: &Arrival) -> Response {
    let origin = if arrival.header("origin").is_empty() { "*" } else { arrival.header("origin") };
    let answer = Response::builder()
        .header(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin)
        .header(header::ACCESS_CONTROL_ALLOW_METHODS, "*, PUT")
        .header(header::ACCESS_CONTROL_ALLOW_HEADERS, "*, authorization, content-type")
        .header(header::CACHE_CONTROL, "no-store");
    // With credentials a star is none.
    let answer = if origin == "*" { answer } else { answer.header(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, "true") };
    if arrival.header("upgrade") == "websocket" {
        let accept = [arrival.header("sec-websocket-key"), "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"].concat();
        let accept = base64::engine::general_purpose::STANDARD.encode(Sha1::from(accept).digest().bytes());
        let answer = answer.status(StatusCode::SWITCHING_PROTOCOLS).header(header::SEC_WEBSOCKET_ACCEPT, accept);
        let answer = answer.header(header::CONNECTION, "upgrade").header(header::UPGRADE, "websocket");
        return answer.body(Body::empty()).unwrap();
    }
    let way = decoded(arrival.uri.path().split('/').nth(1).unwrap_or_default());
    let (kind, body): (_, Bytes) = match way.as_str() {
        "img" | "img without referrer" => {
            ("image/svg+xml", "<svg xmlns='http://www.w3.org/2000/svg' width='9' height='9'/>".into())
        }
        "script" | "script module" | "import()" | "importScripts" => ("text/javascript", "self.told = 'told'".into()),
        "link stylesheet" | "link stylesheet cors" => ("text/css", "told { color: red }".into()),
        "FontFace" => ("font/woff2", Bytes::new()),
        "EventSource" => ("text/event-stream", "data: told\n\n".into()),
        // A rebinding page puts no mark into the path, and asks for an event stream by this header.
        _ if arrival.header("accept") == "text/event-stream" => ("text/event-stream", "data: told\n\n".into()),
        _ => ("text/plain", "told".into()),
    };
    answer.header(header::CONTENT_TYPE, kind).body(body.into()).unwrap()
}
