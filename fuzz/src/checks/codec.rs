//! Stored chunks: hostile zstd frames, and what the encoder makes of any chunks.

use bedplate::format::codec::{Codec, Decoder, Encoder};
use bedplate::model::limit::{CHUNK_MAX, FRAME_MAX};
use bytes::Bytes;

use super::Probe;

/// Three bytes each for where the chunk begins in its frame and for its length, then what is stored: as it is, and as a
/// frame of it that is then damaged, since made-up bytes hardly ever get past a frame's header.
pub(super) fn decode(probe: &Probe, data: &[u8]) {
    let Some(([a, b, c, d, e, f], rest)) = data.split_first_chunk::<6>() else { return };
    let (within, len) = (u32::from_le_bytes([*a, *b, *c, 0]), u32::from_le_bytes([*d, *e, *f, 0]));
    hostile(probe, &Bytes::copy_from_slice(rest), within, len);
    let (damage, text) = rest.split_at(rest.len().min(usize::from(f % 16) * 3));
    let text = text.repeat(1 + usize::from(f / 16));
    let mut frame = zstd::bulk::compress(&text, i32::from(c % 4)).expect("zstd compresses anything");
    for [low, high, value] in damage.as_chunks::<3>().0 {
        let at = usize::from(u16::from_le_bytes([*low, *high])) % frame.len();
        frame[at] = *value;
    }
    hostile(probe, &frame.into(), within, text.len() as u32);
}

fn hostile(probe: &Probe, stored: &Bytes, within: u32, len: u32) {
    // Working memory lasts from one frame to the next, so what came before must make no difference.
    let mut used = Decoder::new();
    for codec in [Codec::Zstd, Codec::ZstdFrame, Codec::Raw] {
        let lens = [len, len % (CHUNK_MAX as u32 + 1), stored.len() as u32, 1];
        for (within, len) in lens.into_iter().flat_map(|len| [(within, len), (within % 4096, len), (0, len)]) {
            let chunk = probe.within(FRAME_MAX + 4096, || used.chunk(7, codec, stored, within, len));
            let fresh = Decoder::new().chunk(7, codec, stored, within, len);
            assert_eq!(chunk, fresh, "{codec:?} {within} {len}: what was decoded before made a difference");
            let Ok(chunk) = chunk else { continue };
            assert_eq!(chunk.len(), len as usize);
            let frame = used.decode(codec, stored, len as usize).expect("a chunk of it could be had");
            assert!(frame.len() <= if codec == Codec::ZstdFrame { FRAME_MAX } else { CHUNK_MAX });
            assert_eq!(chunk, frame[within as usize..][..len as usize]);
        }
    }
}

/// The input as chunks: three bytes say how long each is, how it is filled, and how often it comes.
pub(super) fn encode(_: &Probe, data: &[u8]) {
    let (mut chunks, mut rest, mut total) = (Vec::new(), data, 0);
    while let [a, b, order, tail @ ..] = rest {
        let len = 1 + (usize::from(u16::from_le_bytes([*a, *b])) << (order & 1));
        let (taken, after) = tail.split_at(len.min(tail.len()));
        rest = after;
        let times = 1 + usize::from(order >> 4);
        total += len * times;
        if total > 4 * FRAME_MAX {
            break;
        }
        // Text of its own, over and over; or numbers that rise, which no window finds twice.
        let chunk: Vec<u8> = match order & 2 {
            0 if !taken.is_empty() => taken.iter().copied().cycle().take(len).collect(),
            _ => (0..len as u32).flat_map(|n| n.wrapping_mul(0x9E37_79B9).to_be_bytes()).take(len).collect(),
        };
        chunks.extend(std::iter::repeat_n(Bytes::from(chunk), times));
    }
    let (mut encoder, mut decoder, mut left) = (Encoder::new(), Decoder::new(), chunks.as_slice());
    for (offset, frame) in encoder.encode(&chunks).into_iter().enumerate() {
        let shared = left.split_off(..frame.chunks).expect("a frame holds chunks that were given");
        let raw: usize = shared.iter().map(Bytes::len).sum();
        assert!(frame.stored.len() <= raw && raw <= if frame.chunks == 1 { CHUNK_MAX } else { FRAME_MAX });
        assert_eq!(frame.codec == Codec::ZstdFrame, frame.chunks > 1);
        let mut within = 0;
        for chunk in shared {
            let len = chunk.len() as u32;
            let back = decoder.chunk(offset as u64, frame.codec, &frame.stored, within, len);
            assert_eq!(back.expect("our own frame"), chunk);
            within += len;
        }
    }
    assert!(left.is_empty(), "the encoder left chunks out");
}
