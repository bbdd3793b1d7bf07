//! Where the bytes come from: a body that streams in, or a file that is read as fast as it can be cut. Either way they
//! arrive in batches, whose memory is used again where nobody keeps a part of it.

use std::fs::File;
use std::io::{self, Read as _};
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;

use crate::model::limit::{CHUNK_MAX, INLINE_MAX};
use crate::store::error::StoreError;
use crate::store::types::ByteStream;
use crate::sys::worker::blocking;

/// Bytes that all uploads together may gather in batches: each takes its share.
const BATCHES_BYTES: usize = 16 * 1024 * 1024;
const BATCH: RangeInclusive<usize> = 128 * 1024..=4 * 1024 * 1024;
/// The first batch of an upload has at most so many bytes, each later one twice as many as the one before: what the first chunks
/// resemble is to be known soon.
const FIRST: usize = 256 * 1024;
/// Bytes of batches' memory that are kept for the next.
const KEPT_BYTES: usize = 24 * 1024 * 1024;

/// Counts the uploads under way while it lives.
pub(in crate::store) struct Share(Arc<AtomicUsize>);

impl Share {
    pub(in crate::store) fn of(uploads: &Arc<AtomicUsize>) -> Self {
        uploads.fetch_add(1, Ordering::Relaxed);
        Self(uploads.clone())
    }

    /// This upload's part of what all uploads may use together.
    pub(super) fn part(&self, total: usize, bounds: RangeInclusive<usize>) -> usize {
        (total / self.0.load(Ordering::Relaxed).max(1)).clamp(*bounds.start(), *bounds.end())
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Memory of batches that are done with, for those of any upload to come; clones share it.
#[derive(Clone, Default)]
pub(in crate::store) struct Pool(Arc<Mutex<Vec<BytesMut>>>);

impl Pool {
    /// Memory for `len` bytes, with whatever it held before.
    fn take(&self, len: usize) -> BytesMut {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let fitting = kept.iter().enumerate().filter(|(_, data)| data.capacity() >= len);
        let number = fitting.min_by_key(|(_, data)| data.capacity()).map(|(number, _)| number);
        let mut data = number.map(|number| kept.swap_remove(number)).unwrap_or_default();
        drop(kept);
        data.resize(len, 0);
        data
    }

    /// Takes memory back, when nobody keeps a part of it.
    pub(super) fn give(&self, data: Bytes) {
        let Ok(data) = data.try_into_mut() else { return };
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.push(data);
        while kept.iter().map(BytesMut::capacity).sum::<usize>() > KEPT_BYTES {
            kept.remove(0);
        }
    }
}

/// The bytes of an upload.
pub(in crate::store) enum Source {
    /// As they come from a client.
    Stream(ByteStream),
    /// A file of this machine.
    File(File),
}

/// A batch of the upload: [`CHUNK_MAX`] bytes of room in front, for what the batch before left uncut, then the bytes.
pub(super) struct Batch {
    pub(super) data: BytesMut,
    pub(super) last: bool,
}

impl Batch {
    /// Bytes that came with it.
    pub(super) fn len(&self) -> usize {
        self.data.len() - CHUNK_MAX
    }
}

pub(super) struct Feed {
    source: Source,
    carry: Bytes,
    ended: bool,
    ramp: usize,
    pool: Pool,
}

impl Feed {
    /// The bytes of `source`, which are to be `expected`; what is short takes no more memory than it needs.
    pub(super) fn new(source: Source, expected: Option<u64>, pool: Pool) -> Self {
        // With room for one more: the end is noticed only where another byte would fit.
        let ramp = expected
            .map_or(FIRST, |bytes| usize::try_from(bytes).unwrap_or(FIRST).saturating_add(1).clamp(INLINE_MAX, FIRST));
        Self { source, carry: Bytes::new(), ended: false, ramp, pool }
    }

    pub(super) async fn next(&mut self, share: &Share) -> Result<Batch, StoreError> {
        let limit = share.part(BATCHES_BYTES, BATCH).min(self.ramp) + CHUNK_MAX;
        self.ramp = self.ramp.saturating_mul(2);
        if let Source::File(_) = &self.source {
            return self.read(limit).await;
        }
        // The first bytes are awaited before the batch is allocated: an idle upload holds little.
        self.pull().await?;
        let mut data = self.pool.take(if self.ended { CHUNK_MAX } else { limit });
        data.truncate(CHUNK_MAX);
        while !self.carry.is_empty() {
            let count = self.carry.len().min(limit - data.len());
            data.extend_from_slice(&self.carry.split_to(count));
            if data.len() == limit {
                break;
            }
            self.pull().await?;
        }
        Ok(Batch { data, last: self.ended && self.carry.is_empty() })
    }

    /// Takes the next bytes that are not empty, or notes the end.
    async fn pull(&mut self) -> Result<(), StoreError> {
        let Source::Stream(body) = &mut self.source else { return Ok(()) };
        while !self.ended && self.carry.is_empty() {
            match body.next().await {
                Some(Ok(bytes)) => self.carry = bytes,
                Some(Err(error)) => return Err(StoreError::Body(error)),
                None => self.ended = true,
            }
        }
        Ok(())
    }

    /// Reads a batch of the file.
    async fn read(&mut self, limit: usize) -> Result<Batch, StoreError> {
        let mut data = self.pool.take(limit);
        let Source::File(file) = &self.source else { return Ok(Batch { data, last: true }) };
        let mut file = file.try_clone().map_err(|error| StoreError::Body(error.into()))?;
        let read = blocking(move || {
            let mut filled = CHUNK_MAX;
            while filled < limit {
                match file.read(&mut data[filled..]) {
                    Ok(0) => break,
                    Ok(count) => filled += count,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(error),
                }
            }
            data.truncate(filled);
            Ok(Batch { last: filled < limit, data })
        });
        read.await.map_err(StoreError::step)?.map_err(|error| StoreError::Body(error.into()))
    }
}
