//! Groups: consecutive chunks that are read ahead together and cached in one file. Where a group ends depends on the chunks
//! alone, so that versions of an object share the groups of what they have in common, whatever lies before; a frame that
//! chunks share is not cut, where that can be helped, because it is decoded whole.

use std::ops::Range;

use crate::format::chunk_list::ChunkRef;
use crate::model::Digest;
use crate::model::limit::FRAME_TARGET;

/// Bytes below which no group ends before its object does.
const GROUP_MIN: u32 = 1024 * 1024;
/// Bytes that no group exceeds.
pub(super) const GROUP_MAX: u32 = 4 * 1024 * 1024;
/// A group ends behind a digest whose last byte has these bits zero.
const ENDS: u8 = 0b111;
/// What the digests of a group's chunks are hashed under.
const CONTEXT: &str = "bedplate 2026 group of cached chunks";

/// Consecutive chunks of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Group {
    /// The digest of its chunks' digests.
    pub(super) name: Digest,
    /// Positions of its chunks in the list.
    pub(super) chunks: Range<usize>,
}

/// The groups of a list, in order: every chunk is in one.
pub(super) fn groups(chunks: &[ChunkRef]) -> Vec<Group> {
    let mut groups = Vec::new();
    let (mut first, mut len) = (0, 0u32);
    for at in 1..=chunks.len() {
        len += chunks[at - 1].raw_len;
        if chunks.get(at).is_none_or(|next| ends(&chunks[at - 1], next, len)) {
            groups.push(Group { name: name_of(&chunks[first..at]), chunks: first..at });
            (first, len) = (at, 0);
        }
    }
    groups
}

/// Whether a group of `len` bytes ends between two chunks.
fn ends(last: &ChunkRef, next: &ChunkRef, len: u32) -> bool {
    if len + next.raw_len > GROUP_MAX {
        return true;
    }
    let is_new_frame = (last.pack, last.offset) != (next.pack, next.offset);
    let is_nearly_full = len + FRAME_TARGET as u32 > GROUP_MAX;
    is_new_frame && len >= GROUP_MIN && (is_nearly_full || last.digest.0[31] & ENDS == 0)
}

fn name_of(chunks: &[ChunkRef]) -> Digest {
    let mut hasher = blake3::Hasher::new_derive_key(CONTEXT);
    for chunk in chunks {
        hasher.update(&chunk.digest.0);
    }
    Digest(hasher.finalize().into())
}

#[cfg(test)]
mod tests {
    //! Groups hold every chunk once, in order, and stay within their bounds; what lies before does not change those behind.
    use proptest::prelude::*;

    use super::*;
    use crate::format::codec::Codec;
    use crate::format::digest::chunk_digest;

    /// Chunks of these contents, so many to a frame.
    fn list(contents: impl Iterator<Item = (u64, u32)>, to_a_frame: usize) -> Vec<ChunkRef> {
        let chunk = |(at, (content, raw_len)): (usize, (u64, u32))| ChunkRef {
            digest: chunk_digest(&content.to_le_bytes()),
            pack: 0,
            offset: (at / to_a_frame) as u64 * 100_000,
            stored_len: 1000,
            raw_len,
            codec: Codec::Zstd,
            within: 0,
        };
        contents.enumerate().map(chunk).collect()
    }

    fn len(chunks: &[ChunkRef], group: &Group) -> u32 {
        chunks[group.chunks.clone()].iter().map(|chunk| chunk.raw_len).sum()
    }

    #[test]
    fn versions_share_groups() {
        let old = list((0..1600).map(|n| (n, 65_536)), 1);
        let new = list([(9_999, 20_000)].into_iter().chain((0..1600).map(|n| (n, 65_536))), 1);
        let names = |chunks: &[ChunkRef]| groups(chunks).into_iter().map(|group| group.name).collect::<Vec<_>>();
        let (old, new) = (names(&old), names(&new));
        let shared = new.iter().filter(|name| old.contains(name)).count();
        assert!(old.len() > 40 && shared + 3 > old.len(), "{shared} of {} groups", old.len());
    }

    #[test]
    fn the_same_chunk_for_ever_is_cut_too() {
        let mut chunks = list((0..1).map(|_| (0, 131_072)), 1);
        chunks = vec![chunks[0]; 5_000];
        let groups = groups(&chunks);
        assert!(groups.iter().all(|group| len(&chunks, group) <= GROUP_MAX));
        assert_eq!(groups[0].name, groups[1].name);
        assert_eq!(super::groups(&[]), []);
    }

    proptest! {
        #[test]
        fn covers_all(lens in proptest::collection::vec(1u32..=131_072, 1..400), to_a_frame in 1usize..3) {
            let chunks = list(lens.iter().enumerate().map(|(n, len)| (n as u64, *len)), to_a_frame);
            let groups = groups(&chunks);
            let mut next = 0;
            for (at, group) in groups.iter().enumerate() {
                prop_assert_eq!(group.chunks.start, next);
                next = group.chunks.end;
                let len = len(&chunks, group);
                prop_assert!(len <= GROUP_MAX && !group.chunks.is_empty());
                if at + 1 < groups.len() {
                    prop_assert!(len >= GROUP_MIN);
                    prop_assert!(next % to_a_frame == 0, "a frame is cut");
                }
            }
            prop_assert_eq!(next, chunks.len());
        }
    }
}
