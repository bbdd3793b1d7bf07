//! The rest of what a refused request brings. A server that answers and hangs up while its client still sends leaves the client with a
//! broken connection instead of the answer, so a short rest is read first.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::Request;
use axum::http::StatusCode;
use axum::http::header::EXPECT;
use axum::middleware::Next;
use axum::response::Response;
use http_body_util::BodyExt as _;
use hyper::body::{Frame, SizeHint};

/// The longest rest that is read, in bytes, and how long it may take.
const REST: usize = 1024 * 1024;
const TIME: Duration = Duration::from_secs(2);

/// Has the request answered; where that refuses it, reads what is left of its body.
pub(super) async fn read_on(request: Request, next: Next) -> Response {
    // Who waits to be told before it sends is told by the answer.
    if request.headers().contains_key(EXPECT) {
        return next.run(request).await;
    }
    let (parts, body) = request.into_parts();
    let shared = Shared(Arc::new(Mutex::new(body)));
    let answer = next.run(Request::from_parts(parts, Body::new(shared.clone()))).await;
    if answer.status().is_client_error() || answer.status() == StatusCode::SERVICE_UNAVAILABLE {
        // What is longer, or slower, is hung up on.
        drop(tokio::time::timeout(TIME, rest(shared)).await);
    }
    answer
}

async fn rest(mut body: Shared) {
    let mut read = 0;
    while let Some(Ok(frame)) = body.frame().await {
        read += frame.data_ref().map_or(0, Bytes::len);
        if read > REST {
            return;
        }
    }
}

/// A body that outlives whoever was to read it.
#[derive(Clone)]
struct Shared(Arc<Mutex<Body>>);

impl Shared {
    fn with<T>(&self, act: impl FnOnce(&mut Body) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl HttpBody for Shared {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        self.with(|body| Pin::new(body).poll_frame(context))
    }

    fn is_end_stream(&self) -> bool {
        self.with(|body| body.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        self.with(|body| body.size_hint())
    }
}
