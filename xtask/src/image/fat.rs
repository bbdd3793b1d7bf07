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
    undate_label(&mut disk, label)?;
    Ok(disk)
}

/// Formatting dates the label's entry by the clock: sets it to the day of all others.
fn undate_label(disk: &mut [u8], label: &str) -> Result<()> {
    const VOLUME_LABEL: u8 = 0x08;
    let name = format!("{label:11}");
    let entry = disk
        .chunks_exact_mut(32)
        .find(|entry| &entry[..11] == name.as_bytes() && entry[11] == VOLUME_LABEL)
        .context("the FAT volume has no label")?;
    let (date, time, tenth) = FatDateTime::EPOCH.to_raw();
    entry[13] = tenth;
    for (at, value) in [(14, time), (16, date), (18, date), (22, time), (24, date)] {
        entry[at..at + 2].copy_from_slice(&value.to_le_bytes());
    }
    Ok(())
}
