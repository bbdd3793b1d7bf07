//! The node's cache: shared by mounts, right after damage, half-written files and kills, and enough for what was read before;
//! reads at random places by many readers are those of the file.

use std::fs;
use std::io::Read as _;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{Mounted, can_mount, large, stocked};
use crate::support::Server;

/// The files of groups, by name; a mount writes them a little later than it answers, and all of them before it ends.
fn groups(server: &Server) -> Vec<PathBuf> {
    let shards = fs::read_dir(server.path("cache/v2")).unwrap().map(|shard| shard.unwrap().path());
    let mut files: Vec<PathBuf> =
        shards.flat_map(|shard| fs::read_dir(shard).unwrap().map(|file| file.unwrap().path())).collect();
    files.retain(|file| file.extension().is_none());
    files.sort();
    files
}

fn log(server: &Server, name: &str) -> String {
    fs::read_to_string(server.path(&format!("{name}.log"))).unwrap()
}

/// Requests for pack ranges that the appliance has answered.
fn pack_requests(server: &Server) -> String {
    let figures = crate::support::get(server.api(), "/metrics").unwrap();
    figures.lines().filter(|line| line.contains("/pull/runs/")).collect::<Vec<_>>().join("\n")
}

#[test]
fn is_shared_and_damage_in_it_is_noticed() {
    if !can_mount() {
        return;
    }
    let (server, files) = stocked(20_000_000);
    let content = &files[0].1;
    let first = Mounted::new(&server, "data", "first", &[]);
    assert!(fs::read(first.path("large.bin")).unwrap() == *content);
    first.stop();
    let cached = groups(&server);
    assert!(cached.len() >= 5, "{} groups cached", cached.len());
    // Here and there a bit is flipped.
    for (number, file) in cached.iter().enumerate() {
        let mut bytes = fs::read(file).unwrap();
        let at = bytes.len() / 7 * (1 + number % 6);
        bytes[at] ^= 1;
        fs::write(file, bytes).unwrap();
    }
    let second = Mounted::new(&server, "data", "second", &[]);
    assert!(fs::read(second.path("large.bin")).unwrap() == *content);
    second.stop();
    assert!(log(&server, "second").contains("damaged"));
    // Files that were written half, and one that is gone: nothing of it is damage.
    for (number, file) in groups(&server).iter().enumerate() {
        match number % 3 {
            0 => fs::File::options().write(true).open(file).unwrap().set_len(100_000).unwrap(),
            1 => fs::write(file, b"").unwrap(),
            _ => fs::remove_file(file).unwrap(),
        }
    }
    let third = Mounted::new(&server, "data", "third", &[]);
    assert!(fs::read(third.path("large.bin")).unwrap() == *content);
    third.stop();
    // Everything is in the cache again: a fourth mount fetches no packs.
    let fourth = Mounted::new(&server, "data", "fourth", &[]);
    let before = pack_requests(&server);
    assert!(!before.is_empty());
    assert!(fs::read(fourth.path("large.bin")).unwrap() == *content);
    assert_eq!(pack_requests(&server), before);
    fourth.stop();
}

#[test]
fn a_daemon_that_is_killed_harms_no_other() {
    if !can_mount() {
        return;
    }
    let (server, files) = stocked(30_000_000);
    let content = files[0].1.clone();
    let survivor = Mounted::new(&server, "data", "survivor", &[]);
    for round in 0..3 {
        let name = format!("victim{round}");
        let victim = Mounted::new(&server, "data", &name, &[]);
        let (path, seen) = (victim.path("large.bin"), content.clone());
        let reader = std::thread::spawn(move || {
            let mut whole = Vec::new();
            // Its mount dies meanwhile, or not.
            let done = fs::File::open(path).and_then(|mut file| file.read_to_end(&mut whole));
            assert!(done.is_err() || whole == seen);
        });
        std::thread::sleep(Duration::from_millis(20 * (1 + round)));
        // SIGKILL.
        drop(victim);
        assert!(fs::read(survivor.path("large.bin")).unwrap() == content);
        reader.join().unwrap();
    }
    survivor.stop();
    let after = Mounted::new(&server, "data", "after", &[]);
    assert!(fs::read(after.path("large.bin")).unwrap() == content);
    after.stop();
}

/// Reads at places that only a seed knows, by many at once.
fn read_at_random(path: &Path, content: &[u8], seed: u64) {
    std::thread::scope(|scope| {
        for reader in 0..16u64 {
            scope.spawn(move || {
                let file = fs::File::open(path).unwrap();
                let mut at = seed + reader;
                for _ in 0..30 {
                    at = at.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                    let from = (at >> 20) as usize % (content.len() - 65_536);
                    let mut bytes = vec![0; 65_536];
                    file.read_exact_at(&mut bytes, from as u64).unwrap();
                    assert!(bytes == content[from..from + 65_536], "at {from}");
                }
            });
        }
    });
}

#[test]
fn random_reads_are_those_of_the_file() {
    if !can_mount() {
        return;
    }
    let (server, files) = stocked(40_000_000);
    assert!(files[0].1 == large(40_000_000));
    for (name, more) in [("cold", &[][..]), ("warm", &[]), ("bare", &["--cache-size", "0"])] {
        let mounted = Mounted::new(&server, "data", name, more);
        read_at_random(&mounted.path("large.bin"), &files[0].1, name.len() as u64);
        mounted.stop();
    }
}

#[test]
fn a_snapshot_that_was_read_needs_no_appliance() {
    if !can_mount() {
        return;
    }
    let (mut server, mut files) = stocked(20_000_000);
    server.run(&["snapshot", "create", "data", "v1"]);
    files.sort();
    let found = |folder: &Path| {
        let mut found = Vec::new();
        super::walk(folder, folder, &mut found);
        found.sort();
        found
    };
    let first = Mounted::new(&server, "data@v1", "first", &[]);
    assert!(found(&first.folder) == files);
    first.stop();
    // A daemon that is new: names it asks for, content it has.
    let second = Mounted::new(&server, "data@v1", "second", &["--patience", "1s"]);
    let paths: Vec<PathBuf> = files.iter().map(|(name, _)| second.path(name)).collect();
    assert!(paths.iter().all(|path| path.exists()));
    server.kill();
    for (path, (name, content)) in paths.iter().zip(&files) {
        assert!(fs::read(path).unwrap() == *content, "{name}");
    }
    server.restart();
    // Another snapshot under the same name is another, and so are its files.
    server.run(&["snapshot", "remove", "data", "v1", "--yes"]);
    fs::write(server.path("new"), b"another").unwrap();
    server.run(&["put", server.path("new").to_str().unwrap(), "data/small.txt"]);
    server.run(&["snapshot", "create", "data", "v1"]);
    let third = Mounted::new(&server, "data@v1", "third", &[]);
    assert_eq!(fs::read(third.path("small.txt")).unwrap(), b"another");
    third.stop();
    second.stop();
}
