//! Rows between two reads of which something happens: what a test wants to happen there, on its own and to its end.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bedplate::meta::{Meta, MetaError, Transaction};
use bytes::Bytes;
use futures_util::future::BoxFuture;

/// The rows, and what happens once the row at a key has been read.
pub(crate) struct Hooked {
    rows: Arc<dyn Meta>,
    next: Mutex<Option<(Vec<u8>, BoxFuture<'static, ()>)>>,
}

impl Hooked {
    pub(crate) fn over(rows: Arc<dyn Meta>) -> Arc<Self> {
        Arc::new(Self { rows, next: Mutex::new(None) })
    }

    /// Whoever reads the row at `key` next gets it as it is now, and goes on once `then` is done.
    pub(crate) fn after_next_get(&self, key: Vec<u8>, then: impl Future<Output = ()> + Send + 'static) {
        assert!(self.next.lock().unwrap().replace((key, Box::pin(then))).is_none(), "one thing at a time");
    }

    /// Whether what was to happen has happened.
    pub(crate) fn has_happened(&self) -> bool {
        self.next.lock().unwrap().is_none()
    }
}

#[async_trait]
impl Meta for Hooked {
    async fn get(&self, key: &[u8]) -> Result<Option<Bytes>, MetaError> {
        let row = self.rows.get(key).await;
        let now = self.next.lock().unwrap().take_if(|(at, _)| at == key);
        if let Some((_, then)) = now {
            then.await;
        }
        row
    }

    async fn get_many(&self, keys: &[Vec<u8>]) -> Result<Vec<Option<Bytes>>, MetaError> {
        self.rows.get_many(keys).await
    }

    async fn scan(&self, start: &[u8], end: &[u8], limit: usize) -> Result<Vec<(Bytes, Bytes)>, MetaError> {
        self.rows.scan(start, end, limit).await
    }

    async fn commit(&self, tx: Transaction) -> Result<(), MetaError> {
        self.rows.commit(tx).await
    }

    async fn disk_bytes(&self) -> Result<u64, MetaError> {
        self.rows.disk_bytes().await
    }

    async fn close(&self) {
        self.rows.close().await;
    }
}
