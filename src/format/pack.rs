//! Packs: about 64 MiB of chunks in one file that describes itself at every moment of its life.
//!
//! An open pack grows by groups, each of which says what is in it, so that what a crash leaves can be read. A sealed pack
//! ends in a directory of all its chunks, and is never changed again.
//!
//! ```text
//! 0        16  magic "bedplate-pack-01"
//! 16        …  groups, one after the other:
//!              0    4  magic "bpgp"
//!              4    4  entries
//!              8    8  length of the stored bytes that follow the head
//!              16  16  the pack's id, so that no stored bytes can pass for a head
//!              32   8  how much of the pack was durable before the group was written
//!              40   …  56 bytes for each chunk, as in the directory
//!                   4  CRC32C of the head
//!                   …  the stored bytes of its frames, one after the other
//! d         …  directory: 56 bytes for each chunk of all groups, in order
//!              0   32  digest
//!              32   8  offset of its frame in the pack
//!              40   4  stored length of its frame, bytes
//!              44   4  length of the chunk, bytes
//!              48   1  codec
//!              49   3  where the chunk begins in the decoded frame: 0 unless the frame holds several chunks
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
//!
//! Consecutive chunks may share a frame: they have the same offset and stored length, and follow each other in its decoded
//! bytes.

use super::codec::Codec;
use super::field::{Damaged, Reader, Writer};
use crate::model::limit::{CHUNK_MAX, FRAME_MAX, PACK_CHUNKS_MAX, PACK_TARGET};
use crate::model::{Digest, PackId};

/// What a pack begins with.
pub const MAGIC: &[u8; 16] = b"bedplate-pack-01";
/// Length of the footer in bytes.
pub const FOOTER: usize = 64;
const END_MAGIC: &[u8; 16] = b"bedplate-pend-01";
const ENTRY: usize = 56;
const NO_BASE: u32 = u32::MAX;

const GROUP_MAGIC: &[u8; 4] = b"bpgp";
/// Length in bytes of what a group's head begins with: all that is needed to know how long the head is.
pub const GROUP_START: usize = 40;

/// One chunk of a pack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The chunk's digest.
    pub digest: Digest,
    /// Where its frame's stored bytes begin.
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

impl Entry {
    /// One past its frame's last stored byte.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.offset + u64::from(self.stored_len)
    }

    fn write(&self, out: &mut Writer) {
        out.raw(&self.digest.0).u64(self.offset).u32(self.stored_len).u32(self.raw_len);
        out.u8(self.codec.code()).raw(&self.within.to_le_bytes()[..3]).u32(NO_BASE);
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, Damaged> {
        let digest = Digest(reader.array()?);
        let (offset, stored_len, raw_len) = (reader.u64()?, reader.u32()?, reader.u32()?);
        let codec = Codec::from_code(reader.u8()?)?;
        let [a, b, c] = reader.array()?;
        let within = u32::from_le_bytes([a, b, c, 0]);
        if reader.u32()? != NO_BASE {
            return Err(reader.damaged("a chunk needs a newer program to read"));
        }
        let (chunk, frame) = (1..=CHUNK_MAX as u32, 1..=FRAME_MAX as u32);
        let stored = if codec == Codec::ZstdFrame { &frame } else { &chunk };
        if !stored.contains(&stored_len) || !chunk.contains(&raw_len) || offset > PACK_TARGET * 2 {
            return Err(reader.damaged("a chunk has a length or a place that cannot be"));
        }
        if within > 0 && codec != Codec::ZstdFrame || within + raw_len > FRAME_MAX as u32 {
            return Err(reader.damaged("a chunk lies outside of its frame"));
        }
        Ok(Self { digest, offset, stored_len, raw_len, codec, within })
    }

    /// Whether it may follow `before`: in the same frame, or in a later one.
    fn follows(&self, before: Option<&Self>) -> bool {
        let Some(before) = before else { return self.within == 0 && self.offset >= MAGIC.len() as u64 };
        let shares = self.offset == before.offset && self.stored_len == before.stored_len && self.codec == before.codec;
        if shares && self.codec == Codec::ZstdFrame {
            self.within == before.within + before.raw_len
        } else {
            self.within == 0 && self.offset >= before.end()
        }
    }
}

fn read_entries(reader: &mut Reader<'_>, count: u32) -> Result<Vec<Entry>, Damaged> {
    if count as usize > PACK_CHUNKS_MAX || count as usize > reader.left() / ENTRY {
        return Err(reader.damaged("it claims more chunks than it has room for"));
    }
    let mut entries: Vec<Entry> = Vec::with_capacity(count as usize);
    for _ in 0..count {
        let entry = Entry::read(reader)?;
        if !entry.follows(entries.last()) {
            return Err(reader.damaged("its chunks do not follow each other"));
        }
        entries.push(entry);
    }
    Ok(entries)
}

/// What a group of a pack holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Bytes from the pack's start that were durable before the group was written: what cannot be read of those is damage, what
    /// cannot be read behind them may never have been written.
    pub durable: u64,
    /// Its chunks, in the order of their bytes.
    pub entries: Vec<Entry>,
}

impl Group {
    /// Length in bytes of the head of a group of that many chunks.
    #[must_use]
    pub fn head_len(chunks: usize) -> usize {
        GROUP_START + chunks * ENTRY + 4
    }

    /// The head of the group in its pack.
    #[must_use]
    pub fn encode(&self, pack: PackId) -> Vec<u8> {
        let mut out = Writer::with_capacity(Self::head_len(self.entries.len()));
        let stored = match (self.entries.first(), self.entries.last()) {
            (Some(first), Some(last)) => last.end() - first.offset,
            _ => 0,
        };
        out.raw(GROUP_MAGIC).u32(self.entries.len() as u32).u64(stored).raw(&pack.0).u64(self.durable);
        self.entries.iter().for_each(|entry| entry.write(&mut out));
        out.seal().take()
    }

    /// The length of a head, out of its first [`GROUP_START`] bytes; none where no group begins.
    #[must_use]
    pub fn peek(start: &[u8; GROUP_START]) -> Option<usize> {
        let count = u32::from_le_bytes([start[4], start[5], start[6], start[7]]) as usize;
        (start.starts_with(GROUP_MAGIC) && (1..=PACK_CHUNKS_MAX).contains(&count)).then(|| Self::head_len(count))
    }

    /// Reads the head of a group that begins at `offset` of its pack.
    pub fn decode(pack: PackId, offset: u64, head: &[u8]) -> Result<Self, Damaged> {
        let mut reader = Reader::sealed("pack group", head)?;
        if reader.array::<4>()? != *GROUP_MAGIC {
            return Err(reader.damaged("its magic is absent"));
        }
        let count = reader.u32()?;
        let stored = reader.u64()?;
        if reader.array()? != pack.0 {
            return Err(reader.damaged("it is another pack's"));
        }
        let durable = reader.u64()?;
        if durable > offset {
            return Err(reader.damaged("it calls bytes durable that come after it"));
        }
        let entries = read_entries(&mut reader, count)?;
        let begin = offset.saturating_add(head.len() as u64);
        let (Some(first), Some(last)) = (entries.first(), entries.last()) else {
            return Err(reader.damaged("it has no chunks"));
        };
        if first.offset != begin || last.end() - first.offset != stored {
            return Err(reader.damaged("its chunks do not add up to its length"));
        }
        let has_gap = |pair: &[Entry]| pair[1].offset != pair[0].offset && pair[1].offset != pair[0].end();
        if entries.windows(2).any(has_gap) {
            return Err(reader.damaged("its frames leave bytes between them"));
        }
        reader.end()?;
        Ok(Self { durable, entries })
    }

    /// One past the group's last byte in its pack.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.entries.last().map_or(0, Entry::end)
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
        self.entries.iter().for_each(|entry| entry.write(&mut out));
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
        let directory = Self { pack: footer.pack, entries: read_entries(&mut reader, footer.chunks)? };
        if directory.offset() != footer.directory_offset || directory.raw_bytes() != footer.raw_bytes {
            return Err(reader.damaged("its chunks do not add up to what the footer says"));
        }
        reader.end()?;
        Ok(directory)
    }
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
                    codec: [Codec::Raw, Codec::Zstd, Codec::ZstdFrame, Codec::ZstdFrame][n as usize % 4],
                    within: 0,
                };
                offset = entry.end();
                entry
            })
            .collect::<Vec<_>>();
        let mut entries = entries;
        // Every fourth chunk shares the frame of the one before.
        for n in 1..entries.len() {
            let before: Entry = entries[n - 1];
            if before.codec == Codec::ZstdFrame && entries[n].codec == Codec::ZstdFrame {
                let within = before.within + before.raw_len;
                entries[n] = Entry { offset: before.offset, stored_len: before.stored_len, within, ..entries[n] };
            }
        }
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

    #[test]
    fn a_group_reads_back_and_damage_is_noticed() {
        let head = Group::head_len(3) as u64;
        let mut entries = sample(3).entries;
        entries.iter_mut().for_each(|entry| entry.offset += 1000 + head - MAGIC.len() as u64);
        let group = Group { durable: 900, entries };
        let pack = PackId([3; 16]);
        let bytes = group.encode(pack);
        assert_eq!(Group::peek(bytes.first_chunk().unwrap()), Some(bytes.len()));
        assert_eq!(Group::decode(pack, 1000, &bytes).unwrap(), group);
        assert!(Group::decode(pack, 999, &bytes).is_err());
        let early = Group { durable: 1001, ..group.clone() };
        assert!(Group::decode(pack, 1000, &early.encode(pack)).is_err());
        assert!(Group::decode(PackId([4; 16]), 1000, &bytes).is_err());
        for at in 0..bytes.len() {
            let mut bad = bytes.clone();
            bad[at] ^= 0x10;
            assert!(Group::decode(pack, 1000, &bad).is_err(), "byte {at}");
        }
    }

    proptest! {
        #[test]
        fn hostile_bytes_are_harmless(bytes: Vec<u8>, chunks in 0u32..4, at: prop::sample::Index, value: u8) {
            let _ = Directory::decode(&bytes);
            let _ = Footer::decode(&bytes);
            let _ = Group::decode(PackId([0; 16]), u64::from(chunks), &bytes);
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
