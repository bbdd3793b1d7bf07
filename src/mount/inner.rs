//! What the mount knows and has open, and the questions that change nothing.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use fuser::{Errno, FileAttr, FileType, FopenFlags, INodeNo};
use object_store::aws::AmazonS3;

use super::MountSettings;
use super::answers::{failed, refused};
use super::changes::{Sharing, Written};
use super::listing::{Listing, NAME_MAX, Page};
use super::plain::Plain;
use super::reader::{Pool, ReadError, Reader};
use super::statistics::{STATISTICS_FILE, Statistics};
use super::tree::{Facts, ROOT, STATISTICS, Tree};
use crate::sys::clock;
use crate::sys::worker::Workers;

/// How long the kernel believes what never changes.
const FOR_EVER: Duration = Duration::from_secs(365 * 24 * 3_600);
/// How long it believes a live bucket's list. Opening a file asks in any case.
const SHORTLY: Duration = Duration::from_secs(1);

/// An object that is read.
#[derive(Clone)]
pub(super) enum Source {
    Recipe(Arc<Reader>),
    Plain(Arc<Plain>),
}

impl Source {
    pub(super) fn facts(&self) -> Facts {
        match self {
            Self::Recipe(reader) => Facts { is_folder: false, size: reader.size, modified: reader.modified },
            Self::Plain(plain) => plain.facts,
        }
    }

    pub(super) async fn read(&self, offset: u64, len: u64) -> Result<Bytes, Errno> {
        match self {
            Self::Recipe(reader) => reader.read(offset, len).await.map_err(|error| failed(&error)),
            Self::Plain(plain) => plain.read(offset, len).await.map_err(|error| refused(&error)),
        }
    }
}

/// A file that is open.
#[derive(Clone)]
pub(super) enum Open {
    /// An object, and its inode.
    Source(Source, u64),
    /// A file that is written here, and the process that opened it.
    Writes(Arc<Written>, Option<u32>),
    /// A file that is written here, by others.
    Watches(Arc<Written>),
    /// Bytes that are in no bucket.
    Shown(Bytes),
}

/// What answers the kernel's questions.
pub(super) struct Inner {
    pub(super) settings: MountSettings,
    pub(super) listing: Listing,
    pub(super) s3: Arc<AmazonS3>,
    pub(super) workers: Workers,
    pool: Arc<Pool>,
    pub(super) tree: Tree,
    pub(super) statistics: Arc<Statistics>,
    /// Files that are written, by inode.
    pub(super) writers: Mutex<HashMap<u64, Sharing>>,
    /// How long the kernel believes names and facts.
    pub(super) believed: Duration,
    files: Mutex<HashMap<u64, Open>>,
    folders: Mutex<HashMap<u64, Arc<tokio::sync::Mutex<Page>>>>,
    handles: AtomicU64,
    mounted: SystemTime,
}

impl Inner {
    pub(super) fn new(
        settings: MountSettings,
        listing: Listing,
        s3: Arc<AmazonS3>,
        pool: Arc<Pool>,
        workers: Workers,
    ) -> Self {
        Self {
            believed: if settings.bucket.contains('@') { FOR_EVER } else { SHORTLY },
            tree: Tree::new(&settings.prefix),
            statistics: listing.bucket().statistics().clone(),
            settings,
            listing,
            s3,
            workers,
            pool,
            writers: Mutex::default(),
            files: Mutex::default(),
            folders: Mutex::default(),
            handles: AtomicU64::new(1),
            mounted: clock::now().system_time(),
        }
    }

    pub(super) fn attr(&self, number: u64, facts: Facts) -> FileAttr {
        let at = match facts.modified {
            0 => self.mounted,
            modified => SystemTime::UNIX_EPOCH + Duration::from_millis(modified),
        };
        // Who may read a folder may enter it.
        let mode = if number == STATISTICS { self.settings.mode & 0o444 } else { self.settings.mode };
        let perm = if facts.is_folder { mode | (mode & 0o444) >> 2 } else { mode };
        FileAttr {
            ino: INodeNo(number),
            size: facts.size,
            blocks: facts.size.div_ceil(512),
            atime: at,
            mtime: at,
            ctime: at,
            crtime: at,
            kind: if facts.is_folder { FileType::Directory } else { FileType::RegularFile },
            perm,
            nlink: if facts.is_folder { 2 } else { 1 },
            uid: self.settings.uid,
            gid: self.settings.gid,
            rdev: 0,
            blksize: 128 * 1024,
            flags: 0,
        }
    }

    fn files(&self) -> MutexGuard<'_, HashMap<u64, Open>> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives what was opened a handle.
    pub(super) fn opened(&self, open: Open) -> u64 {
        let handle = self.handles.fetch_add(1, Ordering::Relaxed);
        self.files().insert(handle, open);
        handle
    }

    /// What is behind a handle.
    pub(super) fn open_file(&self, handle: u64) -> Option<Open> {
        self.files().get(&handle).cloned()
    }

    pub(super) fn close(&self, handle: u64) -> Option<Open> {
        self.files().remove(&handle)
    }

    pub(super) fn open_folder(&self) -> u64 {
        let handle = self.handles.fetch_add(1, Ordering::Relaxed);
        self.folders.lock().unwrap_or_else(PoisonError::into_inner).insert(handle, Arc::default());
        handle
    }

    pub(super) fn folder(&self, handle: u64) -> Option<Arc<tokio::sync::Mutex<Page>>> {
        self.folders.lock().unwrap_or_else(PoisonError::into_inner).get(&handle).cloned()
    }

    pub(super) fn close_folder(&self, handle: u64) {
        self.folders.lock().unwrap_or_else(PoisonError::into_inner).remove(&handle);
    }

    pub(super) async fn lookup(&self, parent: u64, name: &str) -> Result<(u64, Facts), Errno> {
        if (parent, name) == (ROOT, STATISTICS_FILE) {
            return Ok((STATISTICS, Facts { is_folder: false, size: 0, modified: 0 }));
        }
        if name.len() > NAME_MAX {
            return Err(Errno::ENAMETOOLONG);
        }
        let folder = self.tree.key(parent).ok_or(Errno::ESTALE)?;
        let known = self.tree.number(parent, name).filter(|number| self.writing(*number).is_some());
        if let Some(known) = known
            && let Some(facts) = self.tree.facts(known)
        {
            self.tree.hold(known);
            return Ok((known, facts));
        }
        let facts = self.listing.look_up(&folder, name).await.map_err(|error| refused(&error))?;
        let facts = facts.ok_or(Errno::ENOENT)?;
        Ok((self.tree.learn(parent, name, facts), facts))
    }

    /// What an inode is now; of a live bucket's file that is not open S3 is asked.
    pub(super) async fn facts(&self, number: u64, handle: Option<u64>) -> Result<Facts, Errno> {
        if number == STATISTICS {
            return Ok(Facts { is_folder: false, size: 0, modified: 0 });
        }
        let known = self.tree.facts(number).ok_or(Errno::ESTALE)?;
        if known.is_folder || self.believed == FOR_EVER || self.writing(number).is_some() {
            return Ok(known);
        }
        if let Some(Open::Source(source, _)) = handle.and_then(|handle| self.open_file(handle)) {
            return Ok(source.facts());
        }
        // Who has open what was removed still has it.
        let Some(key) = self.tree.key(number) else { return Ok(known) };
        let facts = self.listing.find(&key).await.map_err(|error| refused(&error))?;
        let facts = facts.ok_or(Errno::ENOENT)?;
        self.known_as(number, facts)?;
        Ok(facts)
    }

    /// Whether an inode's object is what was known of it. Where another has replaced it, the kernel is told to look up the name
    /// again, which it does at once, and comes back with another inode. A snapshot's never is: it was removed, and another has its name.
    fn known_as(&self, number: u64, facts: Facts) -> Result<bool, Errno> {
        self.tree.adopt(number, facts).ok_or(Errno::ESTALE)
    }

    /// Whether an object is open for reading.
    pub(super) fn is_read(&self, inode: u64) -> bool {
        self.files().values().any(|open| matches!(open, Open::Source(_, of) if *of == inode))
    }

    /// Opens an object by its recipe, or over S3 where it is encrypted.
    pub(super) async fn source(&self, key: String) -> Result<Source, Errno> {
        let encrypted = |error: &ReadError| matches!(error, ReadError::Pull(error) if error.status().is_some_and(|status| status.as_u16() == 409));
        match self.pool.open(key.clone()).await {
            Ok(reader) => Ok(Source::Recipe(reader)),
            Err(error) if encrypted(&error) => {
                let found = self.listing.object(&key).await.map_err(|error| refused(&error))?;
                let (facts, etag) = found.ok_or(Errno::ENOENT)?;
                Ok(Source::Plain(Arc::new(Plain::new(self.listing.bucket().clone(), key, facts, etag))))
            }
            Err(error) => Err(failed(&error)),
        }
    }

    pub(super) async fn open(&self, number: u64) -> Result<(u64, FopenFlags), Errno> {
        if number == STATISTICS {
            return Ok((self.opened(Open::Shown(self.shown().into())), FopenFlags::FOPEN_DIRECT_IO));
        }
        if let Some(written) = self.watch(number).await? {
            return Ok((self.opened(Open::Watches(written)), FopenFlags::FOPEN_DIRECT_IO));
        }
        let key = self.tree.key(number).ok_or(Errno::ESTALE)?;
        let source = self.source(key).await?;
        let keeps = self.known_as(number, source.facts())?;
        let handle = self.opened(Open::Source(source, number));
        let kept = if keeps { FopenFlags::FOPEN_KEEP_CACHE } else { FopenFlags::empty() };
        // Nothing is written by it: the kernel need not ask at its end.
        Ok((handle, kept | FopenFlags::FOPEN_NOFLUSH))
    }

    pub(super) async fn read(&self, handle: u64, offset: u64, len: u64) -> Result<Bytes, Errno> {
        let bytes = match self.open_file(handle).ok_or(Errno::EBADF)? {
            Open::Source(source, _) => source.read(offset, len).await?,
            Open::Writes(written, _) | Open::Watches(written) => self.read_back(&written, offset, len).await?,
            Open::Shown(bytes) => {
                let at = |place: u64| usize::try_from(place).unwrap_or(usize::MAX).min(bytes.len());
                return Ok(bytes.slice(at(offset)..at(offset.saturating_add(len))));
            }
        };
        self.statistics.read_bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        Ok(bytes)
    }

    /// The statistics, as the file at the root shows them.
    fn shown(&self) -> String {
        let mut figures = self.statistics.figures();
        figures.network_bytes += self.pool.bytes_fetched();
        figures.open_files = self.files().len() as u64;
        figures.known_names = self.tree.len();
        figures.seconds = self.mounted.elapsed().unwrap_or_default().as_secs();
        // A record of numbers has a text.
        serde_json::to_string_pretty(&figures).unwrap_or_default() + "\n"
    }
}
