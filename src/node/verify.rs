//! Reading the disk back, past every cache, and adding it up again: what counts is what the disk says.

use std::io;
use std::sync::Arc;

use futures_util::StreamExt as _;

use super::report::Gauge;
use super::write::SEGMENT;
use crate::format::chunk_list::{ChunkList, ChunkRef};
use crate::format::digest::{RootDigest, chunk_digest, is_zero_digest};
use crate::model::Digest;
use crate::model::limit::CHUNK_MAX;
use crate::pull::{ImageSource, Segment};
use crate::sys::disk::{ALIGN, Aligned, Disk};

/// Segments read at once.
const AHEAD: usize = 3;

/// The disk does not hold what was written.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// A chunk reads back differently.
    #[error(
        "the disk reads back wrong at byte {offset} (chunk {chunk} of the image, {len} bytes): the drive, its cable or \
         the machine's memory is failing; replace the drive and apply again"
    )]
    Mismatch {
        /// Where the chunk begins on the disk.
        offset: u64,
        /// Its position in the image.
        chunk: usize,
        /// Its length in bytes.
        len: u32,
    },
    /// The disk cannot be read.
    #[error("the disk cannot be read back at byte {offset}: replace the drive")]
    Disk {
        /// Where.
        offset: u64,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// Work was stopped from outside.
    #[error("reading back was interrupted")]
    Interrupted,
}

/// Reads the whole image back and returns its root digest, which is the list's.
pub async fn verify(source: &ImageSource, disk: &Arc<Disk>, gauge: &Gauge) -> Result<Digest, VerifyError> {
    let check = |segment: Segment| {
        let (list, disk) = (source.list().clone(), disk.clone());
        let task = tokio::task::spawn_blocking(move || check_segment(&list, &disk, segment));
        async move { task.await.map_err(|_| VerifyError::Interrupted)? }
    };
    let mut checked = futures_util::stream::iter(source.segments(SEGMENT)).map(check).buffered(AHEAD);
    let mut root = RootDigest::new();
    while let Some(digests) = checked.next().await {
        for (digest, len) in digests? {
            root.push(digest, len);
            gauge.advance(len);
        }
    }
    Ok(root.finish())
}

fn check_segment(list: &ChunkList, disk: &Disk, segment: Segment) -> Result<Vec<(Digest, u64)>, VerifyError> {
    let start = segment.offset / ALIGN as u64 * ALIGN as u64;
    let room = usize::try_from(segment.offset - start).unwrap_or_default();
    let mut buffer = Aligned::zeroed((room + segment.len).next_multiple_of(ALIGN));
    let len = (buffer.len() as u64).min(disk.len() - start);
    let len = usize::try_from(len).unwrap_or_default();
    disk.read_at(start, &mut buffer[..len]).map_err(|source| VerifyError::Disk { offset: start, source })?;
    let mut at = room;
    let mut digests = Vec::with_capacity(segment.end - segment.first);
    for (chunk, position) in list.chunks[segment.first..segment.end].iter().zip(segment.first..) {
        let digest = digest_of(chunk, &buffer[at..at + chunk.raw_len as usize]);
        if digest != chunk.digest {
            let offset = start + at as u64;
            return Err(VerifyError::Mismatch { offset, chunk: position, len: chunk.raw_len });
        }
        digests.push((digest, u64::from(chunk.raw_len)));
        at += chunk.raw_len as usize;
    }
    Ok(digests)
}

/// The digest of what was read. Zeros that are known to be zeros need no hashing, which halves the time of an image
/// that is half empty.
fn digest_of(chunk: &ChunkRef, bytes: &[u8]) -> Digest {
    let is_zero = bytes.len() == CHUNK_MAX && is_zero_digest(&chunk.digest, CHUNK_MAX) && bytes.iter().all(|b| *b == 0);
    if is_zero { chunk.digest } else { chunk_digest(bytes) }
}
