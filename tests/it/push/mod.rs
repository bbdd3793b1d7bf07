//! `bedplate put` moves only what the store lacks, and what it stores reads back byte for byte: over changes, kills of the client, garbage
//! collection between question and answer, hostile clients and strangers; and `--delete` removes what it says, and nothing else.

mod hostile;
mod race;

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::{Server, noise};

/// Lines of a dataset: they compress, and no two are alike.
fn lines(from: u64, count: u64) -> Vec<u8> {
    let mut text = Vec::new();
    for n in from..from + count {
        let word = hex::encode(noise(n + 1, 24));
        writeln!(text, "{{\"id\": {n}, \"text\": \"a row of a dataset, {word}\", \"label\": {}}}", n % 10).unwrap();
    }
    text
}

fn server() -> Server {
    let server = Server::start();
    server.run(&["bucket", "create", "data"]);
    server
}

fn put(server: &Server, file: &Path, place: &str) -> Value {
    server.json(&["put", file.to_str().unwrap(), place])
}

/// What an object is, over S3.
fn read(server: &Server, place: &str) -> Vec<u8> {
    let file = server.path("read-back");
    server.run(&["get", "--force", place, file.to_str().unwrap()]);
    fs::read(file).unwrap()
}

fn number(value: &Value, name: &str) -> u64 {
    value[name].as_u64().unwrap_or_else(|| panic!("{name} in {value}"))
}

/// A file that changed in one place moves a few chunks; put as it is, under the same name or another, it moves hardly anything.
#[test]
fn only_new_chunks_travel() {
    let server = server();
    let file = server.path("rows.jsonl");
    // Longer than a part, so that both ways are gone.
    let mut content = lines(0, 400_000);
    let total = content.len() as u64;
    assert!(total > 40 << 20, "{total}");
    fs::write(&file, &content).unwrap();
    let first = put(&server, &file, "data/rows.jsonl");
    assert!(number(&first, "bytes_known") == 0 && number(&first, "bytes_sent") > total / 10, "{first}");
    assert!(read(&server, "data/rows.jsonl") == content);
    let again = put(&server, &file, "data/rows.jsonl");
    assert_eq!((number(&again, "files_skipped"), number(&again, "bytes_sent")), (1, 0), "{again}");
    let beside = put(&server, &file, "data/other.jsonl");
    assert!(number(&beside, "bytes_sent") * 1000 < total, "{beside}");
    assert!(number(&beside, "bytes_known") > total / 100 * 99, "{beside}");
    // A row more near the beginning, one less near the end, and one changed.
    content.splice(1_000_000..1_000_000, b"{\"id\": -1}\n".iter().copied());
    content.drain(content.len() - 500_000..content.len() - 499_800);
    content[20_000_000] ^= 1;
    fs::write(&file, &content).unwrap();
    let changed = put(&server, &file, "data/rows.jsonl");
    assert!(number(&changed, "bytes_sent") * 50 < total, "{changed}");
    assert!(read(&server, "data/rows.jsonl") == content);
    // Large enough to be asked about, too small for parts.
    fs::write(&file, &content[..5_000_000]).unwrap();
    let part = put(&server, &file, "data/part.jsonl");
    assert!(number(&part, "bytes_sent") < 200_000, "{part}");
    assert!(read(&server, "data/part.jsonl") == content[..5_000_000]);
    assert_eq!(server.json(&["store", "fsck", "--read-data"])["errors"], serde_json::json!([]));
}

/// Rows that change here and there, one in a hundred, change most chunks; of those only the rows travel. Whoever may not read what is there
/// sends the chunks.
#[test]
fn of_a_chunk_that_changed_a_little_only_the_change_travels() {
    let server = server();
    let file = server.path("rows.jsonl");
    let row = |n: u64| format!("{{\"id\": {n}, \"text\": \"{}\"}}\n", hex::encode(noise(n + 1, 180))).into_bytes();
    let rows: Vec<Vec<u8>> = (0..95_000).map(row).collect();
    let mut content = rows.concat();
    let total = content.len() as u64;
    assert!(total > 33 << 20, "{total}");
    fs::write(&file, &content).unwrap();
    put(&server, &file, "data/rows.jsonl");
    for seed in 1..3u64 {
        let changed = rows.iter().enumerate().map(|(n, old)| {
            let n = n as u64;
            if (n * 7 + seed).is_multiple_of(100) { row(seed * 10_000_000 + n) } else { old.clone() }
        });
        content = changed.collect::<Vec<_>>().concat();
        fs::write(&file, &content).unwrap();
        let moved = put(&server, &file, "data/rows.jsonl");
        // Twice as many rows differ in the second round: those of the first have changed back.
        assert!(number(&moved, "bytes_sent") * 100 < total * (3 * seed), "{moved}");
        assert!(number(&moved, "bytes_received") * 40 < total, "{moved}");
        assert!(read(&server, "data/rows.jsonl") == content);
    }
    assert_eq!(server.json(&["store", "fsck", "--read-data"])["errors"], serde_json::json!([]));
}

/// Folders: small files in groups, large ones by themselves, tiny ones whole; the second time nothing travels, and `get` skips what is there.
#[test]
fn folders_travel_once() {
    let server = server();
    let folder = server.path("folder");
    fs::create_dir_all(folder.join("a/b")).unwrap();
    let files: Vec<(String, Vec<u8>)> = (0..40)
        .map(|n| (format!("a/{n}.bin"), noise(n, 70_000 + 1_000 * n as usize)))
        .chain([("a/b/tiny".to_owned(), b"tiny".to_vec()), ("empty".to_owned(), Vec::new())])
        .chain([("large".to_owned(), lines(7, 300_000)), ("zeros".to_owned(), vec![0; 40_000_000])])
        .collect();
    for (name, content) in &files {
        fs::write(folder.join(name), content).unwrap();
    }
    let total: u64 = files.iter().map(|(_, content)| content.len() as u64).sum();
    let args = ["put", "--recursive", folder.to_str().unwrap(), "data/set"];
    let first = server.json(&args);
    assert_eq!((number(&first, "files"), number(&first, "bytes_total")), (files.len() as u64, total), "{first}");
    assert!(number(&first, "bytes_sent") < total / 2, "zeros travel once: {first}");
    let again = server.json(&args);
    assert_eq!((number(&again, "files_skipped"), number(&again, "bytes_sent")), (files.len() as u64, 0), "{again}");
    let out = server.path("out");
    let got = server.json(&["get", "--recursive", "data/set", out.to_str().unwrap()]);
    assert_eq!(number(&got, "bytes_received"), total, "{got}");
    for (name, content) in &files {
        assert!(fs::read(out.join(name)).unwrap() == *content, "{name}");
    }
    let got = server.json(&["get", "--recursive", "data/set", out.to_str().unwrap()]);
    assert_eq!((number(&got, "files_skipped"), number(&got, "bytes_received")), (files.len() as u64, 0), "{got}");
    // Standard input has neither length nor name of its own.
    for (name, content) in [("short", &files[0].1), ("long", &files[42].1)] {
        let place = format!("data/stdin/{name}");
        let mut command = server.program();
        command.args(["--output", "json", "put", "-", &place]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(content).unwrap();
        let said: Value = serde_json::from_slice(&child.wait_with_output().unwrap().stdout).unwrap();
        assert_eq!(number(&said, "bytes_total"), content.len() as u64, "{said}");
        assert!(number(&said, "bytes_sent") * 100 < content.len() as u64, "{said}");
        assert!(read(&server, &place) == *content);
    }
}

/// `--delete` makes both sides alike, once all else is done; a dry run changes nothing; a failure removes nothing.
#[test]
fn delete_makes_both_sides_alike() {
    let server = server();
    let (here, there) = (server.path("here"), server.path("there"));
    let names = |folder: &Path| {
        let mut names = Vec::new();
        let mut folders = vec![folder.to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() { folders.push(path) } else { names.push(path) }
            }
        }
        let mut names: Vec<String> =
            names.iter().map(|name| name.strip_prefix(folder).unwrap().to_str().unwrap().to_owned()).collect();
        names.sort();
        names
    };
    let keys = |prefix: &str| {
        let listed = server.json(&["ls", "--recursive", &format!("data/{prefix}")]);
        let text = listed.to_string();
        ["set/keep", "set/sub/go", "set/sub/stay", "set/extra", "settle/other"]
            .into_iter()
            .filter(|key| text.contains(&format!("{key}\"")))
            .collect::<Vec<_>>()
    };
    fs::create_dir_all(here.join("sub")).unwrap();
    for name in ["keep", "sub/go", "sub/stay"] {
        fs::write(here.join(name), name).unwrap();
    }
    let source = here.to_str().unwrap();
    server.run(&["put", "--recursive", source, "data/set"]);
    server.run(&["put", here.join("keep").to_str().unwrap(), "data/settle/other"]);
    server.run(&["get", "--recursive", "data/set", there.to_str().unwrap()]);
    fs::remove_file(here.join("sub/go")).unwrap();
    let all = ["set/keep", "set/sub/go", "set/sub/stay"];
    let dry = server.json(&["put", "--recursive", "--delete", "--dry-run", source, "data/set"]);
    assert_eq!((number(&dry, "files_removed"), dry["dry_run"].as_bool()), (1, Some(true)), "{dry}");
    assert_eq!(keys("set"), all);
    // A file whose key is too long cannot be put: nothing is removed.
    let deep = (0..5).fold(here.clone(), |folder, _| folder.join("d".repeat(250)));
    fs::create_dir_all(&deep).unwrap();
    fs::write(deep.join("file"), b"x").unwrap();
    let failed = server.program().args(["put", "--recursive", "--delete", source, "data/set"]).output().unwrap();
    assert!(!failed.status.success());
    assert_eq!(keys("set"), all);
    fs::remove_dir_all(here.join("d".repeat(250))).unwrap();
    let done = server.json(&["put", "--recursive", "--delete", source, "data/set"]);
    assert_eq!(number(&done, "files_removed"), 1, "{done}");
    assert_eq!((keys("set"), keys("settle")), (vec!["set/keep", "set/sub/stay"], vec!["settle/other"]));

    // The other way: files that have no object go, what links lead to stays.
    fs::create_dir_all(there.join("own/deep")).unwrap();
    fs::write(there.join("own/deep/file"), b"own").unwrap();
    fs::write(server.path("outside"), b"outside").unwrap();
    std::os::unix::fs::symlink(server.path("outside"), there.join("link")).unwrap();
    std::os::unix::fs::symlink(&here, there.join("linked-folder")).unwrap();
    let target = there.to_str().unwrap();
    let dry = server.json(&["get", "--recursive", "--delete", "--dry-run", "data/set", target]);
    assert_eq!((number(&dry, "files_removed"), number(&dry, "files_skipped")), (4, 2), "{dry}");
    assert!(there.join("own/deep/file").exists() && there.join("sub/go").exists());
    let none = server.program().args(["get", "--recursive", "--delete", "data/nothing", target]).output().unwrap();
    assert!(!none.status.success() && there.join("own/deep/file").exists());
    server.json(&["get", "--recursive", "--delete", "data/set", target]);
    assert_eq!(names(&there), ["keep", "sub/stay"]);
    assert!(!there.join("own").exists() && fs::read(server.path("outside")).unwrap() == b"outside");
    assert!(here.join("keep").exists() && here.join("sub/stay").exists());
    let usage = server.program().args(["put", "--delete", source, "data/set"]).output().unwrap();
    assert_eq!(usage.status.code(), Some(2));
}

/// Bytes on their way to the control port, counted.
struct Between {
    address: SocketAddr,
    passed: Arc<AtomicU64>,
}

impl Between {
    fn start(to: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (address, passed) = (listener.local_addr().unwrap(), Arc::new(AtomicU64::new(0)));
        let counted = passed.clone();
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let (mut client, counted) = (client.unwrap(), counted.clone());
                let Ok(mut server) = TcpStream::connect(to) else { return };
                let (mut answers, mut back) = (server.try_clone().unwrap(), client.try_clone().unwrap());
                std::thread::spawn(move || {
                    drop(std::io::copy(&mut answers, &mut back));
                    drop(back.shutdown(std::net::Shutdown::Both));
                });
                std::thread::spawn(move || {
                    let mut buffer = vec![0; 64 * 1024];
                    while let Ok(count @ 1..) = client.read(&mut buffer) {
                        counted.fetch_add(count as u64, Ordering::Relaxed);
                        if server.write_all(&buffer[..count]).is_err() {
                            break;
                        }
                    }
                    drop(server.shutdown(std::net::Shutdown::Both));
                });
            }
        });
        Self { address, passed }
    }
}

/// A put that is killed goes on where it was: the parts that it had stored keep their chunks, though garbage is collected meanwhile.
#[test]
fn a_killed_put_goes_on_where_it_was() {
    const PART: u64 = 32 << 20;
    let server = server();
    let between = Between::start(server.api());
    let file = server.path("large.bin");
    let content = noise(3, 7 * PART as usize);
    let total = content.len() as u64;
    fs::write(&file, &content).unwrap();
    let args = ["--output", "json", "put", file.to_str().unwrap(), "data/large.bin"];
    let mut child = server
        .program()
        .env("BEDPLATE_URL", format!("http://{}", between.address))
        .args(args)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let deadline = Instant::now() + Duration::from_secs(300);
    // Four are under way at once, so that at least one has been stored by then.
    while between.passed.load(Ordering::Relaxed) < 5 * PART + PART / 2 {
        assert!(child.try_wait().unwrap().is_none(), "it was done before it was killed");
        assert!(Instant::now() < deadline, "{} bytes passed", between.passed.load(Ordering::Relaxed));
        std::thread::sleep(Duration::from_millis(2));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let missing = server.program().args(["get", "data/large.bin", "nowhere"]).output().unwrap();
    assert!(!missing.status.success(), "half an object is seen");
    server.run(&["store", "gc"]);
    let rest: Value = serde_json::from_str(&server.run(&args)).unwrap();
    assert!(number(&rest, "bytes_known") >= PART && number(&rest, "bytes_sent") <= total - PART, "{rest}");
    assert!(read(&server, "data/large.bin") == content);
    let again = put(&server, &file, "data/large.bin");
    assert_eq!(number(&again, "files_skipped"), 1, "{again}");
}

/// Where the appliance takes no pushes, or the bucket encrypts, files travel whole, and that is said.
#[test]
fn without_the_door_files_travel_whole() {
    let server = server();
    let file = server.path("file.bin");
    let content = noise(5, 300_000);
    fs::write(&file, &content).unwrap();
    let place = ["put", file.to_str().unwrap(), "data/file.bin"];
    for url in ["http://127.0.0.1:1".to_owned(), server.s3_url()] {
        let mut command = server.program();
        let output =
            command.env("BEDPLATE_URL", url).args(["--output", "json"]).args(place).arg("--force").output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && said.contains("travel whole"), "{said}");
        let summary: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!((number(&summary, "bytes_sent"), number(&summary, "bytes_known")), (300_000, 0), "{summary}");
    }
    assert!(read(&server, "data/file.bin") == content);
    let mut encrypt = std::process::Command::new(crate::support::aws_cli());
    encrypt
        .env("AWS_ACCESS_KEY_ID", crate::support::ACCESS_KEY)
        .env("AWS_SECRET_ACCESS_KEY", crate::support::SECRET_KEY)
        .env("AWS_DEFAULT_REGION", "us-east-1")
        .args(["--endpoint-url", &server.s3_url(), "s3api", "put-bucket-encryption", "--bucket", "sealed"])
        .arg("--server-side-encryption-configuration")
        .arg(r#"{"Rules":[{"ApplyServerSideEncryptionByDefault":{"SSEAlgorithm":"AES256"}}]}"#);
    server.run(&["bucket", "create", "sealed"]);
    crate::support::success(encrypt.output().unwrap(), &["put-bucket-encryption"]);
    let output = server.program().args(["put", file.to_str().unwrap(), "sealed/file.bin"]).output().unwrap();
    assert!(String::from_utf8_lossy(&output.stderr).contains("sealed encrypts its objects"), "{output:?}");
    assert!(read(&server, "sealed/file.bin") == content);
    // What came over S3 is known by its MD5, what was pushed by its root digest.
    for _ in 0..2 {
        assert_eq!(number(&server.json(&place), "files_skipped"), 1);
        server.run(&[&place[..], &["--force"]].concat());
    }
}
