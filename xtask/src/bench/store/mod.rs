//! `cargo xtask bench store`: the store engine. Each part stands alone and writes its own part of docs/bench-store.md.

mod contender;
mod generations;
mod limit;
mod memory;
mod ours;
mod rival;
mod scale;
mod sets;
mod stages;
mod verdict;

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use clap::{Args, ValueEnum};

use super::data::{self, Set};
use super::report::{self, Document};

const TITLE: &str = "\
# The store engine, measured

Everything here is written by `cargo xtask bench store --write`; each part says with which command, on what machine and
when. Our figure, the rivals' and the limits of a part come from the same run on the same data, interleaved, as separate
processes that read from the page cache; figures are medians. MB are 10^6 bytes, MiB 2^20. CPU seconds are user and
system time of the whole process and its children; the peak is resident memory.";

/// What to measure, and how.
#[derive(Args)]
pub struct Arguments {
    /// Parts, separated by commas [default: sets,stages]
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Part>,
    /// Data sets, separated by commas [default: all]
    #[arg(long = "set", value_enum, value_delimiter = ',', value_name = "SET")]
    sets: Vec<Set>,
    /// Size of everything; 1 is 70 MB to 1.3 GB for a data set, and what the goals say for the other parts
    #[arg(long, default_value_t = 1.0)]
    scale: f64,
    /// Runs of which the median is taken
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    repeat: u32,
    /// GiB of the streams of the part `memory`
    #[arg(long, default_value_t = 20.0)]
    gib: f64,
    /// Measure this `bedplate` instead of building one
    #[arg(long, value_name = "FILE")]
    bedplate: Option<PathBuf>,
    /// Run only these programs, by the beginning of their names, separated by commas
    #[arg(long, value_delimiter = ',', value_name = "NAME")]
    programs: Vec<String>,
    /// Folder for repositories and restored files (default: target/bench/work)
    #[arg(long, value_name = "DIR")]
    work: Option<PathBuf>,
    /// Write what was measured to docs/bench-store.md
    #[arg(long)]
    write: bool,
}

/// What can be measured, in the order of the document.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    /// New data, near-copy and restore of each data set, ours and the rivals'
    Sets,
    /// Each stage of the engine alone, against its limit
    Stages,
    /// Fifty generations of one file, and how fast the last comes back
    Generations,
    /// The chunk index at ten and a hundred million chunks: half an hour, 20 GB of disk
    Index,
    /// The appliance's memory while 16 streams come in at once
    Memory,
    /// A round of garbage collection as the store grows tenfold
    Gc,
}

impl report::Part for Part {
    const ALL: &[Self] = &[Self::Sets, Self::Stages, Self::Generations, Self::Index, Self::Memory, Self::Gc];

    fn name(self) -> &'static str {
        match self {
            Self::Sets => "sets",
            Self::Stages => "stages",
            Self::Generations => "generations",
            Self::Index => "index",
            Self::Memory => "memory",
            Self::Gc => "gc",
        }
    }

    fn heading(self) -> &'static str {
        match self {
            Self::Sets => "New data, near-copies and restores beside the rivals",
            Self::Stages => "Each stage alone, against its limit",
            Self::Generations => "Read back after fifty generations",
            Self::Index => "The chunk index at size",
            Self::Memory => "Memory while many streams come in",
            Self::Gc => "Garbage collection as the store grows",
        }
    }
}

impl Part {
    fn measure(self, arguments: &Arguments, work: &Path) -> Result<String> {
        match self {
            Self::Sets => sets::measure(arguments, work),
            Self::Stages => stages::measure(arguments),
            Self::Generations => {
                let program = crate::served::program(arguments.bedplate.as_deref())?;
                generations::measure(&program, arguments.scale, arguments.repeat, work)
            }
            Self::Index => scale::index(&arguments.chunks(&[10_000_000, 100_000_000]), work),
            Self::Memory => {
                let program = crate::served::program(arguments.bedplate.as_deref())?;
                memory::measure(&program, arguments.gib * arguments.scale, work)
            }
            Self::Gc => scale::gc(&arguments.chunks(&[1_000_000, 10_000_000, 100_000_000]), work),
        }
    }
}

impl Arguments {
    /// These numbers of chunks, shrunk by the scale.
    fn chunks(&self, full: &[u64]) -> Vec<u64> {
        full.iter().map(|chunks| ((*chunks as f64 * self.scale) as u64).max(10_000)).collect()
    }
}

/// Measures the parts, prints them, and writes them down where asked.
pub fn run(arguments: &Arguments) -> Result<()> {
    let work = arguments.work.clone().unwrap_or_else(|| data::base().join("work"));
    std::fs::create_dir_all(&work).with_context(|| format!("cannot make {}", work.display()))?;
    let parts = if arguments.only.is_empty() { vec![Part::Sets, Part::Stages] } else { arguments.only.clone() };
    let document = Document { file: "docs/bench-store.md", title: TITLE, write: arguments.write };
    document.make(&parts, &work, |part| part.measure(arguments, &work))
}

/// The sets that were asked for, as far as this machine has what they are made from.
fn ready(arguments: &Arguments) -> Result<Vec<data::Ready>> {
    let wanted = if arguments.sets.is_empty() { Set::value_variants().to_vec() } else { arguments.sets.clone() };
    let mut found = Vec::new();
    for set in wanted {
        found.extend(set.ready(arguments.scale)?);
    }
    Ok(found)
}
