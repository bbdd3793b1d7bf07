//! Objects: put, head, get, copy.

use std::fs::File;

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};

use super::Store;
use super::activity::Activity;
use super::error::{BoxError, StoreError};
use super::ingest::{Content, Expected, Source, ingest};
use super::types::{ByteStream, ObjectInfo, Precondition, PutRequest};
use super::version::Found;
use crate::format::manifest::Term;
use crate::format::row::{Body, ObjectRow};
use crate::model::{BucketName, ByteRange, ObjectKey, VersionId};
use crate::sys::clock;

/// Tries against writers that keep changing the same object.
const TRIES: usize = 64;

/// An object that was found, and whose bytes nobody has asked for yet. What it refers to stays for as long as this, or its bytes, are
/// there, whatever becomes of the object.
pub struct OpenObject {
    /// What is known about it.
    pub info: ObjectInfo,
    /// The bytes that were wanted.
    pub range: ByteRange,
    content: OpenContent,
    store: Store,
    activity: Activity,
}

enum OpenContent {
    Inline(Bytes),
    /// Terms that the range begins in, and the offset of the first.
    Terms(Vec<Term>, u64),
}

impl OpenObject {
    /// The bytes. Every chunk is verified before a byte of it is given out; damage is told by an `Err` in the stream (a boxed
    /// [`StoreError`]).
    #[must_use]
    pub fn read(self) -> (ObjectInfo, ByteStream) {
        let Self { info, range, content, store, activity } = self;
        let bytes = match content {
            _ if range.is_empty() => stream::empty().boxed(),
            OpenContent::Inline(bytes) => {
                stream::iter([Ok(bytes.slice(range.start as usize..range.end as usize))]).boxed()
            }
            OpenContent::Terms(terms, offset) => store.read(terms, range.start - offset, range.len()),
        };
        let bytes = bytes.map(move |item| {
            let _under_way = &activity;
            item.map_err(|error| Box::new(error) as BoxError)
        });
        (info, bytes.boxed())
    }
}

impl std::fmt::Debug for OpenObject {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OpenObject").field("key", &self.info.key).field("range", &self.range).finish_non_exhaustive()
    }
}

impl Store {
    /// Stores the body under the key. Durable when it returns; an `Err` in the body leaves no trace.
    pub async fn put(
        &self,
        bucket: &BucketName,
        object: &ObjectKey,
        body: ByteStream,
        request: PutRequest,
    ) -> Result<ObjectInfo, StoreError> {
        let precondition = self.inner.begin_write(bucket, &request.precondition).await?;
        let _activity = self.inner.activities.begin();
        let expected = Expected {
            may_inline: *bucket != BucketName::images(),
            sums: request.given_md5.is_none(),
            bytes: request.expected_bytes,
            md5: request.expected_md5,
        };
        let ingested = ingest(&self.inner, Source::Stream(body), expected).await?;
        let row = ObjectRow {
            size: ingested.size,
            etag: hex::encode(request.md5(ingested.md5)),
            modified: clock::now(),
            described: request.described(),
            root_digest: Some(ingested.root_digest),
            body: self.inner.lay_down(ingested.content).await?,
            ..ObjectRow::empty()
        };
        self.inner.commit_object(bucket, object, row, &precondition, |tx| tx).await
    }

    /// Stores a file of this machine under the key. Its entity tag is its root digest, not its MD5: that would take longer than all else.
    pub async fn put_file(
        &self,
        bucket: &BucketName,
        object: &ObjectKey,
        file: File,
    ) -> Result<ObjectInfo, StoreError> {
        let precondition = self.inner.begin_write(bucket, &Precondition::default()).await?;
        let _activity = self.inner.activities.begin();
        let expected = Expected { may_inline: *bucket != BucketName::images(), sums: false, bytes: None, md5: None };
        let ingested = ingest(&self.inner, Source::File(file), expected).await?;
        let row = ObjectRow {
            size: ingested.size,
            etag: ingested.root_digest.to_string(),
            modified: clock::now(),
            root_digest: Some(ingested.root_digest),
            body: self.inner.lay_down(ingested.content).await?,
            ..ObjectRow::empty()
        };
        self.inner.commit_object(bucket, object, row, &precondition, |tx| tx).await
    }

    /// The row of an object, or of one of its versions; a delete marker is none.
    pub(super) async fn object_row(
        &self,
        bucket: &BucketName,
        object: &ObjectKey,
        version: Option<VersionId>,
    ) -> Result<Found, StoreError> {
        let found = match version {
            None => self.inner.seen(bucket, object).await?,
            Some(id) => self.inner.version(bucket, object, id).await?.map(|(found, _)| found),
        };
        match found {
            Some(Found { row, .. }) if row.marker => {
                let (marker, modified) = (row.version.id(), row.modified);
                Err(StoreError::DeleteMarker { version: marker, modified, named: version.is_some() })
            }
            Some(found) => Ok(found),
            None => Err(version.map_or_else(|| StoreError::NoSuchKey(object.clone()), StoreError::NoSuchVersion)),
        }
    }

    /// An object's row, and the terms of the bytes that `wanted` says, with the offset of the first. A manifest that goes while it is
    /// read is one of an object that was replaced, or moved: then the new one is read.
    pub(super) async fn row_and_terms(
        &self,
        bucket: &BucketName,
        object: &ObjectKey,
        version: Option<VersionId>,
        wanted: impl Fn(&ObjectRow) -> Result<ByteRange, StoreError>,
    ) -> Result<(Found, ByteRange, (Vec<Term>, u64)), StoreError> {
        for _ in 0..TRIES {
            let found = self.object_row(bucket, object, version).await?;
            let range = wanted(&found.row)?;
            if range.is_empty() {
                return Ok((found, range, (Vec::new(), 0)));
            }
            match self.inner.terms(&found.row.body, range.start, range.end).await {
                Ok(terms) => return Ok((found, range, terms)),
                Err(StoreError::CorruptRow(damage))
                    if self.object_row(bucket, object, version).await?.bytes == found.bytes =>
                {
                    return Err(damage.into());
                }
                Err(StoreError::CorruptRow(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Err(StoreError::Busy)
    }

    /// What is known about an object.
    pub async fn head(&self, bucket: &BucketName, object: &ObjectKey) -> Result<ObjectInfo, StoreError> {
        self.head_version(bucket, object, None).await
    }

    /// What is known about an object, or about one of its versions.
    pub async fn head_version(
        &self,
        bucket: &BucketName,
        object: &ObjectKey,
        version: Option<VersionId>,
    ) -> Result<ObjectInfo, StoreError> {
        Ok(ObjectInfo::found(object.clone(), &self.object_row(bucket, object, version).await?))
    }

    /// An object's bytes, or a range of them. Every chunk is verified before a byte of it is given out; damage in the
    /// first chunks is told here, later damage by an `Err` in the stream (a boxed [`StoreError`]).
    pub async fn get(
        &self,
        bucket: &BucketName,
        object: &ObjectKey,
        range: Option<ByteRange>,
    ) -> Result<(ObjectInfo, ByteStream), StoreError> {
        self.get_version(bucket, object, None, range).await
    }

    /// As [`Store::get`], of one of the object's versions.
    pub async fn get_version(
        &self,
        bucket: &BucketName,
        object: &ObjectKey,
        version: Option<VersionId>,
        range: Option<ByteRange>,
    ) -> Result<(ObjectInfo, ByteStream), StoreError> {
        let opened = self.open_object(bucket, object, version, |size| match range {
            None => Ok(ByteRange { start: 0, end: size }),
            Some(range) if range.start <= range.end && range.end <= size => Ok(range),
            Some(_) => Err(StoreError::InvalidRange { size }),
        });
        let (info, mut bytes) = opened.await?.read();
        match bytes.next().await {
            Some(Err(error)) => Err(error.downcast::<StoreError>().map_or_else(StoreError::Body, |error| *error)),
            first => Ok((info, stream::iter(first).chain(bytes).boxed())),
        }
    }

    /// Finds an object, and reads nothing of it yet. `wanted` says which of its bytes are, given how many there are.
    pub async fn open_object(
        &self,
        bucket: &BucketName,
        object: &ObjectKey,
        version: Option<VersionId>,
        wanted: impl Fn(u64) -> Result<ByteRange, StoreError>,
    ) -> Result<OpenObject, StoreError> {
        let activity = self.inner.activities.begin();
        let found = self.row_and_terms(bucket, object, version, |row: &ObjectRow| wanted(row.size)).await?;
        let (found, range, (terms, offset)) = found;
        let info = ObjectInfo::found(object.clone(), &found);
        let content = match found.row.body {
            Body::Inline(bytes) => OpenContent::Inline(bytes),
            _ => OpenContent::Terms(terms, offset),
        };
        Ok(OpenObject { info, range, content, store: self.clone(), activity })
    }

    /// Copies an object; no chunk moves. `replace` gives the copy its own content type and headers.
    pub async fn copy(
        &self,
        from: (&BucketName, &ObjectKey),
        to: (&BucketName, &ObjectKey),
        replace: Option<PutRequest>,
        precondition: &Precondition,
    ) -> Result<ObjectInfo, StoreError> {
        let describe = |source: &ObjectInfo| Ok(replace.clone().unwrap_or_else(|| PutRequest::like(source)));
        self.copy_version((from.0, from.1, None), to, describe, precondition).await
    }

    /// Copies an object, or one of its versions; no chunk moves. `describe` says what the copy keeps, given what it is copied from, or
    /// refuses it.
    pub async fn copy_version(
        &self,
        from: (&BucketName, &ObjectKey, Option<VersionId>),
        to: (&BucketName, &ObjectKey),
        describe: impl Fn(&ObjectInfo) -> Result<PutRequest, StoreError>,
        precondition: &Precondition,
    ) -> Result<ObjectInfo, StoreError> {
        let precondition = self.inner.begin_write(to.0, precondition).await?;
        let _activity = self.inner.activities.begin();
        let whole = |row: &ObjectRow| Ok(ByteRange { start: 0, end: row.size });
        let (found, _, (terms, _)) = self.row_and_terms(from.0, from.1, from.2, whole).await?;
        let described = describe(&ObjectInfo::found(from.1.clone(), &found))?.described();
        let source = found.row;
        let body = match &source.body {
            Body::Rows(_) => self.inner.lay_down(Content::Terms(terms)).await?,
            other => other.clone(),
        };
        let row = ObjectRow { modified: clock::now(), described, body, ..source };
        self.inner.commit_object(to.0, to.1, row, &precondition, |tx| tx).await
    }
}
