//! What changes a bucket: files that are written, names that are made, moved and removed.

use std::sync::{Arc, PoisonError};

use fuser::Errno;
use object_store::ObjectStoreExt as _;
use object_store::path::Path;
use tokio::sync::Mutex;

use super::door::{Inner, refused};
use super::tree::{Facts, number_of};
use super::writer::Writer;

/// A file that is written, and its inode.
pub(super) struct Written {
    pub(super) inode: u64,
    pub(super) writer: Mutex<Writer>,
}

impl Written {
    /// Whether something is still to be stored. The kernel tells that a file is closed a while after its last close, which has stored it.
    fn is_busy(&self) -> bool {
        self.writer.try_lock().map_or(true, |writer| writer.is_owing())
    }
}

impl Inner {
    /// Refuses, where the mount is for reading.
    pub(super) fn may_write(&self) -> Result<(), Errno> {
        if self.settings.marker.is_some() { Ok(()) } else { Err(Errno::EROFS) }
    }

    fn key_in(&self, parent: u64, name: &str) -> Result<String, Errno> {
        self.may_write()?;
        let folder = self.tree.key(parent).ok_or(Errno::ESTALE)?;
        Ok(format!("{folder}{name}"))
    }

    /// The writer behind a handle.
    pub(super) fn written(&self, handle: u64) -> Option<Arc<Written>> {
        self.writers.lock().unwrap_or_else(PoisonError::into_inner).get(&handle).cloned()
    }

    /// The writer of an inode, where there is one.
    pub(super) fn writing(&self, inode: u64) -> Option<Arc<Written>> {
        let writers = self.writers.lock().unwrap_or_else(PoisonError::into_inner);
        let newest = writers.iter().filter(|(_, written)| written.inode == inode).max_by_key(|(handle, _)| **handle);
        newest.map(|(_, written)| written.clone())
    }

    /// Opens a file for writing; one that is not to be emptied must be emptied before it is written.
    pub(super) fn open_writer(&self, inode: u64, empties: bool) -> Result<u64, Errno> {
        self.may_write()?;
        let key = self.tree.key(inode).ok_or(Errno::ESTALE)?;
        let before = if empties { 0 } else { self.tree.facts(inode).map_or(0, |facts| facts.size) };
        let writer = Mutex::new(Writer::new(path(&key)?, before));
        let handle = self.fresh_handle();
        let mut writers = self.writers.lock().unwrap_or_else(PoisonError::into_inner);
        if writers.values().any(|written| written.inode == inode && written.is_busy()) {
            // Two halves of one file from two hands would make neither's.
            return Err(Errno::EBUSY);
        }
        writers.insert(handle, Arc::new(Written { inode, writer }));
        if empties {
            self.tree.correct(inode, Facts { is_folder: false, size: 0, modified: 0 });
        }
        Ok(handle)
    }

    pub(super) fn create(&self, parent: u64, name: &str) -> Result<(u64, u64, Facts), Errno> {
        path(&self.key_in(parent, name)?)?;
        let facts = Facts { is_folder: false, size: 0, modified: 0 };
        let inode = self.tree.learn(parent, name, facts);
        match self.open_writer(inode, true) {
            Ok(handle) => Ok((inode, handle, facts)),
            Err(errno) => {
                self.tree.forget(inode, 1);
                Err(errno)
            }
        }
    }

    pub(super) async fn write(&self, handle: u64, offset: u64, bytes: &[u8]) -> Result<(), Errno> {
        let written = self.written(handle).ok_or(Errno::EBADF)?;
        let mut writer = written.writer.lock().await;
        writer.write(self.listing.s3(), offset, bytes).await?;
        self.tree.correct(written.inode, Facts { is_folder: false, size: writer.size, modified: 0 });
        Ok(())
    }

    /// Stores what was written through a handle.
    pub(super) async fn store(&self, handle: u64) -> Result<(), Errno> {
        let Some(written) = self.written(handle) else { return Ok(()) };
        let mut writer = written.writer.lock().await;
        writer.store(self.listing.s3()).await
    }

    /// Sets a file's length: to nothing, or to what it is.
    pub(super) async fn resize(&self, inode: u64, size: u64) -> Result<(), Errno> {
        self.may_write()?;
        let written = self.writing(inode);
        let known = self.facts(inode).await?;
        if size == known.size {
            return Ok(());
        }
        if size != 0 || known.is_folder {
            return Err(Errno::EOPNOTSUPP);
        }
        match written {
            Some(written) => written.writer.lock().await.truncate().await?,
            None => {
                let key = self.tree.key(inode).ok_or(Errno::ESTALE)?;
                let empty = bytes::Bytes::new();
                self.listing.s3().put(&path(&key)?, empty.into()).await.map_err(|error| refused(&error))?;
            }
        }
        self.tree.correct(inode, Facts { size: 0, ..known });
        Ok(())
    }

    pub(super) async fn unlink(&self, parent: u64, name: &str) -> Result<(), Errno> {
        let key = self.key_in(parent, name)?;
        self.listing.s3().delete(&path(&key)?).await.map_err(|error| refused(&error))?;
        self.keep_folder(parent).await
    }

    pub(super) async fn make_folder(&self, parent: u64, name: &str) -> Result<(u64, Facts), Errno> {
        let key = self.key_in(parent, name)?;
        if self.listing.find(&key).await.map_err(|error| refused(&error))?.is_some() {
            return Err(Errno::EEXIST);
        }
        self.mark(&format!("{key}/"), true).await?;
        let facts = Facts { is_folder: true, size: 0, modified: 0 };
        Ok((self.tree.learn(parent, name, facts), facts))
    }

    pub(super) async fn remove_folder(&self, parent: u64, name: &str) -> Result<(), Errno> {
        let folder = format!("{}/", self.key_in(parent, name)?);
        let (entries, more) = self.listing.page(&folder, None, Some(2)).await.map_err(|error| refused(&error))?;
        if !entries.is_empty() || more.is_some() {
            return Err(Errno::ENOTEMPTY);
        }
        self.mark(&folder, false).await?;
        self.keep_folder(parent).await
    }

    pub(super) async fn rename(&self, from: (u64, &str), to: (u64, &str), replaces: bool) -> Result<(), Errno> {
        let (source, target) = (self.key_in(from.0, from.1)?, self.key_in(to.0, to.1)?);
        let find = |key: &str| {
            let key = key.to_owned();
            async move { self.listing.find(&key).await.map_err(|error| refused(&error)) }
        };
        if self.writing(number_of(from.0, from.1)).is_some_and(|written| written.is_busy()) {
            return Err(Errno::EBUSY);
        }
        if find(&source).await?.ok_or(Errno::ENOENT)?.is_folder {
            // mv copies, then.
            return Err(Errno::EXDEV);
        }
        match find(&target).await? {
            Some(facts) if facts.is_folder => return Err(Errno::EISDIR),
            Some(_) if !replaces => return Err(Errno::EEXIST),
            _ => {}
        }
        let (source, target) = (path(&source)?, path(&target)?);
        let s3 = self.listing.s3();
        s3.copy(&source, &target).await.map_err(|error| refused(&error))?;
        s3.delete(&source).await.map_err(|error| refused(&error))?;
        self.tree.moved(from, to);
        self.keep_folder(from.0).await
    }

    /// Keeps a folder whose last name has gone.
    async fn keep_folder(&self, folder: u64) -> Result<(), Errno> {
        let key = self.tree.key(folder).ok_or(Errno::ESTALE)?;
        if *key == *self.settings.prefix {
            return Ok(());
        }
        let (entries, _) = self.listing.page(&key, None, Some(2)).await.map_err(|error| refused(&error))?;
        if entries.is_empty() { self.mark(&key, true).await } else { Ok(()) }
    }

    /// Puts or removes the empty object that stands for a folder.
    async fn mark(&self, key: &str, is_there: bool) -> Result<(), Errno> {
        let marker = self.settings.marker.as_ref().ok_or(Errno::EROFS)?;
        match marker(key.to_owned(), is_there).await {
            Ok(200..=299) => Ok(()),
            Ok(403) => Err(Errno::EACCES),
            Ok(507) => Err(Errno::ENOSPC),
            Ok(status) => {
                tracing::error!(key, status, "a folder was not changed");
                Err(Errno::EIO)
            }
            Err(error) => {
                tracing::error!(key, %error, "a folder was not changed");
                Err(Errno::EIO)
            }
        }
    }
}

/// A key as the client library takes it; names that it cannot take are refused.
fn path(key: &str) -> Result<Path, Errno> {
    Path::parse(key).map_err(|_| Errno::EINVAL)
}
