//! What one simulated BMC and its machine remember, and what becomes of it with each request. Pure: time comes from outside, and what
//! must happen outside is answered as an effect.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hyper::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::sessions::{SESSIONS, Sessions};
use super::tree::{Tree, bare};
use super::{Boots, Identity, Manner, Tally};
use crate::bmc::session::base64;

/// One request, as far as a BMC looks at it.
pub(super) struct Asked<'a> {
    pub(super) method: &'a Method,
    pub(super) path: &'a str,
    pub(super) token: Option<&'a str>,
    pub(super) basic: Option<&'a str>,
    pub(super) if_match: Option<&'a str>,
    /// Who asks.
    pub(super) from: Option<IpAddr>,
    pub(super) body: Value,
}

/// What is answered, and what happens to the machine.
pub(super) struct Reply {
    pub(super) status: StatusCode,
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) body: Bytes,
    pub(super) effect: Option<Effect>,
}

/// What happens to the machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    /// It starts from this, in this life.
    Started(Boots, u64),
}

impl Reply {
    fn empty(status: u16) -> Self {
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        Self { status, headers: vec![], body: Bytes::new(), effect: None }
    }

    fn json(status: u16, body: &Value) -> Self {
        Self { body: Bytes::from(body.to_string()), ..Self::empty(status) }
    }

    /// A refusal as BMCs write it.
    fn refusal(status: u16, id: &str, message: &str) -> Self {
        let info = json!([{ "MessageId": format!("Base.1.18.{id}"), "Message": message }]);
        Self::json(status, &json!({ "error": { "code": format!("Base.1.18.{id}"), "@Message.ExtendedInfo": info } }))
    }

    fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }
}

/// What a reader sees.
#[derive(Clone, Default)]
struct Shown {
    /// What was changed of the tree's documents.
    changes: BTreeMap<String, Value>,
    on: bool,
    target: String,
    enabled: String,
    media: BTreeMap<String, String>,
}

/// One BMC and its machine.
pub(super) struct State {
    tree: Arc<Tree>,
    manner: Manner,
    identity: Identity,
    shown: Shown,
    /// What was shown before the last change.
    before: Shown,
    /// The power state that is on its way, and since when it holds.
    turning: Option<(Instant, bool)>,
    sessions: Sessions,
    /// How often each document was changed.
    versions: BTreeMap<String, u64>,
    /// Counts power-ons and power-offs: what ran in an earlier life is dead.
    life: u64,
    pub(super) tally: Tally,
}

impl State {
    pub(super) fn new(tree: Arc<Tree>, manner: Manner, identity: Identity) -> Self {
        let shown =
            Shown { on: identity.on, target: "None".to_owned(), enabled: "Disabled".to_owned(), ..Shown::default() };
        let before = shown.clone();
        let (sessions, tally) = (Sessions::default(), Tally::default());
        Self {
            tree,
            manner,
            identity,
            shown,
            before,
            turning: None,
            sessions,
            versions: BTreeMap::new(),
            life: 0,
            tally,
        }
    }

    pub(super) fn life(&self) -> u64 {
        self.life
    }

    /// What is open and on at this moment.
    pub(super) fn tally(&self) -> Tally {
        let (sessions, sessions_made) = (self.sessions.len(), self.sessions.made());
        Tally { sessions, sessions_made, on: self.shown.on, ..self.tally.clone() }
    }

    /// The BMC itself starts anew.
    pub(super) fn restart(&mut self) {
        self.sessions.clear();
        self.tally.reboots += 1;
    }

    /// The machine switches itself off, if it is still in that life.
    pub(super) fn off_by_itself(&mut self, life: u64) -> bool {
        if self.life != life {
            return false;
        }
        self.machine_changes();
        (self.shown.on, self.turning) = (false, None);
        self.life += 1;
        true
    }

    /// Something of that document changes.
    fn changes(&mut self, path: &str) {
        self.before = self.shown.clone();
        *self.versions.entry(path.to_owned()).or_default() += 1;
    }

    fn machine_changes(&mut self) {
        let system = self.tree.system.clone();
        self.changes(&system);
    }

    /// The ETag of a document: as it is shown, and as it must come back.
    fn tags(&self, path: &str) -> (String, String) {
        let strong = format!("\"{}\"", self.versions.get(path).copied().unwrap_or(0) + 1);
        let shown = if self.manner.weak_etags { format!("W/{strong}") } else { strong.clone() };
        (shown, strong)
    }

    /// Answers a request. A lie is a change that is answered and not made; a stale answer shows what was before.
    pub(super) fn answer(&mut self, asked: &Asked<'_>, now: Instant, lie: bool, stale: bool) -> Reply {
        self.tally.requests += 1;
        if let Some((_, on)) = self.turning.filter(|(at, _)| *at <= now) {
            self.machine_changes();
            (self.shown.on, self.turning) = (on, None);
        }
        let path = bare(asked.path);
        if asked.method == Method::POST && path == SESSIONS {
            return self.log_in(asked);
        }
        let known = asked.token.is_some_and(|token| self.sessions.knows(token));
        if path != "/redfish/v1" && path != "/redfish" && !known && !self.knows(asked.basic) {
            return Reply::refusal(401, "NoValidSession", "There is no valid session.");
        }
        match *asked.method {
            Method::GET => self.get(&path, stale),
            Method::DELETE => self.log_out(&path),
            Method::PATCH | Method::POST if lie => Reply::json(200, &json!({ "Name": "Done" })),
            Method::PATCH => self.patch(&path, asked),
            Method::POST => self.act(&path, &asked.body, now),
            _ => Reply::empty(405),
        }
    }

    /// Whether these are its Basic credentials.
    fn knows(&self, shown: Option<&str>) -> bool {
        let plain = format!("{}:{}", self.identity.username, self.identity.password);
        shown == Some(base64(plain.as_bytes()).as_str())
    }

    fn log_in(&mut self, asked: &Asked<'_>) -> Reply {
        let shown = |key: &str| asked.body[key].as_str().unwrap_or_default();
        let Identity { username, password, serial, .. } = &self.identity;
        if shown("UserName") != username || shown("Password") != password {
            return Reply::refusal(401, "ResourceAtUriUnauthorized", "The user name or the password is wrong.");
        }
        if self.sessions.len() >= self.manner.sessions_max {
            return Reply::refusal(503, "SessionLimitExceeded", "There is no room for another session.");
        }
        let (place, token) = self.sessions.begin(serial, username, asked.from);
        let document = self.sessions.document(&place).unwrap_or_default();
        Reply::json(201, &document).with("X-Auth-Token", token).with("Location", place)
    }

    fn log_out(&mut self, path: &str) -> Reply {
        match self.sessions.end(path) {
            true => Reply::empty(204),
            false => Reply::refusal(404, "ResourceMissingAtURI", "There is no such resource."),
        }
    }

    fn get(&self, path: &str, stale: bool) -> Reply {
        let shown = if stale { &self.before } else { &self.shown };
        if let Some(document) = self.sessions.document(path) {
            return Reply::json(200, &document);
        }
        let (tag, _) = self.tags(path);
        if let (Some(text), false) = (self.tree.text(path), self.is_live(path, shown)) {
            return Reply { body: text.clone(), ..Reply::empty(200) }.with("ETag", tag);
        }
        match self.document(path, shown) {
            Some(document) => Reply::json(200, &document).with("ETag", tag),
            None => Reply::refusal(404, "ResourceMissingAtURI", "There is no such resource."),
        }
    }

    fn is_live(&self, path: &str, shown: &Shown) -> bool {
        path == self.tree.system
            || shown.changes.contains_key(path)
            || self.tree.slots.iter().any(|slot| slot == path)
            || self.tree.drive.as_deref() == Some(path)
    }

    /// A document as it is now.
    fn document(&self, path: &str, shown: &Shown) -> Option<Value> {
        let mut document = match self.tree.read(path) {
            Some(document) => document,
            None => shown.changes.get(path).cloned()?,
        };
        if let Some(change) = shown.changes.get(path) {
            merge(&mut document, change);
        }
        if path == self.tree.system {
            document["PowerState"] = json!(if shown.on { "On" } else { "Off" });
            document["SerialNumber"] = json!(self.identity.serial);
            document["UUID"] = json!(self.identity.uuid);
            if document.get("SKU").is_some() {
                document["SKU"] = json!(self.identity.serial);
            }
            if document["Boot"].is_object() {
                document["Boot"]["BootSourceOverrideTarget"] = json!(shown.target);
                document["Boot"]["BootSourceOverrideEnabled"] = json!(shown.enabled);
            }
        }
        if self.tree.slots.iter().any(|slot| slot == path) {
            let image = shown.media.get(path);
            document["Inserted"] = json!(image.is_some());
            document["Image"] = json!(image);
            document["ConnectedVia"] = json!(if image.is_some() { "URI" } else { "NotConnected" });
        }
        if self.tree.drive.as_deref() == Some(path) {
            for (key, value) in [("SerialNumber", &self.identity.drive_serial), ("Model", &self.identity.drive_model)] {
                if let Some(value) = value {
                    document[key] = json!(value);
                }
            }
        }
        Some(document)
    }

    fn patch(&mut self, path: &str, asked: &Asked<'_>) -> Reply {
        if self.document(path, &self.shown).is_none() {
            return Reply::refusal(404, "ResourceMissingAtURI", "There is no such resource.");
        }
        let (_, strong) = self.tags(path);
        match asked.if_match {
            None if self.manner.etag_required => return Reply::empty(428),
            Some(tag) if tag != "*" && tag != strong => return Reply::empty(412),
            _ => {}
        }
        self.changes(path);
        if self.tree.slots.iter().any(|slot| slot == path) && asked.body.get("Image").is_some() {
            match asked.body["Image"].as_str() {
                Some(image) => self.insert(path, image),
                None => drop(self.shown.media.remove(path)),
            }
            return Reply::empty(204);
        }
        let of_boot = |key: &str| asked.body["Boot"][key].as_str().map(str::to_owned);
        if let Some(target) = of_boot("BootSourceOverrideTarget") {
            self.shown.target = target;
            self.shown.enabled = of_boot("BootSourceOverrideEnabled").unwrap_or_else(|| "Disabled".to_owned());
            if self.manner.keeps_boot && self.shown.enabled == "Once" {
                self.shown.enabled = "Continuous".to_owned();
            }
        } else {
            merge(self.shown.changes.entry(path.to_owned()).or_insert_with(|| json!({})), &asked.body);
        }
        Reply::empty(204)
    }

    fn insert(&mut self, slot: &str, image: &str) {
        self.tally.inserts += 1;
        self.shown.media.insert(slot.to_owned(), image.to_owned());
    }

    fn act(&mut self, path: &str, body: &Value, now: Instant) -> Reply {
        let verb = path.rsplit(['/', '.']).next().unwrap_or_default();
        let slot = self.tree.slots.iter().find(|slot| path.starts_with(&format!("{slot}/"))).cloned();
        match (verb, slot) {
            ("InsertMedia", Some(slot)) => match body["Image"].as_str() {
                Some(_) if self.shown.media.contains_key(&slot) => {
                    Reply::refusal(400, "ResourceInUse", "Another image is inserted.")
                }
                Some(image) => {
                    self.changes(&slot);
                    self.insert(&slot, image);
                    Reply::empty(204)
                }
                None => Reply::refusal(400, "ActionParameterMissing", "The parameter Image is missing."),
            },
            ("EjectMedia", Some(slot)) => {
                self.changes(&slot);
                self.shown.media.remove(&slot);
                Reply::empty(204)
            }
            ("Reset", _) => self.reset(body["ResetType"].as_str().unwrap_or_default(), now),
            _ => Reply::refusal(404, "ActionNotSupported", "There is no such action."),
        }
    }

    fn reset(&mut self, kind: &str, now: Instant) -> Reply {
        let late = self.manner.turns_after;
        let turn = |state: &mut Self, on: bool| {
            state.life += 1;
            state.turning = Some((now + late, on));
        };
        let heading = self.turning.map_or(self.shown.on, |(_, on)| on);
        match kind {
            "On" | "ForceOn" if heading => Reply::empty(204),
            "On" | "ForceOn" => {
                turn(self, true);
                self.starts()
            }
            "ForceOff" | "GracefulShutdown" => {
                if heading {
                    turn(self, false);
                }
                Reply::empty(204)
            }
            "ForceRestart" | "PowerCycle" | "GracefulRestart" if heading => {
                self.life += 1;
                self.starts()
            }
            "ForceRestart" | "PowerCycle" | "GracefulRestart" => {
                Reply::refusal(409, "ActionParameterValueConflict", "The machine is off.")
            }
            _ => Reply::refusal(400, "ActionParameterNotSupported", "There is no such reset."),
        }
    }

    /// The machine starts: staged settings take effect, and an override for one boot is used up.
    fn starts(&mut self) -> Reply {
        self.tally.starts += 1;
        self.machine_changes();
        if let Some((settings, bios)) = &self.tree.bios
            && let Some(staged) = self.shown.changes.remove(settings)
        {
            merge(self.shown.changes.entry(bios.clone()).or_insert_with(|| json!({})), &staged);
        }
        let by_media = matches!(self.shown.target.as_str(), "Cd" | "UsbCd") && self.shown.enabled != "Disabled";
        let from = match self.shown.media.values().next() {
            Some(image) if by_media => Boots::Media(image.clone()),
            _ => Boots::Disk,
        };
        if self.shown.enabled == "Once" {
            (self.shown.target, self.shown.enabled) = ("None".to_owned(), "Disabled".to_owned());
        }
        Reply { effect: Some(Effect::Started(from, self.life)), ..Reply::empty(204) }
    }

    /// How long the machine takes from power-on until something runs on it.
    pub(super) fn post(&self) -> Duration {
        self.manner.turns_after + self.manner.post
    }
}

/// Changes a document as a PATCH does: objects are merged, anything else is replaced.
pub fn merge(into: &mut Value, from: &Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from.clone(),
    }
}
