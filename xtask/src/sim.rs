//! `cargo xtask sim`: as many seeds of the store's simulation as asked, in the release profile, on all cores.

use std::path::Path;

use anyhow::{Context as _, Result, bail};
use clap::Args;

use crate::shell;
use crate::test::IGNORE_RUST_VERSION;

/// Which seeds to run.
#[derive(Args)]
pub struct Arguments {
    /// How many seeds
    #[arg(long, default_value_t = 1000)]
    seeds: u64,
    /// The first of them
    #[arg(long, default_value_t = 1)]
    first: u64,
}

/// Runs the seeds; a seed that fails says how to run it alone.
pub fn run(root: &Path, args: &Arguments) -> Result<()> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let status = shell::cargo(&["test", "--release", IGNORE_RUST_VERSION, "-p", "bedplate", "--test", "it"])
        .args(["--", "--exact", "sim::seeds_hold", "--nocapture"])
        .env("BEDPLATE_SIM_SEEDS", args.seeds.to_string())
        .env("BEDPLATE_SIM_FIRST", args.first.to_string())
        .env("BEDPLATE_SIM_THREADS", threads.to_string())
        .current_dir(root)
        .status()
        .context("start cargo")?;
    if !status.success() {
        bail!("a seed does not hold: {status}");
    }
    Ok(())
}
