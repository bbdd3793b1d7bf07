//! The store in a simulated machine: one thread, a clock that runs only when nothing else does, a disk whose power fails.
//! Everything follows from a seed, so that what a seed finds it finds again. `cargo xtask sim` runs as many as asked.

mod audit;
mod body;
mod branches;
mod client;
mod content;
mod decay;
mod ears;
mod ground;
mod history;
mod inventory;
mod keeper;
mod model;
mod pass;
mod random;
mod rows;
mod run;
mod scene;
mod setup;
mod shelf;
mod shown;
mod snapshots;
mod trust;
mod upload;
mod volume;
mod warden;
mod world;

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bedplate::store::Fault;

use run::{Failure, run};
use scene::Counts;
use setup::Setup;

/// Seeds of a plain `cargo test`.
const SEEDS: u64 = 200;
/// How often a long sweep says how far it is.
const REPORT: Duration = Duration::from_secs(20);

/// What a sweep over seeds did.
#[derive(Default)]
struct Sweep {
    seeds: u64,
    operations: u64,
    counts: Counts,
    failure: Option<Failure>,
}

/// Runs `count` seeds from `first` on, on some threads; ends at the first that fails.
fn sweep(first: u64, count: u64, threads: u64, bug: Option<Fault>) -> Sweep {
    let next = AtomicU64::new(first);
    let sweep = Mutex::new(Sweep::default());
    let reported = Mutex::new(Instant::now());
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first + count || sweep.lock().unwrap().failure.is_some() {
                        return;
                    }
                    let outcome = run(Setup::of(seed), bug);
                    sweep.lock().unwrap().add(outcome);
                    let mut reported = reported.lock().unwrap();
                    if reported.elapsed() > REPORT {
                        *reported = Instant::now();
                        eprintln!("… seed {seed}");
                    }
                }
            });
        }
    });
    sweep.into_inner().unwrap()
}

impl Sweep {
    fn add(&mut self, outcome: Result<run::Outcome, Failure>) {
        self.seeds += 1;
        match outcome {
            Ok(outcome) => {
                self.operations += outcome.operations;
                outcome.counts.into_iter().for_each(|(what, count)| *self.counts.entry(what).or_default() += count);
            }
            Err(failure) => drop(self.failure.get_or_insert(failure)),
        }
    }
}

fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).map_or(otherwise, |text| text.parse().unwrap())
}

/// Every seed holds: nothing acknowledged is lost, nothing deleted comes back, no byte is wrong.
#[test]
fn seeds_hold() {
    let began = Instant::now();
    let (first, seeds) = (number("BEDPLATE_SIM_FIRST", 1), number("BEDPLATE_SIM_SEEDS", SEEDS));
    let sweep = sweep(first, seeds, number("BEDPLATE_SIM_THREADS", 1), None);
    if let Some(failure) = sweep.failure {
        panic!("{failure}");
    }
    let Sweep { seeds, operations, counts, .. } = sweep;
    let seconds = began.elapsed().as_secs_f64();
    eprintln!("{seeds} seeds, {operations} operations in {seconds:.1} s, {:.1} seeds a second", seeds as f64 / seconds);
    eprintln!("{}", counts.iter().map(|(what, count)| format!("{what} {count}")).collect::<Vec<_>>().join(", "));
}

/// Seeds within which a deliberate bug must be found.
const SEEDS_WITH_A_BUG: u64 = 100;

fn is_found(bug: Fault) {
    let sweep = sweep(1, SEEDS_WITH_A_BUG, 1, Some(bug));
    let Some(failure) = sweep.failure else { panic!("{bug:?} is not found by {} seeds", sweep.seeds) };
    eprintln!("{bug:?} is found by seed {}: {}", failure.seed, failure.what);
}

/// A store that does not sync its packs loses what it acknowledged.
#[test]
fn a_skipped_sync_is_found() {
    is_found(Fault::SkipSync);
}

/// A store that does not sync its folders loses whole packs.
#[test]
fn a_skipped_sync_of_folders_is_found() {
    is_found(Fault::SkipFolderSync);
}

/// A writer that relies on a condemned pack loses it to the collector.
#[test]
fn a_skipped_resurrection_is_found() {
    is_found(Fault::SkipResurrect);
}

/// What is acknowledged before its commit is not always there.
#[test]
fn an_early_acknowledgement_is_found() {
    is_found(Fault::AcknowledgeEarly);
}

/// A store that finds damaged bytes again for whoever puts them has not stored what it acknowledges.
#[test]
fn reliance_on_damage_is_found() {
    is_found(Fault::RelyOnDamage);
}

/// A scrub that compares nothing tells nothing.
#[test]
fn a_skipped_comparison_is_found() {
    is_found(Fault::SkipCompare);
}

/// A collector that does not follow what only a snapshot shows takes its chunks away.
#[test]
fn a_forgotten_snapshot_is_found() {
    is_found(Fault::ForgetSnapshots);
}

/// A sync fails, the process ends, and the next one seals what it reads from the system's memory: a power cut after that takes nothing away.
#[test]
fn what_a_failed_sync_left_in_memory_is_written_again() {
    if let Err(failure) = run(Setup::of(2545), None) {
        panic!("{failure}");
    }
}

/// The same seed does the same, to the last operation.
#[test]
fn a_seed_repeats() {
    for seed in number("BEDPLATE_SIM_FIRST", 1)..=number("BEDPLATE_SIM_REPEATS", 5) {
        let outcomes = [(); 2].map(|()| run(Setup::of(seed), None).map_err(|failure| failure.to_string()).unwrap());
        assert_eq!(outcomes[0], outcomes[1], "seed {seed}");
    }
}
