//! What goes into the store's calls and comes out of them.

use std::collections::BTreeMap;
use std::pin::Pin;

use bytes::Bytes;
use futures_util::Stream;
use serde::{Deserialize, Serialize};

use super::error::BoxError;
use crate::format::row::{Described, ObjectRow};
use crate::model::{Digest, ObjectKey, PackId, UploadId};
use crate::sys::clock::Timestamp;

/// Bytes as they come or go. An `Err` ends a write without trace.
pub type ByteStream = Pin<Box<dyn Stream<Item = Result<Bytes, BoxError>> + Send>>;

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
    /// MD5 that the client announced.
    pub expected_md5: Option<[u8; 16]>,
}

impl PutRequest {
    pub(super) fn described(&self) -> Described {
        Described { content_type: self.content_type.clone(), headers: self.headers.clone() }
    }
}

/// What must hold of the object that is there, checked in the transaction that writes.
#[derive(Clone, Debug, Default)]
pub struct Precondition {
    /// Its entity tag, without quotes; `*` is any. An absent object answers `NoSuchKey`.
    pub if_match: Option<String>,
    /// There must be no object.
    pub if_none_match_any: bool,
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
}

impl ObjectInfo {
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
