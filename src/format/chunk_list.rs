//! The list of chunks that make up an image, as the appliance sends it to an agent: each chunk's digest, and where its
//! stored bytes lie.
//!
//! ```text
//! 0   16  magic "bedplate-list-01"
//! 16   8  size of the image in bytes
//! 24  32  root digest
//! 56   4  packs, then 16 bytes for each pack's id
//!      4  entries; an entry is
//!           32      digest
//!           varint  index into the packs
//!           varint  offset in the pack, bytes
//!           varint  stored length, bytes
//!           varint  length, bytes
//!           1       codec
//!           varint  where the chunk begins in the decoded frame, bytes
//!           varint  how often the chunk follows itself in the image, at least 1
//!      4  CRC32C of all that is before
//! ```

use super::codec::Codec;
use super::field::{Damaged, Reader, Writer};
use crate::model::limit::{CHUNK_MAX, FRAME_MAX};
use crate::model::{Digest, PackId};

const MAGIC: &[u8; 16] = b"bedplate-list-01";
/// Shortest possible entry, in bytes: bounds what a hostile count can make us allocate.
const ENTRY_MIN: usize = 32 + 4 + 1 + 1 + 1;
/// Most chunks in a list: an image of 512 GiB of mean chunks, and 512 MiB of memory.
pub const CHUNKS_MAX: usize = 8 * 1024 * 1024;

/// An image's chunks, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChunkList {
    /// Length of the image in bytes.
    pub size: u64,
    /// Root digest over all chunks.
    pub root_digest: Digest,
    /// The packs that hold the chunks.
    pub packs: Vec<PackId>,
    /// The chunks, in the order of the image.
    pub chunks: Vec<ChunkRef>,
}

/// One chunk of an image, and where it is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkRef {
    /// The chunk's digest.
    pub digest: Digest,
    /// Which of the list's packs holds it.
    pub pack: u32,
    /// Where its frame's stored bytes begin in the pack.
    pub offset: u64,
    /// How many bytes of its frame are stored.
    pub stored_len: u32,
    /// How many bytes it has.
    pub raw_len: u32,
    /// How it is stored.
    pub codec: Codec,
    /// Where it begins in the decoded frame.
    pub within: u32,
}

impl ChunkList {
    /// The list's bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Writer::with_capacity(64 + self.packs.len() * 16 + self.chunks.len() * 46);
        out.raw(MAGIC).u64(self.size).raw(&self.root_digest.0);
        out.u32(self.packs.len() as u32);
        for pack in &self.packs {
            out.raw(&pack.0);
        }
        let runs: Vec<&[ChunkRef]> = self.chunks.chunk_by(|a, b| a == b).collect();
        out.u32(runs.len() as u32);
        for run in runs {
            let chunk = &run[0];
            out.raw(&chunk.digest.0).varint(u64::from(chunk.pack)).varint(chunk.offset);
            out.varint(u64::from(chunk.stored_len)).varint(u64::from(chunk.raw_len));
            out.u8(chunk.codec.code()).varint(u64::from(chunk.within)).varint(run.len() as u64);
        }
        out.seal().take()
    }

    /// Reads a list; checks that every chunk names a pack of the list and that the lengths add up to the size.
    pub fn decode(bytes: &[u8]) -> Result<Self, Damaged> {
        Self::decode_at_most(bytes, CHUNKS_MAX)
    }

    /// Reads a list of at most that many chunks: few bytes may stand for millions of them.
    pub fn decode_at_most(bytes: &[u8], chunks_max: usize) -> Result<Self, Damaged> {
        let mut reader = Reader::sealed("chunk list", bytes)?;
        if reader.array::<16>()? != *MAGIC {
            return Err(reader.damaged("its magic is absent"));
        }
        let size = reader.u64()?;
        let root_digest = Digest(reader.array()?);
        let pack_count = reader.u32()? as usize;
        if pack_count > reader.left() / 16 {
            return Err(reader.damaged("it names more packs than it has room for"));
        }
        let packs = (0..pack_count).map(|_| Ok(PackId(reader.array()?))).collect::<Result<Vec<_>, Damaged>>()?;
        let entries = reader.u32()? as usize;
        if entries > reader.left() / ENTRY_MIN {
            return Err(reader.damaged("it names more chunks than it has room for"));
        }
        let mut chunks = Vec::with_capacity(entries);
        let mut total = 0u64;
        for _ in 0..entries {
            let (chunk, times) = decode_entry(&mut reader, pack_count)?;
            if times > chunks_max.saturating_sub(chunks.len()) {
                return Err(reader.damaged("it has more chunks than this program reads"));
            }
            total = total.saturating_add(u64::from(chunk.raw_len).saturating_mul(times as u64));
            chunks.extend(std::iter::repeat_n(chunk, times));
        }
        if total != size {
            return Err(reader.damaged("its chunks do not add up to its size"));
        }
        reader.end()?;
        Ok(Self { size, root_digest, packs, chunks })
    }
}

fn decode_entry(reader: &mut Reader<'_>, packs: usize) -> Result<(ChunkRef, usize), Damaged> {
    let chunk = ChunkRef {
        digest: Digest(reader.array()?),
        pack: reader.varint32()?,
        offset: reader.varint()?,
        stored_len: reader.varint32()?,
        raw_len: reader.varint32()?,
        codec: Codec::from_code(reader.u8()?)?,
        within: reader.varint32()?,
    };
    let times = usize::try_from(reader.varint()?).map_err(|_| reader.damaged("a count is too large"))?;
    let (lens, frames) = (1..=CHUNK_MAX as u32, 1..=FRAME_MAX as u32);
    let stored = if chunk.codec == Codec::ZstdFrame { &frames } else { &lens };
    if chunk.pack as usize >= packs
        || !lens.contains(&chunk.raw_len)
        || !stored.contains(&chunk.stored_len)
        || times == 0
    {
        return Err(reader.damaged("an entry names a pack, a length or a count that cannot be"));
    }
    let end = u64::from(chunk.within) + u64::from(chunk.raw_len);
    if end > FRAME_MAX as u64 || chunk.within > 0 && chunk.codec != Codec::ZstdFrame {
        return Err(reader.damaged("an entry lies outside of its frame"));
    }
    if chunk.offset.checked_add(u64::from(chunk.stored_len)).is_none() {
        return Err(reader.damaged("an entry lies beyond any pack"));
    }
    Ok((chunk, times))
}

#[cfg(test)]
mod tests {
    //! Lists read back; damage anywhere is noticed; repeated chunks cost one entry.
    use proptest::prelude::*;

    use super::*;

    fn sample(count: usize) -> ChunkList {
        let mut chunks: Vec<ChunkRef> = (0..count)
            .map(|n| ChunkRef {
                digest: super::super::digest::chunk_digest(&n.to_le_bytes()),
                pack: (n % 2) as u32,
                offset: n as u64 * 70_000,
                stored_len: 60_000,
                raw_len: 65_536,
                codec: [Codec::Raw, Codec::Zstd, Codec::ZstdFrame][n % 3],
                within: if n % 3 == 2 { 65_536 } else { 0 },
            })
            .collect();
        chunks.extend(std::iter::repeat_n(chunks[0], 5000));
        ChunkList {
            size: chunks.iter().map(|chunk| u64::from(chunk.raw_len)).sum(),
            root_digest: Digest([7; 32]),
            packs: vec![PackId([1; 16]), PackId([2; 16])],
            chunks,
        }
    }

    #[test]
    fn reads_back_and_repeats_cost_nothing() {
        let list = sample(20);
        let bytes = list.encode();
        assert!(bytes.len() < 64 + 32 + 21 * 52, "{} bytes", bytes.len());
        assert_eq!(ChunkList::decode(&bytes).unwrap(), list);
    }

    #[test]
    fn notices_every_flipped_byte_and_every_cut() {
        let bytes = sample(6).encode();
        for at in 0..bytes.len() {
            let mut bad = bytes.clone();
            bad[at] ^= 1;
            assert!(ChunkList::decode(&bad).is_err(), "byte {at}");
            assert!(ChunkList::decode(&bytes[..at]).is_err(), "cut at {at}");
        }
    }

    proptest! {
        #[test]
        fn hostile_bytes_are_harmless(mut bytes: Vec<u8>, begin: bool) {
            if begin {
                let mut good = MAGIC.to_vec();
                good.append(&mut bytes);
                let crc = crc32c::crc32c(&good);
                good.extend_from_slice(&crc.to_le_bytes());
                bytes = good;
            }
            let _ = ChunkList::decode(&bytes);
        }
    }
}
