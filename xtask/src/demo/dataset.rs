//! A dataset to put: JSON lines that compress, noise that does not, and a second edition that repeats most of the first.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::shell;

/// Files of each kind.
const FILES: u64 = 8;
/// Bytes of one file.
const BYTES: usize = 8 << 20;

/// The list of all files with their SHA-256, in the dataset itself, as `sha256sum` writes it.
pub const SUMS: &str = "SHA256SUMS";

/// Writes the dataset and returns how many bytes it has.
pub fn generate(folder: &Path) -> Result<u64> {
    for kind in ["text", "tensors", "text-second-edition"] {
        std::fs::create_dir_all(folder.join(kind))?;
    }
    let mut total = 0;
    for index in 0..FILES {
        let text = lines(index);
        let noise = noise(index, BYTES);
        // The second edition drops a line at the front of each shard, so that every byte stands elsewhere.
        let cut = text.iter().position(|byte| *byte == b'\n').unwrap_or(0) + 1;
        for (path, content) in [
            (format!("text/shard-{index:02}.jsonl"), &text[..]),
            (format!("tensors/shard-{index:02}.bin"), &noise[..]),
            (format!("text-second-edition/shard-{index:02}.jsonl"), &text[cut..]),
        ] {
            std::fs::write(folder.join(path), content)?;
            total += content.len() as u64;
        }
    }
    total += list(folder)?;
    Ok(total)
}

/// Writes the list of digests, by name, and returns its length.
fn list(folder: &Path) -> Result<u64> {
    let mut names: Vec<PathBuf> = digests(folder)?.into_keys().collect();
    // Byte by byte, as `sort` has them on a node, and not part by part.
    names.sort_by(|one, other| one.as_os_str().cmp(other.as_os_str()));
    let text = shell::output(Command::new("sha256sum").args(names).current_dir(folder))?;
    std::fs::write(folder.join(SUMS), &text)?;
    Ok(text.len() as u64)
}

/// How many bytes the files have that the list names.
pub fn listed_bytes(folder: &Path) -> Result<u64> {
    let text = std::fs::read_to_string(folder.join(SUMS))?;
    let names = text.lines().filter_map(|line| line.split_once("  ").map(|(_, name)| name));
    names.map(|name| Ok(std::fs::metadata(folder.join(name))?.len())).sum()
}

/// Fails unless both folders hold the same files.
pub fn compare(given: &Path, taken: &Path) -> Result<()> {
    let (given, taken) = (digests(given)?, digests(taken)?);
    ensure!(
        !given.is_empty() && given.len() == taken.len(),
        "{} files were put, {} came back",
        given.len(),
        taken.len()
    );
    for (path, digest) in &given {
        ensure!(taken.get(path) == Some(digest), "{} came back changed or not at all", path.display());
    }
    Ok(())
}

fn lines(seed: u64) -> Vec<u8> {
    let words =
        ["rack", "node", "plate", "engine", "bolt", "steel", "power", "cable", "frame", "cool", "token", "shard"];
    let mut text = Vec::with_capacity(BYTES + 256);
    let mut numbers = Numbers(seed + 1);
    let mut id = seed << 32;
    while text.len() < BYTES {
        id += 1;
        write!(text, "{{\"id\":{id},\"score\":{},\"text\":\"", numbers.next() % 10_000).expect("memory takes it");
        for _ in 0..12 {
            let word = words[(numbers.next() % words.len() as u64) as usize];
            text.extend_from_slice(word.as_bytes());
            text.push(b' ');
        }
        text.extend_from_slice(b"\"}\n");
    }
    text
}

fn noise(seed: u64, bytes: usize) -> Vec<u8> {
    let mut numbers = Numbers(seed + 0x5eed);
    std::iter::repeat_with(|| numbers.next().to_le_bytes()).flatten().take(bytes).collect()
}

/// splitmix64: the same dataset on every run.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }
}

fn digests(root: &Path) -> Result<BTreeMap<PathBuf, blake3::Hash>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![root.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).with_context(|| format!("no folder {}", folder.display()))? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let digest = blake3::hash(&std::fs::read(&path)?);
                found.insert(path.strip_prefix(root)?.to_path_buf(), digest);
            }
        }
    }
    Ok(found)
}
