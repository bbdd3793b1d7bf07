//! Machines behind real BMCs: the seam of `machine`, filled by `bmc`.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use serde_json::{Value, json};
use tokio::sync::OnceCell;

use crate::bmc::{
    Address, BiosChange, Bmc, BmcError, BootTarget, Console, Credentials, Facts, Gateway, Inventory, Known, Pins,
    PowerAction, PowerState, SiteCa, Target, TerminalSize, Timing, Trust,
};
use crate::model::{NodeName, Secret};
use crate::rack::machine::{BootFrom, Found, FoundDrive, Machine, MachineError, Machines, Power};
use crate::rack::recorder::{self, Recorder};
use crate::rack::spec::{BiosSettings, BmcAddress, Login, NodeSpec, PasswordSource};

/// Reaches machines over Redfish; passwords come from this process's environment and files.
pub struct RedfishMachines {
    pins: Arc<dyn Pins>,
    met: Arc<Met>,
    recorder: Recorder,
}

/// BMCs that were talked to, by node: what they told need not be asked for again with each connection.
#[derive(Default)]
pub(super) struct Met {
    bmcs: Mutex<BTreeMap<NodeName, (String, Instant, Known)>>,
    /// All of them are talked to through one gateway.
    gateway: OnceCell<Arc<Gateway>>,
}

impl Met {
    /// BMCs that are remembered at most; a rack has far fewer.
    const MOST: usize = 4096;
    /// How long what a BMC told is gone by: its firmware may be updated, and the machine behind it replaced.
    const HOLDS: Duration = Duration::from_secs(600);

    /// Connects to the BMC of a node, and remembers what it told.
    pub(super) async fn connect(
        &self,
        node: &NodeName,
        target: &Target,
        pins: Arc<dyn Pins>,
        timing: Timing,
    ) -> Result<Bmc, BmcError> {
        let address = format!("{} {:?}", target.address, target.system);
        let met = self.bmcs.lock().unwrap_or_else(PoisonError::into_inner).get(node).cloned();
        let met = met.filter(|(at, since, _)| *at == address && since.elapsed() <= Self::HOLDS);
        let since = met.as_ref().map_or_else(Instant::now, |(_, since, _)| *since);
        let known = met.map(|(_, _, known)| known);
        let gateway = self.gateway.get_or_try_init(Gateway::open).await?.clone();
        let bmc = Bmc::connect_again(target, pins, timing, gateway, known).await?;
        let mut all = self.bmcs.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() < Self::MOST || all.contains_key(node) {
            all.insert(node.clone(), (address, since, bmc.known()));
        }
        Ok(bmc)
    }
}

impl RedfishMachines {
    /// Machines whose certificates are those in `pins`.
    #[must_use]
    pub fn new(pins: Arc<dyn Pins>) -> Self {
        Self { pins, met: Arc::default(), recorder: Recorder::default() }
    }

    /// Opens the serial console of a node.
    ///
    /// # Errors
    /// Where the spec names no credentials, or as [`Bmc::console`] does.
    pub async fn console(&self, node: &NodeSpec, size: TerminalSize) -> Result<Console, MachineError> {
        let target = target(node)?;
        let opened = open_console(&self.met, &node.name, &target, self.pins.clone(), size).await;
        opened.map_err(|error| machine_error(&error))
    }
}

#[async_trait]
impl Machines for RedfishMachines {
    async fn connect(&self, node: &NodeSpec) -> Result<Box<dyn Machine>, MachineError> {
        let target = target(node)?;
        let bmc = self.met.connect(&node.name, &target, self.pins.clone(), Timing::default()).await;
        Ok(Box::new(bmc.map_err(|error| machine_error(&error))?))
    }

    async fn evidence(&self, node: &NodeSpec) -> BTreeMap<String, Value> {
        let target = target(node);
        let bmc = match &target {
            Ok(target) => {
                let bmc = self.met.connect(&node.name, target, self.pins.clone(), Timing::default()).await;
                bmc.map_err(|error| error.to_string())
            }
            Err(error) => Err(error.message.clone()),
        };
        let mut found = match bmc {
            Ok(bmc) => {
                let found = bmc.evidence().await;
                bmc.close().await;
                found
            }
            Err(why) => [("not-read".to_owned(), json!([why]))].into(),
        };
        if let Some(console) = self.recorder.text(node) {
            found.insert("console".to_owned(), json!(console));
        }
        let authority = target.ok().and_then(|target| target.address.authority());
        if let (Some(gateway), Some(authority)) = (self.met.gateway.get(), authority) {
            found.insert("requests".to_owned(), json!(gateway.traced(&authority)));
        }
        found
    }

    fn record_console(&self, node: &NodeSpec) {
        // A node whose credentials are not there is not worked on either.
        let Ok(target) = target(node) else { return };
        let (met, name, pins) = (self.met.clone(), node.name.clone(), self.pins.clone());
        self.recorder.begin(node, move || {
            let (met, name, target, pins) = (met.clone(), name.clone(), target.clone(), pins.clone());
            async move { open_console(&met, &name, &target, pins, recorder::UNSEEN).await }
        });
    }

    async fn end_recording(&self, node: &NodeSpec) {
        self.recorder.end(node).await;
    }

    async fn end_left_sessions(&self, node: &NodeSpec) -> Result<(), MachineError> {
        let address: Address = node.bmc.to_string().parse().map_err(|error| machine_error(&error))?;
        let left = address.authority().is_some_and(|authority| self.pins.sessions_noted(&authority).is_left());
        if left {
            // Whoever makes a session deletes those that were left.
            self.connect(node).await?.close().await;
        }
        Ok(())
    }
}

/// Opens a console; the session at the BMC that finds out where it is ends at once.
async fn open_console(
    met: &Met,
    node: &NodeName,
    target: &Target,
    pins: Arc<dyn Pins>,
    size: TerminalSize,
) -> Result<Console, BmcError> {
    let bmc = Box::pin(met.connect(node, target, pins.clone(), Timing::default())).await?;
    let console = Box::pin(bmc.console(target, pins, size)).await;
    bmc.close().await;
    console
}

fn target(node: &NodeSpec) -> Result<Target, MachineError> {
    let address: Address = node.bmc.to_string().parse().map_err(|error| machine_error(&error))?;
    let credentials = match (&node.bmc, &node.login) {
        (BmcAddress::Url(_), Some(login)) => Some(credentials(login)?),
        _ => None,
    };
    let trust = match (node.pin, &node.ca_file) {
        (Some(pin), _) => Trust::Pin(pin),
        (None, Some(file)) => Trust::Site(SiteCa::read(file).map_err(|error| machine_error(&error))?),
        (None, None) => Trust::Known,
    };
    Ok(Target { address, system: node.system.clone(), credentials, trust, without: Facts::default() })
}

fn credentials(login: &Login) -> Result<Credentials, MachineError> {
    let missing = |message: String, hint: &str| MachineError {
        kind: "no-password".to_owned(),
        message,
        hint: hint.to_owned(),
        transient: false,
    };
    let password = match &login.password {
        PasswordSource::Env(name) => std::env::var(name).map_err(|_| {
            missing(
                format!("the BMC's password is to be in the environment variable {name}, which is not set"),
                "set it for the process that talks to the BMC: for plan and apply that is `bedplate serve`",
            )
        })?,
        PasswordSource::File(path) => {
            let text = std::fs::read_to_string(path).map_err(|error| {
                missing(
                    format!("the BMC's password is to be in {}, which cannot be read: {error}", path.display()),
                    "put it there, readable only for the user that runs `bedplate`",
                )
            })?;
            text.lines().next().unwrap_or_default().to_owned()
        }
    };
    Ok(Credentials { username: login.username.clone(), password: Secret::new(password) })
}

#[async_trait]
impl Machine for Bmc {
    async fn look(&self) -> Result<Found, MachineError> {
        self.essentials().await.map(found).map_err(|error| machine_error(&error))
    }

    async fn power(&self) -> Result<Power, MachineError> {
        self.power().await.map(power).map_err(|error| machine_error(&error))
    }

    async fn power_on(&self) -> Result<(), MachineError> {
        self.set_power(PowerAction::On).await.map_err(|error| machine_error(&error))
    }

    async fn power_off(&self) -> Result<(), MachineError> {
        self.set_power(PowerAction::ForceOff).await.map_err(|error| machine_error(&error))
    }

    async fn insert_media(&self, url: &str) -> Result<(), MachineError> {
        Bmc::insert_media(self, url).await.map_err(|error| machine_error(&error))
    }

    async fn eject_media(&self) -> Result<(), MachineError> {
        Bmc::eject_media(self).await.map_err(|error| machine_error(&error))
    }

    async fn boot_from(&self, from: BootFrom) -> Result<(), MachineError> {
        let target = match from {
            BootFrom::Media => BootTarget::Cd,
            BootFrom::Disk => BootTarget::Hdd,
        };
        self.set_boot(target).await.map(drop).map_err(|error| machine_error(&error))
    }

    async fn bios_differs(&self, wanted: &BiosSettings) -> Result<Vec<String>, MachineError> {
        let changes = Bmc::bios_differs(self, &listed(wanted)).await.map_err(|error| machine_error(&error))?;
        Ok(changes.iter().map(BiosChange::words).collect())
    }

    async fn set_bios(&self, wanted: &BiosSettings) -> Result<(), MachineError> {
        Bmc::set_bios(self, &listed(wanted)).await.map(drop).map_err(|error| machine_error(&error))
    }

    async fn identify(&self, on: bool) -> Result<(), MachineError> {
        Bmc::identify(self, on).await.map_err(|error| machine_error(&error))
    }

    async fn close(&self) {
        Bmc::close(self).await;
    }
}

fn listed(settings: &BiosSettings) -> Vec<(String, String)> {
    settings.iter().map(|(name, value)| (name.clone(), value.clone())).collect()
}

/// A BMC's error as a rack knows it.
pub(super) fn machine_error(error: &BmcError) -> MachineError {
    let passing = error.is_passing()
        || matches!(error, BmcError::NotObeyed { .. } | BmcError::Tls { .. } | BmcError::Unreadable { .. });
    MachineError { kind: error.kind().to_owned(), message: error.to_string(), hint: error.hint(), transient: passing }
}

fn power(state: PowerState) -> Power {
    match state {
        PowerState::On => Power::On,
        PowerState::Off => Power::Off,
        PowerState::PoweringOn | PowerState::PoweringOff | PowerState::Unknown => Power::Changing,
    }
}

fn found(inventory: Inventory) -> Found {
    let drives = inventory.drives.into_iter().map(|drive| FoundDrive {
        name: drive.name,
        serial: drive.serial,
        model: drive.model,
        wwn: drive.wwn,
        bytes: drive.bytes,
        protocol: drive.protocol,
    });
    Found {
        vendor: inventory.vendor,
        model: inventory.model,
        serial: inventory.serial,
        uuid: inventory.uuid,
        power: power(inventory.power),
        bios: inventory.bios_version,
        bmc_firmware: inventory.manager.firmware_version,
        cpus: u32::try_from(inventory.cpus.len()).ok().filter(|cpus| *cpus > 0),
        memory_bytes: inventory.memory_bytes,
        gpus: u32::try_from(inventory.gpus.len()).unwrap_or(u32::MAX),
        drives: drives.collect(),
        health: inventory.health,
        gaps: inventory.gaps,
    }
}
