//! What changes a bucket: files that are written, names that are made, moved and removed.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::atomic::Ordering;
use std::sync::{Arc, MutexGuard, PoisonError};

use bytes::{Bytes, BytesMut};
use fuser::Errno;
use tokio::sync::Mutex;

use super::answers::refused;
use super::bucket::{Bucket, BucketError};
use super::inner::{Inner, Open, Source};
use super::listing::NAME_MAX;
use super::statistics::STATISTICS_FILE;
use super::tree::{Facts, ROOT, STATISTICS};
use super::writer::{PART, Target, Writer};
use crate::sys::{clock, process};

/// A file that is written, whoever has it open.
pub(super) struct Written {
    inode: u64,
    writer: Mutex<Writer>,
    /// What it is read from while nothing was written.
    source: Mutex<Option<Source>>,
}

impl Written {
    /// Whether something is still to be stored.
    fn is_busy(&self) -> bool {
        self.writer.try_lock().map_or(true, |writer| writer.is_owing())
    }
}

/// A file that is written, and how many handles share it.
pub(super) struct Sharing {
    written: Arc<Written>,
    handles: usize,
    /// Whether no object of it has been stored.
    is_new: bool,
}

impl Inner {
    /// Refuses, where the mount is for reading.
    pub(super) fn may_write(&self) -> Result<(), Errno> {
        if self.settings.is_read_only { Err(Errno::EROFS) } else { Ok(()) }
    }

    fn key_in(&self, parent: u64, name: &str) -> Result<String, Errno> {
        self.may_write()?;
        if (parent, name) == (ROOT, STATISTICS_FILE) {
            return Err(Errno::EPERM);
        }
        if name.len() > NAME_MAX {
            return Err(Errno::ENAMETOOLONG);
        }
        let folder = self.tree.key(parent).ok_or(Errno::ESTALE)?;
        Ok(format!("{folder}{name}"))
    }

    fn bucket(&self) -> &Bucket {
        self.listing.bucket()
    }

    fn writers(&self) -> MutexGuard<'_, HashMap<u64, Sharing>> {
        self.writers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is written of an inode, where it is.
    pub(super) fn writing(&self, inode: u64) -> Option<Arc<Written>> {
        self.writers().get(&inode).map(|sharing| sharing.written.clone())
    }

    /// Shares what is written of an inode, where there is something to store.
    pub(super) async fn watch(&self, inode: u64) -> Result<Option<Arc<Written>>, Errno> {
        let Some(written) = self.writing(inode) else { return Ok(None) };
        match &*written.writer.lock().await {
            Writer::Held(_, true) => {}
            // What has left cannot be read before all of it is there.
            Writer::Sent(_) => return Err(Errno::EBUSY),
            _ => return Ok(None),
        }
        match self.writers().get_mut(&inode) {
            Some(sharing) if Arc::ptr_eq(&sharing.written, &written) => sharing.handles += 1,
            _ => return Ok(None),
        }
        Ok(Some(written))
    }

    /// Opens a file for writing.
    pub(super) async fn open_writer(&self, inode: u64, empties: bool, caller: u32) -> Result<u64, Errno> {
        self.may_write()?;
        if inode == STATISTICS {
            return Err(Errno::EACCES);
        }
        // Who does not empty it goes on from what is there now.
        let facts =
            if empties { self.tree.facts(inode).ok_or(Errno::ESTALE)? } else { self.facts(inode, None).await? };
        let written = self.share(inode, Writer::Untouched(facts.size), false);
        if empties {
            let emptied = written.writer.lock().await.empty();
            if let Err(errno) = emptied {
                self.leave(&written).await;
                return Err(errno);
            }
            self.note(inode, 0);
        }
        Ok(self.opened(Open::Writes(written, process::process_of(caller))))
    }

    /// One more handle of what is written of an inode, which begins as `writer` where there is nothing yet.
    fn share(&self, inode: u64, writer: Writer, is_new: bool) -> Arc<Written> {
        let mut writers = self.writers();
        let sharing = match writers.entry(inode) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => {
                // Its name is needed until it is stored, however soon the kernel forgets it.
                self.tree.hold(inode);
                let written = Written { inode, writer: Mutex::new(writer), source: Mutex::default() };
                entry.insert(Sharing { written: Arc::new(written), handles: 0, is_new })
            }
        };
        sharing.handles += 1;
        sharing.written.clone()
    }

    /// One handle less.
    async fn leave(&self, written: &Written) {
        {
            let mut writers = self.writers();
            let Some(sharing) = writers.get_mut(&written.inode) else { return };
            sharing.handles -= 1;
            if sharing.handles > 0 {
                return;
            }
            writers.remove(&written.inode);
        }
        written.writer.lock().await.give_up().await;
        self.tree.forget(written.inode, 1);
    }

    fn note(&self, inode: u64, size: u64) {
        let modified = clock::now().0;
        let is_ours = !self.is_read(inode);
        self.tree.change(inode, Facts { is_folder: false, size, modified }, is_ours);
    }

    pub(super) fn create(&self, parent: u64, name: &str, caller: u32) -> Result<(u64, u64, Facts), Errno> {
        self.key_in(parent, name)?;
        let facts = Facts { is_folder: false, size: 0, modified: clock::now().0 };
        let inode = self.tree.learn(parent, name, facts);
        self.tree.change(inode, facts, true);
        let written = self.share(inode, Writer::Held(BytesMut::new(), true), true);
        Ok((inode, self.opened(Open::Writes(written, process::process_of(caller))), facts))
    }

    fn target<'a>(&'a self, key: Option<&'a str>) -> Target<'a> {
        Target { s3: &self.s3, bucket: self.bucket(), workers: &self.workers, key }
    }

    /// Holds a file that nothing was written to, so that it can be changed.
    async fn fetch(&self, written: &Written, writer: &mut Writer, most: u64) -> Result<(), Errno> {
        let Writer::Untouched(size) = *writer else { return Ok(()) };
        let wanted = size.min(most);
        if wanted > PART as u64 {
            return Err(Errno::EOPNOTSUPP);
        }
        let mut held = BytesMut::new();
        if wanted > 0 {
            let key = self.tree.key(written.inode).ok_or(Errno::ESTALE)?;
            let source = self.source(key).await?;
            if source.facts().size != size {
                // Another has replaced it since it was opened: a beginning of what is there now is nobody's file.
                return Err(Errno::ESTALE);
            }
            held.extend_from_slice(&source.read(0, wanted).await?);
        }
        *writer = Writer::Held(held, false);
        Ok(())
    }

    pub(super) async fn write(&self, handle: u64, offset: u64, appends: bool, bytes: &[u8]) -> Result<(), Errno> {
        let Some(Open::Writes(written, _)) = self.open_file(handle) else { return Err(Errno::EBADF) };
        let mut writer = written.writer.lock().await;
        self.fetch(&written, &mut writer, u64::MAX).await?;
        let key = self.tree.key(written.inode);
        let offset = if appends { writer.size() } else { offset };
        writer.write(self.target(key.as_deref()), offset, bytes).await?;
        self.note(written.inode, writer.size());
        self.statistics.written_bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        Ok(())
    }

    /// Bytes of a file that is written.
    pub(super) async fn read_back(&self, written: &Written, offset: u64, len: u64) -> Result<Bytes, Errno> {
        let writer = written.writer.lock().await;
        match &*writer {
            Writer::Held(..) => Ok(writer.read(offset, len).map(Bytes::from).unwrap_or_default()),
            Writer::Untouched(_) => {
                let mut source = written.source.lock().await;
                let source = match &mut *source {
                    Some(source) => source.clone(),
                    none => {
                        let key = self.tree.key(written.inode).ok_or(Errno::ESTALE)?;
                        none.insert(self.source(key).await?).clone()
                    }
                };
                drop(writer);
                source.read(offset, len).await
            }
            Writer::Sent(_) => Err(Errno::EOPNOTSUPP),
            Writer::Broken => Err(Errno::EIO),
        }
    }

    /// A process closes one of its descriptors of a file. Only the process that opened it ends what is written: another that was
    /// forked from it, and then starts a program, closes all that it inherited.
    pub(super) async fn flush(&self, handle: u64, caller: u32) -> Result<(), Errno> {
        let Some(Open::Writes(written, owner)) = self.open_file(handle) else { return Ok(()) };
        match (owner, process::process_of(caller)) {
            (Some(owner), Some(caller)) if owner != caller => Ok(()),
            _ => self.store(&written).await,
        }
    }

    /// Stores what was written through a handle.
    pub(super) async fn sync(&self, handle: u64) -> Result<(), Errno> {
        match self.open_file(handle) {
            Some(Open::Writes(written, _)) => self.store(&written).await,
            _ => Ok(()),
        }
    }

    async fn store(&self, written: &Written) -> Result<(), Errno> {
        let mut writer = written.writer.lock().await;
        let key = self.tree.key(written.inode);
        let was_sent = matches!(*writer, Writer::Sent(_));
        writer.store(self.target(key.as_deref())).await?;
        if was_sent {
            *written.source.lock().await = None;
        }
        if let Some(sharing) = self.writers().get_mut(&written.inode) {
            sharing.is_new = false;
        }
        Ok(())
    }

    /// Ends what was open behind a handle.
    pub(super) async fn release(&self, open: Open) -> Result<(), Errno> {
        match open {
            Open::Source(..) | Open::Shown(_) => Ok(()),
            Open::Watches(written) => {
                self.leave(&written).await;
                Ok(())
            }
            Open::Writes(written, _) => {
                let stored = self.store(&written).await;
                self.leave(&written).await;
                stored
            }
        }
    }

    /// Sets a file's length.
    pub(super) async fn resize(&self, inode: u64, size: u64) -> Result<(), Errno> {
        self.may_write()?;
        if inode == STATISTICS {
            return Err(Errno::EACCES);
        }
        let known = self.facts(inode, None).await?;
        if size == known.size || known.is_folder {
            return Ok(());
        }
        let written = self.share(inode, Writer::Untouched(known.size), false);
        let mut writer = written.writer.lock().await;
        let resized = match (size, &*writer) {
            (0, Writer::Untouched(_) | Writer::Held(..)) => writer.empty(),
            _ => match self.fetch(&written, &mut writer, size).await {
                Ok(()) => writer.resize(size),
                Err(errno) => Err(errno),
            },
        };
        drop(writer);
        if resized.is_ok() {
            self.note(inode, size);
        }
        // By its name, nobody closes it afterwards.
        let is_open = self.writers().get(&inode).is_some_and(|sharing| sharing.handles > 1);
        let stored = if is_open || resized.is_err() { Ok(()) } else { self.store(&written).await };
        self.leave(&written).await;
        resized.and(stored)
    }

    pub(super) async fn unlink(&self, parent: u64, name: &str) -> Result<(), Errno> {
        let key = self.key_in(parent, name)?;
        self.bucket().delete(&key, None).await.map_err(|error| refused(&error))?;
        self.tree.removed(parent, name);
        self.keep_folder(parent).await
    }

    pub(super) async fn make_folder(&self, parent: u64, name: &str) -> Result<(u64, Facts), Errno> {
        let key = self.key_in(parent, name)?;
        if self.listing.find(&key).await.map_err(|error| refused(&error))?.is_some() {
            return Err(Errno::EEXIST);
        }
        self.mark(&format!("{key}/")).await?;
        Ok((self.tree.learn(parent, name, Facts::FOLDER), Facts::FOLDER))
    }

    pub(super) async fn remove_folder(&self, parent: u64, name: &str) -> Result<(), Errno> {
        let folder = format!("{}/", self.key_in(parent, name)?);
        if self.is_written_into(parent, name)
            || !self.listing.is_empty(&folder).await.map_err(|error| refused(&error))?
        {
            return Err(Errno::ENOTEMPTY);
        }
        self.bucket().delete(&folder, None).await.map_err(|error| refused(&error))?;
        self.tree.removed(parent, name);
        self.keep_folder(parent).await
    }

    /// Whether a file in a folder is written that no list has yet.
    fn is_written_into(&self, parent: u64, name: &str) -> bool {
        let Some(folder) = self.tree.number(parent, name) else { return false };
        let new: Vec<u64> = self.writers().iter().filter(|(_, it)| it.is_new).map(|(inode, _)| *inode).collect();
        new.into_iter().any(|inode| self.tree.parent(inode) == folder)
    }

    pub(super) async fn rename(&self, from: (u64, &str), to: (u64, &str), replaces: bool) -> Result<(), Errno> {
        let (source, target) = (self.key_in(from.0, from.1)?, self.key_in(to.0, to.1)?);
        if let Some(written) = self.tree.number(from.0, from.1).and_then(|inode| self.writing(inode))
            && written.is_busy()
        {
            if matches!(*written.writer.lock().await, Writer::Sent(_)) {
                return Err(Errno::EBUSY);
            }
            self.store(&written).await?;
        }
        let Some(moving) = self.listing.object(&source).await.map_err(|error| refused(&error))? else {
            // mv copies a folder, then.
            let found = self.listing.find(&source).await.map_err(|error| refused(&error))?;
            return Err(found.map_or(Errno::ENOENT, |_| Errno::EXDEV));
        };
        match self.listing.find(&target).await.map_err(|error| refused(&error))? {
            Some(facts) if facts.is_folder => return Err(Errno::EISDIR),
            Some(_) if !replaces => return Err(Errno::EEXIST),
            _ => {}
        }
        if source != target {
            self.give_name(&source, &target, &moving, replaces).await?;
        }
        let is_read = self.tree.number(from.0, from.1).is_some_and(|inode| self.is_read(inode));
        self.tree.moved(from, to, !is_read);
        self.keep_folder(from.0).await
    }

    /// Gives an object another name: in one step, or by a copy where S3 has no such step for it.
    async fn give_name(
        &self,
        source: &str,
        target: &str,
        (moving, etag): &(Facts, String),
        replaces: bool,
    ) -> Result<(), Errno> {
        let Err(refusal) = self.bucket().rename(source, etag, target, replaces).await else { return Ok(()) };
        match refusal.status().map(|status| status.as_u16()) {
            // It was done, and the answer was lost.
            Some(404 | 412) if self.has_moved(source, target, *moving).await => Ok(()),
            Some(412) if !replaces && self.listing.find(target).await.is_ok_and(|found| found.is_some()) => {
                Err(Errno::EEXIST)
            }
            // Encrypted, or in a bucket that keeps versions.
            _ if is_unfit(&refusal) => {
                self.bucket().copy(source, etag, target).await.map_err(|error| refused(&error))?;
                self.bucket().delete(source, Some(etag)).await.map_err(|error| refused(&error))
            }
            // Where the object is another by now, the kernel looks again and asks again.
            _ => Err(refused(&refusal)),
        }
    }

    /// Whether an object is found under its new name, and under that alone.
    async fn has_moved(&self, source: &str, target: &str, moving: Facts) -> bool {
        let is_there = self.listing.find(target).await.is_ok_and(|found| found == Some(moving));
        is_there && self.listing.find(source).await.is_ok_and(|found| found.is_none())
    }

    /// Keeps a folder whose last name has gone.
    async fn keep_folder(&self, folder: u64) -> Result<(), Errno> {
        // It may be gone itself.
        let Some(key) = self.tree.key(folder).filter(|key| **key != *self.settings.prefix) else { return Ok(()) };
        let empty = self.listing.is_empty(&key).await.map_err(|error| refused(&error))?;
        if empty { self.mark(&key).await } else { Ok(()) }
    }

    /// Puts the empty object that stands for a folder.
    async fn mark(&self, key: &str) -> Result<(), Errno> {
        self.bucket().put(key, Bytes::new()).await.map_err(|error| refused(&error))
    }
}

/// Whether an object is none that S3 renames.
fn is_unfit(error: &BucketError) -> bool {
    matches!(error, BucketError::Refused { code, .. } if code == "InvalidRequest" || code == "InvalidBucketState")
}
