//! Times a piece of work on this thread and prints the line that xtask reads.

use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use serde_json::json;

use crate::Error;

/// A stage is run over its data until it has taken this long, and at least three times.
const ENOUGH: Duration = Duration::from_millis(600);
/// Most passes.
const PASSES_MAX: usize = 25;

/// Runs `work` several times over its `bytes` bytes and prints the median pass.
pub(crate) fn measure(stage: &str, bytes: u64, mut work: impl FnMut() -> Result<(), Error>) -> Result<(), Error> {
    let began = Instant::now();
    let mut passes = Vec::new();
    while passes.len() < 3 || (began.elapsed() < ENOUGH && passes.len() < PASSES_MAX) {
        let (cpu, wall) = (thread_time(), Instant::now());
        work()?;
        passes.push(((thread_time() - cpu).as_secs_f64(), wall.elapsed().as_secs_f64()));
    }
    let middle = |pick: fn(&(f64, f64)) -> f64| {
        let mut values: Vec<f64> = passes.iter().map(pick).collect();
        values.sort_by(f64::total_cmp);
        values[(values.len() - 1) / 2].max(1e-9)
    };
    print(stage, bytes, middle(|pass| pass.0), middle(|pass| pass.1));
    Ok(())
}

/// Prints a line.
pub(crate) fn print(stage: &str, bytes: u64, cpu: f64, wall: f64) {
    println!("{}", json!({ "stage": stage, "bytes": bytes, "cpu": cpu, "wall": wall }));
}

/// Processor time of this thread.
fn thread_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}
