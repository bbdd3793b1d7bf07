//! Buckets.

use bytes::Bytes;
use tokio::sync::oneshot;

use super::error::StoreError;
use super::types::{BucketIdentity, BucketInfo, Precondition};
use super::{Inner, Store};
use crate::format::field::Damaged;
use crate::format::row::{BucketRow, key};
use crate::meta::{MetaError, Transaction, prefix_end};
use crate::model::limit::TRANSACTION_KEYS_MAX;
use crate::model::{BucketName, Versioning};
use crate::sys::clock;

/// Buckets read at once.
const PAGE: usize = 500;
/// Settings that a bucket has at most.
const SETTINGS_MAX: usize = 64;
/// Tries against others that change the same bucket.
const TRIES: usize = 64;

impl Inner {
    /// The bucket's row, and its bytes as a transaction expects them. A bucket that is being deleted is none, and a snapshot of one is
    /// refused: it has nothing that could be written.
    pub(super) async fn bucket_row(&self, bucket: &BucketName) -> Result<(BucketRow, Bytes), StoreError> {
        if bucket.is_snapshot() {
            return Err(StoreError::IsSnapshot(bucket.clone()));
        }
        let bytes = self.meta.get(&key::bucket(bucket)).await?;
        let bytes = bytes.ok_or_else(|| StoreError::NoSuchBucket(bucket.clone()))?;
        let row = BucketRow::decode(&bytes)?;
        if row.deleting == Some(self.process) {
            return Err(StoreError::NoSuchBucket(bucket.clone()));
        }
        Ok((row, bytes))
    }

    /// As [`Inner::bucket_row`], of this bucket and no other that has its name by now.
    pub(super) async fn same_bucket(
        &self,
        bucket: &BucketName,
        wanted: Option<&BucketIdentity>,
    ) -> Result<(BucketRow, Bytes), StoreError> {
        let (row, bytes) = self.bucket_row(bucket).await?;
        match wanted {
            Some(wanted) if *wanted != identity(&row) => Err(StoreError::NoSuchBucket(bucket.clone())),
            _ => Ok((row, bytes)),
        }
    }

    /// What is wanted of a write that begins now: from here on, the bucket must stay the one that it is.
    pub(super) async fn begin_write(
        &self,
        bucket: &BucketName,
        wanted: &Precondition,
    ) -> Result<Precondition, StoreError> {
        let (row, _) = self.same_bucket(bucket, wanted.bucket.as_ref()).await?;
        Ok(Precondition { bucket: Some(identity(&row)), ..wanted.clone() })
    }
}

fn identity(row: &BucketRow) -> BucketIdentity {
    BucketIdentity { owner: row.owner.clone(), created: row.created }
}

impl Store {
    /// Makes a bucket.
    pub async fn create_bucket(&self, bucket: &BucketName, owner: &str) -> Result<(), StoreError> {
        self.create_bucket_as(bucket, owner, false).await
    }

    /// Makes a bucket; with `object_lock` its versions can be locked, and are kept for that.
    pub async fn create_bucket_as(
        &self,
        bucket: &BucketName,
        owner: &str,
        object_lock: bool,
    ) -> Result<(), StoreError> {
        let versioning = if object_lock { Versioning::Enabled } else { Versioning::Off };
        let row = BucketRow { versioning, object_lock, ..BucketRow::new(owner, clock::now()) };
        let key = key::bucket(bucket);
        match self.inner.meta.commit(Transaction::new().expect(key.clone(), None).put(key, row.encode())).await {
            Err(MetaError::Conflict) => Err(StoreError::BucketExists(bucket.clone())),
            other => Ok(other?),
        }
    }

    /// Deletes an empty bucket; uploads that are open in it end.
    pub async fn delete_bucket(&self, bucket: &BucketName) -> Result<(), StoreError> {
        // A caller that goes away must not leave the bucket marked: it would be hidden until the next start.
        let (reply, answer) = oneshot::channel();
        let (store, bucket) = (self.clone(), bucket.clone());
        self.inner.workers.spawn("bucket removal", async move {
            let _ = reply.send(store.mark_and_delete(&bucket).await);
        });
        answer.await.map_err(|_| StoreError::Closed)?
    }

    async fn mark_and_delete(&self, bucket: &BucketName) -> Result<(), StoreError> {
        let meta = &self.inner.meta;
        let (row, bytes) = self.inner.bucket_row(bucket).await?;
        let snapshots = key::snapshots(bucket);
        if !meta.scan(&snapshots, &prefix_end(&snapshots), 1).await?.is_empty() {
            return Err(StoreError::HasSnapshots(bucket.clone()));
        }
        let key = key::bucket(bucket);
        // From the mark on nothing can be put into the bucket, so that what is empty now stays empty.
        let marked = BucketRow { deleting: Some(self.inner.process), ..row };
        match meta.commit(Transaction::new().expect(key.clone(), Some(bytes)).put(key, marked.encode())).await {
            Err(MetaError::Conflict) => return Err(StoreError::Busy),
            other => other?,
        }
        let outcome = self.delete_marked(bucket, marked).await;
        if outcome.is_err() {
            let back = self.unmark(bucket).await;
            if let Err(error) = back {
                tracing::warn!(%bucket, %error, "the bucket could not be deleted and is hidden until the next start");
            }
        }
        outcome
    }

    async fn unmark(&self, bucket: &BucketName) -> Result<(), StoreError> {
        let key = key::bucket(bucket);
        let Some(bytes) = self.inner.meta.get(&key).await? else { return Ok(()) };
        let row = BucketRow { deleting: None, ..BucketRow::decode(&bytes)? };
        Ok(self.inner.meta.commit(Transaction::new().expect(key.clone(), Some(bytes)).put(key, row.encode())).await?)
    }

    /// Deletes a bucket whose row is `marked` as being deleted, if it is empty. A branch is once it has no objects of its own: what it
    /// shows of its snapshot is there still.
    async fn delete_marked(&self, bucket: &BucketName, mut marked: BucketRow) -> Result<(), StoreError> {
        let meta = &self.inner.meta;
        if marked.versioning == Versioning::Off {
            marked = self.cut_off(bucket, marked).await?;
        }
        for prefix in [key::objects(bucket), key::versions(bucket)] {
            if !meta.scan(&prefix, &prefix_end(&prefix), 1).await?.is_empty() {
                return Err(StoreError::BucketNotEmpty(bucket.clone()));
            }
        }
        self.end_uploads(bucket).await?;
        let settings = key::settings(bucket);
        let settings = meta.scan(&settings, &prefix_end(&settings), SETTINGS_MAX).await?;
        let key = key::bucket(bucket);
        let tx = Transaction::new().expect(key.clone(), Some(marked.encode())).delete(key);
        Ok(meta.commit(settings.into_iter().fold(tx, |tx, (key, _)| tx.delete(key))).await?)
    }

    /// Forgets a bucket's open uploads; what they had is collected.
    async fn end_uploads(&self, bucket: &BucketName) -> Result<(), StoreError> {
        let uploads = key::uploads(bucket);
        loop {
            let rows = self.inner.meta.scan(&uploads, &prefix_end(&uploads), TRANSACTION_KEYS_MAX).await?;
            if rows.is_empty() {
                return Ok(());
            }
            let tx = rows.into_iter().fold(Transaction::new(), |tx, (key, _)| tx.delete(key));
            self.inner.meta.commit(tx).await?;
        }
    }

    /// One bucket, or one snapshot of a bucket.
    pub async fn bucket(&self, bucket: &BucketName) -> Result<BucketInfo, StoreError> {
        let view = self.inner.view(bucket).await?;
        let mut info = info(bucket.clone(), view.row);
        if let Some(snapshot) = view.snapshot {
            info.created = snapshot.created;
        }
        Ok(info)
    }

    /// Switches whether the bucket keeps versions. It can be suspended, and never be off again.
    pub async fn set_versioning(&self, bucket: &BucketName, versioning: Versioning) -> Result<(), StoreError> {
        self.change_bucket(bucket, |row| {
            if row.object_lock && versioning != Versioning::Enabled {
                return Err(StoreError::BucketState("a bucket whose versions can be locked keeps them all"));
            }
            if versioning != Versioning::Off && (!row.snapshots.is_empty() || !row.origins.is_empty()) {
                return Err(StoreError::BucketState(
                    "a bucket with snapshots, or a branch, cannot keep versions; copy its objects to a bucket that does",
                ));
            }
            let off = versioning == Versioning::Off && row.versioning != Versioning::Off;
            row.versioning = if off { Versioning::Suspended } else { versioning };
            Ok(())
        })
        .await
    }

    /// Lets versions of the bucket be locked, from now on and for good.
    pub async fn allow_object_lock(&self, bucket: &BucketName) -> Result<(), StoreError> {
        self.change_bucket(bucket, |row| {
            if row.versioning != Versioning::Enabled {
                return Err(StoreError::BucketState("only versions can be locked; enable versioning first"));
            }
            row.object_lock = true;
            Ok(())
        })
        .await
    }

    async fn change_bucket(
        &self,
        bucket: &BucketName,
        change: impl Fn(&mut BucketRow) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        for _ in 0..TRIES {
            let (mut row, bytes) = self.inner.bucket_row(bucket).await?;
            change(&mut row)?;
            let key = key::bucket(bucket);
            match self
                .inner
                .meta
                .commit(Transaction::new().expect(key.clone(), Some(bytes)).put(key, row.encode()))
                .await
            {
                Ok(()) => return Ok(()),
                Err(MetaError::Conflict) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(StoreError::Busy)
    }

    /// A setting of the bucket, as it was set. A snapshot has those of its bucket, as they are now.
    pub async fn setting(&self, bucket: &BucketName, name: &str) -> Result<Option<Bytes>, StoreError> {
        Ok(self.inner.meta.get(&key::setting(&bucket.base(), name)).await?)
    }

    /// Sets a setting of the bucket, or removes it.
    pub async fn set_setting(&self, bucket: &BucketName, name: &str, value: Option<Bytes>) -> Result<(), StoreError> {
        for _ in 0..TRIES {
            let (_, bytes) = self.inner.bucket_row(bucket).await?;
            let tx = Transaction::new().expect(key::bucket(bucket), Some(bytes));
            let key = key::setting(bucket, name);
            let tx = match &value {
                Some(value) => tx.put(key, value.clone()),
                None => tx.delete(key),
            };
            match self.inner.meta.commit(tx).await {
                Ok(()) => return Ok(()),
                Err(MetaError::Conflict) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(StoreError::Busy)
    }

    /// All buckets by name, the appliance's own among them.
    pub async fn buckets(&self) -> Result<Vec<BucketInfo>, StoreError> {
        let mut found = Vec::new();
        let mut start = b"b/".to_vec();
        loop {
            let rows = self.inner.meta.scan(&start, b"b0", PAGE).await?;
            for (key, value) in &rows {
                let row = BucketRow::decode(value)?;
                found.push(info(bucket_name(&key[2..])?, row));
            }
            match rows.last() {
                Some((key, _)) if rows.len() == PAGE => start = [key, &b"\0"[..]].concat(),
                _ => return Ok(found),
            }
        }
    }
}

fn info(name: BucketName, row: BucketRow) -> BucketInfo {
    let BucketRow { owner, created, versioning, object_lock, .. } = row;
    BucketInfo { name, owner, created, versioning, object_lock }
}

/// A bucket's name as it stands in a row's key.
pub(super) fn bucket_name(bytes: &[u8]) -> Result<BucketName, Damaged> {
    let damaged = Damaged { what: "row key", why: "it holds no bucket's name" };
    let text = std::str::from_utf8(bytes).map_err(|_| damaged)?;
    if text == BucketName::images().as_str() {
        return Ok(BucketName::images());
    }
    text.parse().map_err(|_| damaged)
}
