//! Our figures of one set, each beside the best rival's and beside its limit, as ratios.

use super::contender::{Contender, Role};
use super::limit::Limits;
use super::sets::{Outcome, Stage};
use crate::bench::report::{Table, figure, rate};
use crate::bench::{data, machine};

/// The program that only decompresses.
const ZSTD: &str = super::rival::ZSTD;

/// A figure of one outcome, and whether more of it is better.
struct Measure {
    name: &'static str,
    more_is_better: bool,
    value: fn(&data::Ready, &Outcome) -> f64,
    limit: Option<f64>,
}

/// The table, or a line that says why there is none.
pub fn table(set: &data::Ready, outcomes: &[(&dyn Contender, Outcome)], limits: &Limits) -> String {
    let Some((ours, outcome)) = outcomes.iter().find(|(contender, _)| contender.role() == Role::Ours) else {
        return "Our own program did not take part.\n".into();
    };
    let mut table = Table::new(&["figure", ours.name(), "best rival", "", "ours : rival", "limit", "ours : limit"]);
    for measure in measures(limits) {
        let value = (measure.value)(set, outcome);
        let rivals = outcomes.iter().filter(|(contender, _)| contender.role() == Role::Rival);
        let rivals = rivals.map(|(contender, outcome)| ((measure.value)(set, outcome), contender.name()));
        let best = rivals.min_by(|a, b| if measure.more_is_better { b.0.total_cmp(&a.0) } else { a.0.total_cmp(&b.0) });
        let (best, name) = best.unwrap_or((f64::NAN, "none"));
        let limit = measure.limit.unwrap_or(f64::NAN);
        table.row(vec![
            measure.name.into(),
            figure(value),
            figure(best),
            name.into(),
            figure(value / best),
            figure(limit),
            figure(value / limit),
        ]);
    }
    let floor = outcomes.iter().find(|(contender, _)| contender.name() == ZSTD);
    let decoding = floor.map_or(String::new(), |(floor, theirs)| {
        let (ours, theirs) = (per_cpu(set.new_bytes, outcome.restore), per_cpu(set.new_bytes, theirs.restore));
        format!(
            "Restore beside `{}` giving back the same files, per CPU-second: {}.\n",
            floor.name(),
            figure(ours / theirs)
        )
    });
    format!("{}\n{decoding}{}", table.markdown(), limits.explain())
}

fn measures(limits: &Limits) -> Vec<Measure> {
    let cores = machine::cores() as f64;
    let measure = |name, more_is_better, value, limit| Measure { name, more_is_better, value, limit };
    vec![
        measure("new, MB per CPU-s", true, |set, all| per_cpu(set.new_bytes, all.new), Some(limits.new)),
        measure("new, MB/s", true, |set, all| per_second(set.new_bytes, all.new), Some(limits.new * cores)),
        measure("new, stored MB", false, |_, all| all.new.stored as f64 / 1e6, None),
        measure("new, peak MiB", false, |_, all| peak(all.new), None),
        measure("near, MB per CPU-s", true, |set, all| per_cpu(set.near_bytes, all.near), Some(limits.near)),
        measure("near, MB/s", true, |set, all| per_second(set.near_bytes, all.near), Some(limits.near * cores)),
        measure("near, more stored MB", false, |_, all| all.near.stored as f64 / 1e6, None),
        measure("near, peak MiB", false, |_, all| peak(all.near), None),
        measure("restore, MB per CPU-s", true, |set, all| per_cpu(set.new_bytes, all.restore), Some(limits.restore)),
        measure("restore, MB/s", true, |set, all| per_second(set.new_bytes, all.restore), Some(limits.restore * cores)),
        measure("restore, peak MiB", false, |_, all| peak(all.restore), None),
    ]
}

fn per_cpu(bytes: u64, stage: Stage) -> f64 {
    rate(bytes, stage.usage.cpu)
}

fn per_second(bytes: u64, stage: Stage) -> f64 {
    rate(bytes, stage.usage.wall)
}

fn peak(stage: Stage) -> f64 {
    stage.usage.peak as f64 / f64::from(1 << 20)
}
