//! What the outside sees of jobs: the JSON of the control API and of the command line.

use serde::{Deserialize, Serialize};

use crate::format::order::{Booted, Installed, Phase};
use crate::job::{Fault, JobRow, Passed, Step, TaskRow, TaskState};
use crate::model::{ImageRef, JobId, NodeName};
use crate::sys::clock::Timestamp;

/// Where a job stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum JobState {
    /// Some node is not finished.
    Running,
    /// Every node runs what the spec asked for.
    Done,
    /// Over, and some node failed.
    Failed,
    /// Over, and none failed, but some were cancelled.
    Cancelled,
}

/// A job and its nodes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct JobView {
    /// Its id.
    pub id: JobId,
    /// The rack.
    pub rack: String,
    /// Where it stands.
    pub state: JobState,
    /// Whether it was paused: nodes that were begun go on, no other is begun.
    #[serde(default)]
    pub paused: bool,
    /// When it began.
    pub created: Timestamp,
    /// When it ended.
    pub ended: Option<Timestamp>,
    /// The nodes that it works on, in the spec's order.
    pub nodes: Vec<NodeView>,
    /// The nodes that needed nothing.
    pub unchanged: Vec<NodeName>,
}

/// One node's part of a job.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NodeView {
    /// The node.
    pub node: NodeName,
    /// Rack unit.
    pub slot: Option<u16>,
    /// Where it stands.
    pub state: TaskState,
    /// The step that it is in, or was in last.
    pub step: Step,
    /// Since when it is in this state and step.
    pub since: Timestamp,
    /// The image that it is to get.
    pub image: ImageRef,
    /// What the agent is doing, while it is.
    pub phase: Option<Phase>,
    /// Bytes of the image that are done in this phase.
    pub bytes_done: u64,
    /// Bytes that the phase has in all.
    pub bytes_total: u64,
    /// How often the work went back to an earlier step.
    pub restarts: u32,
    /// Why it failed.
    pub error: Option<Fault>,
    /// The last thing that went wrong and is being tried again.
    pub trouble: Option<String>,
    /// What happened on the way, oldest first.
    pub notes: Vec<String>,
    /// The agent's report.
    pub installed: Option<Installed>,
    /// The installed system's word.
    pub booted: Option<Booted>,
    /// Steps that were passed, with their times.
    pub passed: Vec<Passed>,
}

impl NodeView {
    /// The view of a task; what is only known in memory (progress, trouble) is filled in by the caller.
    #[must_use]
    pub fn of(task: &TaskRow) -> Self {
        let done = if task.installed.is_some() { task.work.image_bytes } else { 0 };
        Self {
            node: task.node.clone(),
            slot: task.slot,
            state: task.state,
            step: task.step,
            since: task.since,
            image: task.work.image.clone(),
            phase: None,
            bytes_done: done,
            bytes_total: task.work.image_bytes,
            restarts: task.restarts,
            error: task.error.clone(),
            trouble: None,
            notes: task.notes.clone(),
            installed: task.installed.clone(),
            booted: task.booted.clone(),
            passed: task.passed.clone(),
        }
    }
}

#[cfg(test)]
impl NodeView {
    /// A node of which nothing more is known.
    pub(crate) fn example(node: &str, state: TaskState, step: Step, since: Timestamp) -> Self {
        Self {
            node: node.parse().unwrap(),
            slot: None,
            state,
            step,
            since,
            image: "os@1".parse().unwrap(),
            phase: None,
            bytes_done: 0,
            bytes_total: 0,
            restarts: 0,
            error: None,
            trouble: None,
            notes: vec![],
            installed: None,
            booted: None,
            passed: vec![],
        }
    }
}

impl JobView {
    /// The view of a job and its tasks.
    #[must_use]
    pub fn of(job: &JobRow, nodes: Vec<NodeView>) -> Self {
        let any = |state| nodes.iter().any(|node| node.state == state);
        let state = if nodes.iter().any(|node| !node.state.is_over()) {
            JobState::Running
        } else if any(TaskState::Failed) {
            JobState::Failed
        } else if any(TaskState::Cancelled) {
            JobState::Cancelled
        } else {
            JobState::Done
        };
        Self {
            id: job.id,
            rack: job.rack.clone(),
            state,
            paused: job.paused && state == JobState::Running,
            created: job.created,
            ended: job.ended,
            nodes,
            unchanged: job.unchanged.clone(),
        }
    }
}
