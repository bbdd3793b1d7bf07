//! New data, a near-copy on top, and a restore: every program on every data set, in turn, so that what disturbs the
//! machine disturbs all of them alike.

use std::path::Path;

use anyhow::{Context as _, Result, bail};

use super::contender::{Contender, Role};
use super::{Arguments, limit, ours, rival, verdict};
use crate::bench::process::{self, Usage, median};
use crate::bench::report::{Table, figure, rate};
use crate::bench::{data, machine};
use crate::install;

/// One stage of one run.
#[derive(Clone, Copy, Debug)]
pub struct Stage {
    /// What it took.
    pub usage: Usage,
    /// Bytes that the repository grew by.
    pub stored: u64,
}

/// The stages of one program on one set, each the median over the runs.
#[derive(Clone, Copy, Debug)]
pub struct Outcome {
    /// The set, for the first time.
    pub new: Stage,
    /// Its near-copy on top.
    pub near: Stage,
    /// The set given back.
    pub restore: Stage,
}

/// Measures all sets and returns the tables.
pub fn measure(arguments: &Arguments, work: &Path) -> Result<String> {
    install::debian(install::BENCH)?;
    let contenders = contenders(arguments)?;
    let sets = super::ready(arguments)?;
    let mut text = String::new();
    for contender in &contenders {
        text.push_str(&format!("- {}: {}\n", contender.name(), contender.version()?));
    }
    text.push_str(&format!("\nMedians of {} runs, in turn; {} cores.\n", arguments.repeat, machine::cores()));
    let mut left_out = Vec::new();
    for set in &sets {
        println!("== {}: {:.0} MB", set.set.name(), set.new_bytes as f64 / 1e6);
        let limits = limit::of(set)?;
        let outcomes = set_outcomes(arguments, set, &contenders, work, &mut left_out)?;
        text.push_str(&format!(
            "\n### {}\n\n{:.0} MB, of which {:.0} MB are in distinct chunks; the near-copy has {:.0} MB.\n\n",
            set.set.title(),
            set.new_bytes as f64 / 1e6,
            limits.unique as f64 / 1e6,
            set.near_bytes as f64 / 1e6
        ));
        let named: Vec<(&dyn Contender, Outcome)> =
            contenders.iter().zip(&outcomes).filter_map(|(each, found)| Some((each.as_ref(), (*found)?))).collect();
        text.push_str(&all(set, &named));
        text.push('\n');
        text.push_str(&verdict::table(set, &named, &limits));
    }
    for what in left_out {
        text.push_str(&format!("\nLeft out: {what}\n"));
    }
    Ok(text)
}

fn contenders(arguments: &Arguments) -> Result<Vec<Box<dyn Contender>>> {
    let named = |name: &str| arguments.programs.iter().any(|beginning| name.starts_with(beginning.as_str()));
    let wanted = |name: &str| arguments.programs.is_empty() || named(name);
    let mut found = Vec::new();
    if wanted("bedplate") {
        found.extend(ours::find(arguments.bedplate.as_deref())?);
    }
    found.extend(rival::all(wanted));
    if found.is_empty() {
        bail!("no program is left to measure: --programs takes the beginnings of their names");
    }
    Ok(found)
}

/// All runs of one set. A program that fails is left out of this set, and its error is kept for the report.
fn set_outcomes(
    arguments: &Arguments,
    set: &data::Ready,
    contenders: &[Box<dyn Contender>],
    work: &Path,
    left_out: &mut Vec<String>,
) -> Result<Vec<Option<Outcome>>> {
    warm(set)?;
    let mut runs: Vec<Vec<Outcome>> = contenders.iter().map(|_| Vec::new()).collect();
    let mut failed = vec![false; contenders.len()];
    for turn in 0..arguments.repeat as usize {
        // Each turn begins with another program, so that none always follows the same one.
        for offset in 0..contenders.len() {
            let at = (turn + offset) % contenders.len();
            if failed[at] {
                continue;
            }
            let contender = contenders[at].as_ref();
            match one_run(contender, set, work, turn == 0) {
                Ok(outcome) => {
                    println!("  {} ({} of {}): {}", contender.name(), turn + 1, arguments.repeat, line(set, &outcome));
                    runs[at].push(outcome);
                }
                Err(error) if contender.role() == Role::Ours => {
                    return Err(error.context(format!("{} on {}", contender.name(), set.set.name())));
                }
                Err(error) => {
                    println!("  FAILED: {}: {error:#}", contender.name());
                    left_out.push(format!("{} on {}: {error:#}", contender.name(), set.set.name()));
                    failed[at] = true;
                }
            }
        }
    }
    Ok(runs.iter().zip(failed).map(|(runs, failed)| if failed { None } else { middle(runs) }).collect())
}

/// Reads the set once, so that nobody pays for the disk.
fn warm(set: &data::Ready) -> Result<()> {
    for folder in [&set.new, &set.near] {
        for file in data::files(folder)? {
            std::io::copy(&mut std::fs::File::open(file)?, &mut std::io::sink())?;
        }
    }
    Ok(())
}

/// One program through all stages, in an empty folder; the first time what it gives back is compared too.
fn one_run(contender: &dyn Contender, set: &data::Ready, work: &Path, check: bool) -> Result<Outcome> {
    let home = work.join("home");
    let into = work.join("restored");
    for folder in [&home, &into] {
        if folder.exists() {
            std::fs::remove_dir_all(folder).with_context(|| format!("cannot empty {}", folder.display()))?;
        }
        std::fs::create_dir_all(folder)?;
    }
    let log = work.join("log");
    contender.prepare(&home)?;
    let stage = |command: &mut std::process::Command| -> Result<Stage> {
        let repository = contender.repository(&home);
        let size = || if repository.exists() { process::disk_bytes(&repository) } else { Ok(0) };
        process::settle(work)?;
        let before = size()?;
        let usage = process::measure(command, &log)?;
        process::settle(work)?;
        Ok(Stage { usage, stored: size()?.saturating_sub(before) })
    };
    let new = stage(&mut contender.keep(&home, "new", &set.new))?;
    let near = stage(&mut contender.keep(&home, "near", &set.near))?;
    let restore = stage(&mut contender.give_back(&home, "new", &into))?;
    if check {
        data::compare(&set.new, &contender.found(&into, &set.new)).context("what came back is not what was given")?;
    }
    std::fs::remove_dir_all(&home)?;
    std::fs::remove_dir_all(&into)?;
    Ok(Outcome { new, near, restore })
}

fn middle(runs: &[Outcome]) -> Option<Outcome> {
    if runs.is_empty() {
        return None;
    }
    let of = |pick: fn(&Outcome) -> Stage| {
        let each = |value: fn(&Stage) -> f64| median(runs.iter().map(|run| value(&pick(run))).collect());
        let usage = Usage {
            wall: each(|stage| stage.usage.wall),
            cpu: each(|stage| stage.usage.cpu),
            peak: each(|stage| stage.usage.peak as f64) as u64,
        };
        Stage { usage, stored: each(|stage| stage.stored as f64) as u64 }
    };
    Some(Outcome { new: of(|run| run.new), near: of(|run| run.near), restore: of(|run| run.restore) })
}

fn line(set: &data::Ready, outcome: &Outcome) -> String {
    let one = |name: &str, bytes: u64, stage: &Stage| {
        let usage = stage.usage;
        format!("{name} {:.2} s, {:.0} MB per CPU-s", usage.wall, rate(bytes, usage.cpu))
    };
    format!(
        "{}; {}; {}; {:.1} + {:.1} MB stored",
        one("new", set.new_bytes, &outcome.new),
        one("near", set.near_bytes, &outcome.near),
        one("restore", set.new_bytes, &outcome.restore),
        outcome.new.stored as f64 / 1e6,
        outcome.near.stored as f64 / 1e6
    )
}

/// Every program, every figure.
fn all(set: &data::Ready, outcomes: &[(&dyn Contender, Outcome)]) -> String {
    let mut table = Table::new(&[
        "program",
        "new MB/s",
        "per CPU-s",
        "peak MiB",
        "stored MB",
        "near MB/s",
        "per CPU-s",
        "peak MiB",
        "more MB",
        "restore MB/s",
        "per CPU-s",
        "peak MiB",
    ]);
    for (contender, outcome) in outcomes {
        let mut row = vec![contender.name().to_owned()];
        let stages = [(set.new_bytes, outcome.new, true), (set.near_bytes, outcome.near, true)];
        for (bytes, stage, stores) in stages.into_iter().chain([(set.new_bytes, outcome.restore, false)]) {
            row.push(figure(rate(bytes, stage.usage.wall)));
            row.push(figure(rate(bytes, stage.usage.cpu)));
            row.push(format!("{}", stage.usage.peak >> 20));
            if stores {
                row.push(format!("{:.1}", stage.stored as f64 / 1e6));
            }
        }
        table.row(row);
    }
    table.markdown()
}
