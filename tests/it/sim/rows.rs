//! Metadata whose power can fail: rows are durable when a commit says so; one that was under way has happened or not.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bedplate::meta::{Meta, MetaError, Range, Transaction};
use bedplate::model::limit::TRANSACTION_KEYS_MAX;
use bytes::Bytes;
use tokio::sync::oneshot;

use super::world::{Cause, Exposure, Fate, World};

/// Rows in order.
pub(super) type Rows = BTreeMap<Vec<u8>, Bytes>;

struct Waiting {
    tx: Transaction,
    done: oneshot::Sender<Result<(), MetaError>>,
}

#[derive(Default)]
struct Queue {
    waiting: Vec<Waiting>,
    committing: bool,
    closed: bool,
}

/// The rows as one process sees them; what it committed outlives it in `rows`.
#[derive(Clone)]
pub(super) struct SimMeta {
    world: World,
    rows: Arc<Mutex<Rows>>,
    queue: Arc<Mutex<Queue>>,
}

fn broken(action: &'static str) -> MetaError {
    MetaError::Engine { action, source: "simulated: the disk answered with an error".into() }
}

/// Rows of a range.
fn rows_of(rows: &Rows, start: &[u8], end: &[u8], limit: usize) -> Vec<(Bytes, Bytes)> {
    if start >= end {
        return Vec::new();
    }
    let range = rows.range(start.to_vec()..end.to_vec()).take(limit);
    range.map(|(key, value)| (Bytes::copy_from_slice(key), value.clone())).collect()
}

/// A key as a person reads it.
fn text(key: &[u8]) -> String {
    let shown = &key[..key.len().min(24)];
    shown
        .iter()
        .map(|byte| if byte.is_ascii_graphic() { char::from(*byte).to_string() } else { format!("%{byte:02x}") })
        .collect()
}

impl SimMeta {
    /// Opens the rows, as a process does at its start.
    pub(super) fn open(world: &World, rows: &Arc<Mutex<Rows>>) -> Self {
        Self { world: world.clone(), rows: rows.clone(), queue: Arc::default() }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn rows(&self) -> MutexGuard<'_, Rows> {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One operation that reads, after the time that it takes. Without power it never ends.
    async fn read<T>(
        &self,
        what: &'static str,
        key: &[u8],
        count: usize,
        work: impl FnOnce(&Rows) -> T,
    ) -> Result<T, MetaError> {
        self.world.pause().await;
        if self.queue().closed {
            return Err(MetaError::Closed);
        }
        match self.world.begin(what, &text(key), 0, count as u64, Exposure::Reads) {
            Some(Fate::Well) => Ok(work(&self.rows())),
            Some(Fate::Fails(_)) => Err(broken("read a row")),
            Some(Fate::CutBefore | Fate::CutAfter) => {
                self.world.power_fails();
                std::future::pending().await
            }
            None => std::future::pending().await,
        }
    }

    /// Commits what waits, in order, until nothing does.
    async fn drain(self) {
        loop {
            self.world.pause().await;
            let group = std::mem::take(&mut self.queue().waiting);
            if group.is_empty() {
                self.queue().committing = false;
                return;
            }
            let mut told = Vec::with_capacity(group.len());
            for Waiting { tx, done } in group {
                let Some(outcome) = self.commit_one(&tx) else { return };
                told.push((done, outcome));
            }
            // Durable by now, and nobody knows.
            self.world.pause().await;
            for (done, outcome) in told {
                drop(done.send(outcome));
            }
        }
    }

    /// Commits one transaction; none when the power fails.
    fn commit_one(&self, tx: &Transaction) -> Option<Result<(), MetaError>> {
        let name = tx.changes().first().map(|(key, _)| text(key)).unwrap_or_default();
        let (expected, changed) = (tx.expected().len() as u64, tx.changes().len() as u64);
        let fate = self.world.begin("meta commit", &name, expected, changed, Exposure::Grows)?;
        match fate {
            Fate::Well => Some(self.apply(tx)),
            Fate::Fails(Cause::Full) => Some(Err(MetaError::DiskFull)),
            Fate::Fails(Cause::Broken) => {
                // Nobody knows whether a commit happened that failed so.
                if self.world.chance(500) {
                    let _ = self.apply(tx);
                }
                Some(Err(broken("commit")))
            }
            Fate::CutBefore => {
                self.world.power_fails();
                None
            }
            Fate::CutAfter => {
                let _ = self.apply(tx);
                self.world.power_fails();
                None
            }
        }
    }

    fn apply(&self, tx: &Transaction) -> Result<(), MetaError> {
        let mut rows = self.rows();
        if tx.expected().iter().any(|(key, value)| rows.get(key) != value.as_ref()) {
            self.world.note("    meta: conflict".to_owned());
            return Err(MetaError::Conflict);
        }
        for (key, value) in tx.changes() {
            match value {
                Some(value) => {
                    self.world.trace(value);
                    rows.insert(key.clone(), value.clone())
                }
                None => rows.remove(key),
            };
        }
        Ok(())
    }
}

#[async_trait]
impl Meta for SimMeta {
    async fn get(&self, key: &[u8]) -> Result<Option<Bytes>, MetaError> {
        self.read("meta get", key, 1, |rows| rows.get(key).cloned()).await
    }

    async fn get_many(&self, keys: &[Vec<u8>]) -> Result<Vec<Option<Bytes>>, MetaError> {
        let Some(first) = keys.first() else { return Ok(Vec::new()) };
        self.read("meta get", first, keys.len(), |rows| keys.iter().map(|key| rows.get(key).cloned()).collect()).await
    }

    async fn scan(&self, start: &[u8], end: &[u8], limit: usize) -> Result<Vec<(Bytes, Bytes)>, MetaError> {
        self.read("meta scan", start, limit, |rows| rows_of(rows, start, end, limit)).await
    }

    async fn scan_many(&self, ranges: &[Range]) -> Result<Vec<Vec<(Bytes, Bytes)>>, MetaError> {
        let Some(first) = ranges.first() else { return Ok(Vec::new()) };
        self.read("meta scan", &first.start, ranges.iter().map(|range| range.limit).sum(), |rows| {
            ranges.iter().map(|range| rows_of(rows, &range.start, &range.end, range.limit)).collect()
        })
        .await
    }

    async fn commit(&self, tx: Transaction) -> Result<(), MetaError> {
        assert!(tx.len() <= TRANSACTION_KEYS_MAX, "a transaction of {} keys", tx.len());
        let (done, outcome) = oneshot::channel();
        let lead = {
            let mut queue = self.queue();
            if queue.closed {
                return Err(MetaError::Closed);
            }
            queue.waiting.push(Waiting { tx, done });
            !std::mem::replace(&mut queue.committing, true)
        };
        if lead {
            // Not awaited: a commit happens even when its caller goes away, as the embedded engine has it.
            spawn(self.clone().drain());
        }
        match outcome.await {
            Ok(outcome) => outcome,
            Err(_) => std::future::pending().await,
        }
    }

    async fn disk_bytes(&self) -> Result<u64, MetaError> {
        self.read("meta size", b"", 0, |rows| rows.iter().map(|(key, value)| (key.len() + value.len()) as u64).sum())
            .await
    }

    async fn close(&self) {
        self.queue().closed = true;
    }
}

#[expect(clippy::disallowed_methods, reason = "the task ends with the simulated machine, as a disk's own work does")]
fn spawn(task: impl Future<Output = ()> + Send + 'static) {
    drop(tokio::spawn(task));
}
