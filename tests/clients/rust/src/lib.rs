//! What both programs share: the server to talk to, and steps that each pass or fail on their own.
//!
//! A step's line on standard output is `ok SECONDS NAME` or `failed NAME: WHY`; `cargo xtask clients` counts them.

pub mod sdk;

use std::any::Any;
use std::error::Error;
use std::panic::AssertUnwindSafe;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;

/// The longest that one step may take.
const PATIENCE: Duration = Duration::from_secs(120);

/// What a step ends with.
pub type Outcome = Result<(), Box<dyn Error>>;

/// The server under test, from the environment that `cargo xtask clients` sets.
pub struct Server {
    /// Where it listens, `http://ADDRESS:PORT`.
    pub endpoint: String,
    /// The tenant's access key.
    pub access_key: String,
    /// The tenant's secret key.
    pub secret_key: String,
    /// An empty folder for files.
    pub work: std::path::PathBuf,
}

impl Server {
    /// Reads the environment; the error names what is missing. Also gives reqwest the cryptography that it insists on.
    pub fn from_environment() -> Result<Self, String> {
        // It fails only where one is there already.
        drop(rustls::crypto::ring::default_provider().install_default());
        let read =
            |name: &str| std::env::var(name).map_err(|_| format!("{name} is not set: run `cargo xtask clients`"));
        Ok(Self {
            endpoint: read("S3_ENDPOINT")?,
            access_key: read("AWS_ACCESS_KEY_ID")?,
            secret_key: read("AWS_SECRET_ACCESS_KEY")?,
            work: read("WORK")?.into(),
        })
    }
}

/// The steps so far.
#[derive(Default)]
pub struct Steps {
    failed: usize,
}

impl Steps {
    /// Runs one step to its end, and says what came of it: an error, a panic and too long a wait each fail it.
    pub async fn step(&mut self, name: &str, work: impl Future<Output = Outcome>) {
        let began = Instant::now();
        let outcome = tokio::time::timeout(PATIENCE, AssertUnwindSafe(work).catch_unwind()).await;
        let why = match outcome {
            Ok(Ok(Ok(()))) => {
                println!("ok {:.2} {name}", began.elapsed().as_secs_f64());
                return;
            }
            Ok(Ok(Err(error))) => with_causes(error.as_ref()),
            Ok(Err(panic)) => message(panic.as_ref()),
            Err(_) => format!("no end after {} s", PATIENCE.as_secs()),
        };
        self.failed += 1;
        println!("failed {name}: {}", why.split_whitespace().collect::<Vec<_>>().join(" "));
    }

    /// What the program ends with.
    pub fn end(self) -> ExitCode {
        if self.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}

/// Fails the step with `what` unless `holds`.
pub fn check(holds: bool, what: impl Into<String>) -> Outcome {
    if holds { Ok(()) } else { Err(what.into().into()) }
}

fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    text
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "a panic without words".into())
}

/// `length` bytes that do not compress, the same for the same seed.
pub fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}
