//! Packs: about 64 MiB of chunks in one immutable file that describes itself.
//!
//! ```text
//! 0        16  magic "bedplate-pack-01"
//! 16        …  the chunks' stored bytes, one after the other
//! d         …  directory: 56 bytes for each chunk, in the order of their bytes
//!              0   32  digest
//!              32   8  offset in the pack
//!              40   4  stored length, bytes
//!              44   4  length, bytes
//!              48   1  codec
//!              49   3  zeros
//!              52   4  base chunk: 0xffffffff, none (delta codecs will name one)
//!           4  CRC32C of the directory
//! f        64  footer
//!              0    8  d, the directory's offset
//!              8    4  the directory's length with its CRC
//!              12   4  chunks
//!              16  16  the pack's id
//!              32   8  sum of the chunks' lengths
//!              40   4  zeros
//!              44  16  magic "bedplate-pend-01"
//!              60   4  CRC32C of the footer's first 60 bytes
//! ```

use super::codec::Codec;
use super::field::{Damaged, Reader, Writer};
use crate::model::limit::{CHUNK_MAX, PACK_CHUNKS_MAX};
use crate::model::{Digest, PackId};

/// What a pack begins with.
pub const MAGIC: &[u8; 16] = b"bedplate-pack-01";
/// Length of the footer in bytes.
pub const FOOTER: usize = 64;
const END_MAGIC: &[u8; 16] = b"bedplate-pend-01";
const ENTRY: usize = 56;
const NO_BASE: u32 = u32::MAX;

/// One chunk of a pack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The chunk's digest.
    pub digest: Digest,
    /// Where its stored bytes begin.
    pub offset: u64,
    /// How many bytes are stored.
    pub stored_len: u32,
    /// How many bytes it has.
    pub raw_len: u32,
    /// How it is stored.
    pub codec: Codec,
}

impl Entry {
    /// One past its last stored byte.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.offset + u64::from(self.stored_len)
    }
}

/// What a pack holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Directory {
    /// The pack.
    pub pack: PackId,
    /// Its chunks, in the order of their bytes.
    pub entries: Vec<Entry>,
}

/// The last bytes of a pack: where its directory is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Footer {
    /// Where the directory begins.
    pub directory_offset: u64,
    /// Its length with its checksum.
    pub directory_len: u32,
    /// Chunks in the pack.
    pub chunks: u32,
    /// The pack's id.
    pub pack: PackId,
    /// Sum of the chunks' lengths in bytes.
    pub raw_bytes: u64,
}

impl Footer {
    /// Reads the last [`FOOTER`] bytes of a pack.
    pub fn decode(bytes: &[u8]) -> Result<Self, Damaged> {
        let mut reader = Reader::sealed("pack footer", bytes)?;
        let footer = Self {
            directory_offset: reader.u64()?,
            directory_len: reader.u32()?,
            chunks: reader.u32()?,
            pack: PackId(reader.array()?),
            raw_bytes: reader.u64()?,
        };
        if reader.u32()? != 0 || reader.array::<16>()? != *END_MAGIC {
            return Err(reader.damaged("its magic is absent"));
        }
        let expected = footer.chunks as usize * ENTRY + 4;
        if footer.chunks as usize > PACK_CHUNKS_MAX || footer.directory_len as usize != expected {
            return Err(reader.damaged("its counts do not agree"));
        }
        reader.end()?;
        Ok(footer)
    }
}

impl Directory {
    /// Sum of the chunks' lengths in bytes.
    #[must_use]
    pub fn raw_bytes(&self) -> u64 {
        self.entries.iter().map(|entry| u64::from(entry.raw_len)).sum()
    }

    /// Where the directory begins: after the last chunk.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.entries.last().map_or(MAGIC.len() as u64, Entry::end)
    }

    /// Directory and footer: the bytes that follow the last chunk.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Writer::with_capacity(self.entries.len() * ENTRY + 4 + FOOTER);
        for entry in &self.entries {
            out.raw(&entry.digest.0).u64(entry.offset).u32(entry.stored_len).u32(entry.raw_len);
            out.u8(entry.codec.code()).raw(&[0; 3]).u32(NO_BASE);
        }
        let mut bytes = out.seal().take();
        let directory_len = bytes.len() as u32;
        out.u64(self.offset()).u32(directory_len).u32(self.entries.len() as u32).raw(&self.pack.0);
        out.u64(self.raw_bytes()).u32(0).raw(END_MAGIC);
        bytes.append(&mut out.seal().take());
        bytes
    }

    /// Reads directory and footer: all bytes of the pack from the directory's offset on.
    pub fn decode(tail: &[u8]) -> Result<Self, Damaged> {
        let what = "pack directory";
        let (body, footer) =
            tail.split_last_chunk::<FOOTER>().ok_or(Damaged { what, why: "the pack is shorter than its footer" })?;
        let footer = Footer::decode(footer)?;
        if body.len() != footer.directory_len as usize {
            return Err(Damaged { what, why: "it has another length than the footer says" });
        }
        let mut reader = Reader::sealed(what, body)?;
        let mut entries = Vec::with_capacity(footer.chunks as usize);
        let mut offset = MAGIC.len() as u64;
        for _ in 0..footer.chunks {
            let entry = decode_entry(&mut reader)?;
            if entry.offset != offset {
                return Err(reader.damaged("its chunks do not follow each other"));
            }
            offset = entry.end();
            entries.push(entry);
        }
        let directory = Self { pack: footer.pack, entries };
        if offset != footer.directory_offset || directory.raw_bytes() != footer.raw_bytes {
            return Err(reader.damaged("its chunks do not add up to what the footer says"));
        }
        reader.end()?;
        Ok(directory)
    }
}

fn decode_entry(reader: &mut Reader<'_>) -> Result<Entry, Damaged> {
    let entry = Entry {
        digest: Digest(reader.array()?),
        offset: reader.u64()?,
        stored_len: reader.u32()?,
        raw_len: reader.u32()?,
        codec: Codec::from_code(reader.u8()?)?,
    };
    let fits = |len: u32| (1..=CHUNK_MAX as u32).contains(&len);
    if reader.array::<3>()? != [0; 3] || reader.u32()? != NO_BASE {
        return Err(reader.damaged("a chunk needs a newer program to read"));
    }
    if !fits(entry.stored_len) || !fits(entry.raw_len) || entry.offset > u64::from(u32::MAX) * 16 {
        return Err(reader.damaged("a chunk has a length or a place that cannot be"));
    }
    Ok(entry)
}

#[cfg(test)]
mod tests {
    //! Directories read back; each flipped byte and each cut is noticed.
    use proptest::prelude::*;

    use super::*;
    use crate::format::digest::chunk_digest;

    pub(super) fn sample(chunks: u32) -> Directory {
        let mut offset = MAGIC.len() as u64;
        let entries = (0..chunks)
            .map(|n| {
                let entry = Entry {
                    digest: chunk_digest(&n.to_le_bytes()),
                    offset,
                    stored_len: 100 + n,
                    raw_len: 200 + n,
                    codec: if n % 2 == 0 { Codec::Raw } else { Codec::Zstd },
                };
                offset = entry.end();
                entry
            })
            .collect();
        Directory { pack: PackId([9; 16]), entries }
    }

    #[test]
    fn reads_back() {
        for chunks in [0, 1, 100, PACK_CHUNKS_MAX as u32] {
            let directory = sample(chunks);
            assert_eq!(Directory::decode(&directory.encode()).unwrap(), directory);
        }
    }

    #[test]
    fn notices_every_flipped_byte_and_every_cut() {
        let bytes = sample(5).encode();
        for at in 0..bytes.len() {
            let mut bad = bytes.clone();
            bad[at] ^= 0x20;
            assert!(Directory::decode(&bad).is_err(), "byte {at}");
            assert!(Directory::decode(&bytes[..at]).is_err(), "cut at {at}");
        }
    }

    proptest! {
        #[test]
        fn hostile_bytes_are_harmless(bytes: Vec<u8>, chunks in 0u32..4, at: prop::sample::Index, value: u8) {
            let _ = Directory::decode(&bytes);
            let _ = Footer::decode(&bytes);
            // A directory whose checksums are right and whose fields are not.
            let mut tail = sample(chunks).encode();
            let body = tail.len() - FOOTER - 4;
            if body > 0 {
                tail[at.index(body)] = value;
                let crc = crc32c::crc32c(&tail[..body]);
                tail[body..body + 4].copy_from_slice(&crc.to_le_bytes());
                let _ = Directory::decode(&tail);
            }
        }
    }
}
