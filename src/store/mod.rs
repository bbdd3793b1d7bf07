//! The deduplicating engine: bytes in, one commit, the same bytes out, verified.
//!
//! A write runs `ingest` (cut, digest, look up, encode), `packer` (one open pack for all uploads, sealed durably), then
//! `commit` (one transaction on conditions). A read runs `fetch` (manifest, pack ranges, verify). `gc` removes what nothing
//! refers to, beside both: `activity` and `standing` are what they share with it.

mod activity;
mod amend;
mod append;
mod bucket;
mod care;
mod check;
mod commit;
mod delete;
mod error;
mod export;
mod faults;
mod fetch;
mod gc;
mod history;
mod home;
mod ingest;
mod list;
mod lock;
mod multipart;
mod object;
mod packer;
mod push;
mod recover;
mod rename;
mod retire;
mod rows;
mod seal;
mod session;
mod snapshot;
mod standing;
mod stats;
mod types;
mod version;
mod view;

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

pub use care::{
    DamageInfo, RebuildOptions, RebuildReport, RepairReport, ScrubOptions, ScrubReport, ScrubSettings, ScrubStatus,
};
pub use error::{BoxError, StoreError};
pub use export::{READ_PACK_MAX, Stretch};
pub use faults::{Fault, Faults};
pub use gc::{GcDone, GcOptions, GcPlan, GcReport, PlannedPack};
pub use home::{PackHome, Ration};
pub use lock::{LEGAL_HOLD, LOCK_MODE, LOCK_UNTIL};
pub use object::OpenObject;
pub use snapshot::{Change, ChangeKind, SnapshotDiff, SnapshotInfo};
pub use types::{
    BucketIdentity, BucketInfo, ByteStream, DeleteRequest, Deleted, ENCRYPTION, FsckError, FsckOptions, FsckReport,
    Given, LateHeaders, LateMd5, ListPage, ListRequest, ObjectInfo, PUSHED, PartInfo, PatchBase, Placed, Precondition,
    PutRequest, RecordStream, Stats, UPLOAD, UploadInfo, VersionInfo, VersionListRequest, VersionPage,
};

use crate::format::row::{self, key};
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
    /// Bytes that reads may still take.
    read_budget: Arc<tokio::sync::Semaphore>,
    activities: activity::Activities,
    standing: standing::Standing,
    collector: gc::Collector,
    faults: Faults,
    /// Uploads under way.
    uploads: Arc<AtomicUsize>,
    /// Memory that they are done with.
    pool: ingest::Pool,
    /// What they are about to store.
    underway: ingest::Underway,
    /// This process, as it marks buckets that it is deleting.
    process: [u8; 16],
    /// What is finished whether or not its caller waits.
    workers: Workers,
}

impl Store {
    /// Opens the store over its metadata and its packs; what a crash left is put in order first.
    pub async fn open(meta: Arc<dyn Meta>, packs: PackHome, workers: &Workers) -> Result<Self, StoreError> {
        Self::open_with(meta, packs, workers, Faults::default()).await
    }

    /// Opens the store with deliberate bugs in it, for tests that must find them.
    pub async fn open_with(
        meta: Arc<dyn Meta>,
        packs: PackHome,
        workers: &Workers,
        faults: Faults,
    ) -> Result<Self, StoreError> {
        let packs = packs.open()?;
        recover::recover(meta.as_ref(), &packs).await?;
        let epoch = row::decode_epoch(meta.get(&key::epoch()).await?.as_deref())?;
        let activities = activity::Activities::new(epoch);
        let standing = standing::Standing::new(meta.clone(), activities.clone(), faults.clone());
        care::unreadable_packs(meta.as_ref()).await?.into_iter().for_each(|pack| standing.distrust(pack));
        let tools = packer::Tools {
            packs: packs.clone(),
            meta: meta.clone(),
            session: session::Session::default(),
            activities: activities.clone(),
            faults: faults.clone(),
        };
        let packer = packer::Packer::start(tools, workers);
        let inner = Inner {
            meta,
            packs,
            packer,
            directories: fetch::Directories::default(),
            read_budget: Arc::new(tokio::sync::Semaphore::new(fetch::READ_BUDGET)),
            activities,
            standing,
            collector: gc::Collector::default(),
            faults,
            uploads: Arc::new(AtomicUsize::new(0)),
            pool: ingest::Pool::default(),
            underway: ingest::Underway::default(),
            process: entropy::fresh_id(),
            workers: workers.clone(),
        };
        let store = Self { inner: Arc::new(inner) };
        store.resume_removals().await?;
        Ok(store)
    }

    /// Seals what is open and closes the metadata. Call it after the doors have drained and before the workers stop.
    pub async fn close(&self) {
        self.inner.packer.end().await;
        self.inner.meta.close().await;
    }
}
