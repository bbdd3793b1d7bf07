//! A disk image: GPT with an EFI system partition that holds the kernel, and a root file system as its last partition.
//! Made without loop devices and without mounting; the same content gives the same bytes.

use std::fs::File;
use std::io::{Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::iso::guid;
use super::recipe::Disk;
use super::{ext4, fat, rootfs, uki};

const MIB: u64 = 1 << 20;
const SECTOR: u64 = 512;
/// GPT type of an EFI system partition.
const TYPE_ESP: [u8; 16] = *b"\x28\x73\x2a\xc1\x1f\xf8\xd2\x11\xba\x4b\x00\xa0\xc9\x3e\xc9\x3b";
/// GPT type of a Linux file system.
const TYPE_LINUX: [u8; 16] = *b"\xaf\x3d\xc6\x0f\x83\x84\x72\x47\x8e\x79\x3d\x69\xd8\x47\x7d\xe4";

/// Builds `OUT/disk.img`; returns it and the kernel's release.
pub fn build(recipe: &Disk, out: &Path) -> Result<(PathBuf, String)> {
    let system = rootfs::build(recipe, out)?;
    let program = uki::build(&system.os_release, &recipe.cmdline, &system.kernel, &system.initramfs)?;
    let esp = fat::volume("ESP", &program, recipe.esp_mib * MIB)?;
    let root = out.join("root.ext4");
    ext4::make(&system.tree, &recipe.name, recipe.root_mib, &root)?;
    let file = out.join("disk.img");
    let partial = out.join("disk.partial.img");
    let mut disk = File::options().read(true).write(true).create(true).truncate(true).open(&partial)?;
    disk.set_len((1 + recipe.esp_mib + recipe.root_mib + 1) * MIB)?;
    partition(recipe, &mut disk)?;
    copy_sparse(&mut &esp[..], &mut disk, MIB)?;
    copy_sparse(&mut File::open(&root)?, &mut disk, (1 + recipe.esp_mib) * MIB)?;
    disk.sync_all()?;
    std::fs::rename(&partial, &file)?;
    std::fs::remove_file(&root)?;
    std::fs::remove_dir_all(&system.tree)?;
    println!("  kernel {:.1} MiB, initramfs {:.1} MiB", mib(&system.kernel), mib(&system.initramfs));
    Ok((file, system.release))
}

fn partition(recipe: &Disk, disk: &mut File) -> Result<()> {
    let image = format!("{}@{}", recipe.name, recipe.version);
    let mut table =
        gptman::GPT::new_from(disk, SECTOR, guid(&image, "disk")).context("cannot make a partition table")?;
    let sectors = MIB / SECTOR;
    let mut start = sectors;
    for (number, name, kind, mib) in [(1, "ESP", TYPE_ESP, recipe.esp_mib), (2, "root", TYPE_LINUX, recipe.root_mib)] {
        table[number] = gptman::GPTPartitionEntry {
            partition_type_guid: kind,
            unique_partition_guid: guid(&image, name),
            starting_lba: start,
            ending_lba: start + mib * sectors - 1,
            attribute_bits: 0,
            partition_name: name.into(),
        };
        start += mib * sectors;
    }
    gptman::GPT::write_protective_mbr_into(disk, SECTOR).context("cannot write the protective MBR")?;
    table.write_into(disk).context("cannot write the partition table")?;
    Ok(())
}

/// Copies `from` to `at`, leaving out blocks of zeros.
fn copy_sparse(from: &mut dyn std::io::Read, to: &mut File, at: u64) -> Result<()> {
    let mut block = vec![0; 64 << 10];
    let mut at = at;
    loop {
        let mut count = 0;
        while count < block.len() {
            match from.read(&mut block[count..])? {
                0 => break,
                more => count += more,
            }
        }
        if count == 0 {
            return Ok(());
        }
        if block[..count].iter().any(|byte| *byte != 0) {
            to.seek(SeekFrom::Start(at))?;
            to.write_all(&block[..count])?;
        }
        at += count as u64;
    }
}

fn mib(bytes: &[u8]) -> f64 {
    bytes.len() as f64 / MIB as f64
}
