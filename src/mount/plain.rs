//! Reads of an object that the store has encrypted: a recipe of it is of no use to the node, so its bytes come over S3.

use bytes::Bytes;
use tokio::sync::Mutex;

use super::bucket::{Bucket, BucketError};
use super::tree::Facts;
use crate::model::ByteRange;

/// Bytes that are fetched at once for a reader that goes on from where it was.
const AHEAD: u64 = 4 * 1024 * 1024;

/// An open object.
pub(super) struct Plain {
    bucket: Bucket,
    key: String,
    etag: String,
    pub(super) facts: Facts,
    last: Mutex<Last>,
}

/// What was fetched last.
#[derive(Default)]
struct Last {
    start: u64,
    bytes: Bytes,
    /// Where a reader that goes on reads next.
    next: u64,
}

impl Plain {
    pub(super) fn new(bucket: Bucket, key: String, facts: Facts, etag: String) -> Self {
        Self { bucket, key, etag, facts, last: Mutex::default() }
    }

    /// Bytes of the object: fewer than asked for only at its end.
    pub(super) async fn read(&self, offset: u64, len: u64) -> Result<Bytes, BucketError> {
        let size = self.facts.size;
        let wanted = ByteRange { start: offset.min(size), end: offset.saturating_add(len).min(size) };
        if wanted.is_empty() {
            return Ok(Bytes::new());
        }
        let mut last = self.last.lock().await;
        let holds = |last: &Last| last.start <= wanted.start && wanted.end <= last.start + last.bytes.len() as u64;
        if !holds(&last) {
            let goes_on = wanted.start == last.next;
            let end = if goes_on { (wanted.start + AHEAD).min(size).max(wanted.end) } else { wanted.end };
            let bytes = self.bucket.get(&self.key, &self.etag, ByteRange { start: wanted.start, end }).await?;
            (last.start, last.bytes) = (wanted.start, bytes);
        }
        last.next = wanted.end;
        let from = (wanted.start - last.start) as usize;
        Ok(last.bytes.slice(from..from + wanted.len() as usize))
    }
}
