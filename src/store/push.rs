//! Objects and parts that a client has cut and hashed itself: stored like any other, but that the chunks which the store has need not
//! come along (docs/decisions/0008).

use std::collections::BTreeMap;

use bytes::Bytes;
use futures_util::StreamExt as _;

use super::Store;
use super::error::{BoxError, StoreError};
use super::ingest::{known, take};
use super::multipart::part_info;
use super::types::{ENCRYPTION, Given, ObjectInfo, PartInfo, Precondition, PutRequest, UPLOAD};
use crate::format::pieces::{SIGNED_MAX, Signature, cut_pieces};
use crate::format::row::{Described, ObjectRow, PartRow};
use crate::model::limit::PARTS_MAX;
use crate::model::{BucketName, ByteRange, Digest, ObjectKey, UploadId};
use crate::sys::clock;
use crate::sys::worker::blocking;

impl Store {
    /// Which of the chunks the store has now. It may lose them again before anything refers to them.
    pub async fn known_chunks(&self, digests: &[Digest]) -> Result<Vec<bool>, StoreError> {
        let _activity = self.inner.activities.begin();
        known(&self.inner, digests).await
    }

    /// What a stretch of an object is made of, for whoever has its new bytes and may read the old. An encrypted object has no signature
    /// worth the name.
    pub async fn signature(
        &self,
        bucket: &BucketName,
        object: &ObjectKey,
        stretch: ByteRange,
    ) -> Result<Signature, StoreError> {
        let within = |size| {
            let end = stretch.end.min(stretch.start.saturating_add(SIGNED_MAX)).min(size);
            Ok(ByteRange { start: stretch.start.min(end), end })
        };
        let opened = self.open_object(bucket, object, None, within).await?;
        if opened.info.headers.contains_key(ENCRYPTION) {
            return Err(StoreError::Unfit("The object is encrypted."));
        }
        let start = opened.range.start;
        let (info, mut bytes) = opened.read();
        let mut signature = Signature { etag: info.etag, start, pieces: Vec::new() };
        let mut open: Vec<u8> = Vec::new();
        loop {
            let more = bytes.next().await.transpose().map_err(told)?;
            let last = more.is_none();
            open.extend_from_slice(&more.unwrap_or_default());
            let (cut, rest) = blocking(move || {
                let cut = cut_pieces(&mut open, last);
                (cut, open)
            })
            .await
            .map_err(StoreError::step)?;
            signature.pieces.extend(cut);
            open = rest;
            if last {
                return Ok(signature);
            }
        }
    }

    /// Stores what is given under the key. Durable when it returns. Its entity tag is its root digest.
    pub async fn put_given(
        &self,
        bucket: &BucketName,
        object: &ObjectKey,
        given: Given,
        request: PutRequest,
    ) -> Result<ObjectInfo, StoreError> {
        let precondition = self.inner.begin_write(bucket, &request.precondition).await?;
        let _activity = self.inner.activities.begin();
        let taken = take(&self.inner, given).await?;
        let row = ObjectRow {
            size: taken.size,
            etag: taken.root_digest.to_string(),
            modified: clock::now(),
            described: request.described(),
            root_digest: Some(taken.root_digest),
            body: self.inner.lay_down(taken.content).await?,
            ..ObjectRow::empty()
        };
        self.inner.commit_object(bucket, object, row, &precondition, |tx| tx).await
    }

    /// Stores what is given as a part, in place of an earlier one of the same number. Durable when it returns. Its entity tag is the
    /// first half of its root digest.
    pub async fn put_given_part(
        &self,
        bucket: &BucketName,
        object: &ObjectKey,
        upload: &UploadId,
        number: u32,
        given: Given,
    ) -> Result<PartInfo, StoreError> {
        if !(1..=PARTS_MAX).contains(&number) {
            return Err(StoreError::InvalidPart { number });
        }
        self.upload_row(bucket, object, *upload).await?;
        let _activity = self.inner.activities.begin();
        let taken = take(&self.inner, given).await?;
        let row = PartRow {
            size: taken.size,
            md5: std::array::from_fn(|at| taken.root_digest.0[at]),
            modified: clock::now(),
            root_digest: taken.root_digest,
            body: self.inner.lay_down(taken.content).await?,
            described: Described { content_type: None, headers: BTreeMap::new() },
        };
        match self.commit_part(bucket, object, *upload, number, &row).await {
            Ok(()) => Ok(part_info(number, &row)),
            Err(error) => {
                self.inner.give_up_manifest(&row.body, &error).await;
                Err(error)
            }
        }
    }

    /// Joins pushed parts into the object, whose entity tag is its root digest. Who asks again for what was done is told the same.
    pub async fn complete_push(
        &self,
        bucket: &BucketName,
        object: &ObjectKey,
        upload: &UploadId,
        parts: &[(u32, String)],
    ) -> Result<ObjectInfo, StoreError> {
        let kept = BTreeMap::from([(UPLOAD.to_owned(), upload.to_string())]);
        let sum_up = |_: &_, _: &[PartInfo]| Ok((kept.clone(), Bytes::new()));
        match self.complete_upload_as(bucket, object, upload, parts, &Precondition::default(), sum_up).await {
            Err(gone @ StoreError::NoSuchUpload(_)) => match self.head(bucket, object).await {
                Ok(info) if info.headers.get(UPLOAD) == kept.get(UPLOAD) => Ok(info),
                _ => Err(gone),
            },
            other => other,
        }
    }
}

/// What ended an object's bytes.
fn told(error: BoxError) -> StoreError {
    error.downcast::<StoreError>().map_or_else(StoreError::Body, |error| *error)
}
