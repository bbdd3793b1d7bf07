//! What uploads share: the same bytes coming in several times at once are stored once; an upload whose client sleeps holds up no
//! other; and what sharing would shred is stored again, whole, and collected like everything else.

use std::path::Path;
use std::time::Duration;

use bedplate::format::cut::Cutter;
use bedplate::meta::Embedded;
use bedplate::model::{BucketName, ObjectKey};
use bedplate::store::{ByteStream, FsckOptions, GcOptions, PackHome, PutRequest, Ration, Store};
use bedplate::sys::worker::Workers;
use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};

fn bucket() -> BucketName {
    "data-sets".parse().unwrap()
}

fn key(name: &str) -> ObjectKey {
    name.parse().unwrap()
}

async fn open(dir: &Path, ration: Ration) -> Store {
    let meta = Embedded::open(&dir.join("meta")).unwrap();
    let packs = PackHome::local(dir.join("packs")).with_ration(ration);
    let store = Store::open(meta, packs, &Workers::new()).await.unwrap();
    store.create_bucket(&bucket(), "root").await.unwrap();
    store
}

/// Bytes that nothing resembles.
fn noise(len: usize, seed: u64) -> Bytes {
    let mut bytes = vec![0; len];
    let mut digest = blake3::Hasher::new_derive_key("tests/it/sharing");
    digest.update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes.into()
}

fn body(bytes: &Bytes) -> ByteStream {
    let pieces: Vec<_> = bytes.chunks(100_000).map(|piece| Ok(bytes.slice_ref(piece))).collect();
    stream::iter(pieces).boxed()
}

async fn put(store: &Store, name: &str, bytes: &Bytes) {
    store.put(&bucket(), &key(name), body(bytes), PutRequest::default()).await.unwrap();
}

async fn get(store: &Store, name: &str) -> Vec<u8> {
    let (_, bytes) = store.get(&bucket(), &key(name), None).await.unwrap();
    bytes.try_collect::<Vec<Bytes>>().await.unwrap().concat()
}

async fn stored(store: &Store) -> u64 {
    store.stats(None).await.unwrap().stored_bytes
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_bytes_at_once_are_stored_once() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), Ration::default()).await;
    // What compresses is stored in frames, and those of different uploads begin at different chunks: each has a head of its own.
    let text = |len: usize, seed| hex::encode(noise(len, seed));
    let shared = text(12_000_000, 1);
    let objects = [10, 11, 12, 13].map(|seed| Bytes::from(text(seed as usize * 10_000, seed) + &shared));
    let names = ["a", "b", "c", "d"];
    futures_util::future::join_all(names.iter().zip(&objects).map(|(name, bytes)| put(&store, name, bytes))).await;
    let stored = stored(&store).await;
    // Without claims it is 28 MB. On a loaded machine some wait in vain.
    assert!(stored < 20_000_000, "{stored} bytes are stored of four times the same 24,000,000");
    for (name, bytes) in names.iter().zip(&objects) {
        assert!(get(&store, name).await == *bytes, "{name} came back changed");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_sleeps_holds_up_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), Ration::default()).await;
    let bytes = noise(3_000_000, 2);
    let (wake, sleeping) = tokio::sync::oneshot::channel::<()>();
    let (begin, end) = (bytes.slice(..2_000_000), bytes.slice(2_000_000..));
    // Its first chunks are claimed, and will not be packed before it wakes.
    let sleeper = stream::iter([Ok(begin)]).chain(stream::once(async move {
        sleeping.await.unwrap();
        Ok(end)
    }));
    let (bucket, slow) = (bucket(), key("slow"));
    let slow = store.put(&bucket, &slow, sleeper.boxed(), PutRequest::default());
    let fast = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        let fast = tokio::time::timeout(Duration::from_secs(20), put(&store, "fast", &bytes));
        fast.await.expect("it waits for the sleeper");
        wake.send(()).unwrap();
    };
    let (slow, ()) = tokio::join!(slow, fast);
    slow.unwrap();
    assert!(get(&store, "fast").await == bytes && get(&store, "slow").await == bytes);
}

/// Every third chunk of the bytes.
fn shred(bytes: &Bytes) -> Bytes {
    let (mut cutter, mut rest, mut chunks) = (Cutter::new(), bytes.clone(), Vec::new());
    while let Some(len) = cutter.next_cut(&rest) {
        chunks.push(rest.split_to(len));
    }
    chunks.iter().step_by(3).flatten().copied().collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_would_be_shredded_is_stored_again() {
    let bytes = noise(24_000_000, 3);
    let shreds = shred(&bytes);
    let mut grown = Vec::new();
    for chunks_per_term in [0, 4] {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path(), Ration { chunks_per_term, spare_terms: 10 }).await;
        put(&store, "whole", &bytes).await;
        store.gc(GcOptions::default()).await.unwrap();
        let before = stored(&store).await;
        put(&store, "shreds", &shreds).await;
        grown.push(stored(&store).await - before);
        assert!(get(&store, "whole").await == bytes && get(&store, "shreds").await == shreds);
        // What was stored again is found the next time.
        let before = stored(&store).await;
        put(&store, "once-more", &shreds).await;
        let more = stored(&store).await - before;
        assert!(more <= shreds.len() as u64 / 20, "{more} bytes more for the same shreds");
        store.delete(&bucket(), &key("once-more")).await.unwrap();
        // What is stored twice is collected like anything else: each in its own time.
        store.delete(&bucket(), &key("whole")).await.unwrap();
        for _ in 0..3 {
            store.gc(GcOptions::default()).await.unwrap();
        }
        assert!(get(&store, "shreds").await == shreds);
        let report = store.fsck(FsckOptions { data: true }).await.unwrap();
        assert!(report.errors.is_empty(), "{:?}", report.errors);
        store.delete(&bucket(), &key("shreds")).await.unwrap();
        for _ in 0..3 {
            store.gc(GcOptions::default()).await.unwrap();
        }
        assert_eq!(stored(&store).await, 0);
        store.close().await;
    }
    assert_eq!(grown[0], 0, "without a ration all is shared");
    let len = shreds.len() as u64;
    assert!(grown[1] > len / 2 && grown[1] < len, "{} of {len} bytes were stored again", grown[1]);
}
