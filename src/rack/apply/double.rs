//! Test doubles at the BMC seam: machines that behave (or misbehave) like servers with an agent and an installed system
//! on them, and metadata that dies at a chosen instant, as under `kill -9`.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::time::sleep;

use crate::format::order::{Booted, Installed, Phase, Progress, Report};
use crate::meta::{Meta, MetaError, Range, Transaction};
use crate::model::{Digest, ImageRef, NodeName};
use crate::rack::apply::{AgentError, BoxError, Conductor, ImageFacts, Images};
use crate::rack::machine::{BootFrom, Found, FoundDrive, Machine, MachineError, Machines, Power};
use crate::rack::spec::{BiosSettings, NodeSpec};
use crate::sys::worker::Workers;

/// How a machine misbehaves.
#[derive(Clone, Debug, Default)]
pub(super) struct Oddity {
    /// The agent gives up with this; the flag says whether it touched the disk.
    pub(super) agent_fails: Option<(&'static str, bool)>,
    /// The disk reads back as something else.
    pub(super) wrong_digest: bool,
    /// The agent does not come up, this many times.
    pub(super) no_agent: u32,
    /// The agent falls silent after its order.
    pub(super) silent: bool,
    /// Power is lost in the middle of the first write.
    pub(super) power_cut: bool,
    /// The installed system is another one.
    pub(super) stale_system: bool,
    /// The installed system does not report in, this many times.
    pub(super) no_boot: u32,
    /// The next verbs fail in passing, this many times.
    pub(super) flaky: u32,
    /// Its BMC starts the machine, and never says so.
    pub(super) blind: bool,
    /// The BIOS takes no setting.
    pub(super) deaf_bios: bool,
    /// Media cannot be inserted.
    pub(super) no_media: bool,
    /// The BMC cannot be asked, with this kind.
    pub(super) refuses: Option<&'static str>,
    /// The agent does not power the node off after its report.
    pub(super) stays_on: bool,
    /// Its BMC takes so long to connect to: longer than the agent takes to do its work.
    pub(super) slow: Duration,
    /// Serial numbers of its drives.
    pub(super) drives: Vec<&'static str>,
}

/// What a machine is and what happened to it.
#[derive(Default)]
pub(super) struct Metal {
    pub(super) odd: Oddity,
    pub(super) on: bool,
    pub(super) media: Option<String>,
    pub(super) boot: Option<BootFrom>,
    pub(super) led: bool,
    /// BIOS settings, and those that wait for the next start.
    pub(super) bios: BiosSettings,
    staged: Option<BiosSettings>,
    /// The image on the disk, and the boot token in its seed.
    pub(super) disk: Option<(ImageRef, String)>,
    /// Verbs that changed something.
    pub(super) verbs: Vec<String>,
    /// Orders that were granted.
    pub(super) orders: u32,
    /// Times that power was switched off while an agent wrote.
    pub(super) cut_while_writing: u32,
    /// What agents and systems were refused with.
    pub(super) refusals: Vec<String>,
    writing: bool,
    life: u64,
}

/// Verbs that are left, and what the last of them blows.
type Bomb = (u32, Arc<Fuse>);

/// All machines, and the appliance that they talk to.
#[derive(Clone)]
pub(super) struct Room {
    metals: Arc<Mutex<BTreeMap<String, Metal>>>,
    pub(super) desk: Arc<Mutex<Option<Conductor>>>,
    workers: Workers,
    /// Verbs until the appliance dies, and the fuse that kills it.
    bomb: Arc<Mutex<Option<Bomb>>>,
    /// Where the evidence of failed nodes is kept.
    pub(super) evidence: Arc<tempfile::TempDir>,
}

impl Room {
    pub(super) fn new() -> Self {
        let evidence = Arc::new(tempfile::tempdir().unwrap());
        Self { metals: Arc::default(), desk: Arc::default(), workers: Workers::new(), bomb: Arc::default(), evidence }
    }

    pub(super) fn add(&self, node: &str, odd: Oddity) {
        let metal = Metal { odd, on: true, ..Metal::default() };
        self.metals.lock().unwrap().insert(node.to_owned(), metal);
    }

    pub(super) fn with<T>(&self, node: &str, look: impl FnOnce(&mut Metal) -> T) -> T {
        look(self.metals.lock().unwrap().get_mut(node).unwrap())
    }

    /// The appliance dies right after the verb number `verb` (from 0).
    pub(super) fn arm(&self, verb: u32, fuse: Arc<Fuse>) {
        *self.bomb.lock().unwrap() = Some((verb, fuse));
    }

    pub(super) async fn stop(self) {
        self.workers.stop().await;
    }

    fn acted(&self, node: &str, verb: String) {
        self.with(node, |metal| metal.verbs.push(verb));
        let mut bomb = self.bomb.lock().unwrap();
        match bomb.as_mut() {
            Some((0, fuse)) => {
                fuse.blow();
                *bomb = None;
            }
            Some((left, _)) => *left -= 1,
            None => {}
        }
    }

    /// The machine starts: what runs on it depends on what it starts from.
    fn start(&self, node: &str) {
        let (life, from, media) = self.with(node, |metal| {
            metal.on = true;
            metal.life += 1;
            let staged = metal.staged.take();
            metal.bios.extend(staged.into_iter().flatten());
            (metal.life, metal.boot, metal.media.clone())
        });
        let (room, node, stop) = (self.clone(), node.to_owned(), self.workers.token());
        self.workers.spawn("machine", async move {
            let life = Life { room, node, life };
            tokio::select! {
                () = stop.cancelled() => {}
                () = life.run(from, media) => {}
            }
        });
    }

    fn cut(&self, node: &str) {
        self.with(node, |metal| {
            metal.on = false;
            metal.life += 1;
            metal.writing = false;
        });
    }
}

/// One power-on of one machine.
struct Life {
    room: Room,
    node: String,
    life: u64,
}

impl Life {
    async fn run(&self, from: Option<BootFrom>, media: Option<String>) {
        sleep(Duration::from_millis(3)).await;
        match (from, media) {
            (Some(BootFrom::Media), Some(url)) => self.agent(&url).await,
            _ => self.system().await,
        };
    }

    fn with<T>(&self, look: impl FnOnce(&mut Metal) -> T) -> Option<T> {
        self.room.with(&self.node, |metal| (metal.life == self.life).then(|| look(metal)))
    }

    /// Asks the appliance until it answers; `None` when it refuses, or this life is over.
    async fn ask<T, F: Future<Output = Result<T, AgentError>>>(&self, ask: impl Fn(Conductor) -> F) -> Option<T> {
        loop {
            self.with(|_| ())?;
            let desk = self.room.desk.lock().unwrap().clone();
            if let Some(conductor) = desk {
                match ask(conductor).await {
                    Ok(answer) => return Some(answer),
                    Err(AgentError::Internal(_)) => {}
                    Err(refusal) => {
                        self.with(|metal| metal.refusals.push(refusal.to_string()))?;
                        return None;
                    }
                }
            }
            sleep(Duration::from_millis(3)).await;
        }
    }

    async fn agent(&self, url: &str) -> Option<()> {
        let odd = self.with(|metal| {
            let odd = metal.odd.clone();
            metal.odd.no_agent = odd.no_agent.saturating_sub(1);
            odd
        })?;
        if odd.no_agent > 0 {
            return None;
        }
        let id = url.strip_prefix("http://media/media/")?.strip_suffix("/boot.iso")?.to_owned();
        let region = self
            .ask(|desk| {
                let id = id.clone();
                async move { desk.boot_region(&id).await }
            })
            .await?;
        let token = region.token;
        let order = self
            .ask(|desk| {
                let token = token.clone();
                async move { desk.order(&token).await }
            })
            .await?;
        self.with(|metal| {
            metal.orders += 1;
            metal.writing = true;
        })?;
        if odd.silent {
            return None;
        }
        let progress =
            Progress { phase: Phase::Write, bytes_done: order.image_bytes / 2, bytes_total: order.image_bytes };
        self.ask(|desk| {
            let (t, p) = (token.clone(), progress.clone());
            async move { desk.progress(&t, p).await }
        })
        .await?;
        sleep(Duration::from_millis(5)).await;
        if odd.power_cut {
            self.with(|metal| metal.odd.power_cut = false)?;
            self.room.cut(&self.node);
            return None;
        }
        let report = match odd.agent_fails {
            Some((error, untouched)) => Report::Failed { error: error.to_owned(), untouched },
            None => Report::Installed(Installed {
                disk: "/dev/nvme0n1".to_owned(),
                disk_serial: Some("S1".to_owned()),
                bytes_fetched: order.image_bytes,
                bytes_reused: 0,
                bytes_written: order.image_bytes,
                bytes_zero: 0,
                seconds: 0.01,
                root_digest: if odd.wrong_digest { Digest([9; 32]) } else { order.root_digest },
            }),
        };
        self.with(|metal| metal.disk = Some((order.image.clone(), order.boot_token.clone())))?;
        self.with(|metal| metal.writing = false)?;
        self.ask(|desk| {
            let (t, r) = (token.clone(), report.clone());
            async move { desk.report(&t, r).await }
        })
        .await?;
        if !odd.stays_on {
            self.with(|_| ())?;
            self.room.cut(&self.node);
        }
        Some(())
    }

    async fn system(&self) -> Option<()> {
        let (odd, disk) = self.with(|metal| {
            let odd = metal.odd.clone();
            metal.odd.no_boot = odd.no_boot.saturating_sub(1);
            (odd, metal.disk.clone())
        })?;
        let (image, token) = disk?;
        if odd.no_boot > 0 {
            return None;
        }
        let booted = Booted {
            image: if odd.stale_system { "old@0".parse().unwrap() } else { image },
            hostname: self.node.clone(),
            root_device: "/dev/nvme0n1p2".to_owned(),
            boot_id: format!("boot-{}", self.life),
        };
        self.ask(|desk| {
            let (t, b) = (token.clone(), booted.clone());
            async move { desk.booted(&t, b).await }
        })
        .await
    }
}

/// One machine through its BMC.
struct Handle {
    room: Room,
    node: String,
}

impl Handle {
    fn reach(&self) -> Result<(), MachineError> {
        let flaky = self.room.with(&self.node, |metal| {
            let flaky = metal.odd.flaky;
            metal.odd.flaky = flaky.saturating_sub(1);
            flaky
        });
        if flaky > 0 { Err(error("unreachable", true)) } else { Ok(()) }
    }
}

fn error(kind: &str, transient: bool) -> MachineError {
    MachineError { kind: kind.to_owned(), message: format!("BMC: {kind}"), hint: "mend it".to_owned(), transient }
}

#[async_trait]
impl Machine for Handle {
    async fn look(&self) -> Result<Found, MachineError> {
        Ok(self.room.with(&self.node, |metal| Found {
            vendor: None,
            model: Some("double".to_owned()),
            serial: Some(self.node.clone()),
            uuid: None,
            power: if metal.on { Power::On } else { Power::Off },
            bios: None,
            bmc_firmware: None,
            cpus: None,
            memory_bytes: None,
            gpus: 0,
            drives: (metal.odd.drives.iter())
                .map(|serial| FoundDrive {
                    name: "d".to_owned(),
                    serial: Some((*serial).to_owned()),
                    ..FoundDrive::default()
                })
                .collect(),
            health: None,
            gaps: Vec::new(),
        }))
    }

    async fn power(&self) -> Result<Power, MachineError> {
        self.reach()?;
        Ok(if self.room.with(&self.node, |metal| metal.on) { Power::On } else { Power::Off })
    }

    async fn power_on(&self) -> Result<(), MachineError> {
        self.reach()?;
        self.room.start(&self.node);
        self.room.acted(&self.node, "on".to_owned());
        if self.room.with(&self.node, |metal| metal.odd.blind) {
            std::future::pending::<()>().await;
        }
        Ok(())
    }

    async fn power_off(&self) -> Result<(), MachineError> {
        self.reach()?;
        self.room.with(&self.node, |metal| {
            if metal.writing {
                metal.cut_while_writing += 1;
            }
        });
        self.room.cut(&self.node);
        self.room.acted(&self.node, "off".to_owned());
        Ok(())
    }

    async fn insert_media(&self, url: &str) -> Result<(), MachineError> {
        self.reach()?;
        if self.room.with(&self.node, |metal| metal.odd.no_media) {
            return Err(error("unsupported", false));
        }
        self.room.with(&self.node, |metal| metal.media = Some(url.to_owned()));
        self.room.acted(&self.node, "insert".to_owned());
        Ok(())
    }

    async fn eject_media(&self) -> Result<(), MachineError> {
        self.reach()?;
        self.room.with(&self.node, |metal| metal.media = None);
        self.room.acted(&self.node, "eject".to_owned());
        Ok(())
    }

    async fn boot_from(&self, from: BootFrom) -> Result<(), MachineError> {
        self.reach()?;
        self.room.with(&self.node, |metal| metal.boot = Some(from));
        self.room.acted(&self.node, format!("boot {from:?}"));
        Ok(())
    }

    async fn bios_differs(&self, wanted: &BiosSettings) -> Result<Vec<String>, MachineError> {
        self.reach()?;
        let now = self.room.with(&self.node, |metal| metal.bios.clone());
        Ok(wanted.iter().filter(|(name, value)| now.get(*name) != Some(value)).map(|(name, _)| name.clone()).collect())
    }

    async fn set_bios(&self, wanted: &BiosSettings) -> Result<(), MachineError> {
        self.reach()?;
        self.room
            .with(&self.node, |metal| metal.staged = if metal.odd.deaf_bios { None } else { Some(wanted.clone()) });
        self.room.acted(&self.node, "bios".to_owned());
        Ok(())
    }

    async fn identify(&self, on: bool) -> Result<(), MachineError> {
        self.reach()?;
        self.room.with(&self.node, |metal| metal.led = on);
        Ok(())
    }

    async fn close(&self) {}
}

#[async_trait]
impl Machines for Room {
    async fn connect(&self, node: &NodeSpec) -> Result<Box<dyn Machine>, MachineError> {
        let (refuses, slow) = self.with(node.name.as_str(), |metal| (metal.odd.refuses, metal.odd.slow));
        sleep(slow).await;
        match refuses {
            Some(kind) => Err(error(kind, false)),
            None => Ok(Box::new(Handle { room: self.clone(), node: node.name.to_string() })),
        }
    }

    async fn evidence(&self, node: &NodeSpec) -> BTreeMap<String, serde_json::Value> {
        let verbs = self.with(node.name.as_str(), |metal| metal.verbs.clone());
        [("requests".to_owned(), serde_json::json!(verbs))].into()
    }

    fn record_console(&self, node: &NodeSpec) {
        self.with(node.name.as_str(), |metal| {
            // As the real one: what is recorded already goes on.
            if metal.verbs.iter().all(|verb| verb != "record") {
                metal.verbs.push("record".to_owned());
            }
        });
    }
}

/// The catalogue: `name@1` exists, and nothing else.
pub(super) struct OneVersion;

#[async_trait]
impl Images for OneVersion {
    async fn find(&self, image: &ImageRef) -> Result<Option<ImageFacts>, BoxError> {
        let facts = ImageFacts { image: image.clone(), bytes: 1 << 30, root_digest: Digest([7; 32]) };
        Ok((image.version == "1").then_some(facts))
    }
}

/// Metadata that dies: the process is gone from the instant that it blows.
pub(super) struct Fuse {
    inner: Arc<dyn Meta>,
    commits_left: AtomicI64,
    /// Whether the last commit still reached the disk.
    last_is_kept: bool,
    blown: AtomicBool,
}

impl Fuse {
    pub(super) fn new(inner: Arc<dyn Meta>, commits_left: i64, last_is_kept: bool) -> Arc<Self> {
        let (commits_left, blown) = (AtomicI64::new(commits_left), AtomicBool::new(false));
        Arc::new(Self { inner, commits_left, last_is_kept, blown })
    }

    pub(super) fn blow(&self) {
        self.blown.store(true, Ordering::SeqCst);
    }

    pub(super) fn is_blown(&self) -> bool {
        self.blown.load(Ordering::SeqCst)
    }

    fn alive(&self) -> Result<(), MetaError> {
        if self.is_blown() { Err(MetaError::Closed) } else { Ok(()) }
    }
}

#[async_trait]
impl Meta for Fuse {
    async fn get(&self, key: &[u8]) -> Result<Option<Bytes>, MetaError> {
        self.alive()?;
        self.inner.get(key).await
    }

    async fn get_many(&self, keys: &[Vec<u8>]) -> Result<Vec<Option<Bytes>>, MetaError> {
        self.alive()?;
        self.inner.get_many(keys).await
    }

    async fn scan(&self, start: &[u8], end: &[u8], limit: usize) -> Result<Vec<(Bytes, Bytes)>, MetaError> {
        self.alive()?;
        self.inner.scan(start, end, limit).await
    }

    async fn scan_many(&self, ranges: &[Range]) -> Result<Vec<Vec<(Bytes, Bytes)>>, MetaError> {
        self.alive()?;
        self.inner.scan_many(ranges).await
    }

    async fn commit(&self, tx: Transaction) -> Result<(), MetaError> {
        self.alive()?;
        if self.commits_left.fetch_sub(1, Ordering::SeqCst) != 0 {
            return self.inner.commit(tx).await;
        }
        self.blow();
        if self.last_is_kept {
            self.inner.commit(tx).await?;
        }
        Err(MetaError::Closed)
    }

    async fn disk_bytes(&self) -> Result<u64, MetaError> {
        self.inner.disk_bytes().await
    }

    async fn close(&self) {}
}

/// A node's name.
pub(super) fn name(node: &str) -> NodeName {
    node.parse().unwrap()
}
