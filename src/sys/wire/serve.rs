//! The accept loop behind every front door: one port speaks plain HTTP and TLS, told apart by a connection's first
//! byte.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Incoming};
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use super::BoxError;

/// Connections served at once by one door; more wait in the kernel's queue.
const CONNECTIONS_MAX: usize = 4096;
/// For the first byte, the TLS handshake, and each request's head.
const GREETING_LIMIT: Duration = Duration::from_secs(30);
/// For the requests that are under way when the door closes.
const DRAIN_LIMIT: Duration = Duration::from_secs(10);
/// The first byte of every TLS connection, and of no HTTP request: a handshake record.
const TLS_HANDSHAKE: u8 = 0x16;

/// Who asks, in each request's extensions.
#[derive(Clone, Copy, Debug)]
pub struct Peer {
    /// Their address.
    pub addr: SocketAddr,
    /// Whether they speak TLS.
    pub tls: bool,
}

/// The certificate or its key is unusable.
#[derive(Debug, thiserror::Error)]
#[error("the server's certificate and key do not make a TLS server: remove both and start again to have new ones made")]
pub struct TlsError(#[source] rustls::Error);

/// The TLS side of a door, from a certificate and its PKCS #8 key in DER encoding.
pub fn tls_acceptor(certificate: Vec<u8>, key: &[u8]) -> Result<TlsAcceptor, TlsError> {
    let key = PrivateKeyDer::Pkcs8(key.to_vec().into());
    let mut config = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(TlsError)?
        .with_no_client_auth()
        .with_single_cert(vec![CertificateDer::from(certificate)], key)
        .map_err(TlsError)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// Serves connections until `token` is cancelled, then lets the requests under way finish, for ten seconds at most.
/// Without `tls`, a TLS connection is closed. Each request carries a [`Peer`] in its extensions.
pub async fn serve<S, B>(listener: TcpListener, tls: Option<TlsAcceptor>, service: S, token: CancellationToken)
where
    S: tower_service::Service<Request<Incoming>, Response = Response<B>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Into<BoxError>,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            () = token.cancelled() => break,
            Some(_) = connections.join_next() => continue,
            accepted = accept(&listener, &room) => accepted,
        };
        let (stream, addr, permit) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of file descriptors, most likely: give the connections that are open time to end.
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let (tls, service, token) = (tls.clone(), service.clone(), token.clone());
        connections.spawn(async move {
            let _permit = permit;
            if let Err(error) = converse(stream, addr, tls, service, token).await {
                tracing::debug!(%addr, %error, "a connection ended early");
            }
        });
    }
    drop(listener);
    let drained = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(DRAIN_LIMIT, drained).await.is_err() {
        tracing::warn!("requests were still under way when the door closed");
    }
}

async fn accept(
    listener: &TcpListener,
    room: &Arc<Semaphore>,
) -> std::io::Result<(TcpStream, SocketAddr, tokio::sync::OwnedSemaphorePermit)> {
    let permit = room.clone().acquire_owned().await.expect("the semaphore is never closed");
    let (stream, addr) = listener.accept().await?;
    Ok((stream, addr, permit))
}

/// One connection, from its first byte to its end.
async fn converse<S, B>(
    stream: TcpStream,
    addr: SocketAddr,
    tls: Option<TlsAcceptor>,
    service: S,
    token: CancellationToken,
) -> Result<(), BoxError>
where
    S: tower_service::Service<Request<Incoming>, Response = Response<B>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Into<BoxError>,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    stream.set_nodelay(true)?;
    let mut first = [0];
    let greeted = tokio::select! {
        () = token.cancelled() => return Ok(()),
        greeted = tokio::time::timeout(GREETING_LIMIT, stream.peek(&mut first)) => greeted??,
    };
    if greeted == 0 {
        return Ok(());
    }
    if first[0] != TLS_HANDSHAKE {
        return speak(stream, Peer { addr, tls: false }, service, token).await;
    }
    let Some(tls) = tls else { return Err("this port speaks plain HTTP only".into()) };
    let stream = tokio::time::timeout(GREETING_LIMIT, tls.accept(stream)).await??;
    speak(stream, Peer { addr, tls: true }, service, token).await
}

async fn speak<S, B>(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    peer: Peer,
    service: S,
    token: CancellationToken,
) -> Result<(), BoxError>
where
    S: tower_service::Service<Request<Incoming>, Response = Response<B>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Into<BoxError>,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    let service = TowerToHyperService::new(WithPeer { peer, inner: service });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(GREETING_LIMIT)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        ended = connection.as_mut() => return Ok(ended?),
        () = token.cancelled() => connection.as_mut().graceful_shutdown(),
    }
    Ok(connection.await?)
}

/// Adds [`Peer`] to each request.
#[derive(Clone)]
struct WithPeer<S> {
    peer: Peer,
    inner: S,
}

impl<S: tower_service::Service<Request<Incoming>>> tower_service::Service<Request<Incoming>> for WithPeer<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<Incoming>) -> Self::Future {
        request.extensions_mut().insert(self.peer);
        self.inner.call(request)
    }
}
