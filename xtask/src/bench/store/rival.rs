//! The rivals and the floors, each in its own defaults without needless cost: no cache that a repository on the local
//! disk has no use for, no encryption where it can be left out, a fresh repository for each run.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use super::contender::{Contender, Role};
use crate::bench::data;
use crate::shell;

/// The release of rustic that is installed from crates.io.
const RUSTIC: &str = "0.11.4";
/// The name of the program that only compresses and decompresses.
pub const ZSTD: &str = "tar | zstd -1 -T0";
/// Opens the repositories of those that always encrypt.
const PASSWORD: &str = "bench";

/// Those of them that are wanted; says aloud which of these is not to be had.
pub fn all(wanted: impl Fn(&str) -> bool) -> Vec<Box<dyn Contender>> {
    let mut found: Vec<Box<dyn Contender>> = vec![
        Box::new(Restic),
        Box::new(Borg { name: "borg lz4", compression: "lz4" }),
        Box::new(Borg { name: "borg zstd,1", compression: "zstd,1" }),
        Box::new(Borg { name: "borg zstd,3", compression: "zstd,3" }),
    ];
    if wanted("rustic") {
        match rustic() {
            Ok(program) => found.push(Box::new(Rustic { program })),
            Err(error) => println!("SKIPPED: rustic {RUSTIC} does not build here: {error:#}"),
        }
    }
    found.push(Box::new(Copy));
    found.push(Box::new(Zstd));
    found.retain(|each| wanted(each.name()));
    found
}

/// Builds rustic once and returns the program.
fn rustic() -> Result<PathBuf> {
    let root = data::base().join("rustic");
    let program = root.join("bin/rustic");
    if !program.exists() {
        println!("building rustic {RUSTIC} from crates.io (ten minutes or more, once)");
        let mut cargo = shell::cargo(&["install", "rustic-rs", "--version", RUSTIC, "--locked", "--quiet"]);
        // The features that are left out serve other doors (a terminal view, WebDAV, metrics); none makes it faster.
        cargo.args(["--no-default-features", "--root"]).arg(&root).env("CARGO_TARGET_DIR", root.join("build"));
        shell::run(&mut cargo)?;
        drop(std::fs::remove_dir_all(root.join("build")));
    }
    Ok(program)
}

fn first_line(command: &mut Command) -> Result<String> {
    Ok(shell::output(command)?.lines().next().unwrap_or_default().trim().to_owned())
}

/// The path that `folder` has below a restored tree of absolute paths.
fn below(into: &Path, folder: &Path) -> PathBuf {
    into.join(folder.strip_prefix("/").unwrap_or(folder))
}

struct Restic;

impl Restic {
    fn command(&self, home: &Path) -> Command {
        let mut command = Command::new("restic");
        command.args(["--quiet", "--no-cache", "--repo"]).arg(self.repository(home));
        command.env("RESTIC_PASSWORD", PASSWORD).env("HOME", home);
        command
    }
}

impl Contender for Restic {
    fn name(&self) -> &str {
        "restic"
    }

    fn role(&self) -> Role {
        Role::Rival
    }

    fn version(&self) -> Result<String> {
        let line = first_line(Command::new("restic").arg("version"))?;
        Ok(line.split(" compiled").next().unwrap_or(&line).to_owned() + " (Debian), compression auto")
    }

    fn prepare(&self, home: &Path) -> Result<()> {
        shell::run(self.command(home).args(["init", "--repository-version", "2"]))
    }

    fn keep(&self, home: &Path, name: &str, folder: &Path) -> Command {
        let mut command = self.command(home);
        command.args(["backup", "--compression", "auto", "--host", "bench", "--tag", name]).arg(folder);
        command
    }

    fn give_back(&self, home: &Path, name: &str, into: &Path) -> Command {
        let mut command = self.command(home);
        command.args(["restore", "latest", "--tag", name, "--target"]).arg(into);
        command
    }

    fn found(&self, into: &Path, folder: &Path) -> PathBuf {
        below(into, folder)
    }
}

struct Borg {
    name: &'static str,
    compression: &'static str,
}

impl Borg {
    fn command(&self, home: &Path, verb: &str) -> Command {
        let mut command = Command::new("borg");
        command.arg(verb).env("BORG_BASE_DIR", home.join("base")).env("HOME", home);
        for question in ["UNKNOWN_UNENCRYPTED_REPO_ACCESS", "RELOCATED_REPO_ACCESS"] {
            command.env(format!("BORG_{question}_IS_OK"), "yes");
        }
        command
    }

    fn archive(&self, home: &Path, name: &str) -> String {
        format!("{}::{name}", self.repository(home).display())
    }
}

impl Contender for Borg {
    fn name(&self) -> &str {
        self.name
    }

    fn role(&self) -> Role {
        Role::Rival
    }

    fn version(&self) -> Result<String> {
        let line = first_line(Command::new("borg").arg("--version"))?;
        Ok(format!("{line} (Debian), {}, no encryption", self.compression))
    }

    fn prepare(&self, home: &Path) -> Result<()> {
        shell::run(self.command(home, "init").args(["--encryption", "none"]).arg(self.repository(home)))
    }

    fn keep(&self, home: &Path, name: &str, folder: &Path) -> Command {
        let mut command = self.command(home, "create");
        command.args(["--compression", self.compression]).arg(self.archive(home, name)).arg(".").current_dir(folder);
        command
    }

    fn give_back(&self, home: &Path, name: &str, into: &Path) -> Command {
        let mut command = self.command(home, "extract");
        command.arg(self.archive(home, name)).current_dir(into);
        command
    }
}

struct Rustic {
    program: PathBuf,
}

impl Rustic {
    fn command(&self, home: &Path, verb: &str) -> Command {
        let mut command = Command::new(&self.program);
        command.args(["--no-progress", "--log-level", "warn", "--no-cache", "--repository"]).arg(self.repository(home));
        command.args(["--password", PASSWORD, verb]).env("HOME", home);
        command
    }
}

impl Contender for Rustic {
    fn name(&self) -> &str {
        "rustic"
    }

    fn role(&self) -> Role {
        Role::Rival
    }

    fn version(&self) -> Result<String> {
        Ok(first_line(Command::new(&self.program).arg("--version"))? + " (crates.io)")
    }

    fn prepare(&self, home: &Path) -> Result<()> {
        shell::run(&mut self.command(home, "init"))
    }

    fn keep(&self, home: &Path, name: &str, folder: &Path) -> Command {
        let mut command = self.command(home, "backup");
        command.args(["--host", "bench", "--label", name]).arg(folder);
        command
    }

    fn give_back(&self, home: &Path, name: &str, into: &Path) -> Command {
        let mut command = self.command(home, "restore");
        command.args(["--filter-label", name, "latest"]).arg(into);
        command
    }

    fn found(&self, into: &Path, folder: &Path) -> PathBuf {
        below(into, folder)
    }
}

/// Copies the files: the least that anyone can do.
struct Copy;

impl Contender for Copy {
    fn name(&self) -> &str {
        "cp"
    }

    fn role(&self) -> Role {
        Role::Floor
    }

    fn version(&self) -> Result<String> {
        first_line(Command::new("cp").arg("--version"))
    }

    fn prepare(&self, home: &Path) -> Result<()> {
        Ok(std::fs::create_dir(self.repository(home))?)
    }

    fn keep(&self, home: &Path, name: &str, folder: &Path) -> Command {
        let mut command = Command::new("cp");
        // Neither holes nor shared blocks: the bytes are to be moved.
        command.args(["--recursive", "--sparse=never", "--reflink=never"]);
        command.arg(folder).arg(self.repository(home).join(name));
        command
    }

    fn give_back(&self, home: &Path, name: &str, into: &Path) -> Command {
        let mut command = Command::new("cp");
        command.args(["--recursive", "--sparse=never", "--reflink=never", "--no-target-directory"]);
        command.arg(self.repository(home).join(name)).arg(into);
        command
    }
}

/// Compresses the files as one stream: what zstd costs and saves without any deduplication.
struct Zstd;

impl Contender for Zstd {
    fn name(&self) -> &str {
        ZSTD
    }

    fn role(&self) -> Role {
        Role::Floor
    }

    fn version(&self) -> Result<String> {
        let line = first_line(Command::new("zstd").arg("--version"))?;
        let version = line.split(' ').find(|word| word.starts_with('v')).unwrap_or("of unknown version");
        Ok(format!("zstd {} (Debian)", version.trim_end_matches(',')))
    }

    fn prepare(&self, home: &Path) -> Result<()> {
        Ok(std::fs::create_dir(self.repository(home))?)
    }

    fn keep(&self, home: &Path, name: &str, folder: &Path) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", "tar --create --file - . | zstd --quiet -1 -T0 -o \"$0\""]);
        command.arg(self.repository(home).join(name)).current_dir(folder);
        command
    }

    fn give_back(&self, home: &Path, name: &str, into: &Path) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", "zstd --quiet --decompress --stdout \"$0\" | tar --extract --file -"]);
        command.arg(self.repository(home).join(name)).current_dir(into);
        command
    }
}
