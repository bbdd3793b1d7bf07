//! Manifests: an object as runs of chunks in packs. A terabyte of unshared data is some ten thousand terms; a run of one
//! chunk that repeats (zeros) is one term however long it is.
//!
//! ```text
//! varint  packs, then 16 bytes for each pack's id
//! varint  terms; a term is
//!         varint  index into the packs
//!         varint  first chunk
//!         varint  count × 2, + 1 when one chunk repeats
//!         varint  bytes of the object
//! ```

use super::field::{Damaged, Reader, Writer};
use crate::model::limit::{CHUNK_MAX, PACK_CHUNKS_MAX};
use crate::model::{Digest, PackId};

/// Where a chunk is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Location {
    /// The pack that holds it.
    pub pack: PackId,
    /// Its number in the pack.
    pub chunk: u32,
}

/// A chunk of an object: what it is, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placed {
    /// Its digest.
    pub digest: Digest,
    /// Its length in bytes.
    pub raw_len: u32,
    /// Where it is.
    pub at: Location,
}

/// A run of chunks in one pack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Term {
    /// The pack.
    pub pack: PackId,
    /// Its first chunk.
    pub first: u32,
    /// How many chunks follow each other, or how often the one chunk repeats.
    pub count: u32,
    /// Whether `first` repeats `count` times.
    pub repeats: bool,
    /// Bytes of the object that the term covers.
    pub bytes: u64,
}

impl Term {
    /// The chunks that the term names, each once.
    #[must_use]
    pub fn chunks(&self) -> std::ops::Range<u32> {
        self.first..self.first + if self.repeats { 1 } else { self.count }
    }

    /// The term's chunk numbers in the object's order, repeats included.
    pub fn sequence(&self) -> impl Iterator<Item = u32> + use<> {
        let step = u32::from(!self.repeats);
        let first = self.first;
        (0..self.count).map(move |n| first + n * step)
    }
}

/// Adds a chunk to the terms, merging it into the last one where it continues it.
pub fn push(terms: &mut Vec<Term>, at: Location, raw_len: u32) {
    push_term(terms, Term { pack: at.pack, first: at.chunk, count: 1, repeats: false, bytes: u64::from(raw_len) });
}

/// Adds a term, merging it into the last one where it continues it.
pub fn push_term(terms: &mut Vec<Term>, next: Term) {
    if let Some(last) = terms.last_mut()
        && last.pack == next.pack
        && last.count < u32::MAX / 4
        && next.count < u32::MAX / 4
    {
        let is_run = |term: &Term| !term.repeats || term.count == 1;
        let is_repeat = |term: &Term| term.repeats || term.count == 1;
        if is_run(last) && is_run(&next) && last.first + last.count == next.first {
            *last = Term { count: last.count + next.count, repeats: false, bytes: last.bytes + next.bytes, ..*last };
            return;
        }
        if is_repeat(last) && is_repeat(&next) && last.first == next.first {
            *last = Term { count: last.count + next.count, repeats: true, bytes: last.bytes + next.bytes, ..*last };
            return;
        }
    }
    terms.push(next);
}

/// Appends the terms to `out`.
pub fn write(out: &mut Writer, terms: &[Term]) {
    let mut packs: Vec<PackId> = Vec::new();
    let mut numbers = std::collections::HashMap::new();
    for term in terms {
        numbers.entry(term.pack).or_insert_with(|| {
            packs.push(term.pack);
            packs.len() as u64 - 1
        });
    }
    out.varint(packs.len() as u64);
    for pack in &packs {
        out.raw(&pack.0);
    }
    out.varint(terms.len() as u64);
    for term in terms {
        out.varint(numbers[&term.pack]).varint(u64::from(term.first));
        out.varint(u64::from(term.count) * 2 + u64::from(term.repeats)).varint(term.bytes);
    }
}

/// Reads terms; `total` is the sum of their bytes.
pub fn read(reader: &mut Reader<'_>) -> Result<(Vec<Term>, u64), Damaged> {
    let packs = reader.varint()? as usize;
    if packs > reader.left() / 16 {
        return Err(reader.damaged("it names more packs than it has room for"));
    }
    let packs = (0..packs).map(|_| Ok(PackId(reader.array()?))).collect::<Result<Vec<_>, Damaged>>()?;
    let count = reader.varint()? as usize;
    if count > reader.left() / 4 {
        return Err(reader.damaged("it names more terms than it has room for"));
    }
    let mut terms = Vec::with_capacity(count);
    let mut total = 0u64;
    for _ in 0..count {
        let pack = reader.varint()? as usize;
        let pack = *packs.get(pack).ok_or(reader.damaged("a term names a pack that is not listed"))?;
        let first = reader.varint32()?;
        let coded = reader.varint()?;
        let chunks = u32::try_from(coded >> 1).map_err(|_| reader.damaged("a term is too long"))?;
        let term = Term { pack, first, count: chunks, repeats: coded & 1 == 1, bytes: reader.varint()? };
        let span = if term.repeats { 1 } else { term.count };
        let in_pack = first.checked_add(span).is_some_and(|end| end as usize <= PACK_CHUNKS_MAX);
        let bytes_fit = (u64::from(chunks)..=u64::from(chunks) * CHUNK_MAX as u64).contains(&term.bytes);
        if chunks == 0 || !in_pack || !bytes_fit {
            return Err(reader.damaged("a term names chunks that no pack can have"));
        }
        total = total.checked_add(term.bytes).ok_or(reader.damaged("its terms add up to too much"))?;
        terms.push(term);
    }
    Ok((terms, total))
}

#[cfg(test)]
mod tests {
    //! Terms merge where they may, and read back; expanding them gives the chunks that went in.
    use proptest::prelude::*;

    use super::*;

    fn encode(terms: &[Term]) -> Vec<u8> {
        let mut out = Writer::default();
        write(&mut out, terms);
        out.take()
    }

    #[test]
    fn a_long_run_of_zeros_is_one_term() {
        let mut terms = Vec::new();
        for _ in 0..80_000 {
            push(&mut terms, Location { pack: PackId([1; 16]), chunk: 3 }, CHUNK_MAX as u32);
        }
        assert_eq!(terms.len(), 1);
        assert_eq!(terms[0].bytes, 80_000 * CHUNK_MAX as u64);
        assert!(encode(&terms).len() < 32);
    }

    proptest! {
        #[test]
        fn terms_are_the_chunks_that_went_in(
            chunks in proptest::collection::vec((0u8..3, 0u32..6, 1u32..5), 0..300),
            split in 0usize..300,
        ) {
            let mut terms = Vec::new();
            let mut tail = Vec::new();
            for (n, (pack, chunk, raw_len)) in chunks.iter().enumerate() {
                let at = Location { pack: PackId([*pack; 16]), chunk: *chunk };
                push(if n < split { &mut terms } else { &mut tail }, at, *raw_len);
            }
            for term in tail {
                push_term(&mut terms, term);
            }
            let bytes = encode(&terms);
            let (read_back, total) = read(&mut Reader::new("test", &bytes)).unwrap();
            prop_assert_eq!(&read_back, &terms);
            prop_assert_eq!(total, chunks.iter().map(|chunk| u64::from(chunk.2)).sum::<u64>());
            let expanded: Vec<(u8, u32)> =
                terms.iter().flat_map(|term| term.sequence().map(|n| (term.pack.0[0], n))).collect();
            prop_assert_eq!(expanded, chunks.iter().map(|chunk| (chunk.0, chunk.1)).collect::<Vec<_>>());
        }

        #[test]
        fn hostile_bytes_are_harmless(bytes: Vec<u8>) {
            let _ = read(&mut Reader::new("test", &bytes));
        }
    }
}
