//! What goes into the store's calls and comes out of them.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures_util::Stream;
use serde::{Deserialize, Serialize};

use super::error::BoxError;
use super::version::Found;
use crate::format::push::Record;
use crate::format::row::{Described, ObjectRow, PartList};
use crate::model::{Digest, ObjectKey, PackId, UploadId, Version, VersionId, Versioning};
use crate::sys::clock::Timestamp;

/// Bytes as they come or go. An `Err` ends a write without trace.
pub type ByteStream = Pin<Box<dyn Stream<Item = Result<Bytes, BoxError>> + Send>>;

/// Headers that are known once the body has ended: checksums that it was found to have.
#[derive(Clone, Debug, Default)]
pub struct LateHeaders(Arc<Mutex<BTreeMap<String, String>>>);

impl LateHeaders {
    /// Sets them.
    pub fn set(&self, headers: BTreeMap<String, String>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = headers;
    }

    /// What was set.
    #[must_use]
    pub fn get(&self) -> BTreeMap<String, String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The header under which an object keeps how it is encrypted. Who gives out the bytes of an object that has it gives out ciphertext.
pub const ENCRYPTION: &str = "x-bedplate-encryption";

/// The header under which an object keeps the upload that it came from, so that who did not hear the answer may ask again.
pub const UPLOAD: &str = "x-bedplate-upload";

/// The header that marks an upload whose parts are pushed; it names whose it is, as its client says.
pub const PUSHED: &str = "x-bedplate-push";

/// The records of a push as they come. An `Err` ends it without trace.
pub type RecordStream = Pin<Box<dyn Stream<Item = Result<Record, BoxError>> + Send>>;

/// Bytes that a client has cut and hashed itself.
pub struct Given {
    /// Chunks, or what they are called.
    pub records: RecordStream,
    /// Where a digest alone gives nobody a right to the chunk: the key of the proofs that its references need.
    pub prove: Option<[u8; 32]>,
    /// What its patches are made of; without it, their chunks must come along.
    pub base: Option<PatchBase>,
}

/// An object that is there, and that whoever pushes may read.
#[derive(Clone, Debug)]
pub struct PatchBase {
    /// Its bucket.
    pub bucket: crate::model::BucketName,
    /// Its key.
    pub key: ObjectKey,
    /// The entity tag that it must have, without quotes.
    pub etag: String,
}

/// The MD5 of a body as its sender had it, where it is stored as something else; set once the body has ended.
#[derive(Clone, Debug, Default)]
pub struct LateMd5(Arc<std::sync::OnceLock<[u8; 16]>>);

impl LateMd5 {
    /// Sets it; the first call counts.
    pub fn set(&self, md5: [u8; 16]) {
        let _ = self.0.set(md5);
    }
}

/// What is put, besides the bytes.
#[derive(Clone, Debug, Default)]
pub struct PutRequest {
    /// Content type, kept as given.
    pub content_type: Option<String>,
    /// Other headers to keep, by lower-case name (`cache-control`, `x-amz-meta-…`).
    pub headers: BTreeMap<String, String>,
    /// What must hold of the object that is there.
    pub precondition: Precondition,
    /// Length that the client announced.
    pub expected_bytes: Option<u64>,
    /// MD5 that the client announced, of the bytes that are stored.
    pub expected_md5: Option<[u8; 16]>,
    /// The MD5 that becomes the entity tag, where it is not that of the bytes that are stored.
    pub given_md5: Option<LateMd5>,
    /// Headers that come with the end of the body.
    pub late: LateHeaders,
}

impl PutRequest {
    /// What is kept of an object, for a copy of it.
    #[must_use]
    pub fn like(info: &ObjectInfo) -> Self {
        Self { content_type: info.content_type.clone(), headers: info.headers.clone(), ..Self::default() }
    }

    /// The MD5 that counts, given that of the stored bytes, once the body has ended.
    pub(super) fn md5(&self, stored: [u8; 16]) -> [u8; 16] {
        self.given_md5.as_ref().and_then(|given| given.0.get().copied()).unwrap_or(stored)
    }

    /// What is kept; complete once the body has ended.
    pub(super) fn described(&self) -> Described {
        let mut headers = self.headers.clone();
        headers.extend(self.late.get());
        Described { content_type: self.content_type.clone(), headers }
    }
}

/// What must hold of the bucket, and of the object that is there, checked in the transaction that writes.
#[derive(Clone, Debug, Default)]
pub struct Precondition {
    /// The bucket must be this one; another of its name is none. Without it, the one that is there when the write begins.
    pub bucket: Option<BucketIdentity>,
    /// Its entity tag, without quotes; `*` is any. An absent object answers `NoSuchKey`.
    pub if_match: Option<String>,
    /// There must be no object.
    pub if_none_match_any: bool,
    /// It must not have this entity tag; an absent object has none.
    pub if_none_match: Option<String>,
}

/// What is deleted, and when.
#[derive(Clone, Debug, Default)]
pub struct DeleteRequest {
    /// This version; none is the object as it is now.
    pub version: Option<VersionId>,
    /// Only where it has this entity tag, without quotes; `*` is any.
    pub if_match: Option<String>,
    /// Only where it was last written at this second, since 1970.
    pub if_modified: Option<u64>,
    /// Only where it has so many bytes.
    pub if_size: Option<u64>,
    /// Only where it is this version to the microsecond: several may be called `null` one after the other.
    pub if_exactly: Option<Version>,
    /// Only where it keeps these headers beside its bytes, its tags among them.
    pub if_headers: Option<BTreeMap<String, String>>,
    /// Only where it stands so among the versions of its key.
    pub if_placed: Option<Placed>,
    /// Although it is retained in governance mode.
    pub bypass_governance: bool,
}

/// Where a version stands among those of its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placed {
    /// It is the only one.
    Alone,
    /// There is a newer one.
    Superseded,
}

/// What a delete did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Deleted {
    /// Whether there was something to delete.
    pub existed: bool,
    /// The version that was removed, or the marker that was written; none in a bucket that never kept versions.
    pub version: Option<VersionId>,
    /// Whether that is a delete marker.
    pub marker: bool,
}

/// A bucket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BucketInfo {
    /// Its name.
    pub name: crate::model::BucketName,
    /// Who made it.
    pub owner: String,
    /// When.
    pub created: Timestamp,
    /// Whether it keeps versions.
    #[serde(default)]
    pub versioning: Versioning,
    /// Whether its versions can be locked.
    #[serde(default)]
    pub object_lock: bool,
}

impl BucketInfo {
    /// Which of all buckets of its name it is.
    #[must_use]
    pub fn identity(&self) -> BucketIdentity {
        BucketIdentity { owner: self.owner.clone(), created: self.created }
    }
}

/// Which bucket of a name it is: once a bucket is removed anybody may make one of its name, and a right to the one is none to the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BucketIdentity {
    /// Who made it.
    pub(super) owner: String,
    /// When.
    pub(super) created: Timestamp,
}

/// An object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObjectInfo {
    /// Its key.
    pub key: ObjectKey,
    /// Its length in bytes.
    pub size: u64,
    /// Its entity tag, without quotes.
    pub etag: String,
    /// When it was written.
    pub modified: Timestamp,
    /// Content type, as given.
    pub content_type: Option<String>,
    /// Other headers, as given.
    pub headers: BTreeMap<String, String>,
    /// Xet's file hash; absent where the object was put together from several parts.
    pub root_digest: Option<Digest>,
    /// Parts that it was put together from; absent for a single PUT.
    pub parts: Option<u32>,
    /// Which version it is; `null` in a bucket that keeps none.
    #[serde(skip, default)]
    pub version: Version,
    /// Whether it says that the object was deleted.
    #[serde(skip, default)]
    pub marker: bool,
    /// Its parts, where they are known.
    #[serde(skip, default)]
    pub part_list: PartList,
    /// The bucket that it was written to, where a snapshot or a branch shows it.
    #[serde(skip, default)]
    pub home: Option<crate::model::BucketName>,
}

impl ObjectInfo {
    /// As it was found: in the bucket that was asked, or in another that this one shows.
    pub(super) fn found(key: ObjectKey, found: &Found) -> Self {
        Self { home: found.home.clone(), ..Self::from_row(key, &found.row) }
    }

    pub(super) fn from_row(key: ObjectKey, row: &ObjectRow) -> Self {
        Self {
            key,
            size: row.size,
            etag: row.etag.clone(),
            modified: row.modified,
            content_type: row.described.content_type.clone(),
            headers: row.described.headers.clone(),
            root_digest: row.root_digest,
            parts: (row.parts > 0).then_some(row.parts),
            version: row.version,
            marker: row.marker,
            part_list: row.part_list.clone(),
            home: None,
        }
    }
}

/// Which objects to list.
#[derive(Clone, Debug, Default)]
pub struct ListRequest {
    /// What keys must begin with.
    pub prefix: String,
    /// Keys that share what lies between the prefix and this are listed as one.
    pub delimiter: Option<String>,
    /// Only keys after this one; one that ends with the delimiter skips all that begin with it.
    pub start_after: Option<String>,
    /// Most objects and prefixes together.
    pub limit: usize,
}

/// A page of a listing, in order.
#[derive(Clone, Debug, Default)]
pub struct ListPage {
    /// Objects.
    pub objects: Vec<ObjectInfo>,
    /// What groups of objects have in common.
    pub prefixes: Vec<String>,
    /// `start_after` of the next page; absent on the last.
    pub next: Option<String>,
}

/// Which versions to list.
#[derive(Clone, Debug, Default)]
pub struct VersionListRequest {
    /// What keys must begin with.
    pub prefix: String,
    /// Keys that share what lies between the prefix and this are listed as one.
    pub delimiter: Option<String>,
    /// Only what comes after this key; one that ends with the delimiter skips all that begin with it.
    pub key_after: Option<String>,
    /// With `key_after`: of that key itself, the versions that are older than this one.
    pub version_after: Option<VersionId>,
    /// Most versions and prefixes together.
    pub limit: usize,
}

/// One version in a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VersionInfo {
    /// The version, or the delete marker.
    pub info: ObjectInfo,
    /// Whether it is the newest of its key.
    pub latest: bool,
}

/// A page of a listing of versions: by key, the newest first.
#[derive(Clone, Debug, Default)]
pub struct VersionPage {
    /// Versions.
    pub versions: Vec<VersionInfo>,
    /// What groups of keys have in common.
    pub prefixes: Vec<String>,
    /// Where the next page begins; absent on the last.
    pub next: Option<(String, Option<VersionId>)>,
}

/// A part of an open upload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartInfo {
    /// Its number, from 1.
    pub number: u32,
    /// Its length in bytes.
    pub size: u64,
    /// Its entity tag, without quotes.
    pub etag: String,
    /// When it was written.
    pub modified: Timestamp,
    /// Its checksums, and what else it keeps, by header.
    pub headers: BTreeMap<String, String>,
}

/// An open upload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UploadInfo {
    /// The object to be.
    pub key: ObjectKey,
    /// The upload.
    pub id: UploadId,
    /// When it was begun.
    pub created: Timestamp,
    /// What the object to be keeps, by header.
    pub headers: BTreeMap<String, String>,
}

/// Figures of the store, or of one bucket.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stats {
    /// Objects.
    pub objects: u64,
    /// Bytes as users count them.
    pub logical_bytes: u64,
    /// Bytes of the chunks in use, each counted once, and of objects that live in their rows.
    pub unique_bytes: u64,
    /// Bytes of packs; of one bucket, the stored bytes of the chunks that it uses.
    pub stored_bytes: u64,
    /// Bytes of the metadata database on disk; of one bucket, the bytes of its rows.
    pub metadata_bytes: u64,
    /// Chunks in use.
    pub chunks: u64,
    /// Packs; of one bucket, the packs that it uses.
    pub packs: u64,
    /// Damaged chunks, and packs that are damaged as a whole, that are known and not repaired; of one bucket, those in its packs.
    #[serde(default)]
    pub damaged: u64,
}

/// What a check is to look at.
#[derive(Clone, Copy, Debug, Default)]
pub struct FsckOptions {
    /// Read every chunk of every pack and compare its digest.
    pub data: bool,
}

/// What a check found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FsckReport {
    /// Packs whose directory was read.
    pub packs_checked: u64,
    /// Chunks that were read and compared.
    pub chunks_checked: u64,
    /// Objects whose manifest was followed.
    pub objects_checked: u64,
    /// Packs that no row names: what a crash leaves. They cost space and harm nothing.
    pub orphans: Vec<PackId>,
    /// What is wrong; empty when all is well.
    pub errors: Vec<FsckError>,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FsckError {
    /// The pack, where it is about one.
    pub pack: Option<PackId>,
    /// The chunk's number in the pack, where it is about one.
    pub chunk: Option<u32>,
    /// The object as `bucket/key`, where it is about one.
    pub object: Option<String>,
    /// What is wrong.
    pub what: String,
}
