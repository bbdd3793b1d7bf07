//! A signature: what a stretch of an object is made of, so finely that a client which has only the new bytes finds most of a chunk
//! that has changed a little. It is a hint: what is made by it is compared with its digest.
//!
//! ```text
//! 0   16  magic "bedplate-sign-01"
//!         text    entity tag of the object, without quotes
//! …    8  where the stretch begins in the object, bytes
//!         varint  pieces; a piece is
//!                 varint  length
//!                 6       the first bytes of its BLAKE3
//!      4  CRC32C of all that is before
//! ```
//!
//! Pieces are cut by the Gear hash of chunks, after a byte at which its highest nine bits are zero, at the earliest after 64 bytes and at
//! the latest after 4,096.

use super::field::{Damaged, Reader, Writer};

const MAGIC: &[u8; 16] = b"bedplate-sign-01";
const MASK: u64 = 0xFF80_0000_0000_0000;
const PIECE_MIN: usize = 64;
const PIECE_MAX: usize = 4096;
/// Shortest piece on the wire.
const PIECE_WIRE_MIN: usize = 7;
/// Most bytes of an object that one signature tells of.
pub const SIGNED_MAX: u64 = 64 * 1024 * 1024;
/// Longest signature, in bytes: of a stretch that is cut at every chance, and an entity tag.
pub const SIGNATURE_BYTES_MAX: usize = SIGNED_MAX as usize / PIECE_MIN * 8 + 4096;

/// A piece: its length, and the beginning of its hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Piece {
    /// Its length in bytes.
    pub len: u32,
    /// The first bytes of its BLAKE3.
    pub hash: [u8; 6],
}

/// The pieces of these bytes, in order.
pub fn pieces(mut data: &[u8]) -> impl Iterator<Item = (Piece, &[u8])> {
    std::iter::from_fn(move || {
        if data.is_empty() {
            return None;
        }
        let room = data.len().min(PIECE_MAX);
        let (mut hasher, mut at) = (gearhash::Hasher::default(), 0);
        let len = loop {
            match hasher.next_match(&data[at..room], MASK) {
                None => break room,
                Some(step) => at += step,
            }
            if at >= PIECE_MIN || at == room {
                break at;
            }
        };
        let (piece, rest) = data.split_at(len);
        data = rest;
        Some((Piece { len: len as u32, hash: hash(piece) }, piece))
    })
}

/// Takes off the pieces of bytes of which more may come, unless they are the `last`; what may still belong to a piece stays.
pub fn cut_pieces(open: &mut Vec<u8>, last: bool) -> Vec<Piece> {
    let (mut cut, mut done) = (Vec::new(), 0);
    for (piece, bytes) in pieces(open) {
        if !last && open.len() - done < PIECE_MAX {
            break;
        }
        done += bytes.len();
        cut.push(piece);
    }
    open.drain(..done);
    cut
}

fn hash(piece: &[u8]) -> [u8; 6] {
    let hash = blake3::hash(piece);
    std::array::from_fn(|at| hash.as_bytes()[at])
}

/// What a stretch of an object is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signature {
    /// The object's entity tag, without quotes.
    pub etag: String,
    /// Where the stretch begins in the object, in bytes.
    pub start: u64,
    /// Its pieces, in order.
    pub pieces: Vec<Piece>,
}

impl Signature {
    /// The signature's bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Writer::with_capacity(self.pieces.len() * 8 + 256);
        out.raw(MAGIC).bytes(self.etag.as_bytes()).u64(self.start).varint(self.pieces.len() as u64);
        for piece in &self.pieces {
            out.varint(u64::from(piece.len)).raw(&piece.hash);
        }
        out.seal().take()
    }

    /// Reads a signature.
    pub fn decode(bytes: &[u8]) -> Result<Self, Damaged> {
        let mut reader = Reader::sealed("signature", bytes)?;
        if reader.array::<16>()? != *MAGIC {
            return Err(reader.damaged("its magic is absent"));
        }
        let (etag, start) = (reader.text()?, reader.u64()?);
        let count = reader.varint()? as usize;
        if count > reader.left() / PIECE_WIRE_MIN {
            return Err(reader.damaged("it claims more pieces than it has room for"));
        }
        let mut pieces = Vec::with_capacity(count);
        for _ in 0..count {
            let piece = Piece { len: reader.varint32()?, hash: reader.array()? };
            if !(1..=PIECE_MAX as u32).contains(&piece.len) {
                return Err(reader.damaged("a piece has a length that none can have"));
            }
            pieces.push(piece);
        }
        reader.end()?;
        if start.checked_add(pieces.iter().map(|piece| u64::from(piece.len)).sum()).is_none() {
            return Err(Damaged { what: "signature", why: "it reaches further than any object" });
        }
        Ok(Self { etag, start, pieces })
    }
}

#[cfg(test)]
mod tests {
    //! Pieces cover all bytes, are the same again a few pieces after a change, and signatures read back.
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    fn text(rows: u64) -> Vec<u8> {
        (0..rows)
            .flat_map(|n| {
                format!("{{\"row\": {n}, \"word\": {}}}\n", n.wrapping_mul(0x9E37_79B9_7F4A_7C15)).into_bytes()
            })
            .collect()
    }

    #[test]
    fn a_change_touches_few_pieces() {
        let old = text(20_000);
        let mut new = old.clone();
        for at in (50_000..new.len()).step_by(50_000) {
            new.splice(at..at + 3, b"changed".iter().copied());
        }
        let known: HashSet<Piece> = pieces(&old).map(|(piece, _)| piece).collect();
        let lost: usize = pieces(&new).filter(|(piece, _)| !known.contains(piece)).map(|(_, data)| data.len()).sum();
        assert!(lost < new.len() / 25, "{lost} of {}", new.len());
        let mean = old.len() / known.len();
        assert!((300..1200).contains(&mean), "{mean}");
    }

    #[test]
    fn how_bytes_arrive_does_not_matter() {
        let data = text(3_000);
        let whole: Vec<Piece> = pieces(&data).map(|(piece, _)| piece).collect();
        for step in [1_000, 9_999] {
            let (mut open, mut found) = (Vec::new(), Vec::new());
            for more in data.chunks(step) {
                open.extend_from_slice(more);
                found.extend(cut_pieces(&mut open, false));
            }
            found.extend(cut_pieces(&mut open, true));
            assert!(found == whole && open.is_empty(), "{step}");
        }
    }

    #[test]
    fn reads_back_and_notices_damage() {
        let data = text(100);
        let signature =
            Signature { etag: "tag".to_owned(), start: 9, pieces: pieces(&data).map(|(piece, _)| piece).collect() };
        let bytes = signature.encode();
        assert_eq!(Signature::decode(&bytes).unwrap(), signature);
        for at in 0..bytes.len() {
            let mut bad = bytes.clone();
            bad[at] ^= 1;
            assert!(Signature::decode(&bad).is_err(), "byte {at}");
        }
    }

    proptest! {
        #[test]
        fn pieces_cover_all(data in proptest::collection::vec(0u8..4, 0..20_000)) {
            let mut all = Vec::new();
            let mut lens = Vec::new();
            for (piece, bytes) in pieces(&data) {
                prop_assert_eq!(piece.len as usize, bytes.len());
                lens.push(bytes.len());
                all.extend_from_slice(bytes);
            }
            prop_assert_eq!(all, data);
            lens.pop();
            prop_assert!(lens.iter().all(|len| (PIECE_MIN..=PIECE_MAX).contains(len)));
        }
    }
}
