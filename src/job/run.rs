//! The loop that drives one task from queued to over. It decides nothing about machines: it journals the step, asks
//! the hands to perform it, waits, tries again, gives up in time, and leaves the machine safe when it did.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout_at};

use crate::job::record::{Fault, Holding, NodeRow, Quarantine, TaskRow, TaskState};
use crate::job::retry::Backoff;
use crate::job::{JobError, Journal, Step};
use crate::model::{JobId, NodeName};
use crate::sys::clock;

/// How one try of a step ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The step is done, and was read back.
    Done,
    /// Not yet: look again after this long, or as soon as something was heard from the node.
    Wait(Duration),
    /// The work must go back to an earlier step.
    Back {
        /// Which.
        step: Step,
        /// Why, for people.
        why: String,
    },
}

/// Why a try of a step failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepError {
    /// Whether trying again may help.
    pub transient: bool,
    /// What happened and what to do.
    pub fault: Fault,
}

/// What performs the steps on one node.
#[async_trait]
pub trait Hands: Send {
    /// Tries the step that the task is in, once. Must do nothing that was already done.
    async fn perform(&mut self, task: &TaskRow) -> Result<Outcome, StepError>;
    /// How long the step may take in all.
    fn limit(&self, step: Step) -> Duration;
    /// Leaves the machine of a failed or cancelled task safe; returns what could not be done.
    async fn make_safe(&mut self, task: &TaskRow) -> Vec<String>;
    /// Called when a try failed and will be repeated (`None`: the trouble is over).
    fn trouble(&self, trouble: Option<&StepError>);
    /// Lets go of the machine: the task is over.
    async fn let_go(&mut self);
}

/// One task and what its loop needs.
pub struct Drive {
    /// The journal.
    pub journal: Journal,
    /// The job.
    pub job: JobId,
    /// The node.
    pub node: NodeName,
    /// Rung when something was heard from the node, or when the task was cancelled.
    pub wake: Arc<Notify>,
    /// Waits between tries.
    pub backoff: Backoff,
}

/// Most times that the work may go back to an earlier step before the task fails.
pub const RESTARTS_MAX: u32 = 2;

impl Drive {
    /// Drives the task until it is over. Dropping the future at any await loses nothing: the journal knows.
    pub async fn run(&self, hands: &mut dyn Hands) {
        let mut failures = 0;
        while let Err(error) = self.advance(hands).await {
            failures += 1;
            tracing::error!(job = %self.job, node = %self.node, error = &error as &dyn std::error::Error, "job stalled: the journal failed");
            sleep(self.backoff.after(failures)).await;
        }
        hands.let_go().await;
    }

    async fn advance(&self, hands: &mut dyn Hands) -> Result<(), JobError> {
        let mut clock = StepClock::default();
        loop {
            let task = self.journal.task(self.job, &self.node).await?;
            match task.state {
                TaskState::Imaged | TaskState::Failed | TaskState::Cancelled => return Ok(()),
                TaskState::Queued => self.enter(&task, Step::PowerOff, None).await?,
                TaskState::Failing | TaskState::Cancelling => self.leave_safe(hands, &task).await?,
                TaskState::Running if task.booted.is_some() => self.imaged().await?,
                TaskState::Running if task.installed.is_some() && task.step.agent_may_run() => {
                    self.enter(&task, Step::WaitOff, None).await?;
                }
                TaskState::Running => self.step(hands, &task, &mut clock).await?,
            }
        }
    }

    async fn step(&self, hands: &mut dyn Hands, task: &TaskRow, clock: &mut StepClock) -> Result<(), JobError> {
        let deadline = clock.deadline(task, hands.limit(task.step));
        let tried = tokio::select! {
            biased;
            tried = timeout_at(deadline, hands.perform(task)) => tried,
            () = self.overtaken(task) => return Ok(()),
        };
        match tried {
            Ok(Ok(Outcome::Done)) => {
                hands.trouble(None);
                match task.work.after(task.step) {
                    Some(next) => self.enter(task, next, None).await,
                    None => Ok(()),
                }
            }
            Ok(Ok(Outcome::Wait(pause))) => {
                clock.failures = 0;
                if Instant::now() >= deadline {
                    return self.fail(task, too_long(task.step, hands.limit(task.step), clock)).await;
                }
                self.pause(pause.min(deadline - Instant::now())).await;
                Ok(())
            }
            Ok(Ok(Outcome::Back { step, why })) => {
                if task.restarts >= RESTARTS_MAX {
                    let message = format!("{why}; it was tried {} times", RESTARTS_MAX + 1);
                    let hint = "look at the node's console, mend it, and apply again".to_owned();
                    return self.fail(task, Fault { message, hint }).await;
                }
                self.enter(task, step, Some(why)).await
            }
            Ok(Err(error)) if error.transient => {
                hands.trouble(Some(&error));
                clock.failures += 1;
                let pause = self.backoff.after(clock.failures);
                tracing::warn!(job = %self.job, node = %self.node, step = %task.step, error = error.fault.message, "step failed, trying again");
                clock.last = Some(error.fault);
                if Instant::now() + pause >= deadline {
                    return self.fail(task, too_long(task.step, hands.limit(task.step), clock)).await;
                }
                self.pause(pause).await;
                Ok(())
            }
            Ok(Err(error)) => self.fail(task, error.fault).await,
            Err(_) => self.fail(task, too_long(task.step, hands.limit(task.step), clock)).await,
        }
    }

    /// Waits until the node has reported what the present try is for: a BMC that shows it as off must not be told to start it again when
    /// it has said itself that it ran. Whoever cancels waits for the try, because no request to a BMC may be under way when the node is
    /// made safe.
    async fn overtaken(&self, seen: &TaskRow) {
        loop {
            self.wake.notified().await;
            let told = |task: &TaskRow| (task.installed.is_some(), task.booted.is_some());
            match self.journal.task(self.job, &self.node).await {
                Ok(now) if told(&now) == told(seen) => {}
                // Whoever reads it next tells what is wrong with the journal.
                _ => return,
            }
        }
    }

    async fn pause(&self, pause: Duration) {
        tokio::select! {
            () = sleep(pause) => {}
            () = self.wake.notified() => {}
        }
    }

    /// Journals that the task goes to `next`; does nothing when the task moved meanwhile.
    async fn enter(&self, seen: &TaskRow, next: Step, back: Option<String>) -> Result<(), JobError> {
        let change = |task: &mut TaskRow| {
            still(task, seen)?;
            if let Some(why) = &back {
                task.restarts += 1;
                task.note(format!("{why}; going back to: {next}"));
                task.ordered = None;
            }
            task.enter(next, clock::now());
            Ok(())
        };
        // From the moment that the agent may run, nobody knows what the disk holds.
        let forget = |task: &TaskRow, row: &mut NodeRow| {
            row.holds = None;
            row.last_job = task.job;
        };
        let of_node: Option<crate::job::journal::NodeChange<'_>> =
            if next == Step::PowerOn { Some(&forget) } else { None };
        let entered = match self.journal.change_with_node(self.job, &self.node, change, of_node).await {
            Err(JobError::Refused(_)) => return Ok(()),
            other => other?,
        };
        tracing::info!(job = %self.job, node = %self.node, step = %entered.step, "step begins");
        Ok(())
    }

    async fn fail(&self, seen: &TaskRow, fault: Fault) -> Result<(), JobError> {
        let change = |task: &mut TaskRow| {
            still(task, seen)?;
            task.state = TaskState::Failing;
            task.since = clock::now();
            task.error = Some(fault.clone());
            Ok(())
        };
        match self.journal.change(self.job, &self.node, change).await {
            Ok(_) => {
                tracing::error!(job = %self.job, node = %self.node, step = %seen.step, error = fault.message, "node failed");
                Ok(())
            }
            Err(JobError::Refused(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn leave_safe(&self, hands: &mut dyn Hands, task: &TaskRow) -> Result<(), JobError> {
        let undone = hands.make_safe(task).await;
        let failed = task.state == TaskState::Failing;
        let now = clock::now();
        let change = |task: &mut TaskRow| {
            for what in &undone {
                task.note(what.clone());
            }
            task.state = if failed { TaskState::Failed } else { TaskState::Cancelled };
            task.since = now;
            Ok(())
        };
        let set_aside = |task: &TaskRow, row: &mut NodeRow| {
            row.last_job = task.job;
            row.bmc.clone_from(&task.bmc);
            row.holds = if task.touched { None } else { task.held.clone() };
            if let (true, Some(cause)) = (failed, &task.error) {
                row.quarantine = Some(Quarantine { since: now, job: task.job, cause: cause.clone() });
            }
        };
        self.journal.change_with_node(self.job, &self.node, change, Some(&set_aside)).await?;
        self.close().await
    }

    async fn imaged(&self) -> Result<(), JobError> {
        let now = clock::now();
        let change = |task: &mut TaskRow| {
            if task.state != TaskState::Running {
                return Err(JobError::Refused("the task has moved on".to_owned()));
            }
            // A node may speak before its BMC has shown that it was started: it booted all the same, be it in no time.
            if task.step != Step::Boot {
                task.enter(Step::Boot, now);
            }
            task.enter(Step::Boot, now);
            task.state = TaskState::Imaged;
            Ok(())
        };
        let holds = |task: &TaskRow, row: &mut NodeRow| {
            *row = known_after(task, row.clone());
        };
        match self.journal.change_with_node(self.job, &self.node, change, Some(&holds)).await {
            Err(JobError::Refused(_)) => return Ok(()),
            other => other?,
        };
        tracing::info!(job = %self.job, node = %self.node, "node runs its image");
        self.close().await
    }

    async fn close(&self) -> Result<(), JobError> {
        self.journal.close_if_over(self.job, clock::now()).await.map(|_| ())
    }
}

/// What is known of a node once its installed system has reported in.
fn known_after(task: &TaskRow, mut row: NodeRow) -> NodeRow {
    row.slot = task.slot;
    row.bmc.clone_from(&task.bmc);
    row.machine.clone_from(&task.machine);
    row.quarantine = None;
    row.last_job = task.job;
    row.last_seconds = task.passed.first().map(|first| task.since.0.saturating_sub(first.since.0) / 1000);
    if let (Some(booted), Some(installed)) = (&task.booted, &task.installed) {
        row.holds = Some(Holding {
            image: booted.image.clone(),
            root_digest: installed.root_digest,
            since: task.since,
            job: task.job,
            hostname: booted.hostname.clone(),
            root_device: booted.root_device.clone(),
            boot_id: booted.boot_id.clone(),
            disk: installed.disk.clone(),
            disk_serial: installed.disk_serial.clone(),
            user_data: task.work.user_data,
        });
    }
    row
}

fn still(task: &TaskRow, seen: &TaskRow) -> Result<(), JobError> {
    if task.state == seen.state && task.step == seen.step && task.restarts == seen.restarts {
        Ok(())
    } else {
        Err(JobError::Refused("the task has moved on".to_owned()))
    }
}

fn too_long(step: Step, limit: Duration, clock: &StepClock) -> Fault {
    let seconds = limit.as_secs_f64();
    match &clock.last {
        Some(last) => Fault {
            message: format!("\"{step}\" did not succeed within {seconds:.0} s; the last error: {}", last.message),
            hint: last.hint.clone(),
        },
        None => Fault {
            message: format!("\"{step}\" did not finish within {seconds:.0} s"),
            hint:
                "look at the node's console; if the machine is only slow, raise the time-out in the spec's [timeouts]"
                    .to_owned(),
        },
    }
}

/// How long the present step has been tried by this process. An appliance that was down does not use up a node's time.
#[derive(Default)]
struct StepClock {
    step: Option<(Step, u32)>,
    began: Option<Instant>,
    failures: u32,
    last: Option<Fault>,
}

impl StepClock {
    fn deadline(&mut self, task: &TaskRow, limit: Duration) -> Instant {
        let now = Instant::now();
        if self.step != Some((task.step, task.restarts)) {
            *self = Self { step: Some((task.step, task.restarts)), began: Some(now), failures: 0, last: None };
        }
        *self.began.get_or_insert(now) + limit
    }
}
