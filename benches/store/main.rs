//! What `cargo xtask bench store` cannot measure from outside: stages of the engine inside the crate. Prints one JSON
//! object a line. The first word says what to measure.
//!
//! - `stages --scratch DIR FILE..`: each stage alone over these files, and the limit of each.

mod meter;
mod stages;

use std::process::ExitCode;

/// Why nothing could be measured.
type Error = Box<dyn std::error::Error + Send + Sync>;

fn main() -> ExitCode {
    // `cargo bench` adds this word; a program that does its own measuring has no use for it.
    let words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    let outcome = match words.split_first() {
        Some((verb, rest)) if verb == "stages" => stages::run(rest),
        // `cargo bench` and `cargo test --benches` start it without a word: that it starts is all they ask.
        None => Ok(()),
        Some((verb, _)) => Err(format!("{verb:?} is nothing to measure: stages is").into()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
