//! What agents and installed systems say. A token leads to one node of one open job; what does not fit the step that the
//! node is in is refused; the journal's row, changed by compare-and-swap, is the only thing that believes anything.

use crate::format::boot_region::BootRegion;
use crate::format::order::{self, Booted, Installed, Order, Progress, Report};
use crate::job::token::{TokenKind, derive, is_token};
use crate::job::{Fault, JobError, Step, TaskRow, TaskState};
use crate::model::{ImageRef, Secret};
use crate::rack::apply::conductor::Conductor;
use crate::rack::apply::error::AgentError;
use crate::sys::clock;

impl Conductor {
    /// The order of the node whose token it is. It may be fetched again while its installation is open: that is how a
    /// node that lost power goes on.
    pub async fn order(&self, token: &str) -> Result<Order, AgentError> {
        let task = self.bearer(TokenKind::Install, token).await?;
        let now = clock::now();
        let task = self
            .accept(&task, |task| {
                if !task.install_open() {
                    return Err(refused(task, "there is no order for it"));
                }
                task.ordered = task.ordered.or(Some(now));
                task.touched = true;
                Ok(())
            })
            .await?;
        if let Some(live) = self.live(&task) {
            live.hear(None);
        }
        tracing::info!(job = %task.job, node = %task.node, "the agent fetched its order");
        let secret = task.secret.as_deref().ok_or(AgentError::Unknown)?;
        Ok(Order {
            version: order::VERSION,
            job: task.job.to_string(),
            node: task.node.clone(),
            image: task.work.image.clone(),
            image_bytes: task.work.image_bytes,
            root_digest: task.work.root_digest,
            disk: task.work.disk.clone(),
            wipe: task.work.wipe,
            boot_token: derive(secret, TokenKind::Boot),
        })
    }

    /// The user data for the seed of the node whose order it is; `None` where the job has none for it.
    pub async fn user_data(&self, token: &str) -> Result<Option<Secret>, AgentError> {
        let task = self.bearer(TokenKind::Install, token).await?;
        if !task.install_open() {
            return Err(refused_agent(&task, "no seed is to be written"));
        }
        self.journal().user_data(&task).await.map_err(AgentError::Internal)
    }

    /// Where the installation stands.
    pub async fn progress(&self, token: &str, progress: Progress) -> Result<(), AgentError> {
        let task = self.bearer(TokenKind::Install, token).await?;
        if !task.install_open() {
            return Err(refused_agent(&task, "progress is not expected"));
        }
        if let Some(live) = self.live(&task) {
            live.hear(Some(progress));
        }
        Ok(())
    }

    /// How the installation ended. The same report may come twice: the first answer may have been lost.
    pub async fn report(&self, token: &str, report: Report) -> Result<(), AgentError> {
        let task = self.bearer(TokenKind::Install, token).await?;
        let ended = match report {
            Report::Installed(installed) => self.installed(&task, installed).await,
            Report::Failed { error, untouched } => self.gave_up(&task, error, untouched).await,
        };
        if let Some(live) = self.live(&task) {
            // What is refused may come from an earlier start of the node, and says nothing about this one.
            if ended.is_ok() {
                live.hear(None);
            }
            live.wake.notify_one();
        }
        ended
    }

    async fn installed(&self, task: &TaskRow, installed: Installed) -> Result<(), AgentError> {
        if task.installed.as_ref().is_some_and(|before| before.root_digest == installed.root_digest) {
            return Ok(());
        }
        let wrong = installed.root_digest != task.work.root_digest;
        let accepted = self
            .accept(task, |task| {
                if !task.install_open() {
                    return Err(refused(task, "a report is not expected"));
                }
                task.touched = true;
                if wrong {
                    task.state = TaskState::Failing;
                    task.error = Some(Fault {
                        message: format!(
                            "the disk reads back as {} and {} is {}: the image is not on the disk",
                            installed.root_digest.short(),
                            task.work.image,
                            task.work.root_digest.short()
                        ),
                        hint: "the disk or its controller is lying; replace it, and apply again".to_owned(),
                    });
                } else {
                    task.installed = Some(installed.clone());
                }
                Ok(())
            })
            .await?;
        if wrong {
            return Err(refused_agent(&accepted, "the root digest is not the image's"));
        }
        tracing::info!(
            job = %task.job, node = %task.node, disk = installed.disk, bytes_fetched = installed.bytes_fetched,
            bytes_written = installed.bytes_written, seconds = installed.seconds, "the agent installed the image"
        );
        Ok(())
    }

    async fn gave_up(&self, task: &TaskRow, error: String, untouched: bool) -> Result<(), AgentError> {
        self.accept(task, |task| {
            if !task.install_open() {
                return Err(refused(task, "a report is not expected"));
            }
            task.state = TaskState::Failing;
            // An earlier try of the same job may have written.
            task.touched = !(untouched && task.restarts == 0);
            task.error = Some(Fault {
                message: format!("the agent gave up: {error}"),
                hint: "mend what it names, then apply again".to_owned(),
            });
            Ok(())
        })
        .await?;
        tracing::error!(job = %task.job, node = %task.node, error, "the agent gave up");
        Ok(())
    }

    /// The installed system's word: the only proof of a boot. The same word may come twice.
    pub async fn booted(&self, token: &str, booted: Booted) -> Result<(), AgentError> {
        let task = self.bearer(TokenKind::Boot, token).await?;
        if task.booted.as_ref() == Some(&booted) {
            return Ok(());
        }
        if task.secret.is_none() {
            return Err(AgentError::Unknown);
        }
        let accepted = self
            .accept(&task, |task| {
                let open = task.state == TaskState::Running && task.step.system_may_run() && task.installed.is_some();
                if !open {
                    return Err(refused(task, "an installed system is not expected"));
                }
                if booted.image == task.work.image {
                    task.booted = Some(booted.clone());
                } else {
                    task.state = TaskState::Failing;
                    task.error = Some(Fault {
                        message: format!(
                            "it runs {} from {}, and {} was installed",
                            booted.image, booted.root_device, task.work.image
                        ),
                        hint: "it started from another disk: correct its boot order, or wipe the stale system, and \
                               apply again"
                            .to_owned(),
                    });
                }
                Ok(())
            })
            .await?;
        if let Some(live) = self.live(&task) {
            live.hear(None);
            live.wake.notify_one();
        }
        if accepted.booted.is_none() {
            return Err(refused_agent(&accepted, "the image is not the one that was installed"));
        }
        tracing::info!(job = %task.job, node = %task.node, image = %booted.image, "the installed system reported in");
        Ok(())
    }

    /// What to lay into the boot image that is fetched under this id.
    pub async fn boot_region(&self, media_id: &str) -> Result<BootRegion, AgentError> {
        let task = self.bearer(TokenKind::Media, media_id).await?;
        let wanted = task.state == TaskState::Running && task.step < Step::WaitOff && task.installed.is_none();
        let secret = task.secret.as_deref().filter(|_| wanted).ok_or(AgentError::Unknown)?;
        Ok(BootRegion {
            url: self.desk().public_url.clone(),
            certificate_pin: self.desk().certificate_pin.text(),
            token: derive(secret, TokenKind::Install),
            node: task.node.to_string(),
        })
    }

    /// The one image that an agent with this token may fetch now, and whose packs it may read.
    pub async fn pull_image(&self, token: &str) -> Result<ImageRef, AgentError> {
        let task = self.bearer(TokenKind::Install, token).await?;
        if task.install_open() { Ok(task.work.image) } else { Err(refused_agent(&task, "no image is to be pulled")) }
    }

    /// The open task whose token it is.
    async fn bearer(&self, kind: TokenKind, token: &str) -> Result<TaskRow, AgentError> {
        let Some(bearer) = self.tokens().find(kind, token) else {
            let starting = || AgentError::Internal(JobError::Refused("the appliance is still starting".to_owned()));
            return Err(if self.is_resumed() { AgentError::Unknown } else { starting() });
        };
        let task = self.journal().task(bearer.job, &bearer.node).await.map_err(AgentError::Internal)?;
        match &task.secret {
            Some(secret) if is_token(secret, kind, token) => Ok(task),
            // The installed system of a task that is over may repeat itself; `booted` sees to it that it does no more.
            None if kind == TokenKind::Boot => Ok(task),
            _ => Err(AgentError::Unknown),
        }
    }

    async fn accept(
        &self,
        task: &TaskRow,
        change: impl Fn(&mut TaskRow) -> Result<(), JobError> + Send + Sync,
    ) -> Result<TaskRow, AgentError> {
        let changed = self.journal().change(task.job, &task.node, change).await.map_err(|error| match error {
            JobError::Refused(why) => AgentError::Refused(why),
            other => AgentError::Internal(other),
        })?;
        if let Some(live) = self.live(task) {
            live.hear(None);
        }
        Ok(changed)
    }
}

fn refused(task: &TaskRow, why: &str) -> JobError {
    JobError::Refused(format!("{} is in the step \"{}\": {why}", task.node, task.step))
}

fn refused_agent(task: &TaskRow, why: &str) -> AgentError {
    AgentError::Refused(format!("{} is in the step \"{}\": {why}", task.node, task.step))
}
