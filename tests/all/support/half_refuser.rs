//! Stands before a real search server and refuses half of each bulk request, as a server does whose queue is full.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::Response;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

pub struct HalfRefuser {
    address: SocketAddr,
    shared: Arc<Shared>,
    _tasks: JoinSet<()>,
}

struct Shared {
    target: String,
    client: reqwest::Client,
    refuses: AtomicBool,
    refused: AtomicU64,
}

impl HalfRefuser {
    pub async fn before(target: String) -> Self {
        drop(rustls::crypto::ring::default_provider().install_default());
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let (refuses, refused) = (AtomicBool::new(false), AtomicU64::new(0));
        let shared = Arc::new(Shared { target, client, refuses, refused });
        let router = axum::Router::new().fallback(pass).with_state(Arc::clone(&shared));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { address, shared, _tasks: tasks }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Whether every second document of a bulk request gets a 429 and never reaches the server.
    pub fn refuse(&self, refuses: bool) {
        self.shared.refuses.store(refuses, Ordering::Relaxed);
    }

    /// Documents that were refused.
    pub fn refused(&self) -> u64 {
        self.shared.refused.load(Ordering::Relaxed)
    }
}

async fn pass(
    State(shared): State<Arc<Shared>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    if uri.path() == "/_bulk" && shared.refuses.load(Ordering::Relaxed) {
        return half(&shared, &uri, headers, &body).await;
    }
    match shared.forward(method, &uri, headers, body).await {
        Some((status, text)) => answer(status, text.into()),
        None => answer(StatusCode::BAD_GATEWAY, Body::empty()),
    }
}

/// Passes on every second document and refuses the others, in one answer.
async fn half(shared: &Shared, uri: &Uri, headers: HeaderMap, body: &[u8]) -> Response {
    let lines: Vec<&str> = std::str::from_utf8(body).unwrap().lines().collect();
    let passed: String = lines.chunks(2).step_by(2).flatten().map(|line| format!("{line}\n")).collect();
    let Some((status, text)) = shared.forward(Method::POST, uri, headers, passed.into()).await else {
        return answer(StatusCode::BAD_GATEWAY, Body::empty());
    };
    let Ok(Value::Object(found)) = serde_json::from_slice(&text) else { return answer(status, text.into()) };
    let Some(items) = found.get("items").and_then(Value::as_array) else { return answer(status, text.into()) };
    let mut items = items.iter();
    let refused = json!({"index": {"status": 429, "error": {"type": "es_rejected_execution_exception", "reason": "queue is full"}}});
    let merged: Vec<Value> = (0..lines.len() / 2)
        .map(|place| {
            if place % 2 == 0 {
                return items.next().unwrap().clone();
            }
            shared.refused.fetch_add(1, Ordering::Relaxed);
            refused.clone()
        })
        .collect();
    answer(status, json!({"errors": true, "items": merged}).to_string().into())
}

impl Shared {
    async fn forward(
        &self,
        method: Method,
        uri: &Uri,
        mut headers: HeaderMap,
        body: Bytes,
    ) -> Option<(StatusCode, Bytes)> {
        headers.remove("host");
        headers.remove("content-length");
        let url = format!("{}{uri}", self.target);
        let sent = self.client.request(method, url).headers(headers).body(body).send().await.ok()?;
        Some((sent.status(), sent.bytes().await.ok()?))
    }
}

fn answer(status: StatusCode, body: Body) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert("content-type", "application/json".parse().unwrap());
    response
}
