//! Snapshots and branches: each shows for good what its bucket was, by every way of looking at it, whatever is written, deleted, renamed,
//! collected, moved, crashed and reopened meanwhile; what only a removed one kept is freed to the byte; and clients meet them over S3.

mod crash;
mod door;
mod model;
mod race;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bedplate::meta::{Embedded, Meta, MetaError};
use bedplate::model::{BucketName, ObjectKey, SnapshotName};
use bedplate::store::{ByteStream, GcOptions, PackHome, PutRequest, Store, StoreError};
use bedplate::sys::worker::Workers;
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};

fn bucket(name: &str) -> BucketName {
    BucketName::parse_readable(name).unwrap()
}

fn snap(name: &str) -> SnapshotName {
    name.parse().unwrap()
}

fn key(text: &str) -> ObjectKey {
    text.parse().unwrap()
}

async fn open(dir: &Path) -> (Store, Arc<dyn Meta>, Workers) {
    open_over(rows_of(dir).await, dir).await
}

/// The rows in a folder. Threads that read them for whoever had them open before may take a moment to end.
async fn rows_of(dir: &Path) -> Arc<dyn Meta> {
    for _ in 0..500 {
        match Embedded::open(&dir.join("meta")) {
            Err(MetaError::Locked(_)) => tokio::time::sleep(Duration::from_millis(10)).await,
            opened => return opened.unwrap(),
        }
    }
    panic!("the rows are still open")
}

async fn open_over(meta: Arc<dyn Meta>, dir: &Path) -> (Store, Arc<dyn Meta>, Workers) {
    let workers = Workers::new();
    let store = Store::open(meta.clone(), PackHome::local(dir.join("packs")), &workers).await.unwrap();
    (store, meta, workers)
}

async fn end(store: Store, workers: Workers) {
    store.close().await;
    workers.stop().await;
}

fn body(bytes: &[u8]) -> ByteStream {
    stream::iter([Ok(Bytes::copy_from_slice(bytes))]).boxed()
}

async fn put(store: &Store, place: &str, name: &str, bytes: &[u8]) -> Result<(), StoreError> {
    store.put(&bucket(place), &key(name), body(bytes), PutRequest::default()).await.map(drop)
}

async fn read(store: &Store, place: &str, name: &str) -> Result<Vec<u8>, StoreError> {
    let (_, mut bytes) = store.get(&bucket(place), &key(name), None).await?;
    let mut all = Vec::new();
    while let Some(piece) = bytes.next().await {
        all.extend_from_slice(&piece.unwrap());
    }
    Ok(all)
}

async fn collect(store: &Store) {
    let options = GcOptions { rounds: 20, seal: true, ..GcOptions::default() };
    let report = store.gc(options).await.unwrap();
    assert_eq!(report.done.failures, Vec::<String>::new());
}

/// How many rows begin so.
async fn rows(meta: &Arc<dyn Meta>, owner: &str) -> usize {
    let start = format!("{owner}/").into_bytes();
    meta.scan(&start, &bedplate::meta::prefix_end(&start), 100_000).await.unwrap().len()
}
