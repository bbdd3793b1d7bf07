//! `cargo xtask fuzz`: runs the fuzz targets of fuzz/, and keeps what they find.
//!
//! Each target begins with the kept cases (tests/fixture/fuzz/TARGET), with the fixtures of each format version, and with
//! what earlier runs on this machine reached (target/fuzz/corpus/TARGET). What it finds is copied into the first folder,
//! where the ordinary tests replay it from then on.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;

use anyhow::{Context as _, Result, bail};
use clap::Args;

use crate::{install, shell};

/// One input may take this long, in seconds.
const PATIENCE: u32 = 20;
/// Memory of the whole process, in MiB; each target's own check of what a decoder may hold is far tighter.
const MEMORY_MIB: u32 = 2048;
/// Longest input that is made up, in bytes.
const INPUT_MAX: u32 = 16 * 1024;
const HOST: &str = "x86_64-unknown-linux-gnu";

/// What to fuzz.
#[derive(Args)]
pub struct Arguments {
    /// The targets; all of them when none is named
    #[arg(value_name = "TARGET")]
    targets: Vec<String>,
    /// How long each target runs
    #[arg(long, value_name = "S", default_value_t = 60)]
    seconds: u32,
    /// How many targets run at once
    #[arg(long, value_name = "N", default_value_t = 1)]
    jobs: usize,
}

/// What a target came to.
struct Outcome {
    target: String,
    executions: u64,
    per_second: u64,
    edges: u64,
    found: Vec<PathBuf>,
}

/// Builds the targets, runs them, and prints a line for each. Fails when any of them found something.
pub fn run(args: &Arguments) -> Result<()> {
    let known = targets()?;
    if let Some(name) = args.targets.iter().find(|name| !known.contains(name)) {
        bail!("there is no fuzz target {name:?}; there are {}", known.join(", "));
    }
    let chosen = if args.targets.is_empty() { known } else { args.targets.clone() };
    let programs = build(&chosen)?;
    println!("{:<16} {:>12} {:>9} {:>7}  findings", "target", "executions", "a second", "edges");
    let waiting = Mutex::new(chosen.iter());
    let next = || waiting.lock().ok().and_then(|mut waiting| waiting.next());
    let outcomes: Vec<Result<Vec<Outcome>>> = std::thread::scope(|scope| {
        let work = || -> Result<Vec<Outcome>> {
            std::iter::from_fn(next).map(|target| fuzz(&programs, target, args.seconds)).collect()
        };
        let workers: Vec<_> = (0..args.jobs.max(1)).map(|_| scope.spawn(work)).collect();
        workers.into_iter().map(|worker| worker.join().expect("a worker does not panic")).collect()
    });
    let outcomes: Vec<Outcome> = outcomes.into_iter().collect::<Result<Vec<_>>>()?.into_iter().flatten().collect();
    let found: Vec<&PathBuf> = outcomes.iter().flat_map(|outcome| &outcome.found).collect();
    let executions: u64 = outcomes.iter().map(|outcome| outcome.executions).sum();
    println!("{} targets, {executions} executions, {} findings", outcomes.len(), found.len());
    if found.is_empty() {
        return Ok(());
    }
    bail!("fuzzing found something. Fix it, and commit the fix together with the case")
}

/// The targets' names, out of fuzz/Cargo.toml.
fn targets() -> Result<Vec<String>> {
    let path = shell::root().join("fuzz/Cargo.toml");
    let manifest: toml::Table = std::fs::read_to_string(&path).with_context(|| format!("read {path:?}"))?.parse()?;
    let programs = manifest.get("bin").and_then(toml::Value::as_array).context("fuzz/Cargo.toml has no programs")?;
    Ok(programs.iter().filter_map(|program| Some(program.get("name")?.as_str()?.to_owned())).collect())
}

/// Builds the targets; answers the folder that holds their programs.
fn build(targets: &[String]) -> Result<PathBuf> {
    let tools = install::cargo_fuzz()?;
    let folder = shell::root().join("fuzz");
    // The very versions that are shipped are fuzzed: this lock file follows the product's.
    let (shipped, own) = (shell::root().join("Cargo.lock"), folder.join("Cargo.lock"));
    let modified = |path: &Path| std::fs::metadata(path).and_then(|meta| meta.modified()).ok();
    if modified(&own) < modified(&shipped) {
        std::fs::copy(&shipped, &own).context("copy Cargo.lock to fuzz/")?;
    }
    // rustup's cargo, not the one that runs this chore: only rustup's takes a toolchain.
    let mut command = Command::new("cargo");
    let sanitizer = if install::has_nightly() {
        command.arg("+nightly");
        "address"
    } else {
        println!("no nightly compiler (rustup toolchain install nightly): fuzzing without the address sanitizer");
        "none"
    };
    let built = shell::target().join("fuzz");
    command.args(["fuzz", "build", "--strip-dead-code", "--sanitizer", sanitizer]);
    command.arg("--fuzz-dir").arg(&folder).arg("--target-dir").arg(&built);
    if let [only] = targets {
        command.arg(only);
    }
    for name in ["CARGO", "RUSTC", "RUSTDOC", "RUSTUP_TOOLCHAIN"] {
        command.env_remove(name);
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    command.env("PATH", std::env::join_paths(std::iter::once(tools).chain(std::env::split_paths(&path)))?);
    command.current_dir(shell::root());
    shell::show(&mut command)?;
    Ok(built.join(HOST).join("release"))
}

/// Runs one target, and keeps what it finds.
fn fuzz(programs: &Path, target: &str, seconds: u32) -> Result<Outcome> {
    let work = shell::target().join("fuzz");
    let [corpus, found, logs] = [work.join("corpus").join(target), work.join("found").join(target), work.join("log")];
    for folder in [&corpus, &found, &logs] {
        std::fs::create_dir_all(folder)?;
    }
    for leftover in std::fs::read_dir(&found)? {
        std::fs::remove_file(leftover?.path())?;
    }
    let fixtures = shell::root().join("tests/fixture");
    let kept = fixtures.join("fuzz").join(target);
    let log = logs.join(format!("{target}.log"));
    let mut command = Command::new(programs.join(target));
    // libFuzzer writes what is new into the first folder and only reads the others.
    command.args([Some(&corpus), Some(&kept), Some(&fixtures.join("v1"))].into_iter().flatten().filter(|f| f.is_dir()));
    command.arg(format!("-artifact_prefix={}/", found.display()));
    command.arg(format!("-max_total_time={seconds}")).arg(format!("-timeout={PATIENCE}"));
    command.arg(format!("-rss_limit_mb={MEMORY_MIB}")).arg(format!("-max_len={INPUT_MAX}"));
    command.args(["-len_control=20", "-use_value_profile=1", "-reload=0", "-print_final_stats=1"]);
    command.env("ASAN_OPTIONS", "detect_odr_violation=0").stdin(Stdio::null()).stdout(Stdio::null());
    let status = command.stderr(std::fs::File::create(&log)?).status().with_context(|| format!("start {target}"))?;
    let text = String::from_utf8_lossy(&std::fs::read(&log)?).into_owned();
    let mut outcome = Outcome {
        target: target.to_owned(),
        executions: statistic(&text, "stat::number_of_executed_units:"),
        per_second: statistic(&text, "stat::average_exec_per_sec:"),
        edges: statistic(&text, " cov: "),
        found: Vec::new(),
    };
    for case in std::fs::read_dir(&found)? {
        outcome.found.push(keep(&case?.path(), &kept)?);
    }
    println!("{outcome}");
    if !status.success() && outcome.found.is_empty() {
        bail!("the fuzz target {target} ended with {status} and left no case: see {}", log.display());
    }
    Ok(outcome)
}

/// Copies what was found to the cases that the tests replay.
fn keep(case: &Path, kept: &Path) -> Result<PathBuf> {
    std::fs::create_dir_all(kept)?;
    let name = case.file_name().context("a case has a name")?.to_string_lossy().into_owned();
    // `crash-` and 40 digits of the content's hash; twelve tell cases apart.
    let short: String = name.chars().take(name.find('-').map_or(0, |dash| dash + 1) + 12).collect();
    let path = kept.join(short);
    std::fs::copy(case, &path).with_context(|| format!("keep {}", case.display()))?;
    Ok(path)
}

/// The number that follows the last `name` in libFuzzer's report; 0 where it says none.
fn statistic(report: &str, name: &str) -> u64 {
    let after = report.rsplit_once(name).map_or("", |(_, after)| after.trim_start());
    after.split(|c: char| !c.is_ascii_digit()).next().and_then(|digits| digits.parse().ok()).unwrap_or(0)
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<16} {:>12} {:>9} {:>7}", self.target, self.executions, self.per_second, self.edges)?;
        if self.found.is_empty() {
            return f.write_str("  none");
        }
        let root = shell::root();
        self.found.iter().try_for_each(|case| write!(f, "  {}", case.strip_prefix(&root).unwrap_or(case).display()))
    }
}

#[cfg(test)]
mod tests {
    //! libFuzzer's report is read, and a report that was cut off counts as nothing done.
    use super::*;

    #[test]
    fn reads_the_report() {
        let report = "#8\tNEW    cov: 253 ft: 3 corp: 4/5b\n#9\tDONE   cov: 254 ft: 3301 corp: 489/2249b exec/s: 313\n\
                      stat::number_of_executed_units: 9703\nstat::average_exec_per_sec:     313\n";
        assert_eq!(statistic(report, "stat::number_of_executed_units:"), 9703);
        assert_eq!(statistic(report, "stat::average_exec_per_sec:"), 313);
        assert_eq!(statistic(report, " cov: "), 254);
        assert_eq!(statistic("", " cov: "), 0);
    }
}
