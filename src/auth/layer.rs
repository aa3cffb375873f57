//! The guard in front of a service: requests that need the same stand behind one of these.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::response::Response;
use axum::routing::{MethodRouter, any};
use futures_util::future::Either;
use http::{Request, StatusCode};
use tower_layer::Layer;
use tower_service::Service;

use super::{Connection, Guard, Need, problem};

/// A layer, and the service that it makes.
#[derive(Clone)]
pub struct Guarded<S = ()> {
    guard: Guard,
    need: Need,
    inner: S,
}

impl Guard {
    /// A layer for services that all need the same.
    pub fn before(&self, need: Need) -> Guarded {
        Guarded { guard: self.clone(), need, inner: () }
    }
}

impl Guard {
    /// What answers where no route leads.
    pub fn not_found(&self) -> Guarded<MethodRouter> {
        let nothing = any(|| async { problem(StatusCode::NOT_FOUND, "there is nothing at this path") });
        self.before(Need::Nothing).layer(nothing)
    }
}

impl<S> Layer<S> for Guarded {
    type Service = Guarded<S>;

    fn layer(&self, inner: S) -> Guarded<S> {
        Guarded { guard: self.guard.clone(), need: self.need, inner }
    }
}

impl<S, B> Service<Request<B>> for Guarded<S>
where
    S: Service<Request<B>, Response = Response, Error = Infallible>,
{
    type Response = Response;
    type Error = Infallible;
    type Future = Either<S::Future, Ready<Result<Response, Infallible>>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        // Of what did not come through a listener nothing good is known.
        let unknown = || Connection {
            listener: "none",
            over_loopback: false,
            lacks_certificate: true,
            was_let_in: Arc::default(),
        };
        let connection = request.extensions().get().cloned().unwrap_or_else(unknown);
        match self.guard.look(self.need, &connection, request.uri(), request.headers()) {
            Ok(caller) => {
                if let Some(caller) = caller {
                    request.extensions_mut().insert(caller);
                }
                Either::Left(self.inner.call(request))
            }
            Err(refused) => Either::Right(ready(Ok(refused.respond(request.headers())))),
        }
    }
}
