//! The control API as commands call it: JSON over HTTP, errors that keep the appliance's words and hints.

use bytes::Bytes;
use futures_util::Stream;
use http_body_util::{Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::{Method, Request, Response};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::context::Credentials;
use super::exit::{CliError, FAILED, REFUSED};
use crate::auth::base64;
use crate::sys::wire::{self, BoxError, Client, ClientConfig, Trust, WireError};

/// Longest answer that a command reads into memory, in bytes.
const ANSWER_MAX: usize = 256 * 1024 * 1024;

/// A client of one appliance, with one key.
#[derive(Clone, Debug)]
pub struct ApiClient {
    base: String,
    authorization: String,
    client: Client,
}

#[derive(serde::Deserialize)]
struct ErrorAnswer {
    error: ErrorBody,
}

#[derive(serde::Deserialize)]
struct ErrorBody {
    kind: String,
    message: String,
    hint: Option<String>,
}

impl ApiClient {
    /// A client of the appliance at `base`; https needs the pin of its certificate.
    pub fn new(base: &str, pin: Option<[u8; 32]>, key: &Credentials) -> Result<Self, CliError> {
        let trust = match (base.starts_with("https://"), pin) {
            (false, _) => Trust::Plain,
            (true, Some(pin)) => Trust::Pin(pin),
            (true, None) => {
                return Err(CliError::usage(format!("{base} is an https address, and no certificate is pinned"))
                    .hint("give --pin SHA256; `bedplate serve` logs its certificate's pin when it starts"));
            }
        };
        // Imports, fsck and plans take as long as they take; a lost connection still ends the wait.
        let client = Client::new(trust, ClientConfig { answer: None, ..ClientConfig::default() });
        let pair = format!("{}:{}", key.access_key, key.secret_key.reveal());
        Ok(Self { base: base.to_owned(), authorization: format!("Basic {}", base64::encode(pair.as_bytes())), client })
    }

    /// Asks for `path`, which begins with a slash.
    pub async fn get_json<T: DeserializeOwned>(&self, path: &str) -> Result<T, CliError> {
        self.json(Method::GET, path, None).await
    }

    /// Sends `body` to `path`.
    pub async fn post_json<B: Serialize + ?Sized, T: DeserializeOwned>(
        &self,
        path: &str,
        body: &B,
    ) -> Result<T, CliError> {
        self.json(Method::POST, path, Some(serde_json::to_vec(body)?)).await
    }

    /// Deletes what `path` names.
    pub async fn delete(&self, path: &str) -> Result<(), CliError> {
        let request = self.request(Method::DELETE, path).body(Full::<Bytes>::default())?;
        self.send(request).await.map(drop)
    }

    /// Sends a stream of `length` bytes to `path`.
    pub async fn put_stream<T: DeserializeOwned>(
        &self,
        path: &str,
        length: u64,
        body: impl Stream<Item = Result<Bytes, BoxError>> + Send + 'static,
    ) -> Result<T, CliError> {
        use futures_util::StreamExt as _;
        let frames = StreamBody::new(body.map(|piece| piece.map(Frame::data)));
        let request = self
            .request(Method::PUT, path)
            .header("content-type", "application/octet-stream")
            .header("content-length", length)
            .body(frames)?;
        read_json(self.send(request).await?).await
    }

    async fn json<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<Vec<u8>>,
    ) -> Result<T, CliError> {
        let mut request = self.request(method, path);
        if body.is_some() {
            request = request.header("content-type", "application/json");
        }
        let request = request.body(Full::from(body.unwrap_or_default()))?;
        read_json(self.send(request).await?).await
    }

    fn request(&self, method: Method, path: &str) -> hyper::http::request::Builder {
        Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.base))
            .header("authorization", &self.authorization)
            .header("accept", "application/json")
    }

    /// Sends, and turns an answer that is no success into an error.
    async fn send<B>(&self, request: Request<B>) -> Result<Response<Incoming>, CliError>
    where
        B: hyper::body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let answer = self.client.request(request).await.map_err(|error| self.no_answer(error))?;
        let status = answer.status();
        if status.is_success() {
            return Ok(answer);
        }
        let body = wire::read_all(answer.into_body(), 1 << 20).await?;
        Err(match serde_json::from_slice::<ErrorAnswer>(&body) {
            Ok(ErrorAnswer { error }) => {
                let exit = if matches!(error.kind.as_str(), "refused" | "pin-changed") { REFUSED } else { FAILED };
                CliError { exit, message: error.message, hint: error.hint }
            }
            Err(_) => CliError::failed(format!("{} answered {status}", self.base))
                .hint("check that --url names the control port of `bedplate serve` (9100 by default)"),
        })
    }

    fn no_answer(&self, error: WireError) -> CliError {
        match error {
            WireError::PinMismatch { .. } => CliError { exit: REFUSED, ..CliError::from(error) }.hint(
                "if the appliance was set up anew, take its new pin from its log; otherwise someone sits between you and it",
            ),
            WireError::Unreachable { .. } => CliError::from(error)
                .hint(format!("start it with `bedplate serve`, or name another address than {} with --url", self.base)),
            other => other.into(),
        }
    }
}

/// Reads an answer's JSON; an empty answer reads as null.
async fn read_json<T: DeserializeOwned>(answer: Response<Incoming>) -> Result<T, CliError> {
    let body = wire::read_all(answer.into_body(), ANSWER_MAX).await?;
    let text: &[u8] = if body.is_empty() { b"null" } else { &body };
    serde_json::from_slice(text).map_err(|error| {
        CliError::because("understand the appliance's answer", &error)
            .hint("the appliance and this program may be of different versions")
    })
}

/// One segment of a path, with everything escaped that would end it.
#[must_use]
pub fn encode_segment(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'@' => char::from(byte).to_string(),
            _ => format!("%{byte:02X}"),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    //! Names travel without leaving their place in a path.
    use super::*;

    #[test]
    fn segments_cannot_leave_their_place() {
        assert_eq!(encode_segment("a/b?c@1"), "a%2Fb%3Fc@1");
    }
}
