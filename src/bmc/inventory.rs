//! What a machine is made of, as its BMC tells it. What cannot be read is named as a gap, never guessed, and never
//! stops the rest.

use std::collections::BTreeSet;

use futures_util::StreamExt as _;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::fact::Fact;
use super::{Bmc, BmcError, PowerState, links};

/// Requests under way at once; the gateway allows no more.
const AT_ONCE: usize = 2;
/// Parts of one kind that are read.
const PARTS_MAX: usize = 512;

/// A machine's parts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Inventory {
    /// Who made the machine.
    pub vendor: Option<String>,
    /// Its model.
    pub model: Option<String>,
    /// The number that people know it by.
    pub serial: Option<String>,
    /// Its UUID.
    pub uuid: Option<String>,
    /// The version of its BIOS.
    pub bios_version: Option<String>,
    /// Its power state.
    pub power: PowerState,
    /// How its BMC judges it as a whole: `OK`, `Warning` or `Critical`.
    #[serde(default)]
    pub health: Option<String>,
    /// The id of the system behind the BMC.
    pub system_id: String,
    /// Its processors.
    pub cpus: Vec<Cpu>,
    /// Its memory in bytes.
    pub memory_bytes: Option<u64>,
    /// Its drives.
    pub drives: Vec<Drive>,
    /// Its network ports.
    pub nics: Vec<Nic>,
    /// Its GPUs.
    pub gpus: Vec<Gpu>,
    /// Every firmware that the BMC lists.
    pub firmware: Vec<Firmware>,
    /// The BMC itself.
    pub manager: ManagerInfo,
    /// What could not be read, and why.
    pub gaps: Vec<String>,
}

/// A processor.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Cpu {
    /// Its socket.
    pub name: String,
    /// Its model.
    pub model: Option<String>,
    /// Its cores.
    pub cores: Option<u64>,
    /// Its threads.
    pub threads: Option<u64>,
}

/// A drive.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Drive {
    /// Its name or bay.
    pub name: String,
    /// Its serial number.
    pub serial: Option<String>,
    /// Its model.
    pub model: Option<String>,
    /// Its size in bytes.
    pub bytes: Option<u64>,
    /// How it is attached (`NVMe`, `SATA`).
    pub protocol: Option<String>,
    /// Its world-wide name (EUI, NAA).
    pub wwn: Option<String>,
}

/// A network port.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Nic {
    /// Its id at the BMC.
    pub name: String,
    /// Its MAC address, lower-case with colons.
    pub mac: String,
}

/// A GPU.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Gpu {
    /// Its slot.
    pub name: String,
    /// Its model.
    pub model: Option<String>,
    /// Its serial number.
    pub serial: Option<String>,
}

/// One firmware.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Firmware {
    /// What it runs on.
    pub name: String,
    /// Its version.
    pub version: String,
}

/// The BMC itself.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ManagerInfo {
    /// Its model.
    pub model: Option<String>,
    /// The version of its firmware.
    pub firmware_version: Option<String>,
}

/// Text that says something: BMCs fill empty fields with blanks, dashes and the like.
pub(super) fn said(value: Option<&str>) -> Option<String> {
    let text = value?.trim();
    let empty = ["", "n/a", "na", "none", "null", "not available", "unknown", "-", "to be filled by o.e.m."];
    (!empty.contains(&text.to_ascii_lowercase().as_str())).then(|| text.to_owned())
}

fn text(value: &Value) -> Option<String> {
    said(value.as_str())
}

/// A MAC address in one form; none for what is no unicast address.
fn mac(text: Option<&str>) -> Option<String> {
    let digits: String = text?.chars().filter(|c| !matches!(c, ':' | '-' | '.')).collect();
    let mut bytes = [0u8; 6];
    hex::decode_to_slice(&digits, &mut bytes).ok()?;
    let usable = bytes != [0; 6] && bytes[0] & 1 == 0;
    usable.then(|| bytes.map(|byte| format!("{byte:02x}")).join(":"))
}

/// Gathers parts, and gaps beside them.
struct Survey<'a> {
    bmc: &'a Bmc,
    gaps: Vec<String>,
}

impl Bmc {
    /// Reads what the machine is made of. Parts that cannot be read become gaps.
    ///
    /// # Errors
    /// Only when the system itself cannot be read.
    pub async fn inventory(&self) -> Result<Inventory, BmcError> {
        self.parts_of(true).await
    }

    /// As [`Bmc::inventory`], without the list of firmware: it has dozens of entries, takes some BMCs minutes, and says
    /// nothing that imaging needs.
    ///
    /// # Errors
    /// As [`Bmc::inventory`].
    pub async fn essentials(&self) -> Result<Inventory, BmcError> {
        self.parts_of(false).await
    }

    /// Every firmware that runs, as the BMC lists it.
    ///
    /// # Errors
    /// [`BmcError::Unsupported`] where it lists none.
    pub async fn firmware(&self) -> Result<Vec<Firmware>, BmcError> {
        Survey { bmc: self, gaps: vec![] }.firmware().await
    }

    /// A document as a type of the `redfish` crate.
    fn typed<T: DeserializeOwned>(&self, link: &str, document: Value) -> Result<T, BmcError> {
        serde_json::from_value(document).map_err(|error| BmcError::Unreadable {
            bmc: self.name().to_owned(),
            request: format!("GET {link}"),
            why: error.to_string(),
        })
    }

    async fn parts_of(&self, whole: bool) -> Result<Inventory, BmcError> {
        let system: redfish::ComputerSystem = self.typed(&self.system, self.just_read(&self.system).await?)?;
        let mut survey = Survey { bmc: self, gaps: vec![] };
        let (cpus, mut gpus) = survey.processors(&system).await;
        gpus.extend(survey.other_gpus(&system, gpus.is_empty()).await);
        let nameless = gpus.iter().filter(|gpu| gpu.model.is_none() || gpu.serial.is_none()).count();
        if nameless > 0 {
            survey.gaps.push(format!("GPUs: {nameless} of {} without model or serial number", gpus.len()));
        }
        let drives = survey.drives(&system).await;
        let nics = survey.nics(&system).await;
        let firmware = if whole { survey.firmware_or_gap().await } else { vec![] };
        let manager = survey.manager().await;
        let identity = survey.identity(&system).await;
        let memory_bytes = survey.memory(&system).await;
        let system_id = self.system.trim_end_matches('/').rsplit('/').next().unwrap_or_default().to_owned();
        let power = match system.power_state.as_deref() {
            Some("On") => PowerState::On,
            Some("Off") => PowerState::Off,
            Some("PoweringOn") => PowerState::PoweringOn,
            Some("PoweringOff") => PowerState::PoweringOff,
            _ => PowerState::Unknown,
        };
        Ok(Inventory {
            vendor: identity.vendor,
            model: identity.model,
            serial: identity.serial,
            uuid: said(system.uuid.as_deref()).map(|uuid| uuid.to_ascii_lowercase()),
            bios_version: said(system.bios_version.as_deref()),
            power,
            health: system.status.as_ref().and_then(|s| said(s.health_rollup.as_deref()).or(said(s.health.as_deref()))),
            system_id: system.id.clone().unwrap_or(system_id),
            cpus,
            memory_bytes,
            drives,
            nics,
            gpus,
            firmware,
            manager,
            gaps: survey.gaps,
        })
    }
}

struct Identity {
    vendor: Option<String>,
    model: Option<String>,
    serial: Option<String>,
}

impl Survey<'_> {
    fn gap(&mut self, what: &str, why: &BmcError) {
        self.gaps.push(match why.status() {
            Some(404) => format!("{what}: the BMC has none"),
            _ => format!("{what}: {why}"),
        });
    }

    /// Who made it and what it is called; a system that does not say is named by its chassis.
    async fn identity(&mut self, system: &redfish::ComputerSystem) -> Identity {
        let sku = said(system.extra.get("SKU").and_then(Value::as_str));
        let own = said(system.serial_number.as_deref());
        let serial = if self.bmc.quirks.has(Fact::DellServiceTag) { sku.or(own) } else { own };
        let (vendor, model) = (said(system.manufacturer.as_deref()), said(system.model.as_deref()));
        let mut identity = Identity { vendor, model, serial };
        let chassis = system.extra.get("Links").map(|all| links(&all["Chassis"])).unwrap_or_default();
        for link in chassis.iter().take(2) {
            if identity.vendor.is_some() && identity.model.is_some() && identity.serial.is_some() {
                break;
            }
            let read = self.bmc.just_read(link).await;
            match read.and_then(|document| self.bmc.typed::<redfish::Chassis>(link, document)) {
                Ok(chassis) => {
                    identity.vendor = identity.vendor.or(said(chassis.manufacturer.as_deref()));
                    identity.model = identity.model.or(said(chassis.model.as_deref()));
                    identity.serial = identity.serial.or(said(chassis.serial_number.as_deref()));
                }
                Err(error) => self.gap("chassis", &error),
            }
        }
        if identity.serial.is_none() {
            self.gaps.push("serial number: neither the system nor its chassis tells it".to_owned());
        }
        identity
    }

    async fn manager(&mut self) -> ManagerInfo {
        let Some(link) = self.bmc.managers.first() else {
            self.gaps.push("BMC: it does not list itself".to_owned());
            return ManagerInfo::default();
        };
        let read = self.bmc.just_read(link).await;
        match read.and_then(|document| self.bmc.typed::<redfish::Manager>(link, document)) {
            Ok(manager) => ManagerInfo {
                model: manager.extra.get("Model").and_then(text).or(said(manager.name.as_deref())),
                firmware_version: said(manager.firmware_version.as_deref())
                    .map(|version| self.bmc.quirks.version(&version).to_owned()),
            },
            Err(error) => {
                self.gap("BMC", &error);
                ManagerInfo::default()
            }
        }
    }

    /// Memory from the summary, else added up from the modules.
    async fn memory(&mut self, system: &redfish::ComputerSystem) -> Option<u64> {
        let summary = system.memory_summary.as_ref().and_then(|summary| summary.total_system_memory_gib);
        if let Some(gib) = summary.filter(|gib| *gib > 0.0) {
            return Some((gib * f64::from(1 << 30)) as u64);
        }
        let modules: Vec<Value> = self.parts("memory", system.extra.get("Memory")).await;
        let mib: u64 = modules.iter().filter_map(|module| module["CapacityMiB"].as_u64()).sum();
        (mib > 0).then_some(mib << 20)
    }

    /// Processors of the system, told apart by their type.
    async fn processors(&mut self, system: &redfish::ComputerSystem) -> (Vec<Cpu>, Vec<Gpu>) {
        let parts: Vec<Value> = self.parts("processors", system.extra.get("Processors")).await;
        let present = |part: &&Value| part["Status"]["State"] != "Absent";
        let cpus = parts.iter().filter(present).filter(|part| {
            // Before the type was a property, there was nothing but CPUs.
            matches!(part["ProcessorType"].as_str(), Some("CPU") | None)
        });
        let mut cpus: Vec<Cpu> = cpus
            .map(|part| Cpu {
                name: part_name(part, &["Socket", "Id", "Name"]),
                model: text(&part["Model"]),
                cores: part["TotalCores"].as_u64().filter(|n| *n > 0),
                threads: part["TotalThreads"].as_u64().filter(|n| *n > 0),
            })
            .collect();
        if cpus.is_empty()
            && let Some(summary) = &system.processor_summary
        {
            let model = said(summary.model.as_deref());
            let count = summary.count.unwrap_or(0).min(64);
            cpus.extend((1..=count).map(|n| Cpu {
                name: format!("CPU {n}"),
                model: model.clone(),
                cores: None,
                threads: None,
            }));
        }
        let gpus = parts.iter().filter(present).filter(|part| part["ProcessorType"] == "GPU").map(gpu).collect();
        (cpus, gpus)
    }

    /// GPUs that hang from other systems behind the same BMC (a baseboard of its own), or show as PCIe devices only.
    async fn other_gpus(&mut self, system: &redfish::ComputerSystem, none_yet: bool) -> Vec<Gpu> {
        let mut gpus = vec![];
        if !none_yet {
            return gpus;
        }
        let beside = self.bmc.systems.iter().filter(|link| **link != self.bmc.system);
        for link in beside.filter(|_| self.bmc.quirks.has(Fact::GpusOnBaseboard)) {
            let other: Result<Value, _> = self.bmc.client.get(link).await;
            let Ok(other) = other else { continue };
            if other.get("Boot").is_some() {
                continue;
            }
            let parts: Vec<Value> = self.parts("processors of the baseboard", other.get("Processors")).await;
            gpus.extend(parts.iter().filter(|part| part["ProcessorType"] == "GPU").map(gpu));
        }
        if !gpus.is_empty() {
            return gpus;
        }
        let chassis = system.extra.get("Links").map(|all| links(&all["Chassis"])).unwrap_or_default();
        for link in chassis.iter().take(4) {
            let Ok(chassis) = self.bmc.just_read(link).await else { continue };
            let devices: Vec<Value> = self.parts("PCIe devices", chassis.get("PCIeDevices")).await;
            let names =
                |device: &Value| ["Id", "Name", "Model"].map(|key| text(&device[key]).unwrap_or_default()).join(" ");
            gpus.extend(devices.iter().filter(|device| names(device).to_ascii_uppercase().contains("GPU")).map(gpu));
        }
        gpus
    }

    /// Drives of every storage unit; where there is none, those of the older, simpler list.
    async fn drives(&mut self, system: &redfish::ComputerSystem) -> Vec<Drive> {
        let units: Vec<Value> = self.parts("storage", system.extra.get("Storage")).await;
        let found: Vec<String> = units.iter().flat_map(|unit| links(&unit["Drives"])).collect();
        let parts: Vec<redfish::Drive> = self.each("drive", found).await;
        let mut drives: Vec<Drive> = parts.iter().map(drive).collect();
        if drives.is_empty() {
            let lists: Vec<Value> = self.parts("simple storage", system.extra.get("SimpleStorage")).await;
            drives.extend(lists.iter().flat_map(simple_drives));
            if !drives.is_empty() {
                self.gaps.push("drives: listed without serial numbers, as the BMC has only the simple list".to_owned());
            }
        }
        drives
    }

    async fn nics(&mut self, system: &redfish::ComputerSystem) -> Vec<Nic> {
        let ports: Vec<Value> = self.parts("network ports", system.extra.get("EthernetInterfaces")).await;
        let mut nics: Vec<Nic> = vec![];
        for port in &ports {
            let id = part_name(port, &["Id", "Name"]);
            // The port by which the machine talks to its own BMC is no way out of it.
            if id == "ToManager" {
                continue;
            }
            let address = mac(port["PermanentMACAddress"].as_str()).or_else(|| mac(port["MACAddress"].as_str()));
            if let Some(mac) = address {
                nics.push(Nic { name: id, mac });
            }
        }
        if nics.is_empty() {
            nics = self.adapters(system).await;
        }
        let mut seen = BTreeSet::new();
        nics.retain(|nic| seen.insert(nic.mac.clone()));
        if nics.is_empty() {
            self.gaps.push("network ports: the BMC shows no MAC address".to_owned());
        }
        nics
    }

    /// MAC addresses of the network functions of the chassis's adapters.
    async fn adapters(&mut self, system: &redfish::ComputerSystem) -> Vec<Nic> {
        let mut nics = vec![];
        let chassis = system.extra.get("Links").map(|all| links(&all["Chassis"])).unwrap_or_default();
        for link in chassis.iter().take(4) {
            let Ok(chassis) = self.bmc.just_read(link).await else { continue };
            let adapters: Vec<Value> = self.parts("network adapters", chassis.get("NetworkAdapters")).await;
            for adapter in adapters {
                let functions: Vec<Value> =
                    self.parts("network functions", adapter.get("NetworkDeviceFunctions")).await;
                for function in functions {
                    let ethernet = &function["Ethernet"];
                    let address =
                        mac(ethernet["PermanentMACAddress"].as_str()).or_else(|| mac(ethernet["MACAddress"].as_str()));
                    let name = format!("{}/{}", part_name(&adapter, &["Id"]), part_name(&function, &["Id"]));
                    nics.extend(address.map(|mac| Nic { name, mac }));
                }
            }
        }
        nics
    }

    async fn firmware_or_gap(&mut self) -> Vec<Firmware> {
        self.firmware().await.unwrap_or_else(|error| {
            match error {
                BmcError::Unsupported { .. } => self.gaps.push("firmware: the BMC lists none".to_owned()),
                error => self.gap("firmware", &error),
            }
            vec![]
        })
    }

    /// What runs, each once; entries that cannot be read become gaps, a list that cannot be read is an error.
    async fn firmware(&mut self) -> Result<Vec<Firmware>, BmcError> {
        let nothing = || self.bmc.unsupported("list firmware");
        if self.bmc.root["UpdateService"]["@odata.id"].is_null() {
            return Err(nothing());
        }
        let service = self.bmc.update_service().await?;
        let list = service["FirmwareInventory"]["@odata.id"].as_str().ok_or_else(nothing)?;
        let members = self.bmc.client.members(list).await?;
        let parts: Vec<redfish::SoftwareInventory> = self.each("firmware", members).await;
        let mut found: Vec<Firmware> = vec![];
        for part in &parts {
            found.extend(self.bmc.running(part).filter(|part| !found.contains(part)));
        }
        Ok(found)
    }

    /// The members of the collection that `link` refers to; gaps where that fails.
    async fn parts<T: DeserializeOwned>(&mut self, what: &str, link: Option<&Value>) -> Vec<T> {
        let Some(link) = link.and_then(|link| link["@odata.id"].as_str()) else { return vec![] };
        match self.bmc.client.members(link).await {
            Ok(members) => self.each(what, members).await,
            Err(error) => {
                self.gap(what, &error);
                vec![]
            }
        }
    }

    async fn each<T: DeserializeOwned>(&mut self, what: &str, mut members: Vec<String>) -> Vec<T> {
        if members.len() > PARTS_MAX {
            self.gaps.push(format!("{what}: only {PARTS_MAX} of {} were read", members.len()));
            members.truncate(PARTS_MAX);
        }
        let client = &self.bmc.client;
        let read = members.into_iter().map(|link| async move {
            let outcome = client.get::<T>(&link).await;
            (link, outcome)
        });
        let read: Vec<_> = futures_util::stream::iter(read).buffered(AT_ONCE).collect().await;
        let mut parts = vec![];
        for (link, outcome) in read {
            match outcome {
                Ok(part) => parts.push(part),
                Err(error) => self
                    .gap(&format!("{what} {}", link.trim_end_matches('/').rsplit('/').next().unwrap_or(&link)), &error),
            }
        }
        parts
    }
}

fn part_name(part: &Value, keys: &[&str]) -> String {
    keys.iter().find_map(|key| text(&part[*key])).unwrap_or_else(|| "unnamed".to_owned())
}

fn gpu(part: &Value) -> Gpu {
    Gpu { name: part_name(part, &["Id", "Name"]), model: text(&part["Model"]), serial: text(&part["SerialNumber"]) }
}

fn drive(part: &redfish::Drive) -> Drive {
    let identifiers =
        part.resource.extra.get("Identifiers").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let wide = |id: &&Value| matches!(id["DurableNameFormat"].as_str(), Some("EUI" | "NAA" | "NGUID"));
    let fallback = part.resource.odata_id.trim_end_matches('/').rsplit('/').next().unwrap_or_default().to_owned();
    Drive {
        name: said(part.resource.id.as_deref()).or(said(part.resource.name.as_deref())).unwrap_or(fallback),
        serial: said(part.serial_number.as_deref()),
        model: said(part.model.as_deref()),
        bytes: part.capacity_bytes.filter(|bytes| *bytes > 0),
        protocol: said(part.protocol.as_deref()),
        wwn: identifiers
            .iter()
            .filter(wide)
            .find_map(|id| text(&id["DurableName"]))
            .map(|name| name.to_ascii_lowercase()),
    }
}

fn simple_drives(list: &Value) -> Vec<Drive> {
    let devices = list["Devices"].as_array().map(Vec::as_slice).unwrap_or_default();
    // The BMC's own virtual media stand in this list beside the drives.
    let is_virtual = |device: &&Value| text(&device["Model"]).is_some_and(|model| model.starts_with("Virtual "));
    let present = devices.iter().filter(|device| device["Status"]["State"] != "Absent" && !is_virtual(device));
    let drives = present.map(|device| Drive {
        name: part_name(device, &["Name"]),
        serial: None,
        model: text(&device["Model"]),
        bytes: device["CapacityBytes"].as_u64().filter(|bytes| *bytes > 0),
        protocol: None,
        wwn: None,
    });
    drives.collect()
}

#[cfg(test)]
mod tests {
    //! What BMCs write for "nothing" is nothing, and MAC addresses have one form.
    use super::*;

    #[test]
    fn empty_words_say_nothing() {
        assert_eq!(said(Some("  N/A ")), None);
        assert_eq!(said(Some("")), None);
        assert_eq!(said(Some(" S6CK ")).as_deref(), Some("S6CK"));
    }

    #[test]
    fn macs_have_one_form() {
        assert_eq!(mac(Some("B8-3F-D2-D7-F7-4A")).as_deref(), Some("b8:3f:d2:d7:f7:4a"));
        for nothing in ["", "00:00:00:00:00:00", "ff:ff:ff:ff:ff:ff", "b8:3f", "zz:3f:d2:d7:f7:4a"] {
            assert_eq!(mac(Some(nothing)), None, "{nothing}");
        }
    }
}
