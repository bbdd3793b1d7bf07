//! How chunks are stored: raw, or compressed with zstd where that pays. Chunks that compress well and follow each other
//! share one zstd frame, which finds what they have in common. What is stored is never longer than the chunks.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use zstd::zstd_safe::CParameter;

use super::field::Damaged;
use crate::model::limit::{CHUNK_MAX, FRAME_MAX, FRAME_TARGET};

/// zstd's level: the fastest; measured, higher levels cost several times as much for a few per cent.
const LEVEL: i32 = 1;
/// Shortest match, where zstd would take 6 for inputs as short as our frames: a tenth faster, and no larger with the next.
const MATCH_MIN: u32 = 7;
/// Entries of the match table, as a power of two, where zstd would take 2^14. 128 KiB: it stays in the second-level cache.
const TABLE_LOG: u32 = 15;
/// Compression must save at least this share of the chunk, or the reader's time is not worth it.
const WORTH: usize = 32;
/// Chunks share a frame where compression makes less than this many hundredths of them: what compresses badly gains nothing from
/// company, and stays cheap to read by itself.
const SHARE_BELOW: usize = 66;
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
    /// One zstd frame of this chunk alone.
    Zstd,
    /// One zstd frame of several chunks.
    ZstdFrame,
}

impl Codec {
    /// The byte that stands for it in stored layouts.
    #[must_use]
    pub fn code(self) -> u8 {
        match self {
            Self::Raw => 0,
            Self::Zstd => 1,
            Self::ZstdFrame => 2,
        }
    }

    /// The codec that a stored byte stands for.
    pub fn from_code(code: u8) -> Result<Self, Damaged> {
        match code {
            0 => Ok(Self::Raw),
            1 => Ok(Self::Zstd),
            2 => Ok(Self::ZstdFrame),
            _ => Err(Damaged { what: "chunk", why: "its codec is not one that this program knows" }),
        }
    }
}

/// Stored bytes of one chunk, or of several that follow each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// How they are stored.
    pub codec: Codec,
    /// The stored bytes.
    pub stored: Bytes,
    /// How many chunks.
    pub chunks: usize,
}

/// Encodes chunks; holds zstd's working memory from one run to the next.
#[derive(Default)]
pub struct Encoder {
    zstd: Option<zstd::bulk::Compressor<'static>>,
    joined: Vec<u8>,
    /// Whether the chunks of late compressed well enough to share frames.
    sharing: bool,
}

impl Encoder {
    /// An encoder without working memory yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A run of chunks as they are to be stored; raw chunks share the memory of what was given.
    pub fn encode(&mut self, chunks: &[Bytes]) -> Vec<Frame> {
        let mut frames = Vec::with_capacity(chunks.len());
        let mut rest = chunks;
        while let Some(chunk) = rest.first() {
            let frame = if is_noise(chunk) { raw(chunk) } else { self.compress(rest) };
            rest = &rest[frame.chunks..];
            frames.push(frame);
        }
        frames
    }

    /// Compresses the first chunk of the run, or as many as share a frame with it.
    fn compress(&mut self, chunks: &[Bytes]) -> Frame {
        if self.sharing {
            let count = together(chunks);
            if count > 1 {
                self.joined.clear();
                chunks[..count].iter().for_each(|chunk| self.joined.extend_from_slice(chunk));
                let joined = std::mem::take(&mut self.joined);
                let stored = self.zstd(&joined);
                self.joined = joined;
                if let Some(stored) = stored {
                    self.sharing = stored.len() < self.joined.len() / 100 * SHARE_BELOW;
                    return Frame { codec: Codec::ZstdFrame, stored, chunks: count };
                }
                self.sharing = false;
            }
        }
        let chunk = &chunks[0];
        match self.zstd(chunk) {
            Some(stored) => {
                self.sharing = stored.len() < chunk.len() / 100 * SHARE_BELOW;
                Frame { codec: Codec::Zstd, stored, chunks: 1 }
            }
            None => {
                self.sharing = false;
                raw(chunk)
            }
        }
    }

    /// The bytes as one zstd frame, where that is worth it.
    fn zstd(&mut self, bytes: &[u8]) -> Option<Bytes> {
        if self.zstd.is_none() {
            self.zstd = compressor().ok();
        }
        let mut stored = self.zstd.as_mut()?.compress(bytes).ok()?;
        if stored.len() > bytes.len() - bytes.len() / WORTH {
            return None;
        }
        stored.shrink_to_fit();
        Some(stored.into())
    }
}

fn compressor() -> std::io::Result<zstd::bulk::Compressor<'static>> {
    let mut zstd = zstd::bulk::Compressor::new(LEVEL)?;
    zstd.set_parameter(CParameter::MinMatch(MATCH_MIN))?;
    zstd.set_parameter(CParameter::HashLog(TABLE_LOG))?;
    Ok(zstd)
}

fn raw(chunk: &Bytes) -> Frame {
    Frame { codec: Codec::Raw, stored: chunk.clone(), chunks: 1 }
}

/// How many of the chunks fit one frame; noise ends it.
fn together(chunks: &[Bytes]) -> usize {
    let mut bytes = 0;
    let fits = |chunk: &&Bytes| {
        bytes += chunk.len();
        bytes <= FRAME_TARGET && !is_noise(chunk)
    };
    chunks.iter().take_while(fits).count()
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

/// Decodes frames; holds zstd's working memory from one to the next, and the last frame.
#[derive(Default)]
pub struct Decoder {
    zstd: Option<zstd::bulk::Decompressor<'static>>,
    last: Option<(u64, Bytes)>,
}

impl Decoder {
    /// A decoder without working memory yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A chunk out of the stored frame in which it begins at `within`. `offset` is where the frame lies: consecutive calls
    /// for the same one decode it once, so give one pack's frames to one decoder.
    pub fn chunk(
        &mut self,
        offset: u64,
        codec: Codec,
        stored: &Bytes,
        within: u32,
        raw_len: u32,
    ) -> Result<Bytes, Damaged> {
        let (start, len) = (within as usize, raw_len as usize);
        let frame = match &self.last {
            Some((at, frame)) if *at == offset && codec == Codec::ZstdFrame => frame.clone(),
            _ => self.decode(codec, stored, len)?,
        };
        if codec == Codec::ZstdFrame {
            self.last = Some((offset, frame.clone()));
        }
        if start.saturating_add(len) > frame.len() || codec != Codec::ZstdFrame && start > 0 {
            return Err(Damaged { what: "chunk", why: "it lies outside of its frame" });
        }
        Ok(frame.slice(start..start + len))
    }

    /// Decodes a frame into the room that its chunks take: no more and no less.
    pub fn decode_into(&mut self, codec: Codec, stored: &[u8], room: &mut [u8]) -> Result<(), Damaged> {
        let broken = || Damaged { what: "chunk", why: "its bytes are not a frame of its length" };
        if codec == Codec::Raw {
            if stored.len() != room.len() {
                return Err(broken());
            }
            room.copy_from_slice(stored);
            return Ok(());
        }
        if self.zstd.is_none() {
            self.zstd = zstd::bulk::Decompressor::new().ok();
        }
        let len = self.zstd.as_mut().and_then(|zstd| zstd.decompress_to_buffer(stored, room).ok());
        if len == Some(room.len()) { Ok(()) } else { Err(broken()) }
    }

    /// The decoded bytes of a stored frame. `raw_len` is the length of the chunk; a frame of several chunks says its length itself,
    /// and is refused where it claims more than a frame may hold.
    pub fn decode(&mut self, codec: Codec, stored: &Bytes, raw_len: usize) -> Result<Bytes, Damaged> {
        let damaged = |why| Damaged { what: "chunk", why };
        if raw_len > CHUNK_MAX {
            return Err(damaged("it claims to be longer than a chunk can be"));
        }
        let expected = match codec {
            Codec::Raw if stored.len() == raw_len => return Ok(stored.clone()),
            Codec::Raw => return Err(damaged("it has another length than its directory says")),
            Codec::Zstd => raw_len,
            Codec::ZstdFrame => match zstd::zstd_safe::get_frame_content_size(stored) {
                Ok(Some(len)) if len <= FRAME_MAX as u64 => len as usize,
                _ => return Err(damaged("its frame does not say a length that a frame can have")),
            },
        };
        let broken = || damaged("its bytes are not a zstd frame of its length");
        if self.zstd.is_none() {
            self.zstd = zstd::bulk::Decompressor::new().ok();
        }
        let zstd = self.zstd.as_mut().ok_or_else(broken)?;
        let bytes = zstd.decompress(stored, expected).map_err(|_| broken())?;
        if bytes.len() == expected {
            Ok(bytes.into())
        } else {
            Err(damaged("it has another length than its directory says"))
        }
    }
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

    /// All chunks of the frames, decoded one by one.
    fn decoded(chunks: &[Bytes], frames: &[Frame]) -> Vec<Bytes> {
        let (mut decoder, mut lens, mut out) = (Decoder::new(), chunks.iter().map(Bytes::len), Vec::new());
        for frame in frames {
            let mut within = 0;
            for len in lens.by_ref().take(frame.chunks).collect::<Vec<_>>() {
                let bytes = decoder.decode(frame.codec, &frame.stored, len).unwrap();
                out.push(bytes.slice(within..within + len));
                within += len;
            }
        }
        out
    }

    #[test]
    fn text_shrinks_and_noise_stays() {
        let text = Bytes::from("a dataset of one sentence. ".repeat(3000));
        let chunks = [text.clone(), text.clone(), noise(100_000), text.clone(), text.clone(), text];
        let frames = Encoder::new().encode(&chunks);
        let codecs: Vec<_> = frames.iter().map(|frame| (frame.codec, frame.chunks)).collect();
        assert_eq!(codecs, [(Codec::Zstd, 1), (Codec::Zstd, 1), (Codec::Raw, 1), (Codec::ZstdFrame, 3)]);
        assert!(frames[3].stored.len() < chunks[0].len() / 20);
        assert_eq!(frames[2].stored, noise(100_000));
        assert_eq!(decoded(&chunks, &frames), chunks);
    }

    #[test]
    fn decodes_into_exactly_its_room() {
        let text = Bytes::from("row of a table ".repeat(4000));
        let frames = Encoder::new().encode(&[text.clone(), text.clone(), text.clone(), noise(9_000)]);
        let whole = [&text[..], &text, &text, &noise(9_000)].concat();
        let (mut decoder, mut at) = (Decoder::new(), 0);
        for frame in &frames {
            let len = if frame.codec == Codec::Raw { 9_000 } else { frame.chunks * text.len() };
            let mut room = vec![0; len];
            decoder.decode_into(frame.codec, &frame.stored, &mut room).unwrap();
            assert!(room == whole[at..at + len]);
            at += len;
            for wrong in [len - 1, len + 1] {
                assert!(decoder.decode_into(frame.codec, &frame.stored, &mut vec![0; wrong]).is_err());
            }
        }
        assert_eq!(at, whole.len());
    }

    #[test]
    fn refuses_a_wrong_length() {
        let text = Bytes::from("x".repeat(50_000));
        let frames = Encoder::new().encode(&[text.clone(), text.clone(), text]);
        let (one, two) = (&frames[0], &frames[1]);
        let mut decoder = Decoder::new();
        for len in [49_999, 50_001, usize::MAX] {
            assert!(decoder.decode(one.codec, &one.stored, len).is_err());
        }
        assert_eq!(two.chunks, 2);
        let bomb = zstd::bulk::compress(&vec![0; FRAME_MAX + 1], 1).unwrap();
        assert!(decoder.decode(Codec::ZstdFrame, &bomb.into(), 8192).is_err());
    }

    proptest! {
        #[test]
        fn reads_back(chunks in proptest::collection::vec(proptest::collection::vec(0u8..16, 1..20_000), 0..8)) {
            let chunks: Vec<Bytes> = chunks.into_iter().map(Bytes::from).collect();
            let frames = Encoder::new().encode(&chunks);
            let stored: usize = frames.iter().map(|frame| frame.stored.len()).sum();
            prop_assert!(stored <= chunks.iter().map(Bytes::len).sum());
            prop_assert_eq!(decoded(&chunks, &frames), chunks);
        }

        #[test]
        fn hostile_bytes_are_harmless(bytes: Vec<u8>, raw_len in 0usize..200_000) {
            let mut decoder = Decoder::new();
            let bytes = Bytes::from(bytes);
            if let Ok(chunk) = decoder.decode(Codec::Zstd, &bytes, raw_len) {
                prop_assert_eq!(chunk.len(), raw_len);
            }
            if let Ok(frame) = decoder.decode(Codec::ZstdFrame, &bytes, raw_len) {
                prop_assert!(frame.len() <= FRAME_MAX);
            }
        }
    }
}
