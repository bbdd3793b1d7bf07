//! Garbage collection beside a push: what was known may have gone when it is referred to, which is told; what a push that is under way
//! has found stays until it ends.

use bedplate::format::digest::{RootDigest, chunk_digest};
use bedplate::format::push::{Named, Record, Reference};
use bedplate::meta::Embedded;
use bedplate::model::{BucketName, Digest, ObjectKey};
use bedplate::store::{BoxError, GcOptions, Given, PackHome, PutRequest, Store, StoreError};
use bedplate::sys::worker::Workers;
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};

use super::*;

async fn open(dir: &Path) -> (Store, Workers) {
    let workers = Workers::new();
    let meta = Embedded::open(&dir.join("meta")).unwrap();
    let store = Store::open(meta, PackHome::local(dir.join("packs")), &workers).await.unwrap();
    store.create_bucket(&bucket(), "root").await.unwrap();
    (store, workers)
}

fn bucket() -> BucketName {
    "data".parse().unwrap()
}

fn key(name: &str) -> ObjectKey {
    name.parse().unwrap()
}

async fn collect(store: &Store) {
    let report = store.gc(GcOptions { rounds: 20, seal: true, ..GcOptions::default() }).await.unwrap();
    assert_eq!(report.done.failures, Vec::<String>::new());
}

async fn content(store: &Store, name: &str) -> Vec<u8> {
    let (_, mut bytes) = store.get(&bucket(), &key(name), None).await.unwrap();
    let mut all = Vec::new();
    while let Some(piece) = bytes.next().await {
        all.extend_from_slice(&piece.unwrap());
    }
    all
}

/// Chunks of 64 KiB that do not compress.
fn chunks(seed: u64, count: usize) -> Vec<Bytes> {
    (0..count).map(|n| Bytes::from(noise(seed + n as u64, 65_536))).collect()
}

fn digests(chunks: &[Bytes]) -> Vec<Digest> {
    chunks.iter().map(|chunk| chunk_digest(chunk)).collect()
}

fn named(chunk: &Bytes) -> Named {
    Named { digest: chunk_digest(chunk), len: chunk.len() as u32 }
}

fn references(chunks: &[Bytes]) -> Record {
    Record::References(chunks.iter().map(|chunk| Reference { chunk: named(chunk), proof: None }).collect())
}

fn along(chunk: &Bytes) -> Record {
    Record::Frame { chunks: vec![named(chunk)], codec: bedplate::format::codec::Codec::Raw, stored: chunk.clone() }
}

fn end(chunks: &[Bytes]) -> Record {
    let mut root = RootDigest::new();
    chunks.iter().for_each(|chunk| root.push(chunk_digest(chunk), chunk.len() as u64));
    Record::End { size: chunks.iter().map(|chunk| chunk.len() as u64).sum(), root_digest: root.finish() }
}

fn given(records: Vec<Record>) -> Given {
    Given { records: stream::iter(records.into_iter().map(Ok::<_, BoxError>)).boxed(), prove: None, base: None }
}

async fn push(store: &Store, name: &str, records: Vec<Record>) -> Result<(), StoreError> {
    store.put_given(&bucket(), &key(name), given(records), PutRequest::default()).await.map(drop)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_collected_after_the_question_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let (store, workers) = open(dir.path()).await;
    let all = chunks(100, 40);
    push(&store, "first", all.iter().map(along).chain([end(&all)]).collect()).await.unwrap();
    assert!(content(&store, "first").await == all.concat());
    let known = digests(&all);
    assert_eq!(store.known_chunks(&known).await.unwrap(), vec![true; 40]);
    store.delete(&bucket(), &key("first")).await.unwrap();
    collect(&store).await;
    let missing = push(&store, "second", vec![references(&all), end(&all)]).await;
    let Err(StoreError::MissingChunks(missing)) = missing else { panic!("{missing:?}") };
    assert_eq!(missing, known);
    assert!(matches!(store.head(&bucket(), &key("second")).await, Err(StoreError::NoSuchKey(_))));
    assert_eq!(store.known_chunks(&known).await.unwrap(), vec![false; 40]);
    // Some come along, and some are named again after they came.
    let records = all.iter().map(along).chain([references(&all[..5]), end(&[&all[..], &all[..5]].concat())]);
    push(&store, "second", records.collect()).await.unwrap();
    assert!(content(&store, "second").await == [all.concat(), all[..5].concat()].concat());
    store.close().await;
    workers.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_push_has_found_stays_until_it_ends() {
    let dir = tempfile::tempdir().unwrap();
    let (store, workers) = open(dir.path()).await;
    // As short as chunks may be, so that there are many.
    let old: Vec<Bytes> = (0..3_000).map(|n| Bytes::from(noise(200 + n, 8_192))).collect();
    push(&store, "old", old.iter().map(along).chain([end(&old)]).collect()).await.unwrap();
    let new = chunks(9_000, 4);
    let all = [&old[..], &new[..]].concat();
    // The references are found while the last record waits; meanwhile the object goes, and so does all that is garbage.
    let (go, wait) = tokio::sync::oneshot::channel::<()>();
    let (found, reached) = tokio::sync::oneshot::channel::<()>();
    let first: Vec<Record> = old.chunks(1_000).map(references).chain(new.iter().map(along)).collect();
    let last = end(&all);
    let records = stream::iter(first).chain(stream::once(async move {
        let _ = found.send(());
        drop(wait.await);
        last
    }));
    let given = Given { records: records.map(Ok::<_, BoxError>).boxed(), prove: None, base: None };
    let (home, name) = (bucket(), key("new"));
    let pushing = store.put_given(&home, &name, given, PutRequest::default());
    let meanwhile = async {
        reached.await.unwrap();
        store.delete(&bucket(), &key("old")).await.unwrap();
        collect(&store).await;
        go.send(()).unwrap();
    };
    let (pushed, ()) = tokio::join!(pushing, meanwhile);
    pushed.unwrap();
    collect(&store).await;
    assert!(content(&store, "new").await == all.concat());
    store.close().await;
    workers.stop().await;
}

/// Pushes that name what others wrote, beside deletes and collections: each ends with its object whole, or says what is missing.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[expect(clippy::disallowed_methods, reason = "a test waits for each of them")]
async fn pushes_beside_deletes_and_collections_lose_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (store, workers) = open(dir.path()).await;
    let all = Arc::new(chunks(500, 60));
    let pushers: Vec<_> = (0..3)
        .map(|writer| {
            let (store, all) = (store.clone(), all.clone());
            tokio::spawn(async move {
                let name = format!("object-{writer}");
                let mut refused = 0;
                for round in 0..25 {
                    let some = &all[(writer * 7 + round) % 30..][..30];
                    let known = store.known_chunks(&digests(some)).await.unwrap();
                    let mut lacking: Vec<bool> = known.iter().map(|known| !known).collect();
                    loop {
                        let records = some.iter().zip(&lacking).map(|(chunk, lacks)| {
                            if *lacks { along(chunk) } else { references(std::slice::from_ref(chunk)) }
                        });
                        match push(&store, &name, records.chain([end(some)]).collect()).await {
                            Ok(()) => break,
                            Err(StoreError::MissingChunks(missing)) => {
                                refused += 1;
                                for (chunk, lacks) in some.iter().zip(&mut lacking) {
                                    *lacks |= missing.contains(&chunk_digest(chunk));
                                }
                            }
                            Err(error) => panic!("{error:?}"),
                        }
                    }
                    assert!(content(&store, &name).await == some.concat(), "{name}, round {round}");
                    store.delete(&bucket(), &key(&name)).await.unwrap();
                }
                refused
            })
        })
        .collect();
    while !pushers.iter().all(tokio::task::JoinHandle::is_finished) {
        collect(&store).await;
    }
    for pusher in pushers {
        println!("{} pushes were told what is missing", pusher.await.unwrap());
    }
    store.close().await;
    workers.stop().await;
}

/// However known chunks are named and brought beside each other, in an order that eats up the ration of sharing, each chunk of every pack
/// stays readable: after the store was opened anew, too, when nothing but what is on the disk is left of them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_named_beside_what_came_along_is_readable() {
    let dir = tempfile::tempdir().unwrap();
    let (store, workers) = open(dir.path()).await;
    let old: Vec<Bytes> = (0..1_700).map(|n| Bytes::from(noise(50_000 + n, 8_192))).collect();
    push(&store, "old", old.iter().map(along).chain([end(&old)]).collect()).await.unwrap();
    let new = |n: u64| Bytes::from(noise(90_000 + n, 8_192));
    // Singles eat up the ration; then two runs, of which the first chunk comes along and the second is named.
    let mut given: Vec<(Bytes, bool)> = (0..127).map(|n| (old[n * 10].clone(), true)).collect();
    given.extend([(new(0), true), (old[1_500].clone(), true), (old[1_501].clone(), true), (new(1), true)]);
    given.extend([(old[1_600].clone(), true), (old[1_601].clone(), false)]);
    let mut all = vec![("half".to_owned(), given)];
    for seed in 0..24u64 {
        let dice = noise(seed + 1, 2_400);
        let (mut given, mut at) = (Vec::new(), 0);
        for dice in dice.chunks_exact(4) {
            // Half of them go on where the last one was.
            at = if dice[0] < 128 { at + 1 } else { usize::from(dice[1]) * 6 + usize::from(dice[2]) % 6 };
            let chunk = if dice[3] < 10 { new(seed * 1_000 + at as u64) } else { old[at % old.len()].clone() };
            given.push((chunk, dice[3] < 10 || dice[3] > 130));
        }
        all.push((format!("dice-{seed}"), given));
    }
    for (name, given) in &all {
        let chunks: Vec<Bytes> = given.iter().map(|(chunk, _)| chunk.clone()).collect();
        let record = |(chunk, comes): &(Bytes, bool)| {
            if *comes { along(chunk) } else { references(std::slice::from_ref(chunk)) }
        };
        push(&store, name, given.iter().map(record).chain([end(&chunks)]).collect()).await.unwrap();
    }
    store.close().await;
    workers.stop().await;
    drop(store);
    let workers = Workers::new();
    let meta = Embedded::open(&dir.path().join("meta")).unwrap();
    let store = Store::open(meta, PackHome::local(dir.path().join("packs")), &workers).await.unwrap();
    for (name, given) in &all {
        let wanted: Vec<u8> = given.iter().flat_map(|(chunk, _)| chunk.iter().copied()).collect();
        assert!(content(&store, name).await == wanted, "{name}");
    }
    assert!(content(&store, "old").await == old.concat());
    store.close().await;
    workers.stop().await;
}
