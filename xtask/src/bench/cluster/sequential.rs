//! One large file from its start to its end: cold, when all of it must travel; again, when the node's memory has it; and by a fresh
//! mount, when the node's disk has it.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};

use super::Bench;
use super::mounts::{Kind, Site};
use super::read::{self, Done};
use crate::bench::data::{lines, noise};
use crate::bench::process::{drop_cached, measure as usage, median, settle};
use crate::bench::report::{Table, figure};
use crate::bench::s3::server::{self, Kind as Server};
use crate::bench::{machine, s3};
use crate::served::Served;
use crate::shell;

/// Bytes of the file at scale 1.
const BYTES: f64 = 2e9;
/// Shares of a limit, and times of a rival, that are asked for.
const OF_THE_LIMIT: f64 = 0.8;
const OF_A_RIVAL: f64 = 2.0;

/// What a file's bytes cost anyone who reads them.
struct Limit {
    /// Bytes in packs.
    stored: u64,
    /// MB/s of plain HTTP.
    raw: f64,
    /// CPU seconds of decoding all of it.
    decode: f64,
}

impl Limit {
    /// MB/s of the file's own bytes that the stored ones allow, over HTTP and through the decoder on all cores.
    fn allows(&self, bytes: u64) -> f64 {
        let travel = self.stored as f64 / 1e6 / self.raw;
        bytes as f64 / 1e6 / travel.max(self.decode / machine::cores() as f64)
    }
}

/// What one mount took.
#[derive(Clone, Copy)]
struct Turn {
    kind: Kind,
    cold: Done,
    cpu: f64,
    again: Done,
    fresh: Option<Done>,
}

/// Measures it and returns the tables.
pub fn measure(bench: &Bench<'_>) -> Result<String> {
    let bytes = (BYTES * bench.scale) as u64;
    let mut text = String::new();
    for (title, random) in [("JSON lines", false), ("Random bytes, stored raw", true)] {
        println!("== sequential: {title}");
        let data = bench.work.join(format!("sequential-{}", std::process::id()));
        std::fs::create_dir_all(&data)?;
        if random {
            noise::write(&data.join("part-00000.jsonl"), bytes)?;
        } else {
            lines::one_file(&data, bytes, 3)?;
        }
        text.push_str(&format!("### {title}\n\n{}\n", one(bench, &data)?));
        std::fs::remove_dir_all(&data)?;
    }
    Ok(text)
}

fn one(bench: &Bench<'_>, data: &Path) -> Result<String> {
    let name = "part-00000.jsonl";
    let length = data.join(name).metadata()?.len();
    let mut site = Site::start(&bench.programs, bench.work)?;
    site.fill(data)?;
    let limit = limit(bench, &site.served, &data.join(name))?;
    let mut turns = Vec::new();
    for _ in 0..bench.repeat {
        for kind in [&[Kind::Bedplate][..], &Kind::RIVALS].concat() {
            println!("== sequential: {}", kind.name());
            turns.push(turn(&site, kind, name, length).with_context(|| format!("{} failed", kind.name()))?);
        }
    }
    let passed = passed_through(bench, &site, data, name, length)?;
    site.served.stop()?;
    std::fs::remove_dir_all(&site.home)?;
    Ok(table(&turns, length, &limit, &passed))
}

/// Cold, then again with the same mount, then with a fresh mount over what the first one left on the disk, and nothing in memory.
fn turn(site: &Site<'_>, kind: Kind, name: &str, length: u64) -> Result<Turn> {
    let cache = site.empty("cache")?;
    settle(&site.home)?;
    let mounted = site.mount(kind, &cache)?;
    let before = site.served.cpu()? + mounted.cpu()?;
    let cold = read::whole(&mounted.folder.join(name), length)?;
    let cpu = site.served.cpu()? + mounted.cpu()? - before;
    let again = read::whole(&mounted.folder.join(name), length)?;
    mounted.end()?;
    let keeps = matches!(kind, Kind::Bedplate | Kind::RcloneCached | Kind::S3fsCached);
    let fresh = keeps.then(|| -> Result<Done> {
        settle(&site.home)?;
        drop_cached(&cache)?;
        let mounted = site.mount(kind, &cache)?;
        let fresh = read::whole(&mounted.folder.join(name), length)?;
        mounted.end()?;
        Ok(fresh)
    });
    Ok(Turn { kind, cold, cpu, again, fresh: fresh.transpose()? })
}

/// The local file through FUSE that adds nothing: from the disk by a mount that has not read it yet, and again.
fn passed_through(bench: &Bench<'_>, site: &Site<'_>, data: &Path, name: &str, length: u64) -> Result<[f64; 2]> {
    let mut rates = [Vec::new(), Vec::new()];
    for _ in 0..bench.repeat {
        settle(&site.home)?;
        drop_cached(data)?;
        let mounted = site.mount(Kind::Passthrough, data)?;
        for rates in &mut rates {
            rates.push(read::whole(&mounted.folder.join(name), length)?.megabytes());
        }
        mounted.end()?;
    }
    Ok(rates.map(median))
}

/// What plain HTTP and the decoder take for these bytes.
fn limit(bench: &Bench<'_>, served: &Served, file: &Path) -> Result<Limit> {
    let text = shell::output(&mut served.command(&["store", "stats", "--output", "json"]))?;
    let stats: serde_json::Value = serde_json::from_str(&text)?;
    let stored = stats["stored_bytes"].as_u64().context("store stats tell no stored_bytes")?;
    let programs = s3::server::Programs::ready(Some(&bench.programs.bedplate), false)?;
    let bare = programs.start(Server::Bare, bench.work)?;
    let size = format!("size={}", 64 << 20);
    bare.load(&["op=put", &size, "requests=1"])?;
    let mut rates = Vec::new();
    for _ in 0..bench.repeat {
        let requests = format!("requests={}", (stored >> 26).max(4));
        rates.push(bare.load(&["op=get", &size, "objects=1", &requests])?.megabytes());
    }
    bare.stop()?;
    server::clear(bench.work)?;
    Ok(Limit { stored, raw: median(rates), decode: decode(file, bench)? })
}

/// CPU seconds that `zstd -d` takes for the whole file; none where the file does not compress.
fn decode(file: &Path, bench: &Bench<'_>) -> Result<f64> {
    let (packed, log) = (bench.work.join("packed.zst"), bench.work.join("packed.log"));
    usage(Command::new("zstd").args(["-q", "-f", "-1", "-o"]).arg(&packed).arg(file), &log)?;
    let shrinks = packed.metadata()?.len() < file.metadata()?.len() / 10 * 9;
    let mut times = Vec::new();
    for _ in 0..bench.repeat {
        times.push(usage(Command::new("zstd").args(["-q", "-t"]).arg(&packed), &log)?.cpu);
    }
    for file in [packed, log] {
        std::fs::remove_file(file)?;
    }
    Ok(if shrinks { median(times) } else { 0.0 })
}

fn table(turns: &[Turn], length: u64, limit: &Limit, passed: &[f64; 2]) -> String {
    let of = |kind: Kind, pick: &dyn Fn(&Turn) -> Option<f64>| {
        median(turns.iter().filter(|turn| turn.kind == kind).filter_map(pick).collect())
    };
    let cold = |kind| of(kind, &|turn| Some(turn.cold.megabytes()));
    let again = |kind| of(kind, &|turn| Some(turn.again.megabytes()));
    let fresh = |kind| of(kind, &|turn| turn.fresh.map(|done| done.megabytes()));
    let mut table =
        Table::new(&["mount", "cold, MB/s", "CPU s per GB", "again, MB/s", "fresh mount, MB/s", "its cache"]);
    for kind in [&[Kind::Bedplate][..], &Kind::RIVALS].concat() {
        table.row(vec![
            kind.name().into(),
            figure(cold(kind)),
            figure(of(kind, &|turn| Some(turn.cpu / (length as f64 / 1e9)))),
            figure(again(kind)),
            figure(fresh(kind)),
            if fresh(kind).is_nan() { "none" } else { "kept" }.into(),
        ]);
    }
    table.row(vec![
        Kind::Passthrough.name().into(),
        figure(passed[0]),
        "-".into(),
        figure(passed[1]),
        "-".into(),
        "-".into(),
    ]);
    let best = |one: &dyn Fn(Kind) -> f64, a, b| one(a).max(one(b));
    let mut asked = Table::new(&["asked", "figure", "at least", "kept"]);
    let mut ask = |what: String, figure_is: f64, least: f64| {
        asked.row(vec![what, figure(figure_is), figure(least), s3::kept(figure_is >= least)]);
    };
    let allows = limit.allows(length);
    ask(
        format!("cold : what the stored bytes allow ({} MB/s)", figure(allows)),
        cold(Kind::Bedplate) / allows,
        OF_THE_LIMIT,
    );
    let rclone = best(&cold, Kind::Rclone, Kind::RcloneCached);
    ask("cold : rclone".into(), cold(Kind::Bedplate) / rclone, OF_A_RIVAL);
    let s3fs = best(&cold, Kind::S3fs, Kind::S3fsCached);
    ask("cold : s3fs".into(), cold(Kind::Bedplate) / s3fs, OF_A_RIVAL);
    ask("again : bindfs, again".into(), again(Kind::Bedplate) / passed[1], OF_THE_LIMIT);
    ask("fresh mount, cache on the disk : bindfs, cold".into(), fresh(Kind::Bedplate) / passed[0], OF_THE_LIMIT);
    format!(
        "{}\n{}\nFresh mounts, and bindfs when it is cold, read from the disk: the page cache was dropped. The file has {} MB, {} of them stored. Plain HTTP moves {} MB/s here; `zstd -d` takes {} CPU s for the file, \
         and what the stored bytes allow is the slower of the two, with decoding on all cores.\n",
        table.markdown(),
        asked.markdown(),
        figure(length as f64 / 1e6),
        figure(limit.stored as f64 / 1e6),
        figure(limit.raw),
        figure(limit.decode),
    )
}
