//! A scripted Redfish service in this process, over real TLS: well-behaved by default, and as odd as a test wants it.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use bedplate::bmc::twin::merge;
use bedplate::bmc::{Address, Bmc, BmcError, Credentials, Facts, Pins, Target, Timing, Trust};
use bedplate::model::Secret;
use bedplate::sys::wire::{Patience, ServerTls, Tls, install_crypto, pin_of, serve};
use bedplate::sys::worker::Workers;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::{HeaderMap, Request, Response};
use serde_json::{Value, json};

pub(crate) const SYSTEM: &str = "/redfish/v1/Systems/1";
pub(crate) const SLOT: &str = "/redfish/v1/Managers/1/VirtualMedia/CD";
pub(crate) const SESSIONS: &str = "/redfish/v1/SessionService/Sessions";
pub(crate) const PASSWORD: &str = "correct horse";

/// One request as it arrived.
#[derive(Clone)]
pub(crate) struct Seen {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Value,
    /// The body as it came.
    pub(crate) raw: Bytes,
}

impl Seen {
    pub(crate) fn is(&self, method: &str, path: &str) -> bool {
        self.method == method && self.path.trim_end_matches('/') == path
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }
}

/// What is answered.
pub(crate) enum Reply {
    /// An answer.
    Say { status: u16, headers: Vec<(&'static str, String)>, body: Vec<u8> },
    /// The connection is dropped without a word.
    Hang,
    /// The same, some time later.
    Late(Duration, Box<Reply>),
}

impl Reply {
    pub(crate) fn json(status: u16, body: &Value) -> Self {
        Self::Say { status, headers: vec![], body: body.to_string().into_bytes() }
    }

    pub(crate) fn empty(status: u16) -> Self {
        Self::Say { status, headers: vec![], body: vec![] }
    }

    pub(crate) fn with(self, name: &'static str, value: impl Into<String>) -> Self {
        match self {
            Self::Say { status, mut headers, body } => {
                headers.push((name, value.into()));
                Self::Say { status, headers, body }
            }
            other => other,
        }
    }
}

/// The service's state.
pub(crate) struct World {
    pub(crate) tree: BTreeMap<String, Value>,
    pub(crate) tokens: BTreeSet<String>,
    pub(crate) made: usize,
    pub(crate) seen: Vec<Seen>,
}

impl World {
    pub(crate) fn count(&self, method: &str, path: &str) -> usize {
        self.seen.iter().filter(|seen| seen.is(method, path)).count()
    }
}

type Hook = dyn Fn(&Seen, &mut World) -> Option<Reply> + Send + Sync;

/// A running service.
pub(crate) struct Double {
    pub(crate) url: String,
    pub(crate) pin: [u8; 32],
    /// Its certificate, which may be exchanged.
    pub(crate) tls: ServerTls,
    pub(crate) world: Arc<Mutex<World>>,
    workers: Workers,
}

impl Double {
    /// Starts one; `hook` answers before the well-behaved default does, or leaves it to that.
    pub(crate) async fn start(hook: impl Fn(&Seen, &mut World) -> Option<Reply> + Send + Sync + 'static) -> Self {
        install_crypto();
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let pin = pin_of(made.cert.der());
        let tls = ServerTls::new(vec![made.cert.der().clone()], made.signing_key.into()).unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://{}", listener.local_addr().unwrap());
        let world = World { tree: tree(), tokens: BTreeSet::new(), made: 0, seen: vec![] };
        let world = Arc::new(Mutex::new(world));
        let service = Service { world: world.clone(), hook: Arc::new(hook) };
        let workers = Workers::new();
        let token = workers.token();
        workers.spawn("double", serve(listener, Tls::Offered(tls.acceptor()), service, Patience::default(), token));
        Self { url, pin, tls, world, workers }
    }

    pub(crate) fn authority(&self) -> String {
        self.url.trim_start_matches("https://").to_owned()
    }

    pub(crate) fn target(&self) -> Target {
        let credentials = Credentials { username: "admin".to_owned(), password: Secret::new(PASSWORD) };
        let address: Address = self.url.parse().unwrap();
        Target { address, system: None, credentials: Some(credentials), trust: Trust::Known, without: Facts::default() }
    }

    pub(crate) async fn connect(&self, pins: &Arc<impl Pins>) -> Result<Bmc, BmcError> {
        Bmc::connect_with(&self.target(), pins.clone(), hasty()).await
    }

    pub(crate) async fn stop(self) {
        self.workers.stop().await;
    }
}

/// Waiting times for a service that answers at once.
pub(crate) fn hasty() -> Timing {
    Timing {
        connect: Duration::from_secs(5),
        answer: Duration::from_secs(5),
        slow_answer: Duration::from_secs(5),
        busy_pause: Duration::from_millis(10),
        busy_limit: Duration::from_secs(5),
        look: Duration::from_millis(10),
        power: Duration::from_millis(200),
        graceful: Duration::from_millis(200),
        media: Duration::from_millis(300),
        setting: Duration::from_millis(200),
        controller: Duration::from_millis(500),
        task: Duration::from_millis(500),
        upload: Duration::from_secs(5),
        firmware: Duration::from_millis(500),
    }
}

#[derive(Clone)]
struct Service {
    world: Arc<Mutex<World>>,
    hook: Arc<Hook>,
}

impl tower_service::Service<Request<Incoming>> for Service {
    type Response = Response<Full<Bytes>>;
    type Error = std::io::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, std::io::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), std::io::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Incoming>) -> Self::Future {
        let service = self.clone();
        Box::pin(async move {
            let (parts, body) = request.into_parts();
            let body = body.collect().await.map_err(std::io::Error::other)?.to_bytes();
            let seen = Seen {
                method: parts.method.to_string(),
                path: parts.uri.to_string(),
                headers: parts.headers,
                body: serde_json::from_slice(&body).unwrap_or_default(),
                raw: body,
            };
            let mut reply = {
                let mut world = service.world.lock().unwrap();
                world.seen.push(seen.clone());
                (service.hook)(&seen, &mut world).unwrap_or_else(|| behave(&seen, &mut world))
            };
            if let Reply::Late(late, then) = reply {
                tokio::time::sleep(late).await;
                reply = *then;
            }
            match reply {
                Reply::Late(..) => Err(std::io::Error::other("late twice")),
                Reply::Hang => Err(std::io::Error::other("the double hangs up")),
                Reply::Say { status, headers, body } => {
                    let mut response = Response::builder().status(status);
                    for (name, value) in headers {
                        response = response.header(name, value);
                    }
                    Ok(response.body(Full::new(Bytes::from(body))).unwrap())
                }
            }
        })
    }
}

/// What a service does that keeps to the standard.
pub(crate) fn behave(seen: &Seen, world: &mut World) -> Reply {
    let path = seen.path.trim_end_matches('/').to_owned();
    if seen.is("POST", SESSIONS) {
        if seen.body["Password"] != PASSWORD {
            return Reply::empty(401);
        }
        world.made += 1;
        let token = format!("token-{}", world.made);
        world.tokens.insert(token.clone());
        let place = format!("{SESSIONS}/{}", world.made);
        return Reply::json(201, &json!({ "@odata.id": place })).with("X-Auth-Token", token).with("Location", place);
    }
    let known = seen.header("x-auth-token").is_some_and(|token| world.tokens.contains(token));
    if path != "/redfish/v1" && !known {
        return Reply::empty(401);
    }
    match seen.method.as_str() {
        "GET" => match world.tree.get(&path) {
            Some(document) => Reply::json(200, document),
            None => Reply::empty(404),
        },
        "DELETE" => {
            let number = path.rsplit('/').next().unwrap_or_default();
            world.tokens.remove(&format!("token-{number}"));
            Reply::empty(204)
        }
        "PATCH" => {
            let Some(document) = world.tree.get_mut(&path) else { return Reply::empty(404) };
            merge(document, &seen.body);
            Reply::empty(204)
        }
        "POST" => act(&path, seen, world),
        _ => Reply::empty(405),
    }
}

fn act(path: &str, seen: &Seen, world: &mut World) -> Reply {
    let power = match seen.body["ResetType"].as_str() {
        Some("On" | "ForceRestart") => "On",
        _ => "Off",
    };
    let slot = |world: &mut World, image: Value| {
        world.tree.get_mut(SLOT).unwrap()["Inserted"] = json!(!image.is_null());
        world.tree.get_mut(SLOT).unwrap()["Image"] = image;
    };
    match path.rsplit('/').next() {
        Some("ComputerSystem.Reset") => world.tree.get_mut(SYSTEM).unwrap()["PowerState"] = json!(power),
        Some("VirtualMedia.InsertMedia") => slot(world, seen.body["Image"].clone()),
        Some("VirtualMedia.EjectMedia") => slot(world, Value::Null),
        _ => return Reply::empty(404),
    }
    Reply::empty(204)
}

fn link(path: &str) -> Value {
    json!({ "@odata.id": path })
}

/// A small machine: one system, one manager, one CD slot, one drive, one port.
fn tree() -> BTreeMap<String, Value> {
    let list = |members: &[&str]| json!({ "Members": members.iter().map(|m| link(m)).collect::<Vec<_>>() });
    let documents = [
        (
            "/redfish/v1",
            json!({
                "@odata.type": "#ServiceRoot.v1_5_0.ServiceRoot", "RedfishVersion": "1.15.0", "Vendor": "Acme",
                "Systems": link("/redfish/v1/Systems"), "Managers": link("/redfish/v1/Managers"),
                "Links": { "Sessions": link(SESSIONS) },
            }),
        ),
        ("/redfish/v1/Systems", list(&[SYSTEM])),
        ("/redfish/v1/Managers", list(&["/redfish/v1/Managers/1"])),
        (
            SYSTEM,
            json!({
                "@odata.id": SYSTEM, "Id": "1", "Manufacturer": "Acme", "Model": "Anvil", "SerialNumber": "A-1",
                "UUID": "DEADBEEF-0000-0000-0000-000000000001", "PowerState": "Off", "IndicatorLED": "Off",
                "MemorySummary": { "TotalSystemMemoryGiB": 64 },
                "ProcessorSummary": { "Count": 2, "Model": "Acme CPU" },
                "Boot": { "BootSourceOverrideEnabled": "Disabled", "BootSourceOverrideTarget": "None",
                    "BootSourceOverrideTarget@Redfish.AllowableValues": ["None", "Pxe", "Cd", "Hdd"] },
                "Storage": link("/redfish/v1/Systems/1/Storage"),
                "EthernetInterfaces": link("/redfish/v1/Systems/1/EthernetInterfaces"),
                "Links": { "ManagedBy": [link("/redfish/v1/Managers/1")] },
                "Actions": { "#ComputerSystem.Reset": {
                    "target": "/redfish/v1/Systems/1/Actions/ComputerSystem.Reset",
                    "ResetType@Redfish.AllowableValues": ["On", "ForceOff", "ForceRestart", "GracefulShutdown"] } },
            }),
        ),
        ("/redfish/v1/Systems/1/Storage", list(&["/redfish/v1/Systems/1/Storage/1"])),
        (
            "/redfish/v1/Systems/1/Storage/1",
            json!({ "Id": "1", "Drives": [link("/redfish/v1/Systems/1/Storage/1/Drives/0")] }),
        ),
        (
            "/redfish/v1/Systems/1/Storage/1/Drives/0",
            json!({ "@odata.id": "/redfish/v1/Systems/1/Storage/1/Drives/0", "Id": "Bay0", "SerialNumber": "D-0",
                "Model": "Disk", "CapacityBytes": 1_000_000_000_000u64, "Protocol": "NVMe",
                "Identifiers": [{ "DurableName": "EUI.0025", "DurableNameFormat": "EUI" }] }),
        ),
        ("/redfish/v1/Systems/1/EthernetInterfaces", list(&["/redfish/v1/Systems/1/EthernetInterfaces/0"])),
        ("/redfish/v1/Systems/1/EthernetInterfaces/0", json!({ "Id": "port0", "MACAddress": "52:54:00:AA:BB:CC" })),
        (
            "/redfish/v1/Managers/1",
            json!({ "Id": "1", "Model": "AcmeBMC", "FirmwareVersion": "1.2", "VirtualMedia": link("/redfish/v1/Managers/1/VirtualMedia") }),
        ),
        ("/redfish/v1/Managers/1/VirtualMedia", list(&[SLOT])),
        (
            SLOT,
            json!({ "@odata.id": SLOT, "Id": "CD", "MediaTypes": ["CD", "DVD"], "Inserted": false, "Image": null,
                "Actions": {
                    "#VirtualMedia.InsertMedia": { "target": format!("{SLOT}/Actions/VirtualMedia.InsertMedia") },
                    "#VirtualMedia.EjectMedia": { "target": format!("{SLOT}/Actions/VirtualMedia.EjectMedia") } } }),
        ),
    ];
    documents.into_iter().map(|(path, document)| (path.to_owned(), document)).collect()
}
