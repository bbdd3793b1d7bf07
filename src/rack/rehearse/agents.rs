//! What runs on simulated machines: an agent that does all that the real one says and writes no disk, and after it the system that was
//! installed.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::{Instant, sleep};

use crate::bmc::twin::{Boots, Running, Software};
use crate::format::order::{Booted, Installed, Phase, Progress, Report};
use crate::model::ImageRef;
use crate::rack::{AgentError, Conductor};

/// Between two tries to reach an appliance that is away, and between two words of progress.
const PAUSE: Duration = Duration::from_millis(500);

/// The agents and systems of all simulated machines.
pub(super) struct Agents {
    install: Duration,
    media_url: String,
    desk: Mutex<Option<Conductor>>,
    /// What is on each node's disk: the image, and the token in its seed.
    disks: Mutex<BTreeMap<String, (ImageRef, String)>>,
}

impl Agents {
    pub(super) fn new(install: Duration, media_url: &str) -> Self {
        Self { install, media_url: media_url.to_owned(), desk: Mutex::default(), disks: Mutex::default() }
    }

    /// Who they ask and tell.
    pub(super) fn talk_to(&self, conductor: Conductor) {
        *self.desk.lock().unwrap_or_else(PoisonError::into_inner) = Some(conductor);
    }

    /// Asks until there is an answer; none when it is a refusal, or the machine is off.
    async fn ask<T, F>(&self, machine: &Running, ask: impl Fn(Conductor) -> F) -> Option<T>
    where
        F: Future<Output = Result<T, AgentError>>,
    {
        while machine.is_on() {
            let desk = self.desk.lock().unwrap_or_else(PoisonError::into_inner).clone();
            match ask(desk?).await {
                Ok(answer) => return Some(answer),
                Err(AgentError::Internal(_)) => sleep(PAUSE).await,
                Err(refusal) => {
                    tracing::warn!(node = machine.node(), %refusal, "what runs on a rehearsed node was refused");
                    return None;
                }
            }
        }
        None
    }

    async fn agent(&self, machine: &Running, url: &str) -> Option<()> {
        let id = url.strip_prefix(&self.media_url)?.strip_prefix("/media/")?.strip_suffix("/boot.iso")?;
        let region = self.ask(machine, async |desk: Conductor| desk.boot_region(id).await).await?;
        let token = region.token.as_str();
        let order = self.ask(machine, async |desk: Conductor| desk.order(token).await).await?;
        let (began, bytes) = (Instant::now(), order.image_bytes);
        while began.elapsed() < self.install {
            let done = began.elapsed().as_secs_f64() / self.install.as_secs_f64().max(0.001);
            let bytes_done = (bytes as f64 * done.min(1.0)) as u64;
            let progress = Progress { phase: Phase::Write, bytes_done, bytes_total: bytes };
            self.ask(machine, async |desk: Conductor| desk.progress(token, progress.clone()).await).await?;
            sleep(PAUSE.min(self.install)).await;
        }
        let report = Report::Installed(Installed {
            disk: "/dev/nvme0n1".to_owned(),
            disk_serial: order.disk.serial.clone(),
            bytes_fetched: bytes,
            bytes_reused: 0,
            bytes_written: bytes,
            bytes_zero: 0,
            seconds: began.elapsed().as_secs_f64(),
            root_digest: order.root_digest,
        });
        self.disks
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(machine.node().to_owned(), (order.image.clone(), order.boot_token.clone()));
        self.ask(machine, async |desk: Conductor| desk.report(token, report.clone()).await).await?;
        machine.power_off();
        Some(())
    }

    async fn system(&self, machine: &Running) -> Option<()> {
        let found = self.disks.lock().unwrap_or_else(PoisonError::into_inner).get(machine.node()).cloned();
        let (image, token) = found?;
        let booted = Booted {
            image,
            hostname: machine.node().to_owned(),
            root_device: "/dev/nvme0n1p2".to_owned(),
            boot_id: format!("start-{}", machine.life()),
        };
        self.ask(machine, async |desk: Conductor| desk.booted(&token, booted.clone()).await).await
    }
}

#[async_trait]
impl Software for Agents {
    async fn run(&self, machine: Running, from: Boots) {
        match from {
            Boots::Media(url) => self.agent(&machine, &url).await,
            Boots::Disk => self.system(&machine).await,
        };
    }
}
