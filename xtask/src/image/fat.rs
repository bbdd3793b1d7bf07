//! An EFI system partition: a FAT volume that holds one program, where firmware looks for it.

use std::io::Cursor;

use anyhow::{Context as _, Result, ensure};
use hadris_fat::format::{FatFormatOptions, FatVolumeFormatter};
use hadris_fat::time::{FatDateTime, TimeProvider};
use hadris_fat::{FatVolumeBuilder, FatVolumeWriteExt as _};

/// Every file is of the same day, so that the same content gives the same bytes.
#[derive(Debug)]
struct NoClock;

impl TimeProvider for NoClock {
    fn now(&self) -> FatDateTime {
        FatDateTime::EPOCH
    }
}

static NO_CLOCK: NoClock = NoClock;

/// A volume of `bytes` bytes with `program` as `EFI/BOOT/BOOTX64.EFI`.
pub fn volume(label: &str, program: &[u8], bytes: u64) -> Result<Vec<u8>> {
    let mut disk = vec![0; usize::try_from(bytes)?];
    let id = u32::from_le_bytes([program[0], program[1], label.as_bytes()[0], 0xb9]);
    let options = FatFormatOptions::new(bytes).volume_label(label).volume_id(id);
    drop(FatVolumeFormatter::format(Cursor::new(&mut disk[..]), options).context("cannot make the FAT volume")?);
    let volume = FatVolumeBuilder::new(Cursor::new(&mut disk[..])).time_provider(&NO_CLOCK).open()?;
    let efi = volume.create_dir(&volume.root_dir(), "EFI")?;
    let boot = volume.create_dir(&efi, "BOOT")?;
    let file = volume.create_file(&boot, "BOOTX64.EFI")?;
    let mut writer = volume.write_file(&file)?;
    let mut rest = program;
    while !rest.is_empty() {
        let count = writer.write(rest).context("the program does not fit its partition")?;
        ensure!(count > 0, "the program does not fit its partition");
        rest = &rest[count..];
    }
    writer.finish()?;
    drop(volume);
    Ok(disk)
}
