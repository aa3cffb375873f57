//! The listening sockets: who may connect, and for how long. It speaks HTTP/1.1, HTTP/2 and TLS, hands requests to the
//! service it is given, and knows nothing of what they ask. A stranger can take the place of another stranger, never of
//! one who was let in.

mod connections;
mod serve;
mod tls;

use std::io;
use std::net::SocketAddr;

use prometheus::{IntCounterVec, IntGaugeVec};
use tokio::net::TcpListener;

pub use serve::serve;
pub use tls::{BadTls, Certificates, Tls, TlsConfig};

/// What is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    Http1,
    /// With prior knowledge, as gRPC does.
    Http2,
}

/// A socket that listens.
pub struct Listener {
    /// Metric label, and the key in `[listen]`.
    name: &'static str,
    protocol: Protocol,
    socket: TcpListener,
}

impl Listener {
    pub async fn bind(name: &'static str, protocol: Protocol, address: &str) -> io::Result<Self> {
        Ok(Self { name, protocol, socket: TcpListener::bind(address).await? })
    }

    pub fn name(&self) -> &'static str {
        self.name
    }

    pub fn address(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }
}

/// What all listeners share.
#[derive(Clone)]
pub struct Common {
    pub tls: Tls,
    /// Most connections of each listener.
    pub max_connections: usize,
    /// Open connections, by listener.
    pub open: IntGaugeVec,
    /// Those that we ended, by listener and reason.
    pub ended: IntCounterVec,
}
