//! Spots of 64 KiB in one large file, read by 16 readers: what shuffled records of a large shard look like.

use std::time::Duration;

use anyhow::{Context as _, Result};

use super::Bench;
use super::mounts::{Kind, Site};
use super::read::{self, Done};
use crate::bench::data::noise;
use crate::bench::process::{median, settle};
use crate::bench::report::{Table, figure};
use crate::bench::s3;

/// Bytes of the file at scale 1.
const BYTES: f64 = 10.0 * (1 << 30) as f64;
/// Bytes of a spot, and readers at once.
const SPOT: u64 = 64 << 10;
const READERS: u64 = 16;
/// How long each mount is read from.
const TIME: Duration = Duration::from_secs(10);
/// Times of a rival that are asked for.
const OF_A_RIVAL: f64 = 3.0;
/// The file.
const NAME: &str = "noise.bin";

/// Measures it and returns the table.
pub fn measure(bench: &Bench<'_>) -> Result<String> {
    let bytes = (BYTES * bench.scale) as u64 / SPOT * SPOT;
    println!("== random: writing {} MB", bytes / 1_000_000);
    let data = bench.work.join(format!("random-{}", std::process::id()));
    std::fs::create_dir_all(&data)?;
    noise::write(&data.join(NAME), bytes)?;
    let mut site = Site::start(&bench.programs, bench.work)?;
    site.fill(&data)?;
    std::fs::remove_dir_all(&data)?;
    let kinds = [&[Kind::Bedplate][..], &Kind::RIVALS].concat();
    let mut turns: Vec<(Kind, Done, f64)> = Vec::new();
    for repeat in 0..bench.repeat {
        for kind in &kinds {
            println!("== random: {}", kind.name());
            let cache = site.empty("cache")?;
            settle(&site.home)?;
            let mounted = site.mount(*kind, &cache)?;
            let before = site.served.cpu()? + mounted.cpu()?;
            let file = mounted.folder.join(NAME);
            let done = read::spots(&file, bytes, SPOT, READERS, TIME, u64::from(repeat))
                .with_context(|| format!("{} failed", kind.name()))?;
            turns.push((*kind, done, site.served.cpu()? + mounted.cpu()? - before));
            mounted.end()?;
        }
    }
    site.served.stop()?;
    std::fs::remove_dir_all(&site.home)?;
    Ok(table(&kinds, &turns, bytes))
}

fn table(kinds: &[Kind], turns: &[(Kind, Done, f64)], bytes: u64) -> String {
    let of = |kind: Kind, pick: &dyn Fn(&Done, f64) -> f64| {
        median(turns.iter().filter(|turn| turn.0 == kind).map(|turn| pick(&turn.1, turn.2)).collect())
    };
    let rate = |kind| of(kind, &|done, _| done.rate());
    let mut table =
        Table::new(&["mount", "reads a second", "MB/s", "CPU ms a read", "ours : theirs", "at least", "kept"]);
    for kind in kinds {
        let ratio = rate(Kind::Bedplate) / rate(*kind);
        let is_ours = *kind == Kind::Bedplate;
        table.row(vec![
            kind.name().into(),
            figure(rate(*kind)),
            figure(of(*kind, &|done, _| done.megabytes())),
            figure(of(*kind, &|done, cpu| cpu / done.count as f64 * 1e3)),
            figure(if is_ours { f64::NAN } else { ratio }),
            figure(if is_ours { f64::NAN } else { OF_A_RIVAL }),
            if is_ours { "-".into() } else { s3::kept(ratio >= OF_A_RIVAL) },
        ]);
    }
    format!(
        "{}\nThe file has {} MB of random bytes; {READERS} readers read {} s each, from an empty cache, and every mount the same \
         spots.\n",
        table.markdown(),
        figure(bytes as f64 / 1e6),
        TIME.as_secs(),
    )
}
