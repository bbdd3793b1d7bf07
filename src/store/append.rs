//! Appending: what comes is stored like a part, and joined to what is there.

use std::collections::BTreeMap;

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use md5::{Digest as _, Md5};

use super::Store;
use super::error::StoreError;
use super::ingest::{Content, Expected, Ingested, Source, ingest, join};
use super::types::{ByteStream, ObjectInfo, Precondition, PutRequest};
use super::version::Found;
use crate::format::manifest::Term;
use crate::format::row::{Body, BucketRow, Described, ObjectRow, PartRow};
use crate::meta::MetaError;
use crate::model::{BucketName, Digest, ObjectKey};
use crate::sys::clock;

/// Tries against writers that keep changing the same object.
const TRIES: usize = 64;

impl Store {
    /// Appends the body to an object that has `offset` bytes; where there is none, `offset` is 0 and the body becomes the object. `describe` says what
    /// headers the longer object keeps, given the shorter one and what was learned of the body. Durable when it returns.
    pub async fn append(
        &self,
        bucket: &BucketName,
        object: &ObjectKey,
        offset: u64,
        body: ByteStream,
        request: PutRequest,
        describe: impl Fn(&ObjectInfo, &BTreeMap<String, String>, u64) -> Result<BTreeMap<String, String>, StoreError>,
    ) -> Result<ObjectInfo, StoreError> {
        let _activity = self.inner.activities.begin();
        let precondition = self.inner.begin_write(bucket, &request.precondition).await?;
        let request = PutRequest { precondition, ..request };
        let bucket_row = self.inner.bucket_row(bucket).await?.0;
        if self.at_offset(bucket, &bucket_row, object, offset).await?.is_none() {
            return self.begin_object(bucket, object, body, request).await;
        }
        let expected =
            Expected { may_inline: false, sums: true, bytes: request.expected_bytes, md5: request.expected_md5 };
        let added = ingest(&self.inner, Source::Stream(body), expected).await?;
        let (learned, added_bytes, added_md5) = (request.late.get(), added.size, added.md5);
        let added = part(added);
        for _ in 0..TRIES {
            let bucket_row = self.inner.same_bucket(bucket, request.precondition.bucket.as_ref()).await?;
            let Some(found) = self.at_offset(bucket, &bucket_row.0, object, offset).await? else {
                return Err(StoreError::WrongOffset { size: 0 });
            };
            super::commit::check(&request.precondition, Some(&found.row), object)?;
            let info = ObjectInfo::from_row(object.clone(), &found.row);
            let headers = describe(&info, &learned, added_bytes)?;
            let (terms, root_digest) = match self.join_to(&found.row, &added).await {
                Ok(joined) => joined,
                // Its manifest went with it: it was replaced, or moved.
                Err(StoreError::CorruptRow(_)) if self.inner.is_gone(&found).await? => continue,
                Err(error) => return Err(error),
            };
            let longer = ObjectRow {
                size: found.row.size + added_bytes,
                etag: longer_etag(&found.row.etag, &added_md5),
                modified: clock::now(),
                described: Described { headers, ..found.row.described.clone() },
                root_digest: Some(root_digest),
                body: self.inner.lay_down(Content::Terms(terms)).await?,
                ..ObjectRow::empty()
            };
            let packs = self.inner.packs_of(&longer.body, longer.size).await?;
            let succeeded = self.inner.succeed(bucket, object, bucket_row, Some(found), &longer).await?;
            let tx = self.inner.with_packs(succeeded.tx, &packs).await?;
            match self.inner.meta.commit(tx).await {
                Ok(()) => {
                    if let Some(replaced) = succeeded.replaced {
                        self.inner.drop_manifest(&replaced.body).await;
                    }
                    return Ok(ObjectInfo::from_row(object.clone(), &succeeded.row));
                }
                Err(MetaError::Conflict) => self.inner.drop_manifest(&longer.body).await,
                Err(error) => {
                    let error = StoreError::from(error);
                    self.inner.give_up_manifest(&longer.body, &error).await;
                    return Err(error);
                }
            }
        }
        Err(StoreError::Busy)
    }

    /// What is appended to, if there is anything.
    async fn at_offset(
        &self,
        bucket: &BucketName,
        bucket_row: &BucketRow,
        object: &ObjectKey,
        offset: u64,
    ) -> Result<Option<Found>, StoreError> {
        let found = self.inner.newest(bucket, bucket_row, object).await?.filter(|found| !found.row.marker);
        let size = found.as_ref().map_or(0, |found| found.row.size);
        if size == offset { Ok(found) } else { Err(StoreError::WrongOffset { size }) }
    }

    /// Of many that begin an object one does.
    async fn begin_object(
        &self,
        bucket: &BucketName,
        object: &ObjectKey,
        body: ByteStream,
        request: PutRequest,
    ) -> Result<ObjectInfo, StoreError> {
        let precondition = Precondition { if_none_match_any: true, ..request.precondition };
        match self.put(bucket, object, body, PutRequest { precondition, ..request }).await {
            Err(StoreError::PreconditionFailed) => {
                let found = self.inner.seen(bucket, object).await?;
                Err(StoreError::WrongOffset { size: found.map_or(0, |found| found.row.size) })
            }
            other => other,
        }
    }

    async fn join_to(&self, row: &ObjectRow, added: &PartRow) -> Result<(Vec<Term>, Digest), StoreError> {
        let there = self.as_part(row).await?;
        join(&self.inner, &[&there, added]).await
    }

    /// What is there, as a part: the bytes of a short object leave its row.
    async fn as_part(&self, row: &ObjectRow) -> Result<PartRow, StoreError> {
        let Body::Inline(bytes) = &row.body else {
            return Ok(part_of(row.size, row.body.clone()));
        };
        let expected = Expected { may_inline: false, sums: false, bytes: None, md5: None };
        let bytes: ByteStream = stream::iter([Ok::<Bytes, _>(bytes.clone())]).boxed();
        Ok(part(ingest(&self.inner, Source::Stream(bytes), expected).await?))
    }
}

fn part(ingested: Ingested) -> PartRow {
    let body = match ingested.content {
        Content::Inline(bytes) => Body::Inline(bytes),
        Content::Terms(terms) => Body::Terms(terms),
    };
    part_of(ingested.size, body)
}

fn part_of(size: u64, body: Body) -> PartRow {
    let (md5, root_digest) = ([0; 16], Digest([0; 32]));
    PartRow { size, md5, modified: clock::now(), root_digest, body, described: Described::default() }
}

/// Not the MD5 of the whole, and told apart from one by its number of pieces, like that of an object in parts.
fn longer_etag(there: &str, added: &[u8; 16]) -> String {
    let pieces = there.split_once('-').and_then(|(_, pieces)| pieces.parse::<u64>().ok()).unwrap_or(1);
    let digest = Md5::new().chain_update(there.as_bytes()).chain_update(added).finalize();
    format!("{}-{}", hex::encode(digest), pieces.saturating_add(1))
}
