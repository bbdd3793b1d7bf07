//! Rows that a test meddles with: it replaces what it is about, and everything else goes through.

use std::sync::Arc;

use async_trait::async_trait;
use bedplate::meta::{Meta, MetaError, Range, Transaction};
use bytes::Bytes;

/// What becomes of reads and commits.
#[async_trait]
pub(crate) trait Meddle: Send + Sync {
    /// Before the row at `key` is read alone.
    async fn before_get(&self, _key: &[u8]) {}

    /// After the row at `key` was read alone.
    async fn after_get(&self, _key: &[u8]) {}

    /// Before a range that begins at `start` is read.
    async fn before_scan(&self, _start: &[u8]) {}

    /// Instead of a commit.
    async fn commit(&self, rows: &dyn Meta, tx: Transaction) -> Result<(), MetaError> {
        rows.commit(tx).await
    }
}

/// The rows, and who meddles with them.
pub(crate) struct Meddled<M>(pub(crate) Arc<dyn Meta>, pub(crate) M);

#[async_trait]
impl<M: Meddle + 'static> Meta for Meddled<M> {
    async fn get(&self, key: &[u8]) -> Result<Option<Bytes>, MetaError> {
        self.1.before_get(key).await;
        let row = self.0.get(key).await;
        self.1.after_get(key).await;
        row
    }

    async fn get_many(&self, keys: &[Vec<u8>]) -> Result<Vec<Option<Bytes>>, MetaError> {
        self.0.get_many(keys).await
    }

    async fn scan(&self, start: &[u8], end: &[u8], limit: usize) -> Result<Vec<(Bytes, Bytes)>, MetaError> {
        self.1.before_scan(start).await;
        self.0.scan(start, end, limit).await
    }

    async fn scan_many(&self, ranges: &[Range]) -> Result<Vec<Vec<(Bytes, Bytes)>>, MetaError> {
        for range in ranges {
            self.1.before_scan(&range.start).await;
        }
        self.0.scan_many(ranges).await
    }

    async fn commit(&self, tx: Transaction) -> Result<(), MetaError> {
        self.1.commit(&*self.0, tx).await
    }

    async fn disk_bytes(&self) -> Result<u64, MetaError> {
        self.0.disk_bytes().await
    }

    async fn close(&self) {
        self.0.close().await;
    }
}
