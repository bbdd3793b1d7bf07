//! The question that comes before a push: which of these chunks does the store have? And its answer.
//!
//! A list of digests is the magic "bedplate-dgst-01" and 32 bytes for each; an answer is a bit for each of them, the lowest of a
//! byte first, 1 where the store has the chunk.

use super::field::{Damaged, Reader, Writer};
use crate::model::Digest;

const LIST_MAGIC: &[u8; 16] = b"bedplate-dgst-01";
/// Most digests in a list.
pub const DIGESTS_MAX: usize = 8192;
/// Longest list of digests, in bytes.
pub const LIST_BYTES_MAX: usize = LIST_MAGIC.len() + DIGESTS_MAX * 32;

/// A list of digests.
#[must_use]
pub fn encode_digests<'a>(digests: impl IntoIterator<Item = &'a Digest>) -> Vec<u8> {
    let mut out = Writer::default();
    out.raw(LIST_MAGIC);
    for digest in digests {
        out.raw(&digest.0);
    }
    out.take()
}

/// Reads a list of at most [`DIGESTS_MAX`] digests.
pub fn decode_digests(bytes: &[u8]) -> Result<Vec<Digest>, Damaged> {
    let mut reader = Reader::new("list of digests", bytes);
    if reader.array::<16>()? != *LIST_MAGIC {
        return Err(reader.damaged("its magic is absent"));
    }
    let count = reader.left() / 32;
    if count > DIGESTS_MAX {
        return Err(reader.damaged("it is longer than any may be"));
    }
    let digests = (0..count).map(|_| Ok(Digest(reader.array()?))).collect::<Result<Vec<_>, Damaged>>()?;
    reader.end()?;
    Ok(digests)
}

/// A bit for each.
#[must_use]
pub fn encode_bits(bits: &[bool]) -> Vec<u8> {
    let byte = |bits: &[bool]| bits.iter().rev().fold(0, |byte, bit| byte << 1 | u8::from(*bit));
    bits.chunks(8).map(byte).collect()
}

/// So many bits.
pub fn decode_bits(bytes: &[u8], count: usize) -> Result<Vec<bool>, Damaged> {
    if bytes.len() != count.div_ceil(8) {
        return Err(Damaged { what: "answer", why: "it is of another length than the question" });
    }
    Ok((0..count).map(|at| bytes[at / 8] >> (at % 8) & 1 == 1).collect())
}

#[cfg(test)]
mod tests {
    //! Lists and answers read back, and are as long as they must be.
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn lists_and_answers_read_back() {
        let digests: Vec<Digest> = (0..19).map(|n| Digest([n; 32])).collect();
        let bytes = encode_digests(&digests);
        assert_eq!(decode_digests(&bytes).unwrap(), digests);
        assert!(decode_digests(&bytes[..bytes.len() - 1]).is_err());
        assert!(decode_digests(&encode_digests(&vec![Digest([0; 32]); DIGESTS_MAX + 1])).is_err());
        let bits: Vec<bool> = (0..19).map(|n| n % 3 == 0).collect();
        assert_eq!(decode_bits(&encode_bits(&bits), 19).unwrap(), bits);
        assert!(decode_bits(&encode_bits(&bits), 25).is_err());
    }

    proptest! {
        #[test]
        fn hostile_bytes_are_harmless(bytes: Vec<u8>, count in 0usize..100) {
            drop(decode_digests(&[&LIST_MAGIC[..], &bytes].concat()));
            drop(decode_digests(&bytes));
            drop(decode_bits(&bytes, count));
        }
    }
}
