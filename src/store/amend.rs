//! Changes of what is kept of an object besides its bytes: tags, locks.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::error::StoreError;
use super::retire::{retire, stays};
use super::types::{ENCRYPTION, ObjectInfo};
use super::version::Found;
use super::{Inner, Store};
use crate::format::row::{BucketRow, ObjectRow, key};
use crate::meta::{MetaError, Transaction};
use crate::model::{BucketName, ObjectKey, VersionId, Versioning};

/// Tries against writers that keep changing the same object.
const TRIES: usize = 64;

impl Store {
    /// Changes what is kept of an object, or of one of its versions, besides its bytes.
    pub async fn amend(
        &self,
        bucket: &BucketName,
        object: &ObjectKey,
        version: Option<VersionId>,
        change: impl Fn(&mut BTreeMap<String, String>) -> Result<(), StoreError>,
    ) -> Result<ObjectInfo, StoreError> {
        let _activity = self.inner.activities.begin();
        for _ in 0..TRIES {
            let bucket_row = self.inner.bucket_row(bucket).await?;
            let row = self.object_row(bucket, object, version).await?.row;
            if bucket_row.0.versioning == Versioning::Off {
                match self.inner.amend_kept(bucket, object, bucket_row, &change).await? {
                    Some(row) => return Ok(ObjectInfo::from_row(object.clone(), &row)),
                    None => continue,
                }
            }
            let found = self.inner.version(bucket, object, row.version.id()).await?;
            let Some((Found { key, bytes, mut row, .. }, _)) = found else { continue };
            change(&mut row.described.headers)?;
            let tx = Transaction::new().expect(key.clone(), Some(bytes)).put(key, row.encode());
            match self.inner.meta.commit(tx).await {
                Ok(()) => return Ok(ObjectInfo::from_row(object.clone(), &row)),
                Err(MetaError::Conflict) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(StoreError::Busy)
    }
}

impl Inner {
    /// One try to change what is kept of an object in a bucket without versions, whose snapshots go on to show what was kept; none where
    /// somebody else came between.
    async fn amend_kept(
        &self,
        bucket: &BucketName,
        object: &ObjectKey,
        (bucket_row, bucket_bytes): (BucketRow, Bytes),
        change: &impl Fn(&mut BTreeMap<String, String>) -> Result<(), StoreError>,
    ) -> Result<Option<ObjectRow>, StoreError> {
        let found = self.newest(bucket, &bucket_row, object).await?.filter(|found| !found.row.marker);
        let Some(found) = found else { return Ok(None) };
        if found.home.is_some() && found.row.described.headers.contains_key(ENCRYPTION) {
            return Err(StoreError::Unfit("An encrypted object is bound to its bucket; copy it onto itself first."));
        }
        let stays = stays(&bucket_row, &found);
        let (body, packs) = match stays {
            false => (found.row.body.clone(), BTreeSet::new()),
            true => match self.body_of_its_own(&found).await {
                Ok(body) => body,
                Err(StoreError::CorruptRow(_)) if self.is_gone(&found).await? => return Ok(None),
                Err(error) => return Err(error),
            },
        };
        let mut row = ObjectRow { body, epoch: bucket_row.epoch, ..found.row.clone() };
        let key = key::object(bucket, object);
        let outcome = async {
            change(&mut row.described.headers)?;
            let tx = Transaction::new()
                .expect(key::bucket(bucket), Some(bucket_bytes))
                .expect(key.clone(), found.expected())
                .put(key, row.encode());
            let (tx, _) = retire(tx, bucket, &bucket_row, object, Some(found));
            Ok(self.meta.commit(self.with_packs(tx, &packs).await?).await)
        };
        let outcome: Result<Result<(), MetaError>, StoreError> = outcome.await;
        let error = match outcome {
            Ok(Ok(())) => return Ok(Some(row)),
            Ok(Err(MetaError::Conflict)) => None,
            Ok(Err(error)) => Some(StoreError::from(error)),
            Err(error) => Some(error),
        };
        match error {
            None if stays => self.drop_manifest(&row.body).await,
            Some(error) if stays => {
                self.give_up_manifest(&row.body, &error).await;
                return Err(error);
            }
            Some(error) => return Err(error),
            None => {}
        }
        Ok(None)
    }
}
