//! Garbage collection of a real store: what nothing refers to goes, to the byte; what anything refers to stays, whatever writers, readers
//! and crashes do meanwhile. The protocol itself is searched exhaustively in `gc_model`.

mod crash;
mod crowd;
mod large;
mod single;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bedplate::format::row::PackRow;
use bedplate::meta::{Embedded, Meta, MetaError};
use bedplate::model::{BucketName, ObjectKey, PackId};
use bedplate::store::{ByteStream, FsckOptions, GcOptions, GcReport, PackHome, PutRequest, Store, StoreError};
use bedplate::sys::worker::Workers;
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};

fn bucket() -> BucketName {
    "data-sets".parse().unwrap()
}

fn key(text: &str) -> ObjectKey {
    text.parse().unwrap()
}

/// An open store in a folder, and its metadata.
struct Opened {
    store: Store,
    meta: Arc<dyn Meta>,
    workers: Workers,
    dir: PathBuf,
}

impl Opened {
    async fn open(dir: &Path) -> Self {
        Self::open_on(dir, open_meta(dir).await).await
    }

    async fn open_on(dir: &Path, meta: Arc<dyn Meta>) -> Self {
        let workers = Workers::new();
        let store = Store::open(meta.clone(), PackHome::local(dir.join("packs")), &workers).await.unwrap();
        match store.create_bucket(&bucket(), "root").await {
            Ok(()) | Err(StoreError::BucketExists(_)) => {}
            Err(error) => panic!("{error}"),
        }
        Self { store, meta, workers, dir: dir.to_owned() }
    }

    async fn close(self) {
        self.store.close().await;
        drop(self.store);
        self.workers.stop().await;
    }

    async fn put(&self, name: &str, bytes: &[u8]) {
        self.store.put(&bucket(), &key(name), body(bytes), PutRequest::default()).await.unwrap();
    }

    async fn get(&self, name: &str) -> Vec<u8> {
        let (_, bytes) = self.store.get(&bucket(), &key(name), None).await.unwrap();
        collect(bytes).await
    }

    async fn delete(&self, name: &str) {
        assert!(self.store.delete(&bucket(), &key(name)).await.unwrap());
    }

    /// Seals the pack that is being filled.
    async fn seal(&self) {
        self.sound().await;
    }

    /// Nothing is wrong with any object.
    async fn sound(&self) {
        let report = self.store.fsck(FsckOptions { data: true }).await.unwrap();
        assert_eq!(report.errors, vec![]);
    }

    async fn gc(&self, rounds: u32) -> GcReport {
        let report = self.store.gc(GcOptions { rounds, seal: true, ..GcOptions::default() }).await.unwrap();
        assert_eq!(report.done.failures, Vec::<String>::new());
        report
    }

    /// Files of packs, with their lengths.
    fn files(&self) -> BTreeMap<PackId, u64> {
        let mut found = BTreeMap::new();
        for shard in std::fs::read_dir(self.dir.join("packs")).unwrap() {
            for file in std::fs::read_dir(shard.unwrap().path()).unwrap() {
                let file = file.unwrap();
                let name = file.file_name().into_string().unwrap();
                let pack = name.strip_suffix(".pack").unwrap().parse().unwrap();
                found.insert(pack, file.metadata().unwrap().len());
            }
        }
        found
    }

    /// Packs that have a row.
    async fn rows(&self) -> BTreeMap<PackId, PackRow> {
        let rows = self.meta.scan(b"p/", b"p0", 10_000).await.unwrap();
        rows.iter()
            .map(|(key, value)| (PackId(key[2..].try_into().unwrap()), PackRow::decode(value).unwrap()))
            .collect()
    }

    /// How many rows begin with a prefix.
    async fn count(&self, prefix: &str) -> usize {
        let end = bedplate::meta::prefix_end(prefix.as_bytes());
        self.meta.scan(prefix.as_bytes(), &end, 1_000_000).await.unwrap().len()
    }

    /// Every pack file has its row and every row its file, every index row names a pack that is there.
    async fn tidy(&self) {
        let (files, rows) = (self.files(), self.rows().await);
        assert_eq!(files.keys().collect::<Vec<_>>(), rows.keys().collect::<Vec<_>>());
        for (_, value) in self.meta.scan(b"c/", b"c0", 1_000_000).await.unwrap() {
            let at = bedplate::format::row::decode_location(&value).unwrap();
            assert!(rows.contains_key(&at.pack), "the index names pack {}, which has gone", at.pack);
        }
    }
}

/// Opens the metadata; a store that was let go of may take a moment to end.
async fn open_meta(dir: &Path) -> Arc<dyn Meta> {
    for _ in 0..500 {
        match Embedded::open(&dir.join("meta")) {
            Err(MetaError::Locked(_)) => tokio::time::sleep(std::time::Duration::from_millis(10)).await,
            opened => return opened.unwrap(),
        }
    }
    panic!("the metadata is still locked after five seconds");
}

/// Random numbers that are the same on each run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len.div_ceil(8)).flat_map(|_| self.next().to_le_bytes()).take(len).collect()
    }
}

fn body(bytes: &[u8]) -> ByteStream {
    let pieces: Vec<_> = bytes.chunks(100_000).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
    stream::iter(pieces).boxed()
}

async fn collect(mut bytes: ByteStream) -> Vec<u8> {
    let mut all = Vec::new();
    while let Some(piece) = bytes.next().await {
        all.extend_from_slice(&piece.unwrap());
    }
    all
}
