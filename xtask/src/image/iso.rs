//! The boot ISO: an EFI system partition as a file of an ISO 9660 tree, started by El Torito from a CD and by its GPT
//! from a USB stick, with an empty boot region in the system area.

use std::io::Cursor;
use std::num::NonZeroU16;
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use hadris_iso::boot::EmulationType;
use hadris_iso::boot::options::{BootEntryOptions, BootOptions};
use hadris_iso::read::PathSeparator;
use hadris_iso::write::options::{BaseIsoLevel, CreationFeatures, HybridBootOptions, IsoFormatOptions};
use hadris_iso::write::{File, InputFiles, IsoImageWriter};

const SECTOR: usize = 2048;
const ESP: &str = "efi.img";
/// The boot region (docs/format.md): where it begins, how long it is, and what an empty one begins with.
const REGION: (usize, usize, &[u8; 16]) = (24 * 1024, 8 * 1024, b"bedplate-boot-01");

/// Builds the ISO around the FAT volume `esp`.
pub fn build(volume: &str, esp: Vec<u8>) -> Result<Vec<u8>> {
    let files = InputFiles {
        path_separator: PathSeparator::ForwardSlash,
        files: vec![File::File { name: Arc::new(ESP.to_owned()), contents: esp }],
    };
    let disk =
        IsoImageWriter::create(Cursor::new(Vec::new()), files, options(volume)).context("cannot make the ISO")?;
    let mut iso = disk.into_inner();
    fix_times(&mut iso)?;
    declare_efi(&mut iso)?;
    fix_guids(&mut iso, volume)?;
    let (at, length, magic) = REGION;
    ensure!(iso[at..at + length].iter().all(|byte| *byte == 0), "something lies where the boot region goes");
    iso[at..at + magic.len()].copy_from_slice(magic);
    Ok(iso)
}

fn options(volume: &str) -> IsoFormatOptions {
    let entry = BootEntryOptions {
        boot_image_path: ESP.to_owned(),
        // A 16-bit count of 512-byte sectors cannot say how long the partition is. One sector makes firmware take the
        // length from the volume; 0 does so too, but not on all of it.
        load_size: NonZeroU16::new(1),
        boot_info_table: false,
        grub2_boot_info: false,
        emulation: EmulationType::NoEmulation,
    };
    IsoFormatOptions {
        volume_name: volume.to_uppercase(),
        system_id: None,
        volume_set_id: None,
        publisher_id: None,
        preparer_id: None,
        application_id: None,
        sector_size: SECTOR,
        path_separator: PathSeparator::ForwardSlash,
        features: CreationFeatures {
            filenames: BaseIsoLevel::Level1 { supports_lowercase: false, supports_rrip: false },
            long_filenames: false,
            joliet: None,
            rock_ridge: None,
            el_torito: Some(BootOptions { write_boot_catalog: true, default: entry, entries: Vec::new() }),
            hybrid_boot: Some(HybridBootOptions::gpt().with_efi_boot_partition(ESP)),
        },
        strict_charset: false,
    }
}

/// Sets every date to 1980-01-01, in the volume descriptor and in the root folder.
fn fix_times(iso: &mut [u8]) -> Result<()> {
    const SHORT: [u8; 7] = [80, 1, 1, 0, 0, 0, 0];
    let descriptor = 16 * SECTOR;
    ensure!(&iso[descriptor + 1..descriptor + 6] == b"CD001", "the ISO has no volume descriptor");
    for at in [813, 830] {
        iso[descriptor + at..descriptor + at + 17].copy_from_slice(b"1980010100000000\0");
    }
    for at in [847, 864] {
        iso[descriptor + at..descriptor + at + 17].copy_from_slice(b"0000000000000000\0");
    }
    iso[descriptor + 174..descriptor + 181].copy_from_slice(&SHORT);
    let number = |at: usize| u32::from_le_bytes([iso[at], iso[at + 1], iso[at + 2], iso[at + 3]]) as usize;
    let root = number(descriptor + 158) * SECTOR;
    let end = root + number(descriptor + 166);
    let mut at = root;
    while at < end && iso[at] > 0 {
        iso[at + 18..at + 25].copy_from_slice(&SHORT);
        at += usize::from(iso[at]);
    }
    Ok(())
}

/// Marks the boot catalogue as UEFI's: a BIOS must not start what it cannot run.
fn declare_efi(iso: &mut [u8]) -> Result<()> {
    let record = 17 * SECTOR;
    ensure!(&iso[record + 7..record + 30] == b"EL TORITO SPECIFICATION", "the ISO has no boot record");
    let at = record + 71;
    let catalogue = u32::from_le_bytes([iso[at], iso[at + 1], iso[at + 2], iso[at + 3]]) as usize * SECTOR;
    ensure!(iso[catalogue] == 1, "the ISO has no boot catalogue");
    iso[catalogue + 1] = 0xef;
    iso[catalogue + 28..catalogue + 30].fill(0);
    let sum = iso[catalogue..catalogue + 32]
        .chunks_exact(2)
        .fold(0_u16, |sum, pair| sum.wrapping_add(u16::from_le_bytes([pair[0], pair[1]])));
    iso[catalogue + 28..catalogue + 30].copy_from_slice(&sum.wrapping_neg().to_le_bytes());
    Ok(())
}

/// Replaces the partition table's random GUIDs by ones that follow from the volume's name.
fn fix_guids(iso: &mut [u8], volume: &str) -> Result<()> {
    let mut disk = Cursor::new(&mut *iso);
    let mut table = gptman::GPT::read_from(&mut disk, 512).context("the ISO has no partition table")?;
    table.header.disk_guid = guid(volume, "disk");
    for (number, partition) in table.iter_mut().filter(|(_, partition)| partition.is_used()) {
        partition.unique_partition_guid = guid(volume, &format!("partition {number}"));
    }
    table.write_into(&mut disk).context("cannot write the ISO's partition table")?;
    Ok(())
}

/// A GUID, in the order in which a GPT stores it, that follows from what it is for.
pub fn guid(image: &str, role: &str) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&blake3::hash(format!("bedplate image {image} {role}").as_bytes()).as_bytes()[..16]);
    bytes[7] = bytes[7] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    bytes
}
