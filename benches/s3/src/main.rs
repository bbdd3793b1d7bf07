//! What `cargo xtask bench s3` runs beside the servers, each time as a process of its own. The first word says what; the
//! others are `name=value`, and each word is explained where it is read. Prints one JSON object a line.
//!
//! - `load`: requests to a server over plain HTTP, signed as S3 asks.
//! - `serve`: a bare HTTP server, which bounds what a server of S3 can do.
//! - `parts`: what each step of storing these bytes costs alone.
//! - `floor`: durable small files, written as a file system allows it.

mod bare;
mod fetch;
mod floor;
mod load;
mod meter;
mod parts;
mod sign;
mod words;

use std::process::ExitCode;

use words::Words;

/// Why nothing could be measured.
type Error = Box<dyn std::error::Error + Send + Sync>;

fn main() -> ExitCode {
    let mut given = std::env::args().skip(1);
    let what = given.next().unwrap_or_default();
    let outcome = Words::parse(given).and_then(|words| match what.as_str() {
        "load" => load::run(&words),
        "serve" => bare::run(&words),
        "parts" => parts::run(&words),
        "floor" => floor::run(&words),
        _ => Err("the first lines of benches/s3/src/main.rs say what can be run".into()),
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
