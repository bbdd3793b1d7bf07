//! Processor time of the calling thread, and passes of a piece of work.

use std::time::{Duration, Instant};

use crate::Error;

/// A step is repeated until it has taken this long, and at least three times.
const ENOUGH: Duration = Duration::from_millis(800);
/// Most passes.
const PASSES_MAX: usize = 25;

/// Seconds that the calling thread was on a processor, as the scheduler counts them in nanoseconds.
pub fn thread_time() -> Result<f64, Error> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat")?;
    let nanoseconds: u64 = text.split_whitespace().next().ok_or("the kernel keeps no schedstat")?.parse()?;
    Ok(nanoseconds as f64 / 1e9)
}

/// Runs `work` several times over its `bytes` bytes and prints the median pass.
pub fn measure(step: &str, bytes: u64, mut work: impl FnMut() -> Result<(), Error>) -> Result<(), Error> {
    let began = Instant::now();
    let mut passes = Vec::new();
    while passes.len() < 3 || (began.elapsed() < ENOUGH && passes.len() < PASSES_MAX) {
        let (cpu, wall) = (thread_time()?, Instant::now());
        work()?;
        passes.push((thread_time()? - cpu, wall.elapsed().as_secs_f64()));
    }
    let middle = |pick: fn(&(f64, f64)) -> f64| {
        let mut values: Vec<f64> = passes.iter().map(pick).collect();
        values.sort_by(f64::total_cmp);
        values[(values.len() - 1) / 2].max(1e-9)
    };
    let (cpu, wall) = (middle(|pass| pass.0), middle(|pass| pass.1));
    println!("{{\"step\":\"{step}\",\"bytes\":{bytes},\"cpu\":{cpu},\"wall\":{wall}}}");
    Ok(())
}
