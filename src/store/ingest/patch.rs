//! Chunks that are made of an object that is there, and of some bytes between. What comes out is compared with its digest; what cannot be
//! made counts as missing.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;

use super::given::Item;
use crate::format::digest::chunk_digest;
use crate::format::push::{Op, Patched, span};
use crate::format::row::{Body, ObjectRow};
use crate::store::error::StoreError;
use crate::store::types::{ENCRYPTION, PatchBase};
use crate::store::{Inner, Store};

/// The object.
pub(super) struct Base {
    store: Store,
    row: ObjectRow,
}

impl Base {
    /// Opens it; nothing where it is not there as it was, or is encrypted.
    pub(super) async fn open(inner: &Arc<Inner>, base: PatchBase) -> Option<Self> {
        let store = Store { inner: inner.clone() };
        let row = store.object_row(&base.bucket, &base.key, None).await.ok()?.row;
        let fits = row.etag == base.etag && !row.described.headers.contains_key(ENCRYPTION);
        fits.then_some(Self { store, row })
    }

    /// The bytes of which the chunks are made, and where they begin; nothing where they cannot be read, or lie beyond the object.
    pub(super) async fn span(&self, chunks: &[Patched]) -> Option<(u64, Bytes)> {
        let Some((from, to)) = span(chunks.iter().flat_map(|patched| &patched.ops)) else {
            return Some((0, Bytes::new()));
        };
        if to > self.row.size {
            return None;
        }
        if let Body::Inline(bytes) = &self.row.body {
            return Some((from, bytes.slice(from as usize..to as usize)));
        }
        let (terms, offset) = self.store.inner.terms(&self.row.body, from, to).await.ok()?;
        let mut bytes = self.store.read(terms, from - offset, to - from);
        let mut all = BytesMut::with_capacity((to - from) as usize);
        while let Some(piece) = bytes.next().await {
            all.extend_from_slice(&piece.ok()?);
        }
        Some((from, all.freeze())).filter(|(_, all)| all.len() as u64 == to - from)
    }
}

/// Makes the chunks of a record.
pub(super) fn open_patch(
    chunks: &[Patched],
    inserted: &Bytes,
    base: Option<&(u64, Bytes)>,
    items: &mut Vec<Item>,
) -> Result<(), StoreError> {
    let mut rest = inserted.clone();
    for Patched { chunk, ops } in chunks {
        let mut data = BytesMut::with_capacity(chunk.len as usize);
        for op in ops {
            match (op, base) {
                (Op::Insert { len }, _) if *len as usize <= rest.len() => {
                    data.extend_from_slice(&rest.split_to(*len as usize));
                }
                (Op::Insert { .. }, _) => return Err(StoreError::Unfit("A patch inserts more than comes along.")),
                (Op::Copy { at, len }, Some((from, bytes))) => {
                    let begin = at.checked_sub(*from).and_then(|begin| usize::try_from(begin).ok());
                    let copied = begin.and_then(|begin| bytes.get(begin..begin.checked_add(*len as usize)?));
                    data.extend_from_slice(copied.unwrap_or_default());
                }
                (Op::Copy { .. }, None) => {}
            }
        }
        let is_it = data.len() == chunk.len as usize && chunk_digest(&data) == chunk.digest;
        items.push(if is_it { Item::New(chunk.digest, data.freeze()) } else { Item::Lost(*chunk) });
    }
    Ok(())
}
