//! S3 as commands use it: one client a bucket, paths as people write them, and entity tags computed here to find out
//! what need not travel.

use std::fs::File;
use std::io::Read as _;
use std::os::fd::BorrowedFd;
use std::path::Path as FilePath;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::{Method, Request, StatusCode};
use md5::{Digest as _, Md5};
use object_store::aws::{AmazonS3, AmazonS3Builder, AwsAuthorizer, AwsCredential};
use object_store::client::HttpRequestBody;
use object_store::path::Path;
use object_store::{ClientOptions, RetryConfig};

use super::context::Context;
use super::exit::CliError;
use crate::model::{BucketName, Digest};
use crate::push;
use crate::sys::wire::{self, Client, ClientConfig, Trust};

/// Parts of a multipart upload, in bytes; also what the entity tag of a large object is computed over.
pub const PART_BYTES: u64 = 16 * 1024 * 1024;
/// Files longer than this travel in parts.
pub const PARTS_ABOVE: u64 = 2 * PART_BYTES;
/// The region that signatures name.
const REGION: &str = "us-east-1";

/// A place in S3: `BUCKET/KEY`, or `BUCKET` alone; `BUCKET@SNAPSHOT` where it is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The bucket.
    pub bucket: BucketName,
    /// The key, or the beginning of one; empty for the whole bucket.
    pub key: String,
}

impl std::str::FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.strip_prefix("s3://").unwrap_or(text);
        let (bucket, key) = text.split_once('/').unwrap_or((text, ""));
        let bucket = BucketName::parse_readable(bucket).map_err(|error| error.to_string())?;
        Ok(Self { bucket, key: key.to_owned() })
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.bucket, self.key)
    }
}

/// A client of one bucket, or of a snapshot of one.
pub fn open(context: &Context, bucket: &BucketName) -> Result<AmazonS3, CliError> {
    wire::install_crypto();
    let key = context.credentials()?;
    let options = ClientOptions::new()
        .with_allow_http(true)
        // Small images have none, and need none where nothing is encrypted.
        .with_no_system_certificates(context.s3_url.starts_with("http://"))
        .with_timeout_disabled()
        .with_connect_timeout(Duration::from_secs(10))
        .with_pool_max_idle_per_host(32);
    let retry = RetryConfig { max_retries: 4, retry_timeout: Duration::from_secs(60), ..RetryConfig::default() };
    Ok(AmazonS3Builder::new()
        .with_endpoint(&context.s3_url)
        .with_region(REGION)
        .with_bucket_name(bucket.on_the_wire())
        .with_access_key_id(key.access_key)
        .with_secret_access_key(key.secret_key.reveal())
        .with_virtual_hosted_style_request(false)
        .with_client_options(options)
        .with_retry(retry)
        .build()?)
}

/// A key as the client library takes it.
pub fn path(key: &str) -> Result<Path, CliError> {
    Path::parse(key).map_err(|error| {
        CliError::usage(format!("{key:?} cannot be used here as a key: {error}"))
            .hint("keys with empty segments, as in a//b, need another S3 client, such as aws-cli")
    })
}

/// What went wrong with `place`, in people's words.
pub fn explain(context: &Context, place: &str, error: &object_store::Error) -> CliError {
    use object_store::Error as Cause;
    let answer = super::exit::chain(error);
    match error {
        // The message itself says what to do.
        Cause::PermissionDenied { .. } if answer.contains("is a snapshot, which never changes") => {
            refusal(&format!("use {place}"), StatusCode::FORBIDDEN, answer.as_bytes())
        }
        Cause::NotFound { .. } => CliError::failed(format!("there is no {place}"))
            .hint("`bedplate ls` lists buckets, and `bedplate ls BUCKET` what is in one"),
        Cause::Unauthenticated { .. } | Cause::PermissionDenied { .. } => {
            CliError::failed(format!("access to {place} is refused"))
                .hint("check BEDPLATE_ACCESS_KEY and BEDPLATE_SECRET_KEY, and whose the bucket is")
        }
        // What the library has no kind for, S3 has a code for.
        _ if element(&answer, "Code").is_some() => {
            refusal(&format!("use {place}"), StatusCode::BAD_REQUEST, answer.as_bytes())
        }
        _ => CliError::because(format!("reach {place} at {}", context.s3_url), error)
            .hint("check that `bedplate serve` runs there, or name another address with --s3-url"),
    }
}

/// Sends a signed request about buckets, which the client library does not know; answers its status and body.
pub async fn signed(context: &Context, method: Method, target: &str) -> Result<(StatusCode, Bytes), CliError> {
    wire::install_crypto();
    let key = context.credentials()?;
    let credential =
        AwsCredential { key_id: key.access_key, secret_key: key.secret_key.reveal().to_owned(), token: None };
    let uri = format!("{}{target}", context.s3_url);
    let mut request = Request::builder().method(method).uri(&uri).body(HttpRequestBody::empty())?;
    AwsAuthorizer::new(&credential, "s3", REGION).try_authorize(&mut request, None)?;
    let trust = match (uri.starts_with("https://"), context.pin) {
        (true, Some(pin)) => Trust::Pin(pin),
        _ => Trust::Plain,
    };
    let request = request.map(|_| Full::<Bytes>::default());
    let answer = Client::new(trust, ClientConfig::default()).request(request).await.map_err(|error| {
        CliError::from(error).hint("check that `bedplate serve` runs there, or name another address with --s3-url")
    })?;
    let status = answer.status();
    Ok((status, wire::read_all(answer.into_body(), 16 << 20).await?))
}

/// The text of an XML element's first occurrence: enough for S3's flat answers about buckets and errors.
#[must_use]
pub fn element<'a>(xml: &'a str, name: &str) -> Option<&'a str> {
    let (open, close) = (format!("<{name}>"), format!("</{name}>"));
    let start = xml.find(&open)? + open.len();
    Some(&xml[start..start + xml[start..].find(&close)?])
}

/// An answer that is no success, in people's words.
#[must_use]
pub fn refusal(what: &str, status: StatusCode, body: &[u8]) -> CliError {
    let text = String::from_utf8_lossy(body);
    let code = element(&text, "Code").unwrap_or(status.as_str()).to_owned();
    let message = element(&text, "Message").unwrap_or_default();
    let error = CliError::failed(format!("cannot {what}: {code} {message}").trim_end().to_owned());
    match code.as_str() {
        // The message itself says what to do.
        "BucketNotEmpty" | "AccessDenied" if message.contains("snapshot") => error,
        "InvalidAccessKeyId" | "SignatureDoesNotMatch" | "AccessDenied" => {
            error.hint("check BEDPLATE_ACCESS_KEY and BEDPLATE_SECRET_KEY, and whose the bucket is")
        }
        "BucketNotEmpty" => error.hint("remove its objects first, as with `bedplate rm --recursive BUCKET`"),
        "NoSuchBucket" => error.hint("`bedplate bucket list` lists the buckets"),
        _ => error,
    }
}

/// Standard input or output as an asynchronous file.
pub fn standard_stream(stream: BorrowedFd<'_>) -> std::io::Result<tokio::fs::File> {
    Ok(tokio::fs::File::from_std(File::from(stream.try_clone_to_owned()?)))
}

/// The entity tag that S3 gives a file that travels as `bedplate put` sends it: its MD5, or that of its parts' MD5s.
/// Blocks; call it off the runtime.
fn entity_tag(file: &FilePath, bytes: u64) -> std::io::Result<String> {
    let mut file = File::open(file)?;
    let mut buffer = vec![0; 1 << 20];
    let mut digest_of = |limit: u64| -> std::io::Result<[u8; 16]> {
        let mut hasher = Md5::new();
        let mut part = (&mut file).take(limit);
        loop {
            let read = part.read(&mut buffer)?;
            if read == 0 {
                return Ok(hasher.finalize().into());
            }
            hasher.update(&buffer[..read]);
        }
    };
    if bytes <= PARTS_ABOVE {
        return Ok(hex::encode(digest_of(u64::MAX)?));
    }
    let parts = bytes.div_ceil(PART_BYTES);
    let mut all = Md5::new();
    for _ in 0..parts {
        all.update(digest_of(PART_BYTES)?);
    }
    Ok(format!("{}-{parts}", hex::encode::<[u8; 16]>(all.finalize().into())))
}

/// Whether a file of so many bytes is the object with this entity tag, as far as the tag tells: it is the root digest of what was
/// pushed, and made of MD5s where it came over S3. Blocks; call it off the runtime.
pub fn is_same(file: &FilePath, bytes: u64, etag: &str) -> std::io::Result<bool> {
    let etag = etag.trim_matches('"');
    match etag.parse::<Digest>() {
        Ok(digest) => Ok(push::root_digest(File::open(file)?)? == digest),
        Err(_) => Ok(entity_tag(file, bytes)? == etag),
    }
}

#[cfg(test)]
mod tests {
    //! Places read as people write them, and entity tags are what S3 computes.
    use super::*;

    #[test]
    fn places() {
        let place: Place = "s3://data/a/b.txt".parse().unwrap();
        assert_eq!((place.bucket.as_str(), place.key.as_str()), ("data", "a/b.txt"));
        assert_eq!("data".parse::<Place>().unwrap().key, "");
        assert!("Bad_Bucket/x".parse::<Place>().is_err());
    }

    #[test]
    fn entity_tags() {
        let dir = tempfile::tempdir().unwrap();
        let small = dir.path().join("small");
        std::fs::write(&small, b"foo").unwrap();
        assert_eq!(entity_tag(&small, 3).unwrap(), "acbd18db4cc2f85cedef654fccc4a4d8");
        let large = dir.path().join("large");
        File::create(&large).unwrap().set_len(PARTS_ABOVE + 1).unwrap();
        let tag = entity_tag(&large, PARTS_ABOVE + 1).unwrap();
        assert!(tag.ends_with("-3"), "{tag}");
    }

    #[test]
    fn elements() {
        assert_eq!(element("<a><Code>X</Code></a>", "Code"), Some("X"));
        assert_eq!(element("<a/>", "Code"), None);
    }
}
