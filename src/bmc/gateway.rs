//! The loopback door between the `redfish` crate and a BMC. The crate speaks plain HTTP to it with this process's
//! secret; what goes out to the BMC, and what comes back, is [`Exchange`]'s to decide.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{self, HeaderValue};
use hyper::{Request, Response, StatusCode};
use redfish::{HeaderName, RetryPolicy};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use url::Url;

use super::BmcError;
use super::exchange::{Ask, Exchange};
use super::trace::{Trace, Traced};
use super::wire::Lines;
use crate::sys::entropy;
use crate::sys::wire::{Patience, Tls, serve};
use crate::sys::worker::Workers;

/// The header that carries the secret.
pub(super) const SECRET: &str = "x-bedplate-gateway";
/// Marks an answer that stands for an error kept in [`Faults`].
pub(super) const FAULT: &str = "bedplate.fault";
/// Our own requests to a BMC are small.
const REQUEST_MAX: usize = 1024 * 1024;
/// Errors that wait to be fetched; more than requests can be under way.
const FAULTS_MAX: usize = 8192;
/// BMCs whose last requests are kept while nobody talks to them.
const TRACES_MAX: usize = 1024;
/// Longer than anything that the gateway waits for: the gateway's limits are the ones that count.
const PATIENCE: Duration = Duration::from_secs(3600);

/// An open gateway. Any number of BMCs share one: each has a room of its own, whose number is the first part of its paths.
pub struct Gateway {
    base: Url,
    #[cfg(test)]
    secret: HeaderValue,
    redfish: redfish::Client,
    faults: Arc<Faults>,
    rooms: Rooms,
    next: AtomicU64,
    /// Connections, by whom they lead to.
    lines: Mutex<BTreeMap<String, Weak<Lines>>>,
    /// The last requests to each BMC, by its name.
    traces: Mutex<BTreeMap<String, Arc<Trace>>>,
    workers: Workers,
}

/// What goes on in each room.
type Rooms = Arc<Mutex<BTreeMap<u64, Arc<Exchange>>>>;

/// One BMC's room; leaving it closes the door behind it.
pub(super) struct Room {
    number: u64,
    gateway: Arc<Gateway>,
}

impl Gateway {
    /// Opens the gateway. It closes when the last who holds it lets go.
    ///
    /// # Errors
    /// [`BmcError::Local`] where no port is free.
    pub async fn open() -> Result<Arc<Self>, BmcError> {
        let local = |why: String| BmcError::Local { what: "opening a local port to talk to BMCs".to_owned(), why };
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.map_err(|e| local(e.to_string()))?;
        let address = listener.local_addr().map_err(|e| local(e.to_string()))?;
        let base = Url::parse(&format!("http://{address}/")).map_err(|e| local(e.to_string()))?;
        let mut secret = HeaderValue::from_str(&entropy::token()).map_err(|e| local(e.to_string()))?;
        secret.set_sensitive(true);
        let (faults, rooms) = (Arc::<Faults>::default(), Rooms::default());
        let door = Door { rooms: rooms.clone(), secret: secret.clone(), faults: faults.clone() };
        let workers = Workers::new();
        let token = workers.token();
        workers.spawn("bmc-gateway", async move {
            serve(listener, Tls::Off, door, Patience::default(), token).await;
        });
        let redfish = redfish::Client::builder(base.as_str())
            .map_err(|e| local(e.to_string()))?
            .default_header(HeaderName::from_static(SECRET), secret.clone())
            .retry_policy(RetryPolicy::default().with_max_retries(0))
            .timeout(PATIENCE)
            .body_snippet_limit(4096)
            .build()
            .map_err(|e| local(e.to_string()))?;
        Ok(Arc::new(Self {
            base,
            #[cfg(test)]
            secret,
            redfish,
            faults,
            rooms,
            next: AtomicU64::new(1),
            lines: Mutex::default(),
            traces: Mutex::default(),
            workers,
        }))
    }

    /// The connections to one BMC, which all share that ask under the same name.
    pub(super) fn lines(&self, name: &str) -> Arc<Lines> {
        let mut all = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(lines) = all.get(name).and_then(Weak::upgrade) {
            return lines;
        }
        all.retain(|_, lines| lines.strong_count() > 0);
        let lines = Arc::new(Lines::new());
        all.insert(name.to_owned(), Arc::downgrade(&lines));
        lines
    }

    /// The last requests to a BMC, kept also while nobody talks to it.
    pub(super) fn trace(&self, bmc: &str) -> Arc<Trace> {
        let mut all = self.traces.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= TRACES_MAX && !all.contains_key(bmc) {
            all.retain(|_, trace| Arc::strong_count(trace) > 1);
        }
        all.entry(bmc.to_owned()).or_default().clone()
    }

    /// The last requests to the BMC at this address (`host:port`), oldest first.
    #[must_use]
    pub fn traced(&self, bmc: &str) -> Vec<Traced> {
        let all = self.traces.lock().unwrap_or_else(PoisonError::into_inner);
        all.get(bmc).map(|trace| trace.all()).unwrap_or_default()
    }

    /// Gives a BMC a room.
    pub(super) fn enter(self: Arc<Self>, exchange: Arc<Exchange>) -> Room {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        self.rooms.lock().unwrap_or_else(PoisonError::into_inner).insert(number, exchange);
        Room { number, gateway: self }
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.workers.token().cancel();
    }
}

impl Room {
    /// `http://127.0.0.1:port/number/redfish/...` for a path of the BMC; none for what leads elsewhere.
    pub(super) fn url(&self, link: &str) -> Option<Url> {
        let url = self.gateway.base.join(link).ok()?;
        if url.origin() != self.gateway.base.origin() {
            return None;
        }
        let mut within = url.clone();
        within.set_path(&format!("/{}{}", self.number, url.path()));
        within.set_fragment(None);
        Some(within)
    }

    /// The path at the BMC of an address that [`Room::url`] made.
    pub(super) fn path<'a>(&self, url: &'a str) -> &'a str {
        let path = url.strip_prefix(self.gateway.base.as_str()).and_then(|rest| rest.find('/').map(|at| &rest[at..]));
        path.unwrap_or(url)
    }

    /// The `redfish` crate's client.
    pub(super) fn redfish(&self) -> &redfish::Client {
        &self.gateway.redfish
    }

    /// Errors on their way to the caller.
    pub(super) fn faults(&self) -> &Faults {
        &self.gateway.faults
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.gateway.rooms.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.number);
    }
}

/// Errors in full, waiting under a number while their answers travel through the `redfish` crate as status 500.
#[derive(Default)]
pub(super) struct Faults(Mutex<(u64, BTreeMap<u64, BmcError>)>);

impl Faults {
    fn keep(&self, error: BmcError) -> u64 {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.0 += 1;
        let id = state.0;
        state.1.insert(id, error);
        while state.1.len() > FAULTS_MAX {
            state.1.pop_first();
        }
        id
    }

    /// Fetches an error; once.
    pub(super) fn take(&self, id: u64) -> Option<BmcError> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).1.remove(&id)
    }
}

#[derive(Clone)]
struct Door {
    rooms: Rooms,
    secret: HeaderValue,
    faults: Arc<Faults>,
}

impl Door {
    /// Whose room a path leads to, and where in it.
    fn room(&self, path: &str) -> Option<(Arc<Exchange>, String)> {
        let (number, rest) = path.strip_prefix('/')?.split_once('/')?;
        let rooms = self.rooms.lock().unwrap_or_else(PoisonError::into_inner);
        Some((rooms.get(&number.parse().ok()?)?.clone(), format!("/{rest}")))
    }

    async fn answer(self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let shown = request.headers().get(SECRET).map(HeaderValue::as_bytes).unwrap_or_default();
        if !same(shown, self.secret.as_bytes()) {
            return respond(StatusCode::FORBIDDEN, &json!({ "error": { "code": "bedplate.stranger" } }));
        }
        let (parts, body) = request.into_parts();
        let Ok(body) = Limited::new(body, REQUEST_MAX).collect().await else {
            return respond(StatusCode::PAYLOAD_TOO_LARGE, &json!({ "error": { "code": "bedplate.too-large" } }));
        };
        let Some((exchange, path)) = self.room(parts.uri.path_and_query().map_or("/", |path| path.as_str())) else {
            return respond(StatusCode::NOT_FOUND, &json!({ "error": { "code": "bedplate.no-room" } }));
        };
        let ask = Ask::json(parts.method, path, body.to_bytes());
        match exchange.carry(ask).await {
            Ok(value) => respond(StatusCode::OK, &value),
            Err(error) => {
                let id = self.faults.keep(error).to_string();
                let fault = json!({ "error": { "code": FAULT, "message": id } });
                respond(StatusCode::INTERNAL_SERVER_ERROR, &fault)
            }
        }
    }
}

/// Compares in a time that does not tell how much is right.
fn same(shown: &[u8], secret: &[u8]) -> bool {
    shown.len() == secret.len() && shown.iter().zip(secret).fold(0, |odd, (a, b)| odd | (a ^ b)) == 0
}

fn respond(status: StatusCode, value: &Value) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(value.to_string())));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

impl tower_service::Service<Request<Incoming>> for Door {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Incoming>) -> Self::Future {
        let door = self.clone();
        Box::pin(async move { Ok(door.answer(request).await) })
    }
}

#[cfg(test)]
mod tests {
    //! Only who knows the secret gets through the gateway, and errors wait there no longer than they must.
    use http_body_util::Empty;

    use super::super::{Address, Facts, MemoryPins, Target, Timing, Trust, open};
    use super::*;

    async fn status(base: &Url, secret: Option<&str>) -> u16 {
        let stream = tokio::net::TcpStream::connect(base.socket_addrs(|| None).unwrap()[0]).await.unwrap();
        let (mut sender, driver) =
            hyper::client::conn::http1::handshake(hyper_util::rt::TokioIo::new(stream)).await.unwrap();
        let mut request = Request::get(base.path()).header(header::HOST, "gateway");
        if let Some(secret) = secret {
            request = request.header(SECRET, secret);
        }
        let answer = sender.send_request(request.body(Empty::<Bytes>::new()).unwrap());
        tokio::select! {
            answer = answer => answer.unwrap().status().as_u16(),
            _ = driver => 0,
        }
    }

    #[tokio::test]
    async fn strangers_are_turned_away() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("redfish/v1");
        std::fs::create_dir_all(&root).unwrap();
        std::fs::write(root.join("index.json"), r##"{"RedfishVersion": "1.0.0"}"##).unwrap();
        let address = Address::Folder(folder.path().to_owned());
        let target =
            Target { address, system: None, credentials: None, trust: Trust::Known, without: Facts::default() };
        let gateway = Gateway::open().await.unwrap();
        let exchange = Arc::new(open(&target, Arc::new(MemoryPins::default()), Timing::default(), &gateway).unwrap());
        let room = gateway.clone().enter(exchange);
        let base = room.url("/redfish/v1/").unwrap();
        let secret = gateway.secret.to_str().unwrap().to_owned();
        assert_eq!(status(&base, None).await, 403);
        assert_eq!(status(&base, Some(&"0".repeat(secret.len()))).await, 403);
        assert_eq!(status(&base, Some(&secret[1..])).await, 403);
        assert_eq!(status(&base, Some(&secret)).await, 200);
        drop(room);
        assert_eq!(status(&base, Some(&secret)).await, 404, "the room is closed");
    }

    #[test]
    fn errors_do_not_pile_up() {
        let faults = Faults::default();
        let error = |what: &str| BmcError::Local { what: what.to_owned(), why: String::new() };
        let first = faults.keep(error("first"));
        for _ in 0..FAULTS_MAX {
            faults.keep(error("later"));
        }
        assert_eq!(faults.take(first), None);
        let last = faults.keep(error("last"));
        assert_eq!(faults.take(last), Some(error("last")));
        assert_eq!(faults.take(last), None);
    }
}
