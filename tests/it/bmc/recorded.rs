//! Inventories and cards of real BMCs, from recordings of their trees; skipped aloud where the recordings are absent.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use bedplate::bmc::{Address, Bmc, Inventory, MemoryPins, PowerAction, Target};

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
    let target = Target { address: Address::Folder(tree.to_owned()), system: None, credentials: None, pin: None };
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

#[tokio::test]
async fn inventories_of_six_families() {
    let Some(data) = recordings() else { return };
    let folder = tempfile::tempdir().unwrap();
    for expected in &TREES {
        let packed = data.join(format!("{}.tar.zst", expected.tree));
        let unpacked = Command::new("tar").arg("--zstd").arg("-xf").arg(&packed).arg("-C").arg(folder.path()).status();
        assert!(unpacked.unwrap().success(), "{}", packed.display());
        let bmc = open(&folder.path().join(expected.tree)).await;
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
    let target =
        Target { address: Address::Folder(folder.path().to_owned()), system: None, credentials: None, pin: None };
    let error = Bmc::connect(&target, pins).await.err().unwrap();
    assert!(error.to_string().contains("redfish/v1/index.json"), "{error}");
}
