//! What the appliance and the agent say to each other, as JSON over HTTPS. Unknown fields are ignored, so that an
//! older agent understands a newer appliance; `version` changes only when an old reader would do harm.

use serde::{Deserialize, Serialize};

use crate::model::{Digest, ImageRef, NodeName};

/// The version of these messages.
pub const VERSION: u32 = 1;

/// What a node is to do, answered to `GET /agent/v1/order`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// [`VERSION`] of the server.
    pub version: u32,
    /// The job that ordered it, 32 hexadecimal digits.
    pub job: String,
    /// The node, also its host name.
    pub node: NodeName,
    /// The image to install.
    pub image: ImageRef,
    /// Its length in bytes.
    pub image_bytes: u64,
    /// Its root digest: what the written disk must add up to.
    pub root_digest: Digest,
    /// Which disk.
    pub disk: DiskSelector,
    /// What may be lost on it.
    pub wipe: Wipe,
    /// Bearer token for the installed system's one report.
    pub boot_token: String,
}

/// Which disk: every criterion that is given must hold, and exactly one disk may match.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct DiskSelector {
    /// The drive's serial number, whole, without surrounding blanks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub serial: Option<String>,
    /// World-wide name (`/sys/block/X/wwid` or `device/wwid`), as in `eui.…`, `naa.…`; without the prefix too.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wwn: Option<String>,
    /// The drive's model, or the beginning of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// PCI address (`0000:c1:00.0`) of the drive or of its controller.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slot: Option<String>,
    /// Smallest size, with a unit (`"900GB"`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size_min: Option<String>,
    /// Largest size, with a unit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size_max: Option<String>,
}

/// What may be lost on the chosen disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Wipe {
    /// Only a blank disk is written, or one that holds an image that bedplate wrote before.
    #[default]
    Blank,
    /// Whatever the disk holds may be lost.
    Any,
}

/// Where an installation stands, sent to `POST /agent/v1/progress` about once a second and at each change of phase.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// What the agent is doing.
    pub phase: Phase,
    /// Bytes of the image that are done in this phase.
    pub bytes_done: u64,
    /// Bytes that the phase has in all.
    pub bytes_total: u64,
}

/// The agent's phases, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// Finding the disk.
    Disk,
    /// Fetching and writing.
    Write,
    /// Reading back.
    Verify,
    /// Partition table, seed data, boot entry.
    Finish,
}

/// How an installation ended, sent to `POST /agent/v1/report`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "kebab-case")]
pub enum Report {
    /// The image is on the disk, read back, and the node is about to power off.
    Installed(Installed),
    /// The agent gave up; the disk may be partly written unless `untouched`.
    Failed {
        /// One paragraph: what failed, and what to do.
        error: String,
        /// Whether the disk is as it was before.
        untouched: bool,
    },
}

/// Figures of a finished installation; the JSON of `bedplate-agent write` too.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Installed {
    /// The disk that was written, as a device path.
    pub disk: String,
    /// Its serial number, where it has one.
    pub disk_serial: Option<String>,
    /// Bytes that came over the wire.
    pub bytes_fetched: u64,
    /// Bytes that the disk already held.
    pub bytes_reused: u64,
    /// Bytes written to the disk.
    pub bytes_written: u64,
    /// Bytes of zeros that were not written because the disk already reads as zeros there, or was discarded.
    pub bytes_zero: u64,
    /// Wall time in seconds.
    pub seconds: f64,
    /// Root digest of what was read back from the disk.
    pub root_digest: Digest,
}

/// What the installed system says at its first boot, to `POST /agent/v1/booted`: the only proof of a boot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Booted {
    /// The image that the running system says it is (`/etc/bedplate/image`).
    pub image: ImageRef,
    /// Its host name.
    pub hostname: String,
    /// The device that holds its root file system.
    pub root_device: String,
    /// The kernel's boot id: tells one boot from the next.
    pub boot_id: String,
}

/// What the installed system finds in its seed (`bedplate.json` on the volume `CIDATA`, beside cloud-init's files).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seed {
    /// Base URL of the control door.
    pub url: String,
    /// SHA-256 of the server certificate's DER encoding, 64 hexadecimal digits.
    pub certificate_pin: String,
    /// Bearer token for `POST /agent/v1/booted`.
    pub token: String,
    /// The node's name.
    pub node: NodeName,
}
