//! The kernel's questions: each is answered by a task of its own, so that one that waits for the appliance holds up no other.

use std::ffi::OsStr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::SystemTime;

use fuser::{
    BsdFileFlags, Errno, FileHandle, Filesystem, FopenFlags, Generation, INodeNo, InitFlags, KernelConfig, LockOwner,
    OpenAccMode, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyDirectoryPlus,
    ReplyEmpty, ReplyEntry, ReplyOpen, ReplyStatfs, ReplyWrite, ReplyXattr, Request, TimeOrNow, WriteFlags,
};
use tokio::runtime::Handle;

use super::folders::Filled;
use super::inner::{Inner, Open};
use super::tree::Facts;

/// Requests that the kernel may have under way that nobody waits for yet.
const BACKGROUND: u16 = 64;

/// The mount as the kernel asks it.
pub(super) struct Door {
    inner: Arc<Inner>,
    runtime: Handle,
}

impl Door {
    pub(super) fn new(inner: Inner) -> Self {
        Self { inner: Arc::new(inner), runtime: Handle::current() }
    }

    fn answer<F: Future<Output = ()> + Send + 'static>(&self, work: impl FnOnce(Arc<Inner>) -> F) {
        let _within = self.runtime.enter();
        self.inner.workers.spawn("answer", work(self.inner.clone()));
    }

    fn list(&self, ino: INodeNo, fh: FileHandle, offset: u64, reply: Filled) {
        self.answer(|inner| async move { inner.fill(ino.0, fh.0, offset, reply).await });
    }
}

impl Inner {
    /// A failure on its way to the kernel.
    fn told(&self, errno: Errno) -> Errno {
        if errno == Errno::EIO {
            self.statistics.errors.fetch_add(1, Ordering::Relaxed);
        }
        errno
    }

    /// Answers what has no other answer than that it is done.
    fn finish(&self, reply: ReplyEmpty, done: Result<(), Errno>) {
        match done {
            Ok(()) => reply.ok(),
            Err(errno) => reply.error(self.told(errno)),
        }
    }

    fn entry(&self, reply: ReplyEntry, found: Result<(u64, Facts), Errno>) {
        match found {
            Ok((number, facts)) => reply.entry(&self.believed, &self.attr(number, facts), Generation(0)),
            Err(errno) => reply.error(self.told(errno)),
        }
    }

    fn attributes(&self, reply: ReplyAttr, number: u64, facts: Result<Facts, Errno>) {
        match facts {
            Ok(facts) => reply.attr(&self.believed, &self.attr(number, facts)),
            Err(errno) => reply.error(self.told(errno)),
        }
    }
}

impl Filesystem for Door {
    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        // Keys are UTF-8: another name is none's.
        let Some(name) = name.to_str().map(str::to_owned) else { return reply.error(Errno::ENOENT) };
        self.answer(|inner| async move {
            let found = inner.lookup(parent.0, &name).await;
            inner.entry(reply, found);
        });
    }

    fn forget(&self, _: &Request, ino: INodeNo, count: u64) {
        self.inner.tree.forget(ino.0, count);
    }

    fn getattr(&self, _: &Request, ino: INodeNo, fh: Option<FileHandle>, reply: ReplyAttr) {
        self.answer(|inner| async move {
            let facts = inner.facts(ino.0, fh.map(|fh| fh.0)).await;
            inner.attributes(reply, ino.0, facts);
        });
    }

    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> std::io::Result<()> {
        // A kernel that cannot do these tells of the truncation after the open, asks for each name that it lists, and looks up one by one.
        for wish in [InitFlags::FUSE_ATOMIC_O_TRUNC, InitFlags::FUSE_DO_READDIRPLUS, InitFlags::FUSE_PARALLEL_DIROPS] {
            let _ = config.add_capabilities(wish);
        }
        let _ = config.set_max_background(BACKGROUND);
        Ok(())
    }

    fn open(&self, request: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let caller = request.pid();
        self.answer(|inner| async move {
            let opened = match flags.acc_mode() {
                OpenAccMode::O_RDONLY => inner.open(ino.0).await,
                _ => {
                    let empties = flags.0 & libc::O_TRUNC != 0;
                    // Past the kernel's cache: a shared map that is written would lose what it cannot store.
                    let opened = inner.open_writer(ino.0, empties, caller).await;
                    opened.map(|handle| (handle, FopenFlags::FOPEN_DIRECT_IO))
                }
            };
            match opened {
                Ok((handle, flags)) => reply.opened(FileHandle(handle), flags),
                Err(errno) => reply.error(inner.told(errno)),
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
            match inner.read(fh.0, offset, u64::from(size)).await {
                Ok(bytes) => reply.data(&bytes),
                Err(errno) => reply.error(inner.told(errno)),
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
        match self.inner.close(fh.0) {
            None | Some(Open::Source(..) | Open::Shown(_)) => reply.ok(),
            Some(open) => self.answer(|inner| async move {
                let stored = inner.release(open).await;
                inner.finish(reply, stored);
            }),
        }
    }

    fn create(&self, request: &Request, parent: INodeNo, name: &OsStr, _: u32, _: u32, _: i32, reply: ReplyCreate) {
        let Some(name) = name.to_str() else { return reply.error(Errno::EILSEQ) };
        match self.inner.create(parent.0, name, request.pid()) {
            Ok((inode, handle, facts)) => reply.created(
                &self.inner.believed,
                &self.inner.attr(inode, facts),
                Generation(0),
                FileHandle(handle),
                FopenFlags::FOPEN_DIRECT_IO,
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
        flags: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let data = data.to_vec();
        let appends = flags.0 & libc::O_APPEND != 0;
        self.answer(|inner| async move {
            match inner.write(fh.0, offset, appends, &data).await {
                Ok(()) => reply.written(data.len() as u32),
                Err(errno) => reply.error(inner.told(errno)),
            }
        });
    }

    fn flush(&self, request: &Request, _: INodeNo, fh: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        let caller = request.pid();
        self.answer(|inner| async move {
            let stored = inner.flush(fh.0, caller).await;
            inner.finish(reply, stored);
        });
    }

    fn fsync(&self, _: &Request, _: INodeNo, fh: FileHandle, _: bool, reply: ReplyEmpty) {
        self.answer(|inner| async move {
            let stored = inner.sync(fh.0).await;
            inner.finish(reply, stored);
        });
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
        fh: Option<FileHandle>,
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
                Ok(()) => inner.facts(ino.0, fh.map(|fh| fh.0)).await,
                Err(errno) => Err(errno),
            };
            inner.attributes(reply, ino.0, facts);
        });
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let Some(name) = name.to_str().map(str::to_owned) else { return reply.error(Errno::ENOENT) };
        self.answer(|inner| async move {
            let done = inner.unlink(parent.0, &name).await;
            inner.finish(reply, done);
        });
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let Some(name) = name.to_str().map(str::to_owned) else { return reply.error(Errno::ENOENT) };
        self.answer(|inner| async move {
            let done = inner.remove_folder(parent.0, &name).await;
            inner.finish(reply, done);
        });
    }

    fn mkdir(&self, _: &Request, parent: INodeNo, name: &OsStr, _: u32, _: u32, reply: ReplyEntry) {
        let Some(name) = name.to_str().map(str::to_owned) else { return reply.error(Errno::EILSEQ) };
        self.answer(|inner| async move {
            let made = inner.make_folder(parent.0, &name).await;
            inner.entry(reply, made);
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
            let done = inner.rename((parent.0, &from), (newparent.0, &to), replaces).await;
            inner.finish(reply, done);
        });
    }

    fn getxattr(&self, _: &Request, _: INodeNo, _: &OsStr, _: u32, reply: ReplyXattr) {
        reply.error(Errno::ENOSYS);
    }

    fn opendir(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        reply.opened(FileHandle(self.inner.open_folder()), FopenFlags::empty());
    }

    fn readdir(&self, _: &Request, ino: INodeNo, fh: FileHandle, offset: u64, reply: ReplyDirectory) {
        self.list(ino, fh, offset, Filled::Plain(reply));
    }

    fn readdirplus(&self, _: &Request, ino: INodeNo, fh: FileHandle, offset: u64, reply: ReplyDirectoryPlus) {
        self.list(ino, fh, offset, Filled::Plus(reply));
    }

    fn releasedir(&self, _: &Request, _: INodeNo, fh: FileHandle, _: OpenFlags, reply: ReplyEmpty) {
        self.inner.close_folder(fh.0);
        reply.ok();
    }

    fn fsyncdir(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        // Names are stored before whoever makes them hears of it.
        reply.ok();
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        // A bucket has no bounds; programs that ask for room are told that there is plenty.
        const BLOCKS: u64 = 1 << 40;
        reply.statfs(BLOCKS, BLOCKS, BLOCKS, self.inner.tree.len(), u64::MAX >> 1, 4096, 255, 4096);
    }
}
