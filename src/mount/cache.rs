//! Chunks on the node's disk, shared by all mounts of the node: one sparse file for each group of chunks, named by what it
//! holds, with every chunk at its place in the group. There is no index that could be wrong, and nothing is ever stale. What is
//! read is compared with the chunks' digests by whoever asks: a hole is a chunk that is not here yet, anything else that does
//! not match is damage, and is written over once it was fetched. So daemons need not know of each other, and one that is killed
//! in the middle of a write leaves at worst a chunk that is fetched again.
//!
//! Of snapshots, recipes are kept too, each in a file of its own that begins with a hash of its name and what it holds.
//!
//! Writes go behind the readers: a thread does them, and what it cannot keep up with is not kept. What is long is written and read
//! past the page cache: it is there as the mounted file's already, or will be.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read as _};
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use rustix::fs::OFlags;

use super::sweep::sweep;
use crate::model::Digest;
use crate::sys::clock;
use crate::sys::disk::ALIGN;

/// The folder of this layout, within the one that was named.
const LAYOUT: &str = "v2";
/// A file that was used in this time is not marked as used again.
const MARK_EVERY: Duration = Duration::from_secs(600);
/// Bytes that wait to be written, at most.
const QUEUE: u64 = 32 * 1024 * 1024;
/// The flag that goes past the page cache.
const DIRECT: i32 = OFlags::DIRECT.bits().cast_signed();
/// Bytes from which a read or a write does, where it can.
const DIRECT_MIN: usize = 256 * 1024;
/// Bytes that a recipe's file begins with, before the recipe.
const CHECK: usize = 32;
/// Which part of the cache is written before it is looked at again: others write too.
const LOOK_AGAIN: u64 = 16;

/// The cache; clones share it.
#[derive(Clone)]
pub struct Cache {
    inner: Arc<Inner>,
}

struct Inner {
    folder: PathBuf,
    limit: u64,
    queue: Sender<Job>,
    queued: AtomicU64,
    /// Bytes in the folder, as far as is known.
    held: AtomicU64,
    /// Bytes that were written since it was looked.
    fresh: AtomicU64,
    is_swept: AtomicBool,
}

enum Job {
    /// Bytes of a file, or all of it.
    Write {
        name: String,
        offset: u64,
        bytes: Bytes,
        is_all: bool,
    },
    Settle(Sender<()>),
}

impl Cache {
    /// A cache in `folder` of about `bytes` at most.
    pub fn open(folder: &Path, bytes: u64) -> io::Result<Self> {
        let (queue, jobs) = channel();
        let inner = Arc::new(Inner {
            folder: folder.join(LAYOUT),
            limit: bytes,
            queue,
            queued: AtomicU64::new(0),
            held: AtomicU64::new(0),
            fresh: AtomicU64::new(0),
            is_swept: AtomicBool::new(false),
        });
        // What is cached is as private as the bucket.
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&inner.folder)?;
        let weak = Arc::downgrade(&inner);
        std::thread::Builder::new().name("cache".to_owned()).spawn(move || {
            if let Some(inner) = weak.upgrade() {
                inner.sweep();
            }
            write_behind(&weak, &jobs);
        })?;
        Ok(Self { inner })
    }

    /// Reads bytes of a group's file into `out`, which is zeros, and stays so where there are none; whether there is such a file.
    /// Blocks.
    pub(super) fn read(&self, group: &Digest, offset: u64, out: &mut [u8]) -> bool {
        let path = self.inner.path(&hex::encode(group.0));
        let Ok(file) = File::open(&path) else { return false };
        let mut done = 0;
        let direct = direct_len(offset, out);
        if direct > 0
            && let Ok(file) = OpenOptions::new().read(true).custom_flags(DIRECT).open(&path)
        {
            done = read_blocks(&file, offset, &mut out[..direct]);
        }
        // What a disk cannot read is not here.
        while let Ok(read @ 1..) = file.read_at(&mut out[done..], offset + done as u64) {
            done += read;
        }
        mark_used(&file);
        true
    }

    /// Keeps bytes of a group that are known to be right, some time soon, or not at all.
    pub(super) fn keep(&self, group: &Digest, offset: u64, bytes: Bytes) {
        self.inner.enqueue(hex::encode(group.0), offset, bytes, false);
    }

    /// A recipe that was kept under this name, whole. Blocks.
    pub(super) fn recipe(&self, name: &Digest) -> Option<Vec<u8>> {
        let mut file = File::open(self.inner.path(&recipe_file(name))).ok()?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).ok()?;
        let recipe = bytes.split_off(bytes.len().min(CHECK));
        if seal(name, &recipe) != bytes[..] {
            tracing::warn!(recipe = name.short(), "a cached recipe is damaged; it is fetched again");
            return None;
        }
        mark_used(&file);
        Some(recipe)
    }

    /// Keeps a recipe, some time soon, or not at all.
    pub(super) fn keep_recipe(&self, name: &Digest, recipe: &[u8]) {
        let bytes = [&seal(name, recipe)[..], recipe].concat();
        self.inner.enqueue(recipe_file(name), 0, bytes.into(), true);
    }

    /// Waits until what was to be kept is written, or is not going to be. Blocks.
    pub fn settle(&self) {
        let (done, wait) = channel();
        if self.inner.queue.send(Job::Settle(done)).is_ok() {
            // Nobody answers where the thread is gone.
            let _ended = wait.recv();
        }
    }
}

impl Inner {
    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(&name[..2]).join(name)
    }

    fn enqueue(&self, name: String, offset: u64, bytes: Bytes, is_all: bool) {
        let len = bytes.len() as u64;
        if self.queued.fetch_add(len, Ordering::Relaxed) + len > QUEUE {
            self.queued.fetch_sub(len, Ordering::Relaxed);
            tracing::debug!(len, "the disk cannot keep up; what was read is not cached");
            return;
        }
        // The thread ends with the cache.
        drop(self.queue.send(Job::Write { name, offset, bytes, is_all }));
    }

    fn write(&self, name: &str, offset: u64, bytes: &[u8], is_all: bool) -> io::Result<()> {
        // The page cache takes what a disk is slow to take.
        let is_late = self.queued.load(Ordering::Relaxed) > QUEUE / 2;
        let direct = if is_late || is_all { 0 } else { direct_len(offset, bytes) };
        let mut done = 0;
        if direct > 0
            && let Ok(file) = self.open(name, DIRECT)
            && file.write_all_at(&bytes[..direct], offset).is_ok()
        {
            done = direct;
        }
        if done < bytes.len() {
            let file = self.open(name, 0)?;
            file.write_all_at(&bytes[done..], offset + done as u64)?;
            if is_all {
                file.set_len(bytes.len() as u64)?;
            }
        }
        self.fresh.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        Ok(())
    }

    fn open(&self, name: &str, flags: i32) -> io::Result<File> {
        let path = self.path(name);
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(false).custom_flags(flags);
        match options.open(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                fs::create_dir_all(path.parent().unwrap_or(&self.folder))?;
                options.open(&path)
            }
            opened => opened,
        }
    }

    /// Whether it is time to look what is there.
    fn is_due(&self) -> bool {
        let (fresh, held) = (self.fresh.load(Ordering::Relaxed), self.held.load(Ordering::Relaxed));
        fresh > self.limit / LOOK_AGAIN || held + fresh > self.limit
    }

    /// Looks what is there, and removes what is too much.
    fn sweep(&self) {
        if self.is_swept.swap(true, Ordering::Acquire) {
            return;
        }
        self.fresh.store(0, Ordering::Relaxed);
        match sweep(&self.folder, self.limit) {
            Ok(held) => self.held.store(held, Ordering::Relaxed),
            Err(error) => tracing::warn!(%error, "the cache cannot be looked through"),
        }
        self.is_swept.store(false, Ordering::Release);
    }
}

/// Does what is queued, for as long as the cache is in use.
fn write_behind(cache: &std::sync::Weak<Inner>, jobs: &Receiver<Job>) {
    let mut failing = false;
    while let Ok(job) = jobs.recv() {
        match job {
            Job::Settle(done) => drop(done.send(())),
            Job::Write { name, offset, bytes, is_all } => {
                let Some(inner) = cache.upgrade() else { return };
                let written = inner.write(&name, offset, &bytes, is_all);
                inner.queued.fetch_sub(bytes.len() as u64, Ordering::Relaxed);
                // A cache that is full or gone slows reads down and fails none; said once.
                if let Err(error) = &written
                    && !failing
                {
                    tracing::warn!(%error, "what was read is not cached");
                }
                failing = written.is_err();
                // Beside, so that writes go on.
                if inner.is_due() && !inner.is_swept.load(Ordering::Relaxed) {
                    std::thread::spawn(move || inner.sweep());
                }
            }
        }
    }
}

/// How many of these bytes can go past the page cache, from the first on, and are worth it.
fn direct_len(offset: u64, bytes: &[u8]) -> usize {
    let fits = offset.is_multiple_of(ALIGN as u64) && bytes.as_ptr().addr().is_multiple_of(ALIGN);
    if fits && bytes.len() >= DIRECT_MIN { bytes.len() / ALIGN * ALIGN } else { 0 }
}

/// Reads whole blocks, as far as there are any; answers how many bytes that are.
fn read_blocks(file: &File, offset: u64, out: &mut [u8]) -> usize {
    let mut at = 0;
    while let Ok(read @ 1..) = file.read_at(&mut out[at..], offset + at as u64) {
        at += read;
        if !read.is_multiple_of(ALIGN) {
            // The file's end.
            break;
        }
    }
    at
}

fn recipe_file(name: &Digest) -> String {
    format!("{}.recipe", hex::encode(name.0))
}

/// What a recipe's file begins with: it is this recipe's, and whole.
fn seal(name: &Digest, recipe: &[u8]) -> [u8; CHECK] {
    blake3::keyed_hash(&name.0, recipe).into()
}

/// Says that a file was used now, where it does not say so already.
fn mark_used(file: &File) {
    let is_marked = |at: SystemTime| at.elapsed().is_ok_and(|age| age < MARK_EVERY);
    if !file.metadata().and_then(|facts| facts.modified()).is_ok_and(is_marked) {
        // A file that cannot be marked is removed sooner than others: it is fetched again.
        drop(file.set_modified(clock::now().system_time()));
    }
}

#[cfg(test)]
mod tests {
    //! What is kept is found, holes are holes, and the size stays bounded.
    use super::*;
    use crate::sys::disk::Aligned;

    fn group(number: u8) -> Digest {
        Digest([number; 32])
    }

    #[test]
    fn keeps_chunks_at_their_places() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::open(folder.path(), 1 << 30).unwrap();
        let read = |cache: &Cache, number: u8, offset: u64, len: usize| {
            let mut out = vec![0; len];
            cache.read(&group(number), offset, &mut out).then_some(out)
        };
        assert_eq!(read(&cache, 7, 0, 5), None);
        cache.keep(&group(7), 10_000, Bytes::from(vec![3; 5_000]));
        cache.settle();
        let expected = [vec![0; 5_000], vec![3; 5_000], vec![0; 20_000]].concat();
        assert!(read(&cache, 7, 5_000, 30_000).unwrap() == expected);
        // Another daemon's view.
        let other = Cache::open(folder.path(), 1 << 30).unwrap();
        assert!(read(&other, 7, 10_000, 5_000).unwrap() == vec![3; 5_000]);
    }

    #[test]
    fn long_writes_are_whole() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::open(folder.path(), 1 << 30).unwrap();
        let (kept, len) = (10_000, DIRECT_MIN + 10_001);
        let mut bytes = Aligned::zeroed(len);
        bytes.iter_mut().enumerate().for_each(|(at, byte)| *byte = (at % 251) as u8);
        let bytes = Bytes::from_owner(bytes);
        assert_eq!(direct_len(0, &bytes), len / ALIGN * ALIGN);
        assert_eq!([direct_len(1, &bytes), direct_len(0, &bytes[1..]), direct_len(0, &bytes[..kept])], [0; 3]);
        for (number, offset) in [(1, 0), (2, ALIGN as u64), (3, 5)] {
            // What is behind stays.
            cache.keep(&group(number), offset + len as u64, bytes.slice(..kept));
            cache.keep(&group(number), offset, bytes.clone());
            cache.settle();
            // Into memory that is aligned, and not; as far as there is something, and beyond.
            for (into, more) in [(0, 0), (1, 0), (0, 3 * ALIGN), (0, 5)] {
                let mut out = Aligned::zeroed(into + len + kept + more);
                let out = &mut out[into..];
                assert_eq!(direct_len(offset, out) > 0, into == 0 && offset != 5);
                assert!(cache.read(&group(number), offset, out));
                let (long, rest) = out.split_at(len);
                assert!(*long == bytes[..] && rest[..kept] == bytes[..kept], "at {offset}");
                assert!(rest[kept..].iter().all(|byte| *byte == 0), "at {offset}");
            }
        }
    }

    #[test]
    fn keeps_recipes_whole() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::open(folder.path(), 1 << 30).unwrap();
        for recipe in [&b"a longer recipe"[..], b"recipe"] {
            cache.keep_recipe(&group(1), recipe);
            cache.settle();
            assert_eq!(cache.recipe(&group(1)).as_deref(), Some(recipe));
        }
        let path = cache.inner.path(&recipe_file(&group(1)));
        let whole = fs::read(&path).unwrap();
        for at in 0..whole.len() {
            let mut bad = whole.clone();
            bad[at] ^= 1;
            fs::write(&path, bad).unwrap();
            assert_eq!(cache.recipe(&group(1)), None);
            fs::write(&path, &whole[..at]).unwrap();
            assert_eq!(cache.recipe(&group(1)), None);
        }
        // Another's under this name.
        fs::write(cache.inner.path(&recipe_file(&group(1))).with_file_name(recipe_file(&group(2))), &whole).unwrap();
        assert_eq!(cache.recipe(&group(2)), None);
    }

    #[test]
    fn stays_small_and_forgets_the_oldest() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::open(folder.path(), 1_000_000).unwrap();
        for number in 0..60 {
            cache.keep(&group(number), 0, Bytes::from(vec![1; 100_000]));
            cache.settle();
            let path = cache.inner.path(&hex::encode(group(number).0));
            let used = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000 + u64::from(number));
            drop(File::options().write(true).open(path).unwrap().set_modified(used));
        }
        // One that a write began may be under way, and another does nothing then.
        while cache.inner.is_swept.load(Ordering::Acquire) {
            std::thread::yield_now();
        }
        cache.inner.sweep();
        let kept: Vec<u8> = (0..60).filter(|number| cache.read(&group(*number), 0, &mut [0])).collect();
        assert!((5..=10).contains(&kept.len()), "{kept:?}");
        assert_eq!(kept[0], 60 - kept.len() as u8);
    }
}
