//! The HTTP/1.1 client: pooled, bounded in time, and particular about whom it talks to.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::{Body, Incoming};
use hyper::{Request, Response, Uri};
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::BoxError;
use super::pin::{PinMismatch, PinVerifier};

/// Whom the client believes.
#[derive(Clone, Debug)]
pub enum Trust {
    /// Nobody: plain HTTP only.
    Plain,
    /// The server with this certificate (SHA-256 of its DER encoding), over TLS only.
    Pin([u8; 32]),
    /// Servers whose certificate one of these authorities signed, over TLS only.
    Ca(Vec<CertificateDer<'static>>),
}

/// How long the client waits, and how many idle connections it keeps to one server.
#[derive(Clone, Debug)]
pub struct ClientConfig {
    /// For a connection, TLS included.
    pub connect: Duration,
    /// From sending a request to the head of its answer; `None` waits for as long as the server works.
    pub answer: Option<Duration>,
    /// Idle connections kept to one server.
    pub idle_connections: usize,
}

impl Default for ClientConfig {
    fn default() -> Self {
        Self { connect: Duration::from_secs(10), answer: Some(Duration::from_secs(60)), idle_connections: 16 }
    }
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// No connection to the server.
    #[error("cannot reach {authority}: check that it runs there and that the network lets you through")]
    Unreachable {
        /// The server's host and port.
        authority: String,
        /// What the system said.
        #[source]
        source: BoxError,
    },
    /// TLS failed for another reason than the pin.
    #[error("no TLS with {authority}")]
    Tls {
        /// The server's host and port.
        authority: String,
        /// What TLS said.
        #[source]
        source: BoxError,
    },
    /// Another certificate than the pinned one.
    #[error("{authority} is not the server that was pinned: {mismatch}")]
    PinMismatch {
        /// The server's host and port.
        authority: String,
        /// The pin that was known and the one that was seen.
        mismatch: PinMismatch,
    },
    /// The address is unusable with this kind of trust.
    #[error("{0}")]
    Address(String),
    /// No answer in time.
    #[error("{authority} did not answer within {seconds} s")]
    TimedOut {
        /// The server's host and port.
        authority: String,
        /// How long was waited.
        seconds: u64,
    },
    /// The connection broke, or the body of the request did.
    #[error("the connection to {authority} broke")]
    Broken {
        /// The server's host and port.
        authority: String,
        /// What HTTP said.
        #[source]
        source: BoxError,
    },
    /// The answer is longer than the caller accepts.
    #[error("the answer is longer than {0} bytes")]
    TooLong(usize),
    /// The answer ended before it was whole.
    #[error("the answer has {len} bytes instead of {expected}")]
    TooShort {
        /// How many came.
        len: usize,
        /// How many were to come.
        expected: usize,
    },
}

/// The client; clones share its connections.
#[derive(Clone, Debug)]
pub struct Client {
    inner: legacy::Client<Connector, UnsyncBoxBody<Bytes, BoxError>>,
    config: ClientConfig,
}

impl Client {
    /// A client that believes `trust`.
    #[must_use]
    pub fn new(trust: Trust, config: ClientConfig) -> Self {
        let connector = Connector { tls: tls_of(trust), limit: config.connect };
        let inner = legacy::Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(Duration::from_secs(60))
            .pool_max_idle_per_host(config.idle_connections)
            .build(connector);
        Self { inner, config }
    }

    /// Sends `request`, whose URI is absolute, and returns once the head of the answer is there.
    pub async fn request<B>(&self, request: Request<B>) -> Result<Response<Incoming>, WireError>
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let authority = request.uri().authority().map(ToString::to_string).unwrap_or_default();
        let request = request.map(|body| body.map_err(Into::into).boxed_unsync());
        let answer = self.inner.request(request);
        let answer = match self.config.answer {
            None => answer.await,
            Some(limit) => tokio::time::timeout(limit, answer)
                .await
                .map_err(|_| WireError::TimedOut { authority: authority.clone(), seconds: limit.as_secs() })?,
        };
        answer.map_err(|error| explain(error, authority))
    }
}

/// Reads a body of at most `limit` bytes.
pub async fn read_all(mut body: Incoming, limit: usize) -> Result<Bytes, WireError> {
    // As long as it is said to be: what grows is copied again and again.
    let said = body.size_hint().exact().and_then(|said| usize::try_from(said).ok()).unwrap_or(0);
    let mut all = BytesMut::with_capacity(said.min(limit));
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(broken)?;
        if let Some(data) = frame.data_ref() {
            if all.len() + data.len() > limit {
                return Err(WireError::TooLong(limit));
            }
            all.extend_from_slice(data);
        }
    }
    Ok(all.freeze())
}

/// Reads a body of exactly as many bytes as `out` has room for, to where they belong.
pub async fn read_into(mut body: Incoming, out: &mut [u8]) -> Result<(), WireError> {
    let mut at = 0;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(broken)?;
        let Some(data) = frame.data_ref() else { continue };
        let room = out.get_mut(at..at + data.len()).ok_or(WireError::TooLong(at))?;
        room.copy_from_slice(data);
        at += data.len();
    }
    if at == out.len() { Ok(()) } else { Err(WireError::TooShort { len: at, expected: out.len() }) }
}

fn broken(source: hyper::Error) -> WireError {
    WireError::Broken { authority: "the server".to_owned(), source: source.into() }
}

/// Turns hyper's error into the one that names what to do: the connector's own, where it made one.
fn explain(error: legacy::Error, authority: String) -> WireError {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(&error);
    while let Some(current) = cause {
        if let Some(refused) = current.downcast_ref::<Refused>() {
            return refused.explain(authority);
        }
        cause = current.source();
    }
    WireError::Broken { authority, source: error.into() }
}

fn tls_of(trust: Trust) -> Option<TlsConnector> {
    let config = match trust {
        Trust::Plain => return None,
        Trust::Pin(pin) => PinVerifier::new(Some(pin)).tls_config(),
        Trust::Ca(authorities) => ca_config(authorities),
    };
    Some(TlsConnector::from(Arc::new(config)))
}

/// A TLS configuration that trusts servers whose certificate names them and is signed by one of these authorities, speaking HTTP/1.1.
#[must_use]
pub fn ca_config(authorities: Vec<CertificateDer<'static>>) -> rustls::ClientConfig {
    let mut roots = rustls::RootCertStore::empty();
    roots.add_parsable_certificates(authorities);
    let mut config = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("ring supports the default protocol versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config
}

/// What the connector says to [`explain`], through hyper's error.
#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error("{0}")]
    Address(String),
    #[error("no connection")]
    Connect(#[source] io::Error),
    #[error("no TLS")]
    Tls(#[source] io::Error),
}

impl Refused {
    fn explain(&self, authority: String) -> WireError {
        match self {
            Self::Address(text) => WireError::Address(text.clone()),
            Self::Connect(source) => WireError::Unreachable { authority, source: copy_of(source).into() },
            Self::Tls(source) => match mismatch_in(source) {
                Some(mismatch) => WireError::PinMismatch { authority, mismatch },
                None => WireError::Tls { authority, source: copy_of(source).into() },
            },
        }
    }
}

/// An I/O error cannot be cloned; its kind and text can.
fn copy_of(error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), error.to_string())
}

fn mismatch_in(error: &io::Error) -> Option<PinMismatch> {
    match error.get_ref()?.downcast_ref::<rustls::Error>()? {
        rustls::Error::InvalidCertificate(rustls::CertificateError::Other(other)) => {
            other.0.downcast_ref::<PinMismatch>().copied()
        }
        _ => None,
    }
}

#[derive(Clone)]
struct Connector {
    tls: Option<TlsConnector>,
    limit: Duration,
}

impl std::fmt::Debug for Connector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connector").field("tls", &self.tls.is_some()).field("limit", &self.limit).finish()
    }
}

impl Connector {
    async fn connect(self, uri: Uri) -> Result<TokioIo<Link>, Refused> {
        let secure = uri.scheme_str() == Some("https");
        let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']').to_owned();
        let port = uri.port_u16().unwrap_or(if secure { 443 } else { 80 });
        let tls = match (secure, self.tls) {
            (true, None) => {
                return Err(Refused::Address(format!(
                    "{uri} is an https address and no certificate is trusted: give the server's pin"
                )));
            }
            (false, Some(_)) => {
                return Err(Refused::Address(format!("{uri} would be asked in the clear: use its https address")));
            }
            (_, tls) => tls,
        };
        let late = || io::Error::new(io::ErrorKind::TimedOut, "no connection in time");
        let deadline = tokio::time::Instant::now() + self.limit;
        let stream = tokio::time::timeout_at(deadline, TcpStream::connect((host.as_str(), port)))
            .await
            .map_err(|_| Refused::Connect(late()))?
            .map_err(Refused::Connect)?;
        stream.set_nodelay(true).map_err(Refused::Connect)?;
        let Some(tls) = tls else { return Ok(TokioIo::new(Link(Box::new(stream)))) };
        let name = ServerName::try_from(host.clone())
            .map_err(|_| Refused::Address(format!("{host:?} is neither a host name nor an address")))?;
        let stream = tokio::time::timeout_at(deadline, tls.connect(name, stream))
            .await
            .map_err(|_| Refused::Tls(late()))?
            .map_err(Refused::Tls)?;
        Ok(TokioIo::new(Link(Box::new(stream))))
    }
}

impl tower_service::Service<Uri> for Connector {
    type Response = TokioIo<Link>;
    type Error = Refused;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        Box::pin(self.clone().connect(uri))
    }
}

trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// One connection, plain or TLS.
struct Link(Box<dyn Io>);

impl Connection for Link {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl AsyncRead for Link {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Link {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
