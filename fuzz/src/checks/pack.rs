//! Packs: the heads of groups while a pack is open; directory and footer once it is sealed.

use bedplate::format::pack::{Directory, Entry, FOOTER, Footer, GROUP_START, Group, MAGIC};
use bedplate::model::PackId;

use super::{Probe, with_checksum};

/// An entry takes little more room in memory than in the pack: 64 bytes for 56.
const FACTOR: usize = 4;

pub(super) fn footer(probe: &Probe, data: &[u8]) {
    for bytes in [Some(data.to_vec()), with_checksum(data)].into_iter().flatten() {
        // It has no encoder of its own; `directory` compares it with what a directory writes.
        let _ = probe.within(4096, || Footer::decode(&bytes));
    }
}

/// The input is the tail of a pack, or a whole one.
pub(super) fn directory(probe: &Probe, data: &[u8]) {
    let tail = if data.starts_with(MAGIC) { tail_of(data).unwrap_or(data) } else { data };
    for tail in [Some(tail.to_vec()), with_checksums(tail)].into_iter().flatten() {
        probe.round_trip(&tail, FACTOR, Directory::decode, Directory::encode);
        let (Ok(directory), Some(footer)) = (Directory::decode(&tail), tail.last_chunk::<FOOTER>()) else { continue };
        let footer = Footer::decode(footer).expect("a directory that decodes has a footer that does");
        assert_eq!(footer.directory_offset, directory.offset());
        assert_eq!(footer.raw_bytes, directory.raw_bytes());
        assert_eq!(footer.chunks as usize, directory.entries.len());
        assert_eq!(directory.encode(), tail, "a directory has one form only");
        frames_are_in_order(&directory.entries);
    }
}

/// The input is the head of a group, or a whole pack: then its groups are read as far as they go.
pub(super) fn group(probe: &Probe, data: &[u8]) {
    let (mut at, is_pack) = if data.starts_with(MAGIC) { (MAGIC.len(), true) } else { (0, false) };
    while let Some(end) = group_at(probe, &data[at.min(data.len())..], is_pack.then_some(at as u64)) {
        match usize::try_from(end) {
            Ok(end) if is_pack => at = end,
            _ => return,
        }
    }
}

/// Checks the head that `bytes` begin with; answers where its group ends. `offset` is where the head lies in its pack; where
/// that is not known, it lies where its first entry says.
fn group_at(probe: &Probe, bytes: &[u8], offset: Option<u64>) -> Option<u64> {
    let start = bytes.first_chunk::<GROUP_START>()?;
    let len = probe.within(0, || Group::peek(start))?;
    let head = bytes.get(..len)?;
    let pack = PackId(*start[16..].first_chunk::<16>()?);
    let said = u64::from_le_bytes(*head.get(GROUP_START + 32..)?.first_chunk()?).wrapping_sub(len as u64);
    let offset = offset.unwrap_or(said);
    for head in [Some(head.to_vec()), with_checksum(head)].into_iter().flatten() {
        let decode = |head: &[u8]| Group::decode(pack, offset, head);
        probe.round_trip(&head, FACTOR, decode, |group| group.encode(pack));
        let Ok(group) = decode(&head) else { continue };
        assert_eq!(group.encode(pack), head, "a group's head has one form only");
        assert_eq!(Group::head_len(group.entries.len()), len);
        assert!(Group::decode(pack, offset.wrapping_add(1), &head).is_err(), "a group knows where it lies");
        frames_are_in_order(&group.entries);
        // The frames fill the group: what a head says is all that lies between it and the next.
        let mut end = offset + len as u64;
        for (entry, before) in group.entries.iter().zip(std::iter::once(None).chain(group.entries.iter().map(Some))) {
            if before.is_none_or(|before| before.offset != entry.offset) {
                assert_eq!(entry.offset, end, "a gap in a group");
                end = entry.end();
            }
        }
        assert_eq!(group.end(), end);
        return Some(end);
    }
    None
}

/// Frames do not overlap, and what shares one lies in it one after the other.
fn frames_are_in_order(entries: &[Entry]) {
    for pair in entries.windows(2) {
        let [before, entry] = pair else { continue };
        if entry.offset == before.offset {
            assert_eq!((entry.stored_len, entry.codec), (before.stored_len, before.codec));
            assert_eq!(entry.within, before.within + before.raw_len);
        } else {
            assert!(entry.offset >= before.end(), "{before:?} overlaps {entry:?}");
            assert_eq!(entry.within, 0);
        }
    }
}

/// The tail of a whole pack, from where its footer says that the directory begins.
fn tail_of(pack: &[u8]) -> Option<&[u8]> {
    let (_, footer) = pack.split_last_chunk::<FOOTER>()?;
    pack.get(usize::try_from(u64::from_le_bytes(*footer.first_chunk()?)).ok()?..)
}

/// The tail of a pack with the directory's and the footer's checksum set right.
fn with_checksums(data: &[u8]) -> Option<Vec<u8>> {
    let (directory, footer) = data.split_last_chunk::<FOOTER>()?;
    Some([with_checksum(directory)?, with_checksum(footer)?].concat())
}
