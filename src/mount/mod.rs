//! A bucket, or a snapshot of one, as a folder. `door` takes the kernel's questions, `inner` and `folders` answer those that
//! change nothing, `changes` the others. `tree` knows inodes, `listing` what is there, which `bucket` asks S3 and `listed` reads;
//! `reader` reads objects ahead by their recipes, `plain` those that are encrypted; `load` brings chunks, `cache` keeps them on the
//! node's disk.

mod answers;
mod bucket;
mod cache;
mod changes;
mod door;
mod folders;
mod group;
mod inner;
mod listed;
mod listing;
mod load;
mod neighbours;
mod plain;
mod reader;
mod recent;
mod recipes;
mod statistics;
mod stretch;
mod sweep;
mod tree;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use object_store::aws::AmazonS3;

pub use bucket::{Bucket, BucketError};
pub use cache::Cache;
pub use statistics::{Figures, STATISTICS_FILE};

use crate::pull::{Appliance, ObjectSource, Patience, SnapshotId};
use crate::sys::process;
use crate::sys::worker::Workers;

/// How far the kernel reads ahead of a reader, in bytes.
const KERNEL_AHEAD: usize = 1024 * 1024;

/// What is mounted, and how.
pub struct MountSettings {
    /// The bucket as the appliance is asked for it, `BUCKET` or `BUCKET@SNAPSHOT`.
    pub bucket: String,
    /// Which snapshot that is, where it is one.
    pub snapshot: Option<SnapshotId>,
    /// What keys begin with: empty, or ending with a slash.
    pub prefix: String,
    /// Owner of everything in the mount.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
    /// Permissions of files; folders may be entered by whoever may read.
    pub mode: u16,
    /// Whether other users than the one who mounts may enter.
    pub allow_other: bool,
    /// How long an appliance that is away is waited for before a read fails with EIO.
    pub patience: Duration,
    /// Whether everything that would change the bucket is refused.
    pub is_read_only: bool,
    /// Whether programs in it may be run.
    pub may_execute: bool,
    /// Memory for reads ahead, of all open files together, in bytes.
    pub read_ahead: usize,
}

/// A mount, until it is unmounted.
pub struct Mount {
    session: fuser::Session<door::Door>,
    workers: Workers,
    cache: Option<Cache>,
}

impl Mount {
    /// Mounts on `folder`; answers once the kernel knows the mount. It is served by [`Mount::serve`]. `s3` is what long files are
    /// uploaded by.
    pub fn new(
        folder: &Path,
        settings: MountSettings,
        appliance: Appliance,
        bucket: Bucket,
        s3: Arc<AmazonS3>,
        cache: Option<Cache>,
    ) -> std::io::Result<Self> {
        let workers = Workers::new();
        let source = ObjectSource::new(appliance, &settings.bucket, Patience::For(settings.patience));
        let statistics = bucket.statistics().clone();
        let pool = reader::Pool::new(
            source,
            settings.snapshot,
            cache.clone(),
            settings.read_ahead,
            workers.clone(),
            statistics,
        );
        let listing = listing::Listing::new(bucket, &settings.prefix, settings.snapshot.is_some());
        let mut options = vec![
            fuser::MountOption::FSName(format!("{}/{}", settings.bucket, settings.prefix)),
            fuser::MountOption::Subtype("bedplate".to_owned()),
            fuser::MountOption::NoDev,
            fuser::MountOption::NoSuid,
            fuser::MountOption::DefaultPermissions,
        ];
        options.push(fuser::MountOption::NoAtime);
        options.extend((!settings.may_execute).then_some(fuser::MountOption::NoExec));
        options.push(if settings.is_read_only { fuser::MountOption::RO } else { fuser::MountOption::RW });
        let mut config = fuser::Config::default();
        config.mount_options = options;
        config.acl = if settings.allow_other { fuser::SessionACL::All } else { fuser::SessionACL::Owner };
        let door = door::Door::new(inner::Inner::new(settings, listing, s3, Arc::new(pool), workers.clone()));
        // Asked before it is covered: nobody answers yet for what covers it.
        let folder = folder.canonicalize()?;
        let session = fuser::Session::new(door, &folder, &config)?;
        // Without it reads come in smaller pieces.
        if let Err(error) = process::set_read_ahead(&folder, KERNEL_AHEAD) {
            tracing::debug!(%error, "the kernel goes on reading ahead as little as it does");
        }
        Ok(Self { session, workers, cache })
    }

    /// What unmounts it, from any thread.
    pub fn unmounter(&mut self) -> fuser::SessionUnmounter {
        self.session.unmount_callable()
    }

    /// Answers the kernel until the folder is unmounted. Blocks: call it off the runtime.
    pub fn serve(self) -> std::io::Result<Workers> {
        self.session.run()?;
        if let Some(cache) = self.cache {
            cache.settle();
        }
        Ok(self.workers)
    }
}

/// The folder in which the node keeps chunks unless told otherwise.
#[must_use]
pub fn default_cache() -> PathBuf {
    let given = |name: &str| std::env::var_os(name).filter(|text| !text.is_empty()).map(PathBuf::from);
    let base = given("XDG_CACHE_HOME").or_else(|| given("HOME").map(|home| home.join(".cache")));
    base.unwrap_or_else(|| PathBuf::from("/var/cache")).join("bedplate")
}
