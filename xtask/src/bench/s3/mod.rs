//! `cargo xtask bench s3`: the S3 door, loaded by a process of its own (benches/s3). Each part stands alone and writes its
//! own part of docs/bench-s3.md.

mod large;
mod list;
pub mod load;
mod rival;
mod scaling;
pub mod server;
mod small;
mod steps;

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use clap::{Args, ValueEnum};

use super::process::median;
use super::report::{Document, Part as _};
use super::{data, report};
use server::Programs;

const TITLE: &str = "\
# The S3 door, measured

Everything here is written by `cargo xtask bench s3 --write`; each part says with which command, on what machine and when.
The load comes from a process of its own (benches/s3) over plain HTTP on the loopback interface, signed with Signature
Version 4 and the payload unsigned. Servers are measured in turn in one run, each on an empty folder of the same disk, out
of the page cache; figures are medians. MB are 10^6 bytes, GB 10^9. CPU seconds are user and system time of the server's
process alone; the load's own time is not in them, but takes from the same cores.

`s3s-fs` is the file-system server of the s3s crates, from crates.io. It acknowledges before anything is on the disk, so it is
also built with one line more, an fsync of the object's file before it gets its name (not of the folder, nor of the file of
attributes beside it): \"s3s-fs, fsync\". The bare server knows no bucket, key or checksum: hyper over files, reading 256 KiB
at once.";

/// What to measure, and how.
#[derive(Args)]
pub struct Arguments {
    /// Parts, separated by commas [default: all]
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Part>,
    /// Size of everything; at 1 a large object has 64 MiB, and a million keys are listed
    #[arg(long, default_value_t = 1.0)]
    scale: f64,
    /// Runs of which the median is taken
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    repeat: u32,
    /// Seconds of each measurement of small objects
    #[arg(long, default_value_t = 4.0)]
    seconds: f64,
    /// Measure this `bedplate` instead of building one
    #[arg(long, value_name = "FILE")]
    bedplate: Option<PathBuf>,
    /// Folder for the servers' data (default: target/bench/work)
    #[arg(long, value_name = "DIR")]
    work: Option<PathBuf>,
    /// Write what was measured to docs/bench-s3.md
    #[arg(long)]
    write: bool,
}

/// What can be measured, in the order of the document.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Objects of 64 MiB: PUT, GET, ranges, and what the steps of a PUT cost
    Large,
    /// Objects of 4 KiB from 64 connections
    Small,
    /// From 1 to 256 connections
    Scaling,
    /// Listings of ten thousand and of a million keys
    List,
}

impl report::Part for Part {
    const ALL: &[Self] = &[Self::Large, Self::Small, Self::Scaling, Self::List];

    fn name(self) -> &'static str {
        match self {
            Self::Large => "large",
            Self::Small => "small",
            Self::Scaling => "scaling",
            Self::List => "list",
        }
    }

    fn heading(self) -> &'static str {
        match self {
            Self::Large => "Large objects",
            Self::Small => "Small objects from 64 connections",
            Self::Scaling => "From 1 to 256 connections",
            Self::List => "Listings",
        }
    }
}

/// What all parts need.
struct Bench<'a> {
    programs: Programs,
    scale: f64,
    repeat: u32,
    seconds: f64,
    work: &'a Path,
}

/// Measures the parts, prints them, and writes them down where asked.
pub fn run(arguments: &Arguments) -> Result<()> {
    let work = arguments.work.clone().unwrap_or_else(|| data::base().join("work"));
    std::fs::create_dir_all(&work).with_context(|| format!("cannot make {}", work.display()))?;
    let parts = if arguments.only.is_empty() { Part::ALL } else { &arguments.only[..] };
    let programs = Programs::ready(arguments.bedplate.as_deref(), parts.iter().any(|part| *part != Part::List))?;
    let (scale, repeat, seconds) = (arguments.scale, arguments.repeat, arguments.seconds);
    let bench = Bench { programs, scale, repeat, seconds, work: &work };
    let document = Document { file: "docs/bench-s3.md", title: TITLE, write: arguments.write };
    document.make(parts, &work, |part| match part {
        Part::Large => large::measure(&bench),
        Part::Small => small::measure(&bench),
        Part::Scaling => scaling::measure(&bench),
        Part::List => list::measure(&bench),
    })?;
    server::clear(&work)
}

/// The median of what `pick` finds in each run.
fn middle<T>(runs: &[T], pick: impl Fn(&T) -> f64) -> f64 {
    median(runs.iter().map(pick).collect())
}

/// `yes` where the figure keeps to its target.
pub fn kept(holds: bool) -> String {
    if holds { "yes" } else { "no" }.to_owned()
}
