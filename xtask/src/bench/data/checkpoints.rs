//! The checkpoints that the project keeps beside its repository.

use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::shell;

/// Copies them; `false` where there are none on this machine.
pub fn write(into: &Path) -> Result<bool> {
    let Some(folder) = find() else {
        println!(
            "SKIPPED: no checkpoints (shared/data/checkpoints beside the repository, or BEDPLATE_BENCH_CHECKPOINTS)"
        );
        return Ok(false);
    };
    for file in super::files(&folder)? {
        if file.extension().is_some_and(|extension| extension == "safetensors") {
            let target = into.join(file.strip_prefix(&folder)?);
            // Not std::fs::copy: the originals may be read-only, and what is made here must be easy to remove.
            std::io::copy(&mut std::fs::File::open(&file)?, &mut std::fs::File::create(target)?)?;
        }
    }
    Ok(true)
}

fn find() -> Option<PathBuf> {
    if let Some(folder) = std::env::var_os("BEDPLATE_BENCH_CHECKPOINTS") {
        return Some(folder.into());
    }
    let root = shell::root();
    root.ancestors().skip(1).map(|folder| folder.join("shared/data/checkpoints")).find(|folder| folder.is_dir())
}
