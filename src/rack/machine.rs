//! The seam behind which a machine's BMC sits: what a rack needs of one, and no more. Doubles for tests stand here.

use std::collections::BTreeMap;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::job::{Fault, MachineId};
use crate::rack::NodeSpec;
use crate::rack::spec::BiosSettings;

/// Whether a machine has power.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Power {
    /// It runs.
    On,
    /// It does not.
    Off,
    /// On its way, or the BMC does not say.
    Changing,
}

/// What a machine starts from next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BootFrom {
    /// The virtual drive.
    Media,
    /// Its own disk.
    Disk,
}

/// What was found at a node's BMC.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Found {
    /// Who made it.
    pub vendor: Option<String>,
    /// What it is.
    pub model: Option<String>,
    /// The system's serial number.
    pub serial: Option<String>,
    /// The system's UUID.
    pub uuid: Option<String>,
    /// Whether it has power.
    pub power: Power,
    /// The firmware's version.
    pub bios: Option<String>,
    /// The BMC's own firmware version.
    pub bmc_firmware: Option<String>,
    /// Processors.
    pub cpus: Option<u32>,
    /// Memory in bytes.
    pub memory_bytes: Option<u64>,
    /// Graphics processors and other accelerators.
    pub gpus: u32,
    /// Drives that the BMC knows; it may know none although there are some.
    pub drives: Vec<FoundDrive>,
    /// How its BMC judges it as a whole: `OK`, `Warning` or `Critical`.
    #[serde(default)]
    pub health: Option<String>,
    /// What could not be read, and why.
    pub gaps: Vec<String>,
}

impl Found {
    /// What tells this machine from another.
    #[must_use]
    pub fn machine_id(&self) -> MachineId {
        MachineId { serial: self.serial.clone(), uuid: self.uuid.clone() }
    }
}

/// A drive, as a BMC tells of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct FoundDrive {
    /// Its name on the BMC.
    pub name: String,
    /// Serial number.
    pub serial: Option<String>,
    /// Model.
    pub model: Option<String>,
    /// World-wide name.
    pub wwn: Option<String>,
    /// Size in bytes.
    pub bytes: Option<u64>,
    /// How it is attached.
    pub protocol: Option<String>,
}

/// Why a BMC could not be asked, or did not obey.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct MachineError {
    /// A stable name of the kind: `unreachable`, `wrong-password`, `pin-changed` ...
    pub kind: String,
    /// What failed.
    pub message: String,
    /// What to do next.
    pub hint: String,
    /// Whether trying again may help.
    pub transient: bool,
}

/// The kind of a [`MachineError`] that must never be passed over: somebody may sit between us and the BMC.
pub const PIN_CHANGED: &str = "pin-changed";

impl MachineError {
    /// The error as a fault of a task.
    #[must_use]
    pub fn fault(&self) -> Fault {
        Fault { message: self.message.clone(), hint: self.hint.clone() }
    }
}

/// One machine, through its BMC. Every verb reads back what it changed, and does nothing where nothing is to change.
#[async_trait]
pub trait Machine: Send + Sync {
    /// What is there.
    async fn look(&self) -> Result<Found, MachineError>;
    /// Whether it has power.
    async fn power(&self) -> Result<Power, MachineError>;
    /// Switches it on.
    async fn power_on(&self) -> Result<(), MachineError>;
    /// Switches it off, at once.
    async fn power_off(&self) -> Result<(), MachineError>;
    /// Ejects whatever is in the virtual drive, and inserts the image at `url`.
    async fn insert_media(&self, url: &str) -> Result<(), MachineError>;
    /// Ejects whatever is in the virtual drive.
    async fn eject_media(&self) -> Result<(), MachineError>;
    /// Sets what it starts from next.
    async fn boot_from(&self, from: BootFrom) -> Result<(), MachineError>;
    /// Which of these BIOS settings do not hold now, in words.
    async fn bios_differs(&self, wanted: &BiosSettings) -> Result<Vec<String>, MachineError>;
    /// Orders these BIOS settings for the next start.
    async fn set_bios(&self, wanted: &BiosSettings) -> Result<(), MachineError>;
    /// Switches its identify light.
    async fn identify(&self, on: bool) -> Result<(), MachineError>;
    /// Ends the session.
    async fn close(&self);
}

/// Reaches the machines of a spec.
#[async_trait]
pub trait Machines: Send + Sync {
    /// The machine of that node.
    async fn connect(&self, node: &NodeSpec) -> Result<Box<dyn Machine>, MachineError>;

    /// What helps to find out why a node failed, by name: what its BMC shows now, and the last requests to it. What cannot be read is
    /// told under `not-read`.
    async fn evidence(&self, _node: &NodeSpec) -> BTreeMap<String, Value> {
        BTreeMap::new()
    }

    /// Begins to record the node's serial console, for the evidence, until [`Machines::end_recording`]; where it cannot be, the recording
    /// says why.
    fn record_console(&self, _node: &NodeSpec) {}

    /// Ends it, and forgets what was recorded.
    async fn end_recording(&self, _node: &NodeSpec) {}

    /// Ends the sessions that a killed process left open at the node's BMC, which is only talked to if there are any.
    async fn end_left_sessions(&self, _node: &NodeSpec) -> Result<(), MachineError> {
        Ok(())
    }
}
