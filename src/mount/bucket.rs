//! The bucket as S3 shows it: lists, ranges of objects, folders' markers, renames. A client of our own, because object_store
//! refuses a whole page of a list for one key that it cannot take, and knows no rename.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use futures_util::TryStreamExt as _;
use hyper::header::{HeaderName, IF_MATCH, IF_NONE_MATCH, RANGE};
use hyper::{Method, Request, StatusCode};
use object_store::ClientOptions;
use object_store::aws::{AwsAuthorizer, AwsCredential};
use object_store::client::{HttpClient, HttpConnector as _, HttpRequestBody, ReqwestConnector};

use super::listed::{self, Listed};
use super::statistics::Statistics;
use crate::model::{BucketName, ByteRange, Secret};
use crate::pull::query_value;

/// The region that signatures name.
const REGION: &str = "us-east-1";
/// For one answer, its body included: past it the connection is taken for dead.
const ANSWER_LIMIT: Duration = Duration::from_secs(60);
/// How long to wait before asking an appliance again that is away.
const PAUSE: Duration = Duration::from_millis(500);
/// Longest list or error that is read, in bytes: a page has 1,000 keys of at most 1,024 bytes, each byte escaped.
const TEXT_MAX: usize = 8 * 1024 * 1024;
const RENAME_SOURCE: HeaderName = HeaderName::from_static("x-amz-rename-source");
const RENAME_SOURCE_IF_MATCH: HeaderName = HeaderName::from_static("x-amz-rename-source-if-match");
const COPY_SOURCE: HeaderName = HeaderName::from_static("x-amz-copy-source");
const COPY_SOURCE_IF_MATCH: HeaderName = HeaderName::from_static("x-amz-copy-source-if-match");

/// Why S3 did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum BucketError {
    /// No answer.
    #[error("no answer from S3: {0}")]
    Away(String),
    /// It answered, and refused.
    #[error("S3 answered {status}, {code}: {message}")]
    Refused {
        /// The HTTP status.
        status: StatusCode,
        /// S3's code.
        code: String,
        /// What it said.
        message: String,
    },
    /// It answered something else than what was asked for.
    #[error("the answer of S3 is unusable ({0}): are its version and this program's the same?")]
    BadAnswer(&'static str),
}

impl BucketError {
    /// Whether asking again may help.
    fn is_transient(&self) -> bool {
        match self {
            Self::Away(_) => true,
            Self::Refused { status, .. } => status.is_server_error() && *status != StatusCode::INSUFFICIENT_STORAGE,
            Self::BadAnswer(_) => false,
        }
    }

    /// The HTTP status, where it answered.
    #[must_use]
    pub fn status(&self) -> Option<StatusCode> {
        match self {
            Self::Refused { status, .. } => Some(*status),
            _ => None,
        }
    }
}

/// A request.
#[derive(Clone)]
struct Ask<'a> {
    method: Method,
    /// What follows the bucket in its address.
    target: &'a str,
    headers: &'a [(HeaderName, String)],
    body: Bytes,
}

impl<'a> Ask<'a> {
    fn of(method: Method, target: &'a str, headers: &'a [(HeaderName, String)]) -> Self {
        Self { method, target, headers, body: Bytes::new() }
    }
}

/// One bucket, or a snapshot of one. Cheap to clone.
#[derive(Clone)]
pub struct Bucket {
    http: HttpClient,
    base: Arc<str>,
    name: Arc<str>,
    credential: Arc<AwsCredential>,
    patience: Duration,
    statistics: Arc<Statistics>,
}

/// Where a page of a list begins.
#[derive(Clone, Copy, Debug)]
pub(super) enum Whence<'a> {
    /// At the list's beginning.
    Start,
    /// Where the page before ended.
    Token(&'a str),
    /// Behind a key, whether there is one or not.
    After(&'a str),
}

impl Bucket {
    /// The bucket at an S3 address without a slash at its end; while that is away it is asked again for as long as `patience` lasts.
    pub fn new(
        s3_url: &str,
        bucket: &BucketName,
        key: (&str, &Secret),
        patience: Duration,
    ) -> Result<Self, object_store::Error> {
        let options = ClientOptions::new()
            .with_allow_http(true)
            // Small images have none, and need none where nothing is encrypted.
            .with_no_system_certificates(s3_url.starts_with("http://"))
            .with_timeout_disabled()
            .with_connect_timeout(Duration::from_secs(10))
            .with_pool_max_idle_per_host(32);
        let credential = AwsCredential { key_id: key.0.to_owned(), secret_key: key.1.reveal().to_owned(), token: None };
        let name = bucket.on_the_wire();
        Ok(Self {
            http: ReqwestConnector::default().connect(&options)?,
            base: format!("{s3_url}/{name}").into(),
            name: name.to_string().into(),
            credential: Arc::new(credential),
            patience,
            statistics: Arc::default(),
        })
    }

    /// What was asked and read so far, by this and by what counts with it.
    pub(super) fn statistics(&self) -> &Arc<Statistics> {
        &self.statistics
    }

    /// The same bucket, asked once.
    #[must_use]
    pub fn impatient(&self) -> Self {
        Self { patience: Duration::ZERO, ..self.clone() }
    }

    /// Finds out whether the bucket can be listed.
    pub async fn probe(&self) -> Result<(), BucketError> {
        self.list("", true, Whence::Start, 1).await.map(drop)
    }

    /// A page of at most `most` keys that begin with a prefix, from somewhere on; what lies below a folder is told by the folder's
    /// name alone where `is_flat` is not set.
    pub(super) async fn list(
        &self,
        prefix: &str,
        is_flat: bool,
        from: Whence<'_>,
        most: usize,
    ) -> Result<Listed, BucketError> {
        let mut query = match from {
            Whence::Token(token) => format!("?continuation-token={}&", query_value(token)),
            Whence::Start | Whence::After(_) => String::from("?"),
        };
        if !is_flat {
            query.push_str("delimiter=%2F&");
        }
        query = format!("{query}encoding-type=url&list-type=2&max-keys={most}&prefix={}", query_value(prefix));
        if let Whence::After(key) = from {
            query.push_str(&format!("&start-after={}", query_value(key)));
        }
        let answer = self.patiently(Ask::of(Method::GET, &query, &[]), TEXT_MAX).await?;
        let text = std::str::from_utf8(&answer).map_err(|_| BucketError::BadAnswer("a list is not UTF-8"))?;
        listed::parse(text).ok_or(BucketError::BadAnswer("a list has no form"))
    }

    /// Bytes of an object, as long as it is the one of this entity tag.
    pub(super) async fn get(&self, key: &str, etag: &str, range: ByteRange) -> Result<Bytes, BucketError> {
        let limit = usize::try_from(range.len()).unwrap_or(usize::MAX);
        let headers = [(RANGE, format!("bytes={}-{}", range.start, range.end - 1)), (IF_MATCH, quoted(etag))];
        let path = path_of(key);
        let bytes = self.patiently(Ask::of(Method::GET, &path, &headers), limit).await?;
        if bytes.len() == limit { Ok(bytes) } else { Err(BucketError::BadAnswer("a range is short")) }
    }

    /// Puts an object: stored, whole, once this returns.
    pub(super) async fn put(&self, key: &str, content: Bytes) -> Result<(), BucketError> {
        let path = path_of(key);
        let ask = Ask { body: content, ..Ask::of(Method::PUT, &path, &[]) };
        self.patiently(ask, TEXT_MAX).await.map(drop)
    }

    /// Deletes an object, where one is named by its entity tag that one alone; what is not there is deleted, too.
    pub(super) async fn delete(&self, key: &str, etag: Option<&str>) -> Result<(), BucketError> {
        let path = path_of(key);
        let headers: Vec<_> = etag.iter().map(|etag| (IF_MATCH, quoted(etag))).collect();
        self.patiently(Ask::of(Method::DELETE, &path, &headers), TEXT_MAX).await.map(drop)
    }

    /// Gives an object another name, in one step, over what has that name unless it is to be left alone. Where an answer is lost and
    /// it is asked again, the object is not found any more: whoever asks looks whether it has its name.
    pub(super) async fn rename(&self, from: &str, etag: &str, to: &str, replaces: bool) -> Result<(), BucketError> {
        // Asked again, it must not move what has come under the old name since.
        let mut headers = vec![(RENAME_SOURCE, self.source(from)), (RENAME_SOURCE_IF_MATCH, quoted(etag))];
        if !replaces {
            headers.push((IF_NONE_MATCH, "*".to_owned()));
        }
        let target = format!("{}?renameObject", path_of(to));
        self.patiently(Ask::of(Method::PUT, &target, &headers), TEXT_MAX).await.map(drop)
    }

    /// Puts a copy of an object under another name; no data moves.
    pub(super) async fn copy(&self, from: &str, etag: &str, to: &str) -> Result<(), BucketError> {
        let headers = [(COPY_SOURCE, self.source(from)), (COPY_SOURCE_IF_MATCH, quoted(etag))];
        let path = path_of(to);
        let answer = self.patiently(Ask::of(Method::PUT, &path, &headers), TEXT_MAX).await?;
        // A copy that takes long answers 200 before it knows its end.
        match std::str::from_utf8(&answer).ok().filter(|text| !text.contains("<Error>")) {
            Some(_) => Ok(()),
            None => Err(BucketError::BadAnswer("a copy failed")),
        }
    }

    fn source(&self, key: &str) -> String {
        format!("/{}{}", self.name, path_of(key))
    }

    /// Asks again while the appliance is away, as long as patience lasts.
    async fn patiently(&self, ask: Ask<'_>, limit: usize) -> Result<Bytes, BucketError> {
        let began = Instant::now();
        loop {
            match self.ask(ask.clone(), limit).await {
                Err(error) if error.is_transient() && began.elapsed() < self.patience => {
                    tracing::debug!(%error, "asking the appliance again");
                    tokio::time::sleep(PAUSE).await;
                }
                done => return done,
            }
        }
    }

    /// One request, one attempt; the body of its answer, of at most `limit` bytes.
    async fn ask(&self, request: Ask<'_>, limit: usize) -> Result<Bytes, BucketError> {
        self.statistics.requests.fetch_add(1, Ordering::Relaxed);
        let late = || BucketError::Away(format!("none within {} s", ANSWER_LIMIT.as_secs()));
        tokio::time::timeout(ANSWER_LIMIT, self.send(request, limit)).await.map_err(|_| late())?
    }

    async fn send(&self, ask: Ask<'_>, limit: usize) -> Result<Bytes, BucketError> {
        let mut request = Request::builder().method(ask.method).uri(format!("{}{}", self.base, ask.target));
        for (name, value) in ask.headers {
            request = request.header(name, value);
        }
        let away = |error: &dyn std::error::Error| BucketError::Away(crate::pull::with_causes(error));
        let body = if ask.body.is_empty() { HttpRequestBody::empty() } else { ask.body.into() };
        let mut request = request.body(body).map_err(|_| BucketError::BadAnswer("its address"))?;
        AwsAuthorizer::new(&self.credential, "s3", REGION)
            .try_authorize(&mut request, None)
            .map_err(|error| away(&error))?;
        let answer = self.http.execute(request).await.map_err(|error| away(&error))?;
        let status = answer.status();
        let limit = if status.is_success() { limit } else { TEXT_MAX };
        let mut body = answer.into_body().bytes_stream();
        let mut bytes = BytesMut::new();
        while let Some(more) = body.try_next().await.map_err(|error| away(&error))? {
            if bytes.len() + more.len() > limit {
                return Err(BucketError::BadAnswer("it is too long"));
            }
            bytes.extend_from_slice(&more);
        }
        self.statistics.network_bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        if status.is_success() {
            return Ok(bytes.freeze());
        }
        let text = String::from_utf8_lossy(&bytes);
        let said = |name| listed::element(&text, name).unwrap_or_default().to_owned();
        Err(BucketError::Refused { status, code: said("Code"), message: said("Message") })
    }
}

/// An entity tag as headers have it.
fn quoted(etag: &str) -> String {
    format!("\"{etag}\"")
}

/// The path of a key below its bucket.
fn path_of(key: &str) -> String {
    key.split('/').fold(String::new(), |path, part| format!("{path}/{}", query_value(part)))
}

#[cfg(test)]
mod tests {
    //! Keys become paths that name them and nothing else.
    use super::*;

    #[test]
    fn paths() {
        assert_eq!(path_of("a/b c?.txt"), "/a/b%20c%3F.txt");
        assert_eq!(path_of("a/"), "/a/");
    }
}
