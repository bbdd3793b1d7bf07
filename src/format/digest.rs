//! Digests, exactly as Hugging Face's Xet protocol defines them: a chunk is known by keyed BLAKE3, an object by the root
//! of a tree over its chunks, keyed once more with zeros (Xet's "file hash").
//!
//! A tree node covers 3 to 9 children: it ends after the third or a later child whose digest's byte 24 is a multiple of
//! four, or after the ninth, or at the end. Its digest is keyed BLAKE3 over one line of text for each child.

use std::fmt::Write as _;
use std::sync::OnceLock;

use crate::model::{Digest, limit};

/// Key of a chunk's digest: the protocol's DATA_KEY.
const CHUNK_KEY: [u8; 32] = [
    0x66, 0x97, 0xf5, 0x77, 0x5b, 0x95, 0x50, 0xde, 0x31, 0x35, 0xcb, 0xac, 0xa5, 0x97, 0x18, 0x1c, 0x9d, 0xe4, 0x21,
    0x10, 0x9b, 0xeb, 0x2b, 0x58, 0xb4, 0xd0, 0xb0, 0x4b, 0x93, 0xad, 0xf2, 0x29,
];

/// Key of an inner node's digest: the protocol's INTERNAL_NODE_HASH.
const NODE_KEY: [u8; 32] = [
    0x01, 0x7e, 0xc5, 0xc7, 0xa5, 0x47, 0x29, 0x96, 0xfd, 0x94, 0x66, 0x66, 0xb4, 0x8a, 0x02, 0xe6, 0x5d, 0xdd, 0x53,
    0x6f, 0x37, 0xc7, 0x6d, 0xd2, 0xf8, 0x63, 0x52, 0xe6, 0x4a, 0x53, 0x71, 0x3f,
];

/// Key of the root: the protocol's salt, which it leaves at zero.
const ROOT_KEY: [u8; 32] = [0; 32];

/// Fewest children after which a node may end early.
const NODE_MIN: usize = 3;
/// Most children of a node.
const NODE_MAX: usize = 9;

/// The digest of a chunk.
#[must_use]
pub fn chunk_digest(chunk: &[u8]) -> Digest {
    Digest(*blake3::keyed_hash(&CHUNK_KEY, chunk).as_bytes())
}

/// The digest of a chunk of `len` zero bytes.
#[must_use]
pub fn zero_chunk(len: usize) -> Digest {
    static LARGEST: OnceLock<Digest> = OnceLock::new();
    let compute = || {
        let mut hasher = blake3::Hasher::new_keyed(&CHUNK_KEY);
        let zeros = [0; 4096];
        for at in (0..len).step_by(zeros.len()) {
            hasher.update(&zeros[..zeros.len().min(len - at)]);
        }
        Digest(*hasher.finalize().as_bytes())
    };
    if len == limit::CHUNK_MAX { *LARGEST.get_or_init(compute) } else { compute() }
}

/// Whether a chunk of `len` bytes with this digest is all zeros. Zeros never end a chunk, so that a chunk of zeros has
/// the largest length or is an object's last; only those two cost a look.
#[must_use]
pub fn is_zero_digest(digest: &Digest, len: usize) -> bool {
    *digest == zero_chunk(len)
}

/// The digest as the Xet protocol writes it: four little-endian 64-bit numbers in hexadecimal.
#[must_use]
pub fn xet_text(digest: &Digest) -> String {
    let mut text = String::with_capacity(64);
    push_xet_text(&mut text, digest);
    text
}

fn push_xet_text(text: &mut String, digest: &Digest) {
    for word in digest.0.chunks_exact(8) {
        for byte in word.iter().rev() {
            for nibble in [byte >> 4, byte & 15] {
                text.push(char::from(b"0123456789abcdef"[usize::from(nibble)]));
            }
        }
    }
}

/// Adds up the root digest of an object, chunk by chunk, in memory that grows with the tree's depth.
#[derive(Clone, Default)]
pub struct RootDigest {
    levels: Vec<Vec<(Digest, u64)>>,
    text: String,
}

impl RootDigest {
    /// The root of no chunks yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the next chunk: its digest, and its length in bytes.
    pub fn push(&mut self, digest: Digest, len: u64) {
        self.push_at(0, digest, len);
    }

    fn push_at(&mut self, mut level: usize, mut digest: Digest, mut len: u64) {
        loop {
            if self.levels.len() == level {
                self.levels.push(Vec::with_capacity(NODE_MAX));
            }
            let open = &mut self.levels[level];
            open.push((digest, len));
            let ends = open.len() == NODE_MAX || (open.len() >= NODE_MIN && digest.0[24].is_multiple_of(4));
            if !ends {
                return;
            }
            (digest, len) = self.close(level);
            level += 1;
        }
    }

    /// Turns the open children of a level into their parent node.
    fn close(&mut self, level: usize) -> (Digest, u64) {
        self.text.clear();
        let mut total = 0;
        for (digest, len) in self.levels[level].drain(..) {
            push_xet_text(&mut self.text, &digest);
            // Writing to a String cannot fail.
            let _ = writeln!(self.text, " : {len}");
            total += len;
        }
        (Digest(*blake3::keyed_hash(&NODE_KEY, self.text.as_bytes()).as_bytes()), total)
    }

    /// The root digest; 32 zero bytes for an object without chunks.
    #[must_use]
    pub fn finish(mut self) -> Digest {
        let mut level = 0;
        while level < self.levels.len() {
            let is_top = level + 1 == self.levels.len();
            match self.levels[level].len() {
                1 if is_top => {
                    let root = self.levels[level][0].0;
                    return Digest(*blake3::keyed_hash(&ROOT_KEY, &root.0).as_bytes());
                }
                0 => {}
                _ => {
                    let (digest, len) = self.close(level);
                    self.push_at(level + 1, digest, len);
                }
            }
            level += 1;
        }
        Digest::default()
    }
}

#[cfg(test)]
mod tests {
    //! Single digests; `format::cut` proves whole roots against the oracle.
    use super::*;

    #[test]
    fn zeros_are_known() {
        for len in [1, 4096, 70_000, limit::CHUNK_MAX] {
            let digest = chunk_digest(&vec![0; len]);
            assert_eq!(digest, zero_chunk(len));
            assert!(is_zero_digest(&digest, len));
            assert!(!is_zero_digest(&digest, len + 1));
        }
    }

    #[test]
    fn writes_digests_as_the_protocol_does() {
        let digest = Digest(std::array::from_fn(|n| n as u8));
        assert_eq!(xet_text(&digest), "07060504030201000f0e0d0c0b0a090817161514131211101f1e1d1c1b1a1918");
    }
}
