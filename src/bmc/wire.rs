//! The wire to one BMC: TLS with a pinned certificate, or plain HTTP where the URL says so; few connections, each
//! driven by whoever uses it, every wait bounded, every body bounded.

use std::io::Read as _;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use futures_util::FutureExt as _;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{self, HeaderValue};
use hyper::{HeaderMap, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use url::{Host, Url};

use super::exchange::{Answer, Ask, Body};
use super::gateway::Gateway;
use super::payload::Payload;
use super::pins::Pins;
use super::{BmcError, Reach, Timing, Trust};
use crate::model::limit;
use crate::sys::wire::PinVerifier;

/// Connections to one BMC at once: most are small computers that fall over under more.
const CONNECTIONS: usize = 2;
/// A waiting connection this old is not trusted with a read, nor a quarter as old with a write: many BMCs drop it
/// without a word.
const IDLE_AGE: Duration = Duration::from_secs(4);

/// One BMC's wire.
pub(super) struct Wire {
    bmc: String,
    host: Host<String>,
    port: u16,
    host_header: HeaderValue,
    tls: bool,
    /// The pin that must be shown; set by the first handshake where none is known.
    pin: Mutex<Option<[u8; 32]>>,
    /// What makes its certificate believed: a pin that was given is not remembered, and no pin is kept of who is believed by name.
    trust: Trust,
    pins: Arc<dyn Pins>,
    lines: Arc<Lines>,
    timing: Timing,
}

/// The connections to one BMC, shared by all that talk to it through one gateway: a job's steps, and a survey beside them.
pub(super) struct Lines {
    room: Arc<Semaphore>,
    idle: Mutex<Vec<Connection>>,
}

impl Lines {
    pub(super) fn new() -> Self {
        Self { room: Arc::new(Semaphore::new(CONNECTIONS)), idle: Mutex::default() }
    }

    /// Waits until one may be used.
    pub(super) async fn free(&self) -> OwnedSemaphorePermit {
        self.room.clone().acquire_owned().await.expect("the semaphore is never closed")
    }
}

type Driver = Pin<Box<dyn Future<Output = Result<(), hyper::Error>> + Send>>;

struct Connection {
    sender: SendRequest<Payload>,
    driver: Driver,
    used: Instant,
}

/// Why an exchange on a connection failed.
enum Fault {
    Broken(hyper::Error),
    TooLarge,
    /// What came compressed cannot be decompressed.
    Garbled(std::io::Error),
}

impl Wire {
    /// A wire to the origin of `url`, which is http or https with a host.
    pub(super) fn new(
        url: &Url,
        trust: Trust,
        pins: Arc<dyn Pins>,
        timing: Timing,
        gateway: &Gateway,
    ) -> Result<Self, BmcError> {
        let address = |why: &str| BmcError::Address { text: url.to_string(), why: why.to_owned() };
        let host = url.host().ok_or_else(|| address("it has no host"))?.to_owned();
        let port = url.port_or_known_default().ok_or_else(|| address("it has no port"))?;
        let bmc = format!("{host}:{port}");
        let shown = url.port().map_or_else(|| host.to_string(), |port| format!("{host}:{port}"));
        let host_header = HeaderValue::from_str(&shown).map_err(|_| address("its host cannot be sent in a header"))?;
        let tls = url.scheme() == "https";
        // What one pin let in is not for who asks for another.
        let lines = gateway.lines(&format!("{} {bmc} {}", url.scheme(), hex::encode(trust.fingerprint())));
        let pin = Mutex::new(match &trust {
            Trust::Known => pins.known(&bmc),
            Trust::Pin(pin) => Some(*pin),
            Trust::Site(_) => None,
        });
        Ok(Self { bmc, host, port, host_header, tls, pin, trust, pins, lines, timing })
    }

    /// The connections to it.
    pub(super) fn lines(&self) -> Arc<Lines> {
        self.lines.clone()
    }

    /// The BMC as people and pins name it: host and port.
    pub(super) fn name(&self) -> &str {
        &self.bmc
    }

    /// Sends one request once. `limit` bounds the wait for the whole answer.
    pub(super) async fn send(&self, ask: &Ask, extra: &HeaderMap, limit: Duration) -> Result<Answer, BmcError> {
        let mut connection = match self.waiting(ask.is_safe()) {
            Some(connection) => connection,
            None => self.connect().await?,
        };
        let request = self.request(ask, extra).await?;
        let answered = timeout(limit, connection.exchange(request)).await;
        match answered {
            Err(_) => Err(self.timed_out("answer", limit)),
            Ok(Err(Fault::TooLarge)) => {
                Err(BmcError::TooLarge { bmc: self.bmc.clone(), request: ask.name(), limit: limit::BMC_BODY_MAX })
            }
            Ok(Err(Fault::Garbled(error))) => Err(BmcError::Unreadable {
                bmc: self.bmc.clone(),
                request: ask.name(),
                why: format!("it cannot be decompressed: {error}"),
            }),
            Ok(Err(Fault::Broken(error))) => Err(self.unreachable(Reach::Broken(root_cause(&error)))),
            Ok(Ok(answer)) => {
                connection.used = Instant::now();
                let mut idle = self.lines.idle.lock().unwrap_or_else(PoisonError::into_inner);
                if idle.len() < CONNECTIONS {
                    idle.push(connection);
                }
                Ok(answer)
            }
        }
    }

    /// Sends one request whose answer is taken as it comes, on a connection of its own. `limit` bounds the wait for its head.
    pub(super) async fn open(&self, ask: &Ask, extra: &HeaderMap, limit: Duration) -> Result<Stream, BmcError> {
        let free = self.lines.free().await;
        // One that waits, so that there are never more than may be.
        let mut connection = match self.waiting(ask.is_safe()) {
            Some(connection) => connection,
            None => self.connect().await?,
        };
        let mut request = self.request(ask, extra).await?;
        request.headers_mut().insert(header::ACCEPT, HeaderValue::from_static("text/event-stream"));
        let head = timeout(limit, connection.head(request)).await.map_err(|_| self.timed_out("answer", limit))?;
        let head = head.map_err(|error| self.unreachable(Reach::Broken(root_cause(&error))))?;
        let (parts, body) = head.into_parts();
        Ok(Stream { status: parts.status, body, connection, bmc: self.bmc.clone(), _free: free })
    }

    fn waiting(&self, safe: bool) -> Option<Connection> {
        let age = if safe { IDLE_AGE } else { IDLE_AGE / 4 };
        let mut idle = self.lines.idle.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some(mut connection) = idle.pop() {
            if connection.used.elapsed() < age && connection.is_open() {
                return Some(connection);
            }
        }
        None
    }

    async fn request(&self, ask: &Ask, extra: &HeaderMap) -> Result<Request<Payload>, BmcError> {
        let mut extra = extra.clone();
        let json = HeaderValue::from_static("application/json");
        let (payload, kind) = match &ask.body {
            Body::Json(body) => (Payload::from(body.clone()), (!body.is_empty()).then_some(json)),
            Body::Upload(upload) => {
                let local = |why: String| BmcError::Local { what: format!("reading {}", upload.name()), why };
                let kind = HeaderValue::from_str(upload.content_type()).map_err(|e| local(e.to_string()))?;
                if let Some(cookie) = &upload.cookie {
                    let mut cookie = HeaderValue::from_str(cookie).map_err(|e| local(e.to_string()))?;
                    cookie.set_sensitive(true);
                    extra.insert(header::COOKIE, cookie);
                }
                (upload.open().await.map_err(|e| local(e.to_string()))?, Some(kind))
            }
        };
        let mut request = Request::new(payload);
        *request.method_mut() = ask.method.clone();
        // The path was checked when the request was taken in; a path that is no URI reaches no BMC.
        *request.uri_mut() = ask.path.parse().unwrap_or_default();
        let headers = request.headers_mut();
        headers.insert(header::HOST, self.host_header.clone());
        headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
        let coding = if ask.compressed { "gzip" } else { "identity" };
        headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static(coding));
        headers.insert(header::USER_AGENT, HeaderValue::from_static(concat!("bedplate/", env!("CARGO_PKG_VERSION"))));
        headers.insert("odata-version", HeaderValue::from_static("4.0"));
        if let Some(kind) = kind {
            headers.insert(header::CONTENT_TYPE, kind);
        }
        for (name, value) in &extra {
            headers.insert(name, value.clone());
        }
        Ok(request)
    }

    async fn connect(&self) -> Result<Connection, BmcError> {
        let tcp = self.tcp().await?;
        // A BMC's answers are small and waited for; without this each costs a delayed acknowledgement.
        tcp.set_nodelay(true).map_err(|e| self.unreachable(Reach::Broken(e.to_string())))?;
        match self.tls {
            false => self.speak(tcp).await,
            true => self.speak(self.shake_hands(tcp).await?).await,
        }
    }

    async fn tcp(&self) -> Result<TcpStream, BmcError> {
        let wait = self.timing.connect;
        let connecting = async {
            match &self.host {
                Host::Domain(name) => {
                    let found = tokio::net::lookup_host((name.as_str(), self.port)).await;
                    let found: Vec<_> = found.map_err(|e| self.unreachable(Reach::Name(e.to_string())))?.collect();
                    TcpStream::connect(&*found).await.map_err(|e| self.no_connection(&e))
                }
                Host::Ipv4(ip) => TcpStream::connect((*ip, self.port)).await.map_err(|e| self.no_connection(&e)),
                Host::Ipv6(ip) => TcpStream::connect((*ip, self.port)).await.map_err(|e| self.no_connection(&e)),
            }
        };
        timeout(wait, connecting).await.map_err(|_| self.timed_out("connection", wait))?
    }

    async fn shake_hands(
        &self,
        tcp: TcpStream,
    ) -> Result<impl AsyncRead + AsyncWrite + Send + Unpin + 'static, BmcError> {
        if let Trust::Site(site) = &self.trust {
            return self.secured(tcp, site.config()).await;
        }
        let known = *self.pin.lock().unwrap_or_else(PoisonError::into_inner);
        let verifier = PinVerifier::new(known);
        let shaken = self.secured(tcp, Arc::new(verifier.clone().tls_config())).await;
        let seen = verifier.seen();
        if let (Some(known), Some(seen)) = (known, seen)
            && known != seen
        {
            return Err(self.pin_changed(known, seen));
        }
        let stream = shaken?;
        let seen = seen.ok_or_else(|| self.tls_failed(&"it showed no certificate"))?;
        self.pin_down(seen)?;
        Ok(stream)
    }

    async fn secured(&self, tcp: TcpStream, config: Arc<ClientConfig>) -> Result<TlsStream<TcpStream>, BmcError> {
        let host = match &self.host {
            Host::Domain(name) => ServerName::try_from(name.clone()).map_err(|e| self.tls_failed(&e))?,
            Host::Ipv4(ip) => ServerName::from(std::net::IpAddr::from(*ip)),
            Host::Ipv6(ip) => ServerName::from(std::net::IpAddr::from(*ip)),
        };
        let shaking = TlsConnector::from(config).connect(host, tcp);
        let shaken = timeout(self.timing.connect, shaking).await;
        shaken.map_err(|_| self.timed_out("TLS handshake", self.timing.connect))?.map_err(|e| self.tls_failed(&e))
    }

    /// The pin of the certificate that the BMC shows now, whatever is known of it; none over plain HTTP. Nothing is sent.
    pub(super) async fn shown_pin(&self) -> Result<Option<[u8; 32]>, BmcError> {
        if !self.tls {
            return Ok(None);
        }
        let _free = self.lines.free().await;
        // In place of one that waits, so that there are never more than may be.
        drop(self.waiting(true));
        let verifier = PinVerifier::new(None);
        self.secured(self.tcp().await?, Arc::new(verifier.clone().tls_config())).await?;
        Ok(verifier.seen())
    }

    /// Keeps the pin of a certificate that was put in, in place of the former.
    pub(super) fn keep_pin(&self, pin: [u8; 32]) -> Result<(), BmcError> {
        self.lines.idle.lock().unwrap_or_else(PoisonError::into_inner).clear();
        if matches!(self.trust, Trust::Site(_)) {
            return Ok(());
        }
        self.pins.remember(&self.bmc, pin)?;
        tracing::info!(target: "audit", bmc = self.bmc, pin = hex::encode(pin), "BMC certificate exchanged");
        *self.pin.lock().unwrap_or_else(PoisonError::into_inner) = Some(pin);
        Ok(())
    }

    /// Keeps a pin that was seen for the first time, before anything is sent.
    fn pin_down(&self, seen: [u8; 32]) -> Result<(), BmcError> {
        let mut pin = self.pin.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = *pin
            && known != seen
        {
            return Err(self.pin_changed(known, seen));
        }
        if self.pins.known(&self.bmc) != Some(seen) {
            self.pins.remember(&self.bmc, seen)?;
            tracing::info!(target: "audit", bmc = self.bmc, pin = hex::encode(seen), "BMC certificate remembered");
        }
        *pin = Some(seen);
        Ok(())
    }

    async fn speak(
        &self,
        stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    ) -> Result<Connection, BmcError> {
        let spoken = timeout(self.timing.connect, handshake(TokioIo::new(stream))).await;
        let (sender, driver) = spoken
            .map_err(|_| self.timed_out("HTTP connection", self.timing.connect))?
            .map_err(|e| self.unreachable(Reach::Broken(e.to_string())))?;
        Ok(Connection { sender, driver: Box::pin(driver), used: Instant::now() })
    }

    fn no_connection(&self, error: &std::io::Error) -> BmcError {
        self.unreachable(match error.kind() {
            std::io::ErrorKind::ConnectionRefused => Reach::Refused,
            std::io::ErrorKind::TimedOut => {
                Reach::TimedOut { phase: "connection", seconds: self.timing.connect.as_secs() }
            }
            _ => Reach::Broken(error.to_string()),
        })
    }

    fn unreachable(&self, why: Reach) -> BmcError {
        BmcError::Unreachable { bmc: self.bmc.clone(), why }
    }

    fn timed_out(&self, phase: &'static str, after: Duration) -> BmcError {
        self.unreachable(Reach::TimedOut { phase, seconds: after.as_secs() })
    }

    fn tls_failed(&self, why: &dyn std::fmt::Display) -> BmcError {
        BmcError::Tls { bmc: self.bmc.clone(), why: why.to_string() }
    }

    fn pin_changed(&self, known: [u8; 32], seen: [u8; 32]) -> BmcError {
        let place = matches!(self.trust, Trust::Known).then(|| self.pins.place());
        BmcError::PinChanged { bmc: self.bmc.clone(), known, seen, place }
    }
}

/// An answer that is taken as it comes.
pub(super) struct Stream {
    pub(super) status: StatusCode,
    body: Incoming,
    connection: Connection,
    bmc: String,
    _free: OwnedSemaphorePermit,
}

impl Stream {
    /// How long nothing may come: a BMC that has something to say, or to keep alive, says it sooner.
    const SILENCE: Duration = Duration::from_secs(600);

    /// What comes next; none at its end, or after a long silence.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, BmcError> {
        loop {
            let frame = tokio::select! {
                biased;
                frame = self.body.frame() => frame,
                _ = &mut self.connection.driver => {
                    // What it has delivered is still to be read.
                    self.connection.driver = Box::pin(std::future::pending());
                    continue;
                }
                () = tokio::time::sleep(Self::SILENCE) => return Ok(None),
            };
            let broken =
                |error| BmcError::Unreachable { bmc: self.bmc.clone(), why: Reach::Broken(root_cause(&error)) };
            match frame.transpose().map_err(broken)?.map(hyper::body::Frame::into_data) {
                None => return Ok(None),
                Some(Ok(bytes)) => return Ok(Some(bytes)),
                Some(Err(_)) => {}
            }
        }
    }
}

impl Connection {
    /// Sends a request and waits for the head of its answer.
    async fn head(&mut self, request: Request<Payload>) -> Result<Response<Incoming>, hyper::Error> {
        let sender = &mut self.sender;
        let head = async {
            sender.ready().await?;
            sender.send_request(request).await
        };
        let mut head = std::pin::pin!(head);
        tokio::select! {
            biased;
            head = &mut head => return head,
            _ = &mut self.driver => {}
        }
        self.driver = Box::pin(std::future::pending());
        head.await
    }

    /// Whether the BMC has kept it open; gives the connection a chance to notice that it was not.
    fn is_open(&mut self) -> bool {
        (&mut self.driver).now_or_never().is_none() && !self.sender.is_closed()
    }

    async fn exchange(&mut self, request: Request<Payload>) -> Result<Answer, Fault> {
        let sender = &mut self.sender;
        let exchange = async {
            sender.ready().await.map_err(Fault::Broken)?;
            let (parts, body) = sender.send_request(request).await.map_err(Fault::Broken)?.into_parts();
            let mut body = bounded(body).await?;
            if parts.headers.get(header::CONTENT_ENCODING).is_some_and(|coding| coding == "gzip") {
                body = unpack(&body)?;
            }
            Ok(Answer { status: parts.status, headers: parts.headers, body })
        };
        let mut exchange = std::pin::pin!(exchange);
        // The driver moves the bytes; when it ends, what it has delivered is still to be read.
        tokio::select! {
            biased;
            answer = &mut exchange => return answer,
            _ = &mut self.driver => {}
        }
        self.driver = Box::pin(std::future::ready(Ok(())));
        exchange.await
    }
}

async fn bounded(mut body: Incoming) -> Result<Bytes, Fault> {
    let mut bytes = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(Fault::Broken)?.into_data() else { continue };
        if bytes.len() + data.len() > limit::BMC_BODY_MAX {
            return Err(Fault::TooLarge);
        }
        bytes.extend_from_slice(&data);
    }
    Ok(bytes.freeze())
}

/// Decompresses an answer, bounded as every answer is.
fn unpack(body: &[u8]) -> Result<Bytes, Fault> {
    let mut unpacked = Vec::new();
    let limit = limit::BMC_BODY_MAX as u64 + 1;
    flate2::read::GzDecoder::new(body).take(limit).read_to_end(&mut unpacked).map_err(Fault::Garbled)?;
    if unpacked.len() > limit::BMC_BODY_MAX { Err(Fault::TooLarge) } else { Ok(unpacked.into()) }
}

fn root_cause(error: &hyper::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause.to_string()
}
