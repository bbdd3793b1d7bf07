//! What grows with the store: the chunk index at ten and a hundred million chunks, and a round of garbage collection as
//! the store grows tenfold and tenfold again. Each size is made up by benches/store below the work folder and removed.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use super::limit::{self, Line};
use crate::bench::process;
use crate::bench::report::{Table, figure};

/// Lookups of each kind.
const LOOKUPS: u64 = 1_000_000;
/// Memory within which all of it is to stay.
const MEMORY_MIB: f64 = 1024.0;

/// The index, at each number of chunks.
pub fn index(chunks: &[u64], work: &Path) -> Result<String> {
    let mut table = Table::new(&[
        "chunks",
        "written/s",
        "peak MiB",
        "hits/s",
        "per CPU-s",
        "misses/s",
        "per CPU-s",
        "peak MiB",
        "of 1 GiB",
        "disk MB",
        "bytes a chunk",
        "opened in s",
    ]);
    for count in chunks {
        println!("== an index of {count} chunks");
        let folder = fresh(work)?;
        let (filled, filling) = run(work, &["index-fill", &path(&folder), &count.to_string()])?;
        let look = ["index-look", &path(&folder), &count.to_string(), &LOOKUPS.to_string()];
        let (lines, looking) = run(work, &look)?;
        let (fill, disk) = (find(&filled, "index fill")?, find(&lines, "index disk")?.bytes);
        let (hit, miss) = (find(&lines, "index hit")?, find(&lines, "index miss")?);
        table.row(vec![
            count.to_string(),
            figure(fill.bytes as f64 / fill.wall),
            figure(filling),
            figure(hit.bytes as f64 / hit.wall),
            figure(hit.bytes as f64 / hit.cpu),
            figure(miss.bytes as f64 / miss.wall),
            figure(miss.bytes as f64 / miss.cpu),
            figure(looking),
            figure(looking / MEMORY_MIB),
            figure(disk as f64 / 1e6),
            figure(disk as f64 / *count as f64),
            figure(find(&lines, "index open")?.wall),
        ]);
        std::fs::remove_dir_all(&folder)?;
    }
    Ok(format!(
        "{}\nRows are written as packs are sealed, 1,024 chunks a pack, each commit durable. {LOOKUPS} lookups of chunks that \
         are there, spread over all of them, and as many of chunks that are not, in groups of 128, by one process that has \
         just opened the index; its peak is the second one, of which the limit is 1 GiB.\n",
        table.markdown()
    ))
}

/// A round of garbage collection, at each number of chunks.
pub fn gc(chunks: &[u64], work: &Path) -> Result<String> {
    let mut table = Table::new(&[
        "chunks",
        "packs",
        "objects",
        "round s",
        "CPU s",
        "CPU us a 1,000 chunks",
        "peak MiB",
        "of 1 GiB",
        "rows MB",
    ]);
    for count in chunks {
        println!("== a round over {count} chunks");
        let folder = fresh(work)?;
        run(work, &["gc-fill", &path(&folder), &count.to_string()])?;
        let (lines, peak) = run(work, &["gc-plan", &path(&folder), &count.to_string()])?;
        let plan = find(&lines, "gc plan")?;
        table.row(vec![
            count.to_string(),
            find(&lines, "gc packs")?.bytes.to_string(),
            find(&lines, "gc objects")?.bytes.to_string(),
            figure(plan.wall),
            figure(plan.cpu),
            figure(plan.cpu * 1e6 / (*count as f64 / 1e3)),
            figure(peak),
            figure(peak / MEMORY_MIB),
            figure(find(&lines, "gc disk")?.bytes as f64 / 1e6),
        ]);
        std::fs::remove_dir_all(&folder)?;
    }
    Ok(format!(
        "{}\nThe rows of a store of so many chunks are made up: packs of 1,024 chunks, objects of 16 runs of 64 chunks, each \
         run from another pack, one pack in a hundred without any reference. One round surveys them and plans; it finds \
         exactly the packs that nothing refers to. What deleting costs follows what is deleted and is not in here.\n",
        table.markdown()
    ))
}

/// Runs benches/store; answers its lines and its peak memory in MiB.
fn run(work: &Path, words: &[&str]) -> Result<(Vec<Line>, f64)> {
    let log = work.join("log");
    let usage = process::measure(Command::new(limit::program()?).args(words), &log)?;
    let text = std::fs::read_to_string(&log)?;
    // The database may say something too; what is not a line of ours is not measured.
    let lines = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    Ok((lines, usage.peak as f64 / f64::from(1 << 20)))
}

fn find<'a>(lines: &'a [Line], stage: &str) -> Result<&'a Line> {
    lines.iter().find(|line| line.stage == stage).with_context(|| format!("benches/store printed no {stage:?}"))
}

fn fresh(work: &Path) -> Result<PathBuf> {
    let folder = work.join("scale");
    if folder.exists() {
        std::fs::remove_dir_all(&folder)?;
    }
    std::fs::create_dir_all(&folder)?;
    Ok(folder)
}

fn path(folder: &Path) -> String {
    folder.to_string_lossy().into_owned()
}
