//! Surveys, plans and jobs as text for people. The same values go out as JSON untouched.

use std::fmt::Write as _;

use crate::format::order::Phase;
use crate::job::{JobView, NodeRow, NodeView, TaskState};
use crate::model::ByteSize;
use crate::rack::check::{self, DiskVerdict};
use crate::rack::machine::Power;
use crate::rack::plan::{NodePlan, Plan};
use crate::rack::survey::{Survey, SurveyNode};
use crate::sys::clock::Timestamp;

/// A table: column names, and rows of as many cells.
pub struct Columns {
    /// Column names.
    pub header: Vec<&'static str>,
    /// Rows.
    pub rows: Vec<Vec<String>>,
}

/// A survey as a table.
#[must_use]
pub fn survey(survey: &Survey) -> Columns {
    let header =
        vec!["slot", "node", "power", "health", "model", "serial", "cpus", "memory", "gpus", "drives", "install to"];
    Columns { header, rows: survey.nodes.iter().map(survey_row).collect() }
}

fn survey_row(node: &SurveyNode) -> Vec<String> {
    let mut row = vec![slot(node.slot), node.node.to_string()];
    let Some(found) = &node.found else {
        let kind = node.error.as_ref().map_or("unknown", |error| error.kind.as_str());
        row.push(format!("({kind})"));
        row.extend((0..8).map(|_| dash(None)));
        return row;
    };
    let drives: u64 = found.drives.iter().filter_map(|drive| drive.bytes).sum();
    row.extend([
        power(found.power).to_owned(),
        dash(found.health.clone()),
        dash(found.model.clone()),
        dash(found.serial.clone()),
        dash(found.cpus.map(|cpus| cpus.to_string())),
        dash(found.memory_bytes.map(|bytes| ByteSize(bytes).to_string())),
        found.gpus.to_string(),
        match found.drives.len() {
            0 => dash(None),
            count => format!("{count} ({})", ByteSize(drives)),
        },
        match &node.disk {
            Some(DiskVerdict::One { drive }) => check::describe(drive),
            Some(DiskVerdict::Unknown { why }) => format!("the agent will tell: {why}"),
            Some(DiskVerdict::None { .. }) => "no drive fits".to_owned(),
            Some(DiskVerdict::Several { drives }) => format!("{} drives fit", drives.len()),
            None => dash(None),
        },
    ]);
    row
}

/// What a survey could not find out, one line each.
#[must_use]
pub fn survey_gaps(survey: &Survey) -> Vec<String> {
    let mut lines = Vec::new();
    for node in &survey.nodes {
        if let Some(error) = &node.error {
            lines.push(format!("{}: {}. {}", node.node, error.message, error.hint));
        }
        let gaps = node.found.iter().flat_map(|found| &found.gaps);
        lines.extend(gaps.map(|gap| format!("{}: not read: {gap}", node.node)));
    }
    lines
}

/// A plan in words.
#[must_use]
pub fn plan(plan: &Plan) -> String {
    let mut text = String::new();
    for node in &plan.nodes {
        plan_node(&mut text, node);
    }
    let summary = if plan.changes == 0 {
        format!("rack {}: nothing to do, all {} nodes are as the spec says", plan.rack, plan.nodes.len())
    } else {
        format!(
            "rack {}: {} of {} nodes to change, {} reboots, about {} minutes",
            plan.rack,
            plan.changes,
            plan.nodes.len(),
            plan.reboots,
            plan.minutes
        )
    };
    text.push_str(&summary);
    text
}

fn plan_node(text: &mut String, node: &NodePlan) {
    // Writing to a string cannot fail.
    if node.steps.is_empty() {
        let _ = writeln!(text, "= {}: runs {}", node.node, node.image);
        for change in &node.later {
            let now = if change.starts_with("BIOS ") { "; `bedplate bmc bios set` changes it now" } else { "" };
            let _ = writeln!(text, "    {change}, with its next image{now}");
        }
        return;
    }
    for change in &node.changes {
        let _ = writeln!(text, "~ {}: {change}", node.node);
    }
    if let Some(given) = &node.user_data {
        let _ =
            writeln!(text, "    user data: {} ({} bytes, sha256 {})", given.file.display(), given.bytes, given.sha256);
    }
    let steps: Vec<&str> = node.steps.iter().map(|step| step.words()).collect();
    let _ = writeln!(text, "    steps: {}", steps.join(", "));
    let _ = writeln!(text, "    {} reboots, about {} minutes", node.reboots, node.seconds.div_ceil(60));
}

/// A job's nodes as a table.
#[must_use]
pub fn job(job: &JobView, now: Timestamp) -> Columns {
    let header = vec!["slot", "node", "state", "step", "since", "image", "done", "last error"];
    let rows = job.nodes.iter().map(|node| {
        vec![
            slot(node.slot),
            node.node.to_string(),
            state(node.state).to_owned(),
            if node.state.is_over() { dash(None) } else { node.step.to_string() },
            ago(now, node.since),
            node.image.to_string(),
            done(node),
            dash(node.error.as_ref().map(|error| error.message.clone()).or_else(|| node.trouble.clone())),
        ]
    });
    Columns { header, rows: rows.collect() }
}

/// One line for the state that a node is in; changes when something happened.
#[must_use]
pub fn node_line(node: &NodeView) -> String {
    match (node.state, &node.error) {
        (TaskState::Failed | TaskState::Failing, Some(error)) => {
            format!("{}: {}: {}. {}", node.node, state(node.state), error.message, error.hint)
        }
        (TaskState::Imaged, _) => format!("{}: imaged, runs {}", node.node, node.image),
        (TaskState::Running, _) => {
            let phase = node.phase.map(|phase| format!(" ({})", phase_words(phase))).unwrap_or_default();
            let trouble = node.trouble.as_ref().map(|text| format!("; trying again: {text}")).unwrap_or_default();
            format!("{}: {}{phase}{trouble}", node.node, node.step)
        }
        (other, _) => format!("{}: {}", node.node, state(other)),
    }
}

/// What is known of nodes, as a table.
#[must_use]
pub fn nodes(nodes: &[NodeRow], now: Timestamp) -> Columns {
    let header = vec!["rack", "slot", "node", "state", "image", "since", "disk", "cause"];
    let rows = nodes.iter().map(|node| {
        let holds = node.holds.as_ref();
        let quarantine = node.quarantine.as_ref();
        vec![
            node.rack.clone(),
            slot(node.slot),
            node.node.to_string(),
            match (quarantine, holds) {
                (Some(_), _) => "quarantined",
                (None, Some(_)) => "imaged",
                (None, None) => "unknown",
            }
            .to_owned(),
            dash(holds.map(|holds| holds.image.to_string())),
            dash(quarantine.map(|q| q.since).or(holds.map(|holds| holds.since)).map(|since| ago(now, since))),
            dash(holds.map(|holds| holds.disk_serial.clone().unwrap_or_else(|| holds.disk.clone()))),
            dash(quarantine.map(|quarantine| quarantine.cause.message.clone())),
        ]
    });
    Columns { header, rows: rows.collect() }
}

fn done(node: &NodeView) -> String {
    match (node.bytes_done, node.bytes_total) {
        (0, _) | (_, 0) => dash(None),
        (done, total) => {
            let percent = done.min(total) * 100 / total;
            let phase = node.phase.map(|phase| format!("{} ", phase_words(phase))).unwrap_or_default();
            format!("{phase}{} ({percent} %)", ByteSize(done))
        }
    }
}

/// What an agent does, in words.
#[must_use]
pub fn phase_words(phase: Phase) -> &'static str {
    match phase {
        Phase::Disk => "finding the disk",
        Phase::Write => "writing",
        Phase::Verify => "verifying",
        Phase::Finish => "finishing",
    }
}

/// A task's state in a word.
#[must_use]
pub fn state(state: TaskState) -> &'static str {
    match state {
        TaskState::Queued => "queued",
        TaskState::Running => "running",
        TaskState::Failing => "failing",
        TaskState::Cancelling => "cancelling",
        TaskState::Imaged => "imaged",
        TaskState::Failed => "failed",
        TaskState::Cancelled => "cancelled",
    }
}

/// A power state in a word.
#[must_use]
pub fn power(power: Power) -> &'static str {
    match power {
        Power::On => "on",
        Power::Off => "off",
        Power::Changing => "changing",
    }
}

fn slot(slot: Option<u16>) -> String {
    dash(slot.map(|slot| slot.to_string()))
}

fn dash(text: Option<String>) -> String {
    text.filter(|text| !text.is_empty()).unwrap_or_else(|| "-".to_owned())
}

/// How long ago, in words.
#[must_use]
pub fn ago(now: Timestamp, then: Timestamp) -> String {
    let seconds = now.since(then).as_secs();
    match seconds {
        0..=119 => format!("{seconds} s"),
        120..=7199 => format!("{} min", seconds / 60),
        7200..=172_799 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}
