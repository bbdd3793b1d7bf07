//! The open database of the embedded engine: its keyspaces, and how they are read.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use fjall::config::PartitioningPolicy;
use fjall::{Database, Keyspace, KeyspaceCreateOptions, Readable as _, Snapshot};

use super::{MetaError, Range};
use crate::sys::folder::FolderLock;

/// Blocks of the tables kept in memory: what a hundred million chunks' filters come to.
const CACHE_BYTES: u64 = 128 * 1024 * 1024;
/// The engine's least; replayed at open after a crash, at about 100 MB/s.
const JOURNAL_BYTES: u64 = 64 * 1024 * 1024;
/// Unflushed rows kept in memory, for each keyspace.
const MEMTABLE_BYTES: u64 = 8 * 1024 * 1024;
/// Keys of the chunk index: they live in their own keyspace.
const INDEX_START: &[u8] = b"c/";
const INDEX_END: &[u8] = b"c0";

/// Rows with their keys, in order.
type Rows = Vec<(Bytes, Bytes)>;

/// The open database. It keeps the folder's lock for as long as anybody uses it.
pub(super) struct Tables {
    pub(super) database: Database,
    pub(super) rows: Keyspace,
    pub(super) index: Keyspace,
    /// What readers see.
    moment: Mutex<Arc<Snapshot>>,
    _lock: Arc<FolderLock>,
}

/// Whether a full disk is what the engine met.
pub(super) fn is_full(error: &fjall::Error) -> bool {
    let kind = match error {
        fjall::Error::Io(io) | fjall::Error::Storage(fjall::LsmError::Io(io)) => io.kind(),
        _ => return false,
    };
    matches!(kind, std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded)
}

/// What the engine's failure to do something is called.
pub(super) fn engine(action: &'static str) -> impl Fn(fjall::Error) -> MetaError {
    move |error| {
        if is_full(&error) { MetaError::DiskFull } else { MetaError::Engine { action, source: Box::new(error) } }
    }
}

impl Tables {
    pub(super) fn open(dir: &Path, lock: Arc<FolderLock>) -> fjall::Result<Self> {
        let database = Database::builder(dir.join("rows"))
            .cache_size(CACHE_BYTES)
            .max_journaling_size(JOURNAL_BYTES)
            .manual_journal_persist(true)
            // With more, the first hands compactions from itself to itself for as long as the others are busy, on a core of its own.
            .worker_threads(1)
            .max_cached_files(Some(128))
            .open()?;
        let options = || KeyspaceCreateOptions::default().max_memtable_size(MEMTABLE_BYTES);
        let rows = database.keyspace("rows", options)?;
        // A table's filter and index come in blocks of their own. Whole, as the engine has them on its first levels, they are a MiB,
        // and each lookup of a chunk among many reads one.
        let partitioned = || PartitioningPolicy::all(true);
        let index = database.keyspace("index", || {
            options().filter_block_partitioning_policy(partitioned()).index_block_partitioning_policy(partitioned())
        })?;
        let moment = Mutex::new(Arc::new(database.snapshot()));
        Ok(Self { database, rows, index, moment, _lock: lock })
    }

    pub(super) fn keyspace(&self, key: &[u8]) -> &Keyspace {
        if key.starts_with(INDEX_START) { &self.index } else { &self.rows }
    }

    pub(super) fn get(&self, key: &[u8]) -> Result<Option<Bytes>, MetaError> {
        self.get_in(&self.moment(), key)
    }

    /// The rows at `keys`, all of one moment.
    pub(super) fn get_many(&self, keys: &[Vec<u8>]) -> Result<Vec<Option<Bytes>>, MetaError> {
        let moment = self.moment();
        keys.iter().map(|key| self.get_in(&moment, key)).collect()
    }

    /// What the batches until the last that was [published](Self::publish) have written, and nothing of a later one. The engine's own
    /// reads, which name no moment, see half of a batch that is being applied; so does a moment that is taken then, if a flush or a
    /// compaction ends meanwhile: its number is higher than the batch's.
    fn moment(&self) -> Arc<Snapshot> {
        self.moment.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Shows readers what was written until now. Only while nobody writes.
    pub(super) fn publish(&self) {
        let now = Arc::new(self.database.snapshot());
        let before = std::mem::replace(&mut *self.moment.lock().unwrap_or_else(PoisonError::into_inner), now);
        drop(before);
    }

    fn get_in(&self, moment: &Snapshot, key: &[u8]) -> Result<Option<Bytes>, MetaError> {
        let value = moment.get(self.keyspace(key), key).map_err(engine("read a row"))?;
        Ok(value.map(|value| Bytes::copy_from_slice(&value)))
    }

    /// Rows of a range, all of one moment.
    pub(super) fn scan(&self, start: &[u8], end: &[u8], limit: usize) -> Result<Rows, MetaError> {
        self.scan_in(&self.moment(), start, end, limit)
    }

    /// Rows of several ranges, all of one moment.
    pub(super) fn scan_many(&self, ranges: &[Range]) -> Result<Vec<Rows>, MetaError> {
        let moment = self.moment();
        ranges.iter().map(|range| self.scan_in(&moment, &range.start, &range.end, range.limit)).collect()
    }

    fn scan_in(&self, moment: &Snapshot, start: &[u8], end: &[u8], limit: usize) -> Result<Rows, MetaError> {
        let mut found = Vec::new();
        let segments: [(&Keyspace, &[u8], &[u8]); 3] = [
            (&self.rows, start, end.min(INDEX_START)),
            (&self.index, start.max(INDEX_START), end.min(INDEX_END)),
            (&self.rows, start.max(INDEX_END), end),
        ];
        for (keyspace, from, to) in segments {
            if from >= to {
                continue;
            }
            for guard in moment.range(keyspace, from..to) {
                if found.len() >= limit {
                    return Ok(found);
                }
                let (key, value) = guard.into_inner().map_err(engine("scan rows"))?;
                found.push((Bytes::copy_from_slice(&key), Bytes::copy_from_slice(&value)));
            }
        }
        Ok(found)
    }
}
