//! Care of what is stored: the index and the list of packs come back from the packs alone, damage is found, written down and
//! told, and repaired where the bytes are there a second time.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bedplate::meta::{Embedded, Meta, Transaction};
use bedplate::model::{BucketName, ObjectKey};
use bedplate::store::{
    FsckOptions, PackHome, PutRequest, RebuildOptions, ScrubOptions, ScrubReport, Store, StoreError,
};
use bedplate::sys::worker::Workers;
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};

use crate::support::{Server, noise};

pub(super) fn bucket() -> BucketName {
    "care".parse().unwrap()
}

pub(super) fn key(name: &str) -> ObjectKey {
    name.parse().unwrap()
}

pub(super) async fn open(dir: &Path) -> Store {
    let meta = Embedded::open(&dir.join("meta")).unwrap();
    let store = Store::open(meta, PackHome::local(dir.join("packs")), &Workers::new()).await.unwrap();
    match store.create_bucket(&bucket(), "root").await {
        Ok(()) | Err(StoreError::BucketExists(_)) => store,
        Err(error) => panic!("{error}"),
    }
}

pub(super) async fn put(store: &Store, name: &str, bytes: &[u8]) {
    let body = stream::iter([Ok(Bytes::copy_from_slice(bytes))]).boxed();
    store.put(&bucket(), &key(name), body, PutRequest::default()).await.unwrap();
}

pub(super) async fn get(store: &Store, name: &str) -> Result<Vec<u8>, StoreError> {
    let (_, mut bytes) = store.get(&bucket(), &key(name), None).await?;
    let mut all = Vec::new();
    while let Some(piece) = bytes.next().await {
        all.extend_from_slice(&piece.map_err(|error| *error.downcast::<StoreError>().unwrap())?);
    }
    Ok(all)
}

pub(super) fn packs(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for folder in std::fs::read_dir(dir.join("packs")).unwrap() {
        found.extend(std::fs::read_dir(folder.unwrap().path()).unwrap().map(|file| file.unwrap().path()));
    }
    found.sort();
    found
}

pub(super) fn flip(path: &Path, at: impl Fn(usize) -> usize) {
    let mut bytes = std::fs::read(path).unwrap();
    let at = at(bytes.len());
    bytes[at] ^= 0x20;
    std::fs::write(path, bytes).unwrap();
}

/// All rows below a prefix.
pub(super) async fn rows(meta: &Arc<dyn Meta>, start: &str, end: &str) -> Vec<(Bytes, Bytes)> {
    meta.scan(start.as_bytes(), end.as_bytes(), 100_000).await.unwrap()
}

async fn delete_rows(meta: &Arc<dyn Meta>, start: &str, end: &str) -> usize {
    let found = rows(meta, start, end).await;
    for some in found.chunks(400) {
        let tx = some.iter().fold(Transaction::new(), |tx, (key, _)| tx.delete(&key[..]));
        meta.commit(tx).await.unwrap();
    }
    found.len()
}

pub(super) async fn scrub_all(store: &Store, repair: bool) -> ScrubReport {
    store.scrub(ScrubOptions { older_than: Duration::ZERO, rate: 0, repair }).await.unwrap()
}

pub(super) async fn errors(store: &Store, data: bool) -> Vec<String> {
    let report = store.fsck(FsckOptions { data }).await.unwrap();
    report.errors.into_iter().map(|error| format!("{:?} {:?} {}", error.chunk, error.object, error.what)).collect()
}

/// With the whole index and the whole list of packs gone, everything comes back, and the same bytes are stored once again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_index_and_the_list_of_packs_come_back_from_the_packs() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    let objects: Vec<(String, Vec<u8>)> = (0..6).map(|n| (format!("object-{n}"), noise(n, 9_000_000))).collect();
    for (name, bytes) in &objects[..4] {
        put(&store, name, bytes).await;
    }
    store.close().await;
    drop(store);
    let store = open(dir.path()).await;
    for (name, bytes) in &objects[4..] {
        put(&store, name, bytes).await;
    }
    put(&store, "text", &b"compressible ".repeat(300_000)).await;
    store.close().await;
    drop(store);
    let files = packs(dir.path());
    assert_eq!(files.len(), 2);
    // One pack lost its directory too: its groups still say what is in it.
    let len = std::fs::metadata(&files[1]).unwrap().len();
    std::fs::OpenOptions::new().write(true).open(&files[1]).unwrap().set_len(len - 30).unwrap();
    let meta = Embedded::open(&dir.path().join("meta")).unwrap();
    let indexed = delete_rows(&meta, "c/", "c0").await;
    assert_eq!((delete_rows(&meta, "p/", "p0").await, indexed > 500), (2, true));
    meta.close().await;
    drop(meta);

    let store = open(dir.path()).await;
    assert!(get(&store, "object-0").await.is_err() && !errors(&store, false).await.is_empty());
    // Without being asked to, nobody takes a file for a pack.
    let report = store.rebuild_index(RebuildOptions::default()).await.unwrap();
    assert_eq!((report.packs, report.adopted.len()), (0, 0));
    let report = store.rebuild_index(RebuildOptions { adopt: true }).await.unwrap();
    assert_eq!((report.packs, report.adopted.len(), report.failures), (2, 2, vec![]));
    assert_eq!(report.rows_written, indexed as u64);
    for (name, bytes) in &objects {
        assert!(get(&store, name).await.unwrap() == *bytes, "{name}");
    }
    assert_eq!(errors(&store, true).await, Vec::<String>::new());
    let before = store.stats(None).await.unwrap();
    for (name, bytes) in &objects {
        put(&store, &format!("{name}-again"), bytes).await;
    }
    let after = store.stats(None).await.unwrap();
    assert_eq!((after.unique_bytes, after.packs), (before.unique_bytes, before.packs));
    // Once more, there is nothing left to do.
    let report = store.rebuild_index(RebuildOptions { adopt: true }).await.unwrap();
    assert_eq!((report.adopted.len(), report.rows_written, report.rows_removed), (0, 0, 0));
}

/// Index rows that cannot be read, point nowhere or point to another chunk are told by the check and made right again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_index_rows_are_told_and_made_right() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    put(&store, "object", &noise(1, 3_000_000)).await;
    store.close().await;
    drop(store);
    let meta = Embedded::open(&dir.path().join("meta")).unwrap();
    let found = rows(&meta, "c/", "c0").await;
    assert!(found.len() > 10);
    let nowhere = {
        let mut value = vec![7; 16];
        value.extend_from_slice(&0u32.to_le_bytes());
        let crc = crc32c(&value);
        value.extend_from_slice(&crc.to_le_bytes());
        value
    };
    let tx = Transaction::new()
        .put(&found[0].0[..], found[1].1.clone())
        .put(&found[2].0[..], &b"nonsense"[..])
        .put(&found[3].0[..], nowhere)
        .delete(&found[4].0[..]);
    meta.commit(tx).await.unwrap();
    meta.close().await;
    drop(meta);
    let store = open(dir.path()).await;
    let told = errors(&store, false).await;
    assert_eq!(told.len(), 3, "{told:?}");
    for what in ["another chunk than it should", "cannot be read", "not in the list of packs"] {
        assert!(told.iter().any(|error| error.contains(what)), "{what}: {told:?}");
    }
    let report = store.rebuild_index(RebuildOptions::default()).await.unwrap();
    assert_eq!((report.rows_removed, report.rows_written), (3, 4));
    assert_eq!(errors(&store, true).await, Vec::<String>::new());
    store.close().await;
    drop(store);
    let meta = Embedded::open(&dir.path().join("meta")).unwrap();
    assert_eq!(rows(&meta, "c/", "c0").await, found);
}

/// CRC32C, bit by bit.
fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0x82F6_3B78 & (crc & 1).wrapping_neg()))
    })
}

/// A flipped bit is found by the scrub and told with the objects that need it, over restarts too; once the same bytes are put
/// again, the old objects are repaired.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_chunk_is_repaired_from_a_second_copy() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    let bytes = noise(9, 6_000_000);
    put(&store, "victim", &bytes).await;
    put(&store, "shares", &[&bytes[..3_000_000], b"another end"].concat()).await;
    put(&store, "bystander", &noise(10, 500_000)).await;
    store.close().await;
    drop(store);
    let file = packs(dir.path()).remove(0);
    flip(&file, |_| 2_000_000);

    let store = open(dir.path()).await;
    let report = scrub_all(&store, true).await;
    assert_eq!((report.packs, report.damaged_chunks, report.repair.rewritten, report.damage.len()), (1, 1, 0, 1));
    let damage = &report.damage[0];
    assert_eq!((damage.needed_by, &damage.objects), (2, &vec!["care/shares".to_owned(), "care/victim".to_owned()]));
    assert!(damage.chunk.is_some() && damage.digest.is_some());
    assert!(
        matches!(get(&store, "victim").await, Err(StoreError::Corrupt { chunk, .. }) if Some(chunk) == damage.chunk)
    );
    store.close().await;
    drop(store);

    let store = open(dir.path()).await;
    assert_eq!(store.stats(None).await.unwrap().damaged, 1);
    assert_eq!(store.scrub_status().await.unwrap().damage, report.damage);
    assert!(errors(&store, false).await.iter().any(|error| error.contains("care/victim")));
    // The same bytes are stored again, although their neighbours in the damaged pack are found there.
    put(&store, "again", &bytes).await;
    assert!(get(&store, "again").await.unwrap() == bytes);
    assert!(get(&store, "victim").await.is_err());
    let repaired = store.repair().await.unwrap();
    assert_eq!((repaired.copies, repaired.rewritten, repaired.failures), (1, 2, vec![]));
    assert!(get(&store, "victim").await.unwrap() == bytes);
    assert!(get(&store, "shares").await.unwrap()[..3_000_000] == bytes[..3_000_000]);
    let status = store.scrub_status().await.unwrap();
    assert_eq!((status.damage, store.stats(None).await.unwrap().damaged), (vec![], 0));
    assert_eq!(errors(&store, false).await, Vec::<String>::new());
    // What nobody needs any more is found again and told to nobody; a restart changes nothing.
    let report = scrub_all(&store, true).await;
    assert_eq!((report.damaged_chunks, report.damage), (1, vec![]));
    assert!(get(&store, "victim").await.unwrap() == bytes);
}

/// Damage that was none, of a cable for example, is forgotten once the bytes read well again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_that_read_well_again_are_forgiven() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    let bytes = noise(3, 2_000_000);
    put(&store, "object", &bytes).await;
    store.close().await;
    drop(store);
    let file = packs(dir.path()).remove(0);
    let away = dir.path().join("away");
    let store = open(dir.path()).await;
    for damage in ["missing", "flipped"] {
        std::fs::copy(&file, &away).unwrap();
        match damage {
            "missing" => std::fs::remove_file(&file).unwrap(),
            _ => flip(&file, |_| 1_000_000),
        }
        let report = scrub_all(&store, true).await;
        assert_eq!((report.damage.len(), report.damage[0].needed_by), (1, 1), "{damage}");
        assert_eq!(report.damage[0].chunk.is_none(), damage == "missing");
        // Nothing is removed because of it.
        let gc = store.gc(bedplate::store::GcOptions { rounds: 4, ..Default::default() }).await.unwrap();
        assert_eq!(gc.done.deleted, 0);
        std::fs::rename(&away, &file).unwrap();
        assert_eq!(scrub_all(&store, true).await.damage, vec![], "{damage}");
        assert!(get(&store, "object").await.unwrap() == bytes);
        assert_eq!(errors(&store, true).await, Vec::<String>::new(), "{damage}");
    }
    let before = store.stats(None).await.unwrap();
    put(&store, "again", &bytes).await;
    assert_eq!(store.stats(None).await.unwrap().unique_bytes, before.unique_bytes);
}

/// A directory is made again from the heads of the groups, and they from it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn directory_and_group_heads_stand_in_for_each_other() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    let objects: Vec<Vec<u8>> = (0..3).map(|n| noise(n, 1_000_000)).collect();
    for (n, bytes) in objects.iter().enumerate() {
        put(&store, &format!("object-{n}"), bytes).await;
    }
    store.close().await;
    drop(store);
    let file = packs(dir.path()).remove(0);
    let good = std::fs::read(&file).unwrap();
    for (what, at) in [("directory", good.len() - 300), ("footer", good.len() - 20), ("head", 60), ("head", 70)] {
        flip(&file, |_| at);
        let store = open(dir.path()).await;
        let told = errors(&store, true).await;
        assert!(!told.is_empty(), "{what}");
        assert_eq!(what == "head", get(&store, "object-1").await.is_ok());
        let report = scrub_all(&store, true).await;
        assert_eq!((report.repair.directories == 1, report.heads == 1), (what != "head", what == "head"), "{what}");
        assert_eq!((report.damage, errors(&store, true).await), (vec![], vec![]), "{what}");
        for (n, bytes) in objects.iter().enumerate() {
            assert!(get(&store, &format!("object-{n}")).await.unwrap() == *bytes, "{what}");
        }
        // Nothing of it was forgotten: the same bytes are known.
        let before = store.stats(None).await.unwrap();
        put(&store, "again", &objects[2]).await;
        assert_eq!(store.stats(None).await.unwrap().unique_bytes, before.unique_bytes);
        store.close().await;
        drop(store);
        assert!(std::fs::read(&file).unwrap()[good.len() - 400..] == good[good.len() - 400..], "{what}");
    }
}

/// What was read is remembered over a restart: only packs that were left alone for long enough are read.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn packs_are_read_when_they_are_due() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    put(&store, "object", &noise(1, 1_000_000)).await;
    store.close().await;
    drop(store);
    let store = open(dir.path()).await;
    let hour = ScrubOptions { older_than: Duration::from_secs(3600), rate: 0, repair: true };
    assert_eq!(store.scrub(hour).await.unwrap().packs, 0);
    let status = store.scrub_status().await.unwrap();
    assert_eq!((status.packs, status.never_verified), (1, 1));
    let (started, paced) =
        (std::time::Instant::now(), ScrubOptions { older_than: Duration::ZERO, rate: 4_000_000, repair: false });
    let report = store.scrub(paced).await.unwrap();
    assert!(report.packs == 1 && report.chunks > 5 && started.elapsed() >= Duration::from_millis(200));
    store.close().await;
    drop(store);
    let store = open(dir.path()).await;
    assert_eq!(store.scrub_status().await.unwrap().never_verified, 0);
    assert_eq!(store.scrub(hour).await.unwrap().packs, 0);
}

/// The commands: the appliance rebuilds its index, scrubs and tells damage by exit code; without an appliance the folder itself is
/// opened.
#[test]
fn the_commands_scrub_and_rebuild() {
    let mut server = Server::start();
    std::fs::write(server.path("file"), noise(5, 3_000_000)).unwrap();
    let file = server.path("file").display().to_string();
    server.run(&["bucket", "create", "care"]);
    server.run(&["put", &file, "care/one"]);
    let scrubbed = server.json(&["store", "scrub", "--now", "--repair"]);
    assert_eq!((scrubbed["packs"].as_u64(), scrubbed["damage"].as_array().unwrap().len()), (Some(0), 0));
    let rebuilt = server.json(&["store", "fsck", "--rebuild-index"]);
    assert_eq!((rebuilt["packs"].as_u64(), rebuilt["rows_written"].as_u64()), (Some(1), Some(0)));
    assert_eq!(server.json(&["store", "scrub", "--now"])["packs"].as_u64(), Some(1));
    server.stop();
    flip(&packs(&server.path("data")).remove(0), |_| 1_000_000);
    server.restart();
    let failed = server.program().args(["store", "scrub", "--now", "--repair"]).output().unwrap();
    let (said, error) = (String::from_utf8_lossy(&failed.stdout), String::from_utf8_lossy(&failed.stderr));
    assert!(failed.status.code() == Some(1) && said.contains("care/one") && error.contains("hint"), "{said} {error}");
    server.run(&["put", &file, "care/again"]);
    server.run(&["store", "scrub", "--repair"]);
    assert!(server.run(&["store", "scrub"]).contains("no damage is known"));
    server.run(&["get", "care/one", &server.path("back").display().to_string()]);
    assert!(std::fs::read(server.path("back")).unwrap() == noise(5, 3_000_000));
    server.stop();
    let rebuilt = server.json(&["store", "fsck", "--rebuild-index"]);
    assert_eq!((rebuilt["packs"].as_u64(), rebuilt["adopted"].as_array().unwrap().len()), (Some(2), 0), "{rebuilt}");
    server.restart();
}

/// A full disk is told to an S3 client by a status and a code of its own, and rows still fit.
#[test]
fn a_full_disk_is_told_to_clients() {
    let free = bedplate::sys::space::of(&std::env::temp_dir()).unwrap().free;
    let server = Server::start_with(&["--reserve", &(free + (1 << 36)).to_string()]);
    std::fs::write(server.path("large"), noise(5, 3_000_000)).unwrap();
    std::fs::write(server.path("small"), "a row is enough").unwrap();
    server.run(&["bucket", "create", "care"]);
    let refused = server.program().arg("put").arg(server.path("large")).arg("care/large").output().unwrap();
    let error = String::from_utf8_lossy(&refused.stderr);
    assert!(refused.status.code() == Some(1) && error.contains("no space is left"), "{error}");
    server.run(&["put", &server.path("small").display().to_string(), "care/small"]);
    assert!(crate::support::get(server.api(), "/metrics").unwrap().contains("status=\"507\""));
}
