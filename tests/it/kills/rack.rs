//! An appliance is killed while it images twenty simulated nodes, whose agents and systems talk to its real ports: every job ends
//! right, no node is started, given its medium, or imaged more often than without kills, and no session stays open at a BMC.

use std::collections::BTreeMap;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bedplate::bmc::twin::{Boots, Identity, Manner, Running, Software, Tally, Temper, Tree, Twin, TwinSpec};
use bedplate::format::boot_region::{self, BootRegion};
use bedplate::format::order::{Booted, Installed, Order, Phase, Progress, Report};
use bedplate::model::{ImageRef, Secret};
use bedplate::pull::{Appliance, Login, PullError};
use bedplate::sys::worker::Workers;
use serde_json::Value;

use super::{chance, kills};
use crate::support::{Server, noise};

const NODES: usize = 20;
const USERNAME: &str = "admin";
const PASSWORD: &str = "simulated";
/// How long one job may take, with all its kills.
const JOB_LIMIT: Duration = Duration::from_secs(600);
/// Between two tries to reach an appliance that is away.
const PAUSE: Duration = Duration::from_millis(100);

/// What runs on the nodes: agents that do all that the real one does and write to no disk, and what they installed.
#[derive(Default)]
struct Nodes {
    disks: Mutex<BTreeMap<String, Disk>>,
}

/// One node's disk.
#[derive(Clone, Default)]
struct Disk {
    image: Option<ImageRef>,
    url: String,
    pin: String,
    token: String,
    /// How often it was written.
    writes: u64,
    /// How often what is on it was started.
    boots: u64,
}

fn appliance(url: &str, pin: &str, token: &str) -> Appliance {
    let mut bytes = [0; 32];
    hex::decode_to_slice(pin, &mut bytes).unwrap();
    Appliance::new(url, Some(bytes), &Login::Token(Secret::new(token))).unwrap()
}

/// Asks until there is an answer; none when it is a refusal, or the machine is off.
async fn ask<T, F>(machine: &Running, attempt: impl Fn() -> F) -> Option<T>
where
    F: Future<Output = Result<T, PullError>>,
{
    while machine.is_on() {
        match attempt().await {
            Ok(answer) => return Some(answer),
            Err(error) if error.is_transient() => tokio::time::sleep(PAUSE).await,
            Err(refusal) => {
                eprintln!("{} was refused: {refusal}", machine.node());
                return None;
            }
        }
    }
    None
}

/// Reads the boot region through the virtual drive, as often as it takes.
async fn region(machine: &Running, url: &str) -> Option<BootRegion> {
    let client = reqwest::Client::builder().timeout(Duration::from_secs(5)).build().unwrap();
    let range = format!("bytes={}-{}", boot_region::OFFSET, boot_region::OFFSET + boot_region::LENGTH as u64 - 1);
    while machine.is_on() {
        let answer = client.get(url).header("range", &range).send().await;
        match answer {
            Ok(answer) if answer.status() == 206 => {
                if let Ok(bytes) = answer.bytes().await {
                    return Some(BootRegion::decode(&bytes).unwrap());
                }
            }
            Ok(answer) if answer.status() == 404 => return None,
            _ => {}
        }
        tokio::time::sleep(PAUSE).await;
    }
    None
}

impl Nodes {
    fn disk<T>(&self, node: &str, change: impl FnOnce(&mut Disk) -> T) -> T {
        change(self.disks.lock().unwrap().entry(node.to_owned()).or_default())
    }

    async fn agent(&self, machine: &Running, url: &str) -> Option<()> {
        let region = region(machine, url).await?;
        let appliance = appliance(&region.url, &region.certificate_pin, &region.token);
        let order: Order = ask(machine, || appliance.get_json("/agent/v1/order")).await?;
        for part in 0..4 {
            let progress = Progress {
                phase: Phase::Write,
                bytes_done: part * order.image_bytes / 4,
                bytes_total: order.image_bytes,
            };
            drop(appliance.post_json("/agent/v1/progress", &progress).await);
            tokio::time::sleep(Duration::from_millis(50 + chance(400))).await;
        }
        if !machine.is_on() {
            return None;
        }
        self.disk(machine.node(), |disk| {
            disk.image = Some(order.image.clone());
            (disk.url, disk.pin) = (region.url.clone(), region.certificate_pin.clone());
            disk.token = order.boot_token.clone();
            disk.writes += 1;
        });
        let report = Report::Installed(Installed {
            disk: "/dev/nvme0n1".to_owned(),
            disk_serial: order.disk.serial.clone(),
            bytes_fetched: order.image_bytes,
            bytes_reused: 0,
            bytes_written: order.image_bytes,
            bytes_zero: 0,
            seconds: 1.0,
            root_digest: order.root_digest,
        });
        ask(machine, || appliance.post_json("/agent/v1/report", &report)).await?;
        machine.power_off();
        Some(())
    }

    async fn system(&self, machine: &Running) -> Option<()> {
        let disk = self.disk(machine.node(), |disk| disk.clone());
        let appliance = appliance(&disk.url, &disk.pin, &disk.token);
        let booted = Booted {
            image: disk.image?,
            hostname: machine.node().to_owned(),
            root_device: "/dev/nvme0n1p2".to_owned(),
            boot_id: format!("start-{}", machine.life()),
        };
        ask(machine, || appliance.post_json("/agent/v1/booted", &booted)).await?;
        self.disk(machine.node(), |disk| disk.boots += 1);
        Some(())
    }
}

#[async_trait]
impl Software for Nodes {
    async fn run(&self, machine: Running, from: Boots) {
        match from {
            Boots::Media(url) => self.agent(&machine, &url).await,
            Boots::Disk => self.system(&machine).await,
        };
    }
}

async fn rack(nodes: &Arc<Nodes>, workers: &Workers) -> Vec<Twin> {
    let tree = Arc::new(Tree::generic());
    let mut twins = vec![];
    for number in 0..NODES {
        let mut manner = Manner::of(&tree);
        manner.post = Duration::from_millis(300);
        let name = format!("node-{number:02}");
        let identity = Identity {
            username: USERNAME.to_owned(),
            password: PASSWORD.to_owned(),
            serial: format!("TWIN-{number:02}"),
            uuid: format!("00000000-0000-4000-8000-0000000000{number:02}"),
            drive_serial: Some(format!("S{number:02}")),
            drive_model: None,
            on: true,
        };
        let spec = TwinSpec {
            node: name,
            tree: tree.clone(),
            manner,
            identity,
            temper: Temper { latency: 0.1, ..Temper::default() },
            number: number as u64,
            software: nodes.clone(),
        };
        twins.push(Twin::start(spec, workers).await.unwrap());
    }
    twins
}

fn write_spec(server: &Server, twins: &[Twin], image: &str) {
    let mut spec = format!(
        "name = \"killed\"\nimage = \"{image}\"\n[install]\nparallel = {NODES}\n\
         [bmc]\nusername = \"{USERNAME}\"\npassword-env = \"BMC_PASSWORD\"\n"
    );
    for (number, twin) in twins.iter().enumerate() {
        let url = twin.url();
        spec.push_str(&format!(
            "[[node]]\nname = \"node-{number:02}\"\nbmc = \"{url}\"\ndisk = {{ serial = \"S{number:02}\" }}\n"
        ));
    }
    std::fs::write(server.path("rack.toml"), spec).unwrap();
}

/// An appliance with a boot image, and the images `os@1` and `os@2`.
fn appliance_with_images() -> Server {
    let mut server = Server::start_with_env(&[], &[("BMC_PASSWORD", PASSWORD)]);
    for version in [1, 2] {
        let image = server.path("os.raw");
        std::fs::write(&image, noise(version, 2 << 20)).unwrap();
        server.run(&["image", "import", &format!("os@{version}"), image.to_str().unwrap()]);
    }
    assert_eq!(server.stop(), Some(0));
    let at = boot_region::OFFSET as usize;
    let mut boot = noise(9, 64 << 10);
    boot[at..at + boot_region::LENGTH].copy_from_slice(&boot_region::empty());
    std::fs::create_dir_all(server.path("data/boot")).unwrap();
    std::fs::write(server.path("data/boot/agent.iso"), boot).unwrap();
    server.restart();
    server
}

/// One appliance that is killed, so often.
struct Killed {
    server: Server,
    left: u64,
    starts: Vec<Duration>,
}

impl Killed {
    /// Kills it after a while, and starts it again.
    fn kill(&mut self) {
        std::thread::sleep(Duration::from_millis(chance(2_500)));
        self.left -= 1;
        self.server.kill();
        std::thread::sleep(Duration::from_millis(chance(300)));
        let began = Instant::now();
        self.server.restart();
        self.starts.push(began.elapsed());
    }

    /// Applies the spec, and answers the job when it is over.
    fn play(&mut self, deadline: Instant) -> Value {
        let before: Value = self.server.json(&["rack", "jobs"]);
        let before = before.as_array().unwrap().len();
        let spec = self.server.path("rack.toml");
        let spec = spec.to_str().unwrap();
        loop {
            let mut apply = self.server.program();
            apply
                .args(["rack", "apply", spec, "--yes"])
                .stdout(Stdio::null())
                .stderr(std::fs::File::create(self.server.path("apply.log")).unwrap());
            let mut apply = Background(apply.spawn().unwrap());
            // One time in a few the appliance dies over the request itself.
            let over = self.left > 0 && chance(3) == 0;
            if over {
                self.kill();
            }
            drop(apply.0.wait());
            loop {
                assert!(Instant::now() < deadline, "the job is not over: {}", self.server.log());
                let jobs = self.server.json(&["rack", "jobs"]);
                let jobs = jobs.as_array().unwrap();
                if jobs.len() == before {
                    break;
                }
                assert_eq!(jobs.len(), before + 1, "two jobs for one request");
                if jobs[0]["state"] != "running" {
                    return jobs[0].clone();
                }
                match self.left {
                    0 => std::thread::sleep(Duration::from_millis(200)),
                    _ => self.kill(),
                }
            }
            // The request was lost before the job was journalled.
            assert!(
                over || self.left > 0,
                "apply began no job: {:?} {}",
                std::fs::read_to_string(self.server.path("apply.log")),
                self.server.log()
            );
        }
    }
}

/// A child that is ended whatever happens.
struct Background(std::process::Child);

impl Drop for Background {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// Waits until no session is open at any BMC.
fn no_session_stays(server: &Server, twins: &[Twin], why: &str) {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let open: usize = twins.iter().map(|twin| twin.tally().sessions).sum();
        if open == 0 {
            return;
        }
        assert!(Instant::now() < deadline, "{open} sessions are open {why}: {}", server.log());
        std::thread::sleep(PAUSE);
    }
}

fn judge(job: &Value, image: &str, twins: &[Twin], before: &[Tally], nodes: &Nodes, round: u64) {
    assert_eq!(job["state"], "done", "{job:#}");
    let tasks = job["nodes"].as_array().unwrap();
    assert_eq!(tasks.len(), NODES, "{job:#}");
    for (task, (twin, before)) in tasks.iter().zip(twins.iter().zip(before)) {
        let name = task["node"].as_str().unwrap();
        let tally = twin.tally();
        assert_eq!((&task["state"], &task["restarts"]), (&"imaged".into(), &0.into()), "{task:#}");
        assert_eq!(tally.starts - before.starts, 2, "{name} was started more or less than twice: {task:#}");
        assert_eq!(tally.inserts - before.inserts, 1, "{name} was given its medium again: {task:#}");
        assert!(tally.connections_peak <= 2, "{} connections to {name}", tally.connections_peak);
        let disk = nodes.disk(name, |disk| disk.clone());
        assert_eq!((disk.writes, disk.boots), (round, round), "{name} was imaged or started more than once");
        assert_eq!(disk.image.unwrap().to_string(), image, "{name}");
    }
}

#[test]
fn a_rack_is_imaged_once_however_often_the_appliance_dies() {
    bedplate::sys::wire::install_crypto();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (nodes, workers) = (Arc::new(Nodes::default()), runtime.block_on(async { Workers::new() }));
    let twins = runtime.block_on(rack(&nodes, &workers));
    let mut killed = Killed { server: appliance_with_images(), left: kills(), starts: vec![] };
    let mut round = 0;
    while killed.left > 0 {
        round += 1;
        let image = format!("os@{}", 1 + round % 2);
        write_spec(&killed.server, &twins, &image);
        let before: Vec<Tally> = twins.iter().map(Twin::tally).collect();
        let job = killed.play(Instant::now() + JOB_LIMIT);
        judge(&job, &image, &twins, &before, &nodes, round);
        no_session_stays(&killed.server, &twins, "after a job");
    }
    assert_eq!(killed.server.stop(), Some(0));
    no_session_stays(&killed.server, &twins, "after the last stop");
    let requests: u64 = twins.iter().map(|twin| twin.tally().requests).sum();
    let slowest = killed.starts.iter().max().unwrap();
    eprintln!(
        "{} kills over {round} jobs of {NODES} nodes; {requests} requests; the slowest start took {:.2} s",
        killed.starts.len(),
        slowest.as_secs_f64()
    );
    runtime.block_on(workers.stop());
}
