//! A rack of simulated BMCs and machines, whose agents and systems talk to a real appliance's ports: they do all that the real ones do,
//! and write to no disk.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bedplate::bmc::twin::{Boots, Identity, Manner, Running, Software, Temper, Tree, Twin, TwinSpec};
use bedplate::format::boot_region::{self, BootRegion};
use bedplate::format::order::{Booted, Installed, Order, Phase, Progress, Report};
use bedplate::model::{ImageRef, Secret};
use bedplate::pull::{Appliance, Login, PullError};
use bedplate::sys::worker::Workers;

use super::{Server, noise};

const USERNAME: &str = "admin";
/// The password of all BMCs, and where specs say that it is found.
pub(crate) const PASSWORD: &str = "simulated";
pub(crate) const PASSWORD_ENV: &str = "BMC_PASSWORD";
/// Between two tries to reach an appliance that is away.
const PAUSE: Duration = Duration::from_millis(100);

/// Longest seed volume, in bytes.
const SEED_MAX: usize = 16 << 20;

/// What runs on the nodes.
#[derive(Default)]
pub(crate) struct Nodes {
    disks: Mutex<BTreeMap<String, Disk>>,
}

/// One node's disk.
#[derive(Clone, Default)]
pub(crate) struct Disk {
    pub(crate) image: Option<ImageRef>,
    url: String,
    pin: String,
    token: String,
    /// Its seed volume.
    pub(crate) seed: Vec<u8>,
    /// How often it was written.
    pub(crate) writes: u64,
    /// How often what is on it was started.
    pub(crate) boots: u64,
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

impl Disk {
    /// Whether this text stands in its seed.
    pub(crate) fn was_told(&self, text: &str) -> bool {
        self.seed.windows(text.len()).any(|window| window == text.as_bytes())
    }
}

impl Nodes {
    /// Looks at one node's disk.
    pub(crate) fn disk<T>(&self, node: &str, change: impl FnOnce(&mut Disk) -> T) -> T {
        change(self.disks.lock().unwrap().entry(node.to_owned()).or_default())
    }

    async fn agent(&self, machine: &Running, url: &str) -> Option<()> {
        let region = region(machine, url).await?;
        let appliance = appliance(&region.url, &region.certificate_pin, &region.token);
        let order: Order = ask(machine, || appliance.get_json("/agent/v1/order")).await?;
        let seed = ask(machine, || appliance.get("/agent/v1/seed", None, SEED_MAX)).await?;
        for part in 0..4 {
            let progress = Progress {
                phase: Phase::Write,
                bytes_done: part * order.image_bytes / 4,
                bytes_total: order.image_bytes,
            };
            drop(appliance.post_json("/agent/v1/progress", &progress).await);
            tokio::time::sleep(Duration::from_millis(50 + machine.life() * 97 % 400)).await;
        }
        if !machine.is_on() {
            return None;
        }
        self.disk(machine.node(), |disk| {
            disk.image = Some(order.image.clone());
            (disk.url, disk.pin) = (region.url.clone(), region.certificate_pin.clone());
            disk.token = order.boot_token.clone();
            disk.seed = seed.to_vec();
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

/// Starts so many BMCs.
pub(crate) async fn rack(count: usize, nodes: &Arc<Nodes>, workers: &Workers) -> Vec<Twin> {
    let tree = Arc::new(Tree::generic());
    let mut twins = vec![];
    for number in 0..count {
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

/// Writes `rack.toml` for them.
pub(crate) fn write_spec(server: &Server, twins: &[Twin], image: &str) {
    let mut spec = format!(
        "name = \"killed\"\nimage = \"{image}\"\n[install]\nparallel = {}\n\
         [bmc]\nusername = \"{USERNAME}\"\npassword-env = \"{PASSWORD_ENV}\"\n",
        twins.len()
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
pub(crate) fn appliance_with_images() -> Server {
    let mut server = Server::start_with_env(&[], &[(PASSWORD_ENV, PASSWORD)]);
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
