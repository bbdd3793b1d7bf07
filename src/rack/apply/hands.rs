//! What each step does to one machine. Every act looks first and does nothing where nothing is to do, so that a step
//! that was begun before the appliance died can simply be performed again.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;

use crate::job::token::{TokenKind, derive};
use crate::job::{Fault, Hands, Outcome, Step, StepError, TaskRow};
use crate::rack::apply::Pace;
use crate::rack::apply::evidence::EvidenceRoom;
use crate::rack::apply::live::Live;
use crate::rack::apply::tidy::end_left;
use crate::rack::machine::{BootFrom, Machine, MachineError, Machines, Power};
use crate::rack::spec::{NodeSpec, Timeouts};

/// How often the time between two looks is doubled at most.
const LOOKS_GROW: u32 = 3;
/// Time for reading what a failed machine's BMC shows.
const EVIDENCE_LIMIT: Duration = Duration::from_secs(40);
/// Time for all that leaves a failed machine safe.
const SAFE_LIMIT: Duration = Duration::from_secs(180);

/// The hands on one machine.
pub(super) struct RackHands {
    pub(super) node: NodeSpec,
    pub(super) timeouts: Timeouts,
    pub(super) pace: Pace,
    pub(super) media_url: String,
    pub(super) machines: Arc<dyn Machines>,
    pub(super) live: Arc<Live>,
    pub(super) machine: Option<Box<dyn Machine>>,
    pub(super) waiting: Waiting,
    /// Whether the last try succeeded: what this one finds was left so by these hands, and not by an appliance that died.
    pub(super) steady: bool,
    pub(super) evidence: Option<EvidenceRoom>,
}

/// Since when the present wait goes on, in this process.
#[derive(Default)]
pub(super) struct Waiting {
    place: Option<(Step, u32)>,
    since: Option<Instant>,
    looked: Option<Instant>,
    looks: u32,
    off: u32,
}

impl Waiting {
    fn since(&mut self, task: &TaskRow) -> Instant {
        if self.place != Some((task.step, task.restarts)) {
            *self = Self { place: Some((task.step, task.restarts)), ..Self::default() };
        }
        *self.since.get_or_insert_with(Instant::now)
    }

    /// Whether it is time to look at the machine again; at once at first, and then more and more seldom: a BMC is a small
    /// computer, and most of what is waited for takes minutes.
    fn look_is_due(&mut self, every: Duration) -> bool {
        let due = self.looked.is_none_or(|looked| looked.elapsed() >= every * 2u32.pow(self.looks.min(LOOKS_GROW)));
        if due {
            self.looked = Some(Instant::now());
            self.looks += 1;
        }
        due
    }
}

#[async_trait]
impl Hands for RackHands {
    async fn perform(&mut self, task: &TaskRow) -> Result<Outcome, StepError> {
        let since = self.waiting.since(task);
        let steady = std::mem::take(&mut self.steady);
        // Before the machine's first line, and again where an appliance that died has left off.
        if self.node.record_console && task.step >= Step::PowerOn {
            self.machines.record_console(&self.node);
        }
        let tried = match task.step {
            Step::PowerOff => self.power_off().await,
            Step::SetBios => self.set_bios().await,
            Step::CheckBios => self.check_bios().await,
            Step::InsertMedia => self.insert(task).await,
            Step::BootMedia => self.boot_from(BootFrom::Media).await,
            Step::PowerOn | Step::StartDisk => self.power_on(task, steady).await,
            Step::Install => return self.watch_install(task, since).await,
            Step::WaitOff => self.await_off(task, since).await,
            Step::EjectMedia => self.eject().await,
            Step::BootDisk => self.boot_from(BootFrom::Disk).await,
            Step::Boot => return self.watch_boot(since).await,
        };
        self.steady = matches!(tried, Ok(Outcome::Done));
        tried.map_err(|error| {
            // The next try begins with a new session.
            self.machine = None;
            StepError { transient: error.transient, fault: error.fault() }
        })
    }

    fn limit(&self, step: Step) -> Duration {
        match step {
            Step::Install => self.timeouts.install,
            // Waiting, and then forcing it.
            Step::WaitOff => self.timeouts.off + self.timeouts.bmc,
            // `watch_boot` keeps the time and tries once more.
            Step::Boot => self.timeouts.boot + self.timeouts.bmc,
            _ => self.timeouts.bmc,
        }
    }

    async fn make_safe(&mut self, task: &TaskRow) -> Vec<String> {
        let mut undone = Vec::new();
        if task.error.is_some() {
            undone.extend(self.keep_evidence(task).await);
        }
        let all = self.try_to_make_safe(task, &mut undone);
        if tokio::time::timeout(SAFE_LIMIT, all).await.is_err() {
            undone.push(format!("the BMC took more than {} s to leave the node safe", SAFE_LIMIT.as_secs()));
        }
        undone
    }

    fn trouble(&self, trouble: Option<&StepError>) {
        self.live.set_trouble(trouble.map(|error| error.fault.message.clone()));
    }

    async fn let_go(&mut self) {
        // Should this be dropped halfway, it begins again where it is called again.
        if let Some(machine) = &self.machine {
            machine.close().await;
        }
        self.machine = None;
        self.machines.end_recording(&self.node).await;
        end_left(&*self.machines, &self.node).await;
    }
}

impl RackHands {
    async fn machine(&mut self) -> Result<&dyn Machine, MachineError> {
        if self.machine.is_none() {
            self.machine = Some(self.machines.connect(&self.node).await?);
        }
        Ok(self.machine.as_deref().expect("it was connected just now"))
    }

    async fn power_off(&mut self) -> Result<Outcome, MachineError> {
        // It reads back what it did, and does nothing where nothing is to do.
        self.machine().await?.power_off().await?;
        self.live.start();
        Ok(Outcome::Done)
    }

    /// Switches the machine on, unless it was on before: an appliance that died after it had said so must not say it again to a
    /// machine whose agent has done its work meanwhile, and switched it off.
    async fn power_on(&mut self, task: &TaskRow, steady: bool) -> Result<Outcome, MachineError> {
        let ran = |live: &Live| task.step == Step::PowerOn && (task.ordered.is_some() || live.spoke());
        let live = self.live.clone();
        if ran(&live) {
            return Ok(Outcome::Done);
        }
        let machine = self.machine().await?;
        // In this order: who is seen off and has said nothing did not run. A step that follows another needs no look: it is the first
        // to switch the machine on.
        if !steady && (machine.power().await? == Power::On || ran(&live)) {
            return Ok(Outcome::Done);
        }
        self.machine().await?.power_on().await?;
        Ok(Outcome::Done)
    }

    async fn set_bios(&mut self) -> Result<Outcome, MachineError> {
        let wanted = self.node.bios.clone();
        self.machine().await?.set_bios(&wanted).await?;
        Ok(Outcome::Done)
    }

    /// The machine has started since: what was ordered holds, or never will.
    async fn check_bios(&mut self) -> Result<Outcome, MachineError> {
        let wanted = self.node.bios.clone();
        let open = self.machine().await?.bios_differs(&wanted).await?;
        if open.is_empty() {
            return Ok(Outcome::Done);
        }
        Err(MachineError {
            kind: "not-obeyed".to_owned(),
            message: format!("the BIOS did not take what it was told: {}", open.join(", ")),
            hint: "look at the BMC's tasks and log (`bedplate bmc tasks`, `bedplate bmc log`); a setting may depend on another one"
                .to_owned(),
            // Some BMCs show what their BIOS took only a while later.
            transient: true,
        })
    }

    async fn insert(&mut self, task: &TaskRow) -> Result<Outcome, MachineError> {
        let secret = task.secret.as_deref().unwrap_or_default();
        let url = format!("{}/media/{}/boot.iso", self.media_url, derive(secret, TokenKind::Media));
        self.machine().await?.insert_media(&url).await?;
        Ok(Outcome::Done)
    }

    async fn eject(&mut self) -> Result<Outcome, MachineError> {
        self.machine().await?.eject_media().await?;
        Ok(Outcome::Done)
    }

    async fn boot_from(&mut self, from: BootFrom) -> Result<Outcome, MachineError> {
        self.machine().await?.boot_from(from).await?;
        Ok(Outcome::Done)
    }

    /// The agent works; only its report ends this. What is looked at meanwhile is whether it still can.
    async fn watch_install(&mut self, task: &TaskRow, since: Instant) -> Result<Outcome, StepError> {
        let heard = self.live.heard().max(since);
        if task.ordered.is_none() && since.elapsed() >= self.timeouts.post {
            return Ok(Outcome::Back { step: Step::PowerOff, why: self.never_asked() });
        }
        if task.ordered.is_some() && heard.elapsed() >= self.timeouts.stall {
            return Err(self.silent(heard.elapsed()));
        }
        // Who has just spoken has power.
        let quiet = heard.elapsed() >= self.pace.watch;
        if !quiet {
            self.waiting.looks = 0;
        }
        if quiet && self.waiting.look_is_due(self.pace.watch) {
            // A BMC that does not answer now says nothing about the agent.
            match self.look_at_power().await {
                Some(Power::Off) => {
                    self.waiting.off += 1;
                    self.waiting.looks = 0;
                }
                Some(_) => self.waiting.off = 0,
                None => {}
            }
            // Once might be a report that is on its way: the agent reports, and then powers off.
            if self.waiting.off >= 2 {
                let why = "the node lost power before the agent reported".to_owned();
                return Ok(Outcome::Back { step: Step::PowerOff, why });
            }
        }
        Ok(Outcome::Wait(self.pace.watch))
    }

    async fn look_at_power(&mut self) -> Option<Power> {
        let looked = match self.machine().await {
            Ok(machine) => machine.power().await,
            Err(error) => Err(error),
        };
        match looked {
            Ok(power) => Some(power),
            Err(error) => {
                self.machine = None;
                tracing::debug!(node = %self.node.name, error = error.message, "the power state could not be read");
                None
            }
        }
    }

    fn never_asked(&self) -> String {
        format!(
            "within {} of power-on the agent never asked for its order: the node did not start from the boot image, or \
             cannot reach the appliance over the data network",
            seconds(self.timeouts.post)
        )
    }

    fn silent(&self, silence: Duration) -> StepError {
        let message = format!("the agent has been silent for {}", seconds(silence));
        let hint = "look at the node's console and at its link to the appliance, then apply again: what is already on \
                    the disk is not fetched twice";
        StepError { transient: false, fault: Fault { message, hint: hint.to_owned() } }
    }

    async fn await_off(&mut self, task: &TaskRow, since: Instant) -> Result<Outcome, MachineError> {
        // A system that already had its chance to report in will not power itself off.
        let tried_to_boot = task.passed.iter().any(|passed| passed.step == Step::Boot);
        let limit = if tried_to_boot { Duration::ZERO } else { self.timeouts.off };
        let poll = self.pace.poll;
        if !self.waiting.look_is_due(poll) {
            return Ok(Outcome::Wait(poll));
        }
        let machine = self.machine().await?;
        if machine.power().await? == Power::Off {
            return Ok(Outcome::Done);
        }
        if since.elapsed() >= limit {
            // The image is on the disk and read back, by the agent's report: nothing is lost by force.
            machine.power_off().await?;
        }
        Ok(Outcome::Wait(poll))
    }

    /// The installed system starts; only its word ends this.
    async fn watch_boot(&mut self, since: Instant) -> Result<Outcome, StepError> {
        if since.elapsed() >= self.timeouts.boot {
            let why = format!(
                "within {} of power-on the installed system did not report in: it did not start from its disk, or \
                 cannot reach the appliance",
                seconds(self.timeouts.boot)
            );
            // The agent's part is proven; only the start from the disk is tried again, from off.
            return Ok(Outcome::Back { step: Step::WaitOff, why });
        }
        Ok(Outcome::Wait(self.pace.watch.min(self.timeouts.boot)))
    }

    /// Keeps what tells why the node failed, while it still shows; answers where.
    async fn keep_evidence(&self, task: &TaskRow) -> Option<String> {
        let room = self.evidence.as_ref()?;
        let found = tokio::time::timeout(EVIDENCE_LIMIT, self.machines.evidence(&self.node)).await;
        match room.keep(task, found.unwrap_or_default()).await {
            Ok(folder) => Some(format!("what is known of it is in {}", folder.display())),
            Err(error) => {
                tracing::warn!(job = %task.job, node = %task.node, %error, "the evidence of a failed node could not be kept");
                None
            }
        }
    }

    async fn try_to_make_safe(&mut self, task: &TaskRow, undone: &mut Vec<String>) {
        let failed = task.error.is_some();
        let backoff = self.pace.backoff;
        let mut failures = 0;
        let machine = loop {
            match self.machine().await {
                Ok(machine) => break machine,
                Err(error) if error.transient && failures < 3 => {
                    failures += 1;
                    tokio::time::sleep(backoff.after(failures)).await;
                }
                Err(error) => {
                    undone.push(format!("the node could not be left safe: {}", error.message));
                    return;
                }
            }
        };
        // An agent whose job is over must not go on writing. An installed system may stay on, to be looked at.
        if task.step < Step::StartDisk
            && let Err(error) = off(machine).await
        {
            undone.push(format!("the node could not be switched off: {}", error.message));
        }
        if let Err(error) = machine.eject_media().await {
            undone.push(format!("the boot image could not be ejected: {}", error.message));
        }
        if failed && let Err(error) = machine.identify(true).await {
            undone.push(format!("the identify light could not be switched on: {}", error.message));
        }
    }
}

async fn off(machine: &dyn Machine) -> Result<(), MachineError> {
    if machine.power().await? == Power::Off { Ok(()) } else { machine.power_off().await }
}

fn seconds(duration: Duration) -> String {
    let seconds = duration.as_secs_f64();
    if seconds < 10.0 { format!("{seconds:.1} s") } else { format!("{seconds:.0} s") }
}
