//! An ext4 file system of a folder, made without mounting; the same content gives the same bytes.

use std::path::Path;

use anyhow::{Context as _, Result};

use super::iso::guid;
use super::rootfs::EPOCH;
use crate::shell;

/// Writes a file system of `mib` MiB with the tree to `file`; its UUID is a function of `name`. mke2fs takes over each
/// file's change time, which cannot be set from outside, so it is set in the file system afterwards.
pub fn make(tree: &Path, name: &str, mib: u64, file: &Path) -> Result<()> {
    let id = guid(name, "root file system");
    let hex = blake3::Hash::from_bytes([id, id].concat().try_into().expect("twice sixteen bytes")).to_hex();
    let uuid = format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..32]);
    drop(std::fs::remove_file(file));
    let mut make = shell::command("/sbin/mke2fs", &["-q", "-F", "-t", "ext4", "-L", "root", "-m", "1", "-U", &uuid]);
    make.args(["-E", &format!("hash_seed={uuid},root_owner=0:0,lazy_itable_init=0,lazy_journal_init=0"), "-d"]);
    make.arg(tree).arg(file).arg(format!("{mib}M"));
    shell::run(make.env("E2FSPROGS_FAKE_TIME", EPOCH))?;

    let mut facts = shell::command("/sbin/dumpe2fs", &["-h"]);
    let facts = shell::output(facts.arg(file))?;
    let number = |key: &str| -> Result<u64> {
        let line = facts.lines().find_map(|line| line.strip_prefix(key)).with_context(|| format!("no {key}"))?;
        Ok(line.trim().parse()?)
    };
    let used = number("Inode count:")? - number("Free inodes:")?;
    let mut script = String::new();
    for inode in [2].into_iter().chain(11..=used) {
        for field in ["ctime", "atime"] {
            script.push_str(&format!("set_inode_field <{inode}> {field} @{EPOCH}\n"));
            script.push_str(&format!("set_inode_field <{inode}> {field}_extra 0\n"));
        }
    }
    let commands = file.with_extension("debugfs");
    std::fs::write(&commands, script)?;
    let mut debugfs = shell::command("/sbin/debugfs", &["-w", "-f", &commands.to_string_lossy()]);
    shell::run(debugfs.arg(file).env("E2FSPROGS_FAKE_TIME", EPOCH))?;
    std::fs::remove_file(commands)?;
    Ok(())
}
