//! What takes part: a program that keeps copies of folders in a repository and gives them back.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

/// What a program is measured as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The program that this project makes.
    Ours,
    /// A program that does the same.
    Rival,
    /// A program that does less, and so shows a limit: it copies, or it compresses without deduplicating.
    Floor,
}

/// A program in one setting. `home` is a folder of its own, empty before `prepare`.
pub trait Contender {
    /// Its name and setting, as the tables show it.
    fn name(&self) -> &str;

    /// What it is measured as.
    fn role(&self) -> Role;

    /// What it says its version is.
    fn version(&self) -> Result<String>;

    /// Makes an empty repository in `home`.
    fn prepare(&self, home: &Path) -> Result<()>;

    /// The command that keeps the folder under `name`.
    fn keep(&self, home: &Path, name: &str, folder: &Path) -> Command;

    /// The command that gives back what was kept under `name`, below `into`, which is empty.
    fn give_back(&self, home: &Path, name: &str, into: &Path) -> Command;

    /// Where below `into` the files of `folder` are after that.
    fn found(&self, into: &Path, _folder: &Path) -> PathBuf {
        into.to_path_buf()
    }

    /// The part of `home` whose bytes count as stored.
    fn repository(&self, home: &Path) -> PathBuf {
        home.join("repository")
    }
}
