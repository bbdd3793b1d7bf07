//! Chunks on the node's disk, shared by all mounts of the node. A file's name is the digest of what it holds, so that no index
//! can be wrong, nothing is ever stale, and what is damaged is noticed when it is read. Files are written beside their place
//! and renamed into it: who is killed leaves nothing but a file that the next clean-up removes.

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use crate::format::digest::chunk_digest;
use crate::model::Digest;
use crate::sys::clock;

/// Folders that the files are spread over.
const SHARDS: u64 = 256;
/// Writes of this process into one folder after which it looks what others have put there.
const LOOK_EVERY: u32 = 32;
/// A file that was used in this time is not marked as used again.
const MARK_EVERY: Duration = Duration::from_secs(600);
/// What a file is called until it is whole.
const UNFINISHED: &str = "unfinished";
/// A file that is not whole after this time belongs to nobody any more.
const ABANDONED: Duration = Duration::from_secs(3_600);

/// The cache; clones share it.
#[derive(Clone)]
pub struct Cache {
    inner: Arc<Inner>,
}

struct Inner {
    folder: PathBuf,
    shard_bytes: u64,
    shards: Vec<Mutex<Shard>>,
    fresh: AtomicU64,
}

/// What this process knows of one folder.
#[derive(Default)]
struct Shard {
    bytes: Option<u64>,
    writes: u32,
}

impl Cache {
    /// A cache in `folder` of at most about `bytes`.
    pub fn open(folder: &Path, bytes: u64) -> io::Result<Self> {
        // What is cached is as private as the bucket.
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        let shards = (0..SHARDS).map(|_| Mutex::default()).collect();
        let inner = Inner { folder: folder.to_owned(), shard_bytes: bytes / SHARDS, shards, fresh: AtomicU64::new(0) };
        Ok(Self { inner: Arc::new(inner) })
    }

    fn folder_of(&self, digest: &Digest) -> PathBuf {
        self.inner.folder.join(format!("{:02x}", digest.0[0]))
    }

    /// The chunk, where it is here whole; what is damaged is removed. Blocks.
    #[must_use]
    pub fn find(&self, digest: &Digest, len: u32) -> Option<Vec<u8>> {
        let path = self.folder_of(digest).join(hex::encode(digest.0));
        let bytes = fs::read(&path).ok()?;
        if bytes.len() != len as usize || chunk_digest(&bytes) != *digest {
            tracing::warn!(file = %path.display(), "a cached chunk is damaged; it is fetched again");
            drop(fs::remove_file(&path));
            return None;
        }
        mark_used(&path);
        Some(bytes)
    }

    /// Keeps a chunk that is known to have this digest. Blocks.
    pub fn keep(&self, digest: &Digest, bytes: &[u8]) -> io::Result<()> {
        let folder = self.folder_of(digest);
        fs::create_dir_all(&folder)?;
        let fresh = self.inner.fresh.fetch_add(1, Ordering::Relaxed);
        let unfinished = folder.join(format!("{UNFINISHED}-{}-{fresh}", std::process::id()));
        let written =
            fs::write(&unfinished, bytes).and_then(|()| fs::rename(&unfinished, folder.join(hex::encode(digest.0))));
        if written.is_err() {
            drop(fs::remove_file(&unfinished));
        }
        written?;
        let shard = &self.inner.shards[usize::from(digest.0[0])];
        let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
        shard.writes += 1;
        shard.bytes = shard.bytes.map(|before| before + bytes.len() as u64);
        let is_due = shard.writes.is_multiple_of(LOOK_EVERY);
        if is_due || shard.bytes.is_none_or(|bytes| bytes > self.inner.shard_bytes) {
            shard.bytes = Some(evict(&folder, self.inner.shard_bytes)?);
        }
        Ok(())
    }
}

/// Removes what was used longest ago until three quarters of `limit` are left, where there is more than `limit`; answers what is left.
fn evict(folder: &Path, limit: u64) -> io::Result<u64> {
    let mut files = Vec::new();
    let mut total = 0;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        // Another mount may have removed it.
        let Ok(facts) = entry.metadata() else { continue };
        let used = facts.modified().unwrap_or(SystemTime::UNIX_EPOCH);
        if entry.file_name().to_string_lossy().starts_with(UNFINISHED) {
            if used.elapsed().is_ok_and(|age| age > ABANDONED) {
                drop(fs::remove_file(entry.path()));
            }
            continue;
        }
        total += facts.len();
        files.push((used, facts.len(), entry.path()));
    }
    if total <= limit {
        return Ok(total);
    }
    files.sort_unstable_by_key(|(used, ..)| *used);
    for (_, bytes, path) in files {
        if total <= limit / 4 * 3 {
            break;
        }
        drop(fs::remove_file(path));
        total -= bytes;
    }
    Ok(total)
}

/// Says that a file was used now, where it does not say so already.
fn mark_used(path: &Path) {
    let is_marked = |at: SystemTime| at.elapsed().is_ok_and(|age| age < MARK_EVERY);
    let Ok(file) = fs::File::open(path) else { return };
    if !file.metadata().and_then(|facts| facts.modified()).is_ok_and(is_marked) {
        // A file that cannot be marked is removed sooner than others: it is fetched again.
        drop(file.set_modified(clock::now().system_time()));
    }
}

#[cfg(test)]
mod tests {
    //! What is kept is found; damage is noticed; the size stays bounded.
    use super::*;

    #[test]
    fn finds_verifies_and_stays_small() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::open(folder.path(), SHARDS * 100_000).unwrap();
        let bytes = vec![7; 20_000];
        let digest = chunk_digest(&bytes);
        assert_eq!(cache.find(&digest, 20_000), None);
        cache.keep(&digest, &bytes).unwrap();
        assert_eq!(cache.find(&digest, 20_000).as_deref(), Some(&bytes[..]));
        let path = cache.folder_of(&digest).join(hex::encode(digest.0));
        fs::write(&path, vec![8; 20_000]).unwrap();
        assert_eq!(cache.find(&digest, 20_000), None);
        assert!(!path.exists());
        for number in 0..100u8 {
            cache.keep(&Digest([1, number].repeat(16).try_into().unwrap()), &bytes).unwrap();
        }
        let kept = fs::read_dir(folder.path().join("01")).unwrap().count();
        assert!((2..=5).contains(&kept), "{kept} files");
    }
}
