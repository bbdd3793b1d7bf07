//! Rehearsals by the command line: the real conductor and BMC driver image simulated nodes, of recorded trees and of none in
//! particular; what a plan shows is what happens; what goes wrong is lived through or has a cause.

use std::path::Path;
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

fn rehearse(folder: &Path, args: &[&str]) -> (Option<i32>, Value, String) {
    let mut command = Command::new("timeout");
    command.arg("240").arg(env!("CARGO_BIN_EXE_bedplate"));
    command.current_dir(folder).args(["rack", "rehearse", "--output", "json"]).args(args);
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.code(), serde_json::from_slice(&output.stdout).unwrap_or_default(), said)
}

const AT_ONCE: [&str; 6] = ["--latency", "0", "--post", "0.1", "--install", "0.2"];

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or(u64::MAX)
}

#[test]
fn a_rack_is_imaged_as_planned() {
    let folder = TempDir::new().unwrap();
    let (code, played, said) = rehearse(folder.path(), &[&["--nodes", "40"], &AT_ONCE[..]].concat());
    assert_eq!((code, number(&played["imaged"])), (Some(0), 40), "{said}{played:#}");
    assert_eq!((number(&played["sessions_left"]), number(&played["failed"])), (0, 0));
    for node in played["nodes"].as_array().unwrap() {
        assert_eq!((number(&node["starts"]), number(&node["planned_starts"])), (2, 2), "{node:#}");
        assert_eq!(number(&node["inserts"]), 1, "{node:#}");
        assert!(number(&node["connections_peak"]) <= 2, "{node:#}");
        assert!(number(&node["job_requests"]) <= 50, "{node:#}");
    }
}

/// A spec of one node for each recorded tree; `None`, said aloud, where this checkout has none.
fn recorded(folder: &Path) -> Option<String> {
    let archives = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data/redfish");
    let mut spec = "name = \"recorded\"\nimage = \"os@1\"\n".to_owned();
    for tree in ["dell", "hpe", "lenovo", "supermicro", "nvidia_gb200", "nvidia_viking"] {
        let archive = archives.join(format!("{tree}.tar.zst"));
        if !archive.exists() {
            eprintln!("SKIPPED: {} is absent", archive.display());
            return None;
        }
        let unpacked = Command::new("tar").arg("--zstd").arg("-xf").arg(&archive).arg("-C").arg(folder).status();
        assert!(unpacked.unwrap().success());
        let looked = Command::new(env!("CARGO_BIN_EXE_bedplate"))
            .args(["bmc", "inventory", "--output", "json"])
            .arg(folder.join(tree))
            .output()
            .unwrap();
        let found: Value = serde_json::from_slice(&looked.stdout).unwrap();
        let mut serials = found["drives"].as_array().unwrap().iter().filter_map(|drive| drive["serial"].as_str());
        // A BMC that names no serial number leaves the choice to the agent.
        let serial = serials.next_back().unwrap_or("S1");
        let name = tree.replace('_', "-");
        spec.push_str(&format!("[[node]]\nname = \"{name}\"\nbmc = \"{tree}\"\ndisk = {{ serial = \"{serial}\" }}\n"));
    }
    Some(spec)
}

#[test]
fn every_recorded_family_is_imaged() {
    let folder = TempDir::new().unwrap();
    let Some(spec) = recorded(folder.path()) else { return };
    std::fs::write(folder.path().join("rack.toml"), spec).unwrap();
    let (_, played, said) = rehearse(folder.path(), &[&["rack.toml"], &AT_ONCE[..]].concat());
    let nodes = played["nodes"].as_array().unwrap_or_else(|| panic!("{said}"));
    for node in nodes {
        let name = node["node"].as_str().unwrap();
        if name == "nvidia-viking" {
            // Its recording has no virtual media.
            let error = node["error"].as_str().unwrap_or_default();
            assert!(error.contains("virtual media"), "{node:#}");
            continue;
        }
        assert_eq!(node["state"], "imaged", "{node:#}");
        assert_eq!(number(&node["starts"]), 2, "{node:#}");
    }
    assert_eq!(number(&played["sessions_left"]), 0, "{played:#}");
}

#[test]
fn faults_are_lived_through_or_have_a_cause() {
    let folder = TempDir::new().unwrap();
    std::thread::scope(|scope| {
        for kind in ["slow", "drop", "busy", "error", "lie", "stale", "reboot"] {
            let folder = folder.path();
            scope.spawn(move || {
                let args =
                    [&["--nodes", "4", "--fault", kind, "--share", "0.03", "--seed", "7"], &AT_ONCE[..]].concat();
                let (_, played, said) = rehearse(folder, &args);
                let nodes = played["nodes"].as_array().unwrap_or_else(|| panic!("{kind}: {said}"));
                for node in nodes {
                    let imaged = node["state"] == "imaged";
                    let caused = node["error"].as_str().is_some_and(|error| error.len() > 20);
                    assert!(imaged || caused, "{kind}: {node:#}");
                    assert!(number(&node["connections_peak"]) <= 2, "{kind}: {node:#}");
                }
                assert!(number(&played["imaged"]) >= 2, "{kind}: {played:#}");
            });
        }
    });
}
