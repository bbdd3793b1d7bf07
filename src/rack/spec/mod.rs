//! The spec: what a rack should be. TOML in a file, the same shape as JSON at the control door; either way it is checked
//! once, here, and what follows uses the checked value.

mod check;
mod keys;
mod raw;
mod user_data;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::format::order::{DiskSelector, Wipe};
use crate::model::{ImageRef, NodeName};

pub use user_data::{USER_DATA_MAX, UserData, UserDataFacts};

/// Most nodes in one spec: their rows fit one metadata transaction.
pub const NODES_MAX: usize = 200;

/// A checked spec.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "raw::RawSpec", into = "raw::RawSpec")]
pub struct Spec {
    /// The rack's name.
    pub name: String,
    /// Its nodes, in the file's order; at least one.
    pub nodes: Vec<NodeSpec>,
    /// How many nodes are worked on at a time.
    pub parallel: usize,
    /// How many of them on one power feed at a time; none for no such bound.
    pub parallel_per_feed: Option<usize>,
    /// How many nodes go first, alone: the others begin when all of these run their image.
    pub canaries: usize,
    /// After how many failed nodes no other is begun.
    pub stop_after: Option<usize>,
    /// How long to wait for what.
    pub timeouts: Timeouts,
    /// The content of the files of user data that nodes name, once [`Spec::with_user_data`] has read them.
    pub user_data: BTreeMap<PathBuf, UserData>,
}

/// One node of a spec, with the defaults filled in.
#[derive(Clone, Debug, PartialEq)]
pub struct NodeSpec {
    /// Its name.
    pub name: NodeName,
    /// Where its BMC is.
    pub bmc: BmcAddress,
    /// Which system behind that BMC, where it has several.
    pub system: Option<String>,
    /// SHA-256 of the BMC's certificate, where the spec pins it.
    pub pin: Option<[u8; 32]>,
    /// The certificates of the site's authority, which signed the BMC's; a pin comes before it.
    pub ca_file: Option<PathBuf>,
    /// How to log in, where the BMC wants it.
    pub login: Option<Login>,
    /// Which disk the image goes to.
    pub disk: DiskSelector,
    /// What may be lost on it.
    pub wipe: Wipe,
    /// The image.
    pub image: ImageRef,
    /// How well it must be.
    pub health: HealthGate,
    /// Whether its serial console is recorded while it is worked on.
    pub record_console: bool,
    /// BIOS settings that it is to have, by the names of its BIOS.
    pub bios: BiosSettings,
    /// The serial number that the machine must have, as its BMC tells: what keeps swapped cables and addresses from being imaged.
    pub serial: Option<String>,
    /// Rack unit.
    pub slot: Option<u16>,
    /// Which power feed it hangs from.
    pub feed: Option<String>,
    /// The file with what its image is told at the first start.
    pub user_data: Option<PathBuf>,
}

impl NodeSpec {
    /// What tells this machine from every other, however the address is written.
    #[must_use]
    pub fn identity(&self) -> String {
        let system = self.system.as_deref().unwrap_or_default().to_lowercase();
        format!("{}#{system}", self.bmc.identity())
    }
}

/// How well a node must be, by its BMC's judgement, before work on it is planned.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HealthGate {
    /// However it is.
    #[default]
    Any,
    /// Not critical.
    Warning,
    /// Neither critical nor with a warning.
    Ok,
}

impl HealthGate {
    /// Whether a node that is judged so may be worked on. One that is not judged may.
    #[must_use]
    pub fn lets_through(self, health: Option<&str>) -> bool {
        match health {
            Some("Critical") => self == Self::Any,
            Some("Warning") => self != Self::Ok,
            _ => true,
        }
    }
}

/// BIOS settings as text, by attribute.
pub type BiosSettings = BTreeMap<String, String>;

/// Where a BMC is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum BmcAddress {
    /// A Redfish service: `http` or `https`, host and port, no path.
    Url(String),
    /// A folder that holds a recorded tree.
    Folder(PathBuf),
}

impl BmcAddress {
    /// The same for two spellings of one BMC.
    #[must_use]
    pub fn identity(&self) -> String {
        match self {
            // Plain and secured service on the standard ports are one BMC.
            Self::Url(url) => url.split_once("://").map_or_else(|| url.clone(), |(_, rest)| rest.to_owned()),
            Self::Folder(path) => path.display().to_string(),
        }
    }
}

impl fmt::Display for BmcAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Url(url) => f.write_str(url),
            Self::Folder(path) => path.display().fmt(f),
        }
    }
}

/// A user name and where its password is found; never the password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Login {
    /// The user.
    pub username: String,
    /// Where the password is.
    pub password: PasswordSource,
}

/// Where a password is found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PasswordSource {
    /// An environment variable of the process that talks to the BMC.
    Env(String),
    /// A file, whose first line it is.
    File(PathBuf),
}

/// How long to wait for what, before a node has failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// For a BMC to do what it was told, with tries again.
    pub bmc: Duration,
    /// From power-on to the agent's first word: firmware start-up, and loading the boot image.
    pub post: Duration,
    /// Longest silence of an agent that has spoken.
    pub stall: Duration,
    /// From power-on to the agent's report.
    pub install: Duration,
    /// For the node to power itself off after the report; then it is forced.
    pub off: Duration,
    /// From power-on to the installed system's word.
    pub boot: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        let minutes = |minutes: u64| Duration::from_secs(60 * minutes);
        Self {
            bmc: minutes(10),
            post: minutes(20),
            stall: minutes(10),
            install: minutes(120),
            off: minutes(5),
            boot: minutes(20),
        }
    }
}

/// Why a spec was refused. Each is one paragraph that says what to write.
#[derive(Debug, thiserror::Error)]
pub enum SpecError {
    /// A mistake in the text.
    #[error("{place}: {problem}")]
    Mistake {
        /// File, line and node, as far as known.
        place: String,
        /// What is wrong and what to write.
        problem: String,
    },
    /// The spec does not say which disk may be written: refused for safety.
    #[error("{place}: {problem}")]
    AmbiguousDisk {
        /// File, line and node, as far as known.
        place: String,
        /// What is wrong and what to write.
        problem: String,
    },
}

impl Spec {
    /// Reads and checks the text of a spec. `origin` is what messages call it; relative paths in it are taken from
    /// `base`.
    pub fn parse(text: &str, origin: &str, base: &Path) -> Result<Self, SpecError> {
        let lines = keys::check(text, origin)?;
        let raw: raw::RawSpec = toml::from_str(text).map_err(|error| keys::mistake(text, origin, &error))?;
        check::checked(&raw, &check::Places { origin, lines: Some(&lines), base: Some(base) })
    }

    /// The nodes named in `only`, in the spec's order; all where it is empty. Refuses a name that is not in the spec.
    pub fn select(&self, only: &[NodeName]) -> Result<Vec<&NodeSpec>, SpecError> {
        if let Some(stranger) = only.iter().find(|name| self.node(name).is_none()) {
            let names: Vec<&str> = self.nodes.iter().map(|node| node.name.as_str()).collect();
            return Err(SpecError::Mistake {
                place: format!("rack {:?}", self.name),
                problem: format!("there is no node {stranger} in the spec; it has {}", names.join(", ")),
            });
        }
        Ok(self.nodes.iter().filter(|node| only.is_empty() || only.contains(&node.name)).collect())
    }

    /// The node of that name.
    #[must_use]
    pub fn node(&self, name: &NodeName) -> Option<&NodeSpec> {
        self.nodes.iter().find(|node| node.name == *name)
    }
}
