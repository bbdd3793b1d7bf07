//! The rows of the journal: a job, one task a node, and what is known of each node. Stored as a version byte and JSON
//! (docs/format.md, "Job and node rows"); unknown fields are ignored, so that fields may be added.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::format::order::{Booted, DiskSelector, Installed, Wipe};
use crate::job::Step;
use crate::job::step::steps;
use crate::model::{Digest, ImageRef, JobId, NodeName};
use crate::sys::clock::Timestamp;

/// First byte of every row in this module.
pub const ROW_VERSION: u8 = 1;

/// Most notes that a task keeps; later ones push out the oldest.
const NOTES_MAX: usize = 32;

/// One job.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct JobRow {
    /// Its id.
    pub id: JobId,
    /// The rack's name in the spec.
    pub rack: String,
    /// When it began.
    pub created: Timestamp,
    /// When its last task ended.
    #[serde(default)]
    pub ended: Option<Timestamp>,
    /// Whether no other node is to be begun for now.
    #[serde(default)]
    pub paused: bool,
    /// The nodes that it works on.
    pub nodes: Vec<NodeName>,
    /// The nodes that already were as the spec wants them.
    #[serde(default)]
    pub unchanged: Vec<NodeName>,
    /// The whole spec as it was applied; `rack` reads it back.
    pub spec: serde_json::Value,
}

/// What a task is to put on its node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Work {
    /// The image.
    pub image: ImageRef,
    /// Its length in bytes.
    pub image_bytes: u64,
    /// Its root digest, when the job began.
    pub root_digest: Digest,
    /// Which disk.
    pub disk: DiskSelector,
    /// What may be lost on it.
    pub wipe: Wipe,
    /// BIOS settings, by attribute.
    #[serde(default)]
    pub bios: BTreeMap<String, String>,
    /// SHA-256 of its user data, whose text the journal keeps for as long as the job is not over.
    #[serde(default)]
    pub user_data: Option<Digest>,
}

impl Work {
    /// The step after `step`; `None` after the last.
    #[must_use]
    pub fn after(&self, step: Step) -> Option<Step> {
        steps(!self.bios.is_empty()).find(|next| *next > step)
    }
}

/// Where a task stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TaskState {
    /// Not begun.
    Queued,
    /// In the step that the row names.
    Running,
    /// Failed; the node is being left in a safe state.
    Failing,
    /// Cancelled; the node is being left in a safe state.
    Cancelling,
    /// The node runs the image, by its own word.
    Imaged,
    /// Failed, for good.
    Failed,
    /// Cancelled, for good.
    Cancelled,
}

impl TaskState {
    /// Whether nothing more will happen.
    #[must_use]
    pub fn is_over(self) -> bool {
        matches!(self, Self::Imaged | Self::Failed | Self::Cancelled)
    }
}

/// A failure in words: what happened and what to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// What failed.
    pub message: String,
    /// What to do next.
    pub hint: String,
}

/// A step that was passed, for timings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Passed {
    /// Which.
    pub step: Step,
    /// When it began.
    pub since: Timestamp,
    /// When it ended.
    pub until: Timestamp,
}

/// One node's part of a job.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TaskRow {
    /// The job.
    pub job: JobId,
    /// The rack's name.
    pub rack: String,
    /// The node.
    pub node: NodeName,
    /// Rack unit, where the spec gives one.
    #[serde(default)]
    pub slot: Option<u16>,
    /// Identity of its BMC and system; while the task is open, no other job may have it.
    pub bmc: String,
    /// What to put on it.
    pub work: Work,
    /// Where it stands.
    pub state: TaskState,
    /// The step that it is in, or was in last.
    pub step: Step,
    /// Since when it is in this state and step.
    pub since: Timestamp,
    /// What the node's tokens are derived from, 64 hexadecimal digits; gone once the task is over, and they with it.
    #[serde(default)]
    pub secret: Option<String>,
    /// When the agent first fetched its order in this try.
    #[serde(default)]
    pub ordered: Option<Timestamp>,
    /// The agent's report.
    #[serde(default)]
    pub installed: Option<Installed>,
    /// The installed system's word.
    #[serde(default)]
    pub booted: Option<Booted>,
    /// How often the work went back to an earlier step.
    #[serde(default)]
    pub restarts: u32,
    /// Why it failed.
    #[serde(default)]
    pub error: Option<Fault>,
    /// What happened on the way, in words, oldest first.
    #[serde(default)]
    pub notes: Vec<String>,
    /// Steps that were passed, in order.
    #[serde(default)]
    pub passed: Vec<Passed>,
    /// What the node held before; still true if nothing touched its disk.
    #[serde(default)]
    pub held: Option<Holding>,
    /// Whether an agent may have written to the disk: from its first order on, unless it reports otherwise.
    #[serde(default)]
    pub touched: bool,
    /// Which machine it is, as its BMC says.
    #[serde(default)]
    pub machine: Option<MachineId>,
}

impl TaskRow {
    /// Adds a note, pushing out the oldest when there are too many.
    pub fn note(&mut self, note: String) {
        if self.notes.len() >= NOTES_MAX {
            self.notes.remove(0);
        }
        self.notes.push(note);
    }

    /// Enters `step` at `now`, and remembers how long the last one took.
    pub fn enter(&mut self, step: Step, now: Timestamp) {
        if self.state == TaskState::Running {
            self.passed.push(Passed { step: self.step, since: self.since, until: now });
        }
        self.state = TaskState::Running;
        self.step = step;
        self.since = now;
    }

    /// Whether the agent's order, progress and report are welcome now.
    #[must_use]
    pub fn install_open(&self) -> bool {
        self.state == TaskState::Running && self.step.agent_may_run() && self.installed.is_none()
    }
}

/// What tells one machine from another, as its BMC says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MachineId {
    /// The system's serial number.
    #[serde(default)]
    pub serial: Option<String>,
    /// The system's UUID.
    #[serde(default)]
    pub uuid: Option<String>,
}

/// What a node is known to hold, by its own word.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holding {
    /// The image.
    pub image: ImageRef,
    /// Its root digest.
    pub root_digest: Digest,
    /// When the installed system reported in.
    pub since: Timestamp,
    /// By which job.
    pub job: JobId,
    /// Its host name.
    pub hostname: String,
    /// The device that holds its root file system.
    pub root_device: String,
    /// The kernel's boot id at that report.
    pub boot_id: String,
    /// The disk that was written, as the agent saw it.
    pub disk: String,
    /// That disk's serial number.
    #[serde(default)]
    pub disk_serial: Option<String>,
    /// SHA-256 of the user data that it was imaged with.
    #[serde(default)]
    pub user_data: Option<Digest>,
}

/// Why a node may not be trusted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quarantine {
    /// Since when.
    pub since: Timestamp,
    /// The job that failed on it.
    pub job: JobId,
    /// Why.
    pub cause: Fault,
}

/// What is known of one node over all jobs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeRow {
    /// The rack's name.
    pub rack: String,
    /// The node.
    pub node: NodeName,
    /// Rack unit.
    #[serde(default)]
    pub slot: Option<u16>,
    /// Identity of its BMC and system.
    pub bmc: String,
    /// Which machine it was at the last job.
    #[serde(default)]
    pub machine: Option<MachineId>,
    /// What it holds; absent from the moment that an agent may have begun to write.
    #[serde(default)]
    pub holds: Option<Holding>,
    /// Present while the node is set aside after a failure.
    #[serde(default)]
    pub quarantine: Option<Quarantine>,
    /// The last job that worked on it.
    pub last_job: JobId,
    /// Wall seconds of its last whole imaging, from power off to the installed system's word.
    #[serde(default)]
    pub last_seconds: Option<u64>,
}

/// A row's bytes.
pub(crate) fn encode<T: Serialize>(row: &T) -> Vec<u8> {
    let mut bytes = vec![ROW_VERSION];
    serde_json::to_writer(&mut bytes, row).expect("rows are plain data, which always becomes JSON");
    bytes
}

/// A row from its bytes; `None` when they are not a row of this version.
pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    let (version, text) = bytes.split_first()?;
    if *version != ROW_VERSION {
        return None;
    }
    serde_json::from_slice(text).ok()
}

#[cfg(test)]
mod tests {
    //! Rows from before a field was added are read.
    use super::*;

    #[test]
    fn rows_without_user_data_are_read() {
        let digest = "ab".repeat(32);
        let work = format!(
            r#"{{"image":"os@1","image_bytes":1,"root_digest":"{digest}","disk":{{"serial":"S"}},"wipe":"blank","bios":{{}}}}"#
        );
        let row = [&[ROW_VERSION], work.as_bytes()].concat();
        assert_eq!(decode::<Work>(&row).unwrap().user_data, None);
        let holds = format!(
            r#"{{"image":"os@1","root_digest":"{digest}","since":"2026-01-01T00:00:00.000Z","job":"{}","hostname":"n","root_device":"/dev/a",
               "boot_id":"b","disk":"/dev/a"}}"#,
            "0".repeat(32)
        );
        let row = [&[ROW_VERSION], holds.as_bytes()].concat();
        assert_eq!(decode::<Holding>(&row).unwrap().user_data, None);
    }
}
