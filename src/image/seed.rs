//! The seed volume: a small FAT file system labelled `CIDATA`, made for one node of one job. cloud-init's NoCloud data
//! source reads all its files but one where the image has cloud-init; `bedplate-agent report` reads that one, `bedplate.json`.
//!
//! What bedplate has to say to cloud-init stands in `user-data` where the spec gives none, and else in `vendor-data`, which
//! cloud-init reads first and lets user data overrule.
//!
//! The same job and node give the same bytes, so a step that is done twice writes nothing new.

use std::io::Cursor;

use hadris_fat::format::{FatFormatOptions, FatTypeSelection, FatVolumeFormatter};
use hadris_fat::time::EpochTimeProvider;
use hadris_fat::{FatVolumeBuilder, FatVolumeWriteExt};

use crate::format::order::Seed;
use crate::model::Secret;

/// Size of the volume in bytes: room for some hundred KiB of user data, and quick to write.
pub const SEED_BYTES: usize = 1024 * 1024;
/// The label that cloud-init and the agent look for.
pub const SEED_LABEL: &str = "CIDATA";

const SECTOR: usize = 512;
/// 1980-01-01 as FAT writes a date: day 1, month 1, year 0.
const FAT_EPOCH_DATE: [u8; 2] = 0x0021_u16.to_le_bytes();

static CLOCK: EpochTimeProvider = EpochTimeProvider;

/// The seed volume could not be made.
#[derive(Debug, thiserror::Error)]
pub enum SeedError {
    /// The FAT file system could not be laid out.
    #[error("the seed volume of node {node} cannot be written; its files may not fit into {SEED_BYTES} bytes")]
    Volume {
        /// The node's name.
        node: String,
        /// What the file system said.
        source: hadris_fat::Error,
    },
    /// The seed cannot be written as JSON.
    #[error("the seed of node {node} cannot be written as JSON")]
    Json {
        /// The node's name.
        node: String,
        /// What the encoder said.
        source: serde_json::Error,
    },
}

/// The volume's bytes for node `seed.node` of job `job` (32 hexadecimal digits), with the user data that the spec gives it.
///
/// Fails when the files do not fit.
pub fn volume(job: &str, seed: &Seed, user_data: Option<&Secret>) -> Result<Vec<u8>, SeedError> {
    let json =
        serde_json::to_vec_pretty(seed).map_err(|source| SeedError::Json { node: seed.node.to_string(), source })?;
    let (ours, given) = (cloud_config(seed), user_data.map(Secret::reveal));
    let mut files = vec![
        ("meta-data", meta_data(job, seed).into_bytes()),
        ("user-data", given.unwrap_or(&ours).as_bytes().to_vec()),
        ("network-config", NETWORK_CONFIG.as_bytes().to_vec()),
        ("bedplate.json", json),
    ];
    if given.is_some() {
        files.push(("vendor-data", ours.into_bytes()));
    }
    fat(volume_id(job, seed), &files).map_err(|source| SeedError::Volume { node: seed.node.to_string(), source })
}

/// cloud-init runs its first-boot work whenever the instance id is one that it has not seen: one per installation.
fn meta_data(job: &str, seed: &Seed) -> String {
    format!("instance-id: bedplate-{job}-{node}\nlocal-hostname: {node}\n", node = seed.node)
}

/// The image grows its own root file system, so cloud-init must not.
fn cloud_config(seed: &Seed) -> String {
    format!(
        "#cloud-config\nhostname: {node}\npreserve_hostname: false\nmanage_etc_hosts: true\ngrowpart:\n  mode: 'off'\nresize_rootfs: false\n",
        node = seed.node
    )
}

/// Every wired port asks for an address, and none holds up the boot.
const NETWORK_CONFIG: &str = "version: 2\nethernets:\n  wired:\n    match:\n      name: \"e*\"\n    dhcp4: true\n    dhcp6: false\n    optional: true\n";

fn volume_id(job: &str, seed: &Seed) -> u32 {
    crc32c::crc32c(format!("{job}/{}", seed.node).as_bytes())
}

fn fat(id: u32, files: &[(&str, Vec<u8>)]) -> hadris_fat::Result<Vec<u8>> {
    let mut bytes = vec![0_u8; SEED_BYTES];
    let options = FatFormatOptions::new(SEED_BYTES as u64)
        .fat_type(FatTypeSelection::Fat12)
        .volume_label(SEED_LABEL)
        .volume_id(id);
    let params = FatVolumeFormatter::calculate_params(&options)?;
    let label_entry = SECTOR
        * (usize::from(params.reserved_sectors) + usize::from(params.fat_count) * params.sectors_per_fat as usize);
    drop(FatVolumeFormatter::format(Cursor::new(&mut bytes[..]), options)?);
    let volume = FatVolumeBuilder::new(Cursor::new(&mut bytes[..])).time_provider(&CLOCK).open()?;
    for (name, content) in files {
        let entry = volume.create_file(&volume.root_dir(), name)?;
        let mut writer = volume.write_file(&entry)?;
        let mut rest = content.as_slice();
        while !rest.is_empty() {
            let written = writer.write(rest)?;
            rest = &rest[written..];
        }
        writer.finish()?;
    }
    drop(volume);
    reset_label_times(&mut bytes[label_entry..label_entry + 32]);
    Ok(bytes)
}

/// The formatter stamps the label's directory entry with the wall clock, which would make every volume different.
fn reset_label_times(entry: &mut [u8]) {
    entry[13..16].fill(0);
    entry[16..18].copy_from_slice(&FAT_EPOCH_DATE);
    entry[18..20].copy_from_slice(&FAT_EPOCH_DATE);
    entry[22..24].fill(0);
    entry[24..26].copy_from_slice(&FAT_EPOCH_DATE);
}

#[cfg(test)]
mod tests {
    //! The volume is sound to programs that others wrote (fsck.vfat, mtools, where installed), holds what the node needs,
    //! and is the same bytes each time.
    use std::process::Command;

    use super::*;

    const JOB: &str = "0123456789abcdef0123456789abcdef";

    fn seed() -> Seed {
        Seed {
            url: "https://10.99.0.1:9100".into(),
            certificate_pin: "ab".repeat(32),
            token: "t".repeat(43),
            node: "node-1".parse().unwrap(),
        }
    }

    fn installed(program: &str) -> bool {
        let found = Command::new(program).arg("--help").output().is_ok();
        if !found {
            println!("SKIPPED: {program} is not installed");
        }
        found
    }

    #[test]
    fn same_bytes_each_time_and_different_per_job() {
        let once = volume(JOB, &seed(), None).unwrap();
        assert_eq!(once.len(), SEED_BYTES);
        assert_eq!(once, volume(JOB, &seed(), None).unwrap());
        assert_ne!(once, volume(&JOB.replace('0', "9"), &seed(), None).unwrap());
        let label = once.windows(11).rposition(|window| window == b"CIDATA     ").unwrap();
        let entry = &once[label..label + 32];
        assert_eq!(entry[11], 0x08, "the label's entry is where its times were reset");
        assert_eq!(&entry[13..26], &[0, 0, 0, 0x21, 0, 0x21, 0, 0, 0, 0, 0, 0x21, 0]);
    }

    #[test]
    fn reads_back() {
        let json = file(&volume(JOB, &seed(), None).unwrap(), "bedplate.json").unwrap();
        assert_eq!(serde_json::from_slice::<Seed>(&json).unwrap(), seed());
    }

    fn file(volume: &[u8], name: &str) -> Option<Vec<u8>> {
        use hadris_fat::FatVolumeReadExt;
        let volume = FatVolumeBuilder::new(Cursor::new(volume)).open().unwrap();
        let entry = volume.root_dir().find(name).unwrap()?;
        let mut reader = volume.read_file(&entry).unwrap();
        let mut bytes = vec![0; SEED_BYTES];
        let mut filled = 0;
        loop {
            match reader.read(&mut bytes[filled..]).unwrap() {
                0 => break,
                read => filled += read,
            }
        }
        bytes.truncate(filled);
        Some(bytes)
    }

    /// User data of a spec is there byte by byte, as large as it may be, and what bedplate says to cloud-init beside it.
    #[test]
    fn user_data_of_a_spec() {
        let plain = volume(JOB, &seed(), None).unwrap();
        let ours = file(&plain, "user-data").unwrap();
        assert!(ours.starts_with(b"#cloud-config\nhostname: node-1\n") && file(&plain, "vendor-data").is_none());
        let largest = Secret::new(format!("#!/bin/sh\n{}\n", "ä".repeat(131_066)));
        assert_eq!(largest.reveal().len(), 256 * 1024 - 1);
        let given = volume(JOB, &seed(), Some(&largest)).unwrap();
        assert_eq!(given, volume(JOB, &seed(), Some(&largest)).unwrap());
        assert!(file(&given, "user-data").unwrap() == largest.reveal().as_bytes());
        assert_eq!(file(&given, "vendor-data").unwrap(), ours);
        for same in ["meta-data", "network-config", "bedplate.json"] {
            assert_eq!(file(&given, same), file(&plain, same), "{same}");
        }
    }

    #[test]
    fn passes_fsck_and_mtools() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("seed.img");
        let script = Secret::new("#!/bin/sh\n");
        std::fs::write(&path, volume(JOB, &seed(), Some(&script)).unwrap()).unwrap();
        if installed("fsck.vfat") {
            let check = Command::new("fsck.vfat").args(["-n", "-v"]).arg(&path).output().unwrap();
            assert!(check.status.success(), "{}", String::from_utf8_lossy(&check.stdout));
        }
        if installed("mtype") {
            let shown = Command::new("mtype").arg("-i").arg(&path).arg("::meta-data").output().unwrap();
            let text = String::from_utf8_lossy(&shown.stdout);
            assert_eq!(text, format!("instance-id: bedplate-{JOB}-node-1\nlocal-hostname: node-1\n"));
            let label = Command::new("mlabel").arg("-s").arg("-i").arg(&path).arg("::").output().unwrap();
            assert!(String::from_utf8_lossy(&label.stdout).contains(SEED_LABEL));
        }
    }
}
