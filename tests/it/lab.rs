//! The virtual rack, over real Redfish and real firmware: an appliance that is killed while a node writes its disk
//! finishes the job after it is started again, each node runs its user data once, and a damaged pack never becomes an imaged node.
//!
//! Takes root, QEMU, and images that `cargo xtask image build` made; without them it says so and does nothing.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

const IMAGE: &str = "node-minimal@1";
const ADDRESS: &str = "10.99.0.1";
/// The longest that a rack may take on two cores without KVM.
const PATIENCE: Duration = Duration::from_secs(20 * 60);

#[test]
fn a_killed_appliance_goes_on_with_its_job() {
    let Some(rack) = Rack::up("crash", 2) else { return };
    let mut appliance = rack.serve();
    rack.done(&["image", "import", IMAGE, &rack.image()]);
    rack.tell("#!/bin/sh\necho \"user data on $(cat /etc/hostname)\"\n");
    rack.done(&["rack", "apply", &rack.spec(), "--yes"]);
    // The job has its own copy.
    rack.tell("#!/bin/sh\necho \"user data of another job\"\n");

    rack.wait("a node to write its disk", |status| {
        nodes(status).iter().any(|node| {
            let done = node["bytes_done"].as_u64().unwrap_or(0);
            assert_ne!(node["state"], "failed", "{node}");
            node["phase"] == "write" && done > 0 && done < node["bytes_total"].as_u64().unwrap_or(0)
        })
    });
    appliance.kill().unwrap();
    appliance.wait().unwrap();
    std::thread::sleep(Duration::from_secs(5));
    let appliance = rack.serve();

    let status = rack.wait("the job to end", |status| status["job"]["state"] != "running");
    assert_eq!(status["job"]["state"], "done", "{status:#}");
    assert_eq!(nodes(&status).len(), 2);
    for node in nodes(&status) {
        assert_eq!(node["state"], "imaged", "{node:#}");
        assert_eq!(node["booted"]["image"], IMAGE, "{node:#}");
        assert_eq!(node["booted"]["hostname"], node["node"], "{node:#}");
        assert!(node["booted"]["root_device"].as_str().unwrap().starts_with("/dev/nvme"), "{node:#}");
        let name = node["node"].as_str().unwrap();
        assert_eq!(node["installed"]["disk_serial"], format!("{name}-nvme"), "{node:#}");
        // The machine's own firmware says where it was started from: the crash cost no second installation.
        let starts = rack.console(name);
        let starts: Vec<&str> = starts.lines().filter(|line| line.contains("BdsDxe: starting")).collect();
        assert_eq!(starts.len(), 2, "{name} was to start once from the boot image and once from its disk: {starts:?}");
        rack.says(name, &format!("user data on {name}"));
        assert!(!rack.console(name).contains("of another job"), "{name} ran the user data of another job");
    }
    rack.stop(appliance);
}

#[test]
fn a_damaged_pack_is_never_imaged() {
    let Some(rack) = Rack::up("damage", 1) else { return };
    let appliance = rack.serve();
    rack.done(&["image", "import", IMAGE, &rack.image()]);
    rack.done(&["store", "fsck", "--read-data"]);
    let pack = rack.damage_a_pack();

    let applied = rack.command(&["rack", "apply", &rack.spec(), "--yes", "--wait"]).output().unwrap();
    assert_eq!(applied.status.code(), Some(1), "{}", String::from_utf8_lossy(&applied.stderr));
    let status = rack.json(&["rack", "status", &rack.spec()]);
    let node = &nodes(&status)[0];
    assert_eq!(node["state"], "failed", "{node:#}");
    assert!(
        node["booted"].is_null() && node["installed"].is_null(),
        "a damaged image was reported as installed: {node:#}"
    );
    let error = node["error"].to_string();
    assert!(error.contains(&pack) && error.contains("chunk"), "the error names neither pack nor chunk: {error}");

    let fsck = rack.command(&["store", "fsck", "--read-data", "--output", "json"]).output().unwrap();
    assert_eq!(fsck.status.code(), Some(1), "fsck found nothing");
    let found: Value = serde_json::from_slice(&fsck.stdout).unwrap();
    let first = &found["errors"][0];
    assert_eq!(first["pack"], pack.as_str(), "{found:#}");
    assert!(first["chunk"].is_u64(), "{found:#}");
    rack.stop(appliance);
}

fn nodes(status: &Value) -> &[Value] {
    status["job"]["nodes"].as_array().map_or(&[], Vec::as_slice)
}

/// A rack that is up until this is dropped.
struct Rack {
    dir: PathBuf,
    images: PathBuf,
}

impl Rack {
    fn up(name: &str, count: u8) -> Option<Self> {
        let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from);
        let images = std::env::var_os("BEDPLATE_IMAGES").map_or_else(|| target.join("images"), PathBuf::from);
        let missing = [
            (is_root(), "root"),
            (Path::new("/usr/bin/qemu-system-x86_64").exists(), "qemu-system-x86"),
            (images.join("agent/agent.iso").exists(), "`cargo xtask image build agent`"),
            (images.join("node-minimal/disk.img").exists(), "`cargo xtask image build node-minimal`"),
        ];
        if let Some((_, what)) = missing.iter().find(|(there, _)| !there) {
            eprintln!("SKIPPED: the lab test takes {what}");
            return None;
        }
        let rack = Self { dir: target.join(format!("lab-{name}")), images };
        rack.xtask(&["lab", "up", "--nodes", &count.to_string()]);
        Some(rack)
    }

    fn xtask(&self, words: &[&str]) {
        let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo.args(["run", "--quiet", "--package", "xtask", "--"]).args(words).arg("--dir").arg(&self.dir);
        let status = cargo.current_dir(root()).stdin(Stdio::null()).status().unwrap();
        assert!(status.success(), "cargo xtask {words:?}: {status}");
    }

    fn spec(&self) -> String {
        self.dir.join("rack.toml").display().to_string()
    }

    fn image(&self) -> String {
        self.images.join("node-minimal/disk.img").display().to_string()
    }

    fn data(&self) -> PathBuf {
        self.dir.join("state/bedplate-data")
    }

    fn console(&self, node: &str) -> String {
        let bytes = std::fs::read(self.dir.join(format!("log/{node}.console"))).unwrap();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Has the spec name this user data.
    fn tell(&self, text: &str) {
        std::fs::write(self.dir.join("first-start"), text).unwrap();
        let spec = std::fs::read_to_string(self.spec()).unwrap();
        if !spec.contains("user-data") {
            let spec = spec.replace("[install]\n", "[install]\nuser-data = \"first-start\"\n");
            std::fs::write(self.spec(), spec).unwrap();
        }
    }

    /// Waits until a node's console has shown this.
    fn says(&self, node: &str, text: &str) {
        let limit = Instant::now() + Duration::from_secs(120);
        while !self.console(node).contains(text) {
            assert!(Instant::now() < limit, "{node} never said {text:?}: {}", self.console(node));
            std::thread::sleep(Duration::from_millis(250));
        }
    }

    fn enter(&self, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new(self.dir.join("enter"));
        command.arg(program.as_ref()).stdin(Stdio::null());
        command
    }

    fn serve(&self) -> Child {
        let log = std::fs::File::options().create(true).append(true).open(self.dir.join("log/serve.log")).unwrap();
        let mut serve = self.enter(env!("CARGO_BIN_EXE_bedplate"));
        serve.arg("serve").arg("--data").arg(self.data());
        serve.arg("--boot-image").arg(self.images.join("agent/agent.iso"));
        serve.args(["--s3-listen", &format!("{ADDRESS}:9000"), "--api-listen", &format!("{ADDRESS}:9100")]);
        let child = serve.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
        let ready = format!("http://{ADDRESS}:9100/readyz");
        let limit = Instant::now() + Duration::from_secs(60);
        while !self.enter("/usr/bin/curl").args(["-sfo", "/dev/null", &ready]).status().unwrap().success() {
            assert!(Instant::now() < limit, "bedplate serve is not ready within a minute: see log/serve.log");
            std::thread::sleep(Duration::from_millis(200));
        }
        child
    }

    fn stop(&self, mut appliance: Child) {
        Command::new("kill").args(["-TERM", &appliance.id().to_string()]).status().unwrap();
        assert!(appliance.wait().unwrap().success(), "bedplate serve did not stop cleanly");
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = self.enter(env!("CARGO_BIN_EXE_bedplate"));
        command.args(words).arg("--url").arg(format!("http://{ADDRESS}:9100")).arg("--data").arg(self.data());
        command
    }

    fn done(&self, words: &[&str]) {
        let output = self.command(words).output().unwrap();
        assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
    }

    fn json(&self, words: &[&str]) -> Value {
        let output = self.command(words).args(["--output", "json"]).output().unwrap();
        serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|_| panic!("{words:?}: {}", String::from_utf8_lossy(&output.stderr)))
    }

    /// Asks for the rack's status until `holds` says yes of it.
    fn wait(&self, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
        let limit = Instant::now() + PATIENCE;
        loop {
            let status = self.json(&["rack", "status", &self.spec()]);
            if holds(&status) {
                return status;
            }
            assert!(Instant::now() < limit, "waited too long for {what}: {status:#}");
            std::thread::sleep(Duration::from_millis(500));
        }
    }

    /// Flips a byte amid the chunks of a pack and returns the pack's id.
    fn damage_a_pack(&self) -> String {
        let mut packs = Vec::new();
        files(&self.data(), &mut packs);
        packs.retain(|path| path.extension().is_some_and(|extension| extension == "pack"));
        packs.sort_by_key(|path| std::fs::metadata(path).unwrap().len());
        let path = packs.pop().expect("an imported image has packs");
        let mut bytes = std::fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 0x10;
        std::fs::write(&path, bytes).unwrap();
        path.file_stem().unwrap().to_string_lossy().into_owned()
    }
}

impl Drop for Rack {
    fn drop(&mut self) {
        self.xtask(&["lab", "down"]);
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, found);
        } else {
            found.push(path);
        }
    }
}
