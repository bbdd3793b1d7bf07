//! The embedded engine: fjall, in two keyspaces (the chunk index, which is random keys in great number, and all other
//! rows), behind one committer that checks expectations and flushes once for all transactions that wait.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::oneshot;

use super::home::{Health, Home};
use super::readers::Readers;
use super::tables::{Tables, engine};
use super::{Meta, MetaError, Range, Transaction};
use crate::sys::space::Reserve;

/// Transactions that share one flush, at most.
const GROUP_MAX: usize = 256;
/// What every request reads, and what is in memory for that: buckets, the epoch, keys, settings, tenants. Handing such a
/// read to another thread costs many times the read.
const READ_IN_PLACE: [&[u8]; 5] = [b"b/", b"g/", b"k/", b"s/", b"t/"];

/// Rows in a folder of this machine.
pub struct Embedded {
    inner: Arc<Inner>,
    readers: Readers,
}

struct Inner {
    home: Arc<Home>,
    queue: Mutex<Queue>,
    /// Held while a group is checked and written: one writer at a time.
    writer: Mutex<Health>,
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

impl Embedded {
    /// Opens the database in `dir`, and makes it when it is absent. Blocks; a database that was closed opens within a
    /// second, and one that was killed replays its journal first. Fails with [`MetaError::Locked`] when another process
    /// has it open.
    pub fn open(dir: &Path) -> Result<Arc<dyn Meta>, MetaError> {
        Self::open_with(dir, Reserve::default())
    }

    /// Opens the database as [`Embedded::open`] does, and keeps that much of its disk free: writes are refused before the
    /// disk is really full.
    pub fn open_with(dir: &Path, reserve: Reserve) -> Result<Arc<dyn Meta>, MetaError> {
        let home = Arc::new(Home::open(dir, reserve)?);
        let readers = Readers::new(home.clone());
        let inner = Inner { home, queue: Mutex::default(), writer: Mutex::default() };
        Ok(Arc::new(Self { inner: Arc::new(inner), readers }))
    }

    /// Runs `work` on the open tables, off the async threads.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Tables) -> Result<T, MetaError> + Send + 'static,
    ) -> Result<T, MetaError> {
        let inner = self.inner.clone();
        let outcome = tokio::task::spawn_blocking(move || work(inner.home.tables()?.as_ref()));
        outcome.await.map_err(|_| MetaError::Closed)?
    }
}

impl Inner {
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
        let mut health = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let tables = match self.home.admit(&mut health) {
            Ok(tables) => tables,
            Err(refusal) => return group.into_iter().for_each(|member| drop(member.done.send(Err(refusal.error())))),
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
        let outcome = self.home.write(&mut health, &tables, &overlay);
        for done in accepted {
            drop(done.send(outcome.map_err(|refusal| refusal.error())));
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
        if READ_IN_PLACE.iter().any(|start| key.starts_with(start))
            && let Some(tables) = self.inner.home.open_tables()
        {
            return tables.get(key);
        }
        self.readers.get(key.to_vec()).await
    }

    async fn get_many(&self, keys: &[Vec<u8>]) -> Result<Vec<Option<Bytes>>, MetaError> {
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let keys = keys.to_vec();
        self.blocking(move |tables| tables.get_many(&keys)).await
    }

    async fn scan(&self, start: &[u8], end: &[u8], limit: usize) -> Result<Vec<(Bytes, Bytes)>, MetaError> {
        let (start, end) = (start.to_vec(), end.to_vec());
        self.blocking(move |tables| tables.scan(&start, &end, limit)).await
    }

    async fn scan_many(&self, ranges: &[Range]) -> Result<Vec<Vec<(Bytes, Bytes)>>, MetaError> {
        let ranges = ranges.to_vec();
        self.blocking(move |tables| tables.scan_many(&ranges)).await
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
            let health = inner.writer.lock().unwrap_or_else(PoisonError::into_inner);
            inner.home.close(&health)
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
    use crate::meta::prefix_end;

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

    /// Each transaction gives many rows the next number, and moves a row of its own, while the engine flushes without end. Whoever scans or
    /// reads the many meets one number, and a row that has left its place is where it went.
    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn no_reader_sees_half_of_a_transaction() {
        const ROUNDS: u64 = 200;
        let dir = tempfile::tempdir().unwrap();
        let home = Arc::new(Home::open(dir.path(), Reserve::default()).unwrap());
        let inner = Inner { home: home.clone(), queue: Mutex::default(), writer: Mutex::default() };
        let meta = Embedded { inner: Arc::new(inner), readers: Readers::new(home.clone()) };
        // Ends when the test does, however that is.
        let running = Arc::new(());
        let still = Arc::downgrade(&running);
        let flusher = tokio::task::spawn_blocking(move || {
            while still.strong_count() > 0 {
                home.tables().unwrap().rows.rotate_memtable_and_wait().unwrap();
            }
        });
        let names: Vec<_> = (0..200).map(|row| key(&format!("p/{row:03}"))).collect();
        let place = |side: &str, round: u64| key(&format!("{side}/{round:03}"));
        let number = |round: u64| Bytes::copy_from_slice(&round.to_be_bytes());
        let all = |tx, round| names.iter().fold(tx, |tx: Transaction, name| tx.put(name.clone(), number(round)));
        let first = (1..=ROUNDS).fold(Transaction::new(), |tx, round| tx.put(place("o", round), number(round)));
        meta.commit(all(first, 0)).await.unwrap();
        let writer = async {
            for round in 1..=ROUNDS {
                let moved = Transaction::new().delete(place("o", round)).put(place("h", round), number(round));
                meta.commit(all(moved, round)).await.unwrap();
            }
        };
        let whole = async {
            let mut last = 0;
            while last < ROUNDS {
                let scanned = meta.scan(b"p/", b"q", names.len()).await.unwrap();
                assert!(scanned.iter().all(|(_, value)| *value == scanned[0].1), "a scan saw half of a transaction");
                let read = meta.get_many(&names).await.unwrap();
                assert!(read.iter().all(|value| *value == read[0]), "a read saw half of a transaction");
                last = u64::from_be_bytes(scanned[0].1[..].try_into().unwrap());
            }
        };
        let sides = async {
            let side = |side: &str| Range { start: key(side), end: prefix_end(&key(side)), limit: 2 * ROUNDS as usize };
            let mut moved = 0;
            while moved < ROUNDS as usize {
                let found = meta.scan_many(&[side("o/"), side("h/")]).await.unwrap();
                assert_eq!(found[0].len() + found[1].len(), ROUNDS as usize, "a row is at neither side, or at both");
                moved = found[1].len();
            }
        };
        let follower = async {
            for round in 1..=ROUNDS {
                while meta.get(&place("o", round)).await.unwrap().is_some() {}
                assert!(meta.get(&place("h", round)).await.unwrap().is_some(), "round {round}: it is at neither place");
            }
        };
        futures_util::future::join4(writer, whole, sides, follower).await;
        drop(running);
        flusher.await.unwrap();
    }

    #[tokio::test]
    async fn a_second_opener_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let _meta = Embedded::open(dir.path()).unwrap();
        let Err(error) = Embedded::open(dir.path()) else { panic!("opened twice") };
        assert!(error.to_string().contains("in use by process"), "{error}");
    }
}
