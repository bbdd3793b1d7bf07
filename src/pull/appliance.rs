//! The appliance as a node sees it: one address, one login, and patience, because a node outlives an appliance that
//! is restarted.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, RANGE};
use hyper::{Method, Request, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::model::{ByteRange, Secret};
use crate::sys::wire::{self, Client, ClientConfig, Trust, WireError};

/// For one answer, its body included: past it the connection is taken for dead and made anew.
const ANSWER_LIMIT: Duration = Duration::from_secs(60);
/// Connections that are kept for the next request.
const IDLE: usize = 32;
/// The longest refusal that is read, and the longest answer to an exchange.
const ERROR_BYTES_MAX: usize = 1024 * 1024;
/// Bytes a second that a request's body is given the time for.
const SLOWEST: u64 = 32 * 1024;
const BACK_OFF_FIRST: Duration = Duration::from_millis(250);
const BACK_OFF_MOST: Duration = Duration::from_secs(5);
/// How long "internal error" is believed to pass: past it, the appliance's own log says what is broken.
const INTERNAL_ERROR_LIMIT: Duration = Duration::from_secs(60);

/// How the node shows who it is.
#[derive(Clone, Debug)]
pub enum Login {
    /// The one-time token of an installation.
    Token(Secret),
    /// An access key of the appliance.
    Key {
        /// Its public half.
        access_key: String,
        /// Its secret half.
        secret_key: Secret,
    },
}

impl Login {
    fn header(&self) -> String {
        match self {
            Self::Token(token) => format!("Bearer {}", token.reveal()),
            Self::Key { access_key, secret_key } => {
                format!("Basic {}", base64(format!("{access_key}:{}", secret_key.reveal()).as_bytes()))
            }
        }
    }
}

/// Standard base64 with padding; the one place that needs it writes an HTTP header.
fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let word = group.iter().fold(0u32, |word, b| word << 8 | u32::from(*b)) << (8 * (3 - group.len()));
        for at in 0..4 {
            let letter = LETTERS[(word >> (18 - 6 * at)) as usize & 63];
            text.push(if at <= group.len() { char::from(letter) } else { '=' });
        }
    }
    text
}

/// How long a request is tried again while the appliance is away (unreachable, or answering 5xx).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patience {
    /// Until it is back.
    Endless,
    /// For this long, then the last error.
    For(Duration),
}

/// Why the appliance did not give what was asked.
#[derive(Debug, thiserror::Error)]
pub enum PullError {
    /// No answer.
    #[error("no answer from the appliance")]
    Wire(#[source] WireError),
    /// It answered, and refused.
    #[error("the appliance answered {status} to {path}: {message}")]
    Refused {
        /// What was asked for.
        path: String,
        /// The HTTP status.
        status: StatusCode,
        /// What it said, and what it advises.
        message: String,
    },
    /// It answered something that is not what was asked for.
    #[error("the appliance's answer to {path} is unusable ({what}): are its version and this agent's the same?")]
    BadAnswer {
        /// What was asked for.
        path: String,
        /// What is wrong with it.
        what: String,
    },
    /// The appliance's address is not one.
    #[error(
        "{0:?} is not the address of an appliance: write https://HOST:PORT, and pin its certificate with --pin SHA256"
    )]
    Address(String),
}

impl PullError {
    /// Whether asking again may help.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Wire(error) => !matches!(
                error,
                WireError::PinMismatch { .. }
                    | WireError::Address(_)
                    | WireError::TooLong(_)
                    | WireError::TooShort { .. }
            ),
            Self::Refused { status, .. } => {
                status.is_server_error()
                    || matches!(*status, StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS)
            }
            Self::BadAnswer { .. } | Self::Address(_) => false,
        }
    }

    /// The HTTP status, where the appliance answered.
    #[must_use]
    pub fn status(&self) -> Option<StatusCode> {
        match self {
            Self::Refused { status, .. } => Some(*status),
            _ => None,
        }
    }
}

/// A connection to the appliance; clones share it.
#[derive(Clone, Debug)]
pub struct Appliance {
    client: Client,
    base: String,
    login: String,
}

impl Appliance {
    /// The appliance at `url`, trusted by the certificate's pin for `https`, not at all for `http`.
    pub fn new(url: &str, pin: Option<[u8; 32]>, login: &Login) -> Result<Self, PullError> {
        let bad = || PullError::Address(url.to_owned());
        let base = url.trim_end_matches('/').to_owned();
        let uri: hyper::Uri = base.parse().map_err(|_| bad())?;
        let trust = match (uri.scheme_str(), pin) {
            (Some("http"), _) => Trust::Plain,
            (Some("https"), Some(pin)) => Trust::Pin(pin),
            _ => return Err(bad()),
        };
        // Each request bounds its own time, by what it sends.
        let config = ClientConfig { answer: None, idle_connections: IDLE, ..ClientConfig::default() };
        Ok(Self { client: Client::new(trust, config), base, login: login.header() })
    }

    /// What tells the login that it uses from others: what one may read, another may not.
    #[must_use]
    pub fn login_digest(&self) -> [u8; 32] {
        blake3::derive_key("bedplate 2026 login of an appliance", self.login.as_bytes())
    }

    /// Its host and port, for a trial connection.
    #[must_use]
    pub fn authority(&self) -> String {
        let rest = self.base.split_once("://").map_or(self.base.as_str(), |(_, rest)| rest);
        rest.split('/').next().unwrap_or_default().to_owned()
    }

    /// One GET, one attempt; at most `limit` bytes.
    pub async fn get(&self, path: &str, range: Option<ByteRange>, limit: usize) -> Result<Bytes, PullError> {
        let request = match range {
            Some(range) => self.request_range(path, range)?,
            None => self.request(Method::GET, path)?,
        };
        let body = self.send(path, request, limit).await?;
        match range {
            Some(range) if body.len() as u64 != range.len() => Err(PullError::BadAnswer {
                path: path.to_owned(),
                what: format!("{} bytes instead of {}", body.len(), range.len()),
            }),
            _ => Ok(body),
        }
    }

    /// One GET of a range, one attempt, to where it belongs: `out` is as long as the range. What is in it after an error is not to be
    /// used.
    pub async fn get_into(&self, path: &str, range: ByteRange, out: &mut [u8]) -> Result<(), PullError> {
        let request = self.request_range(path, range)?;
        match self.answer(request, ANSWER_LIMIT, |body| wire::read_into(body, out)).await? {
            (_, Ok(())) => Ok(()),
            (status, Err(refusal)) => Err(Self::refused(path, status, &refusal)),
        }
    }

    /// One GET of JSON, one attempt.
    pub async fn get_json<T: DeserializeOwned>(&self, path: &str) -> Result<T, PullError> {
        let body = self.get(path, None, 1 << 20).await?;
        serde_json::from_slice(&body)
            .map_err(|error| PullError::BadAnswer { path: path.to_owned(), what: error.to_string() })
    }

    /// One POST of JSON, one attempt; the answer's body does not matter.
    pub async fn post_json<T: Serialize>(&self, path: &str, value: &T) -> Result<(), PullError> {
        let text = serde_json::to_vec(value)
            .map_err(|error| PullError::BadAnswer { path: path.to_owned(), what: error.to_string() })?;
        let mut request = self.request(Method::POST, path)?;
        request.headers_mut().insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static("application/json"));
        *request.body_mut() = Full::new(Bytes::from(text));
        self.send(path, request, ERROR_BYTES_MAX).await.map(|_| ())
    }

    /// One request with a body of bytes, one attempt; the answer, whatever it says.
    pub async fn exchange(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
        content_type: &'static str,
    ) -> Result<(StatusCode, Bytes), PullError> {
        let limit = ANSWER_LIMIT + Duration::from_secs(body.len() as u64 / SLOWEST);
        let mut request = self.request(method, path)?;
        request.headers_mut().insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static(content_type));
        *request.body_mut() = Full::new(body);
        let (status, body) = self.answer(request, limit, |body| wire::read_all(body, ERROR_BYTES_MAX)).await?;
        Ok((status, body.unwrap_or_else(|refusal| refusal)))
    }

    /// The error that an answer stands for which is no success.
    #[must_use]
    pub fn refused(path: &str, status: StatusCode, body: &[u8]) -> PullError {
        PullError::Refused { path: path.to_owned(), status, message: message_in(body) }
    }

    fn request(&self, method: Method, path: &str) -> Result<Request<Full<Bytes>>, PullError> {
        Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.base))
            .header(AUTHORIZATION, &self.login)
            .body(Full::default())
            .map_err(|_| PullError::Address(self.base.clone()))
    }

    fn request_range(&self, path: &str, range: ByteRange) -> Result<Request<Full<Bytes>>, PullError> {
        let mut request = self.request(Method::GET, path)?;
        let text = format!("bytes={}-{}", range.start, range.end.saturating_sub(1));
        let value = text.parse().map_err(|_| PullError::Address(text))?;
        request.headers_mut().insert(RANGE, value);
        Ok(request)
    }

    async fn send(&self, path: &str, request: Request<Full<Bytes>>, limit: usize) -> Result<Bytes, PullError> {
        let (status, body) = self.answer(request, ANSWER_LIMIT, |body| wire::read_all(body, limit)).await?;
        body.map_err(|refusal| Self::refused(path, status, &refusal))
    }

    /// The answer within `time`: what `take` makes of its body, or what a refusal says.
    async fn answer<T, F>(
        &self,
        request: Request<Full<Bytes>>,
        time: Duration,
        take: impl FnOnce(Incoming) -> F,
    ) -> Result<(StatusCode, Result<T, Bytes>), PullError>
    where
        F: Future<Output = Result<T, WireError>>,
    {
        let whole = async {
            let answer = self.client.request(request).await.map_err(PullError::Wire)?;
            let status = answer.status();
            if status.is_success() {
                return Ok((status, Ok(take(answer.into_body()).await.map_err(PullError::Wire)?)));
            }
            // It is read as far as it can be.
            Ok((status, Err(wire::read_all(answer.into_body(), ERROR_BYTES_MAX).await.unwrap_or_default())))
        };
        let late = || WireError::TimedOut { authority: self.authority(), seconds: time.as_secs() };
        tokio::time::timeout(time, whole).await.map_err(|_| PullError::Wire(late()))?
    }
}

impl Patience {
    /// Calls `attempt` until it succeeds, fails for good, or patience ends; waits longer after each failure.
    pub async fn keep_trying<T, F>(self, what: &str, mut attempt: impl FnMut() -> F) -> Result<T, PullError>
    where
        F: Future<Output = Result<T, PullError>>,
    {
        let began = Instant::now();
        let mut pause = BACK_OFF_FIRST;
        let mut failures = 0u32;
        let mut broken_since: Option<Instant> = None;
        loop {
            let error = match attempt().await {
                Ok(value) => {
                    if failures > 0 {
                        tracing::info!(failures, "{what}: the appliance is back");
                    }
                    return Ok(value);
                }
                Err(error) => error,
            };
            let spent = matches!(self, Self::For(limit) if began.elapsed() + pause > limit);
            broken_since = match error.status() {
                Some(StatusCode::INTERNAL_SERVER_ERROR) => broken_since.or_else(|| Some(Instant::now())),
                _ => None,
            };
            let broken = broken_since.is_some_and(|since| since.elapsed() > INTERNAL_ERROR_LIMIT);
            if !error.is_transient() || spent || broken {
                return Err(error);
            }
            failures += 1;
            // The first failure and then about one a minute: enough to see on a console, too few to fill it.
            if failures == 1 || failures.is_multiple_of(12) {
                tracing::warn!(failures, "{what}: {}; trying again", with_causes(&error));
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(BACK_OFF_MOST);
        }
    }
}

/// An error and its causes in one line, for consoles and reports.
#[must_use]
pub fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// The message and hint of the appliance's error JSON, or the beginning of whatever it said.
fn message_in(body: &[u8]) -> String {
    let text = |value: &serde_json::Value| value.as_str().map(str::to_owned);
    let parsed: Option<serde_json::Value> = serde_json::from_slice(body).ok();
    let error = parsed.as_ref().and_then(|value| value.get("error"));
    match error.map(|error| (error.get("message").and_then(text), error.get("hint").and_then(text))) {
        Some((Some(message), Some(hint))) if !hint.is_empty() => format!("{message}; {hint}"),
        Some((Some(message), _)) => message,
        _ => String::from_utf8_lossy(body).chars().take(200).collect(),
    }
}

#[cfg(test)]
mod tests {
    //! Logins are encoded as HTTP wants them, refusals are told from absences, and patience ends when it should.
    use super::*;

    #[test]
    fn encodes_base64() {
        for (plain, coded) in [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob>?", "Zm9vYj4/")] {
            assert_eq!(base64(plain.as_bytes()), coded);
        }
    }

    #[test]
    fn reads_the_error_that_the_appliance_sends() {
        let body = br#"{"error":{"kind":"x","message":"no such image","hint":"import it"}}"#;
        assert_eq!(message_in(body), "no such image; import it");
        assert_eq!(message_in(b"bad gateway"), "bad gateway");
    }

    #[test]
    fn refuses_bad_addresses() {
        let login = Login::Token(Secret::new("t"));
        for (url, pin, good) in [
            ("http://127.0.0.1:1", None, true),
            ("https://127.0.0.1:1/", Some([1; 32]), true),
            ("https://127.0.0.1:1", None, false),
            ("127.0.0.1:1", None, false),
            ("ftp://x", None, false),
        ] {
            assert_eq!(Appliance::new(url, pin, &login).is_ok(), good, "{url}");
        }
    }

    #[tokio::test]
    async fn patience_ends_on_refusal_and_on_time() {
        let refused = |status| PullError::Refused { path: String::new(), status, message: String::new() };
        let mut calls = 0;
        let done: Result<(), _> = Patience::Endless
            .keep_trying("test", || {
                calls += 1;
                let status = if calls < 3 { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::UNAUTHORIZED };
                std::future::ready(Err(refused(status)))
            })
            .await;
        assert_eq!((calls, done.unwrap_err().status()), (3, Some(StatusCode::UNAUTHORIZED)));
        let brief = Patience::For(Duration::from_millis(300));
        let late: Result<(), _> =
            brief.keep_trying("test", || std::future::ready(Err(refused(StatusCode::BAD_GATEWAY)))).await;
        assert!(late.unwrap_err().is_transient());
    }
}
