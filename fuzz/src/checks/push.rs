//! A push, which arrives in pieces of any length.

use bedplate::format::known::{decode_bits, decode_digests, encode_digests};
use bedplate::format::pieces::{Signature, pieces};
use bedplate::format::push::{PushReader, Record, begin};

use super::Probe;

/// Memory besides the input and what its records hold.
const SLACK: usize = 64 * 1024;

fn read(data: &[u8], piece: usize) -> (Vec<Record>, bool) {
    let (mut reader, mut records) = (PushReader::new(), Vec::new());
    for piece in data.chunks(piece) {
        reader.give(piece);
        loop {
            match reader.record() {
                Ok(Some(record)) => records.push(record),
                Ok(None) => break,
                Err(_) => return (records, false),
            }
        }
    }
    let whole = reader.finish().is_ok();
    (records, whole)
}

pub(super) fn push(probe: &Probe, data: &[u8]) {
    for bytes in [data.to_vec(), [b"bedplate-push-01", data].concat()] {
        let (records, whole) = probe.within(48 * bytes.len() + SLACK, || read(&bytes, bytes.len().max(1)));
        assert_eq!(read(&bytes, 7), (records.clone(), whole), "how it arrives matters");
        if whole {
            let mut out = begin();
            records.iter().for_each(|record| record.encode(&mut out));
            assert_eq!(read(&out.take(), 4096), (records, true));
        }
    }
    for bytes in [data.to_vec(), [b"bedplate-dgst-01", data].concat()] {
        if let Ok(digests) = probe.within(4 * bytes.len() + SLACK, || decode_digests(&bytes)) {
            assert_eq!(encode_digests(&digests), bytes);
        }
    }
    for bytes in [data.to_vec(), [b"bedplate-sign-01", data].concat()] {
        probe.sealed(&bytes, 16, Signature::decode, Signature::encode);
    }
    let cut: Vec<u8> = pieces(data).flat_map(|(_, piece)| piece.to_vec()).collect();
    assert_eq!(cut, data);
    drop(decode_bits(data, data.len() * 8));
}
