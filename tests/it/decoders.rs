//! The decoders of `format` on every case that was kept: what fuzzing once found, and the fixtures that it begins with.
//! Proves that no finding comes back, with the very checks that the fuzz targets run.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

#[path = "../../fuzz/src/checks/mod.rs"]
mod checks;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The files in a folder of the repository, in order; none where there is no such folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).filter(|path| path.is_file()).collect();
    files.sort();
    files
}

#[test]
fn kept_cases_stay_harmless() {
    // Only the fuzz targets count memory: here all tests allocate side by side.
    let probe = checks::Probe::new(|act| {
        act();
        0
    });
    let mut cases = 0;
    for target in checks::TARGETS {
        let kept = files(&root().join("tests/fixture/fuzz").join(target.name));
        let fixtures = files(&root().join("tests/fixture/v1"));
        for path in kept.iter().chain(&fixtures) {
            println!("{}: {}", target.name, path.display());
            (target.check)(&probe, &std::fs::read(path).unwrap());
            cases += 1;
        }
        (target.check)(&probe, &[]);
    }
    println!("{cases} cases");
}

#[test]
fn every_check_has_a_target_and_every_kept_folder_a_check() {
    let checks: BTreeSet<String> = checks::TARGETS.iter().map(|target| target.name.to_owned()).collect();
    let manifest = std::fs::read_to_string(root().join("fuzz/Cargo.toml")).unwrap();
    let manifest: toml::Table = manifest.parse().unwrap();
    let programs: BTreeSet<String> =
        manifest["bin"].as_array().unwrap().iter().map(|bin| bin["name"].as_str().unwrap().to_owned()).collect();
    assert_eq!(checks, programs);
    // Git keeps no empty folder: before the first finding there is none.
    for folder in std::fs::read_dir(root().join("tests/fixture/fuzz")).into_iter().flatten() {
        let name = folder.unwrap().file_name().into_string().unwrap();
        assert!(checks.contains(&name), "tests/fixture/fuzz/{name} belongs to no target");
    }
}
