//! The deduplicating engine: bytes in, one commit, the same bytes out, verified.
//!
//! A write runs `ingest` (cut, digest, look up, encode), `packer` (one open pack for all uploads, sealed durably), then
//! `commit` (one transaction on conditions). A read runs `fetch` (manifest, pack ranges, verify).

mod bucket;
mod check;
mod commit;
mod error;
mod export;
mod fetch;
mod home;
mod ingest;
mod list;
mod multipart;
mod object;
mod packer;
mod stats;
mod types;

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

pub use error::{BoxError, StoreError};
pub use export::READ_PACK_MAX;
pub use home::PackHome;
pub use types::{
    BucketInfo, ByteStream, FsckError, FsckOptions, FsckReport, ListPage, ListRequest, ObjectInfo, PartInfo,
    Precondition, PutRequest, Stats, UploadInfo,
};

use crate::meta::Meta;
use crate::sys::entropy;
use crate::sys::worker::Workers;

/// The store; clones share it.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    meta: Arc<dyn Meta>,
    packs: home::Packs,
    packer: packer::Packer,
    directories: fetch::Directories,
    /// Uploads under way.
    uploads: Arc<AtomicUsize>,
    /// This process, as it marks buckets that it is deleting.
    process: [u8; 16],
}

impl Store {
    /// Opens the store over its metadata and its packs. Call it within a tokio runtime.
    pub fn open(meta: Arc<dyn Meta>, packs: PackHome, workers: &Workers) -> Result<Self, StoreError> {
        let packs = packs.open()?;
        let packer = packer::Packer::start(packs.clone(), meta.clone(), workers);
        let inner = Inner {
            meta,
            packs,
            packer,
            directories: fetch::Directories::default(),
            uploads: Arc::new(AtomicUsize::new(0)),
            process: entropy::fresh_id(),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Seals what is open and closes the metadata. Call it after the doors have drained and before the workers stop.
    pub async fn close(&self) {
        self.inner.packer.end().await;
        self.inner.meta.close().await;
    }
}
