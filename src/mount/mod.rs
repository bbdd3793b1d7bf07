//! A bucket, or a snapshot of one, as a folder. `door` answers the kernel; `tree` knows inodes, `listing` asks S3 what is
//! there, `reader` reads objects ahead by their recipes, `cache` keeps chunks on the node's disk.

mod cache;
mod changes;
mod door;
mod listing;
mod reader;
mod tree;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use object_store::aws::AmazonS3;

pub use cache::Cache;

use crate::pull::{Appliance, ObjectSource, Patience};
use crate::sys::worker::Workers;

/// Puts (`true`) or removes the empty object of a key that ends with a slash; answers the HTTP status.
pub type Marker = Arc<dyn Fn(String, bool) -> BoxFuture<'static, Result<u16, String>> + Send + Sync>;

/// What is mounted, and how.
pub struct MountSettings {
    /// The bucket as the appliance is asked for it, `BUCKET` or `BUCKET@SNAPSHOT`.
    pub bucket: String,
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
    /// Makes and removes folders; none where the mount is for reading only.
    pub marker: Option<Marker>,
    /// Memory for reads ahead, of all open files together, in bytes.
    pub read_ahead: usize,
}

/// A mount, until it is unmounted.
pub struct Mount {
    session: fuser::Session<door::Door>,
    workers: Workers,
}

impl Mount {
    /// Mounts on `folder`; answers once the kernel knows the mount. It is served by [`Mount::serve`].
    pub fn new(
        folder: &Path,
        settings: MountSettings,
        appliance: Appliance,
        s3: Arc<AmazonS3>,
        cache: Option<Cache>,
    ) -> std::io::Result<Self> {
        let workers = Workers::new();
        let source = ObjectSource::new(appliance, &settings.bucket, Patience::For(settings.patience));
        let pool = reader::Pool::new(source, cache, settings.read_ahead, workers.clone());
        let listing = listing::Listing::new(s3, &settings.prefix, settings.patience);
        let mut options = vec![
            fuser::MountOption::FSName(format!("{}/{}", settings.bucket, settings.prefix)),
            fuser::MountOption::Subtype("bedplate".to_owned()),
            fuser::MountOption::NoDev,
            fuser::MountOption::NoSuid,
            fuser::MountOption::DefaultPermissions,
        ];
        let is_read_only = settings.marker.is_none();
        options.push(fuser::MountOption::NoAtime);
        options.push(if is_read_only { fuser::MountOption::RO } else { fuser::MountOption::RW });
        let mut config = fuser::Config::default();
        config.mount_options = options;
        config.acl = if settings.allow_other { fuser::SessionACL::All } else { fuser::SessionACL::Owner };
        let door = door::Door::new(settings, listing, pool, workers.clone());
        Ok(Self { session: fuser::Session::new(door, folder, &config)?, workers })
    }

    /// What unmounts it, from any thread.
    pub fn unmounter(&mut self) -> fuser::SessionUnmounter {
        self.session.unmount_callable()
    }

    /// Answers the kernel until the folder is unmounted. Blocks: call it off the runtime.
    pub fn serve(self) -> std::io::Result<Workers> {
        self.session.run()?;
        Ok(self.workers)
    }
}

/// Finds out whether what is to be mounted can be listed.
pub async fn probe(s3: Arc<AmazonS3>, prefix: &str, patience: Duration) -> Result<(), object_store::Error> {
    listing::Listing::new(s3, prefix, patience).probe().await
}

/// The folder in which the node keeps chunks unless told otherwise.
#[must_use]
pub fn default_cache() -> PathBuf {
    let given = |name: &str| std::env::var_os(name).filter(|text| !text.is_empty()).map(PathBuf::from);
    let base = given("XDG_CACHE_HOME").or_else(|| given("HOME").map(|home| home.join(".cache")));
    base.unwrap_or_else(|| PathBuf::from("/var/cache")).join("bedplate")
}
