//! Versions against a plain model: whatever is put, deleted, removed, copied, collected and reopened, every version that should be there
//! reads back, in the right order, and none that should not; and of writers that race for one key none loses what it was told is kept.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::support::rows::{Meddle, Meddled};
use crate::support::stepped::{Call, Stepped};
use bedplate::meta::{Embedded, Meta};
use bedplate::model::{BucketName, ObjectKey, VersionId, Versioning};
use bedplate::store::{
    ByteStream, DeleteRequest, FsckOptions, GcOptions, ListRequest, PackHome, Precondition, PutRequest, Store,
    StoreError, VersionListRequest,
};
use bedplate::sys::worker::Workers;
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};

fn bucket() -> BucketName {
    "versions".parse().unwrap()
}

fn key(text: &str) -> ObjectKey {
    text.parse().unwrap()
}

async fn open(dir: &Path) -> (Store, Workers) {
    open_over(Embedded::open(&dir.join("meta")).unwrap(), dir).await
}

async fn open_over(meta: Arc<dyn Meta>, dir: &Path) -> (Store, Workers) {
    let workers = Workers::new();
    (Store::open(meta, PackHome::local(dir.join("packs")), &workers).await.unwrap(), workers)
}

fn body(bytes: &[u8]) -> ByteStream {
    stream::iter([Ok(Bytes::copy_from_slice(bytes))]).boxed()
}

async fn read(mut bytes: ByteStream) -> Vec<u8> {
    let mut all = Vec::new();
    while let Some(piece) = bytes.next().await {
        all.extend_from_slice(&piece.unwrap());
    }
    all
}

/// Random numbers that are the same on each run.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }

    /// Small enough for its row, long enough for chunks, or of many terms.
    fn content(&mut self, number: u64) -> Vec<u8> {
        let len = [40, 9_000, 300_000][self.below(3) as usize];
        number
            .to_le_bytes()
            .iter()
            .copied()
            .cycle()
            .zip(0u64..len)
            .map(|(byte, at)| byte ^ (at / 8 % 251) as u8)
            .collect()
    }
}

/// A version as the model knows it: its id, and its content where it is no marker.
type Kept = (VersionId, Option<Vec<u8>>);

/// Versions of each key, the newest first.
#[derive(Default)]
struct Model {
    keys: BTreeMap<String, Vec<Kept>>,
    versioning: Versioning,
}

impl Model {
    fn write(&mut self, name: &str, id: VersionId, content: Option<Vec<u8>>) {
        let versions = self.keys.entry(name.to_owned()).or_default();
        if id == VersionId::Null {
            versions.retain(|(there, _)| *there != VersionId::Null);
        }
        versions.insert(0, (id, content));
    }

    fn current(&self, name: &str) -> Option<&Vec<u8>> {
        self.keys.get(name)?.first()?.1.as_ref()
    }
}

/// The store must be as the model says, by every way of looking at it.
async fn compare(store: &Store, model: &Model, random: &mut Random) {
    let mut expected = Vec::new();
    for (name, versions) in &model.keys {
        for (at, (id, content)) in versions.iter().enumerate() {
            expected.push((name.clone(), *id, content.is_none(), at == 0));
            match (store.get_version(&bucket(), &key(name), Some(*id), None).await, content) {
                (Ok((info, bytes)), Some(content)) => {
                    assert!(read(bytes).await == *content, "{name} {id} reads back different");
                    assert_eq!(info.version.id(), *id);
                }
                (Err(StoreError::DeleteMarker { named: true, .. }), None) => {}
                (other, _) => panic!("{name} {id}: {:?}", other.map(|(info, _)| info)),
            }
        }
        match (store.get(&bucket(), &key(name), None).await, model.current(name)) {
            (Ok((_, bytes)), Some(content)) => assert!(read(bytes).await == *content),
            (Err(StoreError::DeleteMarker { named: false, .. } | StoreError::NoSuchKey(_)), None) => {}
            (other, _) => panic!("{name}: {:?}", other.map(|(info, _)| info)),
        }
    }
    let mut found = Vec::new();
    let mut request = VersionListRequest { limit: 1 + random.below(5) as usize, ..VersionListRequest::default() };
    loop {
        let page = store.list_versions(&bucket(), &request).await.unwrap();
        let versions = page.versions.iter();
        found.extend(versions.map(|v| (v.info.key.to_string(), v.info.version.id(), v.info.marker, v.latest)));
        let Some((after, id)) = page.next else { break };
        (request.key_after, request.version_after) = (Some(after), id);
    }
    assert_eq!(found, expected);
    let listed = store.list(&bucket(), &ListRequest { limit: 1_000, ..ListRequest::default() }).await.unwrap();
    let listed: Vec<_> = listed.objects.iter().map(|info| info.key.to_string()).collect();
    let current: Vec<_> = model.keys.keys().filter(|name| model.current(name).is_some()).cloned().collect();
    assert_eq!(listed, current);
}

async fn step(store: &Store, model: &mut Model, random: &mut Random, number: u64) {
    let names = ["a", "a\0", "a/b", "b", "ü"];
    let name = names[random.below(names.len() as u64) as usize];
    let kept = |model: &Model, random: &mut Random| {
        let versions = model.keys.get(name).filter(|versions| !versions.is_empty())?;
        Some(versions[random.below(versions.len() as u64) as usize].clone())
    };
    match random.below(10) {
        0..=3 => {
            let content = random.content(number);
            let put = store.put(&bucket(), &key(name), body(&content), PutRequest::default()).await.unwrap();
            model.write(name, put.version.id(), Some(content));
        }
        4 => {
            let deleted = store.delete_as(&bucket(), &key(name), &DeleteRequest::default()).await.unwrap();
            assert_eq!(deleted.existed, model.current(name).is_some());
            match deleted.version {
                Some(id) => model.write(name, id, None),
                None => drop(model.keys.remove(name)),
            }
        }
        5 | 6 => {
            let Some((id, content)) = kept(model, random) else { return };
            let request = DeleteRequest { version: Some(id), ..DeleteRequest::default() };
            let deleted = store.delete_as(&bucket(), &key(name), &request).await.unwrap();
            assert!(deleted.existed && deleted.marker == content.is_none());
            let versions = model.keys.get_mut(name).unwrap();
            versions.retain(|(there, _)| *there != id);
            if versions.is_empty() {
                model.keys.remove(name);
            }
        }
        7 => {
            let Some((id, Some(content))) = kept(model, random) else { return };
            let target = names[random.below(names.len() as u64) as usize];
            let (from, to) = (key(name), key(target));
            let none = Precondition::default();
            let copied = store
                .copy_version(
                    (&bucket(), &from, Some(id)),
                    (&bucket(), &to),
                    |source| Ok(PutRequest::like(source)),
                    &none,
                )
                .await
                .unwrap();
            model.write(target, copied.version.id(), Some(content));
        }
        8 => {
            let wanted = if random.below(3) == 0 { Versioning::Suspended } else { Versioning::Enabled };
            store.set_versioning(&bucket(), wanted).await.unwrap();
            model.versioning = wanted;
        }
        _ => drop(store.gc(GcOptions { seal: true, rounds: 2, ..GcOptions::default() }).await.unwrap()),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn versions_are_as_a_model_says() {
    for seed in 1..=6u64 {
        let dir = tempfile::tempdir().unwrap();
        let (mut store, mut workers) = open(dir.path()).await;
        store.create_bucket(&bucket(), "root").await.unwrap();
        let (mut model, mut random) = (Model::default(), Random(0x9e37_79b9_7f4a_7c15u64.wrapping_mul(seed)));
        for number in 0..120 {
            step(&store, &mut model, &mut random, number).await;
            if number % 30 == 29 {
                store.close().await;
                drop(store);
                workers.stop().await;
                (store, workers) = open(dir.path()).await;
                compare(&store, &model, &mut random).await;
            }
        }
        let report = store.fsck(FsckOptions { data: true }).await.unwrap();
        assert_eq!(report.errors, []);
        let stats = store.stats(Some(&bucket())).await.unwrap();
        let contents: Vec<_> = model.keys.values().flatten().filter_map(|(_, content)| content.as_ref()).collect();
        assert_eq!(stats.objects, contents.len() as u64);
        assert_eq!(stats.logical_bytes, contents.iter().map(|content| content.len() as u64).sum::<u64>());
        for (name, versions) in &model.keys {
            for (id, _) in versions {
                let request = DeleteRequest { version: Some(*id), ..DeleteRequest::default() };
                store.delete_as(&bucket(), &key(name), &request).await.unwrap();
            }
        }
        store.delete_bucket(&bucket()).await.unwrap();
        store.close().await;
        workers.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writers_that_race_for_a_key_lose_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (store, workers) = open(dir.path()).await;
    store.create_bucket(&bucket(), "root").await.unwrap();
    store.set_versioning(&bucket(), Versioning::Enabled).await.unwrap();
    let store = Arc::new(store);
    let writers = (0..8u8).map(|writer| {
        let store = store.clone();
        async move {
            let mut kept = Vec::new();
            for round in 0..12u8 {
                let content = [writer, round].repeat(5_000);
                let put = store.put(&bucket(), &key("one"), body(&content), PutRequest::default()).await.unwrap();
                if round % 3 == 2 {
                    let request = DeleteRequest { version: Some(put.version.id()), ..DeleteRequest::default() };
                    assert!(store.delete_as(&bucket(), &key("one"), &request).await.unwrap().existed);
                } else {
                    kept.push((put.version.id(), content));
                }
            }
            kept
        }
    });
    let kept: Vec<_> = futures_util::future::join_all(writers).await.into_iter().flatten().collect();
    for (id, content) in &kept {
        let (_, bytes) = store.get_version(&bucket(), &key("one"), Some(*id), None).await.unwrap();
        assert!(read(bytes).await == *content);
    }
    let request = VersionListRequest { limit: 1_000, ..VersionListRequest::default() };
    let listed = store.list_versions(&bucket(), &request).await.unwrap().versions;
    assert_eq!(listed.len(), kept.len());
    assert_eq!(listed.iter().filter(|version| version.latest).count(), 1);
    assert!(listed.windows(2).all(|pair| pair[0].info.version.stamp > pair[1].info.version.stamp));
    store.close().await;
    workers.stop().await;
}

/// Rows of which a manifest's are slow to come, so that what a reader of one has seen before is often no longer so.
struct SlowManifests(AtomicU64);

#[async_trait::async_trait]
impl Meddle for SlowManifests {
    async fn before_scan(&self, start: &[u8]) {
        if start.starts_with(b"m/") {
            let turn = self.0.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(Duration::from_millis(turn % 4 * 15)).await;
        }
    }
}

async fn open_slow(dir: &Path) -> (Store, Workers) {
    let meta = Embedded::open(&dir.join("meta")).unwrap();
    open_over(Arc::new(Meddled(meta, SlowManifests(AtomicU64::new(0)))), dir).await
}

/// An object of so many terms that its manifest has rows of its own: a piece, then something else, and again.
async fn put_in_many_terms(store: &Store, name: &str) -> Vec<u8> {
    let mut random = Random(0x7e57_ab1e);
    let mut noise = |len: usize| (0..len).map(|_| random.below(256) as u8).collect::<Vec<u8>>();
    let mut whole = Vec::new();
    for piece in 0..20 {
        let bytes = noise(300_000);
        let keep = |_: &_, _: &BTreeMap<String, String>, _| Ok(BTreeMap::new());
        let offset = whole.len() as u64;
        store.append(&bucket(), &key(name), offset, body(&bytes), PutRequest::default(), keep).await.unwrap();
        whole.extend(bytes);
        let other = key(&format!("between/{piece}"));
        store.put(&bucket(), &other, body(&noise(20_000)), PutRequest::default()).await.unwrap();
    }
    whole
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn renames_that_race_leave_one_whole_object() {
    let dir = tempfile::tempdir().unwrap();
    let (store, workers) = open_slow(dir.path()).await;
    store.create_bucket(&bucket(), "root").await.unwrap();
    let content = put_in_many_terms(&store, "0").await;
    let movers = (0..6u64).map(|mover| {
        let store = store.clone();
        async move {
            let mut random = Random(mover + 1);
            let mut moves = 0;
            for _ in 0..20 {
                let [from, to] = [0, 0].map(|_| key(&random.below(3).to_string()));
                match store.rename(&bucket(), &from, &to, |_| Ok(()), &Precondition::default()).await {
                    Ok(_) => moves += 1,
                    Err(StoreError::NoSuchKey(_)) => {}
                    Err(error) => panic!("{error:?}"),
                }
            }
            moves
        }
    });
    let moves: i32 = futures_util::future::join_all(movers).await.into_iter().sum();
    assert!(moves > 10, "{moves}");
    let listed = store.list(&bucket(), &ListRequest { limit: 10, ..ListRequest::default() }).await.unwrap();
    let named: Vec<_> = listed.objects.iter().filter(|info| info.key.as_str().len() == 1).collect();
    assert_eq!(named.len(), 1);
    let (_, bytes) = store.get(&bucket(), &named[0].key, None).await.unwrap();
    assert!(read(bytes).await == content);
    let report = store.fsck(FsckOptions::default()).await.unwrap();
    assert!(report.errors.is_empty(), "{report:?}");
    store.close().await;
    workers.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn removals_that_race_meet_no_damage() {
    let dir = tempfile::tempdir().unwrap();
    let (store, workers) = open_slow(dir.path()).await;
    store.create_bucket(&bucket(), "root").await.unwrap();
    let content = put_in_many_terms(&store, "source").await;
    store.set_versioning(&bucket(), Versioning::Enabled).await.unwrap();
    let mut ids = Vec::new();
    for _ in 0..40 {
        let plain = Precondition::default();
        let copy = store.copy((&bucket(), &key("source")), (&bucket(), &key("one")), None, &plain).await.unwrap();
        ids.push(copy.version.id());
    }
    // The oldest stays; of the others each is the newest for a moment.
    let removals = ids[1..].iter().rev().map(|id| {
        let request = DeleteRequest { version: Some(*id), ..DeleteRequest::default() };
        let store = store.clone();
        async move { store.delete_as(&bucket(), &key("one"), &request).await }
    });
    for removed in futures_util::future::join_all(removals).await {
        assert!(removed.unwrap().existed);
    }
    let (info, bytes) = store.get(&bucket(), &key("one"), None).await.unwrap();
    assert_eq!(info.version.id(), ids[0]);
    assert!(read(bytes).await == content);
    store.close().await;
    workers.stop().await;
}

async fn write(store: &Store, name: &str) -> VersionId {
    store.put(&bucket(), &key(name), body(b"bytes"), PutRequest::default()).await.unwrap().version.id()
}

/// A version moves between the newest and the older ones while they are listed: the list has it once, whichever side is read again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lists_have_each_version_once_while_rows_move() {
    for side in ["o/", "v/"] {
        let dir = tempfile::tempdir().unwrap();
        let (stepped, meta) = Stepped::over(Embedded::open(&dir.path().join("meta")).unwrap());
        let (store, workers) = open_over(meta, dir.path()).await;
        store.create_bucket(&bucket(), "root").await.unwrap();
        store.set_versioning(&bucket(), Versioning::Enabled).await.unwrap();
        let mut expected = Vec::new();
        // More than the first scan takes: of the newest, or of one key's older ones.
        let (newest, older) = if side == "o/" { (40, 1) } else { (3, 40) };
        for number in 0..newest {
            let name = format!("key-{number:02}");
            for _ in 0..if number == 0 { older } else { 1 } {
                expected.push((name.clone(), write(&store, &name).await));
            }
        }
        // None of it is in what was read before.
        let (user, moves) = (store.clone(), format!("key-{:02}", newest - 1));
        let name = moves.clone();
        stepped.at(Call::Scan, side, 1, async move {
            assert!(user.delete_as(&bucket(), &key(&name), &DeleteRequest::default()).await.unwrap().existed);
        });
        let request = VersionListRequest { limit: 1_000, ..VersionListRequest::default() };
        let listed = store.list_versions(&bucket(), &request).await.unwrap().versions;
        assert!(stepped.is_taken());
        let mut found: Vec<_> = listed.iter().map(|version| (version.info.key.to_string(), version)).collect();
        found.retain(|(_, version)| !version.info.marker);
        assert_eq!(found.len() + 1, listed.len(), "{side}: the marker");
        let mut found: Vec<_> = found.into_iter().map(|(name, version)| (name, version.info.version.id())).collect();
        found.sort_by_key(|version| expected.iter().position(|there| there == version));
        assert_eq!(found, expected, "{side}");
        let last = listed.iter().filter(|version| version.info.key.as_str() == moves).map(|version| version.latest);
        assert_eq!(last.collect::<Vec<_>>(), [true, false], "{side}");
        store.close().await;
        workers.stop().await;
    }
}
