//! The appliance's side, as a client asks it; and the count of what went over the wire.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use hyper::{Method, StatusCode};
use serde::{Deserialize, Serialize};

use super::PushError;
use crate::format::known::{DIGESTS_MAX, decode_bits, decode_digests, encode_digests};
use crate::format::pieces::{SIGNATURE_BYTES_MAX, Signature};
use crate::model::{ByteRange, Digest};
use crate::pull::{Appliance, Patience, PullError, query_value};

const OCTETS: &str = "application/octet-stream";
const JSON: &str = "application/json";

/// Pushes into one bucket. Cheap to clone.
#[derive(Clone)]
pub struct PushDoor {
    appliance: Appliance,
    bucket: Arc<str>,
    patience: Patience,
    prove: Option<[u8; 32]>,
    sent: Arc<AtomicU64>,
    received: Arc<AtomicU64>,
}

#[derive(Deserialize)]
struct Terms {
    prove: Option<String>,
}

/// An upload in parts.
#[derive(Deserialize)]
pub(super) struct Upload {
    pub(super) upload: String,
    pub(super) parts: Vec<Part>,
}

/// A part that the store has.
#[derive(Clone, Deserialize, Serialize, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) number: u32,
    pub(super) etag: String,
    pub(super) size: u64,
}

#[derive(Serialize)]
struct Parts {
    parts: Vec<Part>,
}

/// What came of a push.
pub(super) enum Answer {
    Taken,
    /// These chunks must come along.
    Missing(Vec<Digest>),
}

impl PushDoor {
    /// Asks whether objects such as `key` can be pushed; one attempt.
    pub async fn open(appliance: Appliance, bucket: &str, key: &str, patience: Patience) -> Result<Self, PullError> {
        let path = format!("/api/v1/push/terms/{}?key={}", query_value(bucket), query_value(key));
        let terms: Terms = appliance.get_json(&path).await?;
        let digest = terms.prove.as_deref().map(str::parse::<Digest>).transpose();
        let prove = digest.map_err(|error| PullError::BadAnswer { path, what: error.to_string() })?;
        let prove = prove.map(|digest| digest.0);
        Ok(Self { appliance, bucket: bucket.into(), patience, prove, sent: Arc::default(), received: Arc::default() })
    }

    /// Bytes of requests that went over the wire so far.
    #[must_use]
    pub fn bytes_sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Bytes of signatures that came over the wire so far.
    #[must_use]
    pub fn bytes_received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// The key of the proofs that references need.
    pub(super) fn prove(&self) -> Option<[u8; 32]> {
        self.prove
    }

    fn path(&self, what: &str, key: &str) -> String {
        format!("/api/v1/push/{what}/{}?key={}", query_value(&self.bucket), query_value(key))
    }

    /// Asks, again and again while the appliance is away; a refusal that names chunks is an answer.
    async fn ask(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
        kind: &'static str,
    ) -> Result<(StatusCode, Bytes), PullError> {
        let what = "pushing";
        let attempt = || async {
            self.sent.fetch_add(body.len() as u64, Ordering::Relaxed);
            let (status, answer) = self.appliance.exchange(method.clone(), path, body.clone(), kind).await?;
            let names_chunks = status == StatusCode::CONFLICT && decode_digests(&answer).is_ok();
            if status.is_success() || names_chunks {
                return Ok((status, answer));
            }
            Err(Appliance::refused(path, status, &answer))
        };
        self.patience.keep_trying(what, attempt).await
    }

    /// Which of the chunks the store has.
    pub(super) async fn known(&self, key: &str, digests: &[Digest]) -> Result<Vec<bool>, PullError> {
        let path = self.path("known", key);
        let mut known = Vec::with_capacity(digests.len());
        for digests in digests.chunks(DIGESTS_MAX) {
            let (_, answer) = self.ask(Method::POST, &path, encode_digests(digests).into(), OCTETS).await?;
            let bits = decode_bits(&answer, digests.len());
            known.extend(bits.map_err(|error| PullError::BadAnswer { path: path.clone(), what: error.to_string() })?);
        }
        Ok(known)
    }

    /// What a stretch of the object that is there is made of; nothing where that is not told.
    pub(super) async fn signature(&self, key: &str, stretch: ByteRange) -> Option<Signature> {
        let path = format!("{}&start={}&end={}", self.path("signature", key), stretch.start, stretch.end);
        let asked = self.appliance.get(&path, None, SIGNATURE_BYTES_MAX).await.ok()?;
        self.received.fetch_add(asked.len() as u64, Ordering::Relaxed);
        Signature::decode(&asked).ok()
    }

    async fn push(&self, mut path: String, body: Bytes, base: Option<&str>) -> Result<Answer, PullError> {
        if let Some(etag) = base {
            path.push_str(&format!("&base={}", query_value(etag)));
        }
        if let Some(key) = self.prove {
            path.push_str(&format!("&prove={}", Digest(key)));
        }
        let (status, answer) = self.ask(Method::PUT, &path, body, OCTETS).await?;
        if status.is_success() {
            return Ok(Answer::Taken);
        }
        let digests = decode_digests(&answer);
        Ok(Answer::Missing(digests.map_err(|error| PullError::BadAnswer { path, what: error.to_string() })?))
    }

    /// Puts an object.
    pub(super) async fn object(&self, key: &str, body: Bytes, base: Option<&str>) -> Result<Answer, PullError> {
        self.push(self.path("objects", key), body, base).await
    }

    /// Puts a part.
    pub(super) async fn part(
        &self,
        key: &str,
        upload: &str,
        number: u32,
        body: Bytes,
        base: Option<&str>,
    ) -> Result<Answer, PullError> {
        self.push(format!("{}&upload={upload}&part={number}", self.path("parts", key)), body, base).await
    }

    /// Opens an upload, or the one again that has this name.
    pub(super) async fn upload(&self, key: &str, name: &str) -> Result<Upload, PullError> {
        let path = format!("{}&name={}", self.path("uploads", key), query_value(name));
        let (_, answer) = self.ask(Method::POST, &path, Bytes::new(), JSON).await?;
        serde_json::from_slice(&answer).map_err(|error| PullError::BadAnswer { path, what: error.to_string() })
    }

    /// Makes an object of the parts.
    pub(super) async fn complete(&self, key: &str, upload: &str, parts: Vec<Part>) -> Result<(), PushError> {
        let path = format!("{}&upload={upload}", self.path("complete", key));
        let body = serde_json::to_vec(&Parts { parts })
            .map_err(|error| PullError::BadAnswer { path: path.clone(), what: error.to_string() })?;
        self.ask(Method::POST, &path, body.into(), JSON).await?;
        Ok(())
    }
}
