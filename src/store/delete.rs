//! Deletes: of an object, which in a bucket that keeps versions writes a delete marker, or of one version.

use bytes::Bytes;

use super::Store;
use super::error::StoreError;
use super::lock;
use super::types::{DeleteRequest, Deleted, Placed};
use super::version::{Moved, Removal, Succession};
use crate::format::row::{BucketRow, ObjectRow, key};
use crate::meta::{MetaError, Transaction, prefix_end};
use crate::model::{BucketName, ObjectKey, VersionId, Versioning};
use crate::sys::clock;

/// Tries against writers that keep changing the same object.
const TRIES: usize = 64;

/// A delete that is ready to be committed.
struct Planned {
    tx: Transaction,
    outcome: Deleted,
    /// The row that is gone afterwards.
    removed: Option<ObjectRow>,
    /// The version that takes its place.
    moved: Option<Moved>,
}

impl Planned {
    fn nothing(outcome: Deleted) -> Self {
        Self { tx: Transaction::new(), outcome, removed: None, moved: None }
    }
}

impl Store {
    /// Deletes an object; whether there was one.
    pub async fn delete(&self, bucket: &BucketName, object: &ObjectKey) -> Result<bool, StoreError> {
        Ok(self.delete_as(bucket, object, &DeleteRequest::default()).await?.existed)
    }

    /// Deletes an object or a version, on conditions. What is not there is no error.
    pub async fn delete_as(
        &self,
        bucket: &BucketName,
        object: &ObjectKey,
        request: &DeleteRequest,
    ) -> Result<Deleted, StoreError> {
        // A version that becomes the newest again refers to packs.
        let _activity = self.inner.activities.begin();
        for _ in 0..TRIES {
            let planned = match request.version {
                None => {
                    let bucket_row = self.inner.bucket_row(bucket).await?;
                    self.plan_delete(bucket, bucket_row, object, request).await?
                }
                Some(_) => self.plan_removal(bucket, object, request).await?,
            };
            if planned.tx.is_empty() {
                return Ok(planned.outcome);
            }
            let committed = self.inner.meta.commit(planned.tx).await;
            self.inner.moved(planned.moved, &committed).await;
            match committed {
                Ok(()) => {
                    if let Some(row) = planned.removed {
                        self.inner.drop_manifest(&row.body).await;
                    }
                    return Ok(planned.outcome);
                }
                Err(MetaError::Conflict) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(StoreError::Busy)
    }

    /// Of the object as it is now, in the bucket as it was found.
    async fn plan_delete(
        &self,
        bucket: &BucketName,
        bucket_row: (BucketRow, Bytes),
        object: &ObjectKey,
        request: &DeleteRequest,
    ) -> Result<Planned, StoreError> {
        let found = self.inner.newest(bucket, &bucket_row.0, object).await?;
        let there = found.as_ref().filter(|found| !found.row.marker);
        if let Some(there) = there {
            check(request, &there.row)?;
        }
        let existed = there.is_some();
        if bucket_row.0.versioning == Versioning::Off {
            let outcome = Deleted { existed, version: None, marker: false };
            let Some(found) = found.filter(|found| !found.row.marker) else {
                return Ok(Planned::nothing(outcome));
            };
            let (bucket_row, bytes) = bucket_row;
            let tx = Transaction::new().expect(key::bucket(bucket), Some(bytes));
            let (tx, removed) = self.inner.vacate(tx, bucket, &bucket_row, object, found).await?;
            return Ok(Planned { tx, outcome, removed, moved: None });
        }
        let marker = ObjectRow { modified: clock::now(), marker: true, ..ObjectRow::empty() };
        let Succession { row, tx, replaced } = self.inner.succeed(bucket, object, bucket_row, found, &marker).await?;
        let outcome = Deleted { existed, version: Some(row.version.id()), marker: true };
        Ok(Planned { tx, outcome, removed: replaced, moved: None })
    }

    /// Of one version.
    async fn plan_removal(
        &self,
        bucket: &BucketName,
        object: &ObjectKey,
        request: &DeleteRequest,
    ) -> Result<Planned, StoreError> {
        let (bucket_row, bytes) = self.inner.bucket_row(bucket).await?;
        if bucket_row.versioning == Versioning::Off && request.version == Some(VersionId::Null) {
            return self.plan_delete(bucket, (bucket_row, bytes), object, request).await;
        }
        let mut outcome = Deleted { version: request.version, ..Deleted::default() };
        let found = match request.version {
            Some(id) => self.inner.version(bucket, object, id).await?,
            None => None,
        };
        let Some((found, is_newest)) = found else {
            return Ok(Planned::nothing(outcome));
        };
        check(request, &found.row)?;
        if let Some(placed) = request.if_placed
            && !self.stands(bucket, object, is_newest, placed).await?
        {
            return Err(StoreError::PreconditionFailed);
        }
        if lock::holds(&found.row.described.headers, clock::now(), request.bypass_governance) {
            return Err(StoreError::Locked);
        }
        outcome.existed = true;
        outcome.marker = found.row.marker;
        if bucket_row.versioning == Versioning::Off {
            outcome.version = None;
        }
        let Removal { tx, moved } = self.inner.remove(bucket, object, &found, is_newest).await?;
        Ok(Planned { tx, outcome, removed: Some(found.row), moved })
    }
}

impl Store {
    /// Whether a version stands so. It goes on to until its own row changes, which the transaction would see: the newest of its key is
    /// written anew before there is another, and one that has a newer one moves when it has none any more.
    async fn stands(
        &self,
        bucket: &BucketName,
        object: &ObjectKey,
        is_newest: bool,
        placed: Placed,
    ) -> Result<bool, StoreError> {
        match placed {
            Placed::Superseded => Ok(!is_newest),
            Placed::Alone if !is_newest => Ok(false),
            Placed::Alone => {
                let older = key::versions_of(bucket, object);
                Ok(self.inner.meta.scan(&older, &prefix_end(&older), 1).await?.is_empty())
            }
        }
    }
}

fn check(request: &DeleteRequest, row: &ObjectRow) -> Result<(), StoreError> {
    let fits = request.if_match.as_ref().is_none_or(|etag| etag == "*" || *etag == row.etag)
        && request.if_modified.is_none_or(|second| second == row.modified.0 / 1_000)
        && request.if_size.is_none_or(|size| size == row.size)
        && request.if_exactly.is_none_or(|version| version == row.version)
        && request.if_headers.as_ref().is_none_or(|headers| *headers == row.described.headers);
    if fits { Ok(()) } else { Err(StoreError::PreconditionFailed) }
}
