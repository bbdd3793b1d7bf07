//! What `cargo xtask bench store` cannot measure from outside: the inside of the crate. Prints one JSON object a line. The
//! first word says what to measure:
//!
//! - `stages --scratch DIR FILE..`: each stage of the engine alone over these files, and the limit of each.
//! - `index-fill DIR CHUNKS`, then `index-look DIR CHUNKS LOOKUPS`: the chunk index at size.
//! - `gc-fill DIR CHUNKS`, then `gc-plan DIR CHUNKS`: a round of garbage collection over a made-up store.
//! - `snapshots DIR OBJECTS`: a bucket of so many objects is made up, snapshotted, branched and listed.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "what is printed is what is read")]

mod gc;
mod index;
mod meter;
mod snapshots;
mod stages;

use std::path::Path;
use std::process::ExitCode;

/// Why nothing could be measured.
type Error = Box<dyn std::error::Error + Send + Sync>;

fn main() -> ExitCode {
    // `cargo bench` adds this word; a program that does its own measuring has no use for it.
    let words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    match run(&words.iter().map(String::as_str).collect::<Vec<_>>()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(words: &[&str]) -> Result<(), Error> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    match words {
        // `cargo bench` and `cargo test --benches` start it without a word: that it starts is all they ask.
        [] => Ok(()),
        ["stages", "--scratch", scratch, files @ ..] if !files.is_empty() => stages::run(Path::new(scratch), files),
        ["index-fill", dir, chunks] => runtime.block_on(index::fill(Path::new(dir), chunks.parse()?)),
        ["index-look", dir, chunks, lookups] => {
            runtime.block_on(index::look(Path::new(dir), chunks.parse()?, lookups.parse()?))
        }
        ["gc-fill", dir, chunks] => runtime.block_on(gc::fill(Path::new(dir), chunks.parse()?)),
        ["gc-plan", dir, chunks] => runtime.block_on(gc::plan(Path::new(dir), chunks.parse()?)),
        ["snapshots", dir, objects] => runtime.block_on(snapshots::run(Path::new(dir), objects.parse()?)),
        _ => Err("the first lines of benches/store/main.rs say what can be measured".into()),
    }
}
