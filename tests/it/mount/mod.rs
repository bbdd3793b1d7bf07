//! A mount shows what was put: whole and in ranges, from the appliance or from the node's cache, across damage of the cache and
//! kills of the appliance; and one mount's death leaves the others alone.

mod cache;
mod model;
mod promises;

use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::{Server, noise};

/// How long a mount may take to appear, or to go, on a busy machine.
const LIMIT: Duration = Duration::from_secs(30);

/// Whether this machine can mount; says so where it cannot.
fn can_mount() -> bool {
    let can = Path::new("/dev/fuse").exists();
    if !can {
        eprintln!("SKIPPED: there is no /dev/fuse here, so nothing can be mounted");
    }
    can
}

/// A mount by the real program, unmounted when dropped.
struct Mounted {
    process: Child,
    folder: PathBuf,
}

impl Mounted {
    fn new(server: &Server, place: &str, name: &str, more: &[&str]) -> Self {
        let folder = server.path(name);
        fs::create_dir_all(&folder).unwrap();
        let log = fs::File::create(server.path(&format!("{name}.log"))).unwrap();
        let cache = server.path("cache");
        let mut command = server.program();
        command.args(["mount", place]).arg(&folder).arg("--cache").arg(cache).args(more);
        let mut process = command.stdout(Stdio::null()).stderr(log).spawn().unwrap();
        let deadline = Instant::now() + LIMIT;
        while !is_mounted(&folder) {
            let ended = process.try_wait().unwrap();
            let said = fs::read_to_string(server.path(&format!("{name}.log"))).unwrap();
            assert!(ended.is_none() && Instant::now() < deadline, "no mount ({ended:?}): {said}");
            std::thread::sleep(Duration::from_millis(20));
        }
        Self { process, folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// SIGTERM unmounts and ends well.
    fn stop(mut self) {
        let done = Command::new("kill").arg(self.process.id().to_string()).status().unwrap();
        assert!(done.success());
        assert_eq!(self.process.wait().unwrap().code(), Some(0));
        assert!(!is_mounted(&self.folder));
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        drop(Command::new("umount").arg("-l").arg(&self.folder).stderr(Stdio::null()).status());
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

fn is_mounted(folder: &Path) -> bool {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    mounts.lines().any(|line| line.split(' ').nth(1) == folder.to_str())
}

/// Text that compresses, noise that does not, text again: chunks of every codec.
fn large(bytes: usize) -> Vec<u8> {
    let mut content = b"a line of a dataset that compresses well\n".repeat(bytes / 3 / 41);
    content.extend(noise(5, bytes / 3));
    content.extend(vec![0; bytes / 6]);
    let left = bytes - content.len();
    content.extend((0..left).map(|n| (n / 7 % 251) as u8));
    content
}

/// A bucket with a large file, small ones, nested folders, and names beyond ASCII.
fn stocked(bytes: usize) -> (Server, Vec<(String, Vec<u8>)>) {
    let server = Server::start();
    server.run(&["bucket", "create", "data"]);
    let files = vec![
        ("large.bin".to_owned(), large(bytes)),
        ("empty".to_owned(), Vec::new()),
        ("small.txt".to_owned(), b"small".to_vec()),
        ("a/b/c/deep.txt".to_owned(), b"deep".repeat(5_000)),
        ("a/ünïcödé 文件.txt".to_owned(), "ä".repeat(9_000).into_bytes()),
        ("a/b/x y+z%&.bin".to_owned(), noise(9, 70_000)),
    ];
    let source = server.path("source");
    for (name, content) in &files {
        let path = source.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
    server.run(&["put", "--recursive", source.to_str().unwrap(), "data"]);
    (server, files)
}

/// Every name below a folder, with what it holds.
fn walk(folder: &Path, below: &Path, found: &mut Vec<(String, Vec<u8>)>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            walk(&path, below, found);
        } else {
            let name = path.strip_prefix(below).unwrap().to_str().unwrap().to_owned();
            found.push((name, fs::read(&path).unwrap()));
        }
    }
}

#[test]
fn shows_what_was_put_whole_and_in_ranges() {
    if !can_mount() {
        return;
    }
    let (server, mut files) = stocked(24_000_000);
    let mounted = Mounted::new(&server, "data", "mount", &[]);
    let mut found = Vec::new();
    walk(&mounted.folder, &mounted.folder, &mut found);
    files.sort();
    found.sort();
    assert_eq!(
        found.iter().map(|(name, _)| name).collect::<Vec<_>>(),
        files.iter().map(|(name, _)| name).collect::<Vec<_>>()
    );
    assert!(found == files, "some file differs");
    let content = &files.iter().find(|(name, _)| name == "large.bin").unwrap().1;
    let file = fs::File::open(mounted.path("large.bin")).unwrap();
    let mut at = 1u64;
    for round in 0..200u64 {
        at = at.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(round) % content.len() as u64;
        let mut bytes = vec![0; (round as usize * 997) % 300_000 + 1];
        let read = file.read_at(&mut bytes, at).unwrap();
        let end = (at as usize + read).min(content.len());
        assert!(read > 0 && bytes[..read] == content[at as usize..end], "{read} bytes at {at}");
    }
    let missing = fs::read(mounted.path("a/none")).unwrap_err();
    assert_eq!(missing.kind(), std::io::ErrorKind::NotFound);
    assert!(fs::write(mounted.path("new"), b"x").is_err());
    // What is put later is there at the next look, and an open of it sees all of it.
    fs::write(server.path("later"), b"later, and longer").unwrap();
    server.run(&["put", server.path("later").to_str().unwrap(), "data/small.txt"]);
    std::thread::sleep(Duration::from_millis(1_100));
    assert_eq!(fs::read(mounted.path("small.txt")).unwrap(), b"later, and longer");
    // A prefix is a root of its own.
    let below = Mounted::new(&server, "data/a/b", "below", &[]);
    assert_eq!(fs::read(below.path("c/deep.txt")).unwrap(), b"deep".repeat(5_000));
    below.stop();
    mounted.stop();
}

/// Small images have no CA certificates, and plain HTTP needs none.
#[test]
fn no_authority_is_needed_over_plain_http() {
    let server = Server::start();
    server.run(&["bucket", "create", "data"]);
    std::fs::write(server.path("given"), "without authorities").unwrap();
    let (given, taken) = (server.path("given"), server.path("taken"));
    for args in [["put", given.to_str().unwrap(), "data/a"], ["get", "data/a", taken.to_str().unwrap()]] {
        let mut bare = server.program();
        bare.env("SSL_CERT_FILE", "/nonexistent").env("SSL_CERT_DIR", "/nonexistent").args(args);
        let output = bare.output().unwrap();
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
    assert_eq!(std::fs::read_to_string(&taken).unwrap(), "without authorities");
    // There is nothing at that address, which is more than a client that cannot be made finds out.
    let mut bare = server.program();
    bare.env("SSL_CERT_FILE", "/nonexistent").env("SSL_CERT_DIR", "/nonexistent");
    let away = ["mount", "data", "/mnt", "--cache-size", "0", "--patience", "1s", "--s3-url", "http://127.0.0.1:9"];
    let said = String::from_utf8(bare.args(away).output().unwrap().stderr).unwrap();
    assert!(said.contains("cannot reach data at http://127.0.0.1:9"), "{said}");
}

#[test]
fn readers_go_on_when_the_appliance_is_killed_and_comes_back() {
    if !can_mount() {
        return;
    }
    let (mut server, files) = stocked(30_000_000);
    let content = files[0].1.clone();
    let mounted = Mounted::new(&server, "data", "mount", &["--cache-size", "0"]);
    let path = mounted.path("large.bin");
    let reader = std::thread::spawn(move || {
        let file = fs::File::open(path).unwrap();
        let mut whole = vec![0; content.len()];
        for (number, piece) in whole.chunks_mut(500_000).enumerate() {
            file.read_exact_at(piece, number as u64 * 500_000).unwrap();
            std::thread::sleep(Duration::from_millis(30));
        }
        whole == content
    });
    std::thread::sleep(Duration::from_millis(400));
    server.kill();
    std::thread::sleep(Duration::from_millis(500));
    server.restart();
    assert!(reader.join().unwrap());
    // Away for longer than patience: EIO, and well again without a new mount.
    let brief = Mounted::new(&server, "data", "brief", &["--cache-size", "0", "--patience", "1s"]);
    assert_eq!(fs::read(brief.path("small.txt")).unwrap(), b"small");
    server.kill();
    std::thread::sleep(Duration::from_millis(1_100));
    assert!(fs::read(brief.path("a/b/c/deep.txt")).is_err());
    server.restart();
    assert_eq!(fs::read(brief.path("a/b/c/deep.txt")).unwrap(), b"deep".repeat(5_000));
    brief.stop();
}

#[test]
fn a_snapshot_is_mounted_as_it_was() {
    if !can_mount() {
        return;
    }
    let (server, files) = stocked(3_000_000);
    server.run(&["snapshot", "create", "data", "v1"]);
    fs::write(server.path("later"), b"later").unwrap();
    server.run(&["put", server.path("later").to_str().unwrap(), "data/small.txt"]);
    server.run(&["rm", "data/a/b/c/deep.txt"]);
    let (then, now) = (Mounted::new(&server, "data@v1", "then", &[]), Mounted::new(&server, "data", "now", &[]));
    assert_eq!(fs::read(now.path("small.txt")).unwrap(), b"later");
    assert!(!now.path("a/b/c/deep.txt").exists());
    let mut found = Vec::new();
    walk(&then.folder, &then.folder, &mut found);
    let mut files = files;
    files.sort();
    found.sort();
    assert!(found == files, "the snapshot differs from what was put");
    assert!(fs::write(then.path("new"), b"x").is_err());
    let refused = server.program().args(["mount", "data@v1", "/mnt", "--read-write"]).output().unwrap();
    assert!(String::from_utf8_lossy(&refused.stderr).contains("never changes"), "{refused:?}");
    then.stop();
    now.stop();
}

#[test]
fn a_write_that_fails_leaves_the_object_that_was_there() {
    if !can_mount() {
        return;
    }
    let (mut server, files) = stocked(3_000_000);
    let mounted = Mounted::new(&server, "data", "mount", &["--read-write", "--patience", "1s"]);
    let path = mounted.path("large.bin");
    let mut file = fs::File::create(&path).unwrap();
    std::io::Write::write_all(&mut file, &noise(1, 20_000_000)).unwrap();
    server.kill();
    let failed = std::io::Write::write_all(&mut file, &noise(2, 60_000_000)).and_then(|()| file.sync_all());
    assert!(failed.is_err());
    drop(file);
    server.restart();
    let got = server.path("got");
    server.run(&["get", "data/large.bin", got.to_str().unwrap()]);
    assert!(fs::read(got).unwrap() == files[0].1, "half of a file took the place of the object");
    // A new file is well.
    fs::write(mounted.path("large.bin"), b"short").unwrap();
    fs::rename(mounted.path("large.bin"), mounted.path("renamed")).unwrap();
    assert_eq!(fs::read(mounted.path("renamed")).unwrap(), b"short");
    mounted.stop();
}
