//! What a round of garbage collection costs as the store grows: the rows of a store of so many chunks are made up, without
//! packs behind them, and a round plans over them. Nothing is deleted: that costs what is deleted, not what is kept.

use std::path::Path;

use bedplate::format::manifest::Term;
use bedplate::format::row::{Body, BucketRow, ObjectRow, PackRow, PackState, key};
use bedplate::meta::{Embedded, Meta, Transaction};
use bedplate::model::limit::TRANSACTION_KEYS_MAX;
use bedplate::model::{BucketName, ObjectKey};
use bedplate::store::{GcOptions, PackHome, Store};
use bedplate::sys::clock::Timestamp;
use bedplate::sys::worker::Workers;

use crate::index::{PACK, digest, mixed, pack, process_time};
use crate::{Error, meter};

/// Chunks of a run: deduplication has cut the manifests into runs of this length.
const RUN: u64 = 64;
/// Runs of an object, each from another pack.
const RUNS: u64 = 16;
/// Length of a chunk.
const CHUNK: u64 = 64 << 10;
/// One pack in so many is garbage.
const DEAD: u64 = 100;

/// `gc-fill DIR CHUNKS`: writes the rows.
pub(crate) async fn fill(dir: &Path, chunks: u64) -> Result<(), Error> {
    let meta = Embedded::open(&dir.join("meta"))?;
    let bucket: BucketName = "bench".parse()?;
    let owner = BucketRow::new("root", Timestamp(0));
    let mut batch = Batch { meta: meta.as_ref(), tx: Transaction::new() };
    batch.put(key::bucket(&bucket), owner.encode()).await?;
    let packs = chunks.div_ceil(PACK);
    for number in 0..packs {
        let row = PackRow {
            state: PackState::Sealed,
            bytes: PACK * (CHUNK + 56),
            directory_offset: PACK * CHUNK,
            chunks: PACK as u32,
            raw_bytes: PACK * CHUNK,
            ..PackRow::open(Timestamp(0), 1)
        };
        batch.put(key::pack(pack(number)), row.encode()).await?;
    }
    let runs = (packs - packs / DEAD) * PACK / RUN;
    let step = step(runs);
    for object in 0..runs.div_ceil(RUNS) {
        // Runs that follow each other in an object are far apart in the packs.
        let numbers = (object * RUNS..runs.min((object + 1) * RUNS)).map(|run| scattered(run, step, runs));
        let terms: Vec<Term> = numbers.map(term).collect();
        let row = ObjectRow {
            size: terms.iter().map(|term| term.bytes).sum(),
            etag: format!("{:032x}", mixed(object)),
            root_digest: Some(digest(object)),
            body: Body::Terms(terms),
            ..ObjectRow::empty()
        };
        let name: ObjectKey = format!("set/{object:012}").parse()?;
        batch.put(key::object(&bucket, &name), row.encode()).await?;
    }
    batch.end().await?;
    meta.close().await;
    Ok(())
}

/// `gc-plan DIR CHUNKS`: plans one round and prints what it took.
pub(crate) async fn plan(dir: &Path, chunks: u64) -> Result<(), Error> {
    let workers = Workers::new();
    let meta = Embedded::open(&dir.join("meta"))?;
    let disk = meta.disk_bytes().await?;
    let store = Store::open(meta, PackHome::local(dir.join("packs")), &workers).await?;
    let cpu = process_time();
    let report = store.gc(GcOptions { dry_run: true, ..GcOptions::default() }).await?;
    meter::print("gc plan", chunks, process_time() - cpu, report.seconds);
    let (packs, found) = (report.plan.packs, report.plan.condemn.len() as u64);
    for (name, value) in [("gc objects", report.objects), ("gc packs", packs), ("gc condemn", found), ("gc disk", disk)]
    {
        meter::print(name, value, 0.0, 0.0);
    }
    store.close().await;
    workers.stop().await;
    let dead = chunks.div_ceil(PACK) / DEAD;
    if found == dead { Ok(()) } else { Err(format!("{dead} packs are garbage, and the plan condemns {found}").into()) }
}

/// Rows that are committed together.
pub(crate) struct Batch<'a> {
    pub(crate) meta: &'a dyn Meta,
    pub(crate) tx: Transaction,
}

impl Batch<'_> {
    pub(crate) async fn put(&mut self, key: Vec<u8>, value: bytes::Bytes) -> Result<(), Error> {
        self.tx = std::mem::take(&mut self.tx).put(key, value);
        if self.tx.len() == TRANSACTION_KEYS_MAX {
            self.meta.commit(std::mem::take(&mut self.tx)).await?;
        }
        Ok(())
    }

    pub(crate) async fn end(self) -> Result<(), Error> {
        Ok(self.meta.commit(self.tx).await?)
    }
}

/// A step that visits each of `count` numbers once, because it has no divisor with it.
fn step(count: u64) -> u64 {
    let divisor = |mut a: u64, mut b: u64| {
        while b != 0 {
            (a, b) = (b, a % b);
        }
        a
    };
    (count / 7 * 3 + 1..).find(|step| divisor(*step, count) == 1).unwrap_or(1)
}

fn scattered(number: u64, step: u64, count: u64) -> u64 {
    (u128::from(number) * u128::from(step) % u128::from(count)) as u64
}

fn term(run: u64) -> Term {
    let first = (run * RUN % PACK) as u32;
    Term { pack: pack(run * RUN / PACK), first, count: RUN as u32, repeats: false, bytes: RUN * CHUNK }
}
