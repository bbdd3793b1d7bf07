//! Random operations against plain maps.

use std::collections::{BTreeMap, BTreeSet};

use bedplate::model::ByteRange;
use bedplate::store::{FsckOptions, ListRequest, Precondition, PutRequest, VersionListRequest};

use super::*;

/// Random numbers that are the same on each run.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % bound as u64) as usize
    }

    fn of<'a, T: ?Sized>(&mut self, from: &[&'a T]) -> &'a T {
        from[self.below(from.len())]
    }

    /// Small enough for its row, long enough for chunks, or of so many terms that they take rows of their own.
    fn content(&mut self, number: u64) -> Vec<u8> {
        let len = [40, 9_000, 300_000][self.below(3)];
        (0..len)
            .map(|at: u64| (number.wrapping_mul(0x9E37_79B9) >> (at % 7 * 8)) as u8 ^ (at / 8 % 251) as u8)
            .collect()
    }
}

/// An object as the model knows it: its content, and its tag.
type Object = (Vec<u8>, Option<String>);
type Objects = BTreeMap<String, Object>;

#[derive(Default)]
struct Bucket {
    objects: Objects,
    /// Keys of which the bucket has rows of its own, but for notes that it has none.
    own: BTreeSet<String>,
    snapshots: BTreeMap<String, Objects>,
    origin: Option<(String, String)>,
}

#[derive(Default)]
struct Model(BTreeMap<String, Bucket>);

impl Model {
    fn branches(&self, of: &str, snapshot: &str) -> usize {
        let is_one = |bucket: &&Bucket| bucket.origin.as_ref().is_some_and(|(b, s)| b == of && s == snapshot);
        self.0.values().filter(is_one).count()
    }

    fn depth(&self, name: &str) -> usize {
        self.0[name].origin.as_ref().map_or(0, |(origin, _)| 1 + self.depth(origin))
    }

    /// Everything that can be read: name, and what it must show.
    fn views(&self) -> Vec<(String, &Objects)> {
        let mut views = Vec::new();
        for (name, bucket) in &self.0 {
            views.push((name.clone(), &bucket.objects));
            views.extend(bucket.snapshots.iter().map(|(snapshot, objects)| (format!("{name}@{snapshot}"), objects)));
        }
        views
    }
}

const KEYS: [&str; 12] = ["a", "a/", "a/1", "a/2", "a/2/x", "a\0", "a\0b", "b/c", "b/c/d", "b/d", "ü", "zz"];

/// What a list of these objects says: keys and groups, in order.
fn expected_list(objects: &Objects, prefix: &str, delimiter: Option<&str>) -> Vec<String> {
    let mut found = Vec::new();
    for name in objects.keys().filter(|name| name.starts_with(prefix)) {
        let group = delimiter.and_then(|by| Some(prefix.len() + name[prefix.len()..].find(by)? + by.len()));
        let entry = group.map_or(name.clone(), |end| name[..end].to_owned());
        if found.last() != Some(&entry) {
            found.push(entry);
        }
    }
    found
}

async fn listed(store: &Store, place: &str, prefix: &str, delimiter: Option<&str>, limit: usize) -> Vec<String> {
    let mut request =
        ListRequest { prefix: prefix.into(), delimiter: delimiter.map(str::to_owned), start_after: None, limit };
    let mut found = Vec::new();
    loop {
        let page = store.list(&bucket(place), &request).await.unwrap();
        let mut entries: Vec<String> = page.objects.iter().map(|object| object.key.to_string()).collect();
        entries.extend(page.prefixes);
        entries.sort();
        found.extend(entries);
        match page.next {
            None => return found,
            next => request.start_after = next,
        }
    }
}

async fn listed_versions(store: &Store, place: &str, limit: usize) -> Vec<String> {
    let mut request = VersionListRequest { limit, ..VersionListRequest::default() };
    let mut found = Vec::new();
    loop {
        let page = store.list_versions(&bucket(place), &request).await.unwrap();
        found.extend(page.versions.iter().map(|version| version.info.key.to_string()));
        match page.next {
            None => return found,
            Some((name, version)) => (request.key_after, request.version_after) = (Some(name), version),
        }
    }
}

async fn compare(store: &Store, model: &Model, random: &mut Random) {
    for (place, objects) in model.views() {
        for name in KEYS {
            match (read(store, &place, name).await, objects.get(name)) {
                (Ok(bytes), Some((content, tag))) => {
                    assert!(bytes == *content, "{place}/{name:?} reads back different");
                    let info = store.head(&bucket(&place), &key(name)).await.unwrap();
                    assert_eq!(info.headers.get("tag"), tag.as_ref(), "{place}/{name:?}");
                    let range = ByteRange { start: 7, end: 33 };
                    let (_, part) = store.get(&bucket(&place), &key(name), Some(range)).await.unwrap();
                    let part: Vec<_> = part.map(Result::unwrap).collect().await;
                    assert!(part.concat() == content[7..33]);
                }
                (Err(StoreError::NoSuchKey(_)), None) => {}
                (other, model) => panic!(
                    "{place}/{name:?}: {:?}, and should be {:?}",
                    other.map(|bytes| bytes.len()),
                    model.map(|(content, _)| content.len())
                ),
            }
        }
        let (prefix, delimiter) = (random.of(&["", "a", "a/", "b/", "a\0"]), [None, Some("/")][random.below(2)]);
        let limit = 1 + random.below(4);
        let found = listed(store, &place, prefix, delimiter, limit).await;
        assert_eq!(found, expected_list(objects, prefix, delimiter), "{place}, {prefix:?}, {delimiter:?}, {limit}");
        let names: Vec<String> = objects.keys().cloned().collect();
        assert_eq!(listed_versions(store, &place, limit).await, names, "versions of {place}");
    }
    for (name, bucket_model) in &model.0 {
        let mut found: Vec<_> = store.snapshots(&bucket(name)).await.unwrap();
        found.sort_by(|one, other| one.name.cmp(&other.name));
        assert_eq!(
            found.iter().map(|snapshot| (snapshot.name.to_string(), snapshot.branches.len())).collect::<Vec<_>>(),
            bucket_model
                .snapshots
                .keys()
                .map(|snapshot| (snapshot.clone(), model.branches(name, snapshot)))
                .collect::<Vec<_>>()
        );
    }
}

async fn compare_diff(store: &Store, model: &Model, random: &mut Random) {
    let views = model.views();
    let (from, to) = (&views[random.below(views.len())], &views[random.below(views.len())]);
    let diff = store.snapshot_diff(&bucket(&from.0), &bucket(&to.0), 1_000).await.unwrap();
    let added: Vec<_> = to.1.iter().filter(|(name, _)| !from.1.contains_key(*name)).collect();
    let removed: Vec<_> = from.1.iter().filter(|(name, _)| !to.1.contains_key(*name)).collect();
    let changed = to.1.iter().filter(|(name, now)| from.1.get(*name).is_some_and(|before| before != *now));
    let changed: Vec<_> = changed.collect();
    let bytes = |of: &[(&String, &Object)]| of.iter().map(|(_, (content, _))| content.len() as u64).sum();
    assert_eq!((diff.added, diff.added_bytes), (added.len() as u64, bytes(&added)));
    assert_eq!((diff.removed, diff.removed_bytes), (removed.len() as u64, bytes(&removed)));
    assert_eq!((diff.changed, diff.changed_bytes), (changed.len() as u64, bytes(&changed)));
    assert_eq!(diff.changes.len() as u64, diff.added + diff.removed + diff.changed);
}

struct Run {
    store: Store,
    model: Model,
    random: Random,
    number: u64,
}

impl Run {
    fn some_bucket(&mut self) -> String {
        let names: Vec<&String> = self.model.0.keys().collect();
        names[self.random.below(names.len())].clone()
    }

    fn some_snapshot(&mut self) -> Option<(String, String)> {
        let name = self.some_bucket();
        let snapshots: Vec<&String> = self.model.0[&name].snapshots.keys().collect();
        if snapshots.is_empty() {
            return None;
        }
        Some((name.clone(), snapshots[self.random.below(snapshots.len())].clone()))
    }

    fn write(&mut self, place: &str, name: &str, content: Vec<u8>, tag: Option<String>) {
        let bucket = self.model.0.get_mut(place).unwrap();
        bucket.objects.insert(name.to_owned(), (content, tag));
        bucket.own.insert(name.to_owned());
    }

    async fn put(&mut self) {
        let (place, name) = (self.some_bucket(), self.random.of(&KEYS));
        self.number += 1;
        let content = self.random.content(self.number);
        put(&self.store, &place, name, &content).await.unwrap();
        self.write(&place, name, content, None);
    }

    async fn put_in_parts(&mut self) {
        let (place, name) = (self.some_bucket(), self.random.of(&KEYS));
        self.number += 1;
        let content = self.random.content(self.number);
        let (place_name, object) = (bucket(&place), key(name));
        let upload = self.store.create_upload(&place_name, &object, PutRequest::default()).await.unwrap();
        let part = self.store.put_part(&place_name, &object, &upload, 1, body(&content), PutRequest::default()).await;
        let parts = [(1, part.unwrap().etag)];
        let condition = Precondition::default();
        self.store.complete_upload(&place_name, &object, &upload, &parts, &condition).await.unwrap();
        self.write(&place, name, content, None);
    }

    async fn delete(&mut self) {
        let (place, name) = (self.some_bucket(), self.random.of(&KEYS));
        let existed = self.store.delete(&bucket(&place), &key(name)).await.unwrap();
        let model = self.model.0.get_mut(&place).unwrap();
        assert_eq!(existed, model.objects.remove(name).is_some());
        model.own.remove(name);
    }

    async fn copy(&mut self) {
        let views: Vec<String> = self.model.views().into_iter().map(|(name, _)| name).collect();
        let from = views[self.random.below(views.len())].clone();
        let (source, place, name) = (self.random.of(&KEYS), self.some_bucket(), self.random.of(&KEYS));
        let found = self.model.views().into_iter().find(|(name, _)| *name == from);
        let found = found.and_then(|(_, objects)| objects.get(source).cloned());
        let (from_name, to_name) = (bucket(&from), bucket(&place));
        let condition = Precondition::default();
        let done = self.store.copy((&from_name, &key(source)), (&to_name, &key(name)), None, &condition).await;
        match (done, found) {
            (Ok(_), Some((content, tag))) => self.write(&place, name, content, tag),
            (Err(StoreError::NoSuchKey(_)), None) => {}
            (other, _) => panic!("{other:?}"),
        }
    }

    async fn rename(&mut self) {
        let (place, from, to) = (self.some_bucket(), self.random.of(&KEYS), self.random.of(&KEYS));
        let condition = Precondition::default();
        let done = self.store.rename(&bucket(&place), &key(from), &key(to), |_| Ok(()), &condition).await;
        let model = self.model.0.get_mut(&place).unwrap();
        match (done, model.objects.get(from).cloned()) {
            (Ok(_), Some(_)) if from == to => {}
            (Ok(_), Some((content, tag))) => {
                model.objects.remove(from);
                model.own.remove(from);
                self.write(&place, to, content, tag);
            }
            (Err(StoreError::NoSuchKey(_)), None) => {}
            (other, _) => panic!("{other:?}"),
        }
    }

    async fn amend(&mut self) {
        let (place, name) = (self.some_bucket(), self.random.of(&KEYS));
        self.number += 1;
        let tag = self.number.to_string();
        let change = |headers: &mut BTreeMap<String, String>| {
            headers.insert("tag".into(), tag.clone());
            Ok(())
        };
        match (
            self.store.amend(&bucket(&place), &key(name), None, change).await,
            self.model.0[&place].objects.get(name),
        ) {
            (Ok(_), Some((content, _))) => self.write(&place, name, content.clone(), Some(tag)),
            (Err(StoreError::NoSuchKey(_)), None) => {}
            (other, _) => panic!("{other:?}"),
        }
    }

    async fn append(&mut self) {
        let (place, name) = (self.some_bucket(), self.random.of(&KEYS));
        let Some((content, tag)) = self.model.0[&place].objects.get(name).cloned() else { return };
        self.number += 1;
        let more = self.random.content(self.number);
        let keep = |info: &bedplate::store::ObjectInfo, _: &BTreeMap<String, String>, _: u64| Ok(info.headers.clone());
        let at = content.len() as u64;
        let request = PutRequest::default();
        self.store.append(&bucket(&place), &key(name), at, body(&more), request, keep).await.unwrap();
        self.write(&place, name, [content, more].concat(), tag);
    }

    async fn snapshot(&mut self) {
        let place = self.some_bucket();
        if self.model.0[&place].snapshots.len() > 3 {
            return;
        }
        self.number += 1;
        let name = format!("s{}", self.number);
        self.store.create_snapshot(&bucket(&place), &snap(&name), None).await.unwrap();
        let again = self.store.create_snapshot(&bucket(&place), &snap(&name), None).await;
        assert!(matches!(again, Err(StoreError::SnapshotExists(_))));
        let model = self.model.0.get_mut(&place).unwrap();
        model.snapshots.insert(name.clone(), model.objects.clone());
        // Nobody writes to it, whatever the way.
        let frozen = format!("{place}@{name}");
        assert!(matches!(put(&self.store, &frozen, "a", b"no").await, Err(StoreError::IsSnapshot(_))));
        assert!(matches!(self.store.delete(&bucket(&frozen), &key("a")).await, Err(StoreError::IsSnapshot(_))));
    }

    async fn remove_snapshot(&mut self) {
        let Some((place, name)) = self.some_snapshot() else { return };
        let done = self.store.remove_snapshot(&bucket(&place), &snap(&name)).await;
        match (done, self.model.branches(&place, &name)) {
            (Ok(()), 0) => drop(self.model.0.get_mut(&place).unwrap().snapshots.remove(&name)),
            (Err(StoreError::SnapshotInUse { count, .. }), branches) => assert_eq!(count, branches),
            (other, _) => panic!("{other:?}"),
        }
    }

    async fn branch(&mut self) {
        let Some((place, name)) = self.some_snapshot() else { return };
        if self.model.0.len() > 5 || self.model.depth(&place) > 2 {
            return;
        }
        self.number += 1;
        let branch = format!("branch-{}", self.number);
        self.store.branch_snapshot(&bucket(&place), &snap(&name), &bucket(&branch)).await.unwrap();
        let objects = self.model.0[&place].snapshots[&name].clone();
        let origin = Some((place, name));
        self.model.0.insert(branch, Bucket { objects, origin, ..Bucket::default() });
    }

    async fn remove_bucket(&mut self) {
        let place = self.some_bucket();
        let model = &self.model.0[&place];
        if model.origin.is_none() {
            return;
        }
        match self.store.delete_bucket(&bucket(&place)).await {
            Ok(()) => {
                assert!(model.own.is_empty() && model.snapshots.is_empty(), "{place} was not empty");
                self.model.0.remove(&place);
            }
            Err(StoreError::HasSnapshots(_)) => assert!(!model.snapshots.is_empty()),
            Err(StoreError::BucketNotEmpty(_)) => assert!(!model.own.is_empty()),
            Err(error) => panic!("{error:?}"),
        }
    }

    async fn step(&mut self) {
        match self.random.below(24) {
            0..=6 => self.put().await,
            7..=10 => self.delete().await,
            11 => self.put_in_parts().await,
            12 | 13 => self.copy().await,
            14 => self.rename().await,
            15 => self.amend().await,
            16 => self.append().await,
            17 | 18 => self.snapshot().await,
            19 | 20 => self.remove_snapshot().await,
            21 => self.branch().await,
            22 => self.remove_bucket().await,
            _ => {
                let options = GcOptions { rounds: 1, seal: true, ..GcOptions::default() };
                self.store.gc(options).await.unwrap();
            }
        }
    }

    /// Removes everything, from the branches' tips down.
    async fn clear(&mut self) {
        while let Some(place) = self.model.0.keys().max_by_key(|name| self.model.depth(name)).cloned() {
            let model = self.model.0.remove(&place).unwrap();
            for name in model.snapshots.keys() {
                self.store.remove_snapshot(&bucket(&place), &snap(name)).await.unwrap();
            }
            for name in model.objects.keys() {
                assert!(self.store.delete(&bucket(&place), &key(name)).await.unwrap());
            }
            self.store.delete_bucket(&bucket(&place)).await.unwrap();
        }
    }
}

async fn run(seed: u64, steps: usize) {
    let dir = tempfile::tempdir().unwrap();
    let (store, mut meta, mut workers) = open(dir.path()).await;
    store.create_bucket(&bucket("data"), "root").await.unwrap();
    let model = Model(BTreeMap::from([("data".to_owned(), Bucket::default())]));
    let mut run = Run { store, model, random: Random(seed), number: 0 };
    for step in 0..steps {
        run.step().await;
        if step % 16 == 15 {
            compare(&run.store, &run.model, &mut run.random).await;
            compare_diff(&run.store, &run.model, &mut run.random).await;
        }
        if step % 64 == 63 {
            let report = run.store.fsck(FsckOptions { data: true }).await.unwrap();
            assert_eq!(report.errors, []);
            end(run.store.clone(), workers).await;
            drop(meta);
            let Run { store, model, random, number } = run;
            drop(store);
            let store;
            (store, meta, workers) = open(dir.path()).await;
            run = Run { store, model, random, number };
            compare(&run.store, &run.model, &mut run.random).await;
        }
    }
    collect(&run.store).await;
    compare(&run.store, &run.model, &mut run.random).await;
    run.clear().await;
    collect(&run.store).await;
    let stats = run.store.stats(None).await.unwrap();
    assert_eq!((stats.objects, stats.unique_bytes, stats.stored_bytes, stats.packs), (0, 0, 0, 0));
    for owner in ["b", "o", "h", "z", "m", "p"] {
        assert_eq!(rows(&meta, owner).await, 0, "rows of {owner}/ are left");
    }
    end(run.store, workers).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn snapshots_and_branches_are_as_a_plain_model_says() {
    let seeds = std::env::var("BEDPLATE_SNAPSHOT_SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(3u64);
    for seed in 1..=seeds {
        println!("seed {seed}");
        run(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15), 200).await;
    }
}

/// What a removed snapshot alone kept is freed; what something else needs too stays.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn removed_snapshots_free_what_only_they_kept() {
    let dir = tempfile::tempdir().unwrap();
    let (store, meta, workers) = open(dir.path()).await;
    store.create_bucket(&bucket("data"), "root").await.unwrap();
    let noise = |seed| crate::support::noise(seed, 1 << 20);
    let stored = || async { store.stats(None).await.unwrap().unique_bytes >> 20 };
    put(&store, "data", "one", &noise(1)).await.unwrap();
    put(&store, "data", "two", &noise(2)).await.unwrap();
    store.create_snapshot(&bucket("data"), &snap("first"), None).await.unwrap();
    put(&store, "data", "one", &noise(3)).await.unwrap();
    store.create_snapshot(&bucket("data"), &snap("second"), None).await.unwrap();
    put(&store, "data", "one", &noise(4)).await.unwrap();
    put(&store, "data", "one", &noise(5)).await.unwrap();
    store.delete(&bucket("data"), &key("two")).await.unwrap();
    collect(&store).await;
    assert_eq!((stored().await, rows(&meta, "h").await), (4, 3), "of five contents one is shown by nobody");
    store.remove_snapshot(&bucket("data"), &snap("first")).await.unwrap();
    collect(&store).await;
    assert_eq!((stored().await, rows(&meta, "h").await), (3, 2), "the second still shows two and three");
    assert!(read(&store, "data@second", "two").await.unwrap() == noise(2));
    store.remove_snapshot(&bucket("data"), &snap("second")).await.unwrap();
    collect(&store).await;
    assert_eq!((stored().await, rows(&meta, "h").await, rows(&meta, "z").await), (1, 0, 0));
    assert!(matches!(read(&store, "data@second", "two").await, Err(StoreError::NoSuchSnapshot(_))));
    assert!(read(&store, "data", "one").await.unwrap() == noise(5));
    end(store, workers).await;
}

/// A snapshot goes by itself once its time is over, and not while a branch needs it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn snapshots_go_when_their_time_is_over() {
    use bedplate::sys::clock::Timestamp;
    let dir = tempfile::tempdir().unwrap();
    let (store, meta, workers) = open(dir.path()).await;
    store.create_bucket(&bucket("data"), "root").await.unwrap();
    put(&store, "data", "one", b"before").await.unwrap();
    let day = std::time::Duration::from_secs(86_400);
    let made = store.create_snapshot(&bucket("data"), &snap("day"), Some(day)).await.unwrap();
    store.create_snapshot(&bucket("data"), &snap("good"), None).await.unwrap();
    put(&store, "data", "one", b"after").await.unwrap();
    let over = made.expires.unwrap();
    assert_eq!(over, made.created.plus(day));
    assert_eq!(store.expire_snapshots(Timestamp(over.0 - 1)).await.unwrap(), 0);
    store.branch_snapshot(&bucket("data"), &snap("day"), &bucket("branch")).await.unwrap();
    assert_eq!(store.expire_snapshots(over).await.unwrap(), 0);
    assert_eq!(read(&store, "branch", "one").await.unwrap(), b"before");
    store.delete_bucket(&bucket("branch")).await.unwrap();
    assert_eq!(store.expire_snapshots(over).await.unwrap(), 1);
    let left = store.snapshots(&bucket("data")).await.unwrap();
    assert_eq!(left.iter().map(|snapshot| snapshot.name.as_str()).collect::<Vec<_>>(), ["good"]);
    assert_eq!(read(&store, "data@good", "one").await.unwrap(), b"before");
    assert_eq!(rows(&meta, "h").await, 1);
    end(store, workers).await;
}

/// What cannot be is refused: snapshots of buckets that keep versions, versions of buckets with snapshots, branches that go too deep.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_is_refused() {
    use bedplate::model::Versioning;
    let dir = tempfile::tempdir().unwrap();
    let (store, _, workers) = open(dir.path()).await;
    store.create_bucket(&bucket("versions"), "root").await.unwrap();
    store.set_versioning(&bucket("versions"), Versioning::Enabled).await.unwrap();
    let refused = store.create_snapshot(&bucket("versions"), &snap("s"), None).await;
    assert!(matches!(refused, Err(StoreError::BucketState(_))), "{refused:?}");
    let refused = store.create_snapshot(&bucket("nowhere"), &snap("s"), None).await;
    assert!(matches!(refused, Err(StoreError::NoSuchBucket(_))), "{refused:?}");
    store.create_bucket(&bucket("depth-0"), "root").await.unwrap();
    put(&store, "depth-0", "deep", b"down").await.unwrap();
    for depth in 0..16 {
        let (origin, branch) = (format!("depth-{depth}"), format!("depth-{}", depth + 1));
        store.create_snapshot(&bucket(&origin), &snap("s"), None).await.unwrap();
        store.branch_snapshot(&bucket(&origin), &snap("s"), &bucket(&branch)).await.unwrap();
    }
    assert_eq!(read(&store, "depth-16", "deep").await.unwrap(), b"down");
    store.create_snapshot(&bucket("depth-16"), &snap("s"), None).await.unwrap();
    let refused = store.branch_snapshot(&bucket("depth-16"), &snap("s"), &bucket("depth-17")).await;
    assert!(matches!(refused, Err(StoreError::BucketState(_))), "{refused:?}");
    let refused = store.branch_snapshot(&bucket("depth-0"), &snap("s"), &bucket("depth-5")).await;
    assert!(matches!(refused, Err(StoreError::BucketExists(_))), "{refused:?}");
    for name in ["depth-0", "depth-16"] {
        let refused = store.set_versioning(&bucket(name), Versioning::Enabled).await;
        assert!(matches!(refused, Err(StoreError::BucketState(_))), "{refused:?}");
    }
    end(store, workers).await;
}
