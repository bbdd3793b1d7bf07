//! The spec's shape in TOML and JSON, as people write it: everything optional that has a default.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::format::order::{DiskSelector, Wipe};
use crate::rack::spec::{HealthGate, Login, NodeSpec, PasswordSource, Spec, SpecError, Timeouts, UserData, check};

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct RawSpec {
    #[serde(default)]
    pub(super) name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) image: Option<String>,
    #[serde(default)]
    pub(super) bmc: RawLogin,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) disk: Option<DiskSelector>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) bios: BTreeMap<String, RawSetting>,
    #[serde(default)]
    pub(super) install: RawInstall,
    #[serde(default)]
    pub(super) timeouts: RawTimeouts,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) role: BTreeMap<String, RawRole>,
    #[serde(default)]
    pub(super) node: Vec<RawNode>,
    /// Content of files of user data, by path; in JSON alone.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) user_data: BTreeMap<PathBuf, UserData>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub(super) struct RawLogin {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) username: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) password_env: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) password_file: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) ca_file: Option<String>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub(super) struct RawInstall {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) wipe: Option<Wipe>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) health: Option<HealthGate>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) record_console: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) user_data: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) parallel: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) parallel_per_feed: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) canaries: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) stop_after: Option<usize>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub(super) struct RawTimeouts {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) bmc: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) post: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) stall: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) install: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) off: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) boot: Option<String>,
}

/// The value of a BIOS setting.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub(super) enum RawSetting {
    Flag(bool),
    Number(i64),
    Text(String),
}

impl RawSetting {
    pub(super) fn text(&self) -> String {
        match self {
            Self::Flag(flag) => flag.to_string(),
            Self::Number(number) => number.to_string(),
            Self::Text(text) => text.clone(),
        }
    }
}

/// What the nodes of one role have in common.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub(super) struct RawRole {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) username: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) password_env: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) password_file: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) ca_file: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) disk: Option<DiskSelector>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) wipe: Option<Wipe>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) image: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) user_data: Option<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) bios: BTreeMap<String, RawSetting>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub(super) struct RawNode {
    pub(super) name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) role: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) serial: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) bmc: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) system: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) pin: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) ca_file: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) username: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) password_env: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) password_file: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) disk: Option<DiskSelector>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) wipe: Option<Wipe>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) image: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) slot: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) feed: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) health: Option<HealthGate>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) record_console: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) user_data: Option<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) bios: BTreeMap<String, RawSetting>,
}

impl TryFrom<RawSpec> for Spec {
    type Error = SpecError;

    fn try_from(raw: RawSpec) -> Result<Self, Self::Error> {
        check::checked(&raw, &check::Places { origin: "spec", lines: None, base: None })
    }
}

impl From<Spec> for RawSpec {
    fn from(spec: Spec) -> Self {
        let text = |duration: std::time::Duration| Some(format!("{}ms", duration.as_millis()));
        let Timeouts { bmc, post, stall, install, off, boot } = spec.timeouts;
        Self {
            name: spec.name,
            image: None,
            bmc: RawLogin::default(),
            disk: None,
            bios: BTreeMap::new(),
            install: RawInstall {
                wipe: None,
                health: None,
                record_console: None,
                user_data: None,
                parallel: Some(spec.parallel),
                parallel_per_feed: spec.parallel_per_feed,
                canaries: Some(spec.canaries),
                stop_after: spec.stop_after,
            },
            timeouts: RawTimeouts {
                bmc: text(bmc),
                post: text(post),
                stall: text(stall),
                install: text(install),
                off: text(off),
                boot: text(boot),
            },
            // Each node has what its role gave it.
            role: BTreeMap::new(),
            node: spec.nodes.into_iter().map(RawNode::from).collect(),
            user_data: spec.user_data,
        }
    }
}

impl From<NodeSpec> for RawNode {
    fn from(node: NodeSpec) -> Self {
        let (username, password_env, password_file) = match node.login {
            None => (None, None, None),
            Some(Login { username, password: PasswordSource::Env(name) }) => (Some(username), Some(name), None),
            Some(Login { username, password: PasswordSource::File(path) }) => {
                (Some(username), None, Some(path.display().to_string()))
            }
        };
        Self {
            name: node.name.to_string(),
            role: None,
            serial: node.serial,
            bmc: Some(node.bmc.to_string()),
            system: node.system,
            pin: node.pin.map(|pin| format!("sha256:{}", hex::encode(pin))),
            ca_file: node.ca_file.map(|file| file.display().to_string()),
            username,
            password_env,
            password_file,
            disk: Some(node.disk),
            wipe: Some(node.wipe),
            image: Some(node.image.to_string()),
            slot: node.slot,
            feed: node.feed,
            health: Some(node.health),
            record_console: Some(node.record_console),
            user_data: node.user_data.map(|file| file.display().to_string()),
            bios: node.bios.into_iter().map(|(name, value)| (name, RawSetting::Text(value))).collect(),
        }
    }
}
