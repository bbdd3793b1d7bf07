//! One request to a BMC, by all the rules that make it safe: who may be talked to, how often, with which credentials,
//! and what of the answer is believed. Everything that reaches a BMC passes through [`Exchange::carry`].

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use hyper::{HeaderMap, Method, StatusCode, header};
use serde_json::{Value, json};
use url::Url;

use super::fact::Fact;
use super::payload::Upload;
use super::quirk::{self, Quirks};
use super::recorded::Folder;
use super::session::{Login, Session};
use super::trace::Trace;
use super::wire::{Stream, Wire};
use super::words::{Words, quote};
use super::{BmcError, Timing};

/// How often a read that fails at the BMC is asked again.
const READS_AGAIN: u32 = 1;
/// ETags remembered for one BMC.
const ETAGS_MAX: usize = 256;
/// An answer longer than this is no error.
const ERROR_MAX: usize = 16 * 1024;
/// Where a synthesised or annotated answer says what its headers said.
pub(super) const NOTE: &str = "@bedplate";

/// What is asked of a BMC.
#[derive(Clone)]
pub(super) struct Ask {
    pub(super) method: Method,
    /// Path and query, beginning with one slash.
    pub(super) path: String,
    pub(super) body: Body,
    /// Whether the BMC may compress its answer.
    pub(super) compressed: bool,
}

/// What is sent with a request.
#[derive(Clone)]
pub(super) enum Body {
    /// JSON, or nothing.
    Json(Bytes),
    /// A file, and what stands around it.
    Upload(Upload),
}

impl Ask {
    pub(super) fn get(path: &str) -> Self {
        Self::json(Method::GET, path.to_owned(), Bytes::new())
    }

    pub(super) fn json(method: Method, path: String, body: Bytes) -> Self {
        Self { method, path, body: Body::Json(body), compressed: false }
    }

    pub(super) fn name(&self) -> String {
        format!("{} {}", self.method, self.path)
    }

    /// Whether sending it twice does no harm.
    pub(super) fn is_safe(&self) -> bool {
        self.method == Method::GET || self.method == Method::HEAD
    }
}

/// What came back, before it is believed.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Answer {
    pub(super) fn header(&self, name: impl header::AsHeaderName) -> Option<&str> {
        self.headers.get(name).and_then(|v| v.to_str().ok()).map(str::trim).filter(|v| !v.is_empty())
    }

    pub(super) fn json(&self) -> Option<Value> {
        serde_json::from_slice(&self.body).ok()
    }

    fn is_empty(&self) -> bool {
        self.body.trim_ascii().is_empty()
    }

    fn retry_after(&self) -> Option<Duration> {
        self.header(header::RETRY_AFTER)?.parse().ok().map(Duration::from_secs)
    }
}

/// Where answers come from.
pub(super) enum Source {
    /// A BMC on the network.
    Wire(Box<Wire>),
    /// A folder with recorded answers.
    Folder(Folder),
}

/// The rules of talking to one BMC.
pub(super) struct Exchange {
    bmc: String,
    origin: Url,
    source: Source,
    session: Session,
    etags: Mutex<BTreeMap<String, String>>,
    quirks: Mutex<Quirks>,
    timing: Timing,
    trace: Arc<Trace>,
}

impl Exchange {
    pub(super) fn new(
        bmc: String,
        origin: Url,
        source: Source,
        session: Session,
        timing: Timing,
        quirks: Quirks,
        trace: Arc<Trace>,
    ) -> Self {
        Self { bmc, origin, source, session, etags: Mutex::default(), quirks: Mutex::new(quirks), timing, trace }
    }

    /// Tells what kind of BMC this is, once that is known.
    pub(super) fn learn(&self, quirks: Quirks) {
        *self.quirks.lock().unwrap_or_else(PoisonError::into_inner) = quirks;
    }

    pub(super) fn quirks(&self) -> Quirks {
        *self.quirks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Carries one request to the BMC and its answer back as JSON.
    pub(super) async fn carry(&self, ask: Ask) -> Result<Value, BmcError> {
        let sent = Instant::now();
        let answer = match ask.method {
            Method::PATCH | Method::PUT => self.change(&ask).await,
            _ => self.attempt(&ask, None).await,
        };
        if !ask.is_safe() {
            self.audit(&ask, &answer, sent.elapsed());
        }
        let settled = self.settle(&ask, &answer?)?;
        if is_root(&ask.path) && ask.is_safe() {
            self.at_sessions(&settled);
        }
        Ok(settled)
    }

    /// Learns from the root where sessions are made, so that it is not read for that again.
    pub(super) fn at_sessions(&self, root: &Value) {
        self.session.learn(self, root);
    }

    fn audit(&self, ask: &Ask, answer: &Result<Answer, BmcError>, took: Duration) {
        let outcome = match answer {
            Ok(answer) => answer.status.as_u16().to_string(),
            Err(error) => error.kind().to_owned(),
        };
        let body = match &ask.body {
            Body::Json(body) => {
                serde_json::from_slice(body).map_or_else(|_| String::new(), |body| veil(body).to_string())
            }
            Body::Upload(upload) => upload.name(),
        };
        let millis = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        tracing::info!(target: "audit", bmc = self.bmc, request = ask.name(), body, outcome, millis, "BMC changed");
    }

    /// The ETag ladder. A 412 or 428 means that nothing was changed, so the next rung may be tried.
    async fn change(&self, ask: &Ask) -> Result<Answer, BmcError> {
        let quirks = self.quirks();
        let refused = |answer: &Answer| {
            answer.status == StatusCode::PRECONDITION_FAILED
                || (answer.status == StatusCode::PRECONDITION_REQUIRED && quirks.has(Fact::EtagDemanded))
        };
        let key = bare(&ask.path);
        let known = self.etags.lock().unwrap_or_else(PoisonError::into_inner).get(key).cloned();
        let first = if quirks.has(Fact::AmiStarEtag) { Some("*".to_owned()) } else { known };
        let answer = self.attempt(ask, first.as_deref()).await?;
        if !refused(&answer) {
            return Ok(answer);
        }
        let fresh = self.fresh_etag(key).await;
        let mut tried = vec![first];
        let mut last = answer;
        for rung in rungs(quirks, fresh) {
            if tried.contains(&rung) {
                continue;
            }
            last = self.attempt(ask, rung.as_deref()).await?;
            if !refused(&last) {
                break;
            }
            tried.push(rung);
        }
        Ok(last)
    }

    /// Uploads a file to the BMC, and answers what it says of it as [`Exchange::carry`] does.
    pub(super) async fn upload(&self, link: &str, upload: Upload) -> Result<Value, BmcError> {
        let path = self.own(link).ok_or_else(|| self.foreign(&Ask::get(link), link))?;
        let body = Body::Upload(upload);
        self.carry(Ask { method: Method::POST, path, body, compressed: false }).await
    }

    /// Reads the resource again for its present ETag; none where it has none or cannot be read.
    async fn fresh_etag(&self, path: &str) -> Option<String> {
        let ask = Ask::get(path);
        let answer = self.attempt(&ask, None).await.ok()?;
        self.settle(&ask, &answer).ok()?;
        self.etags.lock().unwrap_or_else(PoisonError::into_inner).get(path).cloned()
    }

    /// Sends until there is an answer that is worth judging: logs in, logs in again once, waits for a busy BMC.
    async fn attempt(&self, ask: &Ask, if_match: Option<&str>) -> Result<Answer, BmcError> {
        let began = Instant::now();
        let mut ask = ask.clone();
        let mut renewed = false;
        let mut waits = 0u32;
        let mut fails = 0u32;
        loop {
            let login = self.login_for(&ask).await?;
            let mut extra = HeaderMap::new();
            login.apply(&mut extra);
            if let Some(tag) = if_match.and_then(|tag| tag.parse().ok()) {
                extra.insert(header::IF_MATCH, tag);
            }
            let answer = self.send(&ask, extra).await?;
            match answer.status {
                StatusCode::UNAUTHORIZED if login.may_expire() && !renewed && self.has(Fact::SessionExpires) => {
                    renewed = true;
                    self.session.forget(&login).await;
                }
                StatusCode::NOT_ACCEPTABLE
                    if ask.is_safe() && !ask.compressed && self.has(Fact::CompressionDemanded) =>
                {
                    ask.compressed = true;
                }
                StatusCode::UNAUTHORIZED if matches!(login, Login::None) && self.session.has_credentials() => {
                    // Some services do not even show their root to strangers.
                    self.session.insist().await;
                }
                StatusCode::UNAUTHORIZED => {
                    return Err(BmcError::WrongPassword { bmc: self.bmc.clone(), username: self.session.username() });
                }
                StatusCode::INTERNAL_SERVER_ERROR | StatusCode::BAD_GATEWAY | StatusCode::GATEWAY_TIMEOUT
                    if ask.is_safe()
                        && fails < READS_AGAIN
                        && self.has(Fact::ReadFails)
                        && !self.gives_a_reason(&answer) =>
                {
                    fails += 1;
                    tokio::time::sleep(self.timing.busy_pause).await;
                }
                StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS => {
                    let wait = answer.retry_after();
                    let again = wait.is_some() || ask.is_safe() || self.refused_before_acting(&answer);
                    if !again {
                        return Ok(answer);
                    }
                    let wait = wait.unwrap_or(self.timing.busy_pause * 2u32.pow(waits.min(4)));
                    waits += 1;
                    if began.elapsed() + wait > self.timing.busy_limit {
                        return Err(self.busy(&ask, &answer, began.elapsed()));
                    }
                    tracing::debug!(bmc = self.bmc, request = ask.name(), ?wait, "the BMC is busy");
                    tokio::time::sleep(wait).await;
                }
                _ => return Ok(answer),
            }
        }
    }

    fn busy(&self, ask: &Ask, answer: &Answer, waited: Duration) -> BmcError {
        let message = self.words(answer).message;
        BmcError::Busy { bmc: self.bmc.clone(), request: ask.name(), seconds: waited.as_secs(), message }
    }

    /// The credentials for one request. The root is read without any, as the standard allows.
    async fn login_for(&self, ask: &Ask) -> Result<Login, BmcError> {
        if matches!(self.source, Source::Folder(_)) {
            return Ok(Login::None);
        }
        if is_root(&ask.path) && ask.is_safe() {
            return Ok(self.session.for_root().await);
        }
        self.session.current(self).await
    }

    /// Sends once; a read is sent again when the connection breaks, a write never.
    pub(super) async fn send(&self, ask: &Ask, extra: HeaderMap) -> Result<Answer, BmcError> {
        let wire = match &self.source {
            Source::Folder(folder) => return folder.answer(ask).await,
            Source::Wire(wire) => wire,
        };
        let sent = Instant::now();
        let answer = self.send_over(wire, ask, extra).await;
        self.trace.note(ask, &answer, sent.elapsed());
        answer
    }

    async fn send_over(&self, wire: &Wire, ask: &Ask, extra: HeaderMap) -> Result<Answer, BmcError> {
        let lines = wire.lines();
        let _free = lines.free().await;
        let limit = match &ask.body {
            Body::Upload(_) => self.timing.upload,
            Body::Json(_) if self.quirks().is_slow(&ask.path) => self.timing.slow_answer,
            Body::Json(_) => self.timing.answer,
        };
        let mut tries = 0;
        loop {
            let error = match wire.send(ask, &extra, limit).await {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            tries += 1;
            let broken = matches!(&error, BmcError::Unreachable { why: super::Reach::Broken(_), .. });
            if !broken || !ask.is_safe() || tries > 2 || !self.has(Fact::ConnectionDropped) {
                return Err(error);
            }
            tracing::debug!(bmc = self.bmc, request = ask.name(), %error, "read again after a broken connection");
            tokio::time::sleep(self.timing.busy_pause).await;
        }
    }

    /// Opens a stream; logs in, and in again once where the session has ended.
    pub(super) async fn stream(&self, ask: &Ask) -> Result<Stream, BmcError> {
        let Source::Wire(wire) = &self.source else {
            return Err(BmcError::Recorded { folder: self.bmc.clone(), request: ask.name() });
        };
        let path = self.own(&ask.path).ok_or_else(|| self.foreign(ask, &ask.path))?;
        let ask = Ask { path, ..ask.clone() };
        let mut renewed = false;
        loop {
            let login = self.session.current(self).await?;
            let mut headers = HeaderMap::new();
            login.apply(&mut headers);
            let stream = wire.open(&ask, &headers, self.timing.answer).await?;
            match stream.status {
                status if status.is_success() => return Ok(stream),
                StatusCode::UNAUTHORIZED if login.may_expire() && !renewed => {
                    renewed = true;
                    self.session.forget(&login).await;
                }
                status => {
                    let answer = Answer { status, headers: HeaderMap::new(), body: Bytes::new() };
                    return Err(self.refusal(&ask, &answer, "it opens no stream of events".to_owned()));
                }
            }
        }
    }

    /// Judges an answer: a success becomes JSON that links nowhere else, anything else an error in the BMC's words.
    fn settle(&self, ask: &Ask, answer: &Answer) -> Result<Value, BmcError> {
        if answer.status.is_redirection() {
            let to = answer.header(header::LOCATION).unwrap_or("nowhere");
            if self.own(to).is_none() {
                return Err(self.foreign(ask, to));
            }
            return Err(self.refusal(ask, answer, format!("it redirects to {to}, and redirects are not followed")));
        }
        if !self.is_success(answer) {
            return Err(self.judge(ask, answer));
        }
        let mut note = json!({ "status": answer.status.as_u16() });
        if let Some(location) = answer.header(header::LOCATION) {
            note["location"] = json!(self.own(location).ok_or_else(|| self.foreign(ask, location))?);
        }
        if let Some(seconds) = answer.retry_after() {
            note["retry_after"] = json!(seconds.as_secs());
        }
        match answer.json() {
            Some(Value::Object(map)) => {
                let mut value = Value::Object(map);
                self.localise(&mut value).map_err(|uri| self.foreign(ask, &uri))?;
                self.keep_etag(ask, answer, &value);
                if !ask.is_safe() {
                    value[NOTE] = note;
                }
                Ok(value)
            }
            // The monitor of a task that goes on has nothing to say.
            _ if ask.is_safe() && answer.is_empty() && answer.status != StatusCode::OK => Ok(json!({ NOTE: note })),
            _ if ask.is_safe() || !(answer.is_empty() || self.has(Fact::SuccessWithoutJson)) => {
                Err(BmcError::Unreadable {
                    bmc: self.bmc.clone(),
                    request: ask.name(),
                    why: format!("it is no JSON object but {:?}", quote(&answer.body)),
                })
            }
            _ => {
                if !answer.body.is_empty() {
                    note["text"] = json!(quote(&answer.body));
                }
                Ok(json!({ NOTE: note }))
            }
        }
    }

    /// Whether an answer says that what was asked is done or under way. An error in the body counts more than the status 200,
    /// and where successes are written as errors, their message counts more than the status 400.
    fn is_success(&self, answer: &Answer) -> bool {
        let ok = answer.status.is_success();
        if !(ok || answer.status == StatusCode::BAD_REQUEST) || answer.body.len() > ERROR_MAX {
            return ok;
        }
        if !answer.json().is_some_and(|body| body["error"].is_object() && body.get("@odata.id").is_none()) {
            return ok;
        }
        let of_ilo = self.has(Fact::HpeSuccessAsError);
        let well = |id: &String| quirk::is_success(id) || (of_ilo && quirk::is_success_of_ilo(id));
        // The code of the whole may only say that the messages say more.
        let mut ids = self.words(answer).ids;
        ids.retain(|id| !id.ends_with("ExtendedInfo") && !id.ends_with("GeneralError"));
        if ids.is_empty() { ok } else { ids.iter().all(well) }
    }

    fn judge(&self, ask: &Ask, answer: &Answer) -> BmcError {
        let words = self.words(answer);
        if words.ids.iter().any(|id| id.ends_with("PasswordChangeRequired")) {
            let told = words.arguments.iter().find(|text| text.starts_with('/') && self.has(Fact::PasswordBlocked));
            let account = told.and_then(|link| self.own(link)).or_else(|| self.session.username()).unwrap_or_default();
            return BmcError::PasswordChange { bmc: self.bmc.clone(), account };
        }
        self.refusal(ask, answer, words.message)
    }

    pub(super) fn refusal(&self, ask: &Ask, answer: &Answer, message: String) -> BmcError {
        let Words { ids, resolution, .. } = self.words(answer);
        let licence = self.has(Fact::SupermicroLicence) && ids.iter().any(|id| id.ends_with("OemLicenseNotPassed"));
        let (bmc, request, status) = (self.bmc.clone(), ask.name(), answer.status.as_u16());
        if licence {
            return BmcError::Licence { bmc, request, message };
        }
        BmcError::Refused { bmc, request, status, message, resolution, ids }
    }

    fn foreign(&self, ask: &Ask, uri: &str) -> BmcError {
        BmcError::ForeignLink { bmc: self.bmc.clone(), request: ask.name(), uri: uri.to_owned() }
    }

    fn keep_etag(&self, ask: &Ask, answer: &Answer, value: &Value) {
        if ask.method != Method::GET {
            return;
        }
        let in_body = value["@odata.etag"].as_str().filter(|_| self.has(Fact::EtagInBody));
        let none = |tag: &&str| tag.is_empty() || (self.has(Fact::EmptyEtag) && matches!(*tag, "\"\"" | "W/\"\""));
        let tag = answer.header(header::ETAG).filter(|tag| !none(tag)).or(in_body).filter(|tag| !none(tag));
        let mut etags = self.etags.lock().unwrap_or_else(PoisonError::into_inner);
        match tag {
            Some(tag) if etags.len() < ETAGS_MAX || etags.contains_key(bare(&ask.path)) => {
                etags.insert(bare(&ask.path).to_owned(), tag.to_owned());
            }
            _ => {
                etags.remove(bare(&ask.path));
            }
        }
    }

    /// The path of a link, if it leads to this BMC and nowhere else.
    pub(super) fn own(&self, link: &str) -> Option<String> {
        let url = self.origin.join(link).ok()?;
        if url.origin() != self.origin.origin() || !url.username().is_empty() || url.password().is_some() {
            return None;
        }
        let fragment = url.fragment().map(|f| format!("#{f}")).unwrap_or_default();
        let query = url.query().map(|q| format!("?{q}")).unwrap_or_default();
        Some(format!("{}{query}{fragment}", url.path()))
    }

    /// Makes every link that is written with a host a plain path; the first that leads elsewhere is the error.
    fn localise(&self, value: &mut Value) -> Result<(), String> {
        match value {
            Value::Object(map) => {
                for (key, value) in map.iter_mut() {
                    match value {
                        Value::String(link) if is_link(key) && !is_plain(link) => {
                            *link = self.own(link).ok_or_else(|| link.clone())?;
                        }
                        other => self.localise(other)?,
                    }
                }
                Ok(())
            }
            Value::Array(list) => list.iter_mut().try_for_each(|item| self.localise(item)),
            _ => Ok(()),
        }
    }

    /// Ends the session and closes the connections.
    pub(super) async fn close(&self) {
        self.session.end(self).await;
    }

    pub(super) fn bmc(&self) -> &str {
        &self.bmc
    }

    /// The pin of the certificate that the BMC shows now; none where it shows none.
    pub(super) async fn shown_pin(&self) -> Result<Option<[u8; 32]>, BmcError> {
        match &self.source {
            Source::Wire(wire) => wire.shown_pin().await,
            Source::Folder(_) => Ok(None),
        }
    }

    /// Keeps the pin of a certificate that was put in.
    pub(super) fn keep_pin(&self, pin: [u8; 32]) -> Result<(), BmcError> {
        match &self.source {
            Source::Wire(wire) => wire.keep_pin(pin),
            Source::Folder(_) => Ok(()),
        }
    }

    /// The session's token, where there is a session.
    pub(super) async fn session_key(&self) -> Option<String> {
        match self.session.current(self).await.ok()? {
            Login::Token { token, .. } => token.to_str().ok().map(str::to_owned),
            _ => None,
        }
    }

    pub(super) fn has(&self, fact: Fact) -> bool {
        self.quirks().has(fact)
    }

    pub(super) fn words(&self, answer: &Answer) -> Words {
        Words::read(answer, self.has(Fact::InfoAsObject))
    }

    /// Whether a BMC that failed says why: then it will not do better the next time.
    fn gives_a_reason(&self, answer: &Answer) -> bool {
        let Words { ids, message, .. } = self.words(answer);
        !message.is_empty() && answer.json().is_some() && !ids.iter().any(|id| id.ends_with("InternalError"))
    }

    /// Whether a busy answer says that nothing was begun.
    fn refused_before_acting(&self, answer: &Answer) -> bool {
        self.has(Fact::NotReadyYet) && self.words(answer).ids.iter().any(|id| quirk::is_not_ready(id))
    }

    pub(super) fn timing(&self) -> &Timing {
        &self.timing
    }
}

/// What may be sent as `If-Match` after a refusal, in turn.
fn rungs(quirks: Quirks, fresh: Option<String>) -> Vec<Option<String>> {
    let strong = fresh.as_deref().and_then(|tag| tag.strip_prefix("W/")).map(str::to_owned);
    let mut rungs: Vec<Option<String>> = fresh.map(Some).into_iter().collect();
    rungs.extend(strong.filter(|_| quirks.has(Fact::WeakEtag)).map(Some));
    rungs.extend(quirks.has(Fact::EtagUnwanted).then_some(None));
    if !quirks.has(Fact::HpeStarRefused) {
        rungs.push(Some("*".to_owned()));
    }
    rungs
}

fn is_root(path: &str) -> bool {
    matches!(bare(path), "/redfish" | "/redfish/v1")
}

/// A path without query and closing slash: what ETags are remembered by.
fn bare(path: &str) -> &str {
    path.split(['?', '#']).next().unwrap_or(path).trim_end_matches('/')
}

fn is_link(key: &str) -> bool {
    matches!(key, "@odata.id" | "target" | "Location" | "@Redfish.ActionInfo") || key.ends_with("@odata.nextLink")
}

/// Whether a link is a path and cannot be read as anything else by any URL parser.
fn is_plain(link: &str) -> bool {
    let no_host = !link.contains("://") && !link.starts_with("//") && !link.contains('\\');
    no_host && !link.chars().any(char::is_control) && !link.starts_with(' ')
}

/// A request's body as the audit log may show it.
pub(super) fn veil(mut value: Value) -> Value {
    if let Value::Object(map) = &mut value {
        for (key, value) in map.iter_mut() {
            let key = key.to_ascii_lowercase();
            if ["password", "token", "secret"].iter().any(|word| key.contains(word)) {
                *value = json!("…");
            } else {
                *value = veil(value.take());
            }
        }
    }
    value
}
