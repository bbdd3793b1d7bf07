//! What the figures were taken on: without it no figure means anything to anyone else.

use std::path::Path;
use std::process::Command;

use anyhow::Result;

use crate::shell;

/// Load above which other work is likely to have spoilt the times.
const BUSY: f64 = 0.7;

/// One line about the machine, the folder's file system and the day.
pub fn describe(folder: &Path) -> Result<String> {
    let system = shell::output(Command::new("df").args(["--output=fstype"]).arg(folder))?;
    let system = system.lines().nth(1).unwrap_or("unknown").trim();
    let day = shell::output(Command::new("date").args(["--utc", "+%F"]))?;
    let kernel = shell::output(Command::new("uname").arg("-r"))?;
    Ok(format!(
        "{}, {} cores, {} GiB of memory, Linux {}, {system}, {}",
        field("/proc/cpuinfo", "model name").unwrap_or_else(|| "unknown processor".into()),
        cores(),
        field("/proc/meminfo", "MemTotal")
            .and_then(|text| text.trim_end_matches(" kB").parse::<u64>().ok())
            .map_or(0, |kib| kib >> 20),
        kernel.trim(),
        day.trim()
    ))
}

/// Cores that we may use.
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// A warning where others are at work on this machine too.
pub fn busy() -> Option<String> {
    let text = std::fs::read_to_string("/proc/loadavg").ok()?;
    let load: f64 = text.split_whitespace().next()?.parse().ok()?;
    (load > BUSY)
        .then(|| format!("The machine was not idle (load {load:.1} before the start): trust ratios, not times."))
}

fn field(file: &str, name: &str) -> Option<String> {
    let text = std::fs::read_to_string(file).ok()?;
    let line = text.lines().find(|line| line.starts_with(name))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}
