//! The chunk index at size: how fast it grows, how fast it answers, and what it takes. The rows are written as the store
//! writes them, pack by pack, and looked up in groups of the size in which ingest asks. xtask runs `index-fill` and
//! `index-look` as two processes, so that the second one's peak memory is that of looking up alone.

use std::path::Path;
use std::time::Instant;

use bedplate::format::manifest::Location;
use bedplate::format::row::{decode_location, encode_location, key};
use bedplate::meta::{Embedded, Transaction};
use bedplate::model::limit::TRANSACTION_KEYS_MAX;
use bedplate::model::{Digest, PackId};
use futures_util::future::try_join_all;
use rustix::time::{ClockId, clock_gettime};

use crate::{Error, meter};

/// Chunks of a pack: 64 MiB of mean length.
pub(crate) const PACK: u64 = 1024;
/// Digests looked up at once.
const GROUP: u64 = 128;

/// `index-fill DIR CHUNKS`: writes the rows of so many chunks.
pub(crate) async fn fill(dir: &Path, chunks: u64) -> Result<(), Error> {
    let meta = Embedded::open(dir)?;
    let began = (Instant::now(), process_time());
    for pack in 0..chunks.div_ceil(PACK) {
        let all: Vec<u64> = (pack * PACK..chunks.min((pack + 1) * PACK)).collect();
        let parts = all.chunks(TRANSACTION_KEYS_MAX).map(|part| {
            let tx = part.iter().fold(Transaction::new(), |tx, chunk| {
                tx.put(key::chunk(&digest(*chunk)), encode_location(location(*chunk)))
            });
            meta.commit(tx)
        });
        try_join_all(parts).await?;
    }
    meta.close().await;
    meter::print("index fill", chunks, process_time() - began.1, began.0.elapsed().as_secs_f64());
    Ok(())
}

/// `index-look DIR CHUNKS LOOKUPS`: asks for so many chunks that are there, spread over all, and as many that are not.
pub(crate) async fn look(dir: &Path, chunks: u64, lookups: u64) -> Result<(), Error> {
    let opened = Instant::now();
    let meta = Embedded::open(dir)?;
    meter::print("index open", chunks, 0.0, opened.elapsed().as_secs_f64());
    meter::print("index disk", meta.disk_bytes().await?, 0.0, 0.0);
    for (name, there) in [("index hit", true), ("index miss", false)] {
        let began = (Instant::now(), process_time());
        for group in 0..lookups.div_ceil(GROUP) {
            let absent = if there { 0 } else { chunks };
            let numbers: Vec<u64> = (0..GROUP).map(|at| mixed(group * GROUP + at) % chunks + absent).collect();
            let keys: Vec<Vec<u8>> = numbers.iter().map(|number| key::chunk(&digest(*number))).collect();
            for (number, row) in numbers.iter().zip(meta.get_many(&keys).await?) {
                match row {
                    Some(row) if there && decode_location(&row)? == location(*number) => {}
                    None if !there => {}
                    _ => return Err(format!("the index answers wrongly for chunk {number}").into()),
                }
            }
        }
        let asked = lookups.div_ceil(GROUP) * GROUP;
        meter::print(name, asked, process_time() - began.1, began.0.elapsed().as_secs_f64());
    }
    meta.close().await;
    Ok(())
}

/// The digest of a made-up chunk.
pub(crate) fn digest(chunk: u64) -> Digest {
    let mut bytes = [0; 32];
    for (part, word) in (0..).zip(bytes.chunks_exact_mut(8)) {
        word.copy_from_slice(&mixed(chunk * 4 + part).to_le_bytes());
    }
    Digest(bytes)
}

/// The id of a made-up pack.
pub(crate) fn pack(number: u64) -> PackId {
    let mut id = [0; 16];
    id[..8].copy_from_slice(&mixed(number ^ 0x00ba_dc0f_fee0_0000).to_be_bytes());
    id[8..].copy_from_slice(&number.to_be_bytes());
    PackId(id)
}

fn location(chunk: u64) -> Location {
    Location { pack: pack(chunk / PACK), chunk: (chunk % PACK) as u32 }
}

/// splitmix64 of one number.
pub(crate) fn mixed(number: u64) -> u64 {
    let mut mixed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ mixed >> 31
}

/// Processor time of this process, in seconds.
pub(crate) fn process_time() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}
