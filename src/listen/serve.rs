//! Connections from their first byte to their last.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::response::Response;
use http::{HeaderName, HeaderValue, Request, header};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use tokio_io_timeout::TimeoutStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower_service::Service as _;

use super::connections::{Connections, Place, Room};
use super::{Common, Listener, Protocol};
use crate::auth::Connection;

/// For the head of a request, which is also how long a connection over HTTP/1.1 may be idle.
/// None of the usual intervals of exporters and scrapers, as a request can cross with the end.
const HEAD: Duration = Duration::from_secs(40);
/// Until TLS is agreed on.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// A client that takes nothing of its answer for so long is gone.
const WRITE: Duration = Duration::from_secs(30);
/// All names and values of a request's head, in bytes.
const LARGEST_HEAD: usize = 32 * 1024;
/// A client over HTTP/2 is asked so often whether it is still there, and has so long to answer.
const PING: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(20));
/// Exporters send bodies of some hundred KiB; with the 64 KiB that HTTP/2 starts with they would wait for every one.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 4 << 20;
/// A browser neither runs an answer as a script of another site's page, nor hands it to that page as an image or style.
/// Of such requests it tells nothing where it holds the address for far away, as `0.0.0.0`, so that they cannot all be
/// refused.
const FOR_BROWSERS: [(HeaderName, HeaderValue); 2] = [
    (HeaderName::from_static("cross-origin-resource-policy"), HeaderValue::from_static("same-origin")),
    (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
];
/// When no connection can be taken, as the process has no file descriptor left.
const PAUSE: Duration = Duration::from_millis(20);

/// Serves until `stop`, then ends when what was begun is answered.
pub async fn serve(listener: Listener, router: Router, common: Common, stop: CancellationToken) {
    let connections = Connections::new(common.max_connections);
    let serving = Arc::new(Serving { name: listener.name, protocol: listener.protocol, router, common });
    let conversations = TaskTracker::new();
    let mut was_short = false;
    loop {
        let accepted = tokio::select! {
            accepted = listener.socket.accept() => accepted,
            () = stop.cancelled() => break,
        };
        match accepted {
            Ok((stream, _)) => {
                was_short = false;
                if let Some(place) = serving.place(&connections) {
                    conversations.spawn(Arc::clone(&serving).converse(stream, place, stop.clone()));
                }
            }
            Err(error) if is_of_one_client(&error) => {}
            Err(error) => {
                if !std::mem::replace(&mut was_short, true) {
                    tracing::error!(listener = serving.name, %error, "a connection cannot be taken");
                }
                connections.end_one();
                sleep(PAUSE).await;
            }
        }
    }
    conversations.close();
    conversations.wait().await;
}

/// It was gone before it was taken.
fn is_of_one_client(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionRefused | ConnectionAborted | ConnectionReset)
}

/// Why a connection was ended; metric label.
#[derive(Clone, Copy)]
enum Ended {
    /// Another took its place.
    Displaced,
    /// It found no place.
    Full,
    /// TLS was not agreed on: plain text, or a certificate of another authority.
    Handshake,
    /// Its request did not come in time.
    Slow,
    /// What came is no request, or has too large a head.
    Malformed,
}

impl Ended {
    fn label(self) -> &'static str {
        match self {
            Self::Displaced => "displaced",
            Self::Full => "full",
            Self::Handshake => "handshake",
            Self::Slow => "slow",
            Self::Malformed => "malformed",
        }
    }
}

struct Serving {
    name: &'static str,
    protocol: Protocol,
    router: Router,
    common: Common,
}

impl Serving {
    fn place(&self, connections: &Arc<Connections>) -> Option<Place> {
        match connections.enter() {
            Room::Free(place) | Room::MadeBy(place) => Some(place),
            Room::None => {
                self.ended(Ended::Full);
                None
            }
        }
    }

    fn ended(&self, why: Ended) {
        self.common.ended.with_label_values(&[self.name, why.label()]).inc();
        tracing::debug!(listener = self.name, reason = why.label(), "connection ended");
    }

    async fn converse(self: Arc<Self>, stream: TcpStream, place: Place, stop: CancellationToken) {
        let open = self.common.open.with_label_values(&[self.name]);
        open.inc();
        let place = Arc::new(place);
        let ended = tokio::select! {
            ended = self.talk(stream, &place, &stop) => ended,
            () = place.displaced() => Err(Ended::Displaced),
            () = silent(&place) => Err(Ended::Slow),
        };
        open.dec();
        if let Err(why) = ended {
            self.ended(why);
        }
    }

    async fn talk(&self, stream: TcpStream, place: &Arc<Place>, stop: &CancellationToken) -> Result<(), Ended> {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "no TCP_NODELAY on a connection");
        }
        let over_loopback = stream.local_addr().is_ok_and(|address| address.ip().to_canonical().is_loopback());
        let mut connection =
            Connection { listener: self.name, over_loopback, lacks_certificate: false, was_let_in: place.was_let_in() };
        let Some((acceptor, wants_clients)) = self.common.tls.acceptor(self.protocol) else {
            return self.answer(stream, connection, place, stop).await;
        };
        let agreeing = timeout(HANDSHAKE, acceptor.accept(stream));
        let Some(agreed) = stop.run_until_cancelled(agreeing).await else { return Ok(()) };
        match agreed {
            Ok(Ok(stream)) => {
                connection.lacks_certificate = wants_clients && stream.get_ref().1.peer_certificates().is_none();
                self.answer(stream, connection, place, stop).await
            }
            Ok(Err(error)) => {
                tracing::debug!(listener = self.name, %error, "TLS not agreed on");
                Err(Ended::Handshake)
            }
            Err(_) => Err(Ended::Slow),
        }
    }

    async fn answer<S>(
        &self,
        stream: S,
        connection: Connection,
        place: &Arc<Place>,
        stop: &CancellationToken,
    ) -> Result<(), Ended>
    where
        S: AsyncRead + AsyncWrite + Send + 'static,
    {
        let mut stream = TimeoutStream::new(stream);
        stream.set_write_timeout(Some(WRITE));
        let io = TokioIo::new(Box::pin(stream));
        let service = Answers { router: self.router.clone(), connection, place: Arc::clone(place) };
        let ended = match self.protocol {
            Protocol::Http1 => {
                let mut http = http1::Builder::new();
                http.timer(TokioTimer::new()).header_read_timeout(HEAD).max_header_size(LARGEST_HEAD);
                let talk = Box::pin(http.serve_connection(io, service));
                until(stop, place, talk, |talk| talk.graceful_shutdown()).await
            }
            Protocol::Http2 => {
                let mut http = http2::Builder::new(TokioExecutor::new());
                http.timer(TokioTimer::new()).keep_alive_interval(PING.0).keep_alive_timeout(PING.1);
                http.initial_stream_window_size(STREAM_WINDOW).initial_connection_window_size(CONNECTION_WINDOW);
                let talk = Box::pin(http.serve_connection(io, service));
                until(stop, place, talk, |talk| talk.graceful_shutdown()).await
            }
        };
        ended.map_err(|error| self.meaning(&error)).or_else(|why| why.map_or(Ok(()), Err))
    }

    /// `None`: the client has gone, as clients do.
    fn meaning(&self, error: &hyper::Error) -> Option<Ended> {
        tracing::debug!(listener = self.name, error = crate::telemetry::chain(error), "connection broke");
        match error {
            error if error.is_timeout() => Some(Ended::Slow),
            error if error.is_parse() => Some(Ended::Malformed),
            _ => None,
        }
    }
}

/// Goes on until the client has gone, or after `stop` until what it has asked is answered; who has asked nothing is not
/// waited for.
async fn until<F: Future<Output = hyper::Result<()>>>(
    stop: &CancellationToken,
    place: &Place,
    mut talk: Pin<Box<F>>,
    shut: impl FnOnce(Pin<&mut F>),
) -> hyper::Result<()> {
    tokio::select! {
        ended = talk.as_mut() => return ended,
        () = stop.cancelled() => {}
    }
    if !place.has_asked() {
        return Ok(());
    }
    shut(talk.as_mut());
    talk.await
}

/// Ends when a connection has had its time and made no request.
async fn silent(place: &Place) {
    sleep(HEAD).await;
    if place.has_asked() {
        std::future::pending::<()>().await;
    }
}

/// The service of one connection: says of each request how it came, and of the connection whether it is at work.
struct Answers {
    router: Router,
    connection: Connection,
    place: Arc<Place>,
}

impl hyper::service::Service<Request<Incoming>> for Answers {
    type Response = Response;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let busy = self.place.begin();
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(self.connection.clone());
        let answer = self.router.clone().call(request);
        Box::pin(async move {
            let mut response = answer.await?;
            response.headers_mut().extend(FOR_BROWSERS);
            drop(busy);
            Ok(response)
        })
    }
}
