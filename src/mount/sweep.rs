//! Keeps the cache's folder within its bounds: what was used longest ago goes first.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// Bytes of a block as stat(2) counts them.
const BLOCK: u64 = 512;
/// Once there is too much, eighths of the limit that stay.
const STAY: u64 = 7;

/// A file that may go.
struct Held {
    /// When it was last used, in seconds since 1970.
    used: i64,
    bytes: u64,
    /// Its folder's number, and its name.
    folder: usize,
    name: Box<std::ffi::OsStr>,
}

/// Removes what was used longest ago, where the files take more than `limit` bytes of disk; answers what the others take.
pub(super) fn sweep(folder: &Path, limit: u64) -> io::Result<u64> {
    let (mut folders, mut files, mut total) = (Vec::<PathBuf>::new(), Vec::new(), 0);
    for shard in fs::read_dir(folder)? {
        let shard = shard?.path();
        let Ok(entries) = fs::read_dir(&shard) else { continue };
        for entry in entries {
            // Another daemon may have removed it.
            let Ok(entry) = entry else { continue };
            let Ok(facts) = entry.metadata() else { continue };
            let bytes = facts.blocks() * BLOCK;
            total += bytes;
            let name = entry.file_name().into_boxed_os_str();
            files.push(Held { used: facts.mtime(), bytes, folder: folders.len(), name });
        }
        folders.push(shard);
    }
    if total <= limit {
        return Ok(total);
    }
    files.sort_unstable_by_key(|file| file.used);
    for file in files {
        if total <= limit / 8 * STAY {
            break;
        }
        if fs::remove_file(folders[file.folder].join(&*file.name)).is_ok() {
            total -= file.bytes;
        }
    }
    Ok(total)
}
