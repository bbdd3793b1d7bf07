//! Who we are to one BMC: a session where it offers them, else Basic; made once, re-made when it expires, ended at
//! close.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use hyper::header::{self, HeaderValue};
use hyper::{HeaderMap, Method};
use serde_json::{Value, json};
use tokio::sync::Mutex;

use super::exchange::{Answer, Ask, Exchange};
use super::fact::Fact;
use super::words::Words;
use super::{BmcError, Credentials, Pins};

const TOKEN: &str = "x-auth-token";
const ROOT: &str = "/redfish/v1/";

/// The credentials of one request.
#[derive(Clone)]
pub(super) enum Login {
    /// None: a stranger.
    None,
    /// Basic credentials with each request.
    Basic(HeaderValue),
    /// A session's token.
    Token { token: HeaderValue, open: Option<Arc<Open>> },
}

/// A session that is open at a BMC. Dropped without having been ended there, wherever a caller was broken off, it is noted as left.
pub(super) struct Open {
    ledger: Arc<dyn Pins>,
    bmc: String,
    place: String,
    ended: AtomicBool,
}

impl Open {
    fn begin(ledger: Arc<dyn Pins>, bmc: &str, place: String) -> Arc<Self> {
        ledger.session_begun(bmc, &place);
        Arc::new(Self { ledger, bmc: bmc.to_owned(), place, ended: AtomicBool::new(false) })
    }

    pub(super) fn place(&self) -> &str {
        &self.place
    }

    fn end(&self) {
        self.ended.store(true, Ordering::Relaxed);
        self.ledger.session_ended(&self.bmc, &self.place);
    }

    fn leave(&self) {
        if !self.ended.swap(true, Ordering::Relaxed) {
            self.ledger.session_left(&self.bmc, &self.place);
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.leave();
    }
}

impl Login {
    pub(super) fn may_expire(&self) -> bool {
        matches!(self, Self::Token { .. })
    }

    pub(super) fn apply(&self, headers: &mut HeaderMap) {
        match self {
            Self::None => {}
            Self::Basic(value) => {
                headers.insert(header::AUTHORIZATION, value.clone());
            }
            Self::Token { token, .. } => {
                headers.insert(TOKEN, token.clone());
            }
        }
    }
}

#[derive(Default)]
struct State {
    login: Option<Login>,
    /// The root itself asked for credentials.
    insists: bool,
    /// Where sessions are made, once the root was read; none inside where it offers none.
    offered: Option<Option<String>>,
}

/// One BMC's session.
pub(super) struct Session {
    credentials: Option<Credentials>,
    pub(super) ledger: Arc<dyn Pins>,
    state: Mutex<State>,
}

/// What is noted while a session is asked for. Dropped without having been settled, it counts as lost.
struct Note<'a> {
    ledger: &'a dyn Pins,
    bmc: &'a str,
    name: Option<String>,
}

impl<'a> Note<'a> {
    fn begin(ledger: &'a dyn Pins, bmc: &'a str) -> Self {
        Self { ledger, bmc, name: ledger.session_asked(bmc) }
    }

    /// What became of it is known; if it is not, a session may be open.
    fn settle(mut self, known: bool) {
        if let Some(name) = self.name.take() {
            self.ledger.session_settled(self.bmc, &name, !known);
        }
    }
}

impl Drop for Note<'_> {
    fn drop(&mut self) {
        if let Some(name) = self.name.take() {
            self.ledger.session_settled(self.bmc, &name, true);
        }
    }
}

/// Whether what failed so never reached the BMC.
fn never_arrived(error: &BmcError) -> bool {
    use super::Reach;
    match error {
        BmcError::Unreachable { why: Reach::Name(_) | Reach::Refused, .. } => true,
        BmcError::Unreachable { why: Reach::TimedOut { phase, .. }, .. } => *phase != "answer",
        BmcError::Tls { .. } | BmcError::PinChanged { .. } | BmcError::Local { .. } => true,
        _ => false,
    }
}

impl Session {
    pub(super) fn new(credentials: Option<Credentials>, ledger: Arc<dyn Pins>) -> Self {
        Self { credentials, ledger, state: Mutex::default() }
    }

    pub(super) fn username(&self) -> Option<String> {
        self.credentials.as_ref().map(|c| c.username.clone())
    }

    pub(super) fn has_credentials(&self) -> bool {
        self.credentials.is_some()
    }

    /// Remembers that the root is not shown to strangers.
    pub(super) async fn insist(&self) {
        self.state.lock().await.insists = true;
    }

    /// What to read the root with.
    pub(super) async fn for_root(&self) -> Login {
        match self.state.lock().await.insists {
            true => self.basic(),
            false => Login::None,
        }
    }

    /// The present login; made if there is none.
    pub(super) async fn current(&self, exchange: &Exchange) -> Result<Login, BmcError> {
        let Some(credentials) = &self.credentials else { return Ok(Login::None) };
        let mut state = self.state.lock().await;
        if let Some(login) = &state.login {
            return Ok(login.clone());
        }
        let offered = match state.offered.clone() {
            Some(offered) => offered,
            None => self.root(exchange, &mut state).await?.json().and_then(|root| sessions_at(exchange, &root)),
        };
        let login = match offered {
            Some(path) => self.begin(exchange, &path, credentials).await?,
            None => self.basic(),
        };
        state.login = Some(login.clone());
        Ok(login)
    }

    /// The root, with Basic credentials only if it insists.
    async fn root(&self, exchange: &Exchange, state: &mut State) -> Result<Answer, BmcError> {
        let mut headers = HeaderMap::new();
        if state.insists {
            self.basic().apply(&mut headers);
        }
        let answer = exchange.send(&Ask::get(ROOT), headers).await?;
        if answer.status != hyper::StatusCode::UNAUTHORIZED || state.insists {
            return Ok(answer);
        }
        state.insists = true;
        let mut headers = HeaderMap::new();
        self.basic().apply(&mut headers);
        exchange.send(&Ask::get(ROOT), headers).await
    }

    /// Learns from the root where sessions are made.
    pub(super) fn learn(&self, exchange: &Exchange, root: &Value) {
        if let Ok(mut state) = self.state.try_lock() {
            state.offered = Some(sessions_at(exchange, root));
        }
    }

    async fn begin(&self, exchange: &Exchange, path: &str, credentials: &Credentials) -> Result<Login, BmcError> {
        let body = json!({ "UserName": credentials.username, "Password": credentials.password.reveal() });
        let ask = Ask::json(Method::POST, path.to_owned(), body.to_string().into());
        let note = Note::begin(&*self.ledger, exchange.bmc());
        let answer = match exchange.send(&ask, HeaderMap::new()).await {
            Ok(answer) => answer,
            Err(error) => {
                note.settle(never_arrived(&error));
                return Err(error);
            }
        };
        let Words { message, ids, .. } = exchange.words(&answer);
        let unauthorised = ids.iter().any(|id| super::quirk::is_wrong_password(id));
        if answer.status == hyper::StatusCode::UNAUTHORIZED || (!answer.status.is_success() && unauthorised) {
            note.settle(true);
            return Err(BmcError::WrongPassword { bmc: exchange.bmc().to_owned(), username: self.username() });
        }
        let token = answer.headers.get(TOKEN).cloned().filter(|_| answer.status.is_success());
        let Some(mut token) = token else {
            note.settle(true);
            if !exchange.has(Fact::SessionsFull) {
                return Err(exchange.refusal(&ask, &answer, message));
            }
            // No room for another session, or none offered after all: Basic works everywhere else.
            tracing::warn!(bmc = exchange.bmc(), status = answer.status.as_u16(), message, "no session; using Basic");
            return Ok(self.basic());
        };
        token.set_sensitive(true);
        let named = answer.json().and_then(|body| body["@odata.id"].as_str().map(str::to_owned));
        let place = answer.header(header::LOCATION).map(str::to_owned).or(named);
        let place = place.and_then(|link| exchange.own(&link));
        tracing::info!(target: "audit", bmc = exchange.bmc(), session = place, "BMC session begun");
        let open = place.map(|place| Open::begin(Arc::clone(&self.ledger), exchange.bmc(), place));
        note.settle(true);
        let login = Login::Token { token, open };
        if exchange.has(Fact::SessionLeftBehind) {
            self.sweep(exchange, &login, path).await;
        }
        Ok(login)
    }

    /// Deletes a session; answers whether it is gone.
    pub(super) async fn delete(&self, exchange: &Exchange, login: &Login, place: &str) -> bool {
        let mut headers = HeaderMap::new();
        login.apply(&mut headers);
        let ask = Ask::json(Method::DELETE, place.to_owned(), bytes::Bytes::new());
        match exchange.send(&ask, headers).await {
            Ok(answer) => {
                let status = answer.status.as_u16();
                tracing::info!(target: "audit", bmc = exchange.bmc(), session = place, status, "BMC session ended");
                answer.status.is_success() || matches!(status, 401 | 404 | 410)
            }
            Err(error) => {
                tracing::warn!(bmc = exchange.bmc(), %error, "a session could not be ended; it is deleted at the next contact");
                false
            }
        }
    }

    /// Drops a token that the BMC no longer knows, unless another request has already replaced it.
    pub(super) async fn forget(&self, stale: &Login) {
        let mut state = self.state.lock().await;
        let same = match (&state.login, stale) {
            (Some(Login::Token { token: now, .. }), Login::Token { token: then, .. }) => now == then,
            _ => false,
        };
        if same {
            // Now, not with the last copy of it: by then the BMC may have given its number to the next.
            if let Some(Login::Token { open: Some(open), .. }) = state.login.take() {
                open.leave();
            }
        }
    }

    /// Ends the session at the BMC.
    pub(super) async fn end(&self, exchange: &Exchange) {
        let login = self.state.lock().await.login.take();
        let Some(login @ Login::Token { .. }) = login else { return };
        let Login::Token { open: Some(open), .. } = &login else { return };
        if self.delete(exchange, &login, &open.place).await {
            open.end();
        }
    }

    fn basic(&self) -> Login {
        let Some(credentials) = &self.credentials else { return Login::None };
        let text = base64(format!("{}:{}", credentials.username, credentials.password.reveal()).as_bytes());
        let mut value = HeaderValue::from_str(&format!("Basic {text}")).expect("base64 is plain text");
        value.set_sensitive(true);
        Login::Basic(value)
    }
}

fn sessions_at(exchange: &Exchange, root: &Value) -> Option<String> {
    root["Links"]["Sessions"]["@odata.id"].as_str().and_then(|link| exchange.own(link))
}

/// Standard base64 with padding.
pub(super) fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let bits = group.iter().fold(0u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - group.len()));
        for place in 0..4 {
            let letter = LETTERS[(bits >> (18 - 6 * place)) as usize & 63];
            text.push(if place <= group.len() { char::from(letter) } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    //! Basic credentials are written as every other program writes them.
    use super::base64;

    #[test]
    fn base64_matches_known_texts() {
        for (plain, coded) in
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("admin:p\u{e4}ss", "YWRtaW46cMOkc3M=")]
        {
            assert_eq!(base64(plain.as_bytes()), coded);
        }
    }
}
