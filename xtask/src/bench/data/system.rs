//! Two OS images: a Debian release as it came out, and the same system after its updates with some more packages. Each
//! is an ext4 file system, so that the second differs from the first in content and in layout.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};

use super::cache;
use crate::image::{ext4, rootfs::EPOCH};
use crate::{install, shell};

/// The release.
const SUITE: &str = "bookworm";
/// Packages of both images.
const BOTH: &str = "systemd-sysv,udev,iproute2,openssh-server,ca-certificates,curl,python3,perl,git,gcc,libc6-dev";
/// What the second image has besides.
const SECOND: &str = "nginx-light,jq,tmux,rsync,strace,python3-yaml,python3-requests";
/// MiB of each image; the tree takes about four fifths of it.
const MIB: u64 = 640;
/// The same for a small scale, where the images hold only what every Debian has.
const SMALL_MIB: u64 = 256;

/// Writes both images; a scale below one half makes them small.
pub fn write(into: &Path, scale: f64) -> Result<()> {
    ensure!(install::is_root(), "making OS images takes root (file owners): run it with sudo, or leave the set out");
    install::debian(install::IMAGE)?;
    let (first, second, mib) = match scale {
        scale if scale < 0.5 => ("iproute2".to_owned(), "iproute2,openssh-server".to_owned(), SMALL_MIB),
        _ => (BOTH.to_owned(), format!("{BOTH},{SECOND}"), MIB),
    };
    let released = [mirror(SUITE)?];
    let updated = [mirror(SUITE)?, mirror(&format!("{SUITE}-updates"))?, mirror(&format!("{SUITE}-security"))?];
    for (name, packages, lines) in [("first", &first, &released[..]), ("second", &second, &updated[..])] {
        let tar = tree(packages, lines)?;
        image(&tar, mib, &into.join(format!("{name}.ext4")))?;
    }
    Ok(())
}

/// The root file system as a tar file, made once for each list of packages and sources.
fn tree(packages: &str, sources: &[String]) -> Result<PathBuf> {
    let key = blake3::hash(format!("{packages}\n{}", sources.join("\n")).as_bytes()).to_hex();
    let file = cache("system")?.join(format!("{}.tar", &key[..16]));
    if file.exists() {
        return Ok(file);
    }
    println!("mmdebstrap of {SUITE} (a minute or two, kept for later)");
    let partial = file.with_extension("partial.tar");
    let mut debstrap = shell::command("mmdebstrap", &["--mode=root", "--variant=minbase", "--quiet"]);
    debstrap.arg(format!("--include={packages}")).arg(SUITE).arg(&partial);
    debstrap.args(sources).env("SOURCE_DATE_EPOCH", EPOCH);
    shell::run(&mut debstrap)?;
    std::fs::rename(&partial, &file)?;
    Ok(file)
}

fn image(tar: &Path, mib: u64, file: &Path) -> Result<()> {
    let tree = cache("tree")?;
    std::fs::remove_dir_all(&tree)?;
    std::fs::create_dir_all(&tree)?;
    let mut unpack = shell::command("tar", &["--extract", "--preserve-permissions", "--numeric-owner"]);
    // Device nodes are of no use in an image that nobody boots.
    shell::run(unpack.arg("--exclude=./dev/*").arg("--directory").arg(&tree).arg("--file").arg(tar))?;
    ext4::make(&tree, "bench", mib, file)?;
    std::fs::remove_dir_all(&tree)?;
    Ok(())
}

/// The machine's own source of this suite.
fn mirror(suite: &str) -> Result<String> {
    let query = ["indextargets", "--format", "$(REPO_URI) $(RELEASE)", "Created-By: Packages"];
    let known = shell::output(&mut shell::command("apt-get", &query))?;
    let uri = known.lines().find_map(|line| line.strip_suffix(&format!(" {suite}")));
    let uri = uri.with_context(|| format!("apt knows no source of Debian {suite} on this machine"))?;
    Ok(format!("deb {uri} {suite} main"))
}
