//! What agents pull: an image's list of chunks, and ranges of packs.

use std::collections::HashMap;

use bytes::Bytes;

use super::Store;
use super::error::StoreError;
use crate::format::chunk_list::{CHUNKS_MAX, ChunkList, ChunkRef};
use crate::format::digest::RootDigest;
use crate::format::field::Damaged;
use crate::format::row::{Body, ObjectRow, PackRow, PackState, key};
use crate::model::{BucketName, ByteRange, ObjectKey, PackId};

/// Most bytes of one [`Store::read_pack`].
pub const READ_PACK_MAX: u64 = 16 * 1024 * 1024;

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
        let mut list =
            ChunkList { size: row.size, root_digest: Default::default(), packs: Vec::new(), chunks: Vec::new() };
        let mut numbers: HashMap<PackId, u32> = HashMap::new();
        let mut root = RootDigest::new();
        for term in terms {
            if list.chunks.len() + term.count as usize > CHUNKS_MAX {
                return Err(damaged("the object has more chunks than a list may have").into());
            }
            let chunks = self.inner.chunks(term.pack, term.first).await?;
            let pack = *numbers.entry(term.pack).or_insert_with(|| {
                list.packs.push(term.pack);
                list.packs.len() as u32 - 1
            });
            for chunk in term.sequence() {
                let missing =
                    || StoreError::Corrupt { pack: term.pack, chunk, what: "the pack has no such chunk".to_owned() };
                let entry = chunks.entry(chunk).ok_or_else(missing)?;
                root.push(entry.digest, u64::from(entry.raw_len));
                list.chunks.push(ChunkRef {
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
        list.root_digest = root.finish();
        if row.root_digest.is_some_and(|digest| digest != list.root_digest) {
            return Err(damaged("its chunks do not add up to the object's root digest").into());
        }
        Ok(list)
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
