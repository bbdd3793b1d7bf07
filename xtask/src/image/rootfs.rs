//! A Debian root file system: mmdebstrap once per list of packages, then the overlay, the agent and the initramfs.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};

use super::deb;
use super::recipe::{self, Disk};
use crate::{install, shell};

/// The time that every file carries at most (2026-01-01), so that the same content gives the same bytes.
pub const EPOCH: &str = "1767225600";

/// A root file system, and what its boot partition needs.
pub struct Rootfs {
    /// The folder.
    pub tree: PathBuf,
    /// `uname -r` of its kernel.
    pub release: String,
    /// The kernel.
    pub kernel: Vec<u8>,
    /// Its initramfs.
    pub initramfs: Vec<u8>,
    /// Its `/etc/os-release`.
    pub os_release: String,
}

/// Builds the file system in `work/rootfs`.
pub fn build(recipe: &Disk, work: &Path) -> Result<Rootfs> {
    ensure!(install::is_root(), "building {} takes root (chroot and file owners): run it with sudo", recipe.name);
    let base = base(recipe)?;
    let tree = work.join("rootfs");
    if tree.exists() {
        std::fs::remove_dir_all(&tree)?;
    }
    std::fs::create_dir_all(&tree)?;
    let path = tree.to_string_lossy().into_owned();
    let mut tar = shell::command("tar", &["--extract", "--preserve-permissions", "--numeric-owner", "--xattrs"]);
    shell::run(tar.args(["--xattrs-include=*", "--directory", &path, "--file"]).arg(&base))?;
    overlay(recipe, &tree)?;
    for unit in &recipe.mask {
        chroot(&tree, &["systemctl", "--quiet", "mask", unit])?;
    }
    for unit in &recipe.enable {
        chroot(&tree, &["systemctl", "--quiet", "enable", unit])?;
    }
    let release = kernel_release(&tree)?;
    chroot(&tree, &["update-initramfs", "-c", "-k", &release])?;
    let kernel = std::fs::read(tree.join(format!("boot/vmlinuz-{release}")))?;
    let initramfs = std::fs::read(tree.join(format!("boot/initrd.img-{release}")))?;
    let os_release = std::fs::read_to_string(tree.join("usr/lib/os-release"))?;
    clean(&tree)?;
    Ok(Rootfs { tree, release, kernel, initramfs, os_release })
}

/// The packages alone, as a tar file that is made once for each list of packages.
fn base(recipe: &Disk) -> Result<PathBuf> {
    let listed = serde_json::to_vec(&(&recipe.suite, &recipe.kernel, &recipe.packages, &recipe.exclude))?;
    let key = blake3::hash(&listed).to_hex();
    let file = deb::cache("rootfs")?.join(format!("{}-{}.tar", recipe.name, &key[..16]));
    if file.exists() {
        return Ok(file);
    }
    println!(
        "  mmdebstrap of {} with {} packages (some minutes, kept for later builds)",
        recipe.suite,
        recipe.packages.len()
    );
    let include = recipe.packages.iter().chain([&recipe.kernel]).cloned().collect::<Vec<_>>().join(",");
    let partial = file.with_extension("partial.tar");
    let mut debstrap = shell::command("mmdebstrap", &["--mode=root", "--variant=minbase", "--quiet"]);
    debstrap.arg(format!("--include={include}"));
    for path in &recipe.exclude {
        debstrap.arg(format!("--dpkgopt=path-exclude={path}"));
    }
    // The kernel's own initramfs would be thrown away: the overlay's hooks are not in it.
    debstrap.args([recipe.suite.as_ref(), partial.as_os_str()]).env("INITRD", "No").env("SOURCE_DATE_EPOCH", EPOCH);
    shell::run(&mut debstrap)?;
    std::fs::rename(&partial, &file)?;
    Ok(file)
}

fn overlay(recipe: &Disk, tree: &Path) -> Result<()> {
    let from = recipe::folder(&recipe.name).join("overlay");
    let source = format!("{}/.", from.display());
    let mut copy = shell::command("cp", &["--recursive", "--no-dereference", "--preserve=mode,links", &source]);
    shell::run(copy.arg(tree))?;
    let agent = match std::env::var_os("BEDPLATE_AGENT") {
        Some(path) => PathBuf::from(path),
        None => super::agent()?,
    };
    let home = tree.join("usr/lib/bedplate");
    std::fs::create_dir_all(&home)?;
    std::fs::copy(&agent, home.join("bedplate-agent")).with_context(|| format!("no agent at {}", agent.display()))?;
    std::fs::create_dir_all(tree.join("etc/bedplate"))?;
    std::fs::write(tree.join("etc/bedplate/image"), format!("{}@{}\n", recipe.name, recipe.version))?;
    Ok(())
}

/// Removes what is of this machine or of this build, and sets the times that the build left.
fn clean(tree: &Path) -> Result<()> {
    for file in ["etc/hostname", "etc/resolv.conf", "var/cache/ldconfig/aux-cache", "initrd.img", "vmlinuz"] {
        let path = tree.join(file);
        if path.symlink_metadata().is_ok() {
            std::fs::remove_file(path)?;
        }
    }
    for link in ["initrd.img.old", "vmlinuz.old"] {
        drop(std::fs::remove_file(tree.join(link)));
    }
    for folder in ["boot", "var/log", "var/cache/apt", "var/lib/apt/lists", "var/lib/initramfs-tools", "tmp", "run"] {
        let path = tree.join(folder);
        for entry in std::fs::read_dir(&path).into_iter().flatten() {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                std::fs::remove_dir_all(entry.path())?;
            } else {
                std::fs::remove_file(entry.path())?;
            }
        }
    }
    std::fs::write(tree.join("etc/machine-id"), "")?;
    let path = tree.to_string_lossy().into_owned();
    let day = format!("@{EPOCH}");
    let find = ["-newermt", &day, "-exec", "touch", "--no-dereference", "--date", &day, "{}", "+"];
    shell::run(shell::command("find", &[&path]).args(find))
}

fn kernel_release(tree: &Path) -> Result<String> {
    let mut names: Vec<_> = std::fs::read_dir(tree.join("lib/modules"))?
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect::<Result<_>>()?;
    names.sort();
    names.pop().context("the file system has no kernel")
}

fn chroot(tree: &Path, words: &[&str]) -> Result<()> {
    let mut command = shell::command("chroot", &[]);
    command.arg(tree).args(words).env("SOURCE_DATE_EPOCH", EPOCH);
    command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("LC_ALL", "C");
    shell::run(&mut command)
}
