//! One Redfish controller: the gateway that owns the wire, and the verbs that rack steps need. Every verb reads back
//! what it wrote: a BMC's "OK" is not believed.

mod account;
mod bios;
mod boot;
mod boot_order;
mod card;
mod certificate;
mod client;
mod console;
mod discover;
mod error;
mod event;
mod evidence;
mod exchange;
mod fact;
mod firmware;
mod gateway;
mod health;
mod inventory;
mod led;
mod ledger;
mod log;
mod media;
mod oem;
mod payload;
mod pins;
mod power;
mod quirk;
mod record;
mod recorded;
mod registry;
mod secure_boot;
mod session;
mod site_ca;
mod stream;
mod sweep;
mod target;
mod task;
mod trace;
pub mod twin;
mod wire;
mod words;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio_util::sync::CancellationToken;
use url::Url;

pub use account::{Account, change_first_password};
pub use bios::{Bios, BiosChange, BiosOrder};
pub use boot::{BootTarget, Kept};
pub use boot_order::BootOption;
pub use card::{Card, Mark, Trait};
pub use certificate::{Certificate, CertificateChange, Subject};
pub use console::{Console, ConsolePlace, TerminalSize};
pub use discover::{Acquaintance, Discovered, addresses, discover};
pub use error::{BmcError, Reach};
pub use event::Subscription;
pub use fact::{Fact, Facts};
pub use firmware::{FirmwareSource, FirmwareUpdate};
pub use gateway::Gateway;
pub use health::{Health, Reading, Unwell};
pub use inventory::{Cpu, Drive, Firmware, Gpu, Inventory, ManagerInfo, Nic};
pub use ledger::Noted;
pub use log::LogEntry;
pub use pins::{MemoryPins, PinFile, Pins, format_pin, parse_pin};
pub use power::{PowerAction, PowerState};
pub use record::Recording;
pub use secure_boot::SecureBoot;
pub use site_ca::{SiteCa, Trust};
pub use stream::BmcEvent;
pub use target::{Address, Credentials, Target};
pub use task::{Task, TaskState};
pub use trace::Traced;

use client::Client;
use exchange::{Exchange, NOTE, Source};
use quirk::Quirks;
use recorded::Folder;
use session::Session;
use wire::Wire;

use crate::sys::worker::Workers;

const ROOT: &str = "/redfish/v1/";

/// How long a BMC is waited for. The default fits real ones.
#[derive(Clone, Debug)]
pub struct Timing {
    /// For a connection, and again for its TLS handshake.
    pub connect: Duration,
    /// For a whole answer.
    pub answer: Duration,
    /// For the answers that are known to take minutes.
    pub slow_answer: Duration,
    /// First pause before a busy BMC is asked again, where it does not say itself.
    pub busy_pause: Duration,
    /// For a busy BMC in all.
    pub busy_limit: Duration,
    /// Between two looks at something that is to change.
    pub look: Duration,
    /// For a power state to be reached.
    pub power: Duration,
    /// For a graceful shutdown.
    pub graceful: Duration,
    /// For media to show as inserted or ejected.
    pub media: Duration,
    /// For a setting (boot, LED) to read back.
    pub setting: Duration,
    /// For a controller to be ready for settings and updates.
    pub controller: Duration,
    /// For a task that does not wait for the node's next start.
    pub task: Duration,
    /// For a file to be uploaded.
    pub upload: Duration,
    /// For a firmware update.
    pub firmware: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            answer: Duration::from_secs(60),
            slow_answer: Duration::from_secs(200),
            busy_pause: Duration::from_secs(1),
            busy_limit: Duration::from_secs(120),
            look: Duration::from_secs(1),
            power: Duration::from_secs(90),
            graceful: Duration::from_secs(300),
            media: Duration::from_secs(60),
            setting: Duration::from_secs(20),
            controller: Duration::from_secs(600),
            task: Duration::from_secs(300),
            upload: Duration::from_secs(1800),
            firmware: Duration::from_secs(7200),
        }
    }
}

/// A connected BMC and the one system behind it that is meant. End it with [`Bmc::close`].
pub struct Bmc {
    client: Client,
    exchange: Arc<Exchange>,
    workers: Workers,
    token: CancellationToken,
    quirks: Quirks,
    root: Value,
    /// Links of all systems; `system` is one of them.
    systems: Vec<String>,
    system: String,
    managers: Vec<String>,
    lately: Lately,
    /// Where the media slots are, once they were found.
    slot_links: OnceLock<Vec<String>>,
    /// The update service whose upload address is claimed.
    claimed: Mutex<Option<String>>,
}

/// What one BMC told when it was last connected to, and what does not change from one connection to the next. With it, connecting
/// again asks only for the system.
#[derive(Clone)]
pub struct Known {
    root: Value,
    systems: Vec<String>,
    system: String,
    managers: Vec<String>,
    quirks: Quirks,
    /// Documents, for what does not change in them.
    outlines: Vec<(String, Value)>,
}

/// Documents that were read so recently that they need not be read again. None for the time says that something was changed since.
struct Lately(Mutex<BTreeMap<String, (Option<Instant>, Value)>>);

impl Lately {
    /// How long a document counts as just read. What is read back after a change never comes from here.
    const FRESH: Duration = Duration::from_secs(2);

    fn keep(&self, link: &str, document: &Value) {
        let mut documents = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        documents.insert(link.to_owned(), (Some(Instant::now()), document.clone()));
    }

    /// Keeps documents of an earlier connection: none is fresh.
    fn keep_old(&self, documents: &[(String, Value)]) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.extend(documents.iter().map(|(link, document)| (link.clone(), (None, document.clone()))));
    }

    /// All documents, fresh or not.
    fn all(&self) -> Vec<(String, Value)> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.iter().map(|(link, (_, document))| (link.clone(), document.clone())).collect()
    }

    /// A document; only a fresh one where `fresh` says so.
    fn find(&self, link: &str, fresh: bool) -> Option<Value> {
        let documents = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (read, document) = documents.get(link)?;
        let is_fresh = read.is_some_and(|read| read.elapsed() <= Self::FRESH);
        (is_fresh || !fresh).then(|| document.clone())
    }

    /// Something is being changed: nothing is fresh any more.
    fn forget(&self) {
        for (read, _) in self.0.lock().unwrap_or_else(PoisonError::into_inner).values_mut() {
            *read = None;
        }
    }
}

impl Bmc {
    /// Connects, logs in, and finds the system that is meant.
    ///
    /// # Errors
    /// Any [`BmcError`]; where the pin has changed, nothing was sent.
    pub async fn connect(target: &Target, pins: Arc<dyn Pins>) -> Result<Self, BmcError> {
        Self::connect_with(target, pins, Timing::default()).await
    }

    /// As [`Bmc::connect`], with other waiting times.
    ///
    /// # Errors
    /// As [`Bmc::connect`].
    pub async fn connect_with(target: &Target, pins: Arc<dyn Pins>, timing: Timing) -> Result<Self, BmcError> {
        Self::connect_again(target, pins, timing, Gateway::open().await?, None).await
    }

    /// As [`Bmc::connect_with`], through a gateway that others share, and with what the BMC told before. What no longer
    /// holds is found out anew.
    ///
    /// # Errors
    /// As [`Bmc::connect`].
    pub async fn connect_again(
        target: &Target,
        pins: Arc<dyn Pins>,
        timing: Timing,
        gateway: Arc<Gateway>,
        known: Option<Known>,
    ) -> Result<Self, BmcError> {
        let exchange = Arc::new(open(target, pins, timing, &gateway)?);
        let workers = Workers::new();
        let (ended, token) = (exchange.clone(), workers.token());
        workers.spawn("bmc-session", async move {
            token.cancelled().await;
            ended.close().await;
        });
        let client = Client::new(gateway.enter(exchange.clone()), exchange.clone());
        let found = async {
            let again = match known {
                Some(known) => {
                    exchange.at_sessions(&known.root);
                    again(&client, known).await?
                }
                None => None,
            };
            let found = match again {
                Some(found) => found,
                None => find(&client, target.system.as_deref(), target.without).await?,
            };
            Ok(found)
        };
        let found = match found.await {
            Ok(found) => found,
            Err(error) => {
                workers.stop().await;
                return Err(error);
            }
        };
        exchange.learn(found.known.quirks);
        let token = workers.token();
        let Known { root, systems, system, managers, quirks, outlines } = found.known;
        let lately = Lately(Mutex::default());
        lately.keep_old(&outlines);
        for (link, document) in &found.documents {
            lately.keep(link, document);
        }
        Ok(Self {
            client,
            exchange,
            workers,
            token,
            quirks,
            root,
            systems,
            system,
            managers,
            lately,
            slot_links: OnceLock::new(),
            claimed: Mutex::default(),
        })
    }

    /// What the BMC told, for the next connection.
    #[must_use]
    pub fn known(&self) -> Known {
        Known {
            root: self.root.clone(),
            systems: self.systems.clone(),
            system: self.system.clone(),
            managers: self.managers.clone(),
            quirks: self.quirks,
            outlines: self.lately.all(),
        }
    }

    /// The BMC as messages name it: host and port, or the folder.
    #[must_use]
    pub fn name(&self) -> &str {
        self.client.bmc()
    }

    /// The family of its firmware, for people.
    #[must_use]
    pub fn family(&self) -> &'static str {
        self.quirks.family()
    }

    /// Ends the session at the BMC and closes the gateway. Without it, dropping the value does the same in the
    /// background, as long as the runtime lives.
    pub async fn close(&self) {
        self.give_back().await;
        self.workers.clone().stop().await;
    }

    /// The system's document, read now.
    async fn system(&self) -> Result<Value, BmcError> {
        let document = self.client.get(&self.system).await?;
        self.lately.keep(&self.system, &document);
        Ok(document)
    }

    /// A document that need not be of this very moment: what decides, and not what is read back.
    async fn just_read(&self, link: &str) -> Result<Value, BmcError> {
        self.read_before(link, true).await
    }

    /// A document for what does not change in it: links, actions, and what they offer.
    async fn outline(&self, link: &str) -> Result<Value, BmcError> {
        self.read_before(link, false).await
    }

    async fn read_before(&self, link: &str, fresh: bool) -> Result<Value, BmcError> {
        if let Some(document) = self.lately.find(link, fresh) {
            return Ok(document);
        }
        let document = self.client.get(link).await?;
        self.lately.keep(link, &document);
        Ok(document)
    }

    /// What the task says that an accepted write began, for the message about a write that did not show; empty where
    /// there is none.
    async fn task_says(&self, taken: &Value) -> String {
        let Some(link) = taken[NOTE]["location"].as_str() else { return String::new() };
        let Ok(task) = self.client.get::<Value>(link).await else { return String::new() };
        let messages = task["Messages"].as_array().map(Vec::as_slice).unwrap_or_default();
        let texts: Vec<&str> = messages.iter().filter_map(|message| message["Message"].as_str()).collect();
        let state = task["TaskState"].as_str().unwrap_or("in an unknown state");
        format!("; its task is {state}: {}", texts.join(" "))
    }

    fn timing(&self) -> &Timing {
        self.exchange.timing()
    }

    fn unsupported(&self, what: impl Into<String>) -> BmcError {
        BmcError::Unsupported { bmc: self.name().to_owned(), what: what.into() }
    }

    fn not_obeyed(&self, what: impl Into<String>, seen: impl Into<String>) -> BmcError {
        BmcError::NotObeyed { bmc: self.name().to_owned(), what: what.into(), seen: seen.into() }
    }
}

impl Drop for Bmc {
    fn drop(&mut self) {
        self.token.cancel();
    }
}

fn open(target: &Target, pins: Arc<dyn Pins>, timing: Timing, gateway: &Gateway) -> Result<Exchange, BmcError> {
    let quirks = Quirks::unknown(target.without);
    match &target.address {
        Address::Url(url) => {
            let wire = Wire::new(url, target.trust.clone(), pins.clone(), timing.clone(), gateway)?;
            let session = Session::new(target.credentials.clone(), pins);
            let name = wire.name().to_owned();
            let trace = gateway.trace(&name);
            Ok(Exchange::new(name, url.clone(), Source::Wire(Box::new(wire)), session, timing, quirks, trace))
        }
        Address::Folder(path) => {
            let folder = Folder::open(path)?;
            let origin = Url::parse("http://recorded.invalid/").expect("a constant URL is valid");
            let name = path.display().to_string();
            let session = Session::new(None, pins);
            Ok(Exchange::new(name, origin, Source::Folder(folder), session, timing, quirks, Arc::default()))
        }
    }
}

/// What connecting finds out.
struct Found {
    known: Known,
    /// What was read on the way, by link.
    documents: Vec<(String, Value)>,
}

/// Looks whether what is known still holds: the system is where it was.
async fn again(client: &Client, known: Known) -> Result<Option<Found>, BmcError> {
    match client.get::<Value>(&known.system).await {
        Ok(system) => Ok(Some(Found { documents: vec![(known.system.clone(), system)], known })),
        Err(error) if error.status() == Some(404) => Ok(None),
        Err(error) => Err(error),
    }
}

async fn find(client: &Client, wanted: Option<&str>, without: Facts) -> Result<Found, BmcError> {
    let root = root(client).await?;
    let systems = match root["Systems"]["@odata.id"].as_str() {
        Some(link) => client.members(link).await?,
        None => vec![],
    };
    let (system, document) = choose(client, &systems, wanted).await?;
    let mut managers = links(&document["Links"]["ManagedBy"]);
    if managers.is_empty()
        && let Some(link) = root["Managers"]["@odata.id"].as_str()
    {
        managers = client.members(link).await.unwrap_or_default();
    }
    let manager = match managers.first() {
        Some(link) => client.get(link).await.unwrap_or_default(),
        None => Value::Null,
    };
    let quirks = Quirks::classify(&root, &document, &manager, without);
    let mut documents = vec![(system.clone(), document)];
    documents.extend(managers.first().map(|link| (link.clone(), manager)).filter(|(_, manager)| manager.is_object()));
    Ok(Found { known: Known { root, systems, system, managers, quirks, outlines: vec![] }, documents })
}

/// The service root, if it is one.
async fn root(client: &Client) -> Result<Value, BmcError> {
    let not_redfish = |why: String| BmcError::NotRedfish { bmc: client.bmc().to_owned(), why };
    let root: Value = match client.get(ROOT).await {
        Ok(root) => root,
        Err(BmcError::Unreadable { why, .. }) => return Err(not_redfish(format!("at {ROOT}, {why}"))),
        Err(BmcError::Refused { status: status @ (400 | 403..=499), .. }) => {
            return Err(not_redfish(format!("it answers {ROOT} with status {status}")));
        }
        Err(BmcError::Unreachable { why: Reach::Broken(why), .. }) => {
            return Err(not_redfish(format!("the connection breaks when {ROOT} is asked for ({why})")));
        }
        Err(error) => return Err(error),
    };
    let typed = root["@odata.type"].as_str().is_some_and(|kind| kind.contains("ServiceRoot"));
    if !typed && root["RedfishVersion"].as_str().is_none() {
        return Err(not_redfish(format!("what it answers at {ROOT} is no service root")));
    }
    Ok(root)
}

/// The system that is meant: the one named, else the one that can boot.
async fn choose(client: &Client, links: &[String], wanted: Option<&str>) -> Result<(String, Value), BmcError> {
    let which = |why: String| BmcError::WhichSystem { bmc: client.bmc().to_owned(), why };
    let mut known = vec![];
    for link in links {
        let document: Value = client.get(link).await?;
        let names =
            ["Id", "UUID", "Name", "SerialNumber"].map(|key| document[key].as_str().unwrap_or_default().to_owned());
        let last = link.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
        if wanted.is_some_and(|wanted| {
            last == wanted || names.iter().any(|name| !name.is_empty() && name.eq_ignore_ascii_case(wanted))
        }) {
            return Ok((link.clone(), document));
        }
        known.push((link.clone(), last.to_owned(), document));
    }
    let list = |known: &[(String, String, Value)]| known.iter().map(|k| k.1.as_str()).collect::<Vec<_>>().join(", ");
    if let Some(wanted) = wanted {
        return Err(which(format!("BMC {} has no system {wanted:?}; it has: {}", client.bmc(), list(&known))));
    }
    // A system that only gathers parts (a GPU baseboard) has neither a boot setting nor a power switch.
    if known.len() > 1 && client.has(Fact::BaseboardBeside) {
        known.retain(|(_, _, system)| {
            system.get("Boot").is_some() && system["Actions"].get("#ComputerSystem.Reset").is_some()
        });
    }
    match known.len() {
        0 => Err(which(format!("BMC {} has no system that boots", client.bmc()))),
        1 => known.pop().map(|(link, _, document)| (link, document)).ok_or_else(|| which("no system".to_owned())),
        _ => Err(which(format!("BMC {} manages {} systems: {}", client.bmc(), known.len(), list(&known)))),
    }
}

/// The links in a list of references; anything else in it is passed over.
fn links(list: &Value) -> Vec<String> {
    let items = list.as_array().map(Vec::as_slice).unwrap_or_default();
    items.iter().filter_map(|item| item["@odata.id"].as_str()).map(str::to_owned).collect()
}

/// Waits until `look` answers something, at most `limit`; the last look decides.
async fn until<T, F>(pause: Duration, limit: Duration, mut look: impl FnMut() -> F) -> Result<Option<T>, BmcError>
where
    F: Future<Output = Result<Option<T>, BmcError>>,
{
    let end = tokio::time::Instant::now() + limit;
    loop {
        match look().await {
            Ok(Some(seen)) => return Ok(Some(seen)),
            // A BMC that fails to answer while it works is asked again.
            Ok(None) => {}
            Err(error) if error.is_passing() && tokio::time::Instant::now() < end => {}
            Err(error) => return Err(error),
        }
        if tokio::time::Instant::now() >= end {
            return Ok(None);
        }
        tokio::time::sleep(pause).await;
    }
}
