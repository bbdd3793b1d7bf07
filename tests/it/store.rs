//! The store by its public calls: what is put comes back, whatever is done in between; damage is named and never served.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bedplate::format::chunk_list::ChunkList;
use bedplate::format::codec::Decoder;
use bedplate::format::cut::Cutter;
use bedplate::format::digest::{RootDigest, chunk_digest};
use bedplate::meta::Embedded;
use bedplate::model::{BucketName, ByteRange, Digest, ObjectKey};
use bedplate::store::{ByteStream, FsckOptions, ListRequest, PackHome, Precondition, PutRequest, Store, StoreError};
use bedplate::sys::worker::Workers;
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};

fn bucket() -> BucketName {
    "data-sets".parse().unwrap()
}

fn key(text: &str) -> ObjectKey {
    text.parse().unwrap()
}

/// A store in a folder, with one bucket.
async fn open(dir: &Path) -> Store {
    let meta = Embedded::open(&dir.join("meta")).unwrap();
    let store = Store::open(meta, PackHome::local(dir.join("packs")), &Workers::new()).await.unwrap();
    match store.create_bucket(&bucket(), "root").await {
        Ok(()) | Err(StoreError::BucketExists(_)) => store,
        Err(error) => panic!("{error}"),
    }
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

/// The bytes in pieces of uneven length.
fn body(bytes: &[u8]) -> ByteStream {
    let mut rest = Bytes::copy_from_slice(bytes);
    let mut pieces = Vec::new();
    let mut size = 1;
    while !rest.is_empty() {
        pieces.push(Ok(rest.split_to(size.min(rest.len()))));
        size = (size * 3 + 1) % 90_000 + 1;
    }
    stream::iter(pieces).boxed()
}

async fn put(store: &Store, name: &str, bytes: &[u8]) {
    store.put(&bucket(), &key(name), body(bytes), PutRequest::default()).await.unwrap();
}

async fn collect(mut bytes: ByteStream) -> Result<Vec<u8>, StoreError> {
    let mut all = Vec::new();
    while let Some(piece) = bytes.next().await {
        all.extend_from_slice(&piece.map_err(|error| *error.downcast::<StoreError>().unwrap())?);
    }
    Ok(all)
}

async fn get(store: &Store, name: &str, range: Option<ByteRange>) -> Result<Vec<u8>, StoreError> {
    let (_, bytes) = store.get(&bucket(), &key(name), range).await?;
    collect(bytes).await
}

/// The root digest, by a cutter that knows of no store.
fn root_of(bytes: &[u8]) -> Digest {
    let (mut cutter, mut root, mut at) = (Cutter::new(), RootDigest::new(), 0);
    while at < bytes.len() {
        let step = cutter.next_cut(&bytes[at..]).unwrap_or(bytes.len() - at);
        root.push(chunk_digest(&bytes[at..at + step]), step as u64);
        at += step;
    }
    root.finish()
}

fn packs(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for shard in std::fs::read_dir(dir.join("packs")).unwrap() {
        found.extend(std::fs::read_dir(shard.unwrap().path()).unwrap().map(|entry| entry.unwrap().path()));
    }
    found.sort();
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_put_comes_back_by_any_range() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    let mut random = Random(11);
    let noise = random.bytes(5_000_000);
    let zeros = vec![0; 3_000_000];
    let text = "the quick brown rack ".repeat(100_000).into_bytes();
    let mixed =
        [&noise[..700_000], &zeros[..1_500_000], &text[..900_000], &zeros[..10_000], &noise[..700_000]].concat();
    for (name, bytes) in [
        ("empty", vec![]),
        ("inline", noise[..8191].to_vec()),
        ("one", noise[..8192].to_vec()),
        ("noise", noise),
        ("zeros", zeros),
        ("text", text),
        ("mixed", mixed),
    ] {
        put(&store, name, &bytes).await;
        let info = store.head(&bucket(), &key(name)).await.unwrap();
        assert_eq!(info.size, bytes.len() as u64);
        assert!(get(&store, name, None).await.unwrap() == bytes, "{name}");
        for _ in 0..40 {
            let start = random.below(bytes.len() as u64 + 1);
            let end = start + random.below(bytes.len() as u64 - start + 1);
            let part = get(&store, name, Some(ByteRange { start, end })).await.unwrap();
            assert!(part == bytes[start as usize..end as usize], "{name} {start}..{end}");
        }
        let beyond = ByteRange { start: 0, end: bytes.len() as u64 + 1 };
        assert!(matches!(get(&store, name, Some(beyond)).await, Err(StoreError::InvalidRange { .. })));
    }
    let report = store.fsck(FsckOptions { data: true }).await.unwrap();
    assert_eq!((report.errors, report.orphans), (vec![], vec![]));
    assert_eq!(report.objects_checked, 7);
    store.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acknowledged_objects_survive_without_a_close() {
    let dir = tempfile::tempdir().unwrap();
    let mut model: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    let mut random = Random(5);
    for round in 0..4 {
        let store = open(dir.path()).await;
        for (name, bytes) in &model {
            assert!(get(&store, name, None).await.unwrap() == *bytes, "{name} after {round}");
        }
        let lens: Vec<usize> = (0..12).map(|_| random.below(400_000) as usize).collect();
        let fresh: Vec<(String, Vec<u8>)> =
            lens.into_iter().map(|len| (format!("object-{}", random.below(20)), random.bytes(len))).collect();
        let fresh: BTreeMap<String, Vec<u8>> = fresh.into_iter().collect();
        futures_util::future::join_all(fresh.iter().map(|(name, bytes)| put(&store, name, bytes))).await;
        model.extend(fresh);
        if let Some(name) = model.keys().next().cloned() {
            assert!(store.delete(&bucket(), &key(&name)).await.unwrap());
            model.remove(&name);
        }
        drop(store);
        // The writer ends once nobody can hand it anything; the folder's lock goes with it.
        for _ in 0..200 {
            if Embedded::open(&dir.path().join("meta")).is_ok() {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    }
    let store = open(dir.path()).await;
    let page = store.list(&bucket(), &ListRequest { limit: 1000, ..ListRequest::default() }).await.unwrap();
    assert_eq!(
        page.objects.iter().map(|o| o.key.to_string()).collect::<Vec<_>>(),
        model.keys().cloned().collect::<Vec<_>>()
    );
    let report = store.fsck(FsckOptions { data: true }).await.unwrap();
    assert_eq!(report.errors, vec![]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_copy_costs_under_one_per_cent() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    let bytes = Random(3).bytes(20_000_000);
    put(&store, "first", &bytes).await;
    let before = store.stats(None).await.unwrap();
    assert_eq!((before.objects, before.logical_bytes, before.unique_bytes), (1, 20_000_000, 20_000_000));
    put(&store, "second", &bytes).await;
    let shifted = [&b"a few bytes more"[..], &bytes].concat();
    put(&store, "shifted", &shifted).await;
    let after = store.stats(None).await.unwrap();
    assert_eq!((after.objects, after.logical_bytes), (3, 60_000_016));
    assert!(after.stored_bytes - before.stored_bytes < 200_000 * 2, "{before:?} {after:?}");
    assert!(get(&store, "shifted", None).await.unwrap() == shifted);
    assert_eq!(store.stats(Some(&bucket())).await.unwrap().unique_bytes, after.unique_bytes);
    // What nothing names any more is not unique data, and the packs keep it until it is collected.
    for name in ["first", "second", "shifted"] {
        assert!(store.delete(&bucket(), &key(name)).await.unwrap());
        assert!(!store.delete(&bucket(), &key(name)).await.unwrap());
    }
    let empty = store.stats(None).await.unwrap();
    assert_eq!((empty.objects, empty.logical_bytes, empty.unique_bytes, empty.chunks), (0, 0, 0, 0));
    assert_eq!(empty.stored_bytes, after.stored_bytes);
    store.delete_bucket(&bucket()).await.unwrap();
    assert!(matches!(store.bucket(&bucket()).await, Err(StoreError::NoSuchBucket(_))));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flipped_bit_is_named_and_never_served() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    let bytes = Random(9).bytes(6_000_000);
    put(&store, "victim", &bytes).await;
    put(&store, "text", &b"compressible ".repeat(200_000)).await;
    store.close().await;
    drop(store);
    let list_before = packs(dir.path());
    for path in &list_before {
        let mut pack = std::fs::read(path).unwrap();
        // Within the chunks of the victim.
        pack[2_000_000] ^= 0x10;
        std::fs::write(path, pack).unwrap();
    }
    let store = open(dir.path()).await;
    let Err(StoreError::Corrupt { pack, chunk, .. }) = get(&store, "victim", None).await else {
        panic!("damage was served");
    };
    let report = store.fsck(FsckOptions { data: true }).await.unwrap();
    assert!(report.errors.iter().any(|e| e.pack == Some(pack) && e.chunk == Some(chunk) && e.object.is_none()));
    let object = Some("data-sets/victim".to_owned());
    assert!(report.errors.iter().any(|e| e.pack == Some(pack) && e.chunk == Some(chunk) && e.object == object));
    // What is known to be damaged is not trusted: the same bytes put again are stored again, and come back.
    put(&store, "again", &bytes).await;
    assert!(get(&store, "again", None).await.unwrap() == bytes);
    assert!(matches!(get(&store, "victim", None).await, Err(StoreError::Corrupt { .. })));
    // Without reading the data, a check tells what is known, and finds what is missing or does not agree.
    assert_eq!(store.fsck(FsckOptions::default()).await.unwrap().errors, report.errors);
    std::fs::remove_file(&list_before[0]).unwrap();
    let report = store.fsck(FsckOptions::default()).await.unwrap();
    assert!(report.errors.iter().any(|error| error.what.contains("missing")));
    assert!(report.errors.iter().any(|error| error.object.is_some()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_directory_and_an_orphan_are_found() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    put(&store, "victim", &Random(2).bytes(300_000)).await;
    store.close().await;
    drop(store);
    let store = open(dir.path()).await;
    let path = packs(dir.path()).remove(0);
    let mut pack = std::fs::read(&path).unwrap();
    // A pack that a crash left behind, before its row was written.
    let orphan = dir.path().join("packs/00/00000000000000000000000000000000.pack");
    std::fs::create_dir_all(orphan.parent().unwrap()).unwrap();
    std::fs::write(&orphan, &pack).unwrap();
    let at = pack.len() - 200;
    pack[at] ^= 1;
    std::fs::write(&path, pack).unwrap();
    assert!(matches!(get(&store, "victim", None).await, Err(StoreError::Corrupt { .. })));
    let report = store.fsck(FsckOptions::default()).await.unwrap();
    assert_eq!(report.orphans.len(), 1);
    assert!(report.errors.iter().any(|error| error.what.contains("directory") && error.pack.is_some()));
    // The check has taken its chunks out of the index: the object can be put again.
    put(&store, "victim", &Random(2).bytes(300_000)).await;
    assert!(get(&store, "victim", None).await.unwrap() == Random(2).bytes(300_000));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn conditions_hold_and_broken_bodies_leave_no_trace() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    let request = |precondition: Precondition| PutRequest { precondition, ..PutRequest::default() };
    let create = || request(Precondition { if_none_match_any: true, ..Precondition::default() });
    let matching = |etag: &str| request(Precondition { if_match: Some(etag.to_owned()), ..Precondition::default() });
    let puts = (0..8).map(|n: u8| {
        let (store, request) = (store.clone(), create());
        async move { store.put(&bucket(), &key("once"), body(&vec![n; 50_000]), request).await }
    });
    let outcomes = futures_util::future::join_all(puts).await;
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 1);
    let info = store.head(&bucket(), &key("once")).await.unwrap();
    let refused = store.put(&bucket(), &key("once"), body(b"x"), matching("nonsense")).await;
    assert!(matches!(refused, Err(StoreError::PreconditionFailed)));
    let absent = store.put(&bucket(), &key("absent"), body(b"x"), matching("*")).await;
    assert!(matches!(absent, Err(StoreError::NoSuchKey(_))));
    store.put(&bucket(), &key("once"), body(b"x"), matching(&info.etag)).await.unwrap();
    let broken: ByteStream =
        stream::iter([Ok(Bytes::from(vec![7; 2_000_000])), Err("the client went away".into())]).boxed();
    let outcome = store.put(&bucket(), &key("broken"), broken, PutRequest::default()).await;
    assert!(matches!(outcome, Err(StoreError::Body(_))));
    let short = PutRequest { expected_bytes: Some(11), ..PutRequest::default() };
    let outcome = store.put(&bucket(), &key("broken"), body(b"ten bytes!"), short).await;
    assert!(matches!(outcome, Err(StoreError::IncompleteBody { expected: 11, received: 10 })));
    let wrong = PutRequest { expected_md5: Some([0; 16]), ..PutRequest::default() };
    let outcome = store.put(&bucket(), &key("broken"), body(&vec![1; 100_000]), wrong).await;
    assert!(matches!(outcome, Err(StoreError::BadDigest)));
    assert!(matches!(store.head(&bucket(), &key("broken")).await, Err(StoreError::NoSuchKey(_))));
    let nowhere: BucketName = "no-such-bucket".parse().unwrap();
    let outcome = store.put(&nowhere, &key("x"), body(b"x"), PutRequest::default()).await;
    assert!(matches!(outcome, Err(StoreError::NoSuchBucket(_))));
    assert!(matches!(store.delete_bucket(&bucket()).await, Err(StoreError::BucketNotEmpty(_))));
    put(&store, "still-open", b"the refusal changed nothing").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parts_join_in_order_and_rules_hold() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    let mut random = Random(21);
    let big = random.bytes(5 * 1024 * 1024 + 17);
    let small = random.bytes(1000);
    let name = key("joined");
    let headers = BTreeMap::from([("x-amz-meta-a".to_owned(), "b".to_owned())]);
    let request = PutRequest { headers: headers.clone(), ..PutRequest::default() };
    let upload = store.create_upload(&bucket(), &name, request).await.unwrap();
    let part = |number: u32, bytes: Vec<u8>| {
        let (store, name) = (store.clone(), name.clone());
        async move {
            let part = store.put_part(&bucket(), &name, &upload, number, body(&bytes), PutRequest::default()).await;
            part.unwrap().etag
        }
    };
    let (third, first, _, second) = (
        part(9, small.clone()).await,
        part(1, big.clone()).await,
        part(5, small.clone()).await,
        part(5, big.clone()).await,
    );
    let complete = async |parts: &[(u32, &String)]| {
        let parts: Vec<(u32, String)> = parts.iter().map(|(number, etag)| (*number, (*etag).clone())).collect();
        store.complete_upload(&bucket(), &name, &upload, &parts, &Precondition::default()).await
    };
    assert!(matches!(complete(&[(5, &second), (1, &first)]).await, Err(StoreError::InvalidPartOrder)));
    assert!(matches!(complete(&[(1, &third)]).await, Err(StoreError::InvalidPart { number: 1 })));
    assert!(matches!(complete(&[(2, &first)]).await, Err(StoreError::InvalidPart { number: 2 })));
    assert_eq!(store.list_parts(&bucket(), &name, &upload).await.unwrap().len(), 3);
    assert_eq!(store.list_uploads(&bucket()).await.unwrap()[0].id, upload);
    let info = complete(&[(1, &first), (5, &second), (9, &third)]).await.unwrap();
    assert!(info.etag.ends_with("-3") && info.parts == Some(3) && info.headers == headers);
    let whole = [&big[..], &big, &small].concat();
    assert_eq!(info.root_digest, Some(root_of(&whole)), "the seams are cut as if the object had come in one piece");
    assert!(get(&store, "joined", None).await.unwrap() == whole);
    let range = ByteRange { start: big.len() as u64 - 5, end: big.len() as u64 + 70_000 };
    assert!(get(&store, "joined", Some(range)).await.unwrap() == whole[range.start as usize..range.end as usize]);
    assert!(matches!(complete(&[(1, &first)]).await, Err(StoreError::NoSuchUpload(_))));
    assert_eq!(store.list_uploads(&bucket()).await.unwrap(), vec![]);

    let upload = store.create_upload(&bucket(), &name, PutRequest::default()).await.unwrap();
    for number in [1, 2] {
        store.put_part(&bucket(), &name, &upload, number, body(&small), PutRequest::default()).await.unwrap();
    }
    let etag = store.list_parts(&bucket(), &name, &upload).await.unwrap()[0].etag.clone();
    let parts = [(1, etag.clone()), (2, etag)];
    let outcome = store.complete_upload(&bucket(), &name, &upload, &parts, &Precondition::default()).await;
    assert!(matches!(outcome, Err(StoreError::EntityTooSmall { number: 1, size: 1000 })));
    store.abort_upload(&bucket(), &name, &upload).await.unwrap();
    assert!(matches!(store.abort_upload(&bucket(), &name, &upload).await, Err(StoreError::NoSuchUpload(_))));
    assert_eq!(store.fsck(FsckOptions { data: true }).await.unwrap().errors, vec![]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_resembles_the_stored_is_cut_as_if_it_were_new() {
    // Guessing saves work and must not be seen in what is stored: each copy, changed in a way of its own, has the root
    // digest of a cutter that knows of no store, comes back, and costs little.
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    let mut random = Random(77);
    let (first, other) = (random.bytes(9_000_000), random.bytes(300_000));
    let zeros = vec![0; 1_000_000];
    put(&store, "first", &first).await;
    store.close().await;
    drop(store);
    let store = open(dir.path()).await;
    for (name, bytes) in [
        ("the same", first.clone()),
        ("cut short", first[..5_000_123].to_vec()),
        ("goes on", [&first[..], &other].concat()),
        ("goes on after a short end", [&first[..5_000_123], &other, &first].concat()),
        ("inserted", [&first[..3_333_333], b"a few bytes", &first[3_333_333..]].concat()),
        ("twice, with zeros", [&first[..], &zeros, &first, &zeros, &first[..70_000]].concat()),
        ("backwards", first.chunks(1_000_000).rev().flatten().copied().collect()),
    ] {
        put(&store, name, &bytes).await;
        let info = store.head(&bucket(), &key(name)).await.unwrap();
        assert_eq!(info.root_digest, Some(root_of(&bytes)), "{name}");
        assert!(get(&store, name, None).await.unwrap() == bytes, "{name}");
    }
    let stats = store.stats(None).await.unwrap();
    assert!(stats.unique_bytes < 9_000_000 + 3_000_000, "{stats:?}");
    assert_eq!(store.fsck(FsckOptions { data: true }).await.unwrap().errors, vec![]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn seams_of_any_parts_are_cut_as_if_there_were_none() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    let mut random = Random(78);
    let noise = random.bytes(6_000_000);
    let zeros = vec![0; 5_300_000];
    for (name, parts) in [
        ("noise", vec![&noise[..5_500_000], &noise[..5_242_880], &noise[100..6_000_000], &noise[..1]]),
        ("zeros", vec![&zeros[..], &zeros, &noise[..5_500_000], &zeros, &zeros[..3]]),
        ("tiny ends", vec![&noise[..5_242_881], &[]]),
    ] {
        let upload = store.create_upload(&bucket(), &key(name), PutRequest::default()).await.unwrap();
        let mut named = Vec::new();
        for (number, part) in (1..).zip(&parts) {
            let part = store.put_part(&bucket(), &key(name), &upload, number, body(part), PutRequest::default()).await;
            named.push((number, part.unwrap().etag));
        }
        let info =
            store.complete_upload(&bucket(), &key(name), &upload, &named, &Precondition::default()).await.unwrap();
        let whole = parts.concat();
        assert_eq!(info.root_digest, Some(root_of(&whole)), "{name}");
        assert!(get(&store, name, None).await.unwrap() == whole, "{name}");
        let before = store.stats(None).await.unwrap().unique_bytes;
        put(&store, &format!("{name} in one piece"), &whole).await;
        assert_eq!(store.stats(None).await.unwrap().unique_bytes, before, "{name} in one piece has the same chunks");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn listing_pages_groups_and_skips() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    let mut names: Vec<String> = (0..150).map(|n| format!("a/{n:03}")).collect();
    names.extend((0..30).map(|n| format!("b/{}/{n}", n % 3)));
    names.extend(["a", "a!", "ä/ü", "z"].map(str::to_owned));
    futures_util::future::join_all(names.iter().map(|name| put(&store, name, b"x"))).await;
    names.sort();
    for delimiter in [None, Some("/".to_owned()), Some("0".to_owned())] {
        for prefix in ["", "a", "a/", "b/", "b/1", "none"] {
            for limit in [1, 3, 7, 1000] {
                let (mut seen, mut after) = (Vec::new(), None);
                loop {
                    let (prefix, delimiter) = (prefix.to_owned(), delimiter.clone());
                    let request = ListRequest { prefix, delimiter, start_after: after, limit };
                    let page = store.list(&bucket(), &request).await.unwrap();
                    assert!(page.objects.len() + page.prefixes.len() <= limit);
                    seen.extend(page.objects.iter().map(|object| object.key.to_string()));
                    seen.extend(page.prefixes);
                    after = page.next;
                    if after.is_none() {
                        break;
                    }
                }
                seen.sort();
                let mut expected: Vec<String> = names
                    .iter()
                    .filter_map(|name| {
                        let rest = name.strip_prefix(prefix)?;
                        let group = delimiter.as_ref().and_then(|d| rest.find(d.as_str()).map(|at| at + d.len()));
                        Some(group.map_or(name.clone(), |end| name[..prefix.len() + end].to_owned()))
                    })
                    .collect();
                expected.dedup();
                assert_eq!(seen, expected, "{prefix:?} {delimiter:?} {limit}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_image_is_pulled_by_its_chunk_list() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    let images = BucketName::images();
    store.create_bucket(&images, "root").await.unwrap();
    let mut random = Random(31);
    let image = [random.bytes(900_000), vec![0; 4_000_000], b"text ".repeat(100_000), vec![0; 1_000_000]].concat();
    for (name, bytes) in [("disk@1", &image[..]), ("tiny@1", b"short"), ("empty@1", b"")] {
        store.put(&images, &key(name), body(bytes), PutRequest::default()).await.unwrap();
        let list = store.chunk_list(&images, &key(name)).await.unwrap();
        let list = ChunkList::decode(&list.encode()).unwrap();
        assert_eq!(Some(list.root_digest), store.head(&images, &key(name)).await.unwrap().root_digest);
        let mut pulled = Vec::new();
        for chunk in &list.chunks {
            let range = ByteRange { start: chunk.offset, end: chunk.offset + u64::from(chunk.stored_len) };
            let stored = store.read_pack(list.packs[chunk.pack as usize], range).await.unwrap();
            let raw = Decoder::new().chunk(chunk.offset, chunk.codec, &stored, chunk.within, chunk.raw_len).unwrap();
            assert_eq!(chunk_digest(&raw), chunk.digest);
            pulled.extend_from_slice(&raw);
        }
        assert!(pulled == bytes, "{name}");
    }
    let copied = key("disk@2");
    store.copy((&images, &key("disk@1")), (&images, &copied), None, &Precondition::default()).await.unwrap();
    let (first, second) =
        (store.chunk_list(&images, &key("disk@1")).await.unwrap(), store.chunk_list(&images, &copied).await.unwrap());
    assert_eq!(first, second);
}

/// Random operations against a plain map, many at once, across restarts; the store and the map agree at the end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_operations_agree_with_a_map() {
    let dir = tempfile::tempdir().unwrap();
    let mut random = Random(77);
    let mut model: BTreeMap<String, Arc<Vec<u8>>> = BTreeMap::new();
    let base = random.bytes(3_000_000);
    for round in 0..3 {
        let store = open(dir.path()).await;
        for _ in 0..60 {
            let name = format!("k{}", random.below(12));
            match random.below(10) {
                0..=4 => {
                    let from = random.below(2_000_000) as usize;
                    let len = random.below(900_000) as usize;
                    let mut bytes = base[from..from + len].to_vec();
                    if let Some(byte) = bytes.get_mut(len / 2) {
                        *byte ^= random.next() as u8;
                    }
                    put(&store, &name, &bytes).await;
                    model.insert(name, Arc::new(bytes));
                }
                5 => {
                    let existed = store.delete(&bucket(), &key(&name)).await.unwrap();
                    assert_eq!(existed, model.remove(&name).is_some());
                }
                6 => {
                    let to = format!("k{}", random.below(12));
                    let (from, target) = (key(&name), key(&to));
                    let outcome =
                        store.copy((&bucket(), &from), (&bucket(), &target), None, &Precondition::default()).await;
                    match model.get(&name).cloned() {
                        Some(bytes) => drop((outcome.unwrap(), model.insert(to, bytes))),
                        None => assert!(matches!(outcome, Err(StoreError::NoSuchKey(_)))),
                    }
                }
                _ => match model.get(&name) {
                    Some(bytes) => {
                        let start = random.below(bytes.len() as u64 + 1);
                        let end = start + random.below(bytes.len() as u64 - start + 1);
                        let found = get(&store, &name, Some(ByteRange { start, end })).await.unwrap();
                        assert!(found == bytes[start as usize..end as usize], "{name} {start}..{end}");
                    }
                    None => assert!(matches!(get(&store, &name, None).await, Err(StoreError::NoSuchKey(_)))),
                },
            }
        }
        let stats = store.stats(None).await.unwrap();
        assert_eq!(stats.objects, model.len() as u64);
        assert_eq!(stats.logical_bytes, model.values().map(|bytes| bytes.len() as u64).sum::<u64>());
        assert!(stats.unique_bytes <= stats.logical_bytes && stats.unique_bytes <= 4_000_000 * (round + 1));
        assert_eq!(store.fsck(FsckOptions { data: true }).await.unwrap().errors, vec![]);
        store.close().await;
    }
}
