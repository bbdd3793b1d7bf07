//! The rival: s3s-fs from crates.io, as it is, and with the fsync that a durable store owes for each object.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};

use crate::bench::data;
use crate::shell;

/// The release. It declares a newer compiler than ours; it builds with it all the same.
const VERSION: &str = "0.17.0";
/// Where it gives a file that was written its name.
const RENAME: &str = "        fs::rename(&self.tmp_path, self.dest_path()).await?;\n";
/// The same after an fsync of the object's own file; what lies beside it are files of attributes, with these names.
const SYNCED: &str = "        let aside = self.dest_path().file_name().is_some_and(|name| name.to_string_lossy().starts_with(\".bucket-\"));
        if !aside {
            self.writer.get_ref().sync_all().await?;
        }
";

/// Both programs.
pub struct Rival {
    /// As it is.
    pub plain: PathBuf,
    /// With an fsync an object.
    pub synced: PathBuf,
}

/// Builds both once.
pub fn ready() -> Result<Rival> {
    let home = data::base().join("s3s-fs");
    let rival = Rival { plain: home.join(format!("plain-{VERSION}")), synced: home.join(format!("synced-{VERSION}")) };
    if rival.plain.exists() && rival.synced.exists() {
        return Ok(rival);
    }
    println!("building s3s-fs {VERSION} from crates.io twice (minutes, once)");
    let source = home.join("source");
    if !source.exists() {
        copy(&fetch(&home.join("fetch"))?, &source)?;
    }
    build(&home, &source, &rival.plain)?;
    let file = source.join("src/fs.rs");
    let text = std::fs::read_to_string(&file)?;
    ensure!(text.matches(RENAME).count() == 1, "s3s-fs {VERSION} writes its files otherwise than it did");
    std::fs::write(&file, text.replace(RENAME, &format!("{SYNCED}{RENAME}")))?;
    build(&home, &source, &rival.synced)?;
    std::fs::remove_dir_all(&source)?;
    drop(std::fs::remove_dir_all(home.join("build")));
    Ok(rival)
}

/// Has cargo download the crate, and says where it lies.
fn fetch(package: &Path) -> Result<PathBuf> {
    std::fs::create_dir_all(package.join("src"))?;
    std::fs::write(package.join("src/lib.rs"), "")?;
    let manifest = format!(
        "[workspace]\n[package]\nname = \"fetch\"\nversion = \"0.0.0\"\nedition = \"2024\"\n[dependencies]\n\
         s3s-fs = {{ version = \"={VERSION}\", features = [\"binary\"] }}\n"
    );
    std::fs::write(package.join("Cargo.toml"), manifest)?;
    let mut cargo = shell::cargo(&["metadata", "--format-version", "1", "--manifest-path"]);
    let text = shell::output(cargo.arg(package.join("Cargo.toml")))?;
    let metadata: serde_json::Value = serde_json::from_str(&text)?;
    let packages = metadata["packages"].as_array().context("cargo says nothing of packages")?;
    let found = packages.iter().find(|package| package["name"] == "s3s-fs").context("cargo found no s3s-fs")?;
    let manifest = found["manifest_path"].as_str().context("cargo does not say where s3s-fs lies")?;
    Path::new(manifest).parent().map(Path::to_path_buf).context("s3s-fs lies nowhere")
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    let command = &mut shell::command("cp", &["--recursive", "--no-preserve=mode"]);
    shell::run(command.arg(from).arg(to))?;
    // Below our own workspace, of which it is no part.
    let manifest = to.join("Cargo.toml");
    let text = std::fs::read_to_string(&manifest)?;
    Ok(std::fs::write(manifest, text + "\n[workspace]\n")?)
}

fn build(home: &Path, source: &Path, program: &Path) -> Result<()> {
    let mut cargo = shell::cargo(&["build", "--quiet", "--release", "--locked", "--ignore-rust-version"]);
    cargo.args(["--features", "binary", "--bin", "s3s-fs"]).current_dir(source);
    shell::run(cargo.env("CARGO_TARGET_DIR", home.join("build")))?;
    std::fs::copy(home.join("build/release/s3s-fs"), program)?;
    Ok(())
}
