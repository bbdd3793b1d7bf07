//! Images: from `images/NAME/recipe.toml` to files under `target/images/NAME/`.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use serde::{Deserialize, Serialize};

use crate::{install, shell};

mod boot;
mod deb;
mod disk;
pub mod ext4;
mod fat;
mod initramfs;
mod iso;
mod kernel;
mod recipe;
pub mod rootfs;
mod uki;

use recipe::Recipe;

/// What static programs are built for.
pub const TRIPLE: &str = "x86_64-unknown-linux-gnu";

/// What to do with images.
#[derive(clap::Args)]
pub struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(clap::Subcommand)]
enum Verb {
    /// Builds the image of a recipe into target/images/RECIPE
    Build {
        /// Folder name under images/
        recipe: String,
    },
    /// Builds it twice and compares the digests
    Verify {
        /// Folder name under images/
        recipe: String,
    },
}

/// `image.toml` beside a built image.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ImageFile {
    /// The recipe's name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// BLAKE3 of the file, in hexadecimal.
    pub digest: String,
    /// Length of the file in bytes.
    pub bytes: u64,
    /// The kernel inside, as `uname -r` says it.
    pub kernel: String,
    /// File name, in the same folder.
    pub file: String,
}

/// Does what was asked.
pub fn run(arguments: &Arguments) -> Result<()> {
    match &arguments.verb {
        Verb::Build { recipe } => build(recipe).map(drop),
        Verb::Verify { recipe } => verify(recipe),
    }
}

/// Builds the image and returns the folder it is in and what it is.
pub fn build(name: &str) -> Result<(PathBuf, ImageFile)> {
    install::debian(install::IMAGE)?;
    let started = Instant::now();
    let recipe = Recipe::load(name)?;
    let out = shell::target().join("images").join(name);
    std::fs::create_dir_all(&out)?;
    let (file, kernel) = match &recipe {
        Recipe::Boot(boot) => boot::build(boot, &out)?,
        Recipe::Disk(disk) => disk::build(disk, &out)?,
    };
    let image = describe(&recipe, &file, kernel)?;
    std::fs::write(out.join("image.toml"), toml::to_string(&image)?)?;
    println!(
        "{}@{}: {} ({:.1} MiB, kernel {}, blake3 {}) in {:.0} s",
        image.name,
        image.version,
        file.display(),
        image.bytes as f64 / f64::from(1 << 20),
        image.kernel,
        &image.digest[..12],
        started.elapsed().as_secs_f64()
    );
    Ok((out, image))
}

fn verify(name: &str) -> Result<()> {
    let first = build(name)?.1;
    let second = build(name)?.1;
    ensure!(
        first.digest == second.digest,
        "{name} is not reproducible: built twice, its digests are {} and {}",
        first.digest,
        second.digest
    );
    println!("{name} is reproducible: {}", first.digest);
    Ok(())
}

fn describe(recipe: &Recipe, file: &Path, kernel: String) -> Result<ImageFile> {
    let mut hasher = blake3::Hasher::new();
    let mut reader = std::fs::File::open(file)?;
    let bytes = std::io::copy(&mut reader, &mut hasher).with_context(|| format!("cannot read {}", file.display()))?;
    Ok(ImageFile {
        name: recipe.name().to_owned(),
        version: recipe.version().to_owned(),
        digest: hasher.finalize().to_hex().to_string(),
        bytes,
        kernel,
        file: file.file_name().expect("an image has a name").to_string_lossy().into_owned(),
    })
}

/// Builds the static agent and returns its path.
pub fn agent() -> Result<PathBuf> {
    let mut cargo = shell::cargo(&["build", "--quiet", "--ignore-rust-version", "--package", "bedplate"]);
    cargo.args(["--no-default-features", "--bin", "bedplate-agent", "--profile", "agent", "--target", TRIPLE]);
    cargo.env("RUSTFLAGS", "-C target-feature=+crt-static").current_dir(shell::root());
    shell::show(&mut cargo)?;
    let program = shell::target().join(TRIPLE).join("agent/bedplate-agent");
    let bytes = std::fs::metadata(&program)?.len();
    ensure!(bytes <= 12 << 20, "the agent has {bytes} bytes and may have 12 MiB");
    Ok(program)
}
