//! One connection to a server, and requests on it one after the other.

use std::future::Future;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::Request;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::Error;

/// Answers up to this length are kept.
const KEPT: usize = 4 << 20;
/// A server that is crowded says so; the request is sent again so often, after this pause.
const TRIES: u32 = 100;
const PAUSE: std::time::Duration = std::time::Duration::from_millis(20);

/// A connection.
pub struct Connection {
    sender: SendRequest<Full<Bytes>>,
}

/// What came back.
pub struct Answer {
    /// Bytes of the body.
    pub bytes: u64,
    /// The body, where it is a text.
    pub text: Vec<u8>,
}

impl Connection {
    /// Opens it; what is returned besides has to be driven along with the requests.
    pub async fn open(host: &str) -> Result<(Self, impl Future<Output = hyper::Result<()>>), Error> {
        let stream = TcpStream::connect(host).await?;
        stream.set_nodelay(true)?;
        let (sender, driver) = http1::handshake(TokioIo::new(stream)).await?;
        Ok((Self { sender }, driver))
    }

    /// Sends a request and takes its answer, which must be a success, and `expected` where that is given.
    pub async fn ask(
        &mut self,
        method: &str,
        target: &str,
        headers: Vec<(&'static str, String)>,
        body: Bytes,
        expected: Option<&Bytes>,
    ) -> Result<Answer, Error> {
        for _ in 0..TRIES {
            let mut request = Request::builder().method(method).uri(target);
            for (name, value) in &headers {
                request = request.header(*name, value);
            }
            self.sender.ready().await?;
            let answer = self.sender.send_request(request.body(Full::new(body.clone()))?).await?;
            let (status, kind) = (answer.status(), answer.headers().get("content-type").cloned());
            let is_text = kind.is_some_and(|kind| kind.as_bytes().ends_with(b"xml"));
            let (mut bytes, mut text, mut same) = (0, Vec::new(), true);
            let mut stream = answer.into_body();
            while let Some(frame) = stream.frame().await {
                let Ok(piece) = frame?.into_data() else { continue };
                if (is_text || !status.is_success()) && text.len() < KEPT {
                    text.extend_from_slice(&piece);
                }
                if let Some(expected) = expected {
                    same &= expected.get(bytes..bytes + piece.len()) == Some(&piece[..]);
                }
                bytes += piece.len();
            }
            if status.as_u16() == 503 {
                tokio::time::sleep(PAUSE).await;
                continue;
            }
            if !status.is_success() {
                return Err(format!("{method} {target}: {status}: {}", String::from_utf8_lossy(&text)).into());
            }
            if expected.is_some_and(|expected| !same || expected.len() != bytes) {
                return Err(format!("{method} {target}: the bytes are not those that were put").into());
            }
            return Ok(Answer { bytes: bytes as u64, text });
        }
        Err(format!("{method} {target}: the server stayed too busy").into())
    }
}
