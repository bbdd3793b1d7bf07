//! What can go wrong in the store, and what to do about it.

use std::io;

use crate::format::field::Damaged;
use crate::meta::MetaError;
use crate::model::{BucketName, Digest, ObjectKey, PackId, UploadId, VersionId};
use crate::sys::clock::Timestamp;

/// Any error, as streams carry it.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Why the store could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The bucket does not exist.
    #[error("there is no bucket {0}; create it first")]
    NoSuchBucket(BucketName),
    /// The bucket exists already.
    #[error("the bucket {0} exists already; use it, or choose another name")]
    BucketExists(BucketName),
    /// The bucket holds objects, or versions of them.
    #[error("the bucket {0} is not empty; delete its objects and their versions first")]
    BucketNotEmpty(BucketName),
    /// The bucket has snapshots.
    #[error("the bucket {0} has snapshots; `bedplate snapshot list {0}` shows them: remove them first")]
    HasSnapshots(BucketName),
    /// The snapshot does not exist.
    #[error("there is no snapshot {0}; `bedplate snapshot list {bucket}` shows those that there are", bucket = .0.base())]
    NoSuchSnapshot(BucketName),
    /// The snapshot exists already, or is still being removed.
    #[error("there is a snapshot {0} already, or one is being removed; choose another name")]
    SnapshotExists(BucketName),
    /// A snapshot never changes.
    #[error(
        "{0} is a snapshot, which never changes; `bedplate snapshot branch {0} NEWBUCKET` makes a bucket of it that can be written"
    )]
    IsSnapshot(BucketName),
    /// Branches need the snapshot.
    #[error("the snapshot {snapshot} is needed by {} that branched off from it; remove {first} first, and any others", branches(*count))]
    SnapshotInUse {
        /// The snapshot.
        snapshot: BucketName,
        /// One of the branches.
        first: BucketName,
        /// How many there are.
        count: usize,
    },
    /// The object does not exist.
    #[error("there is no object {0}")]
    NoSuchKey(ObjectKey),
    /// The object was deleted: its newest version, or the one that was asked for, is a delete marker.
    #[error("the object was deleted; name one of its versions to read it")]
    DeleteMarker {
        /// The marker.
        version: VersionId,
        /// When it was written.
        modified: Timestamp,
        /// Whether the request named it.
        named: bool,
    },
    /// An append does not begin where the object ends.
    #[error("the object has {size} bytes; append there")]
    WrongOffset {
        /// Its length in bytes.
        size: u64,
    },
    /// The version does not exist.
    #[error("there is no version {0} of this object")]
    NoSuchVersion(VersionId),
    /// The version is locked.
    #[error("the version is locked, by a legal hold or until its retention ends")]
    Locked,
    /// The bucket is not in a state that allows it.
    #[error("{0}")]
    BucketState(&'static str),
    /// The request says something that does not fit what is stored.
    #[error("{0}")]
    Unfit(&'static str),
    /// The upload does not exist, or was completed or aborted.
    #[error("there is no open upload {0}; it may have been completed or aborted: begin a new one")]
    NoSuchUpload(UploadId),
    /// A part that the completion names was not uploaded, or its entity tag is another.
    #[error("part {number} was not uploaded with that entity tag; upload it again")]
    InvalidPart {
        /// The part.
        number: u32,
    },
    /// The parts of a completion do not ascend.
    #[error("the parts are not in ascending order; list each once, by ascending number")]
    InvalidPartOrder,
    /// A part but the last is too small.
    #[error("part {number} has {size} bytes; every part but the last needs 5 MiB")]
    EntityTooSmall {
        /// The part.
        number: u32,
        /// Its length in bytes.
        size: u64,
    },
    /// The object is not as the request's precondition wants it.
    #[error("the object is not as the request's condition wants it; read it again, then decide")]
    PreconditionFailed,
    /// Chunks that a push refers to are not there, or not any more.
    #[error("the store lacks {} chunks that the push refers to; send them along", .0.len())]
    MissingChunks(Vec<Digest>),
    /// The bytes do not have the MD5 that the client announced.
    #[error("the bytes do not have the announced MD5; send them again")]
    BadDigest,
    /// The body has another length than announced.
    #[error("the body has {received} bytes and {expected} were announced; send it again")]
    IncompleteBody {
        /// Bytes announced.
        expected: u64,
        /// Bytes that came.
        received: u64,
    },
    /// The range lies outside of the object or pack.
    #[error("the range lies outside of the {size} bytes that there are")]
    InvalidRange {
        /// Bytes that there are.
        size: u64,
    },
    /// Stored bytes are not what they were: never served.
    #[error(
        "pack {pack}, chunk {chunk} is damaged: {what}; run `bedplate store fsck --read-data` and restore what it names"
    )]
    Corrupt {
        /// The pack.
        pack: PackId,
        /// The chunk's number in the pack.
        chunk: u32,
        /// What is wrong.
        what: String,
    },
    /// A metadata row is not what it was.
    #[error("a metadata row cannot be read; run `bedplate store fsck`")]
    CorruptRow(#[from] Damaged),
    /// No such pack.
    #[error("there is no pack {0}")]
    NoSuchPack(PackId),
    /// The disk that holds the packs or the metadata is full; nothing was changed.
    #[error("no space is left; free some on the data disk, then try again")]
    DiskFull,
    /// The body could not be read to its end.
    #[error("the body broke off; send it again")]
    Body(#[source] BoxError),
    /// The metadata failed.
    #[error("the metadata could not be read or written")]
    Meta(#[source] MetaError),
    /// Packs could not be read or written.
    #[error("could not {action}; check the data disk")]
    Io {
        /// What was being done.
        action: &'static str,
        /// What the system said.
        #[source]
        source: BoxError,
    },
    /// Something cannot be read that may refer to chunks, so nothing was removed.
    #[error("nothing was collected, because {what}; run `bedplate store fsck`, and delete or put again what it names")]
    NotCollected {
        /// What, and what is wrong with it.
        what: String,
    },
    /// Other writers kept changing the same rows.
    #[error("too many writers change the same object; try again")]
    Busy,
    /// The store was closed.
    #[error("the store is closed; restart the appliance")]
    Closed,
}

impl From<MetaError> for StoreError {
    fn from(error: MetaError) -> Self {
        match error {
            MetaError::DiskFull => Self::DiskFull,
            MetaError::Closed => Self::Closed,
            other => Self::Meta(other),
        }
    }
}

impl StoreError {
    /// An error of the packs' volume: a full disk, or what it is.
    pub(super) fn volume(action: &'static str, error: io::Error) -> Self {
        if is_full(&error) { Self::DiskFull } else { Self::Io { action, source: Box::new(error) } }
    }

    /// Whether what failed so may have happened all the same, now or at the next start: a commit that nobody heard the end of. What
    /// it would have referred to must stay; if nothing does, the collector takes it.
    pub(super) fn leaves_doubt(&self) -> bool {
        matches!(self, Self::Meta(_) | Self::Closed)
    }

    /// A blocking step ended early: it panicked, or the program is ending.
    pub(super) fn step(error: tokio::task::JoinError) -> Self {
        Self::Io { action: "finish a step of its work", source: Box::new(error) }
    }
}

fn branches(count: usize) -> String {
    if count == 1 { "a bucket".to_owned() } else { format!("{count} buckets") }
}

/// Whether a full disk is at the bottom of an error.
pub(super) fn is_full(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        let kind = error.downcast_ref::<io::Error>().map(io::Error::kind);
        let meta = error.downcast_ref::<MetaError>();
        if matches!(kind, Some(io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded))
            || matches!(meta, Some(MetaError::DiskFull))
        {
            return true;
        }
        next = error.source();
    }
    false
}

/// An error with its causes, in one line.
pub(super) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}
