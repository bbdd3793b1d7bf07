//! The agent's writer against the real appliance: what it writes is the image, what is damaged is named and never
//! passes, and an appliance that is killed meanwhile only costs time.

use std::net::TcpListener;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

const IMAGE: &str = "test@1";
const MIB: usize = 1 << 20;
const KEY: (&str, &str) = ("AKTESTROOT0000000001", "secret-of-the-test-root-key-0000000000001");

/// An appliance of its own, killed when dropped.
struct Appliance {
    folder: tempfile::TempDir,
    s3: u16,
    api: u16,
    process: Option<Child>,
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn with_key(program: &str) -> Command {
    let mut command = Command::new(program);
    command.env("BEDPLATE_ACCESS_KEY", KEY.0).env("BEDPLATE_SECRET_KEY", KEY.1);
    command.env("BEDPLATE_ROOT_ACCESS_KEY", KEY.0).env("BEDPLATE_ROOT_SECRET_KEY", KEY.1);
    command
}

impl Appliance {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut appliance = Self { folder, s3: free_port(), api: free_port(), process: None };
        appliance.serve();
        appliance
    }

    fn serve(&mut self) {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.path("serve.log")).unwrap();
        let process = with_key(env!("CARGO_BIN_EXE_bedplate"))
            .arg("--data")
            .arg(self.path("data"))
            .args(["serve", "--s3-listen", &format!("127.0.0.1:{}", self.s3)])
            .args(["--api-listen", &format!("127.0.0.1:{}", self.api)])
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        self.process = Some(process);
        let deadline = Instant::now() + Duration::from_secs(60);
        while std::net::TcpStream::connect(("127.0.0.1", self.api)).is_err() {
            assert!(Instant::now() < deadline, "the appliance did not start: {}", self.log());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.path("serve.log")).unwrap_or_default()
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.api)
    }

    fn import(&self, image: &str, bytes: &[u8]) -> PathBuf {
        let path = self.path("image.raw");
        std::fs::write(&path, bytes).unwrap();
        let output = with_key(env!("CARGO_BIN_EXE_bedplate"))
            .args(["--url", &self.url(), "image", "import", image])
            .arg(&path)
            .output()
            .unwrap();
        assert!(output.status.success(), "{}{}", text(&output.stderr), self.log());
        path
    }

    fn agent(&self, image: &str, disk: &Path, more: &[&str]) -> Command {
        let mut command = with_key(env!("CARGO_BIN_EXE_bedplate-agent"));
        command.args(["write", "--url", &self.url(), "--image", image, "--disk"]).arg(disk).args(more);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn packs(&self) -> Vec<PathBuf> {
        fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
            for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
                let path = entry.path();
                if path.is_dir() { walk(&path, found) } else { found.push(path) }
            }
        }
        let mut found = Vec::new();
        walk(&self.path("data").join("packs"), &mut found);
        found.retain(|path| std::fs::metadata(path).unwrap().len() > 1000);
        found
    }
}

impl Drop for Appliance {
    fn drop(&mut self) {
        self.kill();
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn figures(output: &Output) -> Value {
    assert!(output.status.success(), "{}", text(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Bytes that nothing compresses, the same for the same seed.
fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

/// A disk image: an MBR's signature, text, noise, long and short zeros, and an end that no block size divides.
fn disk_image() -> Vec<u8> {
    let mut image = vec![0; 512];
    image[510..].copy_from_slice(&[0x55, 0xaa]);
    image.extend(b"a line of a file in an image\n".repeat(40_000));
    image.extend(vec![0; 5 * MIB + 123]);
    image.extend(noise(1, 6 * MIB));
    image.extend(vec![0; 700]);
    image.extend(noise(2, 3 * MIB + 77));
    image.extend(vec![0; 9 * MIB]);
    image.extend(noise(3, MIB));
    let len = image.len() / 512 * 512;
    image.truncate(len);
    image
}

#[test]
fn writes_what_was_imported_and_reuses_what_is_there() {
    let appliance = Appliance::start();
    let image = disk_image();
    appliance.import(IMAGE, &image);
    let disk = appliance.path("disk");
    // What was on the disk before shows through nowhere.
    std::fs::write(&disk, vec![0xee; image.len() + 100_000]).unwrap();

    let first = figures(&appliance.agent(IMAGE, &disk, &["--allow-file"]).output().unwrap());
    let written = std::fs::read(&disk).unwrap();
    assert!(written[..image.len()] == image[..], "the disk is not the image");
    assert!(written[image.len()..].iter().all(|b| *b == 0xee), "bytes behind the image were touched");
    let figure = |value: &Value, name: &str| value[name].as_u64().unwrap_or_else(|| panic!("no {name} in {value}"));
    assert_eq!(figure(&first, "bytes_reused"), 0);
    assert!(figure(&first, "bytes_zero") > 13 * MIB as u64, "{first}");
    assert_eq!(figure(&first, "bytes_zero") + figure(&first, "bytes_written"), image.len() as u64);
    assert!(figure(&first, "bytes_fetched") < 11 * MIB as u64, "{first}");
    assert_eq!(first["root_digest"].as_str().unwrap().len(), 64);

    // A few damaged bytes cost a few chunks.
    let file = std::fs::OpenOptions::new().write(true).open(&disk).unwrap();
    file.write_all_at(b"bit rot", 8 * MIB as u64).unwrap();
    let again = figures(&appliance.agent(IMAGE, &disk, &["--allow-file", "--reuse"]).output().unwrap());
    assert!(std::fs::read(&disk).unwrap()[..image.len()] == image[..]);
    assert!(figure(&again, "bytes_fetched") < MIB as u64, "{again}");
    assert!(figure(&again, "bytes_reused") > image.len() as u64 - MIB as u64, "{again}");
    assert_eq!(again["root_digest"], first["root_digest"]);
}

#[test]
fn names_pack_and_chunk_of_a_damaged_store() {
    let appliance = Appliance::start();
    appliance.import(IMAGE, &disk_image());
    let packs = appliance.packs();
    assert!(!packs.is_empty());
    for pack in &packs {
        let file = std::fs::OpenOptions::new().read(true).write(true).open(pack).unwrap();
        let (at, mut byte) = (file.metadata().unwrap().len() / 2, [0]);
        file.read_exact_at(&mut byte, at).unwrap();
        file.write_all_at(&[byte[0] ^ 1], at).unwrap();
    }
    let disk = appliance.path("disk");
    let output = appliance.agent(IMAGE, &disk, &["--allow-file"]).output().unwrap();
    let error = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(output.stdout.is_empty(), "a damaged image was reported as written");
    let name = |pack: &PathBuf| pack.file_name().unwrap().to_string_lossy()[..32].to_owned();
    assert!(packs.iter().any(|pack| error.contains(&format!("pack {} chunk ", name(pack)))), "{error}");
}

#[test]
fn goes_on_when_the_appliance_is_killed_and_started_again() {
    let mut appliance = Appliance::start();
    let mut image = disk_image();
    image.extend(noise(9, 160 * MIB));
    appliance.import(IMAGE, &image);
    let disk = appliance.path("disk");
    let mut agent = appliance.agent(IMAGE, &disk, &["--allow-file"]).spawn().unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    while std::fs::metadata(&disk).map_or(0, |found| found.blocks() * 512) < 16 * MIB as u64 {
        assert!(Instant::now() < deadline && agent.try_wait().unwrap().is_none(), "the agent wrote nothing");
        std::thread::sleep(Duration::from_millis(2));
    }
    appliance.kill();
    std::thread::sleep(Duration::from_secs(2));
    assert!(agent.try_wait().unwrap().is_none(), "the agent did not wait for the appliance");
    appliance.serve();
    let output = agent.wait_with_output().unwrap();
    let written = figures(&output);
    assert!(text(&output.stderr).contains("trying again"), "the kill came too late: {}", text(&output.stderr));
    assert!(std::fs::read(&disk).unwrap() == image, "the disk is not the image");
    assert!(written["bytes_fetched"].as_u64().unwrap() > 160 * MIB as u64);
}

#[test]
fn refuses_what_it_must_not_write() {
    let appliance = Appliance::start();
    appliance.import(IMAGE, &disk_image());
    let file = appliance.path("precious");
    std::fs::write(&file, b"a file of mine").unwrap();
    let output = appliance.agent(IMAGE, &file, &[]).output().unwrap();
    assert_eq!(output.status.code(), Some(4), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("--allow-file"), "{}", text(&output.stderr));
    assert_eq!(std::fs::read(&file).unwrap(), b"a file of mine");
    let output = appliance.agent(IMAGE, &appliance.path("absent"), &[]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let output = appliance.agent("other@7", &appliance.path("new"), &["--allow-file"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("404"), "{}", text(&output.stderr));
    let mut wrong = appliance.agent(IMAGE, &file, &["--allow-file"]);
    let output = wrong.env("BEDPLATE_SECRET_KEY", "wrong").output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("401"), "{}", text(&output.stderr));
    assert_eq!(std::fs::read(&file).unwrap(), b"a file of mine");
}

#[test]
fn reads_the_seed_that_the_appliance_makes() {
    let seed = bedplate::format::order::Seed {
        url: "https://10.99.0.1:9100".into(),
        certificate_pin: "ab".repeat(32),
        token: "one-boot".into(),
        node: "node-1".parse().unwrap(),
    };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("seed");
    std::fs::write(&path, bedplate::image::seed::volume(&"0".repeat(32), &seed, None).unwrap()).unwrap();
    assert_eq!(bedplate::node::seed::read_seed(&path), Some(seed));
    std::fs::write(&path, vec![0; MIB]).unwrap();
    assert_eq!(bedplate::node::seed::read_seed(&path), None);
}

#[test]
fn refuses_a_disk_in_use() {
    let folder = tempfile::tempdir().unwrap();
    let Some(device) = LoopDevice::make(folder.path()) else { return };
    let mount = folder.path().join("mount");
    std::fs::create_dir(&mount).unwrap();
    let done = |program: &str, args: &[&Path]| Command::new(program).args(args).output().unwrap().status.success();
    assert!(done("mkfs.ext4", &[Path::new("-q"), &device.path]));
    assert!(done("mount", &[&device.path, &mount]));
    let output = with_key(env!("CARGO_BIN_EXE_bedplate-agent"))
        .args(["write", "--url", "http://127.0.0.1:1", "--image", IMAGE, "--disk"])
        .arg(&device.path)
        .output()
        .unwrap();
    assert!(done("umount", &[&mount]));
    assert_eq!(output.status.code(), Some(4), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("in use"), "{}", text(&output.stderr));
}

/// A file as a block device.
struct LoopDevice {
    path: PathBuf,
}

impl LoopDevice {
    /// `None`, aloud, where the machine has no loop devices for us.
    fn make(folder: &Path) -> Option<Self> {
        let file = folder.join("loop.img");
        std::fs::File::create(&file).unwrap().set_len(32 * MIB as u64).unwrap();
        match Command::new("losetup").args(["--find", "--show"]).arg(&file).output() {
            Ok(output) if output.status.success() => Some(Self { path: text(&output.stdout).trim().into() }),
            other => {
                eprintln!("SKIPPED: no loop device here ({other:?}); run as root on a kernel that has them");
                None
            }
        }
    }
}

impl Drop for LoopDevice {
    fn drop(&mut self) {
        let detached = Command::new("losetup").arg("--detach").arg(&self.path).status();
        assert!(detached.is_ok(), "{} stays behind", self.path.display());
    }
}
