//! Branches: buckets that begin as a snapshot, and have rows only of what was written since.

use bytes::Bytes;

use super::{PAGE, TRIES};
use crate::format::row::{BucketRow, ObjectRow, Origin, SnapshotRow, key};
use crate::meta::{MetaError, Transaction, prefix_end};
use crate::model::limit::{BRANCH_DEPTH_MAX, BRANCHES_MAX};
use crate::model::{BucketName, SnapshotName};
use crate::store::Store;
use crate::store::error::StoreError;
use crate::store::types::BucketInfo;
use crate::sys::clock;

impl Store {
    /// Makes a bucket that begins as a snapshot, and belongs to whom that snapshot's bucket belongs. Costs one transaction, whatever the
    /// snapshot holds; settings are not taken over.
    pub async fn branch_snapshot(
        &self,
        bucket: &BucketName,
        snapshot: &SnapshotName,
        branch: &BucketName,
    ) -> Result<BucketInfo, StoreError> {
        let (snapshot_key, branch_key) = (key::snapshot(bucket, snapshot), key::bucket(branch));
        for _ in 0..TRIES {
            let (origin, _) = self.inner.bucket_row(bucket).await?;
            let (mut row, bytes) = self.inner.snapshot_row(bucket, snapshot).await?;
            if origin.origins.len() >= BRANCH_DEPTH_MAX {
                return Err(StoreError::BucketState(
                    "branches go 16 deep at most; copy the snapshot's objects to a bucket of their own instead",
                ));
            }
            if row.branches.len() >= BRANCHES_MAX {
                return Err(StoreError::BucketState("a snapshot has at most 1,000 branches; remove some first"));
            }
            if self.inner.meta.get(&branch_key).await?.is_some() {
                return Err(StoreError::BucketExists(branch.clone()));
            }
            row.branches.push(branch.clone());
            let mut origins = origin.origins;
            origins.insert(0, Origin { bucket: bucket.clone(), snapshot: snapshot.clone(), epoch: row.epoch });
            let branch_row = BucketRow { origins, ..BucketRow::new(&origin.owner, clock::now()) };
            let tx = Transaction::new()
                .expect(snapshot_key.clone(), Some(bytes))
                .put(snapshot_key.clone(), row.encode())
                .expect(branch_key.clone(), None)
                .put(branch_key.clone(), branch_row.encode());
            match self.inner.meta.commit(tx).await {
                Ok(()) => return self.bucket(branch).await,
                Err(MetaError::Conflict) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(StoreError::Busy)
    }

    /// Takes a bucket that keeps no versions and is marked as being deleted off the snapshot that it branched from, if it has no objects of
    /// its own. Answers its row as it is then. A crash before the bucket is gone leaves an empty one.
    pub(in crate::store) async fn cut_off(
        &self,
        bucket: &BucketName,
        marked: BucketRow,
    ) -> Result<BucketRow, StoreError> {
        let prefix = key::objects(bucket);
        let (end, mut start) = (prefix_end(&prefix), prefix.clone());
        loop {
            let rows = self.inner.meta.scan(&start, &end, PAGE).await?;
            for (_, value) in &rows {
                if !ObjectRow::decode(value)?.is_tombstone() {
                    return Err(StoreError::BucketNotEmpty(bucket.clone()));
                }
            }
            match rows.last() {
                Some((last, _)) if rows.len() == PAGE => start = [last, &b"\0"[..]].concat(),
                _ => break,
            }
        }
        let free = BucketRow { origins: Vec::new(), ..marked.clone() };
        self.release(bucket, &marked, free.encode()).await?;
        loop {
            let rows = self.inner.meta.scan(&prefix, &end, PAGE).await?;
            if rows.is_empty() {
                return Ok(free);
            }
            self.inner.meta.commit(rows.into_iter().fold(Transaction::new(), |tx, (key, _)| tx.delete(key))).await?;
        }
    }

    /// Writes the branch's row without its origin, and the snapshot's without the branch.
    async fn release(&self, bucket: &BucketName, marked: &BucketRow, free: Bytes) -> Result<(), StoreError> {
        let Some(origin) = marked.origins.first() else { return Ok(()) };
        let (bucket_key, snapshot_key) = (key::bucket(bucket), key::snapshot(&origin.bucket, &origin.snapshot));
        for _ in 0..TRIES {
            let mut tx = Transaction::new()
                .expect(bucket_key.clone(), Some(marked.encode()))
                .put(bucket_key.clone(), free.clone());
            if let Some(bytes) = self.inner.meta.get(&snapshot_key).await? {
                let mut row = SnapshotRow::decode(&bytes)?;
                row.branches.retain(|branch| branch != bucket);
                tx = tx.expect(snapshot_key.clone(), Some(bytes)).put(snapshot_key.clone(), row.encode());
            }
            match self.inner.meta.commit(tx).await {
                Ok(()) => return Ok(()),
                Err(MetaError::Conflict) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(StoreError::Busy)
    }
}
