//! Versions: what becomes of an object's older versions when a new one is written or one is removed.
//!
//! `o/` holds the newest version of each key, a delete marker included; `v/` the older ones, newest first. Every change of the newest
//! expects its row as it was found, so that two writers of one key never leave two newest versions or none. The collector walks
//! `o/` before `v/`: a version that becomes an older one is met at least once; one that becomes the newest again has its packs touched.

use bytes::Bytes;

use super::Inner;
use super::error::StoreError;
use super::ingest::Content;
use super::retire::retire;
use crate::format::manifest::Term;
use crate::format::row::{Body, BucketRow, ObjectRow, key};
use crate::meta::{MetaError, Transaction, prefix_end};
use crate::model::{BucketName, ObjectKey, Version, VersionId, Versioning};
use crate::sys::{clock, entropy};

/// Versions of one key read at once.
const PAGE: usize = 64;

/// An object's row as it was found.
#[derive(Clone)]
pub(super) struct Found {
    pub(super) key: Vec<u8>,
    pub(super) bytes: Bytes,
    pub(super) row: ObjectRow,
    /// The bucket that it belongs to, where it is another than the one that was asked: a row that is never written to.
    pub(super) home: Option<BucketName>,
}

impl Found {
    /// What a transaction expects at the key in the bucket that was asked.
    pub(super) fn expected(&self) -> Option<Bytes> {
        self.home.is_none().then(|| self.bytes.clone())
    }
}

/// How a row becomes the newest of its key.
pub(super) struct Succession {
    /// The row, with its version.
    pub(super) row: ObjectRow,
    /// What the transaction does to the versions before it.
    pub(super) tx: Transaction,
    /// The row that is gone afterwards.
    pub(super) replaced: Option<ObjectRow>,
}

impl Inner {
    /// One version of a key, if it is there, and whether it is the newest.
    pub(super) async fn version(
        &self,
        bucket: &BucketName,
        object: &ObjectKey,
        id: VersionId,
    ) -> Result<Option<(Found, bool)>, StoreError> {
        let mut newest = self.seen(bucket, object).await?;
        loop {
            if let Some(newest) = newest.take_if(|newest| newest.row.version.id() == id) {
                return Ok(Some((newest, true)));
            }
            let older = match id {
                VersionId::Null => self.older(bucket, object, Version::is_null).await?,
                VersionId::Of(version) => self.older_at(key::version(bucket, object, version)).await?,
            };
            if let Some(found) = older {
                return Ok(Some((found, false)));
            }
            // It may have become the newest between the two looks.
            let again = self.seen(bucket, object).await?;
            if again.as_ref().map(|found| &found.bytes) == newest.as_ref().map(|found| &found.bytes) {
                return Ok(None);
            }
            newest = again;
        }
    }

    async fn older_at(&self, key: Vec<u8>) -> Result<Option<Found>, StoreError> {
        let Some(bytes) = self.meta.get(&key).await? else { return Ok(None) };
        Ok(Some(Found { row: ObjectRow::decode(&bytes)?, key, bytes, home: None }))
    }

    /// The newest of a key's older versions that is wanted.
    async fn older(
        &self,
        bucket: &BucketName,
        object: &ObjectKey,
        wanted: impl Fn(Version) -> bool,
    ) -> Result<Option<Found>, StoreError> {
        let mut start = key::versions_of(bucket, object);
        let end = prefix_end(&start);
        let mut batch = 1;
        loop {
            let rows = self.meta.scan(&start, &end, batch).await?;
            for (row_key, bytes) in &rows {
                let (_, _, version) = key::read_version(row_key)?;
                if wanted(version) {
                    let row = ObjectRow::decode(bytes)?;
                    return Ok(Some(Found { key: row_key.to_vec(), bytes: bytes.clone(), row, home: None }));
                }
            }
            match rows.last() {
                Some((last, _)) if rows.len() == batch => start = [last, &b"\0"[..]].concat(),
                _ => return Ok(None),
            }
            batch = PAGE;
        }
    }

    /// Makes `row` the newest version, as the bucket wants it; `found` is what is there.
    pub(super) async fn succeed(
        &self,
        bucket: &BucketName,
        object: &ObjectKey,
        (bucket_row, bucket_bytes): (BucketRow, Bytes),
        found: Option<Found>,
        row: &ObjectRow,
    ) -> Result<Succession, StoreError> {
        let key = key::object(bucket, object);
        let mut tx = Transaction::new()
            .expect(key::bucket(bucket), Some(bucket_bytes))
            .expect(key.clone(), found.as_ref().and_then(Found::expected));
        let mut row = ObjectRow { epoch: 0, ..row.clone() };
        let stamp = found.as_ref().map_or(0, |found| found.row.stamp().saturating_add(1)).max(now_micros());
        let mut replaced = None;
        match bucket_row.versioning {
            Versioning::Off => {
                row.version = Version::default();
                row.epoch = bucket_row.epoch;
                (tx, replaced) = retire(tx, bucket, &bucket_row, object, found);
            }
            Versioning::Enabled => {
                row.version = Version { stamp, random: fresh_number() };
                tx = demote(tx, bucket, object, found);
            }
            Versioning::Suspended => {
                row.version = Version { stamp, random: 0 };
                match found {
                    Some(found) if found.row.version.is_null() => replaced = Some(found.row),
                    found => {
                        tx = demote(tx, bucket, object, found);
                        if let Some(null) = self.older(bucket, object, Version::is_null).await? {
                            tx = tx.expect(null.key.clone(), Some(null.bytes)).delete(null.key);
                            replaced = Some(null.row);
                        }
                    }
                }
            }
        }
        Ok(Succession { tx: tx.put(key, row.encode()), row, replaced })
    }

    /// Removes a version; where it was the newest, the one before it takes its place.
    pub(super) async fn remove(
        &self,
        bucket: &BucketName,
        object: &ObjectKey,
        found: &Found,
        is_newest: bool,
    ) -> Result<Removal, StoreError> {
        let tx = Transaction::new().expect(found.key.clone(), Some(found.bytes.clone())).delete(found.key.clone());
        let before = if is_newest { self.older(bucket, object, |_| true).await? } else { None };
        let Some(before) = before else { return Ok(Removal { tx, moved: None }) };
        let (tx, moved) = self.moving(tx, before, found.key.clone()).await?;
        Ok(Removal { tx, moved: Some(moved) })
    }

    /// Lets a row that was found stand at `key` from the transaction on, and no longer where it was found. The collector may have
    /// passed that key already, and not yet the one where the row stood: its packs are touched, and a manifest of rows of its own is
    /// laid down anew, so that none that is named is ever met by no round.
    pub(super) async fn moving(
        &self,
        tx: Transaction,
        found: Found,
        key: Vec<u8>,
    ) -> Result<(Transaction, Moved), StoreError> {
        let tx = tx.expect(found.key.clone(), Some(found.bytes.clone())).delete(found.key.clone());
        let before = found.row.body.clone();
        let terms = match self.terms_of(&found.row).await {
            Ok(terms) => terms,
            // Somebody else has moved or removed the row, and its manifest with it: the transaction cannot but conflict.
            Err(StoreError::CorruptRow(_)) if self.is_gone(&found).await? => {
                return Ok((tx.put(key, found.row.encode()), Moved { after: before.clone(), before }));
            }
            Err(error) => return Err(error),
        };
        let packs = terms.iter().map(|term| term.pack).collect();
        let body = match &before {
            Body::Rows(_) => self.lay_down(Content::Terms(terms)).await?,
            other => other.clone(),
        };
        let row = ObjectRow { body, ..found.row };
        let tx = self.with_packs(tx.put(key, row.encode()), &packs).await?;
        Ok((tx, Moved { before, after: row.body }))
    }

    pub(super) async fn terms_of(&self, row: &ObjectRow) -> Result<Vec<Term>, StoreError> {
        if row.size == 0 {
            return Ok(Vec::new());
        }
        Ok(self.terms(&row.body, 0, row.size).await?.0)
    }

    /// Whether a row is no longer as it was found.
    pub(super) async fn is_gone(&self, found: &Found) -> Result<bool, StoreError> {
        Ok(self.meta.get(&found.key).await?.as_ref() != Some(&found.bytes))
    }

    /// What is left to do for a row that has moved, or has not: `outcome` is that of the transaction.
    pub(super) async fn moved(&self, moved: Option<Moved>, outcome: &Result<(), MetaError>) {
        let Some(Moved { before, after }) = moved.filter(|moved| moved.before != moved.after) else { return };
        match outcome {
            Ok(()) => self.drop_manifest(&before).await,
            Err(MetaError::Conflict | MetaError::DiskFull) => self.drop_manifest(&after).await,
            // It may have happened all the same; the collector takes what nothing names.
            Err(_) => {}
        }
    }
}

/// A row that moves: where its bytes were listed, and where they are from then on.
pub(super) struct Moved {
    before: Body,
    after: Body,
}

/// How a version is removed.
pub(super) struct Removal {
    pub(super) tx: Transaction,
    /// The version that takes its place, if any does.
    pub(super) moved: Option<Moved>,
}

/// Puts what was the newest version among the older ones.
fn demote(tx: Transaction, bucket: &BucketName, object: &ObjectKey, found: Option<Found>) -> Transaction {
    let Some(found) = found else { return tx };
    let version = Version { stamp: found.row.stamp(), ..found.row.version };
    let key = key::version(bucket, object, version);
    tx.expect(key.clone(), None).put(key, found.bytes)
}

fn now_micros() -> u64 {
    clock::now().0.saturating_mul(1_000)
}

/// A random number that is not 0.
fn fresh_number() -> u64 {
    let mut bytes = [0; 8];
    entropy::fill(&mut bytes);
    u64::from_be_bytes(bytes).max(1)
}
