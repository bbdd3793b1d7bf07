//! The kernel's questions: each is answered by a task of its own, so that one that waits for the appliance holds up no other.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use fuser::{
    BsdFileFlags, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo, InitFlags,
    KernelConfig, LockOwner, OpenAccMode, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory,
    ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyStatfs, ReplyWrite, ReplyXattr, Request, TimeOrNow,
    WriteFlags,
};
use tokio::runtime::Handle;

use super::MountSettings;
use super::changes::Written;
use super::listing::{Entry, Listing};
use super::reader::{Pool, ReadError, Reader};
use super::tree::{Facts, Tree, number_of};
use crate::pull::with_causes;
use crate::sys::clock;
use crate::sys::worker::Workers;

/// How long the kernel believes what never changes.
const FOR_EVER: Duration = Duration::from_secs(365 * 24 * 3_600);
/// How long it believes a live bucket's list. Opening a file asks in any case.
const SHORTLY: Duration = Duration::from_secs(1);

/// The mount as the kernel asks it.
pub(super) struct Door {
    inner: Arc<Inner>,
    workers: Workers,
    runtime: Handle,
}

pub(super) struct Inner {
    pub(super) settings: MountSettings,
    pub(super) listing: Listing,
    pool: Pool,
    pub(super) tree: Tree,
    /// Files that are written, by handle.
    pub(super) writers: Mutex<HashMap<u64, Arc<Written>>>,
    mounted: SystemTime,
    /// How long the kernel believes names and facts.
    believed: Duration,
    files: Mutex<HashMap<u64, Arc<Reader>>>,
    folders: Mutex<HashMap<u64, Arc<tokio::sync::Mutex<Page>>>>,
    handles: AtomicU64,
}

/// Where a list of a folder is: a page, and how many names came before it.
#[derive(Default)]
struct Page {
    before: u64,
    entries: Vec<Entry>,
    token: Option<String>,
    is_begun: bool,
}

/// What fills an answer with names.
enum Filled {
    Plain(ReplyDirectory),
    Plus(ReplyDirectoryPlus),
}

impl Door {
    pub(super) fn new(settings: MountSettings, listing: Listing, pool: Pool, workers: Workers) -> Self {
        let believed = if settings.bucket.contains('@') { FOR_EVER } else { SHORTLY };
        let tree = Tree::new(&settings.prefix);
        let inner = Inner {
            settings,
            listing,
            pool,
            tree,
            writers: Mutex::default(),
            mounted: clock::now().system_time(),
            believed,
            files: Mutex::default(),
            folders: Mutex::default(),
            handles: AtomicU64::new(1),
        };
        Self { inner: Arc::new(inner), workers, runtime: Handle::current() }
    }

    fn answer<F: Future<Output = ()> + Send + 'static>(&self, work: impl FnOnce(Arc<Inner>) -> F) {
        let _within = self.runtime.enter();
        self.workers.spawn("answer", work(self.inner.clone()));
    }

    fn list(&self, ino: INodeNo, fh: FileHandle, offset: u64, reply: Filled) {
        self.answer(|inner| async move { inner.fill(ino.0, fh.0, offset, reply).await });
    }
}

impl Inner {
    fn attr(&self, number: u64, facts: Facts) -> FileAttr {
        let at = match facts.modified {
            0 => self.mounted,
            modified => SystemTime::UNIX_EPOCH + Duration::from_millis(modified),
        };
        // Who may read a folder may enter it.
        let mode = self.settings.mode;
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

    pub(super) fn fresh_handle(&self) -> u64 {
        self.handles.fetch_add(1, Ordering::Relaxed)
    }

    async fn lookup(&self, parent: u64, name: &str) -> Result<(u64, Facts), Errno> {
        let folder = self.tree.key(parent).ok_or(Errno::ESTALE)?;
        if self.writing(number_of(parent, name)).is_some()
            && let Some(facts) = self.tree.facts(number_of(parent, name))
        {
            return Ok((self.tree.learn(parent, name, facts), facts));
        }
        let facts = self.listing.find(&format!("{folder}{name}")).await.map_err(|error| refused(&error))?;
        let facts = facts.ok_or(Errno::ENOENT)?;
        Ok((self.tree.learn(parent, name, facts), facts))
    }

    /// What an inode is now; of a live bucket's file S3 is asked.
    pub(super) async fn facts(&self, number: u64) -> Result<Facts, Errno> {
        let known = self.tree.facts(number).ok_or(Errno::ESTALE)?;
        if known.is_folder || self.believed == FOR_EVER || self.writing(number).is_some() {
            return Ok(known);
        }
        let key = self.tree.key(number).ok_or(Errno::ESTALE)?;
        let facts = self.listing.find(&key).await.map_err(|error| refused(&error))?.ok_or(Errno::ENOENT)?;
        self.tree.correct(number, facts);
        Ok(facts)
    }

    async fn open(&self, number: u64) -> Result<(u64, FopenFlags), Errno> {
        let key = self.tree.key(number).ok_or(Errno::ESTALE)?;
        let reader = self.pool.open(key).await.map_err(|error| failed(&error))?;
        let facts = Facts { is_folder: false, size: reader.size, modified: reader.modified };
        let changed = self.tree.correct(number, facts);
        let handle = self.fresh_handle();
        self.files.lock().unwrap_or_else(PoisonError::into_inner).insert(handle, reader);
        let keeps = !changed && self.believed == FOR_EVER;
        Ok((handle, if keeps { FopenFlags::FOPEN_KEEP_CACHE } else { FopenFlags::empty() }))
    }

    fn reader(&self, handle: u64) -> Option<Arc<Reader>> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner).get(&handle).cloned()
    }

    /// Brings a folder's list to the page that holds `at`.
    async fn turn(&self, page: &mut Page, folder: &str, at: u64) -> Result<(), Errno> {
        if !page.is_begun || at < page.before {
            *page = Page::default();
        }
        while !page.is_begun || at >= page.before + page.entries.len() as u64 && page.token.is_some() {
            let before = page.before + page.entries.len() as u64;
            let token = page.token.take();
            let (entries, token) = self.listing.page(folder, token, None).await.map_err(|error| refused(&error))?;
            *page = Page { before, entries, token, is_begun: true };
        }
        Ok(())
    }

    async fn fill(&self, number: u64, handle: u64, offset: u64, mut reply: Filled) {
        let page = self.folders.lock().unwrap_or_else(PoisonError::into_inner).get(&handle).cloned();
        let (Some(page), Some(folder)) = (page, self.tree.key(number)) else { return reply.error(Errno::EBADF) };
        let mut page = page.lock().await;
        let mut at = offset;
        for (place, name) in [".", ".."].into_iter().enumerate().skip(offset.min(2) as usize) {
            let inode = if place == 0 { number } else { self.tree.parent(number) };
            let facts = Facts { is_folder: true, size: 0, modified: 0 };
            if reply.add(self, inode, at + 1, name, facts) {
                return reply.ok();
            }
            at += 1;
        }
        loop {
            if let Err(errno) = self.turn(&mut page, &folder, at - 2).await {
                return reply.error(errno);
            }
            let from = (at - 2).saturating_sub(page.before) as usize;
            if from >= page.entries.len() {
                return reply.ok();
            }
            for entry in &page.entries[from..] {
                let plus = matches!(reply, Filled::Plus(_));
                let inode = match plus {
                    true => self.tree.learn(number, &entry.name, entry.facts),
                    false => number_of(number, &entry.name),
                };
                if reply.add(self, inode, at + 1, &entry.name, entry.facts) {
                    if plus {
                        self.tree.forget(inode, 1);
                    }
                    return reply.ok();
                }
                at += 1;
            }
        }
    }
}

impl Filled {
    /// Adds a name; whether there was no room for it.
    fn add(&mut self, inner: &Inner, inode: u64, next: u64, name: &str, facts: Facts) -> bool {
        let attr = inner.attr(inode, facts);
        match self {
            Self::Plain(reply) => reply.add(INodeNo(inode), next, attr.kind, name),
            Self::Plus(reply) => reply.add(INodeNo(inode), next, name, &inner.believed, &attr, Generation(0)),
        }
    }

    fn ok(self) {
        match self {
            Self::Plain(reply) => reply.ok(),
            Self::Plus(reply) => reply.ok(),
        }
    }

    fn error(self, errno: Errno) {
        match self {
            Self::Plain(reply) => reply.error(errno),
            Self::Plus(reply) => reply.error(errno),
        }
    }
}

/// What S3's refusal is to the kernel.
pub(super) fn refused(error: &object_store::Error) -> Errno {
    use object_store::Error as Cause;
    match error {
        Cause::NotFound { .. } => Errno::ENOENT,
        Cause::Unauthenticated { .. } | Cause::PermissionDenied { .. } => Errno::EACCES,
        error => {
            tracing::error!(error = %with_causes(error), "a request failed");
            Errno::EIO
        }
    }
}

/// What a failed read is to the kernel.
fn failed(error: &ReadError) -> Errno {
    let status = match error {
        ReadError::Pull(error) => error.status().map(|status| status.as_u16()),
        _ => None,
    };
    match status {
        Some(403) => Errno::EACCES,
        Some(404) => Errno::ENOENT,
        _ if matches!(error, ReadError::Replaced) => Errno::ESTALE,
        _ => {
            tracing::error!(error = %with_causes(error), "a read failed");
            Errno::EIO
        }
    }
}

/// Answers what has no other answer than that it is done.
fn finish(reply: ReplyEmpty, done: Result<(), Errno>) {
    match done {
        Ok(()) => reply.ok(),
        Err(errno) => reply.error(errno),
    }
}

impl Filesystem for Door {
    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        // Keys are UTF-8: another name is none's.
        let Some(name) = name.to_str().map(str::to_owned) else { return reply.error(Errno::ENOENT) };
        self.answer(|inner| async move {
            match inner.lookup(parent.0, &name).await {
                Ok((number, facts)) => reply.entry(&inner.believed, &inner.attr(number, facts), Generation(0)),
                Err(errno) => reply.error(errno),
            }
        });
    }

    fn forget(&self, _: &Request, ino: INodeNo, count: u64) {
        self.inner.tree.forget(ino.0, count);
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        self.answer(|inner| async move {
            match inner.facts(ino.0).await {
                Ok(facts) => reply.attr(&inner.believed, &inner.attr(ino.0, facts)),
                Err(errno) => reply.error(errno),
            }
        });
    }

    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> std::io::Result<()> {
        // A kernel that cannot tells of the truncation after the open.
        let _ = config.add_capabilities(InitFlags::FUSE_ATOMIC_O_TRUNC);
        Ok(())
    }

    fn open(&self, _: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        self.answer(|inner| async move {
            let opened = match flags.acc_mode() {
                OpenAccMode::O_RDONLY => inner.open(ino.0).await,
                _ => {
                    let empties = flags.0 & libc::O_TRUNC != 0;
                    inner.open_writer(ino.0, empties).map(|handle| (handle, FopenFlags::empty()))
                }
            };
            match opened {
                Ok((handle, flags)) => reply.opened(FileHandle(handle), flags),
                Err(errno) => reply.error(errno),
            }
        });
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        fh: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        self.answer(|inner| async move {
            let Some(reader) = inner.reader(fh.0) else { return reply.error(Errno::EOPNOTSUPP) };
            match reader.read(offset, u64::from(size)).await {
                Ok(bytes) => reply.data(&bytes),
                Err(error) => reply.error(failed(&error)),
            }
        });
    }

    fn release(
        &self,
        _: &Request,
        _: INodeNo,
        fh: FileHandle,
        _: OpenFlags,
        _: Option<LockOwner>,
        _: bool,
        reply: ReplyEmpty,
    ) {
        self.inner.files.lock().unwrap_or_else(PoisonError::into_inner).remove(&fh.0);
        if self.inner.written(fh.0).is_none() {
            return reply.ok();
        }
        self.answer(|inner| async move {
            let stored = inner.store(fh.0).await;
            inner.writers.lock().unwrap_or_else(PoisonError::into_inner).remove(&fh.0);
            finish(reply, stored);
        });
    }

    fn create(&self, _: &Request, parent: INodeNo, name: &OsStr, _: u32, _: u32, _: i32, reply: ReplyCreate) {
        let Some(name) = name.to_str() else { return reply.error(Errno::EILSEQ) };
        match self.inner.create(parent.0, name) {
            Ok((inode, handle, facts)) => reply.created(
                &self.inner.believed,
                &self.inner.attr(inode, facts),
                Generation(0),
                FileHandle(handle),
                FopenFlags::empty(),
            ),
            Err(errno) => reply.error(errno),
        }
    }

    fn write(
        &self,
        _: &Request,
        _: INodeNo,
        fh: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let data = data.to_vec();
        self.answer(|inner| async move {
            match inner.write(fh.0, offset, &data).await {
                Ok(()) => reply.written(data.len() as u32),
                Err(errno) => reply.error(errno),
            }
        });
    }

    fn flush(&self, _: &Request, _: INodeNo, fh: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        self.answer(|inner| async move { finish(reply, inner.store(fh.0).await) });
    }

    fn fsync(&self, _: &Request, _: INodeNo, fh: FileHandle, _: bool, reply: ReplyEmpty) {
        self.answer(|inner| async move { finish(reply, inner.store(fh.0).await) });
    }

    fn setattr(
        &self,
        _: &Request,
        ino: INodeNo,
        _mode: Option<u32>,
        _uid: Option<u32>,
        _gid: Option<u32>,
        size: Option<u64>,
        _atime: Option<TimeOrNow>,
        _mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        _fh: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        self.answer(|inner| async move {
            let resized = match size {
                Some(size) => inner.resize(ino.0, size).await,
                None => inner.may_write(),
            };
            let facts = match resized {
                Ok(()) => inner.facts(ino.0).await,
                Err(errno) => Err(errno),
            };
            match facts {
                Ok(facts) => reply.attr(&inner.believed, &inner.attr(ino.0, facts)),
                Err(errno) => reply.error(errno),
            }
        });
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let Some(name) = name.to_str().map(str::to_owned) else { return reply.error(Errno::ENOENT) };
        self.answer(|inner| async move { finish(reply, inner.unlink(parent.0, &name).await) });
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let Some(name) = name.to_str().map(str::to_owned) else { return reply.error(Errno::ENOENT) };
        self.answer(|inner| async move { finish(reply, inner.remove_folder(parent.0, &name).await) });
    }

    fn mkdir(&self, _: &Request, parent: INodeNo, name: &OsStr, _: u32, _: u32, reply: ReplyEntry) {
        let Some(name) = name.to_str().map(str::to_owned) else { return reply.error(Errno::EILSEQ) };
        self.answer(|inner| async move {
            match inner.make_folder(parent.0, &name).await {
                Ok((inode, facts)) => reply.entry(&inner.believed, &inner.attr(inode, facts), Generation(0)),
                Err(errno) => reply.error(errno),
            }
        });
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        newparent: INodeNo,
        newname: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let (Some(from), Some(to)) = (name.to_str().map(str::to_owned), newname.to_str().map(str::to_owned)) else {
            return reply.error(Errno::EILSEQ);
        };
        let replaces = flags.is_empty();
        if !replaces && flags != RenameFlags::RENAME_NOREPLACE {
            return reply.error(Errno::EINVAL);
        }
        self.answer(|inner| async move {
            finish(reply, inner.rename((parent.0, &from), (newparent.0, &to), replaces).await);
        });
    }

    fn getxattr(&self, _: &Request, _: INodeNo, _: &OsStr, _: u32, reply: ReplyXattr) {
        reply.error(Errno::ENOSYS);
    }

    fn opendir(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        let handle = self.inner.fresh_handle();
        self.inner.folders.lock().unwrap_or_else(PoisonError::into_inner).insert(handle, Arc::default());
        reply.opened(FileHandle(handle), FopenFlags::empty());
    }

    fn readdir(&self, _: &Request, ino: INodeNo, fh: FileHandle, offset: u64, reply: ReplyDirectory) {
        self.list(ino, fh, offset, Filled::Plain(reply));
    }

    fn readdirplus(&self, _: &Request, ino: INodeNo, fh: FileHandle, offset: u64, reply: ReplyDirectoryPlus) {
        self.list(ino, fh, offset, Filled::Plus(reply));
    }

    fn releasedir(&self, _: &Request, _: INodeNo, fh: FileHandle, _: OpenFlags, reply: ReplyEmpty) {
        self.inner.folders.lock().unwrap_or_else(PoisonError::into_inner).remove(&fh.0);
        reply.ok();
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        // A bucket has no bounds; programs that ask for room are told that there is plenty.
        const BLOCKS: u64 = 1 << 40;
        reply.statfs(BLOCKS, BLOCKS, BLOCKS, self.inner.tree.len(), u64::MAX >> 1, 4096, 255, 4096);
    }
}
