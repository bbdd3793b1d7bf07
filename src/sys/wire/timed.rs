//! A connection that does not wait for ever: for the rest of a request's headers, or for a client that takes no bytes.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper::HeaderMap;
use hyper::body::{Body, Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

use super::serve::Patience;

/// How long, and for how many bytes, a client that is sent away may go on sending before the connection is closed. Closed at
/// once, the client's system would throw the answer away unread.
const LINGER: Duration = Duration::from_secs(2);
const LINGER_BYTES: usize = 64 * 1024 * 1024;

/// Bytes that HTTP/2 begins with.
const HTTP2_PREFACE: usize = 24;

/// What is under way on one connection.
#[derive(Debug, Default)]
pub(super) struct Activity {
    requests: AtomicUsize,
    /// Requests that have begun, ever.
    begun: AtomicUsize,
    /// The last answer closes the connection, and the client may not have sent everything.
    leaving: AtomicBool,
}

impl Activity {
    /// A request begins; it lasts as long as what this returns.
    pub(super) fn begin(activity: &Arc<Self>) -> Busy {
        activity.requests.fetch_add(1, Ordering::Relaxed);
        activity.begun.fetch_add(1, Ordering::Relaxed);
        Busy(activity.clone())
    }

    fn is_idle(&self) -> bool {
        self.requests.load(Ordering::Relaxed) == 0
    }
}

/// A request under way.
#[derive(Debug)]
pub(super) struct Busy(Arc<Activity>);

impl Busy {
    /// Notes what the answer's headers say about the connection.
    pub(super) fn answering(&self, headers: &HeaderMap) {
        let close = headers.get(hyper::header::CONNECTION).is_some_and(|value| value.as_bytes() == b"close");
        if close {
            self.0.leaving.store(true, Ordering::Relaxed);
        }
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.requests.fetch_sub(1, Ordering::Relaxed);
    }
}

/// An answer's body; the request is under way until it is gone.
pub(super) struct Tracked<B> {
    body: Pin<Box<B>>,
    _busy: Busy,
}

impl<B> Tracked<B> {
    pub(super) fn new(body: B, busy: Busy) -> Self {
        Self { body: Box::pin(body), _busy: busy }
    }
}

impl<B: Body> Body for Tracked<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        self.body.as_mut().poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A deadline that is set when something begins, and cleared when it ends.
#[derive(Default)]
struct Deadline {
    at: Option<Instant>,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Deadline {
    /// Sets it, where it is not set.
    fn set(&mut self, after: Duration) {
        if self.at.is_none() {
            self.at = Some(Instant::now() + after);
        }
    }

    fn clear(&mut self) {
        self.at = None;
    }

    /// Ready when it has passed.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(at) = self.at else { return Poll::Pending };
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(at)));
        if sleep.deadline() != at {
            sleep.as_mut().reset(at);
        }
        sleep.as_mut().poll(cx)
    }
}

fn late(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, what)
}

/// A connection with its deadlines.
pub(super) struct TimedIo<T> {
    inner: T,
    patience: Patience,
    activity: Arc<Activity>,
    http2: bool,
    /// Bytes that came, as far as they matter.
    came: usize,
    /// For the rest of a request's headers; with HTTP/2 for the next request.
    head: Deadline,
    /// Requests that had begun when that was set.
    begun: usize,
    /// For the client to take bytes.
    send: Deadline,
    linger: Deadline,
    lingered: usize,
}

impl<T> TimedIo<T> {
    pub(super) fn new(inner: T, patience: Patience, activity: Arc<Activity>, http2: bool) -> Self {
        let deadlines = (Deadline::default(), Deadline::default(), Deadline::default());
        let (head, send, linger) = deadlines;
        Self { inner, patience, activity, http2, came: 0, head, begun: 0, send, linger, lingered: 0 }
    }

    /// What a write came to, unless the client has taken nothing for too long.
    fn sent<R>(&mut self, cx: &mut Context<'_>, outcome: Poll<io::Result<R>>) -> Poll<io::Result<R>> {
        if outcome.is_ready() {
            self.send.clear();
            return outcome;
        }
        self.send.set(self.patience.send);
        ready!(self.send.poll(cx));
        Poll::Ready(Err(late("the client took no bytes for too long")))
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for TimedIo<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let before = buf.filled().len();
        let outcome = Pin::new(&mut this.inner).poll_read(cx, buf);
        let begun = this.activity.begun.load(Ordering::Relaxed);
        if begun != this.begun {
            this.begun = begun;
            this.head.clear();
        }
        if !this.activity.is_idle() {
            // A request's body has limits of its own.
            return outcome;
        }
        let came = buf.filled().len() - before;
        if this.http2 {
            if this.came < HTTP2_PREFACE && this.came + came >= HTTP2_PREFACE {
                this.head.clear();
            }
            this.came = HTTP2_PREFACE.min(this.came + came);
            let greeted = this.came == HTTP2_PREFACE;
            this.head.set(if greeted { this.patience.idle } else { this.patience.head });
        } else if came > 0 {
            this.head.set(this.patience.head);
        }
        if outcome.is_pending() && this.head.poll(cx).is_ready() {
            return Poll::Ready(Err(late("no request came in time")));
        }
        outcome
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncWrite for TimedIo<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.inner).poll_write(cx, buf);
        self.sent(cx, outcome)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.inner).poll_write_vectored(cx, bufs);
        self.sent(cx, outcome)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.inner).poll_flush(cx);
        self.sent(cx, outcome)
    }

    /// Ends our side. A client that may still be sending is heard to its end, within bounds.
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.linger.at.is_none() {
            let ended = Pin::new(&mut this.inner).poll_shutdown(cx);
            ready!(this.sent(cx, ended))?;
        }
        if this.http2 || !this.activity.leaving.load(Ordering::Relaxed) {
            return Poll::Ready(Ok(()));
        }
        this.linger.set(LINGER);
        let mut space = [0; 16 * 1024];
        while this.lingered < LINGER_BYTES {
            let mut buf = ReadBuf::new(&mut space);
            match Pin::new(&mut this.inner).poll_read(cx, &mut buf) {
                Poll::Ready(Ok(())) if !buf.filled().is_empty() => this.lingered += buf.filled().len(),
                Poll::Ready(_) => return Poll::Ready(Ok(())),
                Poll::Pending => {
                    ready!(this.linger.poll(cx));
                    return Poll::Ready(Ok(()));
                }
            }
            if this.linger.poll(cx).is_ready() {
                return Poll::Ready(Ok(()));
            }
        }
        Poll::Ready(Ok(()))
    }
}
