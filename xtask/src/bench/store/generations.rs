//! Fifty generations of one file, each changed in about one of a hundred spots of 64 KiB, all kept; then how fast the first
//! and the last come back. With the fragmentation guard as it is shipped, and with none, and beside the same last generation
//! in a store of its own, which is as good as it can lie.

use std::path::{Path, PathBuf};
use std::process::Command;

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

const SETTINGS: [Setting; 2] = [
    Setting { name: "guard, 4 chunks a term", config: "" },
    Setting { name: "no guard", config: "[serve]\nchunks-per-term = 0\n" },
];

/// A store of one setting.
struct Kept {
    name: &'static str,
    program: Bedplate,
    home: PathBuf,
    /// Bytes that it took after the first and after the last generation.
    stored: [u64; 2],
    /// CPU seconds of all imports after the first.
    cpu: f64,
}

/// Measures it and returns the table.
pub fn measure(program: &Path, scale: f64, repeat: u32, work: &Path) -> Result<String> {
    let folder = work.join("generations");
    if folder.exists() {
        std::fs::remove_dir_all(&folder)?;
    }
    let (current, next) = (folder.join("current"), folder.join("next"));
    println!("== {GENERATIONS} generations of {:.0} MB", BYTES * scale / 1e6);
    lines::one_file(&current, (BYTES * scale) as u64, 7)?;
    let log = folder.join("log");
    let mut kept = Vec::new();
    for (number, setting) in SETTINGS.iter().enumerate() {
        let home = folder.join(number.to_string());
        std::fs::create_dir_all(&home)?;
        std::fs::write(home.join("config.toml"), setting.config)?;
        let program = Bedplate { program: program.to_path_buf(), config: Some(home.join("config.toml")) };
        kept.push(Kept { name: setting.name, program, home, stored: [0; 2], cpu: 0.0 });
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
                store.stored[0] = process::disk_bytes(&store.program.repository(&store.home))?;
            } else {
                store.cpu += usage.cpu;
            }
        }
    }
    let bytes = data::bytes(&current)?;
    let fresh = folder.join("fresh");
    std::fs::create_dir_all(&fresh)?;
    let alone = Bedplate { program: program.to_path_buf(), config: None };
    process::measure(&mut alone.keep(&fresh, &name(GENERATIONS), &current), &log)?;

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
    let back = |program: &Bedplate, home: &Path, generation: u64, cold: bool| {
        let runs = (0..repeat).map(|_| read_back(program, home, generation, cold, &folder.join("back"), &log));
        runs.collect::<Result<Vec<Usage>>>().map(|runs| (of(&runs, |run| run.wall), of(&runs, |run| run.cpu)))
    };
    let (alone_warm, alone_cpu) = back(&alone, &fresh, GENERATIONS, false)?;
    let (alone_cold, _) = back(&alone, &fresh, GENERATIONS, true)?;
    for store in &mut kept {
        store.stored[1] = process::disk_bytes(&store.program.repository(&store.home))?;
        let (first, first_cpu) = back(&store.program, &store.home, 1, false)?;
        let (last, last_cpu) = back(&store.program, &store.home, GENERATIONS, false)?;
        let (cold, _) = back(&store.program, &store.home, GENERATIONS, true)?;
        data::compare(&current, &folder.join("back")).context("the last generation came back changed")?;
        table.row(vec![
            store.name.into(),
            figure(store.stored[1] as f64 / 1e6),
            figure(store.stored[1] as f64 / store.stored[0] as f64),
            figure(rate(bytes * (GENERATIONS - 1), store.cpu)),
            figure(rate(bytes, first)),
            figure(rate(bytes, first_cpu)),
            figure(rate(bytes, last)),
            figure(rate(bytes, last_cpu)),
            figure(alone_cpu / last_cpu),
            figure(rate(bytes, cold)),
            figure(alone_cold / cold),
        ]);
    }
    let stored = process::disk_bytes(&alone.repository(&fresh))?;
    table.row(vec![
        "the last alone".into(),
        figure(stored as f64 / 1e6),
        "-".into(),
        "-".into(),
        "-".into(),
        "-".into(),
        figure(rate(bytes, alone_warm)),
        figure(rate(bytes, alone_cpu)),
        figure(1.0),
        figure(rate(bytes, alone_cold)),
        figure(1.0),
    ]);
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
        drop_cached(&program.repository(home))?;
    }
    process::measure(&mut program.give_back(home, &name(generation), into), log)
}

/// Drops the files below `folder` out of the page cache.
fn drop_cached(folder: &Path) -> Result<()> {
    for file in data::files(folder)? {
        let mut input = std::ffi::OsString::from("if=");
        input.push(&file);
        crate::shell::run(Command::new("dd").arg(input).args(["iflag=nocache", "count=0", "status=none"]))?;
    }
    Ok(())
}

fn of(runs: &[Usage], value: fn(&Usage) -> f64) -> f64 {
    median(runs.iter().map(value).collect())
}
