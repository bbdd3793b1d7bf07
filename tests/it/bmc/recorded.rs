//! Inventories and cards of real BMCs, from recordings of their trees; skipped aloud where the recordings are absent.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use bedplate::bmc::{Address, Bmc, Facts, Inventory, MemoryPins, PowerAction, Target, Trust};
use serde_json::Value;

/// The folder of recordings beside the repository, or beside a folder that holds it.
fn recordings() -> Option<PathBuf> {
    let found = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().skip(1).map(|dir| dir.join("shared/data/redfish"));
    let found = found.into_iter().find(|dir| dir.is_dir());
    if found.is_none() {
        eprintln!("SKIPPED: no recorded trees (shared/data/redfish beside the repository)");
    }
    found
}

async fn open(tree: &Path) -> Bmc {
    let target = Target {
        address: Address::Folder(tree.to_owned()),
        system: None,
        credentials: None,
        trust: Trust::Known,
        without: Facts::default(),
    };
    Bmc::connect(&target, Arc::new(MemoryPins::default())).await.unwrap()
}

struct Expected {
    tree: &'static str,
    system: &'static str,
    model: Option<&'static str>,
    serial: Option<&'static str>,
    cpus: usize,
    gpus: usize,
    drives: usize,
    nics: usize,
    memory_gib: u64,
    fit: bool,
}

#[rustfmt::skip]
const TREES: [Expected; 6] = [
    Expected { tree: "dell", system: "System.Embedded.1", model: Some("PowerEdge R750"), serial: Some("F54P1G3"),
        cpus: 2, gpus: 1, drives: 3, nics: 5, memory_gib: 512, fit: true },
    Expected { tree: "hpe", system: "1", model: Some("ProLiant DL385 Gen10 Plus v2"), serial: Some("MXQ302099S"),
        cpus: 2, gpus: 0, drives: 18, nics: 7, memory_gib: 1024, fit: true },
    Expected { tree: "lenovo", system: "1", model: Some("ThinkSystem SR670 V2"), serial: Some("J105958B"),
        cpus: 2, gpus: 8, drives: 4, nics: 4, memory_gib: 1024, fit: true },
    Expected { tree: "nvidia_gb200", system: "System_0", model: Some("GB200 NVL"), serial: Some("1583124820080"),
        cpus: 2, gpus: 4, drives: 9, nics: 0, memory_gib: 960, fit: true },
    Expected { tree: "nvidia_viking", system: "DGX", model: Some("DGXH100"), serial: Some("1662923610124"),
        cpus: 2, gpus: 8, drives: 10, nics: 5, memory_gib: 2048, fit: false },
    Expected { tree: "supermicro", system: "1", model: Some("SYS-821GE-TNHR"), serial: Some("S889914X3710910"),
        cpus: 2, gpus: 8, drives: 8, nics: 11, memory_gib: 2048, fit: true },
];

fn unpack(data: &Path, tree: &str, into: &Path) -> PathBuf {
    let packed = data.join(format!("{tree}.tar.zst"));
    let unpacked = Command::new("tar").arg("--zstd").arg("-xf").arg(&packed).arg("-C").arg(into).status();
    assert!(unpacked.unwrap().success(), "{}", packed.display());
    into.join(tree)
}

/// Decodes a document as what its type says that it is; none for a type that nothing here reads as more than JSON.
fn decode(kind: &str, document: &Value) -> Option<Result<(), String>> {
    fn as_a<T: serde::de::DeserializeOwned>(document: &Value) -> Option<Result<(), String>> {
        Some(T::deserialize(document).map(drop).map_err(|error| error.to_string()))
    }
    match kind {
        "ServiceRoot" => as_a::<redfish::ServiceRoot>(document),
        "ComputerSystem" => as_a::<redfish::ComputerSystem>(document),
        "Chassis" => as_a::<redfish::Chassis>(document),
        "Manager" => as_a::<redfish::Manager>(document),
        "Drive" => as_a::<redfish::Drive>(document),
        "Storage" => as_a::<redfish::Storage>(document),
        "SoftwareInventory" => as_a::<redfish::SoftwareInventory>(document),
        "EthernetInterface" => as_a::<redfish::EthernetInterface>(document),
        "Bios" => as_a::<redfish::Bios>(document),
        "LogService" => as_a::<redfish::LogService>(document),
        "LogEntry" => as_a::<redfish::LogEntry>(document),
        "Sensor" => as_a::<redfish::Sensor>(document),
        "Power" => as_a::<redfish::Power>(document),
        "Thermal" => as_a::<redfish::Thermal>(document),
        "Task" => as_a::<redfish::Task>(document),
        "TaskService" => as_a::<redfish::TaskService>(document),
        "UpdateService" => as_a::<redfish::UpdateService>(document),
        "AccountService" => as_a::<redfish::AccountService>(document),
        "ManagerAccount" => as_a::<redfish::Account>(document),
        "Role" => as_a::<redfish::Role>(document),
        "EventService" => as_a::<redfish::EventService>(document),
        "MessageRegistryFile" => as_a::<redfish::MessageRegistryFile>(document),
        "JsonSchemaFile" => as_a::<redfish::JsonSchemaFile>(document),
        "ManagerNetworkProtocol" => as_a::<redfish::ManagerNetworkProtocol>(document),
        kind if kind.ends_with("Collection") => as_a::<redfish::Collection>(document),
        _ => None,
    }
}

/// Every `index.json` below a folder.
fn documents(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            documents(&path, found);
        } else if path.ends_with("index.json") {
            found.push(path);
        }
    }
}

#[test]
fn every_document_decodes() {
    let Some(data) = recordings() else { return };
    let folder = tempfile::tempdir().unwrap();
    let (mut read, mut typed) = (0, BTreeMap::<String, usize>::new());
    let mut failed = vec![];
    for expected in &TREES {
        let tree = unpack(&data, expected.tree, folder.path());
        let mut files = vec![];
        documents(&tree.join("redfish/v1"), &mut files);
        for file in files {
            read += 1;
            let document: Value = match serde_json::from_slice(&std::fs::read(&file).unwrap()) {
                Ok(document) => document,
                Err(error) => {
                    failed.push(format!("{}: {error}", file.display()));
                    continue;
                }
            };
            // "#Drive.v1_4_0.Drive"
            let kind = document["@odata.type"].as_str().unwrap_or_default();
            let kind = kind.trim_start_matches('#').split('.').next().unwrap_or_default();
            match decode(kind, &document) {
                None => {}
                Some(Ok(())) => *typed.entry(kind.to_owned()).or_default() += 1,
                Some(Err(error)) => failed.push(format!("{} ({kind}): {error}", file.display())),
            }
        }
    }
    let decoded: usize = typed.values().sum();
    eprintln!("{read} documents, {decoded} of {} types decoded, {} failed: {failed:#?}", typed.len(), failed.len());
    assert!(decoded > 4_000, "{decoded}");
    assert!(failed.len() * 1000 <= read, "{failed:#?}");
}

#[tokio::test]
async fn services_of_six_families() {
    let Some(data) = recordings() else { return };
    let folder = tempfile::tempdir().unwrap();
    for expected in &TREES {
        let tree = expected.tree;
        let bmc = open(&unpack(&data, tree, folder.path())).await;
        let bios = bmc.bios().await.unwrap();
        assert!(bios.attributes.len() > 200, "{tree}: {}", bios.attributes.len());
        assert!(!bmc.boot_order().await.unwrap().is_empty(), "{tree}");
        assert!(bmc.secure_boot().await.unwrap().enabled.is_some() || tree == "dell", "{tree}");
        assert!(bmc.firmware().await.unwrap().len() > 5, "{tree}");
        assert!(!bmc.accounts().await.unwrap().is_empty(), "{tree}");
        assert!(!bmc.health().await.unwrap().readings.is_empty(), "{tree}");
        let log = bmc.log(None, 5).await;
        assert!(log.is_ok(), "{tree}: {log:?}");
        bmc.close().await;
    }
}

#[tokio::test]
async fn inventories_of_six_families() {
    let Some(data) = recordings() else { return };
    let folder = tempfile::tempdir().unwrap();
    for expected in &TREES {
        let bmc = open(&unpack(&data, expected.tree, folder.path())).await;
        let found = bmc.inventory().await.unwrap();
        judge(expected, &found);
        let card = bmc.card().await.unwrap();
        assert_eq!(card.fit, expected.fit, "{}: {:?}", expected.tree, card.traits);
        assert!(bmc.set_power(PowerAction::ForceOff).await.unwrap_err().to_string().contains("recorded tree"));
        bmc.close().await;
    }
}

fn judge(expected: &Expected, found: &Inventory) {
    let tree = expected.tree;
    assert_eq!(found.system_id, expected.system, "{tree}");
    assert_eq!(found.model.as_deref(), expected.model, "{tree}");
    assert_eq!(found.serial.as_deref(), expected.serial, "{tree}");
    let counts = (found.cpus.len(), found.gpus.len(), found.drives.len(), found.nics.len());
    assert_eq!(counts, (expected.cpus, expected.gpus, expected.drives, expected.nics), "{tree}: {found:#?}");
    assert_eq!(found.memory_bytes.map(|bytes| bytes >> 30), Some(expected.memory_gib), "{tree}");
    assert!(!found.firmware.is_empty(), "{tree}");
    assert!(found.manager.firmware_version.is_some(), "{tree}");
}

#[tokio::test]
async fn a_recording_stands_for_its_bmc() {
    let double = super::double::Double::start(|_, _| None).await;
    let pins = Arc::new(MemoryPins::default());
    let bmc = double.connect(&pins).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let recording = bmc.record(&folder.path().join("tree")).await.unwrap();
    assert!(recording.resources >= 11, "{recording:?}");
    let live = bmc.inventory().await.unwrap();
    bmc.close().await;
    let again = open(&folder.path().join("tree")).await;
    assert_eq!(again.inventory().await.unwrap(), live);
    again.close().await;
    let target = Target {
        address: Address::Folder(folder.path().to_owned()),
        system: None,
        credentials: None,
        trust: Trust::Known,
        without: Facts::default(),
    };
    let error = Bmc::connect(&target, pins).await.err().unwrap();
    assert!(error.to_string().contains("redfish/v1/index.json"), "{error}");
}
