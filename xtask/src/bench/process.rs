//! One process, or one tree of them, measured from its start to its end: wall time, CPU time and peak memory as the
//! kernel accounts them (`wait4`), so that no sampling falsifies a short run.

use std::fs::File;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use wait4::Wait4 as _;

/// What a run took.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    /// Seconds from start to end.
    pub wall: f64,
    /// Seconds of processor time, user and system, of the process and of the children that it waited for.
    pub cpu: f64,
    /// Most resident bytes of any one of these processes.
    pub peak: u64,
}

/// Runs the command to its end; what it says goes to `log` and appears in the error of a failure.
pub fn measure(command: &mut Command, log: &Path) -> Result<Usage> {
    let name = format!("{command:?}");
    let said = File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
    command.stdin(Stdio::null()).stdout(said.try_clone()?).stderr(said);
    forget_peak();
    let began = Instant::now();
    let child = command.spawn().with_context(|| format!("cannot start {name}"))?;
    let ended = child.wait4().with_context(|| format!("cannot wait for {name}"))?;
    let wall = began.elapsed().as_secs_f64();
    if !ended.status.success() {
        let text = std::fs::read_to_string(log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        bail!("{name} failed ({}):\n{}", ended.status, lines[lines.len().saturating_sub(20)..].join("\n"));
    }
    let cpu = (ended.rusage.utime + ended.rusage.stime).as_secs_f64();
    Ok(Usage { wall, cpu, peak: ended.rusage.maxrss })
}

/// A child inherits the peak of the process that started it, so ours is set back to what we hold now.
fn forget_peak() {
    // Without this a figure below our own peak reads too high, which the report cannot hide: it is the only harm.
    drop(std::fs::write("/proc/self/clear_refs", "5"));
}

/// Writes everything out that is still on its way to the disk, so that one run does not pay for the one before.
pub fn settle(folder: &Path) -> Result<()> {
    crate::shell::run(Command::new("sync").arg("--file-system").arg(folder))
}

/// Drops the files below `folder`, which are written, out of the page cache.
pub fn drop_cached(folder: &Path) -> Result<()> {
    for file in super::data::files(folder)? {
        let mut input = std::ffi::OsString::from("if=");
        input.push(&file);
        crate::shell::run(Command::new("dd").arg(input).args(["iflag=nocache", "count=0", "status=none"]))?;
    }
    Ok(())
}

/// Bytes that the files below `folder` take on the disk.
pub fn disk_bytes(folder: &Path) -> Result<u64> {
    use std::os::unix::fs::MetadataExt as _;
    let mut bytes = 0;
    for file in super::data::files(folder)? {
        bytes += file.symlink_metadata()?.blocks() * 512;
    }
    Ok(bytes)
}

/// The middle one; of an even number the lower of the two.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len().saturating_sub(1) / 2).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    //! A process's CPU time and peak are its own and its children's, and a failure says what the process said.
    use super::*;

    #[test]
    fn accounts_for_children() {
        let log = std::env::temp_dir().join(format!("bedplate-bench-process-{}", std::process::id()));
        let script = "sh -c 'i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done'; true";
        let usage = measure(Command::new("sh").args(["-c", script]), &log).unwrap();
        assert!(usage.cpu > 0.02 && usage.wall > 0.02 && usage.peak > 100_000, "{usage:?}");
        let error = measure(Command::new("sh").args(["-c", "echo no such thing; exit 3"]), &log).unwrap_err();
        assert!(error.to_string().contains("no such thing"), "{error}");
        std::fs::remove_file(log).unwrap();
    }

    #[test]
    fn finds_the_middle() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![4.0, 1.0]), 1.0);
        assert!(median(Vec::new()).is_nan());
    }
}
