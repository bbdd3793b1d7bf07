//! What agents pull: an image's list of chunks, and ranges of packs.

use std::collections::HashMap;

use bytes::Bytes;

use super::Store;
use super::error::StoreError;
use super::fetch::Chunks;
use super::types::ObjectInfo;
use crate::format::chunk_list::{CHUNKS_MAX, ChunkList, ChunkRef};
use crate::format::digest::RootDigest;
use crate::format::field::Damaged;
use crate::format::manifest::Term;
use crate::format::pack::Entry;
use crate::format::row::{Body, ObjectRow, PackRow, PackState, key};
use crate::model::{BucketName, ByteRange, ObjectKey, PackId};

/// Most bytes of one [`Store::read_pack`].
pub const READ_PACK_MAX: u64 = 16 * 1024 * 1024;

/// The content of a stretch of an object.
#[derive(Clone, Debug)]
pub enum Stretch {
    /// All bytes of an object that lives in its row.
    Inline(Bytes),
    /// Chunks in packs.
    Chunks(ChunkList),
}

/// Chunks, and the packs that hold them.
#[derive(Default)]
struct Gathered {
    packs: Vec<PackId>,
    numbers: HashMap<PackId, u32>,
    chunks: Vec<ChunkRef>,
}

impl Gathered {
    fn push(&mut self, pack: PackId, entry: &Entry) {
        let pack = *self.numbers.entry(pack).or_insert_with(|| {
            self.packs.push(pack);
            self.packs.len() as u32 - 1
        });
        self.chunks.push(ChunkRef {
            digest: entry.digest,
            pack,
            offset: entry.offset,
            stored_len: entry.stored_len,
            raw_len: entry.raw_len,
            codec: entry.codec,
            within: entry.within,
        });
    }
}

fn entry_of(chunks: &Chunks, pack: PackId, chunk: u32) -> Result<Entry, StoreError> {
    let missing = || StoreError::Corrupt { pack, chunk, what: "the pack has no such chunk".to_owned() };
    chunks.entry(chunk).ok_or_else(missing)
}

impl Store {
    /// The chunks that make up an object, and where their stored bytes lie. Objects that live in their rows have none;
    /// no object of the bucket `.images` does. Checks that the chunks' digests add up to the object's root digest.
    pub async fn chunk_list(&self, bucket: &BucketName, object: &ObjectKey) -> Result<ChunkList, StoreError> {
        let _activity = self.inner.activities.begin();
        let whole = |row: &ObjectRow| Ok(ByteRange { start: 0, end: row.size });
        let (found, _, (terms, _)) = self.row_and_terms(bucket, object, None, whole).await?;
        let row = found.row;
        let damaged = |why| Damaged { what: "manifest", why };
        if matches!(row.body, Body::Inline(_)) && row.size > 0 {
            return Err(
                damaged("the object lives in its row and has no chunks; put it into the bucket of images").into()
            );
        }
        let mut gathered = Gathered::default();
        let mut root = RootDigest::new();
        for term in terms {
            if gathered.chunks.len() + term.count as usize > CHUNKS_MAX {
                return Err(damaged("the object has more chunks than a list may have").into());
            }
            let chunks = self.inner.chunks(term.pack, term.first).await?;
            for chunk in term.sequence() {
                let entry = entry_of(&chunks, term.pack, chunk)?;
                root.push(entry.digest, u64::from(entry.raw_len));
                gathered.push(term.pack, &entry);
            }
        }
        let root_digest = root.finish();
        if row.root_digest.is_some_and(|digest| digest != root_digest) {
            return Err(damaged("its chunks do not add up to the object's root digest").into());
        }
        Ok(ChunkList { size: row.size, root_digest, packs: gathered.packs, chunks: gathered.chunks })
    }

    /// What an object is, and how a stretch of its bytes is fetched: where the content begins, and the content, which covers the
    /// stretch as far as the object goes.
    pub async fn stretch(
        &self,
        bucket: &BucketName,
        object: &ObjectKey,
        wanted: ByteRange,
    ) -> Result<(ObjectInfo, u64, Stretch), StoreError> {
        let _activity = self.inner.activities.begin();
        let within = |row: &ObjectRow| {
            Ok(ByteRange {
                start: wanted.start.min(row.size),
                end: wanted.end.clamp(wanted.start.min(row.size), row.size),
            })
        };
        let (row, range, (terms, mut at)) = self.row_and_terms(bucket, object, None, within).await?;
        let info = ObjectInfo::from_row(object.clone(), &row.row);
        if let Body::Inline(bytes) = row.row.body {
            return Ok((info, 0, Stretch::Inline(bytes)));
        }
        let (mut gathered, mut root) = (Gathered::default(), RootDigest::new());
        let (mut begin, mut size) = (None, 0);
        for term in terms {
            let chunks = self.inner.chunks(term.pack, term.first).await?;
            let mut numbers = term.sequence();
            if term.repeats {
                // A long run of one chunk is not walked through to where it is wanted.
                let raw = u64::from(entry_of(&chunks, term.pack, term.first)?.raw_len).max(1);
                let skipped = (range.start.saturating_sub(at) / raw).min(u64::from(term.count));
                at += skipped * raw;
                numbers = Term { count: term.count - skipped as u32, ..term }.sequence();
            }
            for chunk in numbers {
                if at >= range.end {
                    break;
                }
                let entry = entry_of(&chunks, term.pack, chunk)?;
                let end = at + u64::from(entry.raw_len);
                if end > range.start {
                    begin.get_or_insert(at);
                    size += u64::from(entry.raw_len);
                    root.push(entry.digest, u64::from(entry.raw_len));
                    gathered.push(term.pack, &entry);
                }
                at = end;
            }
        }
        let list = ChunkList { size, root_digest: root.finish(), packs: gathered.packs, chunks: gathered.chunks };
        Ok((info, begin.unwrap_or(range.start), Stretch::Chunks(list)))
    }

    /// A number that changes when an object's chunks are moved to other packs, or the object is replaced.
    pub async fn layout(&self, bucket: &BucketName, object: &ObjectKey) -> Result<u32, StoreError> {
        Ok(crc32c::crc32c(&self.object_row(bucket, object, None).await?.row.encode()))
    }

    /// Bytes of a pack, at most [`READ_PACK_MAX`]; the reader verifies the chunks in them.
    pub async fn read_pack(&self, pack: PackId, range: ByteRange) -> Result<Bytes, StoreError> {
        let _activity = self.inner.activities.begin();
        let row = self.inner.meta.get(&key::pack(pack)).await?.ok_or(StoreError::NoSuchPack(pack))?;
        let size = match PackRow::decode(&row)? {
            PackRow { state: PackState::Open, .. } => self.inner.packs.size(pack).await?,
            row => row.bytes,
        };
        if range.is_empty() || range.end > size || range.len() > READ_PACK_MAX {
            return Err(StoreError::InvalidRange { size });
        }
        self.inner.packs.read(pack, range.start, range.end).await
    }
}
