//! A request's body that does not come: after a while it is an error, not a wait.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::body::{Body, Frame, SizeHint};
use tokio::time::{Instant, Sleep};

use super::BoxError;

/// A client sent no byte of its request's body for too long.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("no byte of the request's body came for {} seconds", .0.as_secs())]
pub struct TooSlow(pub Duration);

/// A body whose next bytes are awaited for `limit` at most; then it ends with [`TooSlow`].
pub struct IdleBody<B> {
    body: B,
    limit: Duration,
    /// Runs while bytes are awaited.
    sleep: Pin<Box<Sleep>>,
    awaiting: bool,
}

impl<B> IdleBody<B> {
    /// Awaits each piece of `body` for `limit`.
    pub fn new(body: B, limit: Duration) -> Self {
        Self { body, limit, sleep: Box::pin(tokio::time::sleep(limit)), awaiting: false }
    }
}

impl<B: Body<Error: Into<BoxError>> + Unpin> Body for IdleBody<B> {
    type Data = B::Data;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let this = &mut *self;
        if let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(cx) {
            this.awaiting = false;
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        if !this.awaiting {
            this.awaiting = true;
            this.sleep.as_mut().reset(Instant::now() + this.limit);
        }
        this.sleep.as_mut().poll(cx).map(|()| Some(Err(Box::new(TooSlow(this.limit)).into())))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
