//! The partition table, made right for this disk: the image's own is as long as the image. Backup at the disk's end,
//! fresh GUIDs, the seed in a partition of its own, and the root partition grown up to it.

use std::io;

use gptman::{GPT, GPTPartitionEntry};

use crate::format::disk_marker;
use crate::sys::disk::{Aligned, Disk};
use crate::sys::entropy;

/// Partitions begin and end on this many bytes.
const GRAIN: u64 = 1 << 20;
/// The name of the root partition: the one that grows.
pub const ROOT_NAME: &str = "root";
/// The name of the seed partition, and the label of the volume in it.
pub const SEED_NAME: &str = "CIDATA";

/// EFI system partition (C12A7328-F81F-11D2-BA4B-00A0C93EC93B), as it lies on disk.
const ESP_TYPE: [u8; 16] =
    [0x28, 0x73, 0x2a, 0xc1, 0x1f, 0xf8, 0xd2, 0x11, 0xba, 0x4b, 0x00, 0xa0, 0xc9, 0x3e, 0xc9, 0x3b];
/// Basic data (EBD0A0A2-B9E5-4433-87C0-68B6B72699C7), which a FAT volume is.
const DATA_TYPE: [u8; 16] =
    [0xa2, 0xa0, 0xd0, 0xeb, 0xe5, 0xb9, 0x33, 0x44, 0x87, 0xc0, 0x68, 0xb6, 0xb7, 0x26, 0x99, 0xc7];

/// The EFI system partition, as the firmware's boot entry names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SystemPartition {
    /// Its number in the table, from 1.
    pub number: u32,
    /// First sector.
    pub start: u64,
    /// Length in sectors.
    pub sectors: u64,
    /// Its GUID, as it lies on disk.
    pub guid: [u8; 16],
}

/// The new table, computed and not yet written.
pub struct Fixed {
    gpt: GPT,
    /// The EFI system partition, where the image has one.
    pub system: Option<SystemPartition>,
    /// Where the seed's bytes go, in bytes from the start of the disk.
    pub seed_offset: u64,
    seed_room: u64,
    /// Length of the root partition in bytes, where the image has one that could grow.
    pub root_bytes: Option<u64>,
}

/// Why the table cannot be made right.
#[derive(Debug, thiserror::Error)]
pub enum GptError {
    /// The image has none.
    #[error("the image has no usable GPT partition table in 512-byte sectors: build it with `cargo xtask image build`")]
    NoTable(#[source] gptman::Error),
    /// No room behind the last partition.
    #[error(
        "the disk is too small: the image's partitions end at byte {end}, the seed needs {seed} more and the disk has {disk}"
    )]
    NoRoom {
        /// Where the last partition ends.
        end: u64,
        /// The seed partition's length.
        seed: u64,
        /// The disk's length.
        disk: u64,
    },
    /// Writing failed.
    #[error("the partition table cannot be written")]
    Write(#[source] gptman::Error),
    /// The seed cannot be written.
    #[error("the seed partition cannot be written")]
    Seed(#[source] io::Error),
    /// What was written does not read back.
    #[error("the {0} reads back differently from what was written: the drive is failing; replace it")]
    ReadBack(&'static str),
}

/// A random GUID (version 4), as it lies on disk.
fn fresh_guid() -> [u8; 16] {
    let mut guid = [0; 16];
    entropy::fill(&mut guid);
    guid[7] = guid[7] & 0x0f | 0x40;
    guid[8] = guid[8] & 0x3f | 0x80;
    guid
}

/// Bytes that a disk must have for an image of `image` bytes and a seed of `seed`.
#[must_use]
pub fn room_for(image: u64, seed: u64) -> u64 {
    image.next_multiple_of(GRAIN) + seed.next_multiple_of(GRAIN) + 2 * GRAIN
}

/// Reads the image's table off the disk and computes the new one, for a seed of `seed_bytes`.
pub fn plan(disk: &Disk, seed_bytes: u64) -> Result<Fixed, GptError> {
    let sector = u64::from(disk.sector());
    let mut cursor = disk.cursor();
    let mut gpt = GPT::read_from(&mut cursor, sector).map_err(GptError::NoTable)?;
    gpt.header.update_from(&mut cursor, sector).map_err(GptError::NoTable)?;
    gpt.header.disk_guid = fresh_guid();
    for (_, entry) in gpt.iter_mut().filter(|(_, entry)| entry.is_used()) {
        entry.unique_partition_guid = fresh_guid();
    }
    let seed_room = seed_bytes.max(1).next_multiple_of(GRAIN);
    let usable_end = (gpt.header.last_usable_lba + 1) * sector;
    let marker = disk_marker::offset(disk.len()).unwrap_or_default();
    let seed_end = usable_end.min(marker) / GRAIN * GRAIN;
    let used = gpt.iter().filter(|(_, entry)| entry.is_used());
    let last = used.max_by_key(|(_, entry)| entry.starting_lba).map(|(number, entry)| (number, entry.ending_lba));
    let end = last.map_or(0, |(_, ending)| (ending + 1) * sector);
    let no_room = || GptError::NoRoom { end, seed: seed_room, disk: disk.len() };
    let seed_offset = seed_end.checked_sub(seed_room).filter(|offset| *offset >= end).ok_or_else(no_room)?;
    let root_bytes = last.and_then(|(number, _)| grow_root(&mut gpt, number, seed_offset / sector, sector));
    add_seed(&mut gpt, seed_offset / sector, seed_end / sector).ok_or_else(no_room)?;
    let system = system_partition(&gpt);
    Ok(Fixed { gpt, system, seed_offset, seed_room, root_bytes })
}

fn grow_root(gpt: &mut GPT, number: u32, up_to: u64, sector: u64) -> Option<u64> {
    let entry = &mut gpt[number];
    if entry.partition_name.as_str() != ROOT_NAME {
        return None;
    }
    entry.ending_lba = up_to - 1;
    Some((up_to - entry.starting_lba) * sector)
}

fn add_seed(gpt: &mut GPT, start: u64, end: u64) -> Option<()> {
    let free = gpt.iter().find(|(_, entry)| entry.is_unused()).map(|(number, _)| number)?;
    gpt[free] = GPTPartitionEntry {
        partition_type_guid: DATA_TYPE,
        unique_partition_guid: fresh_guid(),
        starting_lba: start,
        ending_lba: end - 1,
        attribute_bits: 0,
        partition_name: SEED_NAME.into(),
    };
    Some(())
}

fn system_partition(gpt: &GPT) -> Option<SystemPartition> {
    let (number, entry) = gpt.iter().find(|(_, entry)| entry.partition_type_guid == ESP_TYPE)?;
    Some(SystemPartition {
        number,
        start: entry.starting_lba,
        sectors: entry.ending_lba - entry.starting_lba + 1,
        guid: entry.unique_partition_guid,
    })
}

impl Fixed {
    /// What the disk's marker will know the table by ([`disk_marker::table_id`]).
    #[must_use]
    pub fn table_id(&self) -> String {
        let entries: Vec<GPTPartitionEntry> = self.gpt.iter().map(|(_, entry)| entry.clone()).collect();
        let sum = self.gpt.header.generate_partition_entry_array_crc32(&entries);
        format!("{}-{}", hex::encode(self.gpt.header.disk_guid), hex::encode(sum.to_le_bytes()))
    }

    /// Writes seed and table, and reads both back.
    pub fn write(&mut self, disk: &Disk, seed: &[u8]) -> Result<(), GptError> {
        let mut block = Aligned::zeroed(usize::try_from(self.seed_room).unwrap_or(seed.len()));
        block[..seed.len()].copy_from_slice(seed);
        disk.write_at(self.seed_offset, &block).and_then(|()| disk.sync()).map_err(GptError::Seed)?;
        let mut cursor = disk.cursor();
        GPT::write_protective_mbr_into(&mut cursor, self.gpt.sector_size).map_err(GptError::Write)?;
        self.gpt.write_into(&mut cursor).map_err(GptError::Write)?;
        disk.sync().map_err(GptError::Seed)?;
        self.check(disk, &block)
    }

    fn check(&self, disk: &Disk, seed: &[u8]) -> Result<(), GptError> {
        let mut back = Aligned::zeroed(seed.len());
        disk.read_at(self.seed_offset, &mut back).map_err(GptError::Seed)?;
        if *back != *seed {
            return Err(GptError::ReadBack("seed partition"));
        }
        let table = GPT::read_from(&mut disk.cursor(), self.gpt.sector_size).map_err(GptError::NoTable)?;
        let mut head = Aligned::zeroed(4096);
        disk.read_at(0, &mut head).map_err(GptError::Seed)?;
        let sector = usize::try_from(self.gpt.sector_size).unwrap_or(512);
        let on_disk = head.get(sector..).and_then(disk_marker::table_id);
        let same = table.iter().map(|(_, entry)| entry).eq(self.gpt.iter().map(|(_, entry)| entry));
        if !same || !table.is_primary() || on_disk != Some(self.table_id()) {
            return Err(GptError::ReadBack("partition table"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    //! A table made by sfdisk for a small image is made right for a large disk, as sfdisk sees it; a disk without room
    //! is refused.
    use std::io::Write as _;
    use std::process::{Command, Stdio};

    use super::*;
    use crate::sys::disk::Access;

    const MIB: u64 = 1 << 20;

    /// A sparse disk with an image's table at its beginning; `None`, aloud, where sfdisk is not installed.
    fn disk(image: u64, len: u64) -> Option<(tempfile::NamedTempFile, Disk)> {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(image).unwrap();
        let script = "label: gpt\nsize=8MiB, type=U, name=esp\ntype=L, name=root\n";
        let spawned = Command::new("sfdisk")
            .args(["--quiet", file.path().to_str().unwrap()])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn();
        let Ok(mut sfdisk) = spawned else {
            eprintln!("SKIPPED: sfdisk is not installed (apt-get install fdisk)");
            return None;
        };
        sfdisk.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
        assert!(sfdisk.wait().unwrap().success());
        file.as_file().set_len(len).unwrap();
        let disk = Disk::open(file.path(), Access::Write).unwrap();
        Some((file, disk))
    }

    fn sfdisk(args: &[&str], path: &std::path::Path) -> String {
        let output = Command::new("sfdisk").args(args).arg(path).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{text}");
        text
    }

    #[test]
    fn fits_the_table_to_the_disk() {
        let Some((file, disk)) = disk(64 * MIB, 300 * MIB) else { return };
        let before = GPT::read_from(&mut disk.cursor(), 512).unwrap();
        let seed: Vec<u8> = (0..300_000u32).map(|n| n as u8).collect();
        let mut fixed = plan(&disk, seed.len() as u64).unwrap();
        let id = fixed.table_id();
        fixed.write(&disk, &seed).unwrap();
        let verdict = sfdisk(&["--verify"], file.path());
        assert!(verdict.contains("No errors detected"), "{verdict}");
        let dump = sfdisk(&["--dump"], file.path());
        assert!(dump.contains("name=\"CIDATA\"") && dump.contains("name=\"root\""), "{dump}");
        let after = GPT::read_from(&mut disk.cursor(), 512).unwrap();
        assert_ne!(after.header.disk_guid, before.header.disk_guid);
        assert_eq!(after.header.backup_lba, 300 * MIB / 512 - 1);
        for number in 1..=2 {
            assert_ne!(after[number].unique_partition_guid, before[number].unique_partition_guid);
            assert_eq!(after[number].starting_lba, before[number].starting_lba);
        }
        assert_eq!(after[3].partition_name.as_str(), SEED_NAME);
        assert_eq!(after[2].ending_lba + 1, after[3].starting_lba);
        assert!((after[3].ending_lba + 1) * 512 <= disk_marker::offset(disk.len()).unwrap());
        assert_eq!(after[3].starting_lba * 512, fixed.seed_offset);
        assert_eq!(fixed.root_bytes, Some((after[2].ending_lba + 1 - after[2].starting_lba) * 512));
        let system = fixed.system.unwrap();
        assert_eq!((system.number, system.start, system.sectors), (1, after[1].starting_lba, 8 * MIB / 512));
        assert_eq!(system.guid, after[1].unique_partition_guid);
        let mut header = vec![0; 512];
        disk.read_at(512, &mut header).unwrap();
        assert_eq!(disk_marker::table_id(&header), Some(id));
    }

    #[test]
    fn refuses_a_disk_without_room_or_table() {
        let Some((_file, disk)) = disk(64 * MIB, 64 * MIB) else { return };
        assert!(matches!(plan(&disk, 1000), Err(GptError::NoRoom { .. })));
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(8 * MIB).unwrap();
        let disk = Disk::open(file.path(), Access::Write).unwrap();
        assert!(matches!(plan(&disk, 1000), Err(GptError::NoTable(_))));
        assert_eq!(room_for(64 * MIB, 1000), 67 * MIB);
    }
}
