//! Damage that hides other damage, that somebody meets at work, and that is repaired by a commit nobody hears the end of.

use std::path::Path;
use std::sync::Arc;

use crate::support::rows::{Meddle, Meddled};
use async_trait::async_trait;
use bedplate::meta::{Embedded, Meta, MetaError, Transaction};
use bedplate::store::{GcOptions, PackHome, Store, StoreError};
use bedplate::sys::worker::Workers;

use super::care::{bucket, errors, flip, get, key, open, packs, put, rows, scrub_all};
use super::support::noise;

/// Stores an object, closes the store, and answers the object's bytes.
async fn prepare(dir: &Path, len: usize) -> Vec<u8> {
    let store = open(dir).await;
    let bytes = noise(21, len);
    put(&store, "victim", &bytes).await;
    store.close().await;
    bytes
}

/// One pass tells the chunk that only a directory made again can lead to, the last of the pack, which nothing else vouches for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_directory_hides_no_damaged_chunk() {
    let dir = tempfile::tempdir().unwrap();
    let bytes = prepare(dir.path(), 1_000_000).await;
    let file = packs(dir.path()).remove(0);
    flip(&file, |len| len - 20);
    flip(&file, |_| 990_000);
    let store = open(dir.path()).await;
    let report = scrub_all(&store, true).await;
    assert_eq!((report.repair.directories, report.damaged_chunks, report.damage.len()), (1, 1, 1));
    assert!(report.damage[0].chunk.is_some());
    put(&store, "again", &bytes).await;
    assert!(get(&store, "again").await.unwrap() == bytes);
    assert_eq!(scrub_all(&store, true).await.damage, vec![]);
    assert!(get(&store, "victim").await.unwrap() == bytes);
}

/// Once a read has met a pack that does not say what it holds, nothing that is put relies on it, after a restart neither.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_new_relies_on_a_pack_that_cannot_be_read() {
    let dir = tempfile::tempdir().unwrap();
    let bytes = prepare(dir.path(), 1_000_000).await;
    let file = packs(dir.path()).remove(0);
    // Neither says what the other said.
    flip(&file, |len| len - 20);
    flip(&file, |_| 60);
    let store = open(dir.path()).await;
    assert!(matches!(get(&store, "victim").await, Err(StoreError::Corrupt { .. })));
    put(&store, "again", &bytes).await;
    assert!(get(&store, "again").await.unwrap() == bytes);
    let half = &bytes[..500_000];
    store.close().await;
    drop(store);
    let store = open(dir.path()).await;
    put(&store, "half", half).await;
    assert!(get(&store, "half").await.unwrap() == half);
    let report = scrub_all(&store, true).await;
    assert_eq!((report.damage.len(), report.damage[0].chunk, report.damage[0].needed_by), (1, None, 1));
}

/// The first bytes of a pack are always the same, and are written again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_bytes_are_written_again() {
    let dir = tempfile::tempdir().unwrap();
    let bytes = prepare(dir.path(), 1_000_000).await;
    let file = packs(dir.path()).remove(0);
    let good = std::fs::read(&file).unwrap();
    // With a damaged directory the groups behind them still say what is in the pack.
    for damage in [&[3][..], &[3, good.len() - 20]] {
        damage.iter().for_each(|at| flip(&file, |_| *at));
        let store = open(dir.path()).await;
        assert!(!errors(&store, true).await.is_empty());
        let report = scrub_all(&store, true).await;
        assert_eq!((report.heads, report.damage), (1, vec![]));
        assert_eq!(errors(&store, true).await, Vec::<String>::new());
        assert!(get(&store, "victim").await.unwrap() == bytes);
        store.close().await;
        drop(store);
        assert!(std::fs::read(&file).unwrap() == good);
    }
}

/// What else is in a damaged pack is not moved again by every collection, for nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_pack_stays_where_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let bytes = prepare(dir.path(), 20_000_000).await;
    // Behind what is read and moved at once.
    flip(&packs(dir.path()).remove(0), |_| 5_500_000);
    let store = open(dir.path()).await;
    put(&store, "keeps", &bytes[..6_000_000]).await;
    store.delete(&bucket(), &key("victim")).await.unwrap();
    let options = GcOptions { rounds: 4, seal: true, ..GcOptions::default() };
    // The first meets the damage, and what it has moved until then is garbage.
    let report = store.gc(options).await.unwrap();
    assert_eq!((report.done.repacked, report.done.failures.len()), (0, 1), "{report:?}");
    assert_eq!(store.scrub_status().await.unwrap().damage.len(), 1);
    store.gc(options).await.unwrap();
    let before = packs(dir.path());
    let report = store.gc(options).await.unwrap();
    assert_eq!((packs(dir.path()), report.done.failures), (before, vec![]));
}

/// Metadata that does what it is told and says that it failed, where an object's row is written.
struct Doubtful;

#[async_trait]
impl Meddle for Doubtful {
    async fn commit(&self, rows: &dyn Meta, tx: Transaction) -> Result<(), MetaError> {
        let is_object = tx.changes().iter().any(|(key, _)| key.starts_with(b"o/"));
        rows.commit(tx).await?;
        if is_object { Err(MetaError::Engine { action: "commit", source: "it says so".into() }) } else { Ok(()) }
    }
}

/// A repair whose commit may have happened leaves the manifest that the object names then.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repair_in_doubt_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let bytes = prepare(dir.path(), 6_000_000).await;
    let file = packs(dir.path()).remove(0);
    // So many chunks here and there that the repaired object's terms do not fit in its row.
    (1..40).for_each(|n| flip(&file, |_| n * 140_000));
    let store = open(dir.path()).await;
    assert!(scrub_all(&store, true).await.damage.len() > 16);
    put(&store, "again", &bytes).await;
    store.close().await;
    drop(store);
    let meta: Arc<dyn Meta> = Embedded::open(&dir.path().join("meta")).unwrap();
    let before = rows(&meta, "m/", "m0").await.len();
    let doubtful = Arc::new(Meddled(meta.clone(), Doubtful));
    let home = PackHome::local(dir.path().join("packs"));
    let store = Store::open(doubtful, home, &Workers::new()).await.unwrap();
    assert!(matches!(store.repair().await, Err(StoreError::Meta(_))));
    assert!(rows(&meta, "m/", "m0").await.len() > before, "the object has its terms in its row: damage more");
    store.close().await;
    drop((store, meta));
    let store = open(dir.path()).await;
    assert!(get(&store, "victim").await.unwrap() == bytes);
    assert_eq!(errors(&store, true).await.into_iter().filter(|error| error.contains("care/")).count(), 0);
}
