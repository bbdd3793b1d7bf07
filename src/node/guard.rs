//! The wipe guard: what a disk holds before it is written, and the marker by which the agent knows its own work again.

use std::io;

use crate::format::disk_marker::{self, DiskMarker};
use crate::format::order::Wipe;
use crate::sys::disk::{Aligned, Disk};

/// How much of either end of a disk is looked at, and wiped before a new image is written.
pub const EDGE: u64 = 1 << 20;

/// Known signatures: offset, bytes, what they mean.
const SIGNATURES: [(usize, &[u8], &str); 17] = [
    (512, b"EFI PART", "a GPT partition table"),
    (4096, b"EFI PART", "a GPT partition table (4 KiB sectors)"),
    (0, b"LUKS\xba\xbe", "an encrypted volume (LUKS)"),
    (0, b"XFSB", "an XFS file system"),
    (1024 + 56, b"\x53\xef", "an ext2, ext3 or ext4 file system"),
    (65_536 + 64, b"_BHRfS_M", "a btrfs file system"),
    (3, b"NTFS    ", "an NTFS file system"),
    (3, b"EXFAT   ", "an exFAT file system"),
    (512, b"LABELONE", "an LVM physical volume"),
    (4096, b"\xfc\x4e\x2b\xa9", "a member of a Linux RAID"),
    (0, b"\xfc\x4e\x2b\xa9", "a member of a Linux RAID"),
    (4086, b"SWAPSPACE2", "Linux swap space"),
    (32_769, b"CD001", "an ISO 9660 file system"),
    (1024, b"\x10\x20\xf5\xf2", "an F2FS file system"),
    (0, b"hsqs", "a squashfs file system"),
    (0, b"bluestore block device", "a Ceph OSD"),
    (510, b"\x55\xaa", "an MBR partition table or boot sector"),
];

/// What is on a disk, as far as the guard cares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// Both ends read as zeros.
    Blank,
    /// An image that the agent wrote, or was writing.
    Ours(DiskMarker),
    /// Something else; in words.
    Foreign(String),
}

/// The disk may not be written.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{disk} holds {what}, and the order allows only a blank disk or one that bedplate wrote: if that data may be lost, \
     write wipe = \"any\" under [install] in the spec; otherwise name another disk"
)]
pub struct Occupied {
    /// The disk in words.
    pub disk: String,
    /// What it holds.
    pub what: String,
}

/// Looks at both ends of the disk.
pub fn inspect(disk: &Disk) -> io::Result<Content> {
    let edge = usize::try_from(disk.len().min(EDGE)).unwrap_or(usize::MAX);
    let (mut head, mut tail) = (Aligned::zeroed(edge), Aligned::zeroed(edge));
    disk.read_at(0, &mut head)?;
    disk.read_at(disk.len() - edge as u64, &mut tail)?;
    let is_zero = |bytes: &[u8]| bytes.iter().all(|b| *b == 0);
    if let Some(marker) = read_marker(disk)? {
        let known = disk_marker::table_id(&head[512.min(edge)..]).is_some_and(|id| marker.tables.contains(&id));
        if known || (is_zero(&head) && !marker.finished) {
            return Ok(Content::Ours(marker));
        }
    }
    for (offset, bytes, meaning) in SIGNATURES {
        if head.get(offset..offset + bytes.len()) == Some(bytes) {
            return Ok(Content::Foreign(meaning.to_owned()));
        }
    }
    match (is_zero(&head), is_zero(&tail)) {
        (true, true) => Ok(Content::Blank),
        (false, _) => Ok(Content::Foreign("data of an unknown kind at its beginning".to_owned())),
        (true, false) => {
            Ok(Content::Foreign("data at its end (a backup partition table, or RAID metadata)".to_owned()))
        }
    }
}

/// Whether content may be written over.
pub fn admit(content: &Content, wipe: Wipe, disk: &str) -> Result<(), Occupied> {
    match content {
        Content::Foreign(what) if wipe == Wipe::Blank => Err(Occupied { disk: disk.to_owned(), what: what.clone() }),
        _ => Ok(()),
    }
}

/// The agent's marker; a damaged one counts as none.
pub fn read_marker(disk: &Disk) -> io::Result<Option<DiskMarker>> {
    let Some(offset) = disk_marker::offset(disk.len()) else { return Ok(None) };
    let mut block = Aligned::zeroed(disk_marker::LENGTH);
    disk.read_at(offset, &mut block)?;
    Ok(DiskMarker::decode(&block).unwrap_or_default())
}

/// Writes the marker and waits until it is on stable storage.
pub fn write_marker(disk: &Disk, marker: &DiskMarker) -> io::Result<()> {
    let too_small = || io::Error::new(io::ErrorKind::InvalidInput, "the disk has no room for the agent's marker");
    let offset = disk_marker::offset(disk.len()).ok_or_else(too_small)?;
    let mut block = Aligned::zeroed(disk_marker::LENGTH);
    block.copy_from_slice(&marker.encode().ok_or_else(too_small)?);
    disk.write_at(offset, &block)?;
    disk.sync()
}

/// Makes both ends of the disk blank, so that nothing on it can be taken for a whole system until the new image is.
pub fn wipe_edges(disk: &Disk) -> io::Result<()> {
    let edge = disk.len().min(EDGE);
    disk.zero(0, edge)?;
    disk.zero(disk.len() - edge, edge)?;
    disk.sync()
}

#[cfg(test)]
mod tests {
    //! Only blank disks and the agent's own pass under `blank`, and a marker vouches only for the table that it names.
    use std::os::unix::fs::FileExt;

    use super::*;
    use crate::model::Digest;
    use crate::sys::disk::Access;

    const LEN: u64 = 8 << 20;

    fn disk(fill: &[(u64, &[u8])]) -> (tempfile::NamedTempFile, Disk) {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(LEN).unwrap();
        for (at, bytes) in fill {
            file.as_file().write_all_at(bytes, *at).unwrap();
        }
        let disk = Disk::open(file.path(), Access::Write).unwrap();
        (file, disk)
    }

    #[test]
    fn guards() {
        for (fill, blank) in [
            (vec![], true),
            (vec![(EDGE + 5, &b"leftovers in the middle"[..])], true),
            (vec![(512, b"EFI PART")], false),
            (vec![(1024 + 56, b"\x53\xef")], false),
            (vec![(510, b"\x55\xaa")], false),
            (vec![(777, b"x")], false),
            (vec![(LEN - 512, b"EFI PART")], false),
        ] {
            let (_file, disk) = disk(&fill);
            let content = inspect(&disk).unwrap();
            assert_eq!(admit(&content, Wipe::Blank, "d").is_ok(), blank, "{fill:?}: {content:?}");
            assert!(admit(&content, Wipe::Any, "d").is_ok());
        }
        let (_file, disk) = disk(&[(512, b"EFI PART")]);
        let error = admit(&inspect(&disk).unwrap(), Wipe::Blank, "vda").unwrap_err().to_string();
        assert!(error.contains("GPT") && error.contains("wipe = \"any\""), "{error}");
        wipe_edges(&disk).unwrap();
        assert_eq!(inspect(&disk).unwrap(), Content::Blank);
    }

    #[test]
    fn knows_its_own_work() {
        let mut header = [0u8; 512];
        header[..8].copy_from_slice(b"EFI PART");
        header[56..72].fill(7);
        let table = disk_marker::table_id(&header).unwrap();
        let marker = |finished, tables: &[&String]| DiskMarker {
            image: "a@1".parse().unwrap(),
            root_digest: Digest([1; 32]),
            finished,
            tables: tables.iter().map(|t| (*t).clone()).collect(),
        };
        let other = "other".to_owned();
        for (marker, header, ours) in [
            (marker(true, &[&table]), &header[..], true),
            (marker(false, &[&other, &table]), &header, true),
            (marker(true, &[&other]), &header, false),
            (marker(false, &[]), &[0; 512], true),
            (marker(true, &[&table]), &[0; 512], false),
        ] {
            let (_file, disk) = disk(&[(512, header)]);
            write_marker(&disk, &marker).unwrap();
            let content = inspect(&disk).unwrap();
            assert_eq!(matches!(content, Content::Ours(_)), ours, "{marker:?} {content:?}");
        }
    }
}
