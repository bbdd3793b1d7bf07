//! One screen at the end: times, bytes, ratios.

use std::time::{Duration, Instant};

use serde_json::Value;

use super::cluster::Outcome;

/// What was measured.
#[derive(Default)]
pub struct Summary {
    lines: Vec<(String, String)>,
}

impl Summary {
    /// Building took this long; it does not count as part of the run.
    pub fn built(&mut self, time: Duration) {
        self.line("built (not counted)", format!("{:.0} s", time.as_secs_f64()));
    }

    /// A step that began at `started` is done.
    pub fn step(&mut self, name: &str, started: Instant) {
        self.line(name, format!("{:.1} s", started.elapsed().as_secs_f64()));
    }

    /// A step that moved `bytes` is done.
    pub fn moved(&mut self, name: &str, bytes: u64, started: Instant) {
        let seconds = started.elapsed().as_secs_f64();
        self.line(name, format!("{seconds:.1} s, {:.0} MB/s", bytes as f64 / 1e6 / seconds));
    }

    /// The store with nothing but the image in it.
    pub fn imported(&mut self, stats: &Value) {
        let (logical, stored) = (number(stats, "logical_bytes"), number(stats, "stored_bytes"));
        self.line("image in the store", format!("{} as {} ({})", mb(logical), mb(stored), ratio(logical, stored)));
    }

    /// A node that was imaged: the JSON of `rack status`.
    pub fn node(&mut self, node: &Value) {
        let installed = &node["installed"];
        let [fetched, written, zero] =
            ["bytes_fetched", "bytes_written", "bytes_zero"].map(|key| number(installed, key));
        self.line(
            node["node"].as_str().unwrap_or("a node"),
            format!(
                "runs {} from {}; {:.0} s, {} fetched, {} written, {} of zeros left out",
                node["booted"]["image"].as_str().unwrap_or("?"),
                node["booted"]["root_device"].as_str().unwrap_or("?"),
                installed["seconds"].as_f64().unwrap_or(0.0),
                mb(fetched),
                mb(written),
                mb(zero)
            ),
        );
    }

    /// The bucket with the dataset in it twice.
    pub fn stored(&mut self, stats: &Value) {
        let (logical, stored) = (number(stats, "logical_bytes"), number(stats, "stored_bytes"));
        self.line(
            "dataset in the store, twice",
            format!(
                "{} as {} ({}), {} chunks, {} objects",
                mb(logical),
                mb(stored),
                ratio(logical, stored),
                number(stats, "chunks"),
                number(stats, "objects")
            ),
        );
    }

    /// What a node did with the dataset, which has so many bytes, and its checkpoint.
    pub fn trained(&mut self, outcome: &Outcome, dataset: u64, checkpoint: u64) {
        for (number, epoch) in (1..).zip(&outcome.epochs) {
            self.line(
                &format!("{} epoch {number}", outcome.node),
                format!(
                    "{} read in {}; {} over the network, {} from the node's disk",
                    mb(dataset),
                    pace(dataset, epoch.milliseconds),
                    mb(epoch.network_bytes),
                    mb(epoch.cache_bytes)
                ),
            );
        }
        self.line(
            &format!("{} checkpoint", outcome.node),
            format!(
                "{} saved in {}; that of {} read back in {}",
                mb(checkpoint),
                pace(checkpoint, outcome.saved.milliseconds),
                outcome.read_back.node,
                pace(checkpoint, outcome.read_back.milliseconds)
            ),
        );
    }

    /// Prints it.
    pub fn print(&self, total: Duration) {
        println!("\n== done");
        let width = self.lines.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
        for (name, text) in &self.lines {
            println!("  {name:width$}  {text}");
        }
        println!("  {:width$}  {:.0} s", "whole run", total.as_secs_f64());
    }

    fn line(&mut self, name: &str, text: String) {
        self.lines.push((name.to_owned(), text));
    }
}

fn number(value: &Value, key: &str) -> u64 {
    value[key].as_u64().unwrap_or(0)
}

fn pace(bytes: u64, milliseconds: u64) -> String {
    let seconds = milliseconds.max(1) as f64 / 1e3;
    format!("{seconds:.1} s ({:.1} MB/s)", bytes as f64 / 1e6 / seconds)
}

fn mb(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}

fn ratio(from: u64, to: u64) -> String {
    format!("{:.1} : 1", from as f64 / to.max(1) as f64)
}
