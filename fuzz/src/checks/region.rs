//! What the appliance and its agent hand each other: an image's chunk list, the region of a boot image, the marker on a
//! disk; and the recipe by which a mount reads an object.

use bedplate::format::boot_region::{self, BootRegion};
use bedplate::format::chunk_list::ChunkList;
use bedplate::format::disk_marker::{self, DiskMarker};
use bedplate::format::recipe::Recipe;

use super::Probe;

pub(super) fn chunk_list(probe: &Probe, data: &[u8]) {
    // A chunk may follow itself millions of times, so the memory of a list has a bound of its own: here a small one.
    let most = data.len() / 8 + 64;
    probe.sealed(data, 64, |bytes| ChunkList::decode_at_most(bytes, most), ChunkList::encode);
}

pub(super) fn recipe(probe: &Probe, data: &[u8]) {
    let most = data.len() / 8 + 64;
    probe.sealed(data, 64, |bytes| Recipe::decode_at_most(bytes, most), Recipe::encode);
}

pub(super) fn boot_region(probe: &Probe, data: &[u8]) {
    for bytes in [data.to_vec(), with_header(boot_region::MAGIC, data)] {
        probe.round_trip(&bytes, 4, BootRegion::decode, |region| region.encode().expect("what was read fits").to_vec());
    }
}

pub(super) fn disk_marker(probe: &Probe, data: &[u8]) {
    for bytes in [data.to_vec(), with_header(b"bedplate-disk-01", data)] {
        probe.round_trip(&bytes, 16, DiskMarker::decode, |marker| match marker {
            Some(marker) => marker.encode().expect("what was read fits").to_vec(),
            None => vec![0; disk_marker::LENGTH],
        });
    }
    if let Some(id) = disk_marker::table_id(data) {
        assert_eq!(id.len(), 32 + 1 + 8);
    }
    if let Some(Ok(len)) = data.first_chunk().map(|bytes| usize::try_from(u64::from_le_bytes(*bytes))) {
        let len = len as u64;
        if let Some(at) = disk_marker::offset(len) {
            assert!(at.is_multiple_of(disk_marker::LENGTH as u64) && at + disk_marker::LENGTH as u64 <= len);
        }
    }
}

/// A region of the given magic whose text is `data` from byte 24 on, with the length and the checksum that belong to it.
fn with_header(magic: &[u8; 16], data: &[u8]) -> Vec<u8> {
    let text = data.get(24..).unwrap_or_default();
    let text = &text[..text.iter().rposition(|byte| *byte != 0).map_or(0, |at| at + 1)];
    let len = u32::try_from(text.len()).unwrap_or(u32::MAX);
    [&magic[..], &len.to_le_bytes(), &crc32c::crc32c(text).to_le_bytes(), text].concat()
}
