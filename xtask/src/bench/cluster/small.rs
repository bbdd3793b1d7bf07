//! Many small files, each read whole, in shuffled order, over two epochs: what a set of images looks like to a training job.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use super::Bench;
use super::mounts::{Kind, Site};
use super::read::{self, Done};
use crate::bench::data::numbers::Numbers;
use crate::bench::process::{median, settle};
use crate::bench::report::{Table, figure};
use crate::bench::s3;
use crate::shell;

/// Files at scale 1, and how many lie in one folder.
const FILES: f64 = 50_000.0;
const IN_A_FOLDER: u64 = 1_000;
/// Bytes of each.
const BYTES: usize = 100_000;
/// Files that are read at once.
const READERS: u64 = 8;
/// Times of a rival that are asked for.
const OF_A_RIVAL: f64 = 3.0;

/// Both epochs of one mount.
struct Turn {
    kind: Kind,
    epochs: [Done; 2],
    cpu: [f64; 2],
}

/// Measures it and returns the table.
pub fn measure(bench: &Bench<'_>) -> Result<String> {
    let count = ((FILES * bench.scale) as u64).max(100);
    println!("== small: writing {count} files");
    let data = bench.work.join(format!("small-{}", std::process::id()));
    let names = write(&data, count)?;
    let mut site = Site::start(&bench.programs, bench.work)?;
    site.fill(&data)?;
    let kinds = [Kind::Bedplate, Kind::Rclone, Kind::RcloneCached, Kind::S3fs, Kind::S3fsCached];
    let mut turns = Vec::new();
    for repeat in 0..bench.repeat {
        for kind in kinds {
            println!("== small: {}", kind.name());
            // Nothing is removed before the end: for minutes, ext4 looks at each inode that was freed before it gives out another.
            let cache = site.empty(&format!("cache-{}", turns.len()))?;
            let turn = turn(&site, kind, &cache, &names, u64::from(repeat));
            turns.push(turn.with_context(|| format!("{} failed", kind.name()))?);
        }
    }
    site.served.stop()?;
    for folder in [&site.home, &data] {
        std::fs::remove_dir_all(folder)?;
    }
    Ok(table(&kinds, &turns, count))
}

fn write(folder: &Path, count: u64) -> Result<Vec<PathBuf>> {
    let mut numbers = Numbers::new(0x1a6e);
    let mut bytes = vec![0; BYTES];
    let mut names = Vec::new();
    for number in 0..count {
        let name = PathBuf::from(format!("{:03}/{number:06}.jpg", number / IN_A_FOLDER));
        std::fs::create_dir_all(folder.join(format!("{:03}", number / IN_A_FOLDER)))?;
        for piece in bytes.chunks_mut(8) {
            piece.copy_from_slice(&numbers.next().to_le_bytes()[..piece.len()]);
        }
        std::fs::write(folder.join(&name), &bytes)?;
        names.push(name);
    }
    Ok(names)
}

/// Two epochs; during our second the appliance is stopped (SIGSTOP), so that whatever asked it would hang.
fn turn(site: &Site<'_>, kind: Kind, cache: &Path, names: &[PathBuf], seed: u64) -> Result<Turn> {
    settle(&site.home)?;
    let mounted = site.mount(kind, cache)?;
    let spent = || -> Result<f64> { Ok(site.served.cpu()? + mounted.cpu()?) };
    let start = spent()?;
    let first = read::shuffled(&mounted.folder, names, READERS, seed * 2)?;
    let middle = spent()?;
    let stopped = (kind == Kind::Bedplate).then(|| Stopped::new(site.served.id())).transpose()?;
    let second = read::shuffled(&mounted.folder, names, READERS, seed * 2 + 1)?;
    drop(stopped);
    let cpu = [middle - start, spent()? - middle];
    mounted.end()?;
    Ok(Turn { kind, epochs: [first, second], cpu })
}

/// A process that does nothing until this is dropped.
struct Stopped(String);

impl Stopped {
    fn new(id: u32) -> Result<Self> {
        let id = id.to_string();
        shell::run(Command::new("kill").args(["-STOP", &id]))?;
        Ok(Self(id))
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        // A process that has ended needs no waking.
        drop(shell::run(Command::new("kill").args(["-CONT", &self.0])));
    }
}

fn table(kinds: &[Kind], turns: &[Turn], count: u64) -> String {
    let of = |kind: Kind, pick: &dyn Fn(&Turn) -> f64| {
        median(turns.iter().filter(|turn| turn.kind == kind).map(pick).collect())
    };
    let rate = |kind, epoch: usize| of(kind, &|turn| turn.epochs[epoch].rate());
    let mut table = Table::new(&[
        "mount",
        "files a second",
        "CPU ms a file",
        "ours : theirs",
        "second epoch",
        "CPU ms a file",
        "ours : theirs",
        "at least",
        "kept",
    ]);
    for kind in kinds {
        let is_ours = *kind == Kind::Bedplate;
        let mut cells = vec![kind.name().to_owned()];
        let mut kept = true;
        for epoch in [0, 1] {
            let ratio = rate(Kind::Bedplate, epoch) / rate(*kind, epoch);
            kept &= ratio >= OF_A_RIVAL;
            cells.push(figure(rate(*kind, epoch)));
            cells.push(figure(of(*kind, &|turn| turn.cpu[epoch] / count as f64 * 1e3)));
            cells.push(figure(if is_ours { f64::NAN } else { ratio }));
        }
        cells.push(figure(if is_ours { f64::NAN } else { OF_A_RIVAL }));
        cells.push(if is_ours { "-".into() } else { s3::kept(kept) });
        table.row(cells);
    }
    format!(
        "{}\n{count} files of {BYTES} random bytes, {READERS} readers, from an empty cache. During our second epoch the appliance \
         is stopped (SIGSTOP): nothing can have come from it.\n",
        table.markdown(),
    )
}
