//! Another name for an object, in one step: at no moment is it under both names, or under none.

use super::Store;
use super::error::StoreError;
use super::types::{ObjectInfo, Precondition};
use crate::format::row::key;
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
            let (bucket_row, bucket_bytes) = self.inner.bucket_row(bucket).await?;
            if bucket_row.versioning != Versioning::Off {
                return Err(StoreError::BucketState("a bucket that keeps versions cannot rename; copy and delete"));
            }
            let found = self.inner.newest(bucket, from).await?;
            let found = found.ok_or_else(|| StoreError::NoSuchKey(from.clone()))?;
            let info = ObjectInfo::from_row(to.clone(), &found.row);
            source(&info)?;
            let replaced = self.inner.newest(bucket, to).await?;
            super::commit::check(target, replaced.as_ref().map(|replaced| &replaced.row), to)?;
            if from == to {
                return Ok(info);
            }
            let tx = Transaction::new()
                .expect(key::bucket(bucket), Some(bucket_bytes))
                .expect(key::object(bucket, to), replaced.as_ref().map(|replaced| replaced.bytes.clone()));
            let (tx, moved) = self.inner.moving(tx, found, key::object(bucket, to)).await?;
            let committed = self.inner.meta.commit(tx).await;
            self.inner.moved(Some(moved), &committed).await;
            match committed {
                Ok(()) => {
                    if let Some(replaced) = replaced {
                        self.inner.drop_manifest(&replaced.row.body).await;
                    }
                    return Ok(info);
                }
                Err(MetaError::Conflict) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(StoreError::Busy)
    }
}
