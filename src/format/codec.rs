//! How a chunk's bytes are stored: raw, or compressed with zstd where a cheap probe says that it pays. What is stored is
//! never longer than the chunk.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::field::Damaged;
use crate::model::limit::CHUNK_MAX;

/// zstd's level: the fastest; measured, higher levels cost several times as much for a few per cent.
const LEVEL: i32 = 1;
/// Compression must save at least this share of the chunk, or the reader's time is not worth it.
const WORTH: usize = 32;
/// Bytes that the probe looks at, in runs spread over the chunk.
const PROBE_BYTES: usize = 4096;
const PROBE_RUN: usize = 256;
/// Bits a byte above which a probe counts as noise. 4,096 bytes of true noise measure 7.95.
const NOISE_BITS: f32 = 7.8;

/// The way in which a chunk's bytes are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Codec {
    /// As they are.
    Raw,
    /// One zstd frame.
    Zstd,
}

impl Codec {
    /// The byte that stands for it in stored layouts.
    #[must_use]
    pub fn code(self) -> u8 {
        match self {
            Self::Raw => 0,
            Self::Zstd => 1,
        }
    }

    /// The codec that a stored byte stands for.
    pub fn from_code(code: u8) -> Result<Self, Damaged> {
        match code {
            0 => Ok(Self::Raw),
            1 => Ok(Self::Zstd),
            _ => Err(Damaged { what: "chunk", why: "its codec is not one that this program knows" }),
        }
    }
}

/// Encodes chunks; holds zstd's working memory from one chunk to the next.
#[derive(Default)]
pub struct Encoder {
    zstd: Option<zstd::bulk::Compressor<'static>>,
}

impl Encoder {
    /// An encoder without working memory yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The chunk as it is to be stored; raw chunks share the memory of `chunk`.
    pub fn encode(&mut self, chunk: &Bytes) -> (Codec, Bytes) {
        match self.compress(chunk) {
            Some(bytes) => (Codec::Zstd, bytes),
            None => (Codec::Raw, chunk.clone()),
        }
    }

    fn compress(&mut self, chunk: &[u8]) -> Option<Bytes> {
        if is_noise(chunk) {
            return None;
        }
        if self.zstd.is_none() {
            self.zstd = zstd::bulk::Compressor::new(LEVEL).ok();
        }
        let mut bytes = self.zstd.as_mut()?.compress(chunk).ok()?;
        if bytes.len() > chunk.len() - chunk.len() / WORTH {
            return None;
        }
        bytes.shrink_to_fit();
        Some(bytes.into())
    }
}

/// Whether a sample of the chunk has no order-0 redundancy worth coding.
fn is_noise(chunk: &[u8]) -> bool {
    if chunk.len() < PROBE_BYTES {
        return false;
    }
    let mut counts = [0u16; 256];
    let stride = chunk.len() / (PROBE_BYTES / PROBE_RUN);
    for run in chunk.chunks(stride).take(PROBE_BYTES / PROBE_RUN) {
        for byte in &run[..PROBE_RUN.min(run.len())] {
            counts[usize::from(*byte)] += 1;
        }
    }
    let total: f32 = counts.iter().map(|count| f32::from(*count)).sum();
    let bits: f32 =
        counts.iter().filter(|count| **count > 0).map(|count| f32::from(*count)).map(|n| n * (total / n).log2()).sum();
    bits / total > NOISE_BITS
}

/// The chunk's bytes out of the stored ones; exactly `raw_len` of them, or an error.
pub fn decode(codec: Codec, stored: &[u8], raw_len: usize) -> Result<Vec<u8>, Damaged> {
    let damaged = |why| Damaged { what: "chunk", why };
    if raw_len > CHUNK_MAX {
        return Err(damaged("it claims to be longer than a chunk can be"));
    }
    let bytes = match codec {
        Codec::Raw => stored.to_vec(),
        Codec::Zstd => zstd::bulk::decompress(stored, raw_len)
            .map_err(|_| damaged("its bytes are not a zstd frame of its length"))?,
    };
    if bytes.len() == raw_len { Ok(bytes) } else { Err(damaged("it has another length than its directory says")) }
}

#[cfg(test)]
mod tests {
    //! What is encoded decodes to itself, never grows, and hostile bytes end in an error.
    use proptest::prelude::*;

    use super::*;

    fn noise(len: usize) -> Bytes {
        let mut state = 7u64;
        (0..len)
            .map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (state >> 56) as u8
            })
            .collect::<Vec<_>>()
            .into()
    }

    #[test]
    fn text_shrinks_and_noise_stays() {
        let text = Bytes::from("a dataset of one sentence. ".repeat(3000));
        let (codec, stored) = Encoder::new().encode(&text);
        assert_eq!(codec, Codec::Zstd);
        assert!(stored.len() < text.len() / 20);
        assert_eq!(decode(codec, &stored, text.len()).unwrap(), text);
        let (codec, stored) = Encoder::new().encode(&noise(100_000));
        assert_eq!(codec, Codec::Raw);
        assert_eq!(stored, noise(100_000));
    }

    #[test]
    fn refuses_a_wrong_length() {
        let text = Bytes::from("x".repeat(50_000));
        let (codec, stored) = Encoder::new().encode(&text);
        assert!(decode(codec, &stored, 49_999).is_err());
        assert!(decode(codec, &stored, 50_001).is_err());
        assert!(decode(codec, &stored, usize::MAX).is_err());
    }

    proptest! {
        #[test]
        fn reads_back(bytes in proptest::collection::vec(0u8..16, 0..20_000)) {
            let chunk = Bytes::from(bytes);
            let (codec, stored) = Encoder::new().encode(&chunk);
            prop_assert!(stored.len() <= chunk.len());
            prop_assert_eq!(decode(codec, &stored, chunk.len()).unwrap(), chunk.to_vec());
        }

        #[test]
        fn hostile_bytes_are_harmless(bytes: Vec<u8>, raw_len in 0usize..200_000) {
            if let Ok(chunk) = decode(Codec::Zstd, &bytes, raw_len) {
                prop_assert_eq!(chunk.len(), raw_len);
            }
        }
    }
}
