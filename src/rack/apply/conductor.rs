//! The conductor: makes a plan, journals a job, and keeps one worker a node until the job is over. It holds nothing
//! that a restart would miss: the journal has the jobs, and the workers are started again from it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::job::record::{JobRow, NodeRow, TaskRow, TaskState, Work};
use crate::job::run::Drive;
use crate::job::token::{TokenIndex, fresh_secret};
use crate::job::{Hands as _, JobError, JobView, Journal, NodeView, Step};
use crate::meta::Meta;
use crate::model::{Digest, ImageRef, JobId, NodeName};
use crate::rack::apply::error::RackError;
use crate::rack::apply::evidence::EvidenceRoom;
use crate::rack::apply::hands::{RackHands, Waiting};
use crate::rack::apply::live::{Live, LiveTasks};
use crate::rack::apply::waves::Waves;
use crate::rack::apply::{ConductorConfig, Images};
use crate::rack::machine::{Found, Machines};
use crate::rack::plan::{self, ImageFacts, Plan};
use crate::rack::spec::{NodeSpec, Spec};
use crate::rack::survey::{self, Survey};
use crate::sys::clock;
use crate::sys::entropy;
use crate::sys::worker::Workers;

/// How long the session at a BMC may take to end when the appliance stops.
const LET_GO: Duration = Duration::from_secs(5);
/// How long a plan's survey is good for the job that follows it. Every step looks again before it acts.
const PLAN_HOLDS: Duration = Duration::from_secs(60);

/// Plans racks, and runs their jobs. Clones share one conductor.
#[derive(Clone)]
pub struct Conductor {
    inner: Arc<Inner>,
}

struct Inner {
    journal: Journal,
    images: Arc<dyn Images>,
    machines: Arc<dyn Machines>,
    workers: Workers,
    desk: ConductorConfig,
    tokens: TokenIndex,
    live: LiveTasks,
    /// The waves of the jobs that are under way.
    waves: Mutex<BTreeMap<JobId, Weak<Waves>>>,
    /// The last plan's survey: whoever applies what was just planned does not wait for another.
    planned: Mutex<Option<Planned>>,
    /// Whether the open jobs were taken up: until then an unknown token may yet be a good one.
    resumed: AtomicBool,
}

impl Conductor {
    /// A conductor over this metadata. Call [`Conductor::resume_all`] once, before anything else.
    #[must_use]
    pub fn new(
        meta: Arc<dyn Meta>,
        images: Arc<dyn Images>,
        machines: Arc<dyn Machines>,
        workers: &Workers,
        desk: ConductorConfig,
    ) -> Self {
        let inner = Inner {
            journal: Journal::new(meta),
            images,
            machines,
            workers: workers.clone(),
            desk,
            tokens: TokenIndex::default(),
            live: LiveTasks::default(),
            waves: Mutex::default(),
            planned: Mutex::default(),
            resumed: AtomicBool::new(false),
        };
        Self { inner: Arc::new(inner) }
    }

    pub(super) fn journal(&self) -> &Journal {
        &self.inner.journal
    }

    pub(super) fn tokens(&self) -> &TokenIndex {
        &self.inner.tokens
    }

    pub(super) fn is_resumed(&self) -> bool {
        self.inner.resumed.load(Ordering::Acquire)
    }

    pub(super) fn workers(&self) -> &Workers {
        &self.inner.workers
    }

    pub(super) fn machines(&self) -> &dyn Machines {
        &*self.inner.machines
    }

    pub(super) fn desk(&self) -> &ConductorConfig {
        &self.inner.desk
    }

    pub(super) fn live(&self, task: &TaskRow) -> Option<Arc<Live>> {
        self.inner.live.find(task.job, &task.node)
    }

    /// What must happen so that these nodes (all where `only` is empty) are as the spec says. Touches nothing; fails
    /// where a node cannot be worked on.
    pub async fn plan(&self, spec: &Spec, only: &[NodeName]) -> Result<Plan, RackError> {
        let surveyed = self.survey(spec, only).await?;
        let decision = self.decide(spec, only, surveyed.clone()).await?;
        let planned = Planned { at: Instant::now(), spec: spec.clone(), only: only.to_vec(), survey: surveyed };
        *self.inner.planned.lock().unwrap_or_else(PoisonError::into_inner) = Some(planned);
        Ok(decision.plan)
    }

    async fn survey(&self, spec: &Spec, only: &[NodeName]) -> Result<Survey, RackError> {
        let nodes = spec.select(only).map_err(RackError::Spec)?;
        Ok(survey::survey(&spec.name, &nodes, &*self.inner.machines).await)
    }

    /// The survey of the plan that was just made of the very same; used once.
    fn just_surveyed(&self, spec: &Spec, only: &[NodeName]) -> Option<Survey> {
        let planned = self.inner.planned.lock().unwrap_or_else(PoisonError::into_inner).take()?;
        let same = planned.spec == *spec && planned.only == only && planned.at.elapsed() <= PLAN_HOLDS;
        same.then_some(planned.survey)
    }

    async fn decide(&self, spec: &Spec, only: &[NodeName], survey: Survey) -> Result<Decision, RackError> {
        let nodes = spec.select(only).map_err(RackError::Spec)?;
        let images = self.facts(&nodes).await?;
        let mut known = BTreeMap::new();
        for node in &nodes {
            if let Some(row) = self.journal().node(&spec.name, &node.name).await.map_err(RackError::Job)? {
                known.insert(node.name.clone(), row);
            }
        }
        let plan = plan::plan(&nodes, &survey, &known, &images, &spec.user_data, spec.parallel, spec.canaries);
        let problems: Vec<_> = plan.problems().map(|(node, problem)| (node.clone(), problem.clone())).collect();
        if !problems.is_empty() {
            return Err(RackError::Problems(problems));
        }
        Ok(Decision { plan, survey, known, images })
    }

    async fn facts(&self, nodes: &[&NodeSpec]) -> Result<BTreeMap<ImageRef, ImageFacts>, RackError> {
        let mut facts = BTreeMap::new();
        for node in nodes {
            if !facts.contains_key(&node.image)
                && let Some(found) = self.inner.images.find(&node.image).await.map_err(RackError::Images)?
            {
                facts.insert(node.image.clone(), found);
            }
        }
        Ok(facts)
    }

    /// Journals a job that makes these nodes (all where `only` is empty) as the spec says, and starts it. Nothing is
    /// touched where a node cannot be worked on, or another job works on one. Where nothing must change, the job is
    /// over at once. A caller that goes away does not stop it halfway.
    pub async fn apply(&self, spec: Spec, only: &[NodeName]) -> Result<JobId, RackError> {
        let (tell, told) = oneshot::channel();
        let (conductor, only, stop) = (self.clone(), only.to_vec(), self.inner.workers.token());
        self.inner.workers.spawn("apply", async move {
            tokio::select! {
                () = stop.cancelled() => {}
                // Nobody is left to tell when the caller has gone away.
                begun = conductor.begin(spec, &only) => drop(tell.send(begun)),
            }
        });
        let stopped = || RackError::Job(JobError::Refused("the appliance is stopping; apply again".to_owned()));
        told.await.unwrap_or_else(|_| Err(stopped()))
    }

    async fn begin(&self, mut spec: Spec, only: &[NodeName]) -> Result<JobId, RackError> {
        for node in spec.select(only).map_err(RackError::Spec)? {
            if let Some(job) = self.journal().holder(&node.identity()).await.map_err(RackError::Job)? {
                return Err(RackError::Job(JobError::Busy { node: node.name.clone(), job }));
            }
        }
        let surveyed = match self.just_surveyed(&spec, only) {
            Some(surveyed) => surveyed,
            None => self.survey(&spec, only).await?,
        };
        let decision = self.decide(&spec, only, surveyed).await?;
        let id = JobId(entropy::fresh_id());
        let tasks = decision.tasks(&spec, id);
        // By its digest, beside the job: the spec's row is kept for good, and tells no secrets.
        let texts = std::mem::take(&mut spec.user_data).into_values().map(|data| (data.sha256(), data.text().clone()));
        let wanted = |digest: &Digest| tasks.iter().any(|task| task.work.user_data.as_ref() == Some(digest));
        let texts = texts.filter(|(digest, _)| wanted(digest)).collect();
        let now = clock::now();
        let changing = |node: &NodeName| tasks.iter().any(|task| task.node == *node);
        let job = JobRow {
            id,
            rack: spec.name.clone(),
            created: now,
            ended: tasks.is_empty().then_some(now),
            nodes: tasks.iter().map(|task| task.node.clone()).collect(),
            paused: false,
            unchanged: decision.plan.nodes.iter().map(|n| n.node.clone()).filter(|node| !changing(node)).collect(),
            spec: serde_json::to_value(&spec).expect("a spec is plain data, which always becomes JSON"),
        };
        self.journal().begin(&job, &tasks, &texts).await.map_err(RackError::Job)?;
        tracing::info!(job = %id, rack = spec.name, nodes = tasks.len(), "job begins");
        self.start(&spec, tasks, false);
        Ok(id)
    }

    /// Takes every unfinished job up where it was. Call once at start; until then agents are told to ask again.
    pub async fn resume_all(&self) -> Result<(), RackError> {
        for id in self.journal().open_jobs().await.map_err(RackError::Job)? {
            let job = self.journal().job(id).await.map_err(RackError::Job)?;
            let tasks = self.journal().tasks(id).await.map_err(RackError::Job)?;
            let spec: Spec = serde_json::from_value(job.spec).map_err(|error| {
                let why =
                    format!("the spec of job {id} cannot be read back ({error}); cancel the job, and apply again");
                RackError::Job(JobError::Refused(why))
            })?;
            tracing::info!(job = %id, rack = spec.name, "job goes on");
            self.start(&spec, tasks, job.paused);
            self.journal().close_if_over(id, clock::now()).await.map_err(RackError::Job)?;
        }
        self.inner.resumed.store(true, Ordering::Release);
        self.tidy();
        Ok(())
    }

    /// Starts the workers of the tasks that are not over.
    fn start(&self, spec: &Spec, mut tasks: Vec<TaskRow>, paused: bool) {
        let waves = Arc::new(Waves::new(spec, &tasks, paused));
        if let Some(task) = tasks.first() {
            let mut all = self.inner.waves.lock().unwrap_or_else(PoisonError::into_inner);
            all.retain(|_, waves| waves.strong_count() > 0);
            all.insert(task.job, Arc::downgrade(&waves));
        }
        // Those that were already being worked on go first.
        tasks.sort_by_key(|task| task.state == TaskState::Queued);
        for task in tasks.into_iter().filter(|task| !task.state.is_over()) {
            let Some(node) = spec.node(&task.node).cloned() else { continue };
            let Some(live) = self.inner.live.take_up(task.job, &task.node) else { continue };
            self.tokens().add(&task);
            let hands = RackHands {
                node,
                timeouts: spec.timeouts,
                pace: self.desk().pace,
                media_url: self.desk().media_url.clone(),
                machines: self.inner.machines.clone(),
                live: live.clone(),
                machine: None,
                waiting: Waiting::default(),
                steady: false,
                evidence: self.evidence_room(),
            };
            let drive = Drive {
                journal: self.journal().clone(),
                job: task.job,
                node: task.node,
                wake: live.wake.clone(),
                backoff: self.desk().pace.backoff,
            };
            let queued = task.state == TaskState::Queued;
            let (conductor, waves, stop) = (self.clone(), waves.clone(), self.inner.workers.token());
            self.inner.workers.spawn("job", async move {
                let mut hands = hands;
                tokio::select! {
                    () = stop.cancelled() => {}
                    () = conductor.drive(drive, &mut hands, &waves, queued) => {}
                }
                // An appliance that stops leaves no session behind.
                drop(timeout(LET_GO, hands.let_go()).await);
            });
        }
    }

    async fn drive(&self, drive: Drive, hands: &mut RackHands, waves: &Waves, queued: bool) {
        let turn = waves.turn(&hands.node, queued).await;
        match &turn {
            Ok(_) => drive.run(hands).await,
            Err(why) => self.leave_alone(&drive, why).await,
        }
        match self.journal().task(drive.job, &drive.node).await {
            Ok(task) => waves.ended(&drive.node, task.state),
            Err(error) => {
                tracing::error!(job = %drive.job, node = %drive.node, %error, "how the node ended could not be read");
                waves.ended(&drive.node, TaskState::Failed);
            }
        }
        // Not before its end is known: the next must not begin on a failure that nobody has counted.
        drop(turn);
        self.tokens().retire(drive.job, &drive.node);
        self.inner.live.let_go(drive.job, &drive.node);
    }

    /// Ends the task of a node that was not begun, because others failed. It stays as it was.
    async fn leave_alone(&self, drive: &Drive, why: &str) {
        let change = |task: &mut TaskRow| {
            if task.state != TaskState::Queued {
                return Err(JobError::Refused("it has begun".to_owned()));
            }
            task.state = TaskState::Cancelled;
            task.since = clock::now();
            task.note(format!("left as it was: {why}"));
            Ok(())
        };
        let left = async {
            match self.journal().change(drive.job, &drive.node, change).await {
                Ok(_) | Err(JobError::Refused(_)) => {}
                Err(error) => return Err(error),
            }
            self.journal().close_if_over(drive.job, clock::now()).await.map(drop)
        };
        if let Err(error) = left.await {
            tracing::error!(job = %drive.job, node = %drive.node, %error, "a node that was left alone could not be journalled");
        }
    }

    /// One job.
    pub async fn job(&self, id: JobId) -> Result<JobView, RackError> {
        let job = self.journal().job(id).await.map_err(RackError::Job)?;
        self.view(job).await
    }

    async fn view(&self, job: JobRow) -> Result<JobView, RackError> {
        let tasks = self.journal().tasks(job.id).await.map_err(RackError::Job)?;
        let mut nodes: Vec<NodeView> = tasks.iter().map(|task| self.node_view(task)).collect();
        nodes.sort_by_key(|node| job.nodes.iter().position(|name| *name == node.node));
        Ok(JobView::of(&job, nodes))
    }

    fn node_view(&self, task: &TaskRow) -> NodeView {
        let mut view = NodeView::of(task);
        if let Some(live) = self.live(task) {
            view.trouble = live.trouble();
            if let (Some(progress), true) = (live.progress(), task.install_open()) {
                view.phase = Some(progress.phase);
                view.bytes_done = progress.bytes_done;
                view.bytes_total = progress.bytes_total;
            }
        }
        view
    }

    /// The last jobs, of one rack or of all, newest first; at most `limit`.
    pub async fn jobs(&self, rack: Option<&str>, limit: usize) -> Result<Vec<JobView>, RackError> {
        let mut views = Vec::new();
        for job in self.journal().jobs(rack, limit).await.map_err(RackError::Job)? {
            views.push(self.view(job).await?);
        }
        Ok(views)
    }

    /// What is known of every node, over all jobs.
    pub async fn nodes(&self) -> Result<Vec<NodeRow>, RackError> {
        self.journal().nodes().await.map_err(RackError::Job)
    }

    /// Whether somebody drives this task, or waits to.
    #[cfg(test)]
    pub(super) fn is_taken_up(&self, job: JobId, node: &NodeName) -> bool {
        self.inner.live.find(job, node).is_some()
    }

    fn tell_waves(&self, id: JobId, paused: bool) {
        let waves = self.inner.waves.lock().unwrap_or_else(PoisonError::into_inner).get(&id).and_then(Weak::upgrade);
        if let Some(waves) = waves {
            waves.pause(paused);
        }
    }

    fn evidence_room(&self) -> Option<EvidenceRoom> {
        self.desk().evidence.clone().map(EvidenceRoom)
    }

    /// What was kept of a failed node, by name; none where nothing is.
    pub async fn evidence(&self, job: JobId, node: &NodeName) -> Result<Option<BTreeMap<String, Value>>, RackError> {
        let Some(room) = self.evidence_room() else { return Ok(None) };
        room.read(job, node).await.map_err(RackError::Evidence)
    }

    /// Pauses a job, or lets it go on: nodes that were begun go on all the same, and while it is paused no other is begun, not by an
    /// appliance that was restarted either.
    pub async fn pause(&self, id: JobId, paused: bool) -> Result<JobView, RackError> {
        self.journal().pause(id, paused).await.map_err(RackError::Job)?;
        self.tell_waves(id, paused);
        tracing::info!(job = %id, paused, "job paused, or going on");
        self.job(id).await
    }

    /// Ends a job: nodes that wait are left alone, nodes that are being worked on are left safe. Cancelling a job that
    /// is over changes nothing.
    pub async fn cancel(&self, id: JobId) -> Result<JobView, RackError> {
        let job = self.journal().job(id).await.map_err(RackError::Job)?;
        for task in self.journal().tasks(id).await.map_err(RackError::Job)? {
            let cancelled = self.journal().change(id, &task.node, |task| {
                match task.state {
                    TaskState::Queued => task.state = TaskState::Cancelled,
                    TaskState::Running => task.state = TaskState::Cancelling,
                    _ => return Err(JobError::Refused("it is over".to_owned())),
                }
                task.since = clock::now();
                Ok(())
            });
            match cancelled.await {
                Ok(_) | Err(JobError::Refused(_)) => {}
                Err(error) => return Err(RackError::Job(error)),
            }
            if let Some(live) = self.live(&task) {
                live.wake.notify_one();
            }
        }
        self.journal().close_if_over(id, clock::now()).await.map_err(RackError::Job)?;
        // Who waits for its turn finds out that it is not wanted any more.
        self.tell_waves(id, false);
        tracing::info!(job = %id, rack = job.rack, "job cancelled");
        self.job(id).await
    }
}

/// What a plan was asked of, and its survey.
struct Planned {
    at: Instant,
    spec: Spec,
    only: Vec<NodeName>,
    survey: Survey,
}

/// A plan, and what it was made from.
struct Decision {
    plan: Plan,
    survey: Survey,
    known: BTreeMap<NodeName, NodeRow>,
    images: BTreeMap<ImageRef, ImageFacts>,
}

impl Decision {
    fn tasks(&self, spec: &Spec, job: JobId) -> Vec<TaskRow> {
        let now = clock::now();
        let changing = self.plan.nodes.iter().filter(|node| !node.steps.is_empty());
        changing
            .filter_map(|planned| {
                let node = spec.node(&planned.node)?;
                let facts = self.images.get(&node.image)?;
                let seen = self.survey.nodes.iter().find(|row| row.node == node.name);
                Some(TaskRow {
                    job,
                    rack: spec.name.clone(),
                    node: node.name.clone(),
                    slot: node.slot,
                    bmc: node.identity(),
                    work: Work {
                        image: node.image.clone(),
                        image_bytes: facts.bytes,
                        root_digest: facts.root_digest,
                        disk: node.disk.clone(),
                        wipe: node.wipe,
                        bios: node.bios.clone(),
                        user_data: planned.user_data.as_ref().map(|given| given.sha256),
                    },
                    state: TaskState::Queued,
                    step: Step::PowerOff,
                    since: now,
                    secret: Some(fresh_secret()),
                    ordered: None,
                    installed: None,
                    booted: None,
                    restarts: 0,
                    error: None,
                    notes: Vec::new(),
                    passed: Vec::new(),
                    held: self.known.get(&node.name).and_then(|row| row.holds.clone()),
                    touched: false,
                    machine: seen.and_then(|row| row.found.as_ref()).map(Found::machine_id),
                })
            })
            .collect()
    }
}
