//! One image of the appliance: its list of chunks, and its chunks' bytes, verified.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use tokio::sync::Semaphore;

use super::appliance::{Appliance, Patience, PullError};
use super::plan::Fetch;
use crate::format::chunk_list::{ChunkList, ChunkRef};
use crate::format::codec::Decoder;
use crate::format::digest::{RootDigest, chunk_digest};
use crate::model::{Digest, ImageRef, PackId};

/// Longest chunk list that is read: some ten million entries.
const LIST_BYTES_MAX: usize = 512 * 1024 * 1024;
/// Requests under way at once.
const CONNECTIONS: usize = 4;

/// Consecutive chunks of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Position of its first chunk.
    pub first: usize,
    /// One past the position of its last chunk.
    pub end: usize,
    /// Where it begins in the image, in bytes.
    pub offset: u64,
    /// Its length in bytes.
    pub len: usize,
}

/// Why an image's bytes could not be had.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The appliance did not give them.
    #[error("{what} failed")]
    Pull {
        /// What was asked for.
        what: String,
        /// Why.
        #[source]
        source: PullError,
    },
    /// The chunk list is damaged, or does not add up to the digest it claims.
    #[error("the chunk list of {image} is unusable: {what}; run `bedplate store fsck` on the appliance")]
    List {
        /// The image.
        image: ImageRef,
        /// What is wrong with it.
        what: String,
    },
    /// A chunk's bytes were wrong twice.
    #[error(
        "pack {pack} chunk {chunk} (of the image; at byte {offset} of the pack) is damaged in the store: {what}, twice; \
         run `bedplate store fsck` on the appliance and import the image again"
    )]
    Damaged {
        /// The pack.
        pack: PackId,
        /// The chunk's position in the image.
        chunk: usize,
        /// Where its stored bytes begin in the pack.
        offset: u64,
        /// What is wrong with them.
        what: String,
    },
    /// Decoding was stopped from outside.
    #[error("decoding was interrupted")]
    Interrupted,
}

/// An image on the appliance. Cheap to clone.
#[derive(Clone)]
pub struct ImageSource {
    appliance: Appliance,
    list: Arc<ChunkList>,
    patience: Patience,
    slots: Arc<Semaphore>,
    fetched: Arc<AtomicU64>,
}

impl ImageSource {
    /// Fetches the image's chunk list and checks that its digests add up to its root.
    pub async fn open(appliance: &Appliance, image: &ImageRef, patience: Patience) -> Result<Self, FetchError> {
        let path = format!("/api/v1/pull/images/{image}");
        let what = format!("fetching the chunk list of {image}");
        let bytes = patience
            .keep_trying(&what, || appliance.get(&path, None, LIST_BYTES_MAX))
            .await
            .map_err(|source| FetchError::Pull { what: what.clone(), source })?;
        let unusable = |what: String| FetchError::List { image: image.clone(), what };
        let list = ChunkList::decode(&bytes).map_err(|error| unusable(error.to_string()))?;
        let mut root = RootDigest::new();
        for chunk in &list.chunks {
            root.push(chunk.digest, u64::from(chunk.raw_len));
        }
        if root.finish() != list.root_digest {
            return Err(unusable("its chunks do not add up to its root digest".to_owned()));
        }
        Ok(Self {
            appliance: appliance.clone(),
            list: Arc::new(list),
            patience,
            slots: Arc::new(Semaphore::new(CONNECTIONS)),
            fetched: Arc::new(AtomicU64::new(bytes.len() as u64)),
        })
    }

    /// The image's chunks.
    #[must_use]
    pub fn list(&self) -> &Arc<ChunkList> {
        &self.list
    }

    /// Bytes that came over the wire so far, the list included, HTTP's own not.
    #[must_use]
    pub fn bytes_fetched(&self) -> u64 {
        self.fetched.load(Ordering::Relaxed)
    }

    /// The image cut into segments of at least `target` bytes each, the last one excepted.
    #[must_use]
    pub fn segments(&self, target: usize) -> Vec<Segment> {
        let mut segments = Vec::new();
        let mut open = Segment { first: 0, end: 0, offset: 0, len: 0 };
        for chunk in &self.list.chunks {
            open.end += 1;
            open.len += chunk.raw_len as usize;
            if open.len >= target {
                segments.push(open);
                open = Segment { first: open.end, end: open.end, offset: open.offset + open.len as u64, len: 0 };
            }
        }
        if open.len > 0 {
            segments.push(open);
        }
        segments
    }

    /// The bytes of a request's chunks, each verified, with its position in the image. Bytes that do not match their
    /// digest are asked for once more before the chunk counts as damaged.
    pub async fn fetch(&self, fetch: &Fetch) -> Result<Vec<(usize, Vec<u8>)>, FetchError> {
        let _slot = self.slots.acquire().await.map_err(|_| FetchError::Interrupted)?;
        match self.fetch_once(fetch).await {
            Err(FetchError::Damaged { pack, chunk, what, .. }) => {
                tracing::warn!(%pack, chunk, "a chunk came damaged ({what}); asking once more");
                self.fetch_once(fetch).await
            }
            done => done,
        }
    }

    async fn fetch_once(&self, fetch: &Fetch) -> Result<Vec<(usize, Vec<u8>)>, FetchError> {
        let pack = self.list.packs[fetch.pack as usize];
        let path = format!("/api/v1/pull/packs/{pack}");
        let what = format!("fetching bytes {} to {} of pack {pack}", fetch.range.start, fetch.range.end);
        let limit = usize::try_from(fetch.range.len()).unwrap_or(usize::MAX);
        let stored = self
            .patience
            .keep_trying(&what, || self.appliance.get(&path, Some(fetch.range), limit))
            .await
            .map_err(|source| FetchError::Pull { what: what.clone(), source })?;
        self.fetched.fetch_add(stored.len() as u64, Ordering::Relaxed);
        let (list, fetch) = (self.list.clone(), fetch.clone());
        tokio::task::spawn_blocking(move || unpack(&list, &fetch, &stored))
            .await
            .map_err(|_| FetchError::Interrupted)?
    }
}

/// Decodes and verifies every chunk of a request.
fn unpack(list: &ChunkList, fetch: &Fetch, stored: &Bytes) -> Result<Vec<(usize, Vec<u8>)>, FetchError> {
    let mut done: Vec<(usize, Vec<u8>)> = Vec::with_capacity(fetch.chunks.len());
    let mut decoder = Decoder::new();
    for &at in &fetch.chunks {
        let chunk = &list.chunks[at];
        // The same chunk at several places of the image comes once, and its positions follow each other.
        if let Some((before, bytes)) = done.last()
            && list.chunks[*before] == *chunk
        {
            done.push((at, bytes.clone()));
            continue;
        }
        let bytes = verified(&mut decoder, chunk, fetch, stored).map_err(|what| FetchError::Damaged {
            pack: list.packs[chunk.pack as usize],
            chunk: at,
            offset: chunk.offset,
            what,
        })?;
        done.push((at, bytes));
    }
    Ok(done)
}

fn verified(decoder: &mut Decoder, chunk: &ChunkRef, fetch: &Fetch, stored: &Bytes) -> Result<Vec<u8>, String> {
    let start = usize::try_from(chunk.offset - fetch.range.start).unwrap_or(usize::MAX);
    let end = start.saturating_add(chunk.stored_len as usize);
    if end > stored.len() {
        return Err("it is cut short".to_owned());
    }
    let bytes = decoder
        .chunk(chunk.offset, chunk.codec, &stored.slice(start..end), chunk.within, chunk.raw_len)
        .map_err(|error| error.to_string())?;
    let digest: Digest = chunk_digest(&bytes);
    if digest != chunk.digest {
        return Err(format!("its digest is {} instead of {}", digest.short(), chunk.digest.short()));
    }
    Ok(bytes.into())
}

#[cfg(test)]
mod tests {
    //! Damage of any byte of a request is noticed and names pack and chunk.
    use super::*;
    use crate::format::codec::Encoder;
    use crate::pull::plan::fetches;

    fn image() -> (ChunkList, Bytes) {
        let parts = [vec![1u8; 30_000], b"text and more text ".repeat(2000), vec![1u8; 30_000]];
        let (mut stored, mut chunks, mut root) = (Vec::new(), Vec::new(), RootDigest::new());
        for part in &parts[..2] {
            let frame = Encoder::new().encode(&[Bytes::from(part.clone())]).remove(0);
            let digest = chunk_digest(part);
            let (offset, stored_len, raw_len) = (stored.len() as u64, frame.stored.len() as u32, part.len() as u32);
            chunks.push(ChunkRef { digest, pack: 0, offset, stored_len, raw_len, codec: frame.codec, within: 0 });
            stored.extend_from_slice(&frame.stored);
        }
        chunks.push(chunks[0]);
        for chunk in &chunks {
            root.push(chunk.digest, u64::from(chunk.raw_len));
        }
        let size = parts.iter().map(|part| part.len() as u64).sum();
        (ChunkList { size, root_digest: root.finish(), packs: vec![PackId([5; 16])], chunks }, stored.into())
    }

    #[test]
    fn unpacks_and_notices_damage() {
        let (list, stored) = image();
        let plan = fetches(&list.chunks, &[0, 1, 2]);
        assert_eq!(plan.len(), 1);
        let done = unpack(&list, &plan[0], &stored).unwrap();
        assert_eq!(
            done.iter().map(|(at, bytes)| (*at, bytes.len())).collect::<Vec<_>>(),
            [(0, 30_000), (2, 30_000), (1, 38_000)]
        );
        for at in 0..stored.len() {
            let mut bad = stored.to_vec();
            bad[at] ^= 1;
            // zstd's frame headers have bits without meaning: what still decodes to the right bytes is not damage.
            if let Err(error) = unpack(&list, &plan[0], &bad.into()) {
                assert!(error.to_string().starts_with(&format!("pack {} chunk ", PackId([5; 16]))), "{error}");
            }
        }
        assert!(unpack(&list, &plan[0], &stored.slice(..stored.len() - 1)).is_err());
    }
}
