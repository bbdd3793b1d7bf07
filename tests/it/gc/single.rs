//! One thing at a time: what goes, what stays, what waits, what moves, what is refused.

use std::collections::BTreeSet;

use bedplate::format::row::{self, PackState};
use bedplate::meta::Transaction;
use bedplate::model::ByteRange;
use bedplate::store::{GcOptions, Precondition, PutRequest, StoreError};
use futures_util::{StreamExt as _, stream};

use super::{Opened, Random, body, bucket, collect, key, open_meta};
use crate::support::Server;

const MIB: usize = 1024 * 1024;

/// Known bytes and new ones by turns: more runs of chunks than an object's row has room for, so that its manifest has rows of its own.
fn shred(known: &[u8], random: &mut Random) -> Vec<u8> {
    known.chunks(400_000).flat_map(|piece| [piece, &random.bytes(50_000)].concat()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_goes_is_what_nothing_refers_to_to_the_byte() {
    let dir = tempfile::tempdir().unwrap();
    let opened = Opened::open(dir.path()).await;
    let mut random = Random(1);
    let (first, second) = (random.bytes(5 * MIB), random.bytes(4 * MIB));
    opened.put("first", &first).await;
    opened.seal().await;
    let garbage = opened.files();
    opened.put("second", &second).await;
    opened.put("inline", b"lives in its row").await;
    opened.seal().await;
    let all = opened.files();
    // Nothing is garbage yet.
    let report = opened.gc(4).await;
    assert!(report.plan.is_empty() && report.rounds == 1 && report.objects == 3, "{report:?}");
    opened.delete("first").await;
    // A dry run says it and does nothing, not even to the epoch.
    let dry = GcOptions { dry_run: true, ..GcOptions::default() };
    let plan = opened.store.gc(dry).await.unwrap().plan;
    assert_eq!(
        plan.condemn.iter().map(|pack| pack.pack).collect::<Vec<_>>(),
        garbage.keys().copied().collect::<Vec<_>>()
    );
    assert_eq!((opened.store.gc(dry).await.unwrap().plan, opened.files()), (plan, all.clone()));
    let condemned = opened.gc(1).await;
    assert_eq!((condemned.done.condemned, condemned.done.freed_bytes, opened.files()), (1, 0, all.clone()));
    let chunks = opened.count("c/").await;
    let deleted = opened.gc(4).await;
    assert_eq!(deleted.done.freed_bytes, garbage.values().sum::<u64>());
    assert_eq!(deleted.done.index_rows as usize, chunks - opened.count("c/").await);
    let left: BTreeSet<_> = opened.files().into_keys().collect();
    assert_eq!(left, all.into_keys().filter(|pack| !garbage.contains_key(pack)).collect());
    assert!(opened.get("second").await == second);
    opened.tidy().await;
    // What has gone is stored again when it comes again.
    opened.put("first", &first).await;
    assert!(opened.get("first").await == first);
    opened.sound().await;
    opened.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_condemned_pack_that_is_of_use_again_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    let opened = Opened::open(dir.path()).await;
    let bytes = Random(2).bytes(3 * MIB);
    opened.put("one", &bytes).await;
    opened.seal().await;
    opened.delete("one").await;
    assert_eq!(opened.gc(1).await.done.condemned, 1);
    let files = opened.files();
    opened.put("two", &bytes).await;
    assert_eq!(opened.files(), files);
    assert!(opened.rows().await.values().all(|row| row.state == PackState::Sealed && row.condemned_epoch == 0));
    // A copy counts like a put, however the original ends.
    opened
        .store
        .copy((&bucket(), &key("two")), (&bucket(), &key("three")), None, &Precondition::default())
        .await
        .unwrap();
    opened.delete("two").await;
    assert_eq!(opened.gc(4).await.done.freed_bytes, 0);
    assert!(opened.get("three").await == bytes);
    opened.delete("three").await;
    assert_eq!(opened.gc(4).await.done.deleted, 1);
    assert!(opened.files().is_empty());
    opened.tidy().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_keeps_what_it_reads_until_it_ends() {
    let dir = tempfile::tempdir().unwrap();
    let opened = Opened::open(dir.path()).await;
    let bytes = Random(3).bytes(20 * MIB);
    opened.put("read", &bytes).await;
    opened.seal().await;
    let (_, mut stream) = opened.store.get(&bucket(), &key("read"), None).await.unwrap();
    let mut all = stream.next().await.unwrap().unwrap().to_vec();
    opened.delete("read").await;
    let report = opened.gc(6).await;
    assert_eq!((report.done.condemned, report.done.deleted, report.waiting, report.held_over), (1, 0, 1, 1));
    all.extend(collect(stream).await);
    assert!(all == bytes);
    assert_eq!(opened.gc(1).await.done.deleted, 1);
    opened.tidy().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn uploads_under_way_survive_and_given_up_ones_leave_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let opened = Opened::open(dir.path()).await;
    let store = &opened.store;
    let mut random = Random(4);
    // A body that goes on while rounds come and go: its packs are condemned and come back.
    let (sender, receiver) = tokio::sync::mpsc::channel(1);
    let slow = stream::unfold(receiver, |mut receiver| async move { Some((receiver.recv().await?, receiver)) }).boxed();
    let (into, name) = (bucket(), key("slow"));
    let put = store.put(&into, &name, slow, PutRequest::default());
    let feed = async {
        let mut slow = Vec::new();
        for _ in 0..6 {
            let piece = random.bytes(3 * MIB);
            slow.extend_from_slice(&piece);
            sender.send(Ok(piece.into())).await.unwrap();
            assert_eq!(opened.gc(2).await.done.deleted, 0);
        }
        drop(sender);
        slow
    };
    let (put, slow) = tokio::join!(put, feed);
    put.unwrap();
    assert!(opened.get("slow").await == slow);
    // Parts are kept for as long as their upload is open.
    let name = key("joined");
    let upload = store.create_upload(&bucket(), &name, PutRequest::default()).await.unwrap();
    let parts = [random.bytes(6 * MIB), random.bytes(MIB)];
    let mut named = Vec::new();
    for (number, bytes) in (1..).zip(&parts) {
        let part = store.put_part(&bucket(), &name, &upload, number, body(bytes), PutRequest::default()).await.unwrap();
        named.push((number, part.etag));
        opened.gc(4).await;
    }
    store.complete_upload(&bucket(), &name, &upload, &named, &Precondition::default()).await.unwrap();
    opened.gc(4).await;
    assert!(opened.get("joined").await == parts.concat());
    let before = opened.files().values().sum::<u64>();
    // One that is aborted, and one whose client goes away.
    let upload = store.create_upload(&bucket(), &name, PutRequest::default()).await.unwrap();
    store.put_part(&bucket(), &name, &upload, 1, body(&random.bytes(5 * MIB)), PutRequest::default()).await.unwrap();
    store.abort_upload(&bucket(), &name, &upload).await.unwrap();
    let broken = stream::iter([Ok(random.bytes(4 * MIB).into()), Err("the client went away".into())]).boxed();
    assert!(matches!(store.put(&bucket(), &name, broken, PutRequest::default()).await, Err(StoreError::Body(_))));
    opened.gc(6).await;
    assert_eq!(opened.files().values().sum::<u64>(), before);
    opened.sound().await;
    opened.tidy().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn packs_that_are_mostly_dead_and_small_ones_move_to_new_ones() {
    let dir = tempfile::tempdir().unwrap();
    let opened = Opened::open(dir.path()).await;
    let mut random = Random(5);
    // A pack of which a third stays in use: by an object, by a part, and by an object with a long manifest.
    let kept = random.bytes(8 * MIB);
    opened.put("kept", &kept).await;
    opened.put("garbage-1", &random.bytes(16 * MIB)).await;
    let upload = opened.store.create_upload(&bucket(), &key("open"), PutRequest::default()).await.unwrap();
    let part = random.bytes(MIB);
    opened.store.put_part(&bucket(), &key("open"), &upload, 1, body(&part), PutRequest::default()).await.unwrap();
    opened.put("garbage-2", &random.bytes(16 * MIB)).await;
    let zeros = vec![0; 4 * MIB];
    opened.put("zeros", &zeros).await;
    let shreds = shred(&kept, &mut random);
    opened.put("shreds", &shreds).await;
    opened.seal().await;
    assert!(opened.count("m/").await > 0);
    for name in ["garbage-1", "garbage-2"] {
        opened.delete(name).await;
    }
    let old = opened.files();
    assert_eq!(old.len(), 1);
    let report = opened.gc(6).await;
    assert_eq!((report.done.repacked, report.done.deleted), (1, 1));
    assert!(report.done.rewritten >= 4, "{:?}", report.done);
    let new = opened.files();
    assert!(new.keys().all(|pack| !old.contains_key(pack)));
    assert!(new.values().sum::<u64>() < 14 * MIB as u64, "{new:?}");
    for (name, bytes) in [("kept", &kept), ("zeros", &zeros), ("shreds", &shreds)] {
        assert!(opened.get(name).await == *bytes, "{name}");
        let range = ByteRange { start: 100_000, end: 700_000 };
        let (_, stream) = opened.store.get(&bucket(), &key(name), Some(range)).await.unwrap();
        assert!(collect(stream).await == bytes[100_000..700_000]);
    }
    let etag = opened.store.list_parts(&bucket(), &key("open"), &upload).await.unwrap()[0].etag.clone();
    opened
        .store
        .complete_upload(&bucket(), &key("open"), &upload, &[(1, etag)], &Precondition::default())
        .await
        .unwrap();
    assert!(opened.get("open").await == part);
    // What was moved is found again: the same bytes cost nothing.
    opened.put("again", &kept).await;
    opened.seal().await;
    assert_eq!(opened.files(), new);
    // Several small packs become one.
    for n in 0..4 {
        opened.put(&format!("small-{n}"), &random.bytes(MIB)).await;
        opened.seal().await;
    }
    assert_eq!(opened.files().len(), 5);
    let report = opened.gc(6).await;
    assert_eq!((report.done.repacked, report.done.deleted, opened.files().len()), (5, 5, 1));
    opened.sound().await;
    opened.tidy().await;
    assert!(opened.gc(4).await.plan.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_read_stops_the_collection() {
    let dir = tempfile::tempdir().unwrap();
    let opened = Opened::open(dir.path()).await;
    let mut random = Random(6);
    let kept = random.bytes(8 * MIB);
    opened.put("kept", &kept).await;
    // More terms than a row has room for: a manifest in rows of its own.
    let shreds = shred(&kept, &mut random);
    opened.put("shreds", &shreds).await;
    opened.seal().await;
    opened.put("garbage", &random.bytes(MIB)).await;
    opened.seal().await;
    opened.delete("garbage").await;
    opened.gc(1).await;
    let files = opened.files();
    let (manifest_key, manifest) = opened.meta.scan(b"m/", b"m0", 1).await.unwrap().remove(0);
    let object_key = row::key::object(&bucket(), &key("kept"));
    let object = opened.meta.get(&object_key).await.unwrap().unwrap();
    let mut broken = manifest.to_vec();
    broken[manifest.len() / 2] ^= 4;
    let damages = [
        (manifest_key.to_vec(), None, manifest.clone()),
        (manifest_key.to_vec(), Some(broken.into()), manifest),
        (object_key.clone(), Some(object.slice(..object.len() - 1)), object.clone()),
    ];
    for (key, damaged, whole) in damages {
        let tx = Transaction::new();
        let tx = match damaged {
            Some(damaged) => tx.put(key.clone(), damaged),
            None => tx.delete(key.clone()),
        };
        opened.meta.commit(tx).await.unwrap();
        let refused = opened.store.gc(GcOptions { rounds: 4, seal: true, ..GcOptions::default() }).await;
        let Err(StoreError::NotCollected { what }) = refused else { panic!("{refused:?}") };
        assert!(what.contains("object data-sets/"), "{what}");
        assert_eq!(opened.files(), files);
        opened.meta.commit(Transaction::new().put(key, whole)).await.unwrap();
    }
    // So does a pack's row, and an object whose pack is not in the list of packs.
    let needed = opened.rows().await.into_iter().find(|(_, row)| row.state == PackState::Sealed).unwrap();
    opened.meta.commit(Transaction::new().delete(row::key::pack(needed.0))).await.unwrap();
    let refused = opened.store.gc(GcOptions::default()).await;
    assert!(
        matches!(&refused, Err(StoreError::NotCollected { what }) if what.contains("list of packs")),
        "{refused:?}"
    );
    opened.meta.commit(Transaction::new().put(row::key::pack(needed.0), needed.1.encode())).await.unwrap();
    assert_eq!(opened.gc(4).await.done.deleted, 1);
    opened.sound().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_and_rows_that_a_crash_left_go_unless_the_metadata_seems_lost() {
    let dir = tempfile::tempdir().unwrap();
    let opened = Opened::open(dir.path()).await;
    let mut random = Random(7);
    opened.put("kept", &random.bytes(MIB)).await;
    opened.seal().await;
    let files = opened.files();
    let source = dir.path().join(format!(
        "packs/{:02x}/{}.pack",
        files.keys().next().unwrap().0[15],
        files.keys().next().unwrap()
    ));
    let orphan = dir.path().join("packs/00/00000000000000000000000000000000.pack");
    std::fs::create_dir_all(orphan.parent().unwrap()).unwrap();
    std::fs::copy(&source, &orphan).unwrap();
    // A part whose upload has ended, and a manifest that nobody names.
    let upload = opened.store.create_upload(&bucket(), &key("open"), PutRequest::default()).await.unwrap();
    opened
        .store
        .put_part(&bucket(), &key("open"), &upload, 1, body(&random.bytes(MIB)), PutRequest::default())
        .await
        .unwrap();
    let ended = Transaction::new()
        .delete(row::key::upload(&bucket(), &key("open"), upload))
        .put(row::key::manifest(&[9; 16], 5), row::encode_terms(&[]));
    opened.meta.commit(ended).await.unwrap();
    let first = opened.gc(1).await;
    assert_eq!((first.done.orphans, first.done.manifests, orphan.exists()), (0, 0, true));
    let report = opened.gc(6).await;
    assert_eq!((first.done.parts, report.done.orphans, report.done.manifests), (1, 1, 1));
    assert_eq!((opened.files(), opened.count("m/").await, opened.count("u/").await), (files, 0, 0));
    opened.sound().await;
    opened.close().await;
    // Packs without any metadata: somebody has lost the one, and wants to keep the other.
    std::fs::rename(dir.path().join("meta"), dir.path().join("lost")).unwrap();
    let opened = Opened::open_on(dir.path(), open_meta(dir.path()).await).await;
    for _ in 0..3 {
        let report = opened.gc(2).await;
        assert_eq!((report.done.orphans, opened.files().len()), (0, 1));
    }
    let plan = opened.store.gc(GcOptions { dry_run: true, ..GcOptions::default() }).await.unwrap().plan;
    assert!(plan.orphans_refused.unwrap().contains("lost"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pack_whose_directory_is_damaged_leaves_no_index_rows() {
    let dir = tempfile::tempdir().unwrap();
    let opened = Opened::open(dir.path()).await;
    opened.put("garbage", &Random(8).bytes(2 * MIB)).await;
    opened.seal().await;
    opened.delete("garbage").await;
    let (pack, len) = opened.files().pop_first().unwrap();
    let path = dir.path().join(format!("packs/{:02x}/{pack}.pack", pack.0[15]));
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[len as usize - 100] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    assert_eq!(opened.gc(4).await.done.deleted, 1);
    assert_eq!((opened.files().len(), opened.count("c/").await), (0, 0));
}

#[test]
fn the_command_shows_its_plan_and_what_it_did() {
    let server = Server::start();
    let run = |args: &[&str]| server.json(args);
    let file = server.path("file");
    std::fs::write(&file, Random(9).bytes(3 * MIB)).unwrap();
    server.run(&["bucket", "create", "data-sets"]);
    server.run(&["put", file.to_str().unwrap(), "data-sets/file"]);
    server.run(&["rm", "data-sets/file"]);
    let stored = run(&["store", "stats", "--output", "json"])["stored_bytes"].as_u64().unwrap();
    assert!(stored > 3_000_000);
    let plan = run(&["store", "gc", "--dry-run", "--output", "json"]);
    assert_eq!((plan["dry_run"].as_bool(), plan["done"]["deleted"].as_u64()), (Some(true), Some(0)));
    let report = run(&["store", "gc", "--output", "json"]);
    assert_eq!(report["done"]["deleted"].as_u64(), Some(1), "{report}");
    assert_eq!(run(&["store", "stats", "--output", "json"])["stored_bytes"].as_u64(), Some(0));
    let text = server.run(&["store", "gc"]);
    assert!(text.contains("nothing to do") && text.contains("bytes freed"), "{text}");
}

#[test]
fn an_appliance_collects_by_itself() {
    let mut server = Server::start_with(&["--gc-every", "1s"]);
    let file = server.path("file");
    std::fs::write(&file, Random(10).bytes(3 * MIB)).unwrap();
    server.run(&["bucket", "create", "data-sets"]);
    server.run(&["put", file.to_str().unwrap(), "data-sets/file"]);
    // A pack that is still being filled is not looked at; a clean stop seals it.
    server.stop();
    server.restart();
    server.run(&["rm", "data-sets/file"]);
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while !server.log().contains("collected garbage") {
        assert!(std::time::Instant::now() < deadline, "{}", server.log());
        std::thread::sleep(std::time::Duration::from_millis(200));
    }
    assert_eq!(server.json(&["store", "stats"])["stored_bytes"].as_u64(), Some(0));
    server.stop();
    let refused = server.program().args(["serve", "--gc-every", "often"]).output().unwrap();
    assert_eq!(refused.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("as in 30m"), "{refused:?}");
}
