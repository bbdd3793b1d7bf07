//! What snapshots and branches cost in a large bucket, whose rows are made up.

use std::path::Path;
use std::time::Instant;

use bedplate::format::row::{Body, BucketRow, ObjectRow, key};
use bedplate::meta::{Embedded, Transaction};
use bedplate::model::{BucketName, ObjectKey, SnapshotName};
use bedplate::store::{ListRequest, PackHome, Store};
use bedplate::sys::clock::Timestamp;
use bedplate::sys::worker::Workers;
use bytes::Bytes;

use crate::gc::Batch;
use crate::index::process_time;
use crate::{Error, meter};

/// Objects that are deleted after the snapshot, and that its removal then sweeps.
const DELETED: u64 = 1_000;

/// Prints what a step over `count` things took.
async fn measured<T>(name: &str, count: u64, step: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    let (cpu, begin) = (process_time(), Instant::now());
    let done = step.await?;
    meter::print(name, count, process_time() - cpu, begin.elapsed().as_secs_f64());
    Ok(done)
}

/// Lists all of a bucket, page by page; answers how many objects it has.
async fn list(store: &Store, bucket: &BucketName) -> Result<u64, Error> {
    let (mut request, mut found) = (ListRequest { limit: 1_000, ..ListRequest::default() }, 0);
    loop {
        let page = store.list(bucket, &request).await?;
        found += page.objects.len() as u64;
        match page.next {
            None => return Ok(found),
            next => request.start_after = next,
        }
    }
}

/// `snapshots DIR OBJECTS`.
pub(crate) async fn run(dir: &Path, objects: u64) -> Result<(), Error> {
    let meta = Embedded::open(&dir.join("meta"))?;
    let bucket: BucketName = "bench".parse()?;
    let mut batch = Batch { meta: meta.as_ref(), tx: Transaction::new() };
    batch.put(key::bucket(&bucket), BucketRow::new("root", Timestamp(0)).encode()).await?;
    for number in 0..objects {
        let name: ObjectKey = format!("set/{number:012}").parse()?;
        let body = Body::Inline(Bytes::copy_from_slice(&number.to_be_bytes()));
        let row = ObjectRow { size: 8, etag: format!("{number:032x}"), body, ..ObjectRow::empty() };
        batch.put(key::object(&bucket, &name), row.encode()).await?;
    }
    batch.end().await?;
    let workers = Workers::new();
    let store = Store::open(meta.clone(), PackHome::local(dir.join("packs")), &workers).await?;
    let (name, branch): (SnapshotName, BucketName) = ("now".parse()?, "branch".parse()?);
    let snapshot = bucket.at(&name);
    let before = meta.disk_bytes().await?;
    measured("snapshot create", objects, async { Ok(store.create_snapshot(&bucket, &name, None).await?) }).await?;
    measured("snapshot branch", objects, async { Ok(store.branch_snapshot(&bucket, &name, &branch).await?) }).await?;
    meter::print("snapshot rows", meta.disk_bytes().await?.saturating_sub(before), 0.0, 0.0);
    for number in 0..DELETED.min(objects) {
        store.delete(&bucket, &format!("set/{number:012}").parse()?).await?;
    }
    for (what, place) in [("list bucket", &bucket), ("list snapshot", &snapshot), ("list branch", &branch)] {
        let found = measured(what, objects, list(&store, place)).await?;
        let expected = if *place == bucket { objects - DELETED.min(objects) } else { objects };
        if found != expected {
            return Err(format!("{what}: {found} objects of {expected}").into());
        }
    }
    measured("snapshot diff", objects, async { Ok(store.snapshot_diff(&snapshot, &bucket, 0).await?) }).await?;
    measured("branch remove", objects, async { Ok(store.delete_bucket(&branch).await?) }).await?;
    measured("snapshot remove", DELETED, async { Ok(store.remove_snapshot(&bucket, &name).await?) }).await?;
    store.close().await;
    workers.stop().await;
    Ok(())
}
