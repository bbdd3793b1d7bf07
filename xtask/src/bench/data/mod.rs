//! Data sets: made once below target/bench/data, the same bytes from the same recipe. Each set is a folder `new` and a
//! folder `near`, which holds the same files with one spot in a hundred changed.

mod checkpoints;
mod layers;
pub mod lines;
pub mod near;
pub mod noise;
pub mod numbers;
mod system;

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context as _, Result};
use clap::ValueEnum;

use crate::shell;

/// Raised when a recipe changes, so that sets which were made before are made anew.
const RECIPES: u32 = 1;

/// The data sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Set {
    /// Two Debian root file systems as ext4 images: a release, and the same with its updates and some more packages
    System,
    /// JSON lines, and the same documents in shuffled runs and other shards
    Lines,
    /// Container layers: the unpacked wheels of successive releases as tar files
    Layers,
    /// Real checkpoints, from shared/data/checkpoints beside the repository
    Checkpoints,
    /// Random bytes: nothing to find, nothing to save
    Random,
}

/// A set that lies ready.
pub struct Ready {
    /// Which it is.
    pub set: Set,
    /// Its files.
    pub new: PathBuf,
    /// The near-copy of each of them.
    pub near: PathBuf,
    /// Bytes in `new`.
    pub new_bytes: u64,
    /// Bytes in `near`.
    pub near_bytes: u64,
}

impl Set {
    /// Its name on the command line and in folders.
    pub fn name(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::Lines => "lines",
            Self::Layers => "layers",
            Self::Checkpoints => "checkpoints",
            Self::Random => "random",
        }
    }

    /// Its heading.
    pub fn title(self) -> &'static str {
        match self {
            Self::System => "Pair of OS images",
            Self::Lines => "JSON lines and their re-sharded copy",
            Self::Layers => "Container layers of successive versions",
            Self::Checkpoints => "Checkpoints",
            Self::Random => "Random bytes",
        }
    }

    /// Makes the set unless it is there; `None` where what it is made from is absent on this machine.
    pub fn ready(self, scale: f64) -> Result<Option<Ready>> {
        let folder = home()?.join(format!("{}-{}", self.name(), (scale * 100.0).round()));
        let (new, near) = (folder.join("new"), folder.join("near"));
        let stamp = folder.join("complete");
        let made = std::fs::read_to_string(&stamp).is_ok_and(|text| text == RECIPES.to_string());
        if !made {
            if folder.exists() {
                std::fs::remove_dir_all(&folder)?;
            }
            std::fs::create_dir_all(&new)?;
            let began = Instant::now();
            println!("making the data set {}", self.name());
            if !self.make(&new, scale).with_context(|| format!("cannot make the data set {}", self.name()))? {
                std::fs::remove_dir_all(&folder)?;
                return Ok(None);
            }
            near::copy(&new, &near, 0x0b5e_55ed)?;
            std::fs::write(&stamp, RECIPES.to_string())?;
            println!("made it in {:.0} s", began.elapsed().as_secs_f64());
        }
        let (new_bytes, near_bytes) = (bytes(&new)?, bytes(&near)?);
        Ok(Some(Ready { set: self, new, near, new_bytes, near_bytes }))
    }

    fn make(self, into: &Path, scale: f64) -> Result<bool> {
        match self {
            Self::System => system::write(into, scale)?,
            Self::Lines => {
                let bytes = (300e6 * scale) as u64;
                lines::write(&into.join("first"), &into.join("second"), bytes, 1)?;
            }
            Self::Layers => layers::write(into, scale)?,
            Self::Checkpoints => return checkpoints::write(into),
            Self::Random => noise::write(&into.join("noise.bin"), (512e6 * scale) as u64)?,
        }
        Ok(true)
    }
}

/// Where everything of the benches lies.
pub fn base() -> PathBuf {
    shell::target().join("bench")
}

fn home() -> Result<PathBuf> {
    let folder = base().join("data");
    std::fs::create_dir_all(&folder)?;
    Ok(folder)
}

/// What is downloaded or built on the way to a set, kept for other scales.
fn cache(name: &str) -> Result<PathBuf> {
    let folder = base().join("cache").join(name);
    std::fs::create_dir_all(&folder)?;
    Ok(folder)
}

/// All files below `folder`, in the order of their names.
pub fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).with_context(|| format!("no folder {}", folder.display()))? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                folders.push(entry.path());
            } else {
                found.push(entry.path());
            }
        }
    }
    found.sort();
    Ok(found)
}

/// Bytes in all files below `folder`.
pub fn bytes(folder: &Path) -> Result<u64> {
    let mut total = 0;
    for file in files(folder)? {
        total += file.metadata()?.len();
    }
    Ok(total)
}

/// Fails unless both folders hold the same files with the same bytes.
pub fn compare(given: &Path, taken: &Path) -> Result<()> {
    let digests = |root: &Path| -> Result<Vec<(PathBuf, blake3::Hash)>> {
        let digest = |file: PathBuf| -> Result<_> {
            let mut hasher = blake3::Hasher::new();
            std::io::copy(&mut std::fs::File::open(&file)?, &mut hasher)?;
            Ok((file.strip_prefix(root)?.to_path_buf(), hasher.finalize()))
        };
        files(root)?.into_iter().map(digest).collect()
    };
    let (given, taken) = (digests(given)?, digests(taken)?);
    anyhow::ensure!(!given.is_empty(), "there is nothing to compare");
    for (path, digest) in &given {
        let found = taken.iter().find(|(other, _)| other == path).map(|(_, digest)| digest);
        anyhow::ensure!(found == Some(digest), "{} came back changed or not at all", path.display());
    }
    anyhow::ensure!(given.len() == taken.len(), "{} files were given, {} came back", given.len(), taken.len());
    Ok(())
}
