//! An initramfs: a folder as a newc archive, zstd. The same tree gives the same bytes: sorted, without times or owners.

use std::io::Write;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use anyhow::{Context as _, Result};
use cpio::newc::{Builder, ModeFileType, trailer};

/// Packs all of `tree`.
pub fn pack(tree: &Path) -> Result<Vec<u8>> {
    let mut paths = Vec::new();
    walk(tree, "", &mut paths)?;
    paths.sort();
    let mut archive = zstd::Encoder::new(Vec::new(), 12)?;
    for (inode, path) in (1..).zip(&paths) {
        let full = tree.join(path);
        let meta = std::fs::symlink_metadata(&full)?;
        let builder = Builder::new(path).ino(inode).nlink(1).uid(0).gid(0).mtime(0);
        if meta.is_dir() {
            let builder = builder.mode(0o755).set_mode_file_type(ModeFileType::Directory);
            archive = builder.write(archive, 0).finish()?;
            continue;
        }
        let content = if meta.is_symlink() {
            std::fs::read_link(&full)?.to_string_lossy().into_owned().into_bytes()
        } else {
            std::fs::read(&full)?
        };
        let (mode, kind) = match (meta.is_symlink(), meta.permissions().mode() & 0o111) {
            (true, _) => (0o777, ModeFileType::Symlink),
            (false, 0) => (0o644, ModeFileType::Regular),
            (false, _) => (0o755, ModeFileType::Regular),
        };
        let length = u32::try_from(content.len()).with_context(|| format!("{path} is too long"))?;
        let mut writer = builder.mode(mode).set_mode_file_type(kind).write(archive, length);
        writer.write_all(&content)?;
        archive = writer.finish()?;
    }
    Ok(trailer(archive)?.finish()?)
}

fn walk(root: &Path, below: &str, paths: &mut Vec<String>) -> Result<()> {
    for entry in std::fs::read_dir(root.join(below))? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let path = if below.is_empty() { name } else { format!("{below}/{name}") };
        if entry.file_type()?.is_dir() {
            walk(root, &path, paths)?;
        }
        paths.push(path);
    }
    Ok(())
}
