//! Each stage of the engine alone on one core, beside the limit that it is measured against.

use anyhow::Result;

use super::limit::{self, Line};
use super::{Arguments, ready};
use crate::bench::report::{Table, figure};

/// Our stages, the limit of each, and what that limit is.
const PAIRS: [(&str, &str, &str); 5] = [
    ("cut", "copy", "memcpy"),
    ("digest", "blake3", "BLAKE3 of 1 MiB at once"),
    ("encode", "zstd", "zstd 1 of 1 MiB at once"),
    ("decode", "zstd decode", "zstd's decoding of that"),
    ("write", "copy", "memcpy"),
];

/// Measures the stages on each set and returns the tables.
pub fn measure(arguments: &Arguments) -> Result<String> {
    let mut text = String::new();
    for set in ready(arguments)? {
        println!("== stages on {}", set.set.name());
        let lines = limit::stages(&set.new)?;
        text.push_str(&format!("\n### {}\n\n{}", set.set.title(), table(&lines)));
        let others: Vec<String> = lines
            .iter()
            .filter(|line| !PAIRS.iter().any(|(ours, limit, _)| line.stage == *ours || line.stage == *limit))
            .map(|line| format!("{} {}", line.stage, figure(line.rate())))
            .collect();
        text.push_str(&format!("\nBesides, in MB per CPU-second: {}.\n", others.join(", ")));
    }
    Ok(text)
}

fn table(lines: &[Line]) -> String {
    let mut table = Table::new(&["stage", "MB per CPU-s", "MB/s", "limit", "MB per CPU-s", "stage : limit"]);
    for (ours, limit, what) in PAIRS {
        let find = |name: &str| lines.iter().find(|line| line.stage == name);
        let (Some(stage), Some(bound)) = (find(ours), find(limit)) else { continue };
        table.row(vec![
            ours.into(),
            figure(stage.rate()),
            figure(stage.bytes as f64 / 1e6 / stage.wall),
            what.into(),
            figure(bound.rate()),
            figure(stage.rate() / bound.rate()),
        ]);
    }
    table.markdown()
}
