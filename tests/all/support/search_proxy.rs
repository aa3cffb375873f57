//! Stands before a real search server and does to it what networks and overload do: delays, cuts answers, refuses half of a request.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::Response;
use futures_util::StreamExt;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

/// What happens to each request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weather {
    Fair,
    /// The answer comes after a while.
    Slow(Duration),
    /// The server has done its work, and half of its answer arrives.
    CutAnswers,
    /// Every second document of a bulk request never reaches the server and gets a 429.
    HalfRefused,
    /// Nothing is passed on.
    Unavailable,
}

pub struct SearchProxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    _tasks: JoinSet<()>,
}

struct Shared {
    target: String,
    client: reqwest::Client,
    weather: Mutex<Weather>,
    refused: AtomicU64,
    cut: AtomicU64,
}

impl SearchProxy {
    pub async fn start(target: String) -> Self {
        drop(rustls::crypto::ring::default_provider().install_default());
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let shared = Arc::new(Shared {
            target,
            client,
            weather: Mutex::new(Weather::Fair),
            refused: AtomicU64::new(0),
            cut: AtomicU64::new(0),
        });
        let router = axum::Router::new().fallback(pass).with_state(Arc::clone(&shared));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { address, shared, _tasks: tasks }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn set(&self, weather: Weather) {
        *self.shared.weather.lock().unwrap() = weather;
    }

    /// Documents that were refused, and answers that were cut.
    pub fn faults(&self) -> (u64, u64) {
        (self.shared.refused.load(Ordering::Relaxed), self.shared.cut.load(Ordering::Relaxed))
    }
}

async fn pass(
    State(shared): State<Arc<Shared>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let weather = *shared.weather.lock().unwrap();
    let bulk = uri.path() == "/_bulk";
    match weather {
        Weather::Unavailable => answer(StatusCode::SERVICE_UNAVAILABLE, Body::empty()),
        Weather::HalfRefused if bulk => half(&shared, &uri, headers, &body).await,
        _ => {
            let Some((status, text)) = shared.forward(method, &uri, headers, body).await else {
                return answer(StatusCode::BAD_GATEWAY, Body::empty());
            };
            match weather {
                Weather::Slow(pause) => {
                    tokio::time::sleep(pause).await;
                    answer(status, text.into())
                }
                Weather::CutAnswers if bulk => {
                    shared.cut.fetch_add(1, Ordering::Relaxed);
                    let part = text.slice(..text.len() / 2);
                    let torn = std::io::Error::other("cut");
                    answer(
                        status,
                        Body::from_stream(
                            futures_util::stream::iter([Ok(part)]).chain(futures_util::stream::iter([Err(torn)])),
                        ),
                    )
                }
                _ => answer(status, text.into()),
            }
        }
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
