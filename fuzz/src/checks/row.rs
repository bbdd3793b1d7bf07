//! The store's rows, and the manifest that some of them carry.

use bedplate::format::damage::{self, DamageRow};
use bedplate::format::field::{Damaged, Reader, Writer};
use bedplate::format::manifest::{self, Term};
use bedplate::format::row::{self, BucketRow, ObjectRow, PackRow, PartRow, SnapshotRow, UploadRow};

use super::Probe;

/// A term is 40 bytes in memory and 4 at least in a row, and a vector grows by doubling; a header is two strings in a
/// tree's node.
const FACTOR: usize = 64;

pub(super) fn bucket(probe: &Probe, data: &[u8]) {
    probe.sealed(data, FACTOR, BucketRow::decode, |row| row.encode().to_vec());
}

pub(super) fn object(probe: &Probe, data: &[u8]) {
    probe.sealed(data, FACTOR, ObjectRow::decode, |row| row.encode().to_vec());
}

pub(super) fn snapshot(probe: &Probe, data: &[u8]) {
    probe.sealed(data, FACTOR, SnapshotRow::decode, |row| row.encode().to_vec());
}

pub(super) fn pack(probe: &Probe, data: &[u8]) {
    probe.sealed(data, FACTOR, PackRow::decode, |row| row.encode().to_vec());
}

pub(super) fn upload(probe: &Probe, data: &[u8]) {
    probe.sealed(data, FACTOR, UploadRow::decode, |row| row.encode().to_vec());
}

pub(super) fn part(probe: &Probe, data: &[u8]) {
    probe.sealed(data, FACTOR, PartRow::decode, |row| row.encode().to_vec());
}

pub(super) fn index(probe: &Probe, data: &[u8]) {
    probe.sealed(data, FACTOR, row::decode_location, |at| row::encode_location(*at).to_vec());
}

pub(super) fn epoch(probe: &Probe, data: &[u8]) {
    probe.sealed(data, FACTOR, |bytes| row::decode_epoch(Some(bytes)), |epoch| row::encode_epoch(*epoch).to_vec());
}

/// A damage row, and the place in its key.
pub(super) fn damage(probe: &Probe, data: &[u8]) {
    probe.sealed(data, FACTOR, DamageRow::decode, |row| row.encode().to_vec());
    if let Ok(at) = damage::place(data) {
        assert_eq!(damage::key(at), data);
    }
}

pub(super) fn manifest_row(probe: &Probe, data: &[u8]) {
    probe.sealed(data, FACTOR, row::decode_terms, |(terms, _)| row::encode_terms(terms).to_vec());
}

/// A manifest alone; and its terms, put together anew one by one, still name the same chunks in the same order.
pub(super) fn manifest(probe: &Probe, data: &[u8]) {
    let read = |bytes: &[u8]| -> Result<(Vec<Term>, u64), Damaged> {
        let mut reader = Reader::new("manifest", bytes);
        let terms = manifest::read(&mut reader)?;
        reader.end().map(|()| terms)
    };
    probe.round_trip(data, FACTOR, read, |(terms, _)| {
        let mut out = Writer::default();
        manifest::write(&mut out, terms);
        out.take()
    });
    let Ok((terms, total)) = read(data) else { return };
    let mut merged = Vec::new();
    for term in &terms {
        manifest::push_term(&mut merged, *term);
    }
    assert!(merged.len() <= terms.len());
    assert_eq!(merged.iter().map(|term| term.bytes).sum::<u64>(), total);
    // A repeat may stand for billions of chunks, so only so many of them are looked at.
    let chunks = |terms: &[Term]| -> Vec<_> {
        terms.iter().flat_map(|term| term.sequence().map(|chunk| (term.pack, chunk))).take(10_000).collect()
    };
    assert_eq!(chunks(&merged), chunks(&terms));
    for term in &merged {
        assert!(term.sequence().take(10_000).all(|chunk| term.chunks().contains(&chunk)), "{term:?}");
    }
}
