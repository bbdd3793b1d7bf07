//! The loopback door between the `redfish` crate and a BMC. The crate speaks plain HTTP to it with this process's
//! secret; what goes out to the BMC, and what comes back, is [`Exchange`]'s to decide.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{self, HeaderValue};
use hyper::{Request, Response, StatusCode};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use url::Url;

use super::BmcError;
use super::exchange::{Ask, Exchange};
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
const FAULTS_MAX: usize = 64;

/// An open gateway; it lives as long as its workers.
pub(super) struct Gateway {
    /// `http://127.0.0.1:port/`.
    pub(super) base: Url,
    /// The secret that each request must carry.
    pub(super) secret: HeaderValue,
    /// Errors on their way to the caller.
    pub(super) faults: Arc<Faults>,
}

impl Gateway {
    /// Opens the gateway. When the workers stop it drains, and ends the session at the BMC.
    pub(super) async fn open(exchange: Arc<Exchange>, workers: &Workers) -> Result<Self, BmcError> {
        let local = |why: String| BmcError::Local { what: "opening a local port to talk to BMCs".to_owned(), why };
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.map_err(|e| local(e.to_string()))?;
        let address = listener.local_addr().map_err(|e| local(e.to_string()))?;
        let base = Url::parse(&format!("http://{address}/")).map_err(|e| local(e.to_string()))?;
        let mut secret = HeaderValue::from_str(&entropy::token()).map_err(|e| local(e.to_string()))?;
        secret.set_sensitive(true);
        let faults = Arc::<Faults>::default();
        let door = Door { exchange: exchange.clone(), secret: secret.clone(), faults: faults.clone() };
        let token = workers.token();
        workers.spawn("bmc-gateway", async move {
            serve(listener, Tls::Off, door, Patience::default(), token).await;
            exchange.close().await;
        });
        Ok(Self { base, secret, faults })
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
    exchange: Arc<Exchange>,
    secret: HeaderValue,
    faults: Arc<Faults>,
}

impl Door {
    async fn answer(self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let shown = request.headers().get(SECRET).map(HeaderValue::as_bytes).unwrap_or_default();
        if !same(shown, self.secret.as_bytes()) {
            return respond(StatusCode::FORBIDDEN, &json!({ "error": { "code": "bedplate.stranger" } }));
        }
        let (parts, body) = request.into_parts();
        let Ok(body) = Limited::new(body, REQUEST_MAX).collect().await else {
            return respond(StatusCode::PAYLOAD_TOO_LARGE, &json!({ "error": { "code": "bedplate.too-large" } }));
        };
        let path = parts.uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
        let ask = Ask::json(parts.method, path, body.to_bytes());
        match self.exchange.carry(ask).await {
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

    use super::super::{Address, Facts, MemoryPins, Target, Timing, open};
    use super::*;

    async fn status(base: &Url, secret: Option<&str>) -> u16 {
        let stream = tokio::net::TcpStream::connect(base.socket_addrs(|| None).unwrap()[0]).await.unwrap();
        let (mut sender, driver) =
            hyper::client::conn::http1::handshake(hyper_util::rt::TokioIo::new(stream)).await.unwrap();
        let mut request = Request::get("/redfish/v1/").header(header::HOST, "gateway");
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
        let target = Target { address, system: None, credentials: None, pin: None, without: Facts::default() };
        let exchange = Arc::new(open(&target, Arc::new(MemoryPins::default()), Timing::default()).unwrap());
        let workers = Workers::new();
        let gateway = Gateway::open(exchange, &workers).await.unwrap();
        let secret = gateway.secret.to_str().unwrap().to_owned();
        assert_eq!(status(&gateway.base, None).await, 403);
        assert_eq!(status(&gateway.base, Some(&"0".repeat(secret.len()))).await, 403);
        assert_eq!(status(&gateway.base, Some(&secret[1..])).await, 403);
        assert_eq!(status(&gateway.base, Some(&secret)).await, 200);
        workers.stop().await;
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
