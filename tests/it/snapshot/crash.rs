//! A program that ends between any two of its writes: what was acknowledged is there, and what was being removed goes.

use std::sync::atomic::{AtomicI64, Ordering};

use crate::support::rows::{Meddle, Meddled};
use bedplate::meta::Transaction;
use bedplate::store::FsckOptions;

use super::*;

/// Rows that take so many commits and then no more, as of a program that has ended.
struct Ends(AtomicI64);

#[async_trait::async_trait]
impl Meddle for Ends {
    async fn commit(&self, rows: &dyn Meta, tx: Transaction) -> Result<(), MetaError> {
        if self.0.fetch_sub(1, Ordering::SeqCst) <= 0 { Err(MetaError::Closed) } else { rows.commit(tx).await }
    }
}

const OBJECTS: usize = 450;

fn name(number: usize) -> String {
    format!("key-{number:04}")
}

/// Removes the snapshot, takes the branch off, and answers how far it came.
async fn tear_down(store: &Store) -> Result<(), StoreError> {
    store.remove_snapshot(&bucket("data"), &snap("first")).await?;
    store.delete_bucket(&bucket("branch")).await?;
    store.remove_snapshot(&bucket("data"), &snap("second")).await
}

/// A bucket with two snapshots, all objects of which were replaced since, and a branch that has deleted what it began with.
async fn set_up(store: &Store) {
    store.create_bucket(&bucket("data"), "root").await.unwrap();
    for turn in ["first", "second", ""] {
        for start in (0..OBJECTS).step_by(50) {
            let each = (start..start + 50).map(|number| async move {
                put(store, "data", &name(number), format!("{turn} {number}").as_bytes()).await.unwrap();
            });
            futures_util::future::join_all(each).await;
        }
        if !turn.is_empty() {
            store.create_snapshot(&bucket("data"), &snap(turn), None).await.unwrap();
        }
    }
    store.branch_snapshot(&bucket("data"), &snap("second"), &bucket("branch")).await.unwrap();
    for number in 0..OBJECTS / 2 {
        store.delete(&bucket("branch"), &key(&name(number))).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn removals_end_at_the_next_start() {
    let mut finished = false;
    for commits in 0..40 {
        let dir = tempfile::tempdir().unwrap();
        let (store, meta, workers) = open(dir.path()).await;
        set_up(&store).await;
        end(store, workers).await;
        drop(meta);
        let meta = Arc::new(Meddled(rows_of(dir.path()).await, Ends(AtomicI64::new(commits))));
        let (store, meta, workers) = open_over(meta, dir.path()).await;
        finished = tear_down(&store).await.is_ok();
        end(store, workers).await;
        drop(meta);
        let (store, meta, workers) = open(dir.path()).await;
        for _ in 0..500 {
            let leaving = store.expire_snapshots(bedplate::sys::clock::Timestamp(0)).await.unwrap();
            if leaving == 0 {
                break;
            }
        }
        let left: Vec<_> = store.snapshots(&bucket("data")).await.unwrap();
        // Each snapshot is there whole, or it is gone with all that it alone kept.
        for snapshot in &left {
            for number in 0..OBJECTS {
                let place = format!("data@{}", snapshot.name);
                let shown = read(&store, &place, &name(number)).await.unwrap();
                assert_eq!(shown, format!("{} {number}", snapshot.name).into_bytes());
            }
        }
        assert_eq!((rows(&meta, "h").await, rows(&meta, "z").await), (OBJECTS * left.len(), left.len()));
        for number in 0..OBJECTS {
            assert_eq!(read(&store, "data", &name(number)).await.unwrap(), format!(" {number}").into_bytes());
        }
        assert_eq!(store.fsck(FsckOptions { data: true }).await.unwrap().errors, []);
        // What was broken off can be done.
        for snapshot in left.iter().filter(|snapshot| snapshot.branches.is_empty()) {
            store.remove_snapshot(&bucket("data"), &snapshot.name).await.unwrap();
        }
        match store.delete_bucket(&bucket("branch")).await {
            Ok(()) | Err(StoreError::NoSuchBucket(_)) => {}
            Err(error) => panic!("{error:?}"),
        }
        for snapshot in store.snapshots(&bucket("data")).await.unwrap() {
            store.remove_snapshot(&bucket("data"), &snapshot.name).await.unwrap();
        }
        assert_eq!((rows(&meta, "h").await, rows(&meta, "z").await), (0, 0));
        assert_eq!(rows(&meta, "o").await, OBJECTS);
        end(store, workers).await;
        if finished {
            break;
        }
    }
    assert!(finished, "no run came to its end");
}
