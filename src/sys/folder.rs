//! Folders: a lock that names the process that holds it, durable creation, and what a crash leaves behind.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::path::{Path, PathBuf};

/// Why a folder could not be locked.
#[derive(Debug, thiserror::Error)]
pub enum FolderLockError {
    /// Another process holds it.
    #[error("{path} is in use by {holder}; stop that process, or use another folder")]
    Held {
        /// The folder.
        path: PathBuf,
        /// Who holds it, as that process wrote itself down.
        holder: String,
    },
    /// The lock file could not be opened or written.
    #[error("cannot lock {path}; check that the folder exists and that this user may write to it")]
    Io {
        /// The lock file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// Holds a folder for this process until it is dropped; the kernel lets go of it when the process dies.
#[derive(Debug)]
pub struct FolderLock {
    _file: File,
}

impl FolderLock {
    /// Locks `folder` through the file `lock` in it.
    pub fn take(folder: &Path) -> Result<Self, FolderLockError> {
        let path = folder.join("lock");
        let fail = |source| FolderLockError::Io { path: path.clone(), source };
        let mut file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path).map_err(fail)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                let _ = file.read_to_string(&mut holder);
                let holder = holder.trim();
                let holder = if holder.is_empty() { "another process" } else { holder }.to_owned();
                return Err(FolderLockError::Held { path: folder.to_owned(), holder });
            }
            Err(TryLockError::Error(source)) => return Err(fail(source)),
        }
        let write = |file: &mut File| -> io::Result<()> {
            file.set_len(0)?;
            file.rewind()?;
            writeln!(file, "process {}", std::process::id())
        };
        write(&mut file).map_err(fail)?;
        Ok(Self { _file: file })
    }
}

/// Creates a folder with its parents, durably: each new folder's entry is on disk when this returns.
pub fn create(folder: &Path) -> io::Result<()> {
    let mut missing = Vec::new();
    let mut at = folder;
    while !at.exists() {
        missing.push(at.to_owned());
        match at.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => at = parent,
            _ => break,
        }
    }
    std::fs::create_dir_all(folder)?;
    for made in missing.iter().rev() {
        let parent = match made.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        File::open(parent)?.sync_all()?;
    }
    Ok(())
}

/// Removes the files below `folder` whose name `is_left_over` accepts, two levels deep; answers how many there were.
/// Only for a folder that this process holds.
pub fn sweep(folder: &Path, is_left_over: impl Fn(&str) -> bool) -> io::Result<u64> {
    let mut removed = 0;
    for shard in std::fs::read_dir(folder)? {
        let shard = shard?;
        if !shard.file_type()?.is_dir() {
            continue;
        }
        for entry in std::fs::read_dir(shard.path())? {
            let entry = entry?;
            if entry.file_type()?.is_file() && entry.file_name().to_str().is_some_and(&is_left_over) {
                std::fs::remove_file(entry.path())?;
                removed += 1;
            }
        }
    }
    Ok(removed)
}

#[cfg(test)]
mod tests {
    //! A held folder names its holder; a sweep takes only what it was told to.
    use super::*;

    #[test]
    fn a_second_holder_is_told_who_has_it() {
        let folder = tempfile::tempdir().unwrap();
        let first = FolderLock::take(folder.path()).unwrap();
        let Err(FolderLockError::Held { holder, .. }) = FolderLock::take(folder.path()) else {
            panic!("locked twice");
        };
        assert_eq!(holder, format!("process {}", std::process::id()));
        drop(first);
        FolderLock::take(folder.path()).unwrap();
    }

    #[test]
    fn sweeps_what_is_left_over() {
        let folder = tempfile::tempdir().unwrap();
        let shard = folder.path().join("a/b");
        create(&shard).unwrap();
        std::fs::write(shard.join("keep.pack"), "x").unwrap();
        std::fs::write(shard.join("keep.pack#1"), "x").unwrap();
        assert_eq!(sweep(&folder.path().join("a"), |name| name.contains('#')).unwrap(), 1);
        assert!(shard.join("keep.pack").exists());
    }
}
