//! Fifty generations of one file, each changed in about one of a hundred spots of 64 KiB, all kept; then how fast the first
//! and the last come back. With the fragmentation guard at several settings, and with none, and beside the same last generation
//! in a store of its own, which is as good as it can lie.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::contender::Contender as _;
use super::ours::Bedplate;
use crate::bench::data::{self, lines, near};
use crate::bench::process::{self, Usage, median};
use crate::bench::report::{Table, figure, rate};

const GENERATIONS: u64 = 50;
/// Bytes of the file, at scale 1.
const BYTES: f64 = 512e6;

/// How a store shares chunks.
struct Setting {
    name: &'static str,
    config: &'static str,
}

const SETTINGS: [Setting; 3] = [
    Setting { name: "4 chunks a term", config: "[serve]\nchunks-per-term = 4\n" },
    Setting { name: "2 chunks a term", config: "[serve]\nchunks-per-term = 2\n" },
    Setting { name: "no guard", config: "[serve]\nchunks-per-term = 0\n" },
];

/// A store of one setting.
struct Kept {
    name: &'static str,
    program: Bedplate,
    home: PathBuf,
    /// Bytes that it took after the first generation.
    first: u64,
    /// CPU seconds of all imports after the first.
    cpu: f64,
}

/// Measures it and returns the table.
pub fn measure(program: &Path, scale: f64, repeat: u32, work: &Path) -> Result<String> {
    let folder = work.join("generations");
    if folder.exists() {
        std::fs::remove_dir_all(&folder)?;
    }
    println!("== {GENERATIONS} generations of {:.0} MB", BYTES * scale / 1e6);
    let kept = keep(program, (BYTES * scale) as u64, &folder)?;
    let bench = Bench { folder: &folder, log: folder.join("log"), repeat };
    let bytes = data::bytes(&bench.current())?;
    let alone = Kept::new("the last alone", program, &folder.join("alone"), "")?;
    process::measure(&mut alone.program.keep(&alone.home, &name(GENERATIONS), &bench.current()), &bench.log)?;
    let best = bench.back(&alone, GENERATIONS, false)?;
    let best_cold = bench.back(&alone, GENERATIONS, true)?;

    let mut table = Table::new(&[
        "store",
        "stored MB",
        "grown to",
        "import MB per CPU-s",
        "first MB/s",
        "per CPU-s",
        "last MB/s",
        "per CPU-s",
        "last : alone",
        "last, cold, MB/s",
        "last : alone",
    ]);
    for store in &kept {
        let first = bench.back(store, 1, false)?;
        let last = bench.back(store, GENERATIONS, false)?;
        let cold = bench.back(store, GENERATIONS, true)?;
        data::compare(&bench.current(), &bench.restored()).context("the last generation came back changed")?;
        let mut row = vec![store.name.into(), figure(store.stored()? as f64 / 1e6)];
        row.push(figure(store.stored()? as f64 / store.first as f64));
        row.push(figure(rate(bytes * (GENERATIONS - 1), store.cpu)));
        row.extend([first.wall, first.cpu, last.wall, last.cpu].map(|seconds| figure(rate(bytes, seconds))));
        row.push(figure(best.cpu / last.cpu));
        row.push(figure(rate(bytes, cold.wall)));
        row.push(figure(best_cold.wall / cold.wall));
        table.row(row);
    }
    let mut row = vec![alone.name.into(), figure(alone.stored()? as f64 / 1e6)];
    row.extend(["-"; 4].map(String::from));
    row.extend([figure(rate(bytes, best.wall)), figure(rate(bytes, best.cpu)), figure(1.0)]);
    row.extend([figure(rate(bytes, best_cold.wall)), figure(1.0)]);
    table.row(row);
    std::fs::remove_dir_all(&folder)?;
    Ok(format!(
        "{}\nJSON lines of {:.0} MB; each generation is the one before with a change in about one of a hundred spots of 64 KiB, \
         half of them insertions, and all {GENERATIONS} are kept. \"Grown to\" is the stored size over that of the first \
         generation alone. Warm is out of the page cache, its ratio of CPU time; cold after the packs were dropped out of it, \
         its ratio of time.\n",
        table.markdown(),
        bytes as f64 / 1e6
    ))
}

/// Makes the generations one after the other, and keeps each in a store of each setting; the last one stays.
fn keep(program: &Path, bytes: u64, folder: &Path) -> Result<Vec<Kept>> {
    let (current, next, log) = (folder.join("current"), folder.join("next"), folder.join("log"));
    lines::one_file(&current, bytes, 7)?;
    let mut kept = Vec::new();
    for (number, setting) in SETTINGS.iter().enumerate() {
        kept.push(Kept::new(setting.name, program, &folder.join(number.to_string()), setting.config)?);
    }
    for generation in 1..=GENERATIONS {
        if generation > 1 {
            near::copy(&current, &next, generation)?;
            std::fs::remove_dir_all(&current)?;
            std::fs::rename(&next, &current)?;
        }
        for store in &mut kept {
            let usage = process::measure(&mut store.program.keep(&store.home, &name(generation), &current), &log)?;
            if generation == 1 {
                store.first = store.stored()?;
            } else {
                store.cpu += usage.cpu;
            }
        }
    }
    Ok(kept)
}

impl Kept {
    fn new(name: &'static str, program: &Path, home: &Path, config: &str) -> Result<Self> {
        std::fs::create_dir_all(home)?;
        std::fs::write(home.join("config.toml"), config)?;
        let program = Bedplate { program: program.to_path_buf(), config: Some(home.join("config.toml")) };
        Ok(Self { name, program, home: home.to_path_buf(), first: 0, cpu: 0.0 })
    }

    /// Bytes that it takes.
    fn stored(&self) -> Result<u64> {
        process::disk_bytes(&self.program.repository(&self.home))
    }
}

/// How generations are read back.
struct Bench<'a> {
    folder: &'a Path,
    log: PathBuf,
    repeat: u32,
}

impl Bench<'_> {
    fn current(&self) -> PathBuf {
        self.folder.join("current")
    }

    fn restored(&self) -> PathBuf {
        self.folder.join("back")
    }

    /// The medians of some exports.
    fn back(&self, store: &Kept, generation: u64, cold: bool) -> Result<Usage> {
        let run = |_| read_back(&store.program, &store.home, generation, cold, &self.restored(), &self.log);
        let runs = (0..self.repeat).map(run).collect::<Result<Vec<Usage>>>()?;
        let of = |value: fn(&Usage) -> f64| median(runs.iter().map(value).collect());
        Ok(Usage { wall: of(|run| run.wall), cpu: of(|run| run.cpu), peak: of(|run| run.peak as f64) as u64 })
    }
}

fn name(generation: u64) -> String {
    format!("g{generation:02}")
}

/// One export into an empty folder.
fn read_back(program: &Bedplate, home: &Path, generation: u64, cold: bool, into: &Path, log: &Path) -> Result<Usage> {
    if into.exists() {
        std::fs::remove_dir_all(into)?;
    }
    std::fs::create_dir_all(into)?;
    process::settle(home)?;
    if cold {
        process::drop_cached(&program.repository(home))?;
    }
    process::measure(&mut program.give_back(home, &name(generation), into), log)
}
