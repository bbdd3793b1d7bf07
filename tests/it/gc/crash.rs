//! The process dies between any two steps of the collector: all objects are whole at the next start, and the next rounds bring the store to
//! where it would have come without the crash.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use async_trait::async_trait;
use bedplate::meta::{Meta, MetaError, Range, Transaction};
use bedplate::store::GcOptions;
use bytes::Bytes;

use super::{Opened, Random, open_meta};

const MIB: usize = 1024 * 1024;

/// Metadata that is gone after so many commits, as if the process had died with the last one.
struct Mortal {
    meta: Arc<dyn Meta>,
    left: AtomicI64,
}

impl Mortal {
    fn alive(&self) -> Result<&Arc<dyn Meta>, MetaError> {
        if self.left.load(Ordering::SeqCst) >= 0 { Ok(&self.meta) } else { Err(MetaError::Closed) }
    }
}

#[async_trait]
impl Meta for Mortal {
    async fn get(&self, key: &[u8]) -> Result<Option<Bytes>, MetaError> {
        self.alive()?.get(key).await
    }

    async fn get_many(&self, keys: &[Vec<u8>]) -> Result<Vec<Option<Bytes>>, MetaError> {
        self.alive()?.get_many(keys).await
    }

    async fn scan(&self, start: &[u8], end: &[u8], limit: usize) -> Result<Vec<(Bytes, Bytes)>, MetaError> {
        self.alive()?.scan(start, end, limit).await
    }

    async fn scan_many(&self, ranges: &[Range]) -> Result<Vec<Vec<(Bytes, Bytes)>>, MetaError> {
        self.alive()?.scan_many(ranges).await
    }

    async fn commit(&self, tx: Transaction) -> Result<(), MetaError> {
        if self.left.fetch_sub(1, Ordering::SeqCst) <= 0 {
            return Err(MetaError::Closed);
        }
        self.meta.commit(tx).await
    }

    async fn disk_bytes(&self) -> Result<u64, MetaError> {
        self.alive()?.disk_bytes().await
    }

    async fn close(&self) {
        self.meta.close().await;
    }
}

fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_folder(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// A store with a pack to delete, one to condemn, one to repack, and objects that stay.
async fn prepare(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let opened = Opened::open(dir).await;
    let mut random = Random(12);
    let mut model = BTreeMap::new();
    for (name, len) in [("garbage", MIB), ("sooner", MIB), ("stays", 200_000), ("mostly", 2 * MIB), ("other", MIB)] {
        let bytes = random.bytes(len);
        opened.put(name, &bytes).await;
        if name != "stays" {
            opened.seal().await;
        }
        model.insert(name.to_owned(), bytes);
    }
    for name in ["garbage", "sooner", "mostly"] {
        opened.delete(name).await;
        model.remove(name);
        if name == "garbage" {
            assert_eq!(opened.gc(1).await.done.condemned, 1);
        }
    }
    opened.close().await;
    model
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_between_any_two_steps_loses_nothing_and_leaks_nothing() {
    let prepared = tempfile::tempdir().unwrap();
    let model = prepare(prepared.path()).await;
    let mut commits = 0;
    loop {
        let dir = tempfile::tempdir().unwrap();
        copy_folder(prepared.path(), dir.path());
        let meta = open_meta(dir.path()).await;
        let mortal = Arc::new(Mortal { meta, left: AtomicI64::new(i64::MAX / 2) });
        let opened = Opened::open_on(dir.path(), mortal.clone()).await;
        mortal.left.store(commits, Ordering::SeqCst);
        let outcome = opened.store.gc(GcOptions { rounds: 4, ..GcOptions::default() }).await;
        let done = mortal.left.load(Ordering::SeqCst) > 0;
        assert!(outcome.is_ok() || !done, "{outcome:?}");
        // The process is gone: nothing is closed, nothing flushed.
        let Opened { store, meta, workers, .. } = opened;
        mortal.left.store(-1, Ordering::SeqCst);
        drop(store);
        workers.stop().await;
        drop((meta, mortal));
        let opened = Opened::open(dir.path()).await;
        for (name, bytes) in &model {
            assert!(opened.get(name).await == *bytes, "{name} after {commits} commits");
        }
        opened.sound().await;
        opened.gc(8).await;
        for (name, bytes) in &model {
            assert!(opened.get(name).await == *bytes, "{name} after {commits} commits and a collection");
        }
        opened.sound().await;
        opened.tidy().await;
        let stored: u64 = opened.files().values().sum();
        assert!(stored < 2 * MIB as u64, "{stored} bytes after {commits} commits");
        opened.close().await;
        if done {
            break;
        }
        commits += 1;
    }
    eprintln!("crashed after each of {commits} commits");
    assert!(commits > 10, "{commits}");
}
