//! The embedded engine: fjall, in two keyspaces (the chunk index, which is random keys in great number, and all other
//! rows), behind one committer that checks expectations and flushes once for all transactions that wait.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};
use tokio::sync::oneshot;

use super::{Meta, MetaError, Transaction};
use crate::sys::folder::{self, FolderLock};

/// Blocks of the tables kept in memory.
const CACHE_BYTES: u64 = 32 * 1024 * 1024;
/// The engine's least; replayed at open after a crash, at about 100 MB/s.
const JOURNAL_BYTES: u64 = 64 * 1024 * 1024;
/// Unflushed rows kept in memory, for each keyspace.
const MEMTABLE_BYTES: u64 = 8 * 1024 * 1024;
/// Transactions that share one flush, at most.
const GROUP_MAX: usize = 256;
/// Keys of the chunk index: they live in their own keyspace.
const INDEX_START: &[u8] = b"c/";
const INDEX_END: &[u8] = b"c0";

/// Rows in a folder of this machine.
pub struct Embedded {
    inner: Arc<Inner>,
}

struct Inner {
    tables: Mutex<Option<Tables>>,
    queue: Mutex<Queue>,
    /// Held while a group is checked and written: one writer at a time.
    writer: Mutex<()>,
}

/// The open database; a clone for each use, so that closing waits for none.
#[derive(Clone)]
struct Tables {
    database: Database,
    rows: Keyspace,
    index: Keyspace,
    _lock: Arc<FolderLock>,
}

#[derive(Default)]
struct Queue {
    waiting: Vec<Waiting>,
    committing: bool,
}

struct Waiting {
    tx: Transaction,
    done: oneshot::Sender<Result<(), MetaError>>,
}

/// Errors are told to every member of a group, so they must be made more than once.
fn engine(action: &'static str) -> impl Fn(fjall::Error) -> MetaError {
    move |error| {
        let io = match &error {
            fjall::Error::Io(io) | fjall::Error::Storage(fjall::LsmError::Io(io)) => Some(io.kind()),
            _ => None,
        };
        match io {
            Some(std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded) => MetaError::DiskFull,
            _ => MetaError::Engine { action, source: Box::new(error) },
        }
    }
}

impl Embedded {
    /// Opens the database in `dir`, and makes it when it is absent. Blocks; a database that was closed opens within a
    /// second, and one that was killed replays its journal first. Fails with [`MetaError::Locked`] when another process
    /// has it open.
    pub fn open(dir: &Path) -> Result<Arc<dyn Meta>, MetaError> {
        let disk = |source| MetaError::Engine { action: "make its folder", source: Box::new(source) };
        folder::create(dir).map_err(disk)?;
        let lock = Arc::new(FolderLock::take(dir)?);
        let failed = engine("open");
        let database = Database::builder(dir.join("rows"))
            .cache_size(CACHE_BYTES)
            .max_journaling_size(JOURNAL_BYTES)
            .manual_journal_persist(true)
            .worker_threads(2)
            .max_cached_files(Some(128))
            .open()
            .map_err(&failed)?;
        let options = || KeyspaceCreateOptions::default().max_memtable_size(MEMTABLE_BYTES);
        let rows = database.keyspace("rows", options).map_err(&failed)?;
        let index = database.keyspace("index", options).map_err(&failed)?;
        let tables = Tables { database, rows, index, _lock: lock };
        let inner =
            Inner { tables: Mutex::new(Some(tables)), queue: Mutex::new(Queue::default()), writer: Mutex::new(()) };
        Ok(Arc::new(Self { inner: Arc::new(inner) }))
    }

    /// Runs `work` on the open tables, off the async threads.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(Tables) -> Result<T, MetaError> + Send + 'static,
    ) -> Result<T, MetaError> {
        let tables = self.inner.tables()?;
        tokio::task::spawn_blocking(move || work(tables)).await.map_err(|_| MetaError::Closed)?
    }
}

impl Tables {
    fn keyspace(&self, key: &[u8]) -> &Keyspace {
        if key.starts_with(INDEX_START) { &self.index } else { &self.rows }
    }

    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, MetaError> {
        let value = self.keyspace(key).get(key).map_err(engine("read a row"))?;
        Ok(value.map(|value| Bytes::copy_from_slice(&value)))
    }

    fn scan(&self, start: &[u8], end: &[u8], limit: usize) -> Result<Vec<(Bytes, Bytes)>, MetaError> {
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
            for guard in keyspace.range(from..to) {
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

impl Inner {
    fn tables(&self) -> Result<Tables, MetaError> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner).clone().ok_or(MetaError::Closed)
    }

    /// Commits groups until nobody waits.
    fn drain(&self) {
        loop {
            let group = {
                let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
                if queue.waiting.is_empty() {
                    queue.committing = false;
                    return;
                }
                let count = queue.waiting.len().min(GROUP_MAX);
                queue.waiting.drain(..count).collect::<Vec<_>>()
            };
            self.commit_group(group);
        }
    }

    /// Writes one group as one batch of the engine: each member whose expectations hold, in order of arrival, seeing the
    /// members before it.
    fn commit_group(&self, group: Vec<Waiting>) {
        let _writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let Ok(tables) = self.tables() else {
            return group.into_iter().for_each(|member| drop(member.done.send(Err(MetaError::Closed))));
        };
        let mut overlay: HashMap<Vec<u8>, Option<Bytes>> = HashMap::new();
        let mut accepted = Vec::with_capacity(group.len());
        for Waiting { tx, done } in group {
            match holds(&tables, &overlay, &tx) {
                Ok(true) => {
                    overlay.extend(tx.changes);
                    accepted.push(done);
                }
                Ok(false) => drop(done.send(Err(MetaError::Conflict))),
                Err(error) => drop(done.send(Err(error))),
            }
        }
        let mut batch = tables.database.batch().durability(Some(PersistMode::SyncAll));
        for (key, value) in &overlay {
            match value {
                Some(value) => batch.insert(tables.keyspace(key), key.as_slice(), &value[..]),
                None => batch.remove(tables.keyspace(key), key.as_slice()),
            }
        }
        let outcome = batch.commit();
        if let Err(error) = &outcome {
            tracing::error!(%error, "the metadata database could not commit");
        }
        let mut outcome = outcome.map_err(engine("commit"));
        for done in accepted {
            let told = match &outcome {
                Ok(()) => Ok(()),
                Err(MetaError::DiskFull) => Err(MetaError::DiskFull),
                Err(_) => std::mem::replace(&mut outcome, Err(MetaError::Closed)),
            };
            drop(done.send(told));
        }
    }
}

/// Whether all that the transaction expects is so, in the database under the changes of the same group.
fn holds(tables: &Tables, overlay: &HashMap<Vec<u8>, Option<Bytes>>, tx: &Transaction) -> Result<bool, MetaError> {
    for (key, expected) in &tx.expected {
        let found = match overlay.get(key) {
            Some(changed) => changed.clone(),
            None => tables.get(key)?,
        };
        if found != *expected {
            return Ok(false);
        }
    }
    Ok(true)
}

#[async_trait]
impl Meta for Embedded {
    async fn get(&self, key: &[u8]) -> Result<Option<Bytes>, MetaError> {
        let key = key.to_vec();
        self.blocking(move |tables| tables.get(&key)).await
    }

    async fn get_many(&self, keys: &[Vec<u8>]) -> Result<Vec<Option<Bytes>>, MetaError> {
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let keys = keys.to_vec();
        self.blocking(move |tables| keys.iter().map(|key| tables.get(key)).collect()).await
    }

    async fn scan(&self, start: &[u8], end: &[u8], limit: usize) -> Result<Vec<(Bytes, Bytes)>, MetaError> {
        let (start, end) = (start.to_vec(), end.to_vec());
        self.blocking(move |tables| tables.scan(&start, &end, limit)).await
    }

    async fn commit(&self, tx: Transaction) -> Result<(), MetaError> {
        let (done, outcome) = oneshot::channel();
        let lead = {
            let mut queue = self.inner.queue.lock().unwrap_or_else(PoisonError::into_inner);
            queue.waiting.push(Waiting { tx, done });
            !std::mem::replace(&mut queue.committing, true)
        };
        if lead {
            // Not awaited: the group must be written even when this caller goes away.
            let inner = self.inner.clone();
            drop(tokio::task::spawn_blocking(move || inner.drain()));
        }
        outcome.await.map_err(|_| MetaError::Closed)?
    }

    async fn disk_bytes(&self) -> Result<u64, MetaError> {
        self.blocking(|tables| {
            let rows = tables.rows.disk_space() + tables.index.disk_space();
            let journals = tables.database.journal_disk_space().map_err(engine("measure itself"))?;
            Ok(rows + journals)
        })
        .await
    }

    async fn close(&self) {
        let inner = self.inner.clone();
        let closed = tokio::task::spawn_blocking(move || {
            let _writer = inner.writer.lock().unwrap_or_else(PoisonError::into_inner);
            let Some(tables) = inner.tables.lock().unwrap_or_else(PoisonError::into_inner).take() else {
                return Ok(());
            };
            tables.database.persist(PersistMode::SyncAll)?;
            for keyspace in [&tables.rows, &tables.index] {
                keyspace.rotate_memtable_and_wait()?;
            }
            Ok::<(), fjall::Error>(())
        });
        match closed.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "the metadata database did not flush at its end"),
            Err(error) => tracing::warn!(%error, "the metadata database did not end cleanly"),
        }
    }
}

#[cfg(test)]
mod tests {
    //! Rows survive, expectations guard, scans stay in order across keyspaces, a second opener is refused.
    use super::*;

    fn key(text: &str) -> Vec<u8> {
        text.as_bytes().to_vec()
    }

    /// Opens what was just let go of: a commit that a drop overtook keeps the folder's lock until it has ended.
    async fn reopen(dir: &Path) -> Arc<dyn Meta> {
        for _ in 0..500 {
            match Embedded::open(dir) {
                Err(MetaError::Locked(_)) => tokio::time::sleep(std::time::Duration::from_millis(10)).await,
                opened => return opened.unwrap(),
            }
        }
        panic!("the folder is still locked after five seconds");
    }

    #[tokio::test]
    async fn rows_survive_a_drop_and_a_close() {
        let dir = tempfile::tempdir().unwrap();
        for (close, name) in [(false, "dropped"), (true, "closed")] {
            let meta = reopen(dir.path()).await;
            meta.commit(Transaction::new().put(format!("o/{name}"), name).put(format!("c/{name}"), name))
                .await
                .unwrap();
            if close {
                meta.close().await;
                assert!(matches!(meta.get(b"o/x").await, Err(MetaError::Closed)));
            }
            drop(meta);
            let meta = reopen(dir.path()).await;
            assert_eq!(meta.get(format!("o/{name}").as_bytes()).await.unwrap().unwrap(), name);
            assert_eq!(meta.get(format!("c/{name}").as_bytes()).await.unwrap().unwrap(), name);
        }
    }

    #[tokio::test]
    async fn expectations_guard_and_one_of_many_wins() {
        let dir = tempfile::tempdir().unwrap();
        let meta = Embedded::open(dir.path()).unwrap();
        let claims = (0..50).map(|n| {
            let meta = meta.clone();
            async move { meta.commit(Transaction::new().expect("o/one", None).put("o/one", n.to_string())).await }
        });
        let outcomes = futures_util::future::join_all(claims).await;
        assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 1);
        assert!(outcomes.iter().filter_map(|outcome| outcome.as_ref().err()).all(|e| matches!(e, MetaError::Conflict)));
        let wrong = Transaction::new().expect("o/one", Some("none such".into())).delete("o/one");
        assert!(matches!(meta.commit(wrong).await, Err(MetaError::Conflict)));
        assert!(meta.get(b"o/one").await.unwrap().is_some());
    }

    #[tokio::test]
    async fn scans_in_order_across_keyspaces() {
        let dir = tempfile::tempdir().unwrap();
        let meta = Embedded::open(dir.path()).unwrap();
        let names = ["b/1", "b/2", "c/1", "c/2", "o/1", "p/1"];
        let tx = names.iter().rev().fold(Transaction::new(), |tx, name| tx.put(*name, *name));
        meta.commit(tx).await.unwrap();
        let found = meta.scan(b"b/", b"p/", 100).await.unwrap();
        assert_eq!(
            found.iter().map(|(key, _)| &key[..]).collect::<Vec<_>>(),
            names[..5].iter().map(|n| n.as_bytes()).collect::<Vec<_>>()
        );
        assert_eq!(meta.scan(b"b/2", b"z", 2).await.unwrap().len(), 2);
        assert_eq!(meta.get_many(&[key("c/2"), key("c/9"), key("p/1")]).await.unwrap()[1], None);
        assert!(meta.disk_bytes().await.unwrap() > 0);
    }

    #[tokio::test]
    async fn a_second_opener_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let _meta = Embedded::open(dir.path()).unwrap();
        let Err(error) = Embedded::open(dir.path()) else { panic!("opened twice") };
        assert!(error.to_string().contains("in use by process"), "{error}");
    }
}
