//! A recipe as reads go by it: where each chunk begins, and which group it belongs to.

use std::ops::Range;

use bytes::Bytes;

use super::group::{Group, groups};
use crate::format::chunk_list::{ChunkList, ChunkRef};
use crate::format::recipe::{self, Recipe, Run};
use crate::model::ByteRange;
use crate::pull::Fetch;

/// Bytes of an object that one recipe covers.
pub(super) const STRETCH: u64 = 256 * 1024 * 1024;

/// A stretch of an object.
pub(super) struct Stretch {
    /// Of the object, in bytes.
    pub(super) size: u64,
    /// Of the object, in milliseconds since 1970.
    pub(super) modified: u64,
    /// Of the object.
    pub(super) etag: String,
    pub(super) content: Content,
}

/// What a stretch consists of.
pub(super) enum Content {
    /// The object itself.
    Inline(Bytes),
    Chunks(Chunks),
}

/// The chunks of a stretch.
pub(super) struct Chunks {
    pub(super) list: ChunkList,
    pub(super) runs: Vec<Run>,
    /// What the runs hold, where it came along.
    stored: Option<Bytes>,
    groups: Vec<Group>,
    /// Where each chunk begins in the object, and where the last one ends.
    offsets: Vec<u64>,
}

/// Chunks of one group, in its file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Part {
    /// Which of the groups.
    pub(super) group: usize,
    pub(super) chunks: Range<usize>,
    /// Where the first of them begins in the group.
    pub(super) offset: u64,
}

impl Stretch {
    pub(super) fn new(recipe: Recipe) -> Self {
        let content = match recipe.content {
            recipe::Content::Inline(bytes) => Content::Inline(bytes),
            recipe::Content::Chunks { list, runs, stored } => {
                Content::Chunks(Chunks { stored, ..Chunks::new(recipe.start, list, runs) })
            }
        };
        Self { size: recipe.size, modified: recipe.modified, etag: recipe.etag, content }
    }

    /// How much memory it takes, in bytes, about.
    pub(super) fn weight(&self) -> usize {
        size_of::<Self>()
            + match &self.content {
                Content::Inline(bytes) => bytes.len(),
                Content::Chunks(it) => {
                    it.list.chunks.len() * (size_of::<ChunkRef>() + size_of::<u64>())
                        + it.runs.len() * size_of::<Run>()
                        + it.groups.len() * size_of::<Group>()
                        + it.stored.as_ref().map_or(0, Bytes::len)
                }
            }
    }
}

impl Chunks {
    fn new(start: u64, list: ChunkList, runs: Vec<Run>) -> Self {
        let mut offsets = Vec::with_capacity(list.chunks.len() + 1);
        let mut at = start;
        offsets.push(at);
        for chunk in &list.chunks {
            at += u64::from(chunk.raw_len);
            offsets.push(at);
        }
        Self { groups: groups(&list.chunks), list, runs, stored: None, offsets }
    }

    /// What a request would bring, where it came along with the recipe.
    pub(super) fn stored(&self, fetch: &Fetch) -> Option<Bytes> {
        let stored = self.stored.as_ref()?;
        let mut before = 0;
        for run in &self.runs {
            let holds = run.range.start <= fetch.range.start && fetch.range.end <= run.range.end;
            if run.pack == fetch.pack && holds {
                let at = before + (fetch.range.start - run.range.start) as usize;
                return Some(stored.slice(at..at + fetch.range.len() as usize));
            }
            before += run.range.len() as usize;
        }
        None
    }

    /// The chunks that hold a range, as far as it lies in this stretch.
    pub(super) fn covering(&self, range: ByteRange) -> Range<usize> {
        let starts = &self.offsets[..self.list.chunks.len()];
        let first = starts.partition_point(|at| *at <= range.start).saturating_sub(1);
        first..starts.partition_point(|at| *at < range.end).max(first)
    }

    /// Where chunks lie in the object.
    pub(super) fn span(&self, chunks: &Range<usize>) -> ByteRange {
        ByteRange { start: self.offsets[chunks.start], end: self.offsets[chunks.end] }
    }

    /// Where the group lies in the object that holds the byte at `offset`.
    pub(super) fn group_around(&self, offset: u64) -> Option<ByteRange> {
        let chunk = self.covering(ByteRange { start: offset, end: offset + 1 });
        let group = self.groups.get(self.group_of(chunk.start))?;
        Some(self.span(&group.chunks))
    }

    pub(super) fn group(&self, at: usize) -> &Group {
        &self.groups[at]
    }

    fn group_of(&self, chunk: usize) -> usize {
        self.groups.partition_point(|group| group.chunks.end <= chunk)
    }

    /// The same chunks, cut where groups end.
    pub(super) fn parts(&self, chunks: Range<usize>) -> Vec<Part> {
        let mut parts = Vec::new();
        let mut first = chunks.start;
        while first < chunks.end {
            let group = self.group_of(first);
            let whole = &self.groups[group].chunks;
            let end = whole.end.min(chunks.end);
            let offset = self.offsets[first] - self.offsets[whole.start];
            parts.push(Part { group, chunks: first..end, offset });
            first = end;
        }
        parts
    }
}

#[cfg(test)]
mod tests {
    //! Ranges lead to the chunks that hold them, and chunks to their places in groups.
    use super::*;
    use crate::format::codec::Codec;
    use crate::format::digest::chunk_digest;
    use crate::model::Digest;
    use crate::pull::fetches;

    #[test]
    fn ranges_and_parts() {
        let chunk = |number: u64| ChunkRef {
            digest: chunk_digest(&number.to_le_bytes()),
            pack: 0,
            offset: number * 100,
            stored_len: 100,
            raw_len: 100_000,
            codec: Codec::Raw,
            within: 0,
        };
        let list = ChunkList {
            size: 20_000_000,
            root_digest: Digest::default(),
            packs: Vec::new(),
            chunks: (0..200).map(chunk).collect(),
        };
        let runs = recipe::runs(&list, 1, |_, _| [0; 32]);
        let along: Vec<u8> = (0..20_000).map(|at| (at / 100) as u8).collect();
        let chunks = Chunks { stored: Some(along.into()), ..Chunks::new(1_000_000, list, runs) };
        let covering = |start, end| chunks.covering(ByteRange { start, end });
        assert_eq!(covering(1_000_000, 1_000_001), 0..1);
        assert_eq!(covering(1_099_999, 1_100_000), 0..1);
        assert_eq!(covering(1_100_000, 1_300_001), 1..4);
        assert_eq!(covering(20_999_999, 30_000_000), 199..200);
        assert_eq!(chunks.span(&(1..3)), ByteRange { start: 1_100_000, end: 1_300_000 });
        let fetch = &fetches(&chunks.list.chunks, &[7, 8])[0];
        assert_eq!(chunks.stored(fetch).unwrap(), [[7; 100], [8; 100]].concat());
        assert_eq!(chunks.stored(&Fetch { pack: 1, ..fetch.clone() }), None);
        let parts = chunks.parts(5..200);
        assert!(parts.len() > 4 && parts[0].offset == 500_000 && parts[1].offset == 0);
        let mut next = 5;
        for part in &parts {
            assert_eq!(part.chunks.start, next);
            next = part.chunks.end;
            let group = chunks.span(&chunks.group(part.group).chunks);
            let span = chunks.span(&part.chunks);
            assert_eq!(span.start - group.start, part.offset);
            assert!(span.end <= group.end);
            assert_eq!(chunks.group_around(span.end - 1), Some(group));
        }
        assert_eq!(next, 200);
    }
}
