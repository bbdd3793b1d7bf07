//! Writers, readers and the collector at once: every object is what was last acknowledged for it, at every moment and at the end.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bedplate::store::{GcOptions, Precondition, PutRequest, StoreError};

use super::{Opened, Random, body, bucket, collect, key};

const MIB: usize = 1024 * 1024;
const WRITERS: u64 = 4;
const STEPS: usize = 60;

/// Each writer owns some keys, and takes what it writes from the same few megabytes, so that packs go in and out of use all the time.
async fn write(opened: Arc<Opened>, number: u64, base: Arc<Vec<u8>>) -> BTreeMap<String, Vec<u8>> {
    let mut random = Random(1000 + number);
    let mut model: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    let name = |n: u64| format!("w{number}/{n}");
    for _ in 0..STEPS {
        let target = name(random.below(4));
        match random.below(8) {
            0..=3 => {
                let from = random.below(base.len() as u64 - MIB as u64) as usize / 65_536 * 65_536;
                let len = random.below(MIB as u64) as usize;
                let mut bytes = base[from..from + len].to_vec();
                if random.below(2) == 0 {
                    bytes.extend(random.bytes(20_000));
                }
                opened.put(&target, &bytes).await;
                model.insert(target, bytes);
            }
            4..=5 => {
                if model.remove(&target).is_some() {
                    opened.delete(&target).await;
                }
            }
            6 => {
                let source = name(random.below(4));
                if let Some(bytes) = model.get(&source).cloned() {
                    let (from, to) = (key(&source), key(&target));
                    let (bucket, none) = (bucket(), Precondition::default());
                    opened.store.copy((&bucket, &from), (&bucket, &to), None, &none).await.unwrap();
                    model.insert(target, bytes);
                }
            }
            _ => {
                let (bucket, object) = (bucket(), key(&target));
                let upload = opened.store.create_upload(&bucket, &object, PutRequest::default()).await.unwrap();
                let from = random.below(base.len() as u64 - MIB as u64) as usize;
                let bytes = base[from..from + 300_000].to_vec();
                let part = opened.store.put_part(&bucket, &object, &upload, 1, body(&bytes), PutRequest::default());
                let named = [(1, part.await.unwrap().etag)];
                if random.below(3) == 0 {
                    opened.store.abort_upload(&bucket, &object, &upload).await.unwrap();
                } else {
                    let none = Precondition::default();
                    opened.store.complete_upload(&bucket, &object, &upload, &named, &none).await.unwrap();
                    model.insert(target, bytes);
                }
            }
        }
        if let Some((name, bytes)) = model.iter().nth(random.below(4) as usize) {
            assert!(opened.get(name).await == *bytes, "{name}");
        }
    }
    model
}

/// Reads whatever there is, slowly, until told to stop; answers how many objects it has read.
async fn read(opened: Arc<Opened>, stop: Arc<AtomicBool>) -> u64 {
    let (mut random, mut count) = (Random(77), 0);
    while !stop.load(Ordering::Relaxed) {
        let name = format!("w{}/{}", random.below(WRITERS), random.below(4));
        match opened.store.get(&bucket(), &key(&name), None).await {
            Ok((info, stream)) => {
                tokio::time::sleep(std::time::Duration::from_millis(random.below(20))).await;
                // What is read is some state of the object, whole: its bytes have the tag that was told before the first of them.
                let bytes = collect(stream).await;
                assert_eq!(bytes.len() as u64, info.size);
                count += 1;
            }
            Err(StoreError::NoSuchKey(_)) => tokio::time::sleep(std::time::Duration::from_millis(1)).await,
            Err(error) => panic!("{name}: {error}"),
        }
    }
    count
}

/// Runs beside the others, and panics where it panics.
#[expect(clippy::disallowed_methods, reason = "a test waits for each of them")]
fn task<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> tokio::task::JoinHandle<T> {
    tokio::spawn(work)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writers_and_readers_go_on_while_garbage_is_collected() {
    let dir = tempfile::tempdir().unwrap();
    let opened = Arc::new(Opened::open(dir.path()).await);
    let base = Arc::new(Random(5).bytes(6 * MIB));
    let stop = Arc::new(AtomicBool::new(false));
    let (rounds, deleted) = (AtomicU64::new(0), AtomicU64::new(0));
    let collector = async {
        while !stop.load(Ordering::Relaxed) {
            // Sealing each time makes many small packs, which are collected and repacked in turn.
            let report = opened.store.gc(GcOptions { seal: true, ..GcOptions::default() }).await.unwrap();
            assert!(report.plan.contradictions.is_empty() && report.done.rescued == 0, "{report:?}");
            rounds.fetch_add(1, Ordering::Relaxed);
            deleted.fetch_add(report.done.deleted, Ordering::Relaxed);
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    let writers = async {
        let writers = (0..WRITERS).map(|number| task(write(opened.clone(), number, base.clone())));
        let models = futures_util::future::join_all(writers).await;
        stop.store(true, Ordering::Relaxed);
        models.into_iter().flat_map(|model| model.unwrap()).collect::<BTreeMap<_, _>>()
    };
    let reader = task(read(opened.clone(), stop.clone()));
    let (model, ()) = tokio::join!(writers, collector);
    assert!(reader.await.unwrap() > 0);
    let (rounds, deleted) = (rounds.into_inner(), deleted.into_inner());
    eprintln!("{rounds} rounds, {deleted} packs deleted");
    assert!(rounds > 3 && deleted > 0, "{rounds} rounds, {deleted} packs deleted");
    for (name, bytes) in &model {
        assert!(opened.get(name).await == *bytes, "{name}");
    }
    opened.gc(10).await;
    for (name, bytes) in &model {
        assert!(opened.get(name).await == *bytes, "{name} at the end");
    }
    opened.sound().await;
    opened.tidy().await;
    // With the last object goes the last pack.
    for name in model.keys() {
        opened.delete(name).await;
    }
    opened.gc(10).await;
    assert_eq!((opened.files().len(), opened.count("c/").await, opened.count("m/").await), (0, 0, 0));
}
