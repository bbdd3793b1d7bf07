//! What a round costs in time and memory on a store of a hundred million chunks. The packs and manifests are made up; no chunk is stored.

use std::sync::Arc;
use std::time::Instant;

use bedplate::format::manifest::Term;
use bedplate::format::row::{self, Body, ObjectRow, PackRow, PackState};
use bedplate::meta::{Meta, Transaction};
use bedplate::model::PackId;
use bedplate::store::GcOptions;
use bedplate::sys::clock::Timestamp;

use super::{Opened, bucket, key, open_meta};

const CHUNKS_IN_PACK: u32 = 1000;
const CHUNK: u64 = 64 * 1024;
/// One pack in so many is garbage.
const GARBAGE: u64 = 100;
/// Terms of an object, in manifest rows of 1,024 as the store writes them.
const TERMS: usize = 8192;

fn pack(number: u64) -> PackId {
    let mut id = [0; 16];
    id[..8].copy_from_slice(&number.to_be_bytes());
    PackId(id)
}

/// Rows of so many packs, and of objects that refer to every chunk of all that are not garbage, run by run in no order.
async fn fill(meta: &Arc<dyn Meta>, packs: u64, run: u32) {
    let bytes = u64::from(CHUNKS_IN_PACK) * CHUNK;
    let sealed = PackRow {
        state: PackState::Sealed,
        bytes,
        directory_offset: bytes - 60_000,
        chunks: CHUNKS_IN_PACK,
        raw_bytes: bytes,
        ..PackRow::open(Timestamp(0), 1)
    };
    let numbers: Vec<u64> = (0..packs).collect();
    for some in numbers.chunks(400) {
        let tx = some.iter().fold(Transaction::new(), |tx, n| tx.put(row::key::pack(pack(*n)), sealed.encode()));
        meta.commit(tx).await.unwrap();
    }
    let runs = u64::from(CHUNKS_IN_PACK / run);
    let live: Vec<u64> = numbers.into_iter().filter(|n| n % GARBAGE != 0).collect();
    let total = live.len() as u64 * runs;
    // A step that shares no divisor with the number of runs visits each of them once.
    let mut step = total / 3 * 2 + 1;
    while (2..1000u64).any(|d| total.is_multiple_of(d) && step.is_multiple_of(d)) {
        step += 1;
    }
    let mut at = 0u64;
    let terms: Vec<Term> = Vec::with_capacity(TERMS);
    let mut open = terms;
    for n in 0..total {
        at = (at + step) % total;
        let first = (at % runs) as u32 * run;
        let bytes = u64::from(run) * CHUNK;
        open.push(Term { pack: pack(live[(at / runs) as usize]), first, count: run, repeats: false, bytes });
        if open.len() == TERMS || n + 1 == total {
            object(meta, n, &open).await;
            open.clear();
        }
    }
}

async fn object(meta: &Arc<dyn Meta>, number: u64, terms: &[Term]) {
    let mut id = [7; 16];
    id[8..].copy_from_slice(&number.to_be_bytes());
    let mut end = 0;
    let mut tx = Transaction::new();
    for terms in terms.chunks(1024) {
        end += terms.iter().map(|term| term.bytes).sum::<u64>();
        tx = tx.put(row::key::manifest(&id, end), row::encode_terms(terms));
    }
    let object = ObjectRow { size: end, etag: "made-up".into(), body: Body::Rows(id), ..ObjectRow::empty() };
    meta.commit(tx.put(row::key::object(&bucket(), &key(&number.to_string())), object.encode())).await.unwrap();
}

/// A line of /proc/self/status, in MiB.
fn memory(what: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with(what)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
}

/// Measures; run it alone, built for release: `cargo test --release --test it gc::large -- --ignored --nocapture`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement: it takes minutes and some gigabytes of disk"]
async fn a_round_over_a_hundred_million_chunks() {
    // Runs of eight chunks, as in a store that has seen many near-copies; and no two chunks that follow each other, which is the worst.
    for (packs, run) in [(10_000, 8), (100_000, 8), (100_000, 1)] {
        let dir = tempfile::tempdir().unwrap();
        let meta = open_meta(dir.path()).await;
        let opened = Opened::open_on(dir.path(), meta.clone()).await;
        fill(&meta, packs, run).await;
        let before = memory("VmRSS");
        std::fs::write("/proc/self/clear_refs", "5").unwrap();
        let begin = Instant::now();
        let report = opened.store.gc(GcOptions::default()).await.unwrap();
        let seconds = begin.elapsed().as_secs_f64();
        let peak = memory("VmHWM");
        eprintln!(
            "{} chunks in runs of {run}, {packs} packs, {} objects, metadata {} MiB: {seconds:.1} s, peak RSS {peak} MiB ({before} before)",
            packs * u64::from(CHUNKS_IN_PACK),
            report.objects,
            meta.disk_bytes().await.unwrap() >> 20,
        );
        assert_eq!(report.done.condemned, packs.div_ceil(GARBAGE));
        assert!(peak < 1024 && seconds < 600.0);
    }
}
