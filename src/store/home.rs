//! Where packs live: a folder of this machine, written durably, or any object store.

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream::BoxStream;
use futures_util::{StreamExt as _, TryStreamExt as _};
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{MultipartUpload, ObjectStore, ObjectStoreExt as _, PutPayload};

use super::error::StoreError;
use crate::format::pack::MAGIC;
use crate::model::PackId;
use crate::sys::folder;

/// Where packs are to live.
pub struct PackHome(Place);

enum Place {
    Local(PathBuf),
    Remote(Arc<dyn ObjectStore>),
}

impl PackHome {
    /// In a folder of this machine, made when it is absent. File and folder are synced before a pack counts.
    #[must_use]
    pub fn local(dir: impl Into<PathBuf>) -> Self {
        Self(Place::Local(dir.into()))
    }

    /// In an object store, which must be durable when it answers.
    #[must_use]
    pub fn remote(store: Arc<dyn ObjectStore>) -> Self {
        Self(Place::Remote(store))
    }

    /// Opens it. A local folder is swept of what a crash left half-written.
    pub(super) fn open(self) -> Result<Packs, StoreError> {
        let dir = match self.0 {
            Place::Remote(store) => return Ok(Packs { store }),
            Place::Local(dir) => dir,
        };
        let disk =
            |source: std::io::Error| StoreError::Io { action: "open the packs' folder", source: Box::new(source) };
        folder::create(&dir).map_err(disk)?;
        let swept = folder::sweep(&dir, |name| name.contains(".pack#")).map_err(disk)?;
        if swept > 0 {
            tracing::info!(swept, "removed packs that a crash left half-written");
        }
        let store = LocalFileSystem::new_with_prefix(&dir)
            .map_err(|error| StoreError::home("open the packs' folder", error))?
            .with_fsync(true);
        Ok(Packs { store: Arc::new(store) })
    }
}

/// The packs, opened.
#[derive(Clone)]
pub(super) struct Packs {
    store: Arc<dyn ObjectStore>,
}

/// Where a pack lies: spread over 256 folders by the last, random, byte of its id.
fn path(pack: PackId) -> Path {
    Path::from(format!("{:02x}/{pack}.pack", pack.0[15]))
}

impl Packs {
    /// Bytes `start..end` of a pack.
    pub(super) async fn read(&self, pack: PackId, start: u64, end: u64) -> Result<Bytes, StoreError> {
        self.store.get_range(&path(pack), start..end).await.map_err(|error| match error {
            object_store::Error::NotFound { .. } => StoreError::NoSuchPack(pack),
            other => StoreError::home("read a pack", other),
        })
    }

    /// A pack's length in bytes.
    pub(super) async fn size(&self, pack: PackId) -> Result<u64, StoreError> {
        match self.store.head(&path(pack)).await {
            Ok(meta) => Ok(meta.size),
            Err(object_store::Error::NotFound { .. }) => Err(StoreError::NoSuchPack(pack)),
            Err(other) => Err(StoreError::home("look at a pack", other)),
        }
    }

    /// All packs that there are, by name.
    pub(super) fn list(&self) -> BoxStream<'static, Result<PackId, StoreError>> {
        self.store
            .list(None)
            .map_err(|error| StoreError::home("list the packs", error))
            .try_filter_map(|meta| {
                let name = meta.location.filename().and_then(|name| name.strip_suffix(".pack"));
                let pack = name.and_then(|name| name.parse().ok());
                std::future::ready(Ok(pack))
            })
            .boxed()
    }

    /// Begins to write a pack; its magic is its first bytes.
    pub(super) fn create(&self, pack: PackId) -> PackWriter {
        PackWriter {
            store: self.store.clone(),
            path: path(pack),
            upload: None,
            pending: vec![Bytes::from_static(MAGIC)],
            pending_bytes: MAGIC.len(),
        }
    }
}

/// Bytes gathered before they are written: more than the least part of any object store.
const PIECE: usize = 8 * 1024 * 1024;

/// Writes one pack, front to back; nothing is visible before [`PackWriter::finish`].
pub(super) struct PackWriter {
    store: Arc<dyn ObjectStore>,
    path: Path,
    upload: Option<Box<dyn MultipartUpload>>,
    pending: Vec<Bytes>,
    pending_bytes: usize,
}

impl PackWriter {
    /// Appends bytes; writes when enough are gathered.
    pub(super) async fn push(&mut self, bytes: Bytes) -> Result<(), object_store::Error> {
        self.pending_bytes += bytes.len();
        self.pending.push(bytes);
        if self.pending_bytes >= PIECE { self.write_pending().await } else { Ok(()) }
    }

    async fn write_pending(&mut self) -> Result<(), object_store::Error> {
        if self.upload.is_none() {
            self.upload = Some(self.store.put_multipart(&self.path).await?);
        }
        self.pending_bytes = 0;
        let payload: PutPayload = std::mem::take(&mut self.pending).into_iter().collect();
        match &mut self.upload {
            Some(upload) => upload.put_part(payload).await,
            None => Ok(()),
        }
    }

    /// Makes the pack durable and visible.
    pub(super) async fn finish(mut self) -> Result<(), object_store::Error> {
        if self.upload.is_none() {
            let payload: PutPayload = std::mem::take(&mut self.pending).into_iter().collect();
            self.store.put(&self.path, payload).await?;
            return Ok(());
        }
        if !self.pending.is_empty() {
            self.write_pending().await?;
        }
        if let Some(upload) = &mut self.upload {
            upload.complete().await?;
        }
        Ok(())
    }

    /// Forgets what was written.
    pub(super) async fn abort(mut self) {
        if let Some(upload) = &mut self.upload
            && let Err(error) = upload.abort().await
        {
            tracing::debug!(%error, "a half-written pack could not be removed; the next start will");
        }
    }
}
