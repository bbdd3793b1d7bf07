//! `images/NAME/recipe.toml`: what an image is made of. Unknown keys are refused.

use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use serde::{Deserialize, Serialize};

use crate::shell;

/// A recipe, told apart by its `kind`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Recipe {
    /// A boot image for virtual media.
    Boot(Boot),
    /// A disk image to install.
    Disk(Disk),
}

/// A boot image: kernel, drivers, firmware and the agent, nothing else.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Boot {
    /// The image's name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Debian package of the kernel, or one that depends on it.
    pub kernel: String,
    /// Kernel command line.
    pub cmdline: String,
    /// Kernel modules to carry; what they depend on comes along.
    pub modules: Vec<String>,
    /// Firmware for them.
    pub firmware: Firmware,
}

/// Where firmware comes from. Each file that a carried module names and a package holds is taken.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Firmware {
    /// Debian archive component of the packages.
    pub component: String,
    /// The packages.
    pub packages: Vec<String>,
    /// Beginnings of file names that are left out, with a reason beside them in the recipe.
    pub skip: Vec<String>,
}

/// A disk image: a Debian system that boots by UEFI.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Disk {
    /// The image's name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Debian release.
    pub suite: String,
    /// Debian package of the kernel.
    pub kernel: String,
    /// Further Debian packages.
    pub packages: Vec<String>,
    /// Files that dpkg leaves out.
    pub exclude: Vec<String>,
    /// Kernel command line.
    pub cmdline: String,
    /// Units that are enabled.
    pub enable: Vec<String>,
    /// Units that are masked: nothing waits for them and nothing starts them.
    pub mask: Vec<String>,
    /// EFI system partition in MiB.
    pub esp_mib: u64,
    /// Root file system in MiB; it grows to the disk at first boot.
    pub root_mib: u64,
}

impl Recipe {
    /// Reads `images/NAME/recipe.toml`.
    pub fn load(name: &str) -> Result<Self> {
        let path = folder(name).join("recipe.toml");
        let text = std::fs::read_to_string(&path).with_context(|| format!("no recipe {}", path.display()))?;
        let recipe: Self = toml::from_str(&text).with_context(|| format!("{} is no recipe", path.display()))?;
        ensure!(recipe.name() == name, "{} says its name is {}", path.display(), recipe.name());
        Ok(recipe)
    }

    /// The image's name.
    pub fn name(&self) -> &str {
        match self {
            Self::Boot(boot) => &boot.name,
            Self::Disk(disk) => &disk.name,
        }
    }

    /// The image's version.
    pub fn version(&self) -> &str {
        match self {
            Self::Boot(boot) => &boot.version,
            Self::Disk(disk) => &disk.version,
        }
    }
}

/// The recipe's folder.
pub fn folder(name: &str) -> PathBuf {
    shell::root().join("images").join(name)
}
