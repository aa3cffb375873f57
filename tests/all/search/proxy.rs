//! The proxy harms connections as it is told.

use std::time::{Duration, Instant};

use tokio::net::TcpStream;

use super::fake::{bulk, short, versioned};
use super::faults::raw;
use crate::support::fake_search::{FakeSearch, Product};
use crate::support::proxy::{Fault, FaultProxy};

#[tokio::test]
async fn a_proxy_harms_connections_on_command() {
    let fake = FakeSearch::start(Product::OpenSearch3).await;
    let proxy = FaultProxy::before(fake.address()).await;
    assert_eq!(short(&bulk(&versioned("a", 1)).send(proxy.address()).await), "201");

    proxy.set(Fault::CutAfter(17)).await;
    let cut = raw(proxy.address(), "POST /_bulk", &versioned("a", 2)).await;
    assert_eq!((cut.as_str(), proxy.answers_cut()), ("HTTP/1.1 200 OK\r\n", 1));
    assert_eq!(fake.documents("plain")["a"].version, 2, "the request has reached the server");

    proxy.set(Fault::Delay(Duration::from_millis(300))).await;
    let begun = Instant::now();
    assert_eq!(short(&bulk(&versioned("a", 3)).send(proxy.address()).await), "200");
    assert!(begun.elapsed() >= Duration::from_millis(300));

    proxy.set(Fault::Refuse).await;
    assert!(TcpStream::connect(proxy.address()).await.is_err());
    proxy.set(Fault::None).await;
    assert_eq!(short(&bulk(&versioned("a", 4)).send(proxy.address()).await), "200");

    // A connection that waits for its answer.
    proxy.set(Fault::Delay(Duration::from_secs(600))).await;
    let lines = versioned("a", 5);
    let (answer, ()) = tokio::join!(raw(proxy.address(), "POST /_bulk", &lines), async {
        while !fake.documents("plain").values().any(|document| document.version == 5) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        proxy.cut();
    });
    assert_eq!(answer, "");
    assert_eq!(proxy.url(), format!("http://{}", proxy.address()));
}
