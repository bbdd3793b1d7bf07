//! Another name for an object, in one step: at no moment is it under both names, or under none.

use super::Store;
use super::error::StoreError;
use super::retire::retire;
use super::types::{ObjectInfo, Precondition};
use super::version::Found;
use crate::format::row::{ObjectRow, key};
use crate::meta::{MetaError, Transaction};
use crate::model::{BucketName, ObjectKey, Versioning};

/// Tries against writers that keep changing the same objects.
const TRIES: usize = 64;

impl Store {
    /// Renames an object within its bucket, over what is there, when both are as wanted: `source` says whether what is found may be
    /// renamed, `target` what must hold of the object that is replaced. Only in a bucket that never kept versions.
    pub async fn rename(
        &self,
        bucket: &BucketName,
        from: &ObjectKey,
        to: &ObjectKey,
        source: impl Fn(&ObjectInfo) -> Result<(), StoreError>,
        target: &Precondition,
    ) -> Result<ObjectInfo, StoreError> {
        let _activity = self.inner.activities.begin();
        for _ in 0..TRIES {
            let (bucket_row, bucket_bytes) = self.inner.same_bucket(bucket, target.bucket.as_ref()).await?;
            if bucket_row.versioning != Versioning::Off {
                return Err(StoreError::BucketState("a bucket that keeps versions cannot rename; copy and delete"));
            }
            let found = self.inner.newest(bucket, &bucket_row, from).await?.filter(|found| !found.row.marker);
            let found = found.ok_or_else(|| StoreError::NoSuchKey(from.clone()))?;
            let info = ObjectInfo::found(to.clone(), &found);
            source(&info)?;
            let replaced = self.inner.newest(bucket, &bucket_row, to).await?;
            let there = replaced.as_ref().map(|replaced| &replaced.row).filter(|row| !row.marker);
            super::commit::check(target, there, to)?;
            if from == to {
                return Ok(info);
            }
            // The collector may have passed the new key already, and not yet the old one: the row gets a manifest of its own.
            let (body, packs) = match self.inner.body_of_its_own(&found).await {
                Ok(body) => body,
                Err(StoreError::CorruptRow(_)) if self.inner.is_gone(&found).await? => continue,
                Err(error) => return Err(error),
            };
            let row = ObjectRow { body, epoch: bucket_row.epoch, ..found.row.clone() };
            let outcome = async {
                let tx = Transaction::new()
                    .expect(key::bucket(bucket), Some(bucket_bytes))
                    .expect(key::object(bucket, to), replaced.as_ref().and_then(Found::expected));
                let (tx, covered) = retire(tx, bucket, &bucket_row, to, replaced);
                let (tx, left) = self.inner.vacate(tx, bucket, &bucket_row, from, found).await?;
                let tx = tx.put(key::object(bucket, to), row.encode());
                let tx = self.inner.with_packs(tx, &packs).await?;
                self.inner.meta.commit(tx).await?;
                Ok::<_, StoreError>([covered, left])
            };
            match outcome.await {
                Ok(gone) => {
                    for row in gone.into_iter().flatten() {
                        self.inner.drop_manifest(&row.body).await;
                    }
                    return Ok(info);
                }
                Err(StoreError::Meta(MetaError::Conflict)) => self.inner.drop_manifest(&row.body).await,
                Err(error) => {
                    self.inner.give_up_manifest(&row.body, &error).await;
                    return Err(error);
                }
            }
        }
        Err(StoreError::Busy)
    }
}
