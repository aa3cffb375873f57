//! A strict fake of Elasticsearch or OpenSearch in this process. It takes what the real server of that version takes
//! and refuses what that one refuses, keeps all documents for whoever wants to look, and goes wrong on command.

mod answers;
mod bulk;
mod faults;
mod product;
mod serve;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};

use axum::Router;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

pub use bulk::{Action, Document, Item};
pub use faults::{ItemFault, RequestFault, Times};
pub use product::Product;

/// What came so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// All requests.
    pub requests: u64,
    /// Requests to the bulk API.
    pub bulks: u64,
    /// Items of bulk requests that were read, whatever became of them.
    pub items: u64,
    /// Documents that were written, one that was written again included.
    pub written: u64,
    /// The most requests that were served at the same time.
    pub most_at_once: u64,
    /// Bytes of the biggest body, unzipped.
    pub biggest_body: usize,
}

pub struct FakeSearch {
    address: SocketAddr,
    state: Shared,
    _tasks: JoinSet<()>,
}

#[derive(Default)]
struct State {
    store: bulk::Store,
    faults: faults::Faults,
    counts: Counts,
    at_once: u64,
    /// Bigger bodies are answered by 413.
    max_body: Option<usize>,
}

#[derive(Clone)]
struct Shared {
    product: Product,
    state: Arc<Mutex<State>>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }
}

impl FakeSearch {
    pub async fn start(product: Product) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Shared { product, state: Arc::default() };
        let limit = axum::extract::DefaultBodyLimit::disable();
        let router = Router::new().fallback(serve::take).layer(limit).with_state(state.clone());
        let mut tasks = JoinSet::new();
        tasks.spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { address, state, _tasks: tasks }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The fault happens to requests whose path has this part; an empty one is in every path. Faults that were set
    /// earlier go first.
    pub fn fail_requests(&self, part: &'static str, fault: RequestFault, times: Times) {
        self.state.lock().faults.add_request(part, fault, times);
    }

    /// The fault happens to items of bulk requests; `times` counts items. Faults that were set earlier go first.
    pub fn fail_items(&self, picks: impl Fn(&Item) -> bool + Send + 'static, fault: ItemFault, times: Times) {
        self.state.lock().faults.add_item(Box::new(picks), fault, times);
    }

    pub fn clear_faults(&self) {
        self.state.lock().faults = faults::Faults::default();
    }

    /// Bigger bodies, unzipped, are answered by 413.
    pub fn limit_body(&self, bytes: usize) {
        self.state.lock().max_body = Some(bytes);
    }

    pub fn counts(&self) -> Counts {
        self.state.lock().counts
    }

    /// The documents of an index, or a stream, by id.
    pub fn documents(&self, index: &str) -> BTreeMap<String, Document> {
        self.state.lock().store.documents.get(index).cloned().unwrap_or_default()
    }

    /// The indices and streams that have documents.
    pub fn indices(&self) -> Vec<String> {
        self.state.lock().store.documents.keys().cloned().collect()
    }

    /// What went to the failure store.
    pub fn failures(&self) -> Vec<Item> {
        self.state.lock().store.failures.clone()
    }

    /// The index templates by name.
    pub fn templates(&self) -> BTreeMap<String, Value> {
        self.state.lock().store.templates.clone()
    }

    /// The component templates by name.
    pub fn components(&self) -> BTreeMap<String, Value> {
        self.state.lock().store.components.clone()
    }
}
