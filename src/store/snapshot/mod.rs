//! Snapshots: a bucket as it was, kept by writing down one number.
//!
//! Every object's row says in which of the bucket's epochs it was written. A snapshot ends one, in the one transaction that also writes its
//! row, and shows what was written in that epoch or before. Every write expects the bucket's row, so that it lands before a snapshot or after
//! it. What it replaces moves to what was (`h/`) where a snapshot shows it: `retire` has the rule, `view` and `rows` read, `branch` makes
//! buckets that go on from a snapshot.

mod branch;
mod diff;
mod sweep;

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

pub use diff::{Change, ChangeKind, SnapshotDiff};

use super::Store;
use super::bucket::bucket_name;
use super::error::StoreError;
use crate::format::field::Damaged;
use crate::format::row::{BucketRow, SnapshotRow, key};
use crate::meta::{MetaError, Transaction, prefix_end};
use crate::model::limit::SNAPSHOTS_MAX;
use crate::model::{BucketName, SnapshotName, Versioning};
use crate::sys::clock::{self, Timestamp};

/// Rows read at once.
const PAGE: usize = 200;
/// Tries against others that change the same bucket.
const TRIES: usize = 64;

/// A snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotInfo {
    /// The bucket that it is of.
    pub bucket: BucketName,
    /// Its name.
    pub name: SnapshotName,
    /// When it was made.
    pub created: Timestamp,
    /// When it goes by itself; none is never.
    pub expires: Option<Timestamp>,
    /// Buckets that branched off from it: while there is one, it stays.
    pub branches: Vec<BucketName>,
}

fn info(bucket: BucketName, name: SnapshotName, row: SnapshotRow) -> SnapshotInfo {
    let SnapshotRow { created, expires, branches, .. } = row;
    SnapshotInfo { bucket, name, created, expires, branches }
}

/// The bucket and the name in a snapshot's row key.
fn read_key(row_key: &[u8]) -> Result<(BucketName, SnapshotName), Damaged> {
    let damaged = Damaged { what: "row key", why: "it names no snapshot" };
    let name = row_key.strip_prefix(b"z/").ok_or(damaged)?;
    let split = name.iter().position(|byte| *byte == 0).ok_or(damaged)?;
    let text = std::str::from_utf8(&name[split + 1..]).map_err(|_| damaged)?;
    Ok((bucket_name(&name[..split])?, text.parse().map_err(|_| damaged)?))
}

impl Store {
    /// Keeps the bucket as it is now, under a name, and for so long; none is until it is removed. Costs one transaction, whatever the bucket
    /// holds.
    pub async fn create_snapshot(
        &self,
        bucket: &BucketName,
        name: &SnapshotName,
        keep: Option<Duration>,
    ) -> Result<SnapshotInfo, StoreError> {
        if bucket.is_internal() {
            return Err(StoreError::BucketState("the appliance's own buckets have no snapshots"));
        }
        let snapshot_key = key::snapshot(bucket, name);
        for _ in 0..TRIES {
            let (mut bucket_row, bytes) = self.inner.bucket_row(bucket).await?;
            if bucket_row.versioning != Versioning::Off {
                return Err(StoreError::BucketState(
                    "a bucket that keeps versions has no snapshots; copy its objects to one that keeps none",
                ));
            }
            if bucket_row.snapshots.len() >= SNAPSHOTS_MAX {
                return Err(StoreError::BucketState("a bucket has at most 1,000 snapshots; remove some first"));
            }
            if self.inner.meta.get(&snapshot_key).await?.is_some() {
                return Err(StoreError::SnapshotExists(bucket.at(name)));
            }
            let created = clock::now();
            let expires = keep.map(|keep| created.plus(keep));
            let row = SnapshotRow { created, epoch: bucket_row.epoch, expires, leaving: false, branches: Vec::new() };
            bucket_row.snapshots.push(row.epoch);
            bucket_row.epoch += 1;
            let tx = Transaction::new()
                .expect(key::bucket(bucket), Some(bytes))
                .put(key::bucket(bucket), bucket_row.encode())
                .expect(snapshot_key.clone(), None)
                .put(snapshot_key.clone(), row.encode());
            match self.inner.meta.commit(tx).await {
                Ok(()) => return Ok(info(bucket.clone(), name.clone(), row)),
                Err(MetaError::Conflict) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(StoreError::Busy)
    }

    /// The snapshots of a bucket, the oldest first.
    pub async fn snapshots(&self, bucket: &BucketName) -> Result<Vec<SnapshotInfo>, StoreError> {
        self.inner.bucket_row(bucket).await?;
        let rows = self.all_snapshots(key::snapshots(bucket)).await?;
        let mut found: Vec<_> = rows.into_iter().filter(|(.., row)| !row.leaving).collect();
        found.sort_by_key(|(.., row)| row.epoch);
        Ok(found.into_iter().map(|(bucket, name, row)| info(bucket, name, row)).collect())
    }

    /// When the snapshot was made that this name stands for, `BUCKET@NAME`: which one of its name it is.
    pub async fn snapshot_made(&self, name: &BucketName) -> Result<Timestamp, StoreError> {
        let row = self.inner.view(name).await?.snapshot;
        row.map(|row| row.created).ok_or_else(|| StoreError::NoSuchSnapshot(name.clone()))
    }

    /// All rows of snapshots whose keys begin with `prefix`, those that are being removed among them.
    async fn all_snapshots(&self, prefix: Vec<u8>) -> Result<Vec<(BucketName, SnapshotName, SnapshotRow)>, StoreError> {
        let (end, mut start, mut found) = (prefix_end(&prefix), prefix, Vec::new());
        loop {
            let rows = self.inner.meta.scan(&start, &end, PAGE).await?;
            for (row_key, value) in &rows {
                let (bucket, name) = read_key(row_key)?;
                found.push((bucket, name, SnapshotRow::decode(value)?));
            }
            match rows.last() {
                Some((last, _)) if rows.len() == PAGE => start = [last, &b"\0"[..]].concat(),
                _ => return Ok(found),
            }
        }
    }

    /// Removes a snapshot, and the rows that only it showed; garbage collection then frees what nothing refers to any more. It is gone at
    /// once, and goes on to be swept if the program ends meanwhile. Refused while branches need it.
    pub async fn remove_snapshot(&self, bucket: &BucketName, name: &SnapshotName) -> Result<(), StoreError> {
        self.take_leave(bucket, name, |_| true).await?;
        self.sweep_away(bucket, name).await
    }

    /// Sweeps what only a snapshot showed that has taken its leave: to the end, also if the caller goes away.
    async fn sweep_away(&self, bucket: &BucketName, name: &SnapshotName) -> Result<(), StoreError> {
        let (reply, answer) = oneshot::channel();
        let (store, bucket, name) = (self.clone(), bucket.clone(), name.clone());
        self.inner.workers.spawn("snapshot removal", async move {
            let _ = reply.send(store.inner.sweep_snapshot(&bucket, &name).await);
        });
        answer.await.map_err(|_| StoreError::Closed)?
    }

    /// Marks a snapshot as leaving, and lets the bucket's writers know that nothing needs to be kept for it. Its row must be as wanted at
    /// that moment: a name may have become another's.
    async fn take_leave(
        &self,
        bucket: &BucketName,
        name: &SnapshotName,
        wanted: impl Fn(&SnapshotRow) -> bool,
    ) -> Result<(), StoreError> {
        let snapshot_key = key::snapshot(bucket, name);
        for _ in 0..TRIES {
            let (bucket_row, bucket_bytes) = self.inner.bucket_row(bucket).await?;
            let (row, bytes) = self.inner.snapshot_row(bucket, name).await?;
            if !wanted(&row) {
                return Err(StoreError::NoSuchSnapshot(bucket.at(name)));
            }
            if let Some(first) = row.branches.first() {
                let (snapshot, first, count) = (bucket.at(name), first.clone(), row.branches.len());
                return Err(StoreError::SnapshotInUse { snapshot, first, count });
            }
            let snapshots = bucket_row.snapshots.iter().copied().filter(|epoch| *epoch != row.epoch).collect();
            let bucket_row = BucketRow { snapshots, ..bucket_row };
            let leaving = SnapshotRow { leaving: true, ..row };
            let tx = Transaction::new()
                .expect(key::bucket(bucket), Some(bucket_bytes))
                .put(key::bucket(bucket), bucket_row.encode())
                .expect(snapshot_key.clone(), Some(bytes))
                .put(snapshot_key.clone(), leaving.encode());
            match self.inner.meta.commit(tx).await {
                Ok(()) => return Ok(()),
                Err(MetaError::Conflict) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(StoreError::Busy)
    }

    /// Removes the snapshots whose time is over at `now`, but for those that branches need, and ends removals that were broken off. Answers
    /// how many went.
    pub async fn expire_snapshots(&self, now: Timestamp) -> Result<u64, StoreError> {
        let mut removed = 0;
        for (bucket, name, row) in self.all_snapshots(b"z/".to_vec()).await? {
            let is_over = |row: &SnapshotRow| row.expires.is_some_and(|expires| expires <= now);
            let outcome = match (row.leaving, is_over(&row) && row.branches.is_empty()) {
                (true, _) => self.inner.sweep_snapshot(&bucket, &name).await,
                (false, true) => match self.take_leave(&bucket, &name, is_over).await {
                    Ok(()) => self.sweep_away(&bucket, &name).await,
                    refused => refused,
                },
                (false, false) => continue,
            };
            match outcome {
                Ok(()) => removed += 1,
                // Somebody has branched off from it, or removed it, and may have made another of its name.
                Err(StoreError::SnapshotInUse { .. } | StoreError::NoSuchSnapshot(_) | StoreError::NoSuchBucket(_)) => {
                }
                Err(error) => return Err(error),
            }
        }
        Ok(removed)
    }

    /// Ends the removals that the program's last end broke off, while the store serves.
    pub(super) async fn resume_removals(&self) -> Result<(), StoreError> {
        let rows = self.all_snapshots(b"z/".to_vec()).await?;
        let leaving: Vec<_> = rows.into_iter().filter(|(.., row)| row.leaving).collect();
        if leaving.is_empty() {
            return Ok(());
        }
        let store = self.clone();
        self.inner.workers.spawn("snapshot removal", async move {
            for (bucket, name, _) in leaving {
                if let Err(error) = store.inner.sweep_snapshot(&bucket, &name).await {
                    tracing::error!(%bucket, snapshot = %name, %error, "a removed snapshot's rows stay until the next sweep");
                }
            }
        });
        Ok(())
    }
}
