//! Which chunks are in use: one bit for each chunk of each sealed pack, and next to nothing for each pack, so that a store of a hundred
//! million chunks is marked in some tens of megabytes.

use crate::format::manifest::Term;
use crate::format::pack::Entry;
use crate::model::PackId;

/// The marks of all packs that were known when marking began.
pub(super) struct Marks {
    /// Packs in order, and the number of the first word of each pack's bits; one more word number ends the last.
    packs: Vec<PackId>,
    begins: Vec<u64>,
    chunks: Vec<u32>,
    bits: Vec<u64>,
    pinned: Vec<bool>,
}

/// Where a term's pack stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Marked {
    /// Its chunks are marked.
    Yes,
    /// The pack was not there when marking began, or was still being filled.
    NewPack,
    /// The pack has no such chunk.
    NoSuchChunk,
}

impl Marks {
    /// No marks, for packs in ascending order, each with the number of its chunks; `None` for one that is still being filled.
    pub(super) fn new(packs: impl Iterator<Item = (PackId, Option<u32>)>) -> Self {
        let (mut ids, mut begins, mut chunks) = (Vec::new(), Vec::new(), Vec::new());
        let mut words = 0u64;
        for (pack, count) in packs {
            ids.push(pack);
            begins.push(words);
            chunks.push(count.unwrap_or(u32::MAX));
            words += u64::from(count.unwrap_or(0)).div_ceil(64);
        }
        begins.push(words);
        Self { pinned: vec![false; ids.len()], packs: ids, begins, chunks, bits: vec![0; words as usize] }
    }

    /// Marks what a term refers to. `pin` says that outsiders know its pack by id.
    pub(super) fn mark(&mut self, term: &Term, pin: bool) -> Marked {
        let Ok(number) = self.packs.binary_search(&term.pack) else { return Marked::NewPack };
        self.pinned[number] |= pin;
        let count = self.chunks[number];
        if count == u32::MAX {
            return Marked::NewPack;
        }
        let chunks = term.chunks();
        if chunks.end > count {
            return Marked::NoSuchChunk;
        }
        let begin = self.begins[number] as usize;
        let (first, last) = (chunks.start as usize, chunks.end as usize - 1);
        for word in first / 64..=last / 64 {
            let from = if word == first / 64 { u64::MAX << (first % 64) } else { u64::MAX };
            let to = if word == last / 64 { u64::MAX >> (63 - last % 64) } else { u64::MAX };
            self.bits[begin + word] |= from & to;
        }
        Marked::Yes
    }

    fn words(&self, number: usize) -> &[u64] {
        &self.bits[self.begins[number] as usize..self.begins[number + 1] as usize]
    }

    /// How many chunks of the pack of this number are marked.
    pub(super) fn count(&self, number: usize) -> u32 {
        self.words(number).iter().map(|word| word.count_ones()).sum()
    }

    /// Whether outsiders know the pack of this number.
    pub(super) fn is_pinned(&self, number: usize) -> bool {
        self.pinned[number]
    }

    /// The numbers of a pack's marked chunks, in order.
    pub(super) fn live(&self, pack: PackId) -> Vec<u32> {
        let Ok(number) = self.packs.binary_search(&pack) else { return Vec::new() };
        let mut live = Vec::new();
        for (word, bits) in (0u32..).zip(self.words(number)) {
            let mut bits = *bits;
            while bits != 0 {
                live.push(word * 64 + bits.trailing_zeros());
                bits &= bits - 1;
            }
        }
        live
    }

    /// Bytes that the marks take.
    #[cfg(test)]
    fn memory(&self) -> usize {
        self.packs.len() * (16 + 8 + 4 + 1) + self.bits.len() * 8
    }
}

/// Stored bytes of some of a directory's chunks. Of a frame that several chunks share each has its share.
pub(super) fn stored_bytes(entries: &[Entry], live: &[u32]) -> u64 {
    let mut frames = std::collections::BTreeMap::new();
    for entry in entries {
        *frames.entry(entry.offset).or_insert(0u64) += u64::from(entry.raw_len);
    }
    let live = live.iter().filter_map(|chunk| entries.get(*chunk as usize));
    live.map(|entry| u64::from(entry.stored_len) * u64::from(entry.raw_len) / frames[&entry.offset].max(1)).sum()
}

#[cfg(test)]
mod tests {
    //! Marks are the chunks that terms name, no more and no less; they stay small.
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn id(number: u64) -> PackId {
        let mut id = [0; 16];
        id[..8].copy_from_slice(&number.to_be_bytes());
        PackId(id)
    }

    fn term(pack: u64, first: u32, count: u32, repeats: bool) -> Term {
        Term { pack: id(pack), first, count, repeats, bytes: u64::from(count) }
    }

    proptest! {
        #[test]
        fn marks_are_what_terms_name(
            sizes in proptest::collection::vec(1u32..300, 1..6),
            terms in proptest::collection::vec((0u64..6, 0u32..300, 1u32..300, any::<bool>()), 0..20),
        ) {
            let mut marks = Marks::new((0..).zip(&sizes).map(|(pack, size)| (id(pack), Some(*size))));
            let mut model = BTreeSet::new();
            for (pack, first, count, repeats) in terms {
                let term = term(pack, first, count, repeats);
                let expected = match sizes.get(pack as usize) {
                    None => Marked::NewPack,
                    Some(size) if term.chunks().end > *size => Marked::NoSuchChunk,
                    Some(_) => Marked::Yes,
                };
                prop_assert_eq!(marks.mark(&term, false), expected);
                if expected == Marked::Yes {
                    model.extend(term.chunks().map(|chunk| (pack, chunk)));
                }
            }
            for number in 0..sizes.len() {
                let live: Vec<u32> =
                    model.iter().filter(|(pack, _)| *pack == number as u64).map(|(_, chunk)| *chunk).collect();
                prop_assert_eq!(marks.count(number) as usize, live.len());
                prop_assert_eq!(marks.live(id(number as u64)), live);
            }
        }
    }

    #[test]
    fn packs_that_are_still_filled_are_new_and_outsiders_pin() {
        let mut marks = Marks::new([(id(1), None), (id(2), Some(64))].into_iter());
        assert_eq!(marks.mark(&term(1, 7000, 1, false), false), Marked::NewPack);
        assert_eq!(marks.mark(&term(2, 0, 64, false), true), Marked::Yes);
        assert_eq!((marks.count(0), marks.count(1)), (0, 64));
        assert_eq!((marks.is_pinned(0), marks.is_pinned(1)), (false, true));
    }

    #[test]
    fn a_hundred_million_chunks_take_some_megabytes() {
        let packs = 100_000_000 / 1000;
        let mut marks = Marks::new((0..packs).map(|pack| (id(pack), Some(1000))));
        for pack in 0..packs {
            assert_eq!(marks.mark(&term(pack, 1, 998, false), false), Marked::Yes);
        }
        assert_eq!((0..packs as usize).map(|pack| u64::from(marks.count(pack))).sum::<u64>(), packs * 998);
        assert!(marks.memory() < 20_000_000, "{}", marks.memory());
    }
}
