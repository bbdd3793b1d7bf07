//! Requests signed by SigV4, and frames signed after them, from what the protocol's documents say.

use ring::digest::{SHA256, digest};
use ring::hmac;
use time::OffsetDateTime;
use time::macros::format_description;

use crate::support::{ACCESS_KEY, SECRET_KEY};

pub(super) const UNSIGNED: &str = "UNSIGNED-PAYLOAD";
pub(super) const FRAMES: &str = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD";
pub(super) const UNSIGNED_FRAMES: &str = "STREAMING-UNSIGNED-PAYLOAD-TRAILER";

const REGION: &str = "us-east-1";

pub(super) fn sha256(bytes: &[u8]) -> String {
    hex::encode(digest(&SHA256, bytes))
}

fn mac(key: &[u8], text: &str) -> Vec<u8> {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text.as_bytes()).as_ref().to_vec()
}

/// A request to be signed.
pub(super) struct Unsigned<'a> {
    pub(super) method: &'a str,
    pub(super) path: &'a str,
    pub(super) host: &'a str,
    /// `x-amz-content-sha256`.
    pub(super) content: &'a str,
    /// Headers that are signed, with names in lower case.
    pub(super) headers: &'a [(&'a str, &'a str)],
}

/// A signed request's headers, and what frames are signed with.
pub(super) struct Signed {
    pub(super) headers: Vec<(String, String)>,
    key: Vec<u8>,
    date: String,
    scope: String,
    last: String,
}

impl Unsigned<'_> {
    pub(super) fn sign(&self) -> Signed {
        let now = OffsetDateTime::now_utc();
        let date = now.format(format_description!("[year][month][day]T[hour][minute][second]Z")).unwrap();
        let day = &date[..8];
        let scope = format!("{day}/{REGION}/s3/aws4_request");
        let mut headers: Vec<_> =
            self.headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        headers.extend([
            ("host".to_owned(), self.host.to_owned()),
            ("x-amz-content-sha256".to_owned(), self.content.to_owned()),
            ("x-amz-date".to_owned(), date.clone()),
        ]);
        headers.sort();
        let names = headers.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(";");
        let lines: String = headers.iter().map(|(name, value)| format!("{name}:{value}\n")).collect();
        let (path, query) = self.path.split_once('?').unwrap_or((self.path, ""));
        let canonical = format!("{}\n{path}\n{query}\n{lines}\n{names}\n{}", self.method, self.content);
        let text = format!("AWS4-HMAC-SHA256\n{date}\n{scope}\n{}", sha256(canonical.as_bytes()));
        let steps = [day, REGION, "s3", "aws4_request"];
        let key = steps.iter().fold(format!("AWS4{SECRET_KEY}").into_bytes(), |key, step| mac(&key, step));
        let last = hex::encode(mac(&key, &text));
        let authorization =
            format!("AWS4-HMAC-SHA256 Credential={ACCESS_KEY}/{scope}, SignedHeaders={names}, Signature={last}");
        headers.push(("authorization".to_owned(), authorization));
        Signed { headers, key, date, scope, last }
    }
}

impl Signed {
    /// The request's head as HTTP/1.1 has it, with more headers that are not signed.
    pub(super) fn head(&self, method: &str, path: &str, more: &[(&str, &str)]) -> String {
        let signed = self.headers.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let lines: String =
            signed.chain(more.iter().copied()).map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        format!("{method} {path} HTTP/1.1\r\n{lines}\r\n")
    }

    /// The next frame of the body.
    pub(super) fn frame(&mut self, data: &[u8]) -> Vec<u8> {
        let (date, scope, last) = (&self.date, &self.scope, &self.last);
        let text = format!("AWS4-HMAC-SHA256-PAYLOAD\n{date}\n{scope}\n{last}\n{}\n{}", sha256(b""), sha256(data));
        self.last = hex::encode(mac(&self.key, &text));
        let head = format!("{:x};chunk-signature={}\r\n", data.len(), self.last);
        [head.as_bytes(), data, b"\r\n"].concat()
    }
}

/// The head of a PUT of `length` bytes to `path`.
pub(super) fn put(host: &str, path: &str, length: u64, more: &[(&str, &str)]) -> String {
    let signed = Unsigned { method: "PUT", path, host, content: UNSIGNED, headers: &[] }.sign();
    let length = length.to_string();
    signed.head("PUT", path, &[&[("content-length", length.as_str())], more].concat())
}

/// The head of a request without a body.
pub(super) fn bare(method: &str, host: &str, path: &str) -> String {
    Unsigned { method, path, host, content: UNSIGNED, headers: &[] }.sign().head(method, path, &[])
}

/// A PUT of frames that come to `decoded` bytes, and their head.
pub(super) fn framed(host: &str, path: &str, content: &str, decoded: u64, encoded: u64) -> (String, Signed) {
    let decoded = decoded.to_string();
    let headers = [("x-amz-decoded-content-length", decoded.as_str()), ("content-encoding", "aws-chunked")];
    let signed = Unsigned { method: "PUT", path, host, content, headers: &headers }.sign();
    let head = signed.head("PUT", path, &[("content-length", &encoded.to_string())]);
    (head, signed)
}
