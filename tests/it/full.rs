//! A full disk refuses writes and nothing else, loses nothing that was acknowledged, and is over when there is room again:
//! on a small disk of its own, without a restart.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use bedplate::meta::{Embedded, MetaError, Transaction};
use bedplate::model::{BucketName, ObjectKey};
use bedplate::store::{FsckOptions, GcOptions, PackHome, PutRequest, Store, StoreError};
use bedplate::sys::space::{self, Reserve};
use bedplate::sys::worker::Workers;
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};

use crate::support::noise;

const MIB: u64 = 1024 * 1024;

/// A small disk in memory, gone when dropped.
struct SmallDisk {
    folder: tempfile::TempDir,
}

impl SmallDisk {
    /// None where this user may not mount.
    fn new(mib: u64) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={mib}m"), "bedplate-test"])
            .arg(folder.path())
            .output();
        match mounted {
            Ok(output) if output.status.success() => Some(Self { folder }),
            _ => {
                eprintln!("SKIPPED: this user may not mount a tmpfs, so that no disk can be filled");
                None
            }
        }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn free(&self) -> u64 {
        space::of(self.path()).unwrap().free
    }

    /// Leaves so many bytes free, by a file of someone else's.
    fn fill(&self, leave: u64) -> PathBuf {
        let path = self.path().join("someone-elses");
        let mut file = std::fs::File::create(&path).unwrap();
        // The engine writes beside this in the background: the disk may be full sooner than it was thought.
        while self.free() > leave {
            let length = (self.free() - leave).min(MIB) as usize;
            if file.write_all(&vec![1; length]).is_err() {
                break;
            }
        }
        path
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let done = Command::new("umount").arg("-l").arg(self.folder.path()).status();
        assert!(std::thread::panicking() || done.unwrap().success());
    }
}

fn bucket() -> BucketName {
    "full".parse().unwrap()
}

fn key(name: &str) -> ObjectKey {
    name.parse().unwrap()
}

async fn open(dir: &Path, reserve: Reserve) -> Store {
    let meta = Embedded::open_with(&dir.join("meta"), reserve).unwrap();
    let packs = PackHome::local(dir.join("packs")).with_reserve(reserve);
    let store = Store::open(meta, packs, &Workers::new()).await.unwrap();
    store.create_bucket(&bucket(), "root").await.unwrap();
    store
}

async fn put(store: &Store, name: &str, bytes: &[u8]) -> Result<(), StoreError> {
    let body = stream::iter([Ok(Bytes::copy_from_slice(bytes))]).boxed();
    store.put(&bucket(), &key(name), body, PutRequest::default()).await.map(|_| ())
}

async fn get(store: &Store, name: &str) -> Vec<u8> {
    let (_, mut bytes) = store.get(&bucket(), &key(name), None).await.unwrap();
    let mut all = Vec::new();
    while let Some(piece) = bytes.next().await {
        all.extend_from_slice(&piece.unwrap());
    }
    all
}

/// Puts until it works, for as long as a person would wait.
async fn put_soon(store: &Store, name: &str, bytes: &[u8]) {
    let started = Instant::now();
    while let Err(error) = put(store, name, bytes).await {
        assert!(matches!(error, StoreError::DiskFull), "{error:?}");
        assert!(started.elapsed() < Duration::from_secs(20), "writes do not go on");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn check(store: &Store, acknowledged: &[(String, Vec<u8>)]) {
    for (name, bytes) in acknowledged {
        assert!(get(store, name).await == *bytes, "{name}");
    }
    let report = store.fsck(FsckOptions { data: true }).await.unwrap();
    assert_eq!((report.errors, report.objects_checked), (vec![], acknowledged.len() as u64));
}

/// Writes until the disk has nothing left, several at once: large ones, whose chunks do not fit, and small ones, whose rows do
/// not. The engine under the rows refuses everything after that; it is opened anew.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_is_really_full_is_over_when_there_is_room() {
    let Some(disk) = SmallDisk::new(96) else { return };
    let store = open(disk.path(), Reserve::none()).await;
    let mut acknowledged = Vec::new();
    for round in 0..3u64 {
        let ballast = disk.fill((2 + 3 * round) * MIB);
        let (mut refused, mut number) = (0, 0);
        while refused < 40 {
            let names: Vec<(String, Vec<u8>)> = (0..6)
                .map(|n| {
                    number += 1;
                    let len = if n == 0 && round < 2 { 300_000 } else { 6_000 };
                    (format!("object-{round}-{number}"), noise(round * 1_000_000 + number, len))
                })
                .collect();
            let puts = names.iter().map(|(name, bytes)| put(&store, name, bytes));
            for (outcome, object) in futures_util::future::join_all(puts).await.into_iter().zip(names) {
                match outcome {
                    Ok(()) => acknowledged.push(object),
                    Err(StoreError::DiskFull) => refused += 1,
                    Err(error) => panic!("{error:?}"),
                }
            }
        }
        // What is there can be read.
        let (name, bytes) = &acknowledged[0];
        assert!(get(&store, name).await == *bytes);
        std::fs::remove_file(&ballast).unwrap();
        let bytes = noise(77 + round, 200_000);
        put_soon(&store, &format!("after-{round}"), &bytes).await;
        acknowledged.push((format!("after-{round}"), bytes));
        check(&store, &acknowledged).await;
    }
    store.close().await;
    drop(store);
    let meta = Embedded::open_with(&disk.path().join("meta"), Reserve::none()).unwrap();
    let packs = PackHome::local(disk.path().join("packs"));
    check(&Store::open(meta, packs, &Workers::new()).await.unwrap(), &acknowledged).await;
}

/// With a reserve, data is refused before the disk is full, and what makes room still goes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_reserve_keeps_room_for_deletes_and_collection() {
    let Some(disk) = SmallDisk::new(160) else { return };
    let reserve = Reserve(Some(40 * MIB));
    let store = open(disk.path(), reserve).await;
    let mut acknowledged = Vec::new();
    let refused = loop {
        let number = acknowledged.len() as u64;
        let (name, bytes) = (format!("object-{number}"), noise(number, 4_000_000));
        match put(&store, &name, &bytes).await {
            Ok(()) => acknowledged.push((name, bytes)),
            Err(error) => break error,
        }
    };
    assert!(matches!(refused, StoreError::DiskFull) && disk.free() > 30 * MIB, "{} bytes are free", disk.free());
    put(&store, "small", b"a row is enough for this").await.unwrap();
    check(&store, &[&acknowledged[..], &[("small".to_owned(), b"a row is enough for this".to_vec())]].concat()).await;
    for (name, _) in acknowledged.drain(..) {
        assert!(store.delete(&bucket(), &key(&name)).await.unwrap());
    }
    let report = store.gc(GcOptions { rounds: 4, seal: true, ..GcOptions::default() }).await.unwrap();
    assert!(report.done.freed_bytes > 50_000_000, "{report:?}");
    put(&store, "after", &noise(99, 4_000_000)).await.unwrap();
    // Where someone else fills the disk to the last mark, rows are refused too, and the engine meets no full disk.
    let ballast = disk.fill(5 * MIB);
    assert!(matches!(put(&store, "refused", b"small").await, Err(StoreError::DiskFull)));
    assert!(matches!(store.delete(&bucket(), &key("after")).await, Err(StoreError::DiskFull)));
    std::fs::remove_file(ballast).unwrap();
    put(&store, "small", b"at once").await.unwrap();
    store.close().await;
}

/// A transaction that was told to have failed has failed, also when the engine finds it in its journal again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_transaction_leaves_no_trace() {
    let Some(disk) = SmallDisk::new(96) else { return };
    let meta = Embedded::open_with(disk.path(), Reserve::none()).unwrap();
    for round in 0..8usize {
        let ballast = disk.fill(MIB / 4);
        let mut last = Vec::new();
        let refused = loop {
            let key = format!("o/{round}/{}", last.len());
            let value = Bytes::from(noise(last.len() as u64, 700 * (round + 1)));
            match meta.commit(Transaction::new().put(key.clone(), value.clone()).put("o/last", key.clone())).await {
                Ok(()) => last.push((key, value)),
                Err(error) => break (key, error),
            }
        };
        assert!(matches!(refused.1, MetaError::DiskFull), "{:?}", refused.1);
        std::fs::remove_file(ballast).unwrap();
        let started = Instant::now();
        while meta.commit(Transaction::new().put("o/again", "x")).await.is_err() {
            assert!(started.elapsed() < Duration::from_secs(20));
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert_eq!(meta.get(refused.0.as_bytes()).await.unwrap(), None);
        for (key, value) in &last {
            assert_eq!(meta.get(key.as_bytes()).await.unwrap().as_ref(), Some(value));
        }
        if let Some((key, _)) = last.last() {
            assert_eq!(meta.get(b"o/last").await.unwrap().unwrap(), key.as_bytes());
        }
    }
    meta.close().await;
}
