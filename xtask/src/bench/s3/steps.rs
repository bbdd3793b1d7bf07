//! The steps that no server can leave out when it stores bytes as ours does, each alone over the same bytes.

use std::path::Path;

use anyhow::{Context as _, Result};
use serde::Deserialize;

use super::server::Programs;
use crate::bench::report::{Table, figure};
use crate::shell;

/// Most that a PUT may cost, as a multiple of its steps.
const TARGET: f64 = 1.3;

/// The steps of a PUT, besides receiving it.
const NAMES: [&str; 6] = ["md5", "crc", "gear", "blake3", "zstd", "write"];

/// One step.
#[derive(Clone, Debug, Deserialize)]
pub struct Step {
    step: String,
    bytes: u64,
    cpu: f64,
}

/// All steps over one kind of bytes.
pub struct Steps(Vec<Step>);

impl Steps {
    /// Measures them over the bytes of `source`.
    pub fn measure(programs: &Programs, source: &Path, work: &Path) -> Result<Self> {
        let words = ["parts".to_owned(), format!("source={}", source.display()), format!("dir={}", work.display())];
        let text = shell::output(&mut programs.generator(&words))?;
        let steps = text.lines().map(serde_json::from_str).collect::<Result<Vec<Step>, _>>();
        Ok(Self(steps.with_context(|| format!("benches/s3 printed {text:?}"))?))
    }

    /// CPU seconds per GB of the step.
    pub fn cost(&self, name: &str) -> Result<f64> {
        let found = self.0.iter().find(|step| step.step == name);
        let step = found.with_context(|| format!("benches/s3 measured no {name:?}"))?;
        Ok(step.cpu / (step.bytes as f64 / 1e9))
    }

    /// CPU seconds per GB of all steps of a PUT, of which receiving takes `receive`.
    pub fn sum(&self, receive: f64) -> Result<f64> {
        NAMES.iter().try_fold(receive, |sum, name| Ok(sum + self.cost(name)?))
    }
}

/// The sum of the steps beside what a PUT took.
pub fn table(rows: &[(&str, &Steps, f64, f64)]) -> Result<String> {
    let mut head = vec!["CPU s per GB", "receive"];
    head.extend(NAMES);
    head.extend(["sum", "PUT", "PUT : sum", "at most", "kept"]);
    let mut table = Table::new(&head);
    for (name, steps, receive, put) in rows {
        let mut cells = vec![(*name).to_owned(), figure(*receive)];
        let sum = steps.sum(*receive)?;
        for step in NAMES {
            cells.push(figure(steps.cost(step)?));
        }
        cells.extend([figure(sum), figure(*put), figure(put / sum), figure(TARGET), super::kept(put / sum <= TARGET)]);
        table.row(cells);
    }
    Ok(table.markdown())
}
