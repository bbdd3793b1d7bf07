//! The boot image: Debian's kernel, the drivers of real servers, their firmware and the agent as its first process.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};

use super::deb::{self, Archive};
use super::kernel::Kernel;
use super::recipe::Boot;
use super::{fat, initramfs, iso, uki};

/// The largest boot image: some BMCs refuse more.
const BYTES_MAX: usize = 64 << 20;

/// Builds `OUT/NAME.iso`; returns it and the kernel's release.
pub fn build(recipe: &Boot, out: &Path) -> Result<(PathBuf, String)> {
    let agent = match std::env::var_os("BEDPLATE_AGENT") {
        Some(path) => PathBuf::from(path),
        None => super::agent()?,
    };
    let kernel = Kernel::fetch(&recipe.kernel)?;
    let modules = kernel.modules(&recipe.modules)?;
    let tree = out.join("initramfs");
    if tree.exists() {
        std::fs::remove_dir_all(&tree)?;
    }
    for folder in ["dev", "proc", "sys", "run", "tmp", "etc"] {
        std::fs::create_dir_all(tree.join(folder))?;
    }
    std::fs::copy(&agent, tree.join("init")).with_context(|| format!("no agent at {}", agent.display()))?;
    std::fs::set_permissions(tree.join("init"), std::fs::Permissions::from_mode(0o755))?;
    kernel.lay_modules(&modules, &tree)?;
    let wanted = kernel.firmware(&modules)?;
    let firmware = lay_firmware(recipe, &wanted, &tree)?;

    let packed = initramfs::pack(&tree)?;
    let image = std::fs::read(kernel.image())?;
    let release =
        format!("ID=bedplate\nNAME=bedplate\nPRETTY_NAME=\"bedplate agent\"\nVERSION_ID={}\n", recipe.version);
    let program = uki::build(&release, &recipe.cmdline, &image, &packed)?;
    let esp = fat::volume("BEDPLATE", &program, (program.len() as u64 + (1 << 20)).next_multiple_of(1 << 20))?;
    let bytes = iso::build(&format!("bedplate-{}", recipe.name), esp)?;
    println!(
        "  kernel {:.1} MiB, initramfs {:.1} MiB with {} modules and {firmware} firmware files",
        mib(image.len()),
        mib(packed.len()),
        modules.len(),
    );
    ensure!(bytes.len() <= BYTES_MAX, "the boot image has {:.1} MiB and may have 64", mib(bytes.len()));
    let file = out.join(format!("{}.iso", recipe.name));
    std::fs::write(&file, bytes)?;
    Ok((file, kernel.release))
}

/// Lays the firmware that the modules ask for into the tree; returns how many files. A mirror without the component is
/// said aloud: the image then lacks firmware, and the NICs that need it do not work.
fn lay_firmware(recipe: &Boot, wanted: &BTreeSet<String>, tree: &Path) -> Result<usize> {
    let archive = match Archive::with_component(&recipe.firmware.component) {
        Ok(archive) => archive,
        Err(error) => {
            println!("  SKIPPED: firmware of {}: {error:#}", recipe.firmware.packages.join(", "));
            return Ok(0);
        }
    };
    let mut sources = Vec::new();
    for package in &recipe.firmware.packages {
        let file = archive.fetch(package)?;
        let root = deb::cache(&format!("firmware-{}", file.file_stem().expect("named").to_string_lossy()))?;
        if !root.join("complete").exists() {
            deb::unpack(&file, &["lib/firmware/", "usr/lib/firmware/"], &root)?;
            std::fs::write(root.join("complete"), "")?;
        }
        sources.extend([root.join("lib/firmware"), root.join("usr/lib/firmware")]);
    }
    let mut count = 0;
    for name in wanted.iter().filter(|name| !recipe.firmware.skip.iter().any(|skip| name.starts_with(skip.as_str()))) {
        let Some(from) = sources.iter().map(|source| source.join(name)).find(|path| path.is_file()) else {
            continue;
        };
        let to = tree.join("lib/firmware").join(name);
        std::fs::create_dir_all(to.parent().expect("firmware lies in a folder"))?;
        std::fs::copy(from, to)?;
        count += 1;
    }
    Ok(count)
}

fn mib(bytes: usize) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
