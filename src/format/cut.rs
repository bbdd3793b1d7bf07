//! Content-defined chunks, cut exactly where Hugging Face's Xet protocol cuts them: a Gear hash over the last 64 bytes
//! ends a chunk where its upper 16 bits are zero, but not before 8 KiB and at the latest after 128 KiB. Where a cut falls
//! depends on the bytes alone, not on how they arrived. This is part of the disk format: changing it loses deduplication
//! against everything that is stored.

use crate::model::limit::{CHUNK_MAX, CHUNK_MIN};

/// A cut falls where these bits of the Gear hash are zero: one position in 64 Ki.
const MASK: u64 = 0xFFFF_0000_0000_0000;
/// Bytes that the Gear hash depends on.
const WINDOW: usize = 64;
/// No byte before this one can matter to a cut at [`CHUNK_MIN`] or later; hashing starts here.
const SKIP: usize = CHUNK_MIN - WINDOW - 1;

/// Finds the cuts in a stream of bytes that arrives in pieces.
pub struct Cutter {
    hasher: gearhash::Hasher<'static>,
    /// Bytes of the open chunk that were seen so far.
    length: usize,
}

impl Default for Cutter {
    fn default() -> Self {
        Self::new()
    }
}

impl Cutter {
    /// A cutter at the beginning of an object.
    #[must_use]
    pub fn new() -> Self {
        Self { hasher: gearhash::Hasher::default(), length: 0 }
    }

    /// Looks at the next bytes. `Some(n)`: the open chunk ends with byte `n - 1` of `data`, and the next call is to begin
    /// with byte `n`. `None`: all of `data` belongs to the open chunk.
    pub fn next_cut(&mut self, data: &[u8]) -> Option<usize> {
        let before = self.length;
        let room = data.len().min(CHUNK_MAX - before);
        let mut at = SKIP.saturating_sub(before).min(room);
        while let Some(step) = self.hasher.next_match(&data[at..room], MASK) {
            at += step;
            if before + at >= CHUNK_MIN {
                return Some(self.cut(at));
            }
        }
        if before + room == CHUNK_MAX {
            return Some(self.cut(room));
        }
        self.length += room;
        None
    }

    /// Begins a chunk anew: the bytes since the last cut were a chunk that was found without looking at all of them.
    pub fn restart(&mut self) {
        self.hasher.set_hash(0);
        self.length = 0;
    }

    fn cut(&mut self, at: usize) -> usize {
        self.hasher.set_hash(0);
        self.length = 0;
        at
    }
}

/// Whether the cutter, had it come this far, would end a chunk after these bytes: they are the longest chunk, or the hash of their last
/// bytes says so. It does not look for an earlier end.
#[must_use]
pub fn ends_chunk(chunk: &[u8]) -> bool {
    if !(CHUNK_MIN..CHUNK_MAX).contains(&chunk.len()) {
        return chunk.len() == CHUNK_MAX;
    }
    let hash = chunk[chunk.len() - WINDOW..]
        .iter()
        .fold(0u64, |hash, byte| (hash << 1).wrapping_add(gearhash::DEFAULT_TABLE[usize::from(*byte)]));
    hash & MASK == 0
}

#[cfg(test)]
mod tests {
    //! Cuts and root digests equal those of `hf_xet` 1.x (`hf_xet.hash_files`) for the same bytes, and how the bytes
    //! arrive does not matter.
    use proptest::prelude::*;

    use super::*;
    use crate::format::digest::{RootDigest, chunk_digest, xet_text};

    /// SplitMix64, so that anyone can make the same bytes in a few lines of any language.
    fn splitmix(seed: u64, len: usize) -> Vec<u8> {
        let mut state = seed;
        let mut bytes = Vec::with_capacity(len + 8);
        while bytes.len() < len {
            state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
            let mut z = state;
            z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
            bytes.extend_from_slice(&(z ^ (z >> 31)).to_le_bytes());
        }
        bytes.truncate(len);
        bytes
    }

    /// A 64-byte window on which the Gear hash ends a chunk, at every distance from 8,100 to 8,299 of the one before:
    /// all cases around the shortest chunk.
    fn hits() -> Vec<u8> {
        let window = splitmix(20_400, 64);
        let mut hasher = gearhash::Hasher::default();
        assert_eq!(hasher.next_match(&window, MASK), Some(64));
        (8100..8300).flat_map(|gap| std::iter::repeat_n(0x41, gap - 64).chain(window.iter().copied())).collect()
    }

    /// Lengths of the chunks of `data`, given to the cutter in pieces of the given lengths, over and over.
    fn cut(data: &[u8], pieces: &[usize]) -> Vec<usize> {
        let mut cutter = Cutter::new();
        let mut pieces = pieces.iter().copied().cycle();
        let (mut at, mut length, mut lengths) = (0, 0, Vec::new());
        while at < data.len() {
            let piece = &data[at..data.len().min(at + pieces.next().unwrap().max(1))];
            let mut from = 0;
            while from < piece.len() {
                match cutter.next_cut(&piece[from..]) {
                    Some(n) => {
                        lengths.push(length + n);
                        length = 0;
                        from += n;
                    }
                    None => {
                        length += piece.len() - from;
                        from = piece.len();
                    }
                }
            }
            at += piece.len();
        }
        if length > 0 {
            lengths.push(length);
        }
        lengths
    }

    fn root(data: &[u8]) -> String {
        let mut root = RootDigest::new();
        let mut at = 0;
        for length in cut(data, &[data.len()]) {
            root.push(chunk_digest(&data[at..at + length]), length as u64);
            at += length;
        }
        xet_text(&root.finish())
    }

    #[test]
    fn cuts_where_the_protocol_says() {
        let lengths = cut(&splitmix(0, 1_000_000), &[1_000_000]);
        let ends: Vec<usize> = lengths
            .iter()
            .scan(0, |end, length| {
                *end += length;
                Some(*end)
            })
            .collect();
        assert_eq!(
            ends,
            [
                84493, 134_421, 144_853, 243_318, 271_793, 336_457, 467_529, 494_581, 582_000, 596_735, 616_815,
                653_164, 678_202, 724_510, 815_591, 827_760, 958_832, 991_092, 1_000_000
            ]
        );
    }

    #[test]
    fn roots_equal_the_oracle() {
        let mixed = [splitmix(7, 300_000), vec![0; 500_000], splitmix(8, 300_000)].concat();
        for (name, data, expected) in [
            ("empty", vec![], "0000000000000000000000000000000000000000000000000000000000000000"),
            ("one", vec![1], "ec3b9664505abe2000cfd4cfff516bf9b4c0eff3fd0fe349abb01c45dd65e04b"),
            ("inline", splitmix(1, 5000), "3ca83f0b68632044a46e39a264c6db96cf7c7de04b1e9a7009a0ca3d7af58f36"),
            ("min", splitmix(2, 8192), "5dd6ee03d19880a71a23844db58766db32358616601183cc117149cb09f75769"),
            ("single", splitmix(3, 9000), "0fae68b5adf582249311765b6826673282e8f28c7c6a32400d98340b5d7e32de"),
            ("1 MB", splitmix(0, 1_000_000), "3d17b2d7d64a0e011b6717a52d9a16bd2c3f05b743fa8adf52a7d75dafab6d89"),
            ("20 MB", splitmix(5, 20_000_000), "e6f077733ccb9305a92d552e234fefa763d7ec3dd98ea3dd7819dd0a71fdeba7"),
            ("zeros", vec![0; 1_000_000], "c0c85185f4307d40facfd366573176e54fc9c76041e44e32d52489780a6d1eaa"),
            ("one of zeros", vec![0; CHUNK_MAX], "7a7c18448d7ae35cc61c072281981c565fedb8a079b42c6ef4a0c846bb78c50d"),
            ("hits", hits(), "29f39a314eba9f8cb1b947a60a5b78d4706fdd7c138505e330e6ca65c9bf9119"),
            ("mixed", mixed, "f8e7abb74a64312690c510a0b7511ccc0ea5ca13029e005ecd6d9564928449d2"),
        ] {
            assert_eq!(root(&data), expected, "{name}");
        }
    }

    #[test]
    fn an_end_is_known_by_the_last_bytes() {
        // The last of these ends with a hit, so that its last chunk ends as any other.
        for (data, ends) in [(splitmix(0, 1_000_000), false), (vec![0; 400_000], false), (hits(), true)] {
            let mut at = 0;
            let lengths = cut(&data, &[usize::MAX]);
            let (last, rest) = lengths.split_last().unwrap();
            for length in rest {
                assert!(ends_chunk(&data[at..at + length]));
                assert!(!ends_chunk(&data[at..at + length - 1]) || *length == CHUNK_MAX);
                at += length;
            }
            assert_eq!(ends_chunk(&data[at..]), ends, "{last} bytes");
        }
    }

    #[test]
    fn hostile_spacing_keeps_the_bounds() {
        let lengths = cut(&hits(), &[usize::MAX]);
        let (last, rest) = lengths.split_last().unwrap();
        assert!(rest.iter().all(|length| (CHUNK_MIN..=CHUNK_MAX).contains(length)), "{lengths:?}");
        assert!(*last <= CHUNK_MAX);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn how_bytes_arrive_does_not_matter(
            seed: u64,
            len in 0usize..600_000,
            pieces in proptest::collection::vec(1usize..100_000, 1..8),
            small in proptest::collection::vec(1usize..200, 1..8),
            near_min: bool,
        ) {
            let data = if near_min { hits() } else { splitmix(seed, len) };
            let whole = cut(&data, &[usize::MAX]);
            prop_assert_eq!(&cut(&data, &pieces), &whole);
            prop_assert_eq!(&cut(&data, &small), &whole);
        }
    }
}
