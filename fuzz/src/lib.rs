//! What every fuzz target shares: the counting allocator, and the call of the one check that bears the target's name.

mod checks;

use peak_alloc::PeakAlloc;

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// Runs the check of the target `name` on `data`; panics on a finding.
pub fn run(name: &str, data: &[u8]) {
    let target = checks::TARGETS.iter().find(|target| target.name == name).expect("the target is in checks::TARGETS");
    (target.check)(&checks::Probe::new(peak), data);
}

/// Runs `act`; returns how many bytes it held at the most, beyond what was held before.
fn peak(act: &mut dyn FnMut()) -> usize {
    let before = MEMORY.current_usage();
    MEMORY.reset_peak_usage();
    act();
    MEMORY.peak_usage().saturating_sub(before)
}

/// The whole of a target: a file of its own, because cargo-fuzz wants a program for each.
#[macro_export]
macro_rules! target {
    () => {
        libfuzzer_sys::fuzz_target!(|data: &[u8]| $crate::run(env!("CARGO_BIN_NAME"), data));
    };
}
