//! Buckets.

use bytes::Bytes;

use super::error::StoreError;
use super::types::BucketInfo;
use super::{Inner, Store};
use crate::format::field::Damaged;
use crate::format::row::{BucketRow, key};
use crate::meta::{MetaError, Transaction, prefix_end};
use crate::model::BucketName;
use crate::sys::clock;

/// Buckets read at once.
const PAGE: usize = 500;

impl Inner {
    /// The bucket's row, and its bytes as a transaction expects them. A bucket that is being deleted is none.
    pub(super) async fn bucket_row(&self, bucket: &BucketName) -> Result<(BucketRow, Bytes), StoreError> {
        let bytes = self.meta.get(&key::bucket(bucket)).await?;
        let bytes = bytes.ok_or_else(|| StoreError::NoSuchBucket(bucket.clone()))?;
        let row = BucketRow::decode(&bytes)?;
        if row.deleting == Some(self.process) {
            return Err(StoreError::NoSuchBucket(bucket.clone()));
        }
        Ok((row, bytes))
    }
}

impl Store {
    /// Makes a bucket.
    pub async fn create_bucket(&self, bucket: &BucketName, owner: &str) -> Result<(), StoreError> {
        let row = BucketRow { owner: owner.to_owned(), created: clock::now(), deleting: None };
        let key = key::bucket(bucket);
        match self.inner.meta.commit(Transaction::new().expect(key.clone(), None).put(key, row.encode())).await {
            Err(MetaError::Conflict) => Err(StoreError::BucketExists(bucket.clone())),
            other => Ok(other?),
        }
    }

    /// Deletes an empty bucket.
    pub async fn delete_bucket(&self, bucket: &BucketName) -> Result<(), StoreError> {
        let meta = &self.inner.meta;
        let (row, bytes) = self.inner.bucket_row(bucket).await?;
        let key = key::bucket(bucket);
        // From the mark on nothing can be put into the bucket, so that what is empty now stays empty.
        let marked = BucketRow { deleting: Some(self.inner.process), ..row.clone() }.encode();
        match meta.commit(Transaction::new().expect(key.clone(), Some(bytes)).put(key.clone(), marked.clone())).await {
            Err(MetaError::Conflict) => return Err(StoreError::Busy),
            other => other?,
        }
        let mut is_empty = true;
        for prefix in [key::objects(bucket), key::uploads(bucket)] {
            is_empty &= meta.scan(&prefix, &prefix_end(&prefix), 1).await?.is_empty();
        }
        let tx = Transaction::new().expect(key.clone(), Some(marked));
        if is_empty {
            meta.commit(tx.delete(key)).await?;
            return Ok(());
        }
        meta.commit(tx.put(key, BucketRow { deleting: None, ..row }.encode())).await?;
        Err(StoreError::BucketNotEmpty(bucket.clone()))
    }

    /// One bucket.
    pub async fn bucket(&self, bucket: &BucketName) -> Result<BucketInfo, StoreError> {
        let (row, _) = self.inner.bucket_row(bucket).await?;
        Ok(BucketInfo { name: bucket.clone(), owner: row.owner, created: row.created })
    }

    /// All buckets by name, the appliance's own among them.
    pub async fn buckets(&self) -> Result<Vec<BucketInfo>, StoreError> {
        let mut found = Vec::new();
        let mut start = b"b/".to_vec();
        loop {
            let rows = self.inner.meta.scan(&start, b"b0", PAGE).await?;
            for (key, value) in &rows {
                let row = BucketRow::decode(value)?;
                let name = bucket_name(&key[2..])?;
                found.push(BucketInfo { name, owner: row.owner, created: row.created });
            }
            match rows.last() {
                Some((key, _)) if rows.len() == PAGE => start = [key, &b"\0"[..]].concat(),
                _ => return Ok(found),
            }
        }
    }
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
