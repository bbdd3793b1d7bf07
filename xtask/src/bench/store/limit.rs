//! The limits of one set: what its bytes cost in the steps that no engine can leave out, measured on the same bytes in
//! the same run by benches/store, which links the crate (xtask does not).

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use anyhow::{Context as _, Result};
use serde::Deserialize;

use crate::bench::data;
use crate::bench::report::figure;
use crate::shell;

/// One line of benches/store.
#[derive(Clone, Debug, Deserialize)]
pub struct Line {
    /// What was done.
    pub stage: String,
    /// To how many bytes.
    pub bytes: u64,
    /// In how many seconds of processor time.
    pub cpu: f64,
    /// In how many seconds.
    pub wall: f64,
}

impl Line {
    /// MB per CPU-second.
    pub fn rate(&self) -> f64 {
        self.bytes as f64 / 1e6 / self.cpu
    }
}

/// What bounds the figures of one set, in MB of its bytes per CPU-second.
pub struct Limits {
    /// Bytes in distinct chunks.
    pub unique: u64,
    /// Reading, cutting, hashing all; compressing and writing what is distinct.
    pub new: f64,
    /// Reading, cutting, hashing.
    pub near: f64,
    /// zstd's own decoding of all, hashing, and writing it out.
    pub restore: f64,
    steps: String,
}

impl Limits {
    /// What the limits are made of, for below the table.
    pub fn explain(&self) -> String {
        format!(
            "Limits: new is read + Gear + BLAKE3 of all bytes, and zstd 1 + write of the distinct ones; near is read + Gear + \
             BLAKE3; restore is zstd's own decoding + BLAKE3 + write of all bytes. In MB per CPU-second, one step alone: {}. \
             MB/s: the same on all cores.\n",
            self.steps
        )
    }
}

/// Measures the limits of a set.
pub fn of(set: &data::Ready) -> Result<Limits> {
    let lines = stages(&set.new)?;
    let line = |name: &str| {
        lines.iter().find(|line| line.stage == name).with_context(|| format!("benches/store measured no {name:?}"))
    };
    let [read, gear, blake3, zstd, write, decode] =
        ["read", "gear", "blake3", "zstd", "write", "zstd decode"].map(line);
    let (read, gear, blake3, zstd, write, decode) = (read?, gear?, blake3?, zstd?, write?, decode?);
    let near = 1.0 / read.rate() + 1.0 / gear.rate() + 1.0 / blake3.rate();
    let (all, unique) = (set.new_bytes as f64 / 1e6, zstd.bytes as f64 / 1e6);
    let new = near * all + unique / zstd.rate() + write.cpu;
    let named = [read, gear, blake3, zstd, write, decode].map(|line| format!("{} {}", line.stage, figure(line.rate())));
    // What was written was encoded; what is restored is not.
    let restore = 1.0 / (1.0 / decode.rate() + 1.0 / blake3.rate() + 1.0 / write.rate());
    Ok(Limits { unique: zstd.bytes, new: all / new, near: 1.0 / near, restore, steps: named.join(", ") })
}

/// Runs the stages of benches/store over the files of a folder.
pub fn stages(folder: &Path) -> Result<Vec<Line>> {
    let scratch = data::base().join("work");
    std::fs::create_dir_all(&scratch)?;
    let mut command = shell::command(&program()?.to_string_lossy(), &["stages", "--scratch"]);
    command.arg(scratch).args(data::files(folder)?);
    let text = shell::output(&mut command)?;
    let parse = |line: &str| serde_json::from_str(line).with_context(|| format!("benches/store printed {line:?}"));
    text.lines().map(parse).collect()
}

/// Builds benches/store once in this run and returns the program.
pub fn program() -> Result<PathBuf> {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    if let Some(program) = BUILT.get() {
        return Ok(program.clone());
    }
    println!("building benches/store");
    let mut cargo = shell::cargo(&["bench", "--quiet", "--ignore-rust-version", "--package", "bedplate"]);
    cargo.args(["--bench", "store", "--no-run", "--message-format", "json"]).current_dir(shell::root());
    let text = shell::output(&mut cargo)?;
    let built = text.lines().rev().find_map(|line| {
        let message: serde_json::Value = serde_json::from_str(line).ok()?;
        (message["target"]["name"] == "store" && message["target"]["kind"][0] == "bench")
            .then(|| message["executable"].as_str().map(PathBuf::from))?
    });
    let program = built.context("cargo built benches/store but did not say where it is")?;
    Ok(BUILT.get_or_init(|| program).clone())
}
