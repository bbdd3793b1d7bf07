//! A recipe: what a reader needs to fetch a stretch of an object by itself: what the object is, its chunks, and seals that
//! open the pack ranges which hold them.
//!
//! ```text
//! 0   16  magic "bedplate-rcpe-02"
//! 16   8  size of the object in bytes
//! 24   8  when it was written, milliseconds since 1970
//!         text    entity tag without quotes
//!      8  where the content begins in the object, bytes
//!      1  0, and the content as bytes: the object lives in its row
//!         1, and
//!           bytes   a chunk list of the content
//!      8    until when the seals open, milliseconds since 1970
//!           varint  runs; a run is
//!                   varint  index into the list's packs
//!                   varint  first byte in the pack
//!                   varint  end in the pack
//!                   32      seal
//!           1      0, or 1 where the runs' stored bytes come along, one run after the other, as bytes
//!      4  CRC32C of all that is before
//! ```

use bytes::Bytes;

use super::chunk_list::ChunkList;
use super::field::{Damaged, Reader, Writer};
use crate::model::ByteRange;

const MAGIC: &[u8; 16] = b"bedplate-rcpe-02";
/// Shortest possible run, in bytes.
const RUN_MIN: usize = 3 + 32;
/// Most bytes of an object that one recipe covers.
pub const RECIPE_BYTES_MAX: u64 = 1 << 30;
/// Most stored bytes that come along with a recipe.
pub const STORED_MAX: u64 = 256 * 1024;
/// Most chunks in a recipe's list.
const CHUNKS_MAX: usize = 256 * 1024;

/// A stretch of an object, as a reader fetches it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recipe {
    /// Length of the object in bytes.
    pub size: u64,
    /// When it was written, in milliseconds since 1970.
    pub modified: u64,
    /// Its entity tag, without quotes.
    pub etag: String,
    /// Where the content begins in the object, in bytes.
    pub start: u64,
    /// The content.
    pub content: Content,
}

/// What a recipe leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// The bytes themselves.
    Inline(Bytes),
    /// Chunks in packs.
    Chunks {
        /// The chunks, in order.
        list: ChunkList,
        /// The pack ranges that may be read, by pack and start.
        runs: Vec<Run>,
        /// What the runs hold, one after the other, where it came along.
        stored: Option<Bytes>,
    },
}

/// A range of a pack, and what opens it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// Which of the list's packs.
    pub pack: u32,
    /// Which bytes of it.
    pub range: ByteRange,
    /// Until when the seal opens, in milliseconds since 1970; one time for all runs of a recipe.
    pub until: u64,
    /// What opens it.
    pub seal: [u8; 32],
}

impl Recipe {
    /// The recipe's bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Writer::default();
        out.raw(MAGIC).u64(self.size).u64(self.modified).bytes(self.etag.as_bytes()).u64(self.start);
        match &self.content {
            Content::Inline(bytes) => {
                out.u8(0).bytes(bytes);
            }
            Content::Chunks { list, runs, stored } => {
                let until = runs.first().map_or(0, |run| run.until);
                out.u8(1).bytes(&list.encode()).u64(until).varint(runs.len() as u64);
                for run in runs {
                    out.varint(u64::from(run.pack)).varint(run.range.start).varint(run.range.end).raw(&run.seal);
                }
                match stored {
                    None => out.u8(0),
                    Some(stored) => out.u8(1).bytes(stored),
                };
            }
        }
        out.seal().take()
    }

    /// Reads a recipe; checks that its content lies in the object.
    pub fn decode(bytes: &[u8]) -> Result<Self, Damaged> {
        Self::decode_at_most(bytes, CHUNKS_MAX)
    }

    /// The same, of at most that many chunks: few bytes may stand for many of them.
    pub fn decode_at_most(bytes: &[u8], chunks_max: usize) -> Result<Self, Damaged> {
        let mut reader = Reader::sealed("recipe", bytes)?;
        if reader.array::<16>()? != *MAGIC {
            return Err(reader.damaged("its magic is absent"));
        }
        let (size, modified, etag, start) = (reader.u64()?, reader.u64()?, reader.text()?, reader.u64()?);
        let content = if reader.flag()? {
            let list = ChunkList::decode_at_most(reader.bytes()?, chunks_max)?;
            let until = reader.u64()?;
            let count = reader.varint()? as usize;
            if count > reader.left() / RUN_MIN {
                return Err(reader.damaged("it names more runs than it has room for"));
            }
            let mut runs = Vec::with_capacity(count);
            for _ in 0..count {
                let pack = reader.varint32()?;
                let range = ByteRange { start: reader.varint()?, end: reader.varint()? };
                if pack as usize >= list.packs.len() || range.start >= range.end {
                    return Err(reader.damaged("a run names a pack or a range that cannot be"));
                }
                runs.push(Run { pack, range, until, seal: reader.array()? });
            }
            let stored = if reader.flag()? { Some(Bytes::copy_from_slice(reader.bytes()?)) } else { None };
            if stored.as_ref().is_some_and(|stored| runs_len(&runs) != stored.len() as u64) {
                return Err(reader.damaged("what comes along is not what its runs hold"));
            }
            Content::Chunks { list, runs, stored }
        } else {
            Content::Inline(Bytes::copy_from_slice(reader.bytes()?))
        };
        let recipe = Self { size, modified, etag, start, content };
        if recipe.start.checked_add(recipe.len()).is_none_or(|end| end > size) {
            return Err(reader.damaged("its content lies beyond the object"));
        }
        reader.end()?;
        Ok(recipe)
    }

    /// How many bytes of the object it covers.
    #[must_use]
    pub fn len(&self) -> u64 {
        match &self.content {
            Content::Inline(bytes) => bytes.len() as u64,
            Content::Chunks { list, .. } => list.size,
        }
    }

    /// Whether it covers a stretch of the object, as far as the object goes: whoever reads by it goes by its places.
    #[must_use]
    pub fn covers(&self, stretch: ByteRange) -> bool {
        self.start <= stretch.start.min(self.size) && self.start + self.len() >= stretch.end.min(self.size)
    }

    /// Whether it covers nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// How many stored bytes runs hold.
#[must_use]
pub fn runs_len(runs: &[Run]) -> u64 {
    runs.iter().fold(0, |sum: u64, run| sum.saturating_add(run.range.len()))
}

/// The pack ranges that the chunks of a list take up, neighbours joined, each with its seal.
#[must_use]
pub fn runs(list: &ChunkList, until: u64, seal: impl Fn(u32, ByteRange) -> [u8; 32]) -> Vec<Run> {
    let mut ranges: Vec<(u32, u64, u64)> = list
        .chunks
        .iter()
        .map(|chunk| (chunk.pack, chunk.offset, chunk.offset + u64::from(chunk.stored_len)))
        .collect();
    ranges.sort_unstable();
    ranges.dedup();
    let mut joined: Vec<(u32, u64, u64)> = Vec::new();
    for (pack, start, end) in ranges {
        match joined.last_mut() {
            Some(last) if last.0 == pack && start <= last.2 => last.2 = last.2.max(end),
            _ => joined.push((pack, start, end)),
        }
    }
    let sealed = |(pack, start, end)| {
        let range = ByteRange { start, end };
        Run { pack, range, until, seal: seal(pack, range) }
    };
    joined.into_iter().map(sealed).collect()
}

#[cfg(test)]
mod tests {
    //! Recipes read back; damage anywhere is noticed; neighbours share a run.
    use super::*;
    use crate::format::chunk_list::ChunkRef;
    use crate::format::codec::Codec;
    use crate::model::{Digest, PackId};

    fn sample() -> Recipe {
        sample_with(None)
    }

    fn sample_with(stored: Option<Bytes>) -> Recipe {
        let chunk = |pack, offset| ChunkRef {
            digest: Digest([3; 32]),
            pack,
            offset,
            stored_len: 50,
            raw_len: 100,
            codec: Codec::Zstd,
            within: 0,
        };
        let chunks = vec![chunk(0, 50), chunk(1, 0), chunk(0, 0), chunk(0, 200)];
        let list = ChunkList {
            size: 400,
            root_digest: Digest([1; 32]),
            packs: vec![PackId([1; 16]), PackId([2; 16])],
            chunks,
        };
        let runs = runs(&list, 99, |pack, _| [pack as u8; 32]);
        let content = Content::Chunks { list, runs, stored };
        Recipe { size: 1000, modified: 5, etag: "abc-2".to_owned(), start: 600, content }
    }

    #[test]
    fn reads_back_and_notices_damage() {
        let recipe = sample();
        let Content::Chunks { runs, .. } = &recipe.content else { panic!("chunks") };
        let shape: Vec<_> = runs.iter().map(|run| (run.pack, run.range.start, run.range.end)).collect();
        assert_eq!(shape, [(0, 0, 100), (0, 200, 250), (1, 0, 50)]);
        let bytes = recipe.encode();
        assert_eq!(Recipe::decode(&bytes).unwrap(), recipe);
        for at in 0..bytes.len() {
            let mut bad = bytes.clone();
            bad[at] ^= 1;
            assert!(Recipe::decode(&bad).is_err(), "byte {at}");
            assert!(Recipe::decode(&bytes[..at]).is_err(), "cut at {at}");
        }
        assert!(Recipe::decode(&Recipe { size: 999, ..recipe }.encode()).is_err());
        let inline = Recipe { start: 0, content: Content::Inline(Bytes::from_static(b"abc")), size: 3, ..sample() };
        assert_eq!(Recipe::decode(&inline.encode()).unwrap(), inline);
        let along = sample_with(Some(Bytes::from(vec![7; 200])));
        assert_eq!(Recipe::decode(&along.encode()).unwrap(), along);
        assert!(Recipe::decode(&sample_with(Some(Bytes::from(vec![7; 199]))).encode()).is_err());
    }
}
