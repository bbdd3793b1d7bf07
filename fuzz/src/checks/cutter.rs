//! The cutter: where it cuts depends on the bytes alone, and is where docs/format.md says.

use bedplate::format::cut::{Cutter, ends_chunk};
use bedplate::model::limit::{CHUNK_MAX, CHUNK_MIN};

use super::Probe;

/// A script makes no more bytes than this, so that one input costs milliseconds.
const DATA_MAX: usize = 512 * 1024;
const MASK: u64 = 0xFFFF_0000_0000_0000;
const WINDOW: usize = 64;
/// What SplitMix64 makes of this seed in 64 bytes ends a chunk wherever it is seen.
const HIT: u64 = 20_400;

pub(super) fn cut(probe: &Probe, script: &[u8]) {
    let (data, pieces) = play(script);
    let mut cutter = Cutter::new();
    let whole = lengths(probe, &mut cutter, &data, &[]);
    // The same cutter once more: what it saw of the open chunk must be forgotten.
    cutter.restart();
    assert_eq!(lengths(probe, &mut cutter, &data, &pieces), whole, "the pieces made a difference");
    assert_eq!(as_specified(&data), whole, "the specification says otherwise");
    assert_eq!(whole.iter().sum::<usize>(), data.len());
    let mut rest = data.as_slice();
    for length in &whole {
        let chunk = rest.split_off(..*length).expect("the chunks add up to the data");
        let is_last = rest.is_empty();
        assert!((1..=CHUNK_MAX).contains(length) && (is_last || *length >= CHUNK_MIN), "{whole:?}");
        // What is left at the end may end like a chunk, or just end.
        assert!(is_last || ends_chunk(chunk), "a chunk of {length} bytes has no end of its own");
        assert!(!ends_chunk(&chunk[..length - 1]), "a chunk of {length} bytes ends before its last byte");
    }
}

/// Bytes out of a script, and the places at which they are torn. A cut falls once in 65,536 bytes of noise, so a mutator
/// of plain bytes would hardly ever meet one; a script meets them at every distance.
fn play(script: &[u8]) -> (Vec<u8>, Vec<usize>) {
    let (mut data, mut tears) = (Vec::new(), Vec::new());
    let mut rest = script;
    while let [order, a, b, tail @ ..] = rest {
        rest = tail;
        let number = usize::from(u16::from_le_bytes([*a, *b]));
        match order % 8 {
            0 => data.resize(data.len() + number * 4, 0),
            1 => data.extend(noise(u64::from(*order / 8), number)),
            2 => data.extend(noise(HIT, WINDOW)),
            // A hit that ends close to the shortest chunk after the one before.
            3 => {
                data.resize(data.len() + CHUNK_MIN - WINDOW - 128 + number % 256, 0x41);
                data.extend(noise(HIT, WINDOW));
            }
            4 => {
                let (literal, after) = rest.split_at(number.min(rest.len()));
                data.extend_from_slice(literal);
                rest = after;
            }
            5 => data.resize(data.len() + number, *order),
            _ => tears.push(data.len().saturating_sub(number % 512)),
        }
        if data.len() > DATA_MAX {
            data.truncate(DATA_MAX);
            break;
        }
    }
    tears.sort_unstable();
    (data, tears)
}

/// SplitMix64.
fn noise(seed: u64, len: usize) -> Vec<u8> {
    let (mut bytes, mut state) = (Vec::with_capacity(len + 8), seed);
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

/// Lengths of the chunks of `data`, which comes in the pieces that `tears` make of it.
fn lengths(probe: &Probe, cutter: &mut Cutter, data: &[u8], tears: &[usize]) -> Vec<usize> {
    let (mut lengths, mut open, mut from) = (Vec::new(), 0, 0);
    for tear in tears.iter().copied().chain([data.len()]) {
        while from < tear {
            let piece = &data[from..tear];
            // No byte is kept: what a cutter holds does not grow with what it has seen.
            match probe.within(0, || cutter.next_cut(piece)) {
                Some(n) => {
                    assert!((1..=piece.len()).contains(&n), "a cut after {n} of {} bytes", piece.len());
                    lengths.push(open + n);
                    (open, from) = (0, from + n);
                }
                None => (open, from) = (open + piece.len(), tear),
            }
        }
    }
    lengths.extend(Some(open).filter(|open| *open > 0));
    lengths
}

/// The same, byte by byte, as docs/format.md says it.
fn as_specified(data: &[u8]) -> Vec<usize> {
    let (mut lengths, mut length, mut hash) = (Vec::new(), 0, 0u64);
    for byte in data {
        if length >= CHUNK_MIN - WINDOW - 1 {
            hash = (hash << 1).wrapping_add(gearhash::DEFAULT_TABLE[usize::from(*byte)]);
        }
        length += 1;
        if length == CHUNK_MAX || (length >= CHUNK_MIN && hash & MASK == 0) {
            lengths.push(length);
            (length, hash) = (0, 0);
        }
    }
    lengths.extend(Some(length).filter(|length| *length > 0));
    lengths
}
