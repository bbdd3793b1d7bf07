//! Ordered transactional key-value rows: the one place where state that is not chunk data lives.
//!
//! Keys begin with one letter that names what they are about, and a slash: `b/` bucket, `s/` setting of a bucket, `o/` object, `v/` older
//! version, `h/` what an object was for snapshots, `z/` snapshot, `u/` upload, `m/` manifest, `p/` pack, `f/` pack that is being filled, `c/` chunk index, `q/` damage, `g/` collector,
//! `t/` tenant, `k/` access key, `a/` master key, `j/` job, `n/` node, `x/` tokens, pins and this server's identity. docs/format.md has
//! the rows.

mod embedded;
mod home;
mod readers;
mod tables;

use async_trait::async_trait;
use bytes::Bytes;

pub use embedded::Embedded;

/// Why rows could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum MetaError {
    /// A row was not as the transaction expected; nothing was written. Read again and retry, or give up.
    #[error("another writer changed a row that this change depends on; try again")]
    Conflict,
    /// The database is in use by another process.
    #[error(transparent)]
    Locked(#[from] crate::sys::folder::FolderLockError),
    /// The disk that holds the database is full; nothing was written.
    #[error("too little space is left for metadata; free some on the data disk: writes then go on by themselves")]
    DiskFull,
    /// The database was closed, or its writer ended.
    #[error("the metadata database is closed; restart the appliance")]
    Closed,
    /// The engine failed.
    #[error("the metadata database failed to {action}; check the data disk, then restart")]
    Engine {
        /// What it was asked to do.
        action: &'static str,
        /// What it said.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// Rows that are asked for: up to `limit` from `start` (inclusive) to `end` (exclusive).
#[derive(Clone, Debug)]
pub struct Range {
    /// The first key that may be among them.
    pub start: Vec<u8>,
    /// The first key after them.
    pub end: Vec<u8>,
    /// How many at most.
    pub limit: usize,
}

/// An ordered transactional key-value store.
#[async_trait]
pub trait Meta: Send + Sync + 'static {
    /// The row at `key`.
    async fn get(&self, key: &[u8]) -> Result<Option<Bytes>, MetaError>;

    /// The rows at `keys`, in their order.
    async fn get_many(&self, keys: &[Vec<u8>]) -> Result<Vec<Option<Bytes>>, MetaError>;

    /// Up to `limit` rows from `start` (inclusive) to `end` (exclusive), in the order of their keys.
    async fn scan(&self, start: &[u8], end: &[u8], limit: usize) -> Result<Vec<(Bytes, Bytes)>, MetaError>;

    /// As `scan`, of several ranges: all rows of all of them are of one moment, so that a row that a transaction moves from one to another
    /// is in one of them. Answers in the order of the ranges.
    async fn scan_many(&self, ranges: &[Range]) -> Result<Vec<Vec<(Bytes, Bytes)>>, MetaError>;

    /// Writes all of the transaction or nothing. Durable when it returns; concurrent calls share one flush. Nobody reads
    /// a row before it is durable, nor any row of a transaction without the others: each read above is of one moment, and a later read
    /// of the same or a later one.
    async fn commit(&self, tx: Transaction) -> Result<(), MetaError>;

    /// Bytes that the database takes on its disk.
    async fn disk_bytes(&self) -> Result<u64, MetaError>;

    /// Flushes everything so that the next start is fast. Later calls fail with [`MetaError::Closed`].
    async fn close(&self);
}

/// Changes that happen together, on conditions. At most `limit::TRANSACTION_KEYS_MAX` keys.
#[derive(Clone, Debug, Default)]
pub struct Transaction {
    expected: Vec<(Vec<u8>, Option<Bytes>)>,
    changes: Vec<(Vec<u8>, Option<Bytes>)>,
}

impl Transaction {
    /// A transaction that does nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The row must have this value when the transaction commits; `None` means that it must be absent.
    #[must_use]
    pub fn expect(mut self, key: impl Into<Vec<u8>>, value: Option<Bytes>) -> Self {
        self.expected.push((key.into(), value));
        self
    }

    /// Writes a row.
    #[must_use]
    pub fn put(mut self, key: impl Into<Vec<u8>>, value: impl Into<Bytes>) -> Self {
        self.changes.push((key.into(), Some(value.into())));
        self
    }

    /// Deletes a row; an absent one is no error.
    #[must_use]
    pub fn delete(mut self, key: impl Into<Vec<u8>>) -> Self {
        self.changes.push((key.into(), None));
        self
    }

    /// The rows that must be so, for an engine: each key with its value, or none where it must be absent.
    #[must_use]
    pub fn expected(&self) -> &[(Vec<u8>, Option<Bytes>)] {
        &self.expected
    }

    /// The changes in their order, for an engine: each key with its new value, or none where it is deleted.
    #[must_use]
    pub fn changes(&self) -> &[(Vec<u8>, Option<Bytes>)] {
        &self.changes
    }

    /// Rows that are expected or changed.
    #[must_use]
    pub fn len(&self) -> usize {
        self.expected.len() + self.changes.len()
    }

    /// Whether it does nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The end of the range of keys that begin with `prefix`: the first key after all of them.
#[must_use]
pub fn prefix_end(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < 0xff {
            end.push(last + 1);
            return end;
        }
    }
    vec![0xff; 64]
}
