//! What was fetched, decoded straight to where it belongs, and verified there.

use std::ops::Range;

use bytes::Bytes;

use super::plan::Fetch;
use crate::format::chunk_list::{ChunkList, ChunkRef};
use crate::format::codec::{Codec, Decoder};
use crate::format::digest::chunk_digest;

/// A chunk that is not what its digest says.
#[derive(Debug, PartialEq, Eq)]
pub struct Damage {
    /// Its position in the list.
    pub chunk: usize,
    /// What is wrong with it.
    pub what: String,
}

/// Decodes and verifies a request's chunks. `out` is the room for consecutive chunks of the list, and `room` says where in it a
/// chunk belongs. What is in `out` after an error is not to be used.
pub fn place(
    list: &ChunkList,
    fetch: &Fetch,
    stored: &Bytes,
    out: &mut [u8],
    room: impl Fn(usize) -> Range<usize>,
) -> Result<(), Damage> {
    let mut decoder = Decoder::new();
    let mut rest = &fetch.chunks[..];
    while let Some(&first) = rest.first() {
        let chunk = &list.chunks[first];
        let damage = |what: String| Damage { chunk: first, what };
        let start = usize::try_from(chunk.offset - fetch.range.start).unwrap_or(usize::MAX);
        let end = start.saturating_add(chunk.stored_len as usize);
        if end > stored.len() {
            return Err(damage("it is cut short".to_owned()));
        }
        let frame = stored.slice(start..end);
        let together = neighbours(list, rest);
        let whole = room(first).start..room(rest[together - 1]).end;
        // A frame whose chunks are all wanted, where it belongs; otherwise the chunk out of it.
        if chunk.within == 0 && decoder.decode_into(chunk.codec, &frame, &mut out[whole]).is_ok() {
            for &at in &rest[..together] {
                verify(list, at, &out[room(at)])?;
            }
            rest = &rest[together..];
        } else {
            let bytes = decoder.chunk(chunk.offset, chunk.codec, &frame, chunk.within, chunk.raw_len);
            let bytes = bytes.map_err(|error| damage(error.to_string()))?;
            verify(list, first, &bytes)?;
            out[room(first)].copy_from_slice(&bytes);
            rest = &rest[1..];
        }
        // The same chunk at other places: its positions follow each other.
        while let Some(&again) = rest.first().filter(|again| list.chunks[**again] == *chunk) {
            out.copy_within(room(first), room(again).start);
            rest = &rest[1..];
        }
    }
    Ok(())
}

/// How many of these chunks, from the first on, follow each other both in the list and in one frame.
fn neighbours(list: &ChunkList, wanted: &[usize]) -> usize {
    let follows = |pair: &[usize]| {
        let (one, next): (&ChunkRef, &ChunkRef) = (&list.chunks[pair[0]], &list.chunks[pair[1]]);
        one.codec == Codec::ZstdFrame
            && pair[1] == pair[0] + 1
            && (one.pack, one.offset, one.within + one.raw_len) == (next.pack, next.offset, next.within)
    };
    1 + wanted.windows(2).take_while(|pair| follows(pair)).count()
}

/// Whether what a request brings is its chunks themselves, consecutive ones of the list, in order.
#[must_use]
pub fn is_plain(list: &ChunkList, fetch: &Fetch) -> bool {
    let mut next = (fetch.chunks.first().copied().unwrap_or_default(), fetch.range.start);
    let follows = |&at: &usize| {
        let chunk = &list.chunks[at];
        let is_next = (at, chunk.offset) == next && chunk.codec == Codec::Raw && chunk.stored_len == chunk.raw_len;
        next = (at + 1, chunk.offset + u64::from(chunk.stored_len));
        is_next
    };
    fetch.chunks.iter().all(follows) && next.1 == fetch.range.end
}

/// Compares a chunk's bytes with its digest.
pub fn verify(list: &ChunkList, at: usize, bytes: &[u8]) -> Result<(), Damage> {
    let (digest, expected) = (chunk_digest(bytes), list.chunks[at].digest);
    if digest == expected {
        return Ok(());
    }
    Err(Damage { chunk: at, what: format!("its digest is {} instead of {}", digest.short(), expected.short()) })
}

#[cfg(test)]
mod tests {
    //! Chunks of every codec come to their places, whichever of them are wanted; damage of any byte is noticed.
    use proptest::prelude::*;

    use super::*;
    use crate::format::codec::Encoder;
    use crate::model::{Digest, PackId};
    use crate::pull::fetches;

    /// A list of chunks in one pack, the first of them once more at the end, what is stored, and the content.
    fn sample() -> (ChunkList, Bytes, Vec<u8>) {
        let mut state = 1u64;
        let mut noise = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 56) as u8
        };
        let text = |n: u8| Bytes::from(format!("line {n} of a dataset that compresses\n").repeat(300 + usize::from(n)));
        let mut parts: Vec<Bytes> = (0..9).map(text).collect();
        parts.insert(4, (0..9_000).map(|_| noise()).collect());
        let (mut chunks, mut stored, mut next) = (Vec::new(), Vec::new(), 0);
        for frame in Encoder::new().encode(&parts) {
            let (mut within, offset, stored_len) = (0, stored.len() as u64, frame.stored.len() as u32);
            for part in &parts[next..next + frame.chunks] {
                let (digest, raw_len, codec) = (chunk_digest(part), part.len() as u32, frame.codec);
                chunks.push(ChunkRef { digest, pack: 0, offset, stored_len, raw_len, codec, within });
                within += if codec == Codec::ZstdFrame { raw_len } else { 0 };
            }
            next += frame.chunks;
            stored.extend_from_slice(&frame.stored);
        }
        assert!(chunks.iter().filter(|chunk| chunk.codec == Codec::ZstdFrame).count() > 4);
        parts.extend([parts[0].clone(), parts[0].clone()]);
        chunks.extend([chunks[0], chunks[0]]);
        let content = parts.concat();
        let size = content.len() as u64;
        let list = ChunkList { size, root_digest: Digest::default(), packs: vec![PackId([5; 16])], chunks };
        (list, stored.into(), content)
    }

    fn rooms(list: &ChunkList) -> Vec<Range<usize>> {
        let mut at = 0;
        let room = |chunk: &ChunkRef| {
            at += chunk.raw_len as usize;
            at - chunk.raw_len as usize..at
        };
        list.chunks.iter().map(room).collect()
    }

    proptest! {
        #[test]
        fn what_is_wanted_comes_to_its_place(wanted in proptest::collection::btree_set(0usize..12, 1..12)) {
            let (list, stored, content) = sample();
            let (rooms, wanted) = (rooms(&list), wanted.into_iter().collect::<Vec<_>>());
            let mut out = vec![0; content.len()];
            for fetch in fetches(&list.chunks, &wanted) {
                let part = stored.slice(fetch.range.start as usize..fetch.range.end as usize);
                prop_assert_eq!(place(&list, &fetch, &part, &mut out, |at| rooms[at].clone()), Ok(()));
            }
            for at in wanted {
                prop_assert!(out[rooms[at].clone()] == content[rooms[at].clone()], "chunk {}", at);
            }
        }
    }

    #[test]
    fn notices_damage() {
        let (list, stored, content) = sample();
        let rooms = rooms(&list);
        let all: Vec<usize> = (0..list.chunks.len()).collect();
        let plan = fetches(&list.chunks, &all);
        assert_eq!(plan.len(), 1);
        let mut out = vec![0; content.len()];
        for at in (0..stored.len()).step_by(11) {
            let mut bad = stored.to_vec();
            bad[at] ^= 1;
            assert!(place(&list, &plan[0], &bad.into(), &mut out, |at| rooms[at].clone()).is_err(), "byte {at}");
        }
        let cut = stored.slice(..stored.len() - 1);
        assert_eq!(place(&list, &plan[0], &cut, &mut out, |at| rooms[at].clone()).unwrap_err().what, "it is cut short");
    }
}
