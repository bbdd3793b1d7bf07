//! The accept loop behind every front door: one port speaks plain HTTP and TLS, told apart by a connection's first
//! byte, and HTTP/1.1 and HTTP/2, told apart by what TLS agreed on or by HTTP/2's first words.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Incoming};
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::BoxError;
use super::timed::{Activity, TimedIo, Tracked};

/// Connections served at once by one door; whoever comes after that is told so and sent away.
const CONNECTIONS_MAX: usize = 4096;
/// For the first byte and the TLS handshake.
const GREETING_LIMIT: Duration = Duration::from_secs(15);
/// For the requests that are under way when the door closes.
const DRAIN_LIMIT: Duration = Duration::from_secs(10);
/// The first byte of every TLS connection, and of no HTTP request: a handshake record.
const TLS_HANDSHAKE: u8 = 0x16;
/// HTTP/2 without TLS begins with these bytes, which begin no HTTP/1.1 request.
const HTTP2: &[u8] = b"PRI";
/// Between two looks at a first word that came in pieces.
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// What HTTP/2 is called in a TLS handshake.
pub(super) const ALPN_HTTP2: &[u8] = b"h2";
/// A connection's buffers, each way, in bytes. Bounds what many connections hold together; a request's head must fit.
const BUFFER: usize = 64 * 1024;
/// All headers of one request, in bytes.
const HEADERS: u32 = 32 * 1024;
/// Requests under way at once on one HTTP/2 connection.
const STREAMS: u32 = 64;
/// Bytes of one request's body that an HTTP/2 connection takes before anybody reads them.
const STREAM_WINDOW: u32 = 128 * 1024;
/// The same, of all its requests together.
const CONNECTION_WINDOW: u32 = 512 * 1024;
/// An HTTP/2 client that says nothing for so long is asked whether it is still there.
const ASK_AFTER: Duration = Duration::from_secs(30);

/// What is said to whoever comes when all connections are taken.
const FULL: &[u8] =
    b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";

/// What is said to whoever speaks plain HTTP where TLS alone is spoken.
const TLS_ONLY: &[u8] = b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-type: text/plain\r\n\
    content-length: 42\r\n\r\nThis port speaks TLS only: use https://.\r\n";

/// Whether a door speaks TLS.
#[derive(Clone)]
pub enum Tls {
    /// Plain HTTP only; a TLS connection is closed.
    Off,
    /// Besides plain HTTP.
    Offered(TlsAcceptor),
    /// Nothing else; a plain request is refused.
    Only(TlsAcceptor),
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Off => "Off",
            Self::Offered(_) => "Offered",
            Self::Only(_) => "Only",
        })
    }
}

/// How long a door waits for whom; each is a whole number of seconds or more.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// From the first byte of a request to the end of its headers.
    pub head: Duration,
    /// From the end of an answer to the next request on the same connection.
    pub idle: Duration,
    /// For a client to take any bytes of an answer.
    pub send: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self { head: seconds(15), idle: seconds(90), send: seconds(60) }
    }
}

/// Who asks, in each request's extensions.
#[derive(Clone, Copy, Debug)]
pub struct Peer {
    /// Their address.
    pub addr: SocketAddr,
    /// Whether they speak TLS.
    pub tls: bool,
}

/// In each request's extensions: cancelled, it ends the connection at once, whatever is under way on it.
#[derive(Clone, Debug, Default)]
pub struct HangUp(pub CancellationToken);

/// Serves connections until `token` is cancelled, then lets the requests under way finish, for ten seconds at most.
/// Each request carries a [`Peer`] and a [`HangUp`] in its extensions. An answer with
/// `Connection: close` is followed by a short time in which what the client still sends is thrown away, so that it can
/// read the answer.
pub async fn serve<S, B>(listener: TcpListener, tls: Tls, service: S, patience: Patience, token: CancellationToken)
where
    S: tower_service::Service<Request<Incoming>, Response = Response<B>> + Clone + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Into<BoxError>,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    let room = Arc::new(Semaphore::new(connections_max()));
    let streams = Streams::default();
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            () = token.cancelled() => break,
            Some(_) = connections.join_next() => continue,
            accepted = listener.accept() => accepted,
        };
        let (stream, addr) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of file descriptors, most likely: give the connections that are open time to end.
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let Some(permit) = admit(&room, &stream, addr) else { continue };
        let door = Door { tls: tls.clone(), patience, token: token.clone(), streams: streams.clone() };
        let service = service.clone();
        connections.spawn(async move {
            let _permit = permit;
            if let Err(error) = door.converse(stream, addr, service).await {
                tracing::debug!(%addr, %error, "a connection ended early");
            }
        });
    }
    drop(listener);
    streams.0.close();
    let drained = async {
        while connections.join_next().await.is_some() {}
        streams.0.wait().await;
    };
    if tokio::time::timeout(DRAIN_LIMIT, drained).await.is_err() {
        tracing::warn!("requests were still under way when the door closed");
    }
}

/// A quarter of the files that the process may open, where that is less than [`CONNECTIONS_MAX`]: the rest is the
/// store's, and the other door's.
fn connections_max() -> usize {
    let files = crate::sys::process::open_files_max();
    usize::try_from(files / 4).unwrap_or(usize::MAX).clamp(16, CONNECTIONS_MAX)
}

/// A place for the connection, or a short answer that there is none.
fn admit(room: &Arc<Semaphore>, stream: &TcpStream, addr: SocketAddr) -> Option<OwnedSemaphorePermit> {
    let permit = room.clone().try_acquire_owned().ok();
    if permit.is_none() {
        tracing::debug!(%addr, "all connections are taken");
        // A client that speaks TLS cannot read it, and sees the connection closed.
        drop(stream.try_write(FULL));
    }
    permit
}

/// What every connection of one door has in common.
struct Door {
    tls: Tls,
    patience: Patience,
    token: CancellationToken,
    streams: Streams,
}

impl Door {
    /// One connection, from its first byte to its end.
    async fn converse<S, B>(self, stream: TcpStream, addr: SocketAddr, service: S) -> Result<(), BoxError>
    where
        S: tower_service::Service<Request<Incoming>, Response = Response<B>> + Clone + Send + 'static,
        S::Future: Send + 'static,
        S::Error: Into<BoxError>,
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        stream.set_nodelay(true)?;
        let mut first = [0; HTTP2.len()];
        let greeted = tokio::select! {
            () = self.token.cancelled() => return Ok(()),
            greeted = tokio::time::timeout(GREETING_LIMIT, first_word(&stream, &mut first)) => greeted??,
        };
        let peer = Peer { addr, tls: first[0] == TLS_HANDSHAKE };
        if greeted == 0 {
            return Ok(());
        }
        let tls = match &self.tls {
            Tls::Only(_) if !peer.tls => {
                stream.try_write(TLS_ONLY)?;
                return Ok(());
            }
            Tls::Off | Tls::Offered(_) if !peer.tls => {
                return self.speak(stream, first == *HTTP2, peer, service).await;
            }
            Tls::Off => return Err("this port speaks plain HTTP only".into()),
            Tls::Offered(tls) | Tls::Only(tls) => tls,
        };
        let stream = tokio::time::timeout(GREETING_LIMIT, tls.accept(stream)).await??;
        let http2 = stream.get_ref().1.alpn_protocol() == Some(ALPN_HTTP2);
        self.speak(stream, http2, peer, service).await
    }

    async fn speak<S, B>(
        self,
        stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
        http2: bool,
        peer: Peer,
        service: S,
    ) -> Result<(), BoxError>
    where
        S: tower_service::Service<Request<Incoming>, Response = Response<B>> + Clone + Send + 'static,
        S::Future: Send + 'static,
        S::Error: Into<BoxError>,
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let activity = Arc::new(Activity::default());
        let io = TokioIo::new(TimedIo::new(stream, self.patience, activity.clone(), http2));
        let hang_up = HangUp::default();
        let service = Counted { peer, hang_up: hang_up.clone(), activity, inner: TowerToHyperService::new(service) };
        // The two kinds of connection have no trait in common.
        macro_rules! carry {
            ($connection:expr) => {{
                let mut connection = std::pin::pin!($connection);
                tokio::select! {
                    ended = connection.as_mut() => return Ok(ended?),
                    () = hang_up.0.cancelled() => return Err("cut, so that others can be served".into()),
                    () = self.token.cancelled() => connection.as_mut().graceful_shutdown(),
                }
                Ok(connection.await?)
            }};
        }
        if http2 {
            carry!(http2_builder(self.streams).serve_connection(io, service))
        } else {
            let mut builder = hyper::server::conn::http1::Builder::new();
            builder
                .timer(TokioTimer::new())
                .header_read_timeout(self.patience.idle)
                .max_buf_size(BUFFER)
                .max_header_size(HEADERS as usize);
            carry!(builder.serve_connection(io, service))
        }
    }
}

fn http2_builder(streams: Streams) -> hyper::server::conn::http2::Builder<Streams> {
    let mut builder = hyper::server::conn::http2::Builder::new(streams);
    builder
        .timer(TokioTimer::new())
        .keep_alive_interval(ASK_AFTER)
        .keep_alive_timeout(ASK_AFTER)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_concurrent_streams(STREAMS)
        .max_header_list_size(HEADERS)
        .max_send_buf_size(BUFFER);
    builder
}

/// Looks at the first bytes of a connection without taking them: as many as tell what it speaks.
async fn first_word(stream: &TcpStream, first: &mut [u8; HTTP2.len()]) -> std::io::Result<usize> {
    loop {
        let seen = stream.peek(first).await?;
        if seen == 0 || seen == first.len() || first[..seen] != HTTP2[..seen] {
            return Ok(seen);
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// Where the requests of HTTP/2 connections run; clones share it.
#[derive(Clone, Default)]
struct Streams(TaskTracker);

impl<F: Future<Output = ()> + Send + 'static> hyper::rt::Executor<F> for Streams {
    fn execute(&self, request: F) {
        self.0.spawn(request);
    }
}

/// Adds [`Peer`] and [`HangUp`] to each request, and notes when it begins and ends.
#[derive(Clone)]
struct Counted<S> {
    peer: Peer,
    hang_up: HangUp,
    activity: Arc<Activity>,
    inner: TowerToHyperService<S>,
}

impl<S, B> hyper::service::Service<Request<Incoming>> for Counted<S>
where
    S: tower_service::Service<Request<Incoming>, Response = Response<B>> + Clone + Send + 'static,
    S::Future: Send + 'static,
{
    type Response = Response<Tracked<B>>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        request.extensions_mut().insert(self.peer);
        request.extensions_mut().insert(self.hang_up.clone());
        let busy = Activity::begin(&self.activity);
        let answer = hyper::service::Service::call(&self.inner, request);
        Box::pin(async move {
            let answer = answer.await?;
            busy.answering(answer.headers());
            Ok(answer.map(|body| Tracked::new(body, busy)))
        })
    }
}
