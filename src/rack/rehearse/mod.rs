//! A rehearsal: the real plan, conductor and BMC driver against simulated BMCs, with simulated agents on their machines. Tonight's
//! rebuild is tried before it touches hardware.

mod agents;
mod twins;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep};

use crate::bmc::twin::{Fault, Tally, Temper};
use crate::bmc::{BmcError, Timing};
use crate::format::order::{DiskSelector, Wipe};
use crate::job::retry::Backoff;
use crate::job::{JobState, NodeView, TaskState};
use crate::meta::Meta;
use crate::model::NodeName;
use crate::rack::plan::REBOOTS;
use crate::rack::spec::{BmcAddress, NodeSpec, Timeouts};
use crate::rack::survey::survey;
use crate::rack::{Conductor, ConductorConfig, Pace, RackError, Spec};
use crate::sys::memory;
use crate::sys::wire::ShownPin;
use crate::sys::worker::Workers;
use agents::Agents;
use twins::{RehearsedImages, TwinMachines};

/// The address under which simulated BMCs fetch the boot image; nothing listens there.
const MEDIA: &str = "http://rehearsal.invalid";

/// How a rack is rehearsed.
#[derive(Clone, Debug)]
pub struct Script {
    /// Times the recorded latency of BMCs; 0 answers at once.
    pub latency: f64,
    /// From power-on until something runs on a machine.
    pub post: Duration,
    /// How long an agent writes.
    pub install: Duration,
    /// What goes wrong.
    pub faults: Vec<Fault>,
    /// With what share of the requests.
    pub share: f64,
    /// What all draws begin with.
    pub seed: u64,
    /// A folder with recorded trees, found by the node's name; the others have a tree of no particular make.
    pub recordings: Option<PathBuf>,
    /// Ends after the survey.
    pub survey_only: bool,
}

/// How one node fared.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RehearsedNode {
    /// The node.
    pub node: NodeName,
    /// Where its task stands at the end; none where it was only surveyed, or needs nothing.
    pub state: Option<TaskState>,
    /// Why it failed, or could not be surveyed.
    pub error: Option<String>,
    /// Requests to its BMC for the first survey.
    pub survey_requests: u64,
    /// Requests after that: the job's own survey, and the job.
    pub job_requests: u64,
    /// Connections to its BMC at once, at most.
    pub connections_peak: usize,
    /// Sessions that are open at its BMC at the end.
    pub sessions_left: usize,
    /// Times that it was started.
    pub starts: u64,
    /// Times that the plan said it would be.
    pub planned_starts: u32,
    /// Images inserted into its virtual drive.
    pub inserts: u64,
    /// Seconds from the job's begin to its end.
    pub seconds: Option<u64>,
    /// What happened on the way.
    pub notes: Vec<String>,
}

/// What a rehearsal came to.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Rehearsal {
    /// The rack.
    pub rack: String,
    /// Seconds for the survey of all nodes.
    pub survey_seconds: f64,
    /// Nodes that could not be surveyed.
    pub survey_failed: usize,
    /// Seconds for the job; none where only a survey was asked for.
    pub job_seconds: Option<f64>,
    /// Nodes that run their image.
    pub imaged: usize,
    /// Nodes that failed.
    pub failed: usize,
    /// Requests to one BMC from the job's survey to its image, at most.
    pub requests_most: u64,
    /// Connections to one BMC at once, at most.
    pub connections_peak: usize,
    /// Sessions left open, over all BMCs.
    pub sessions_left: usize,
    /// The most memory that this process had resident, in bytes; the simulated BMCs are in it.
    pub memory_peak_bytes: u64,
    /// Node by node.
    pub nodes: Vec<RehearsedNode>,
}

/// Why there was no rehearsal.
#[derive(Debug, thiserror::Error)]
pub enum RehearsalError {
    /// A tree could not be read.
    #[error(transparent)]
    Tree(Box<BmcError>),
    /// A simulated BMC could not be started.
    #[error("a simulated BMC could not be started")]
    Twin(#[from] std::io::Error),
    /// The rack could not be applied.
    #[error(transparent)]
    Rack(#[from] RackError),
}

/// Rehearses a spec. `meta` is an empty one of its own, which may be thrown away afterwards.
///
/// # Errors
/// [`RehearsalError`] where it could not begin. What goes wrong on the way is part of its result.
pub async fn rehearse(spec: &Spec, script: &Script, meta: Arc<dyn Meta>) -> Result<Rehearsal, RehearsalError> {
    let workers = Workers::new();
    let outcome = play(spec, script, meta, &workers).await;
    workers.stop().await;
    outcome
}

async fn play(
    spec: &Spec,
    script: &Script,
    meta: Arc<dyn Meta>,
    workers: &Workers,
) -> Result<Rehearsal, RehearsalError> {
    let agents = Arc::new(Agents::new(script.install, MEDIA));
    let machines = Arc::new(TwinMachines::start(spec, script, agents.clone(), workers).await?);
    let nodes: Vec<_> = spec.nodes.iter().collect();
    let began = Instant::now();
    let found = survey(&spec.name, &nodes, &*machines).await;
    let survey_seconds = began.elapsed().as_secs_f64();
    let surveyed = machines.tallies();
    let mut plan = BTreeMap::new();
    let mut views: Vec<NodeView> = vec![];
    let mut job_seconds = None;
    if !script.survey_only {
        let desk = desk(script);
        // The conductor's workers stop first, so that no session stays open at the simulated BMCs.
        let own = Workers::new();
        let conductor = Conductor::new(meta, Arc::new(RehearsedImages), machines.clone(), &own, desk);
        agents.talk_to(conductor.clone());
        let began = Instant::now();
        let played = follow(&conductor, spec, &mut plan).await;
        job_seconds = Some(began.elapsed().as_secs_f64());
        own.stop().await;
        views = played?;
    }
    let mut rows = vec![];
    for node in &spec.nodes {
        let tally = machines.tally(&node.name);
        let before = surveyed.get(&node.name).cloned().unwrap_or_default();
        let view = views.iter().find(|view| view.node == node.name);
        let seen = found.nodes.iter().find(|row| row.node == node.name).and_then(|row| row.error.as_ref());
        rows.push(row(&node.name, &tally, &before, view, seen.map(|error| error.message.clone()), &plan));
    }
    Ok(Rehearsal {
        rack: spec.name.clone(),
        survey_seconds,
        survey_failed: found.nodes.iter().filter(|row| row.error.is_some()).count(),
        job_seconds,
        imaged: rows.iter().filter(|row| row.state == Some(TaskState::Imaged)).count(),
        failed: rows.iter().filter(|row| row.state.is_some_and(|state| state != TaskState::Imaged)).count(),
        requests_most: rows.iter().map(|row| row.job_requests).max().unwrap_or(0),
        connections_peak: rows.iter().map(|row| row.connections_peak).max().unwrap_or(0),
        sessions_left: rows.iter().map(|row| row.sessions_left).sum(),
        memory_peak_bytes: memory::peak_resident(),
        nodes: rows,
    })
}

fn row(
    node: &NodeName,
    tally: &Tally,
    before: &Tally,
    view: Option<&NodeView>,
    unseen: Option<String>,
    plan: &BTreeMap<NodeName, u32>,
) -> RehearsedNode {
    let begun = view.and_then(|view| view.passed.first()).map(|first| first.since);
    RehearsedNode {
        node: node.clone(),
        state: view.map(|view| view.state),
        error: view.and_then(|view| view.error.as_ref()).map(|fault| fault.message.clone()).or(unseen),
        survey_requests: before.requests,
        job_requests: tally.requests.saturating_sub(before.requests),
        connections_peak: tally.connections_peak,
        sessions_left: tally.sessions,
        starts: tally.starts,
        planned_starts: plan.get(node).copied().unwrap_or(0),
        inserts: tally.inserts,
        seconds: view.zip(begun).map(|(view, begun)| view.since.since(begun).as_secs()),
        notes: view.map(|view| view.notes.clone()).unwrap_or_default(),
    }
}

/// Applies the spec and waits until the job is over.
async fn follow(
    conductor: &Conductor,
    spec: &Spec,
    plan: &mut BTreeMap<NodeName, u32>,
) -> Result<Vec<NodeView>, RackError> {
    conductor.resume_all().await?;
    let job = conductor.apply(spec.clone(), &[]).await?;
    // A node that must change is switched on twice: into the agent, and into its image.
    loop {
        let view = conductor.job(job).await?;
        if view.state != JobState::Running {
            plan.extend(view.nodes.iter().map(|node| (node.node.clone(), REBOOTS)));
            return Ok(view.nodes);
        }
        sleep(Duration::from_millis(500)).await;
    }
}

fn desk(script: &Script) -> ConductorConfig {
    let unhurried = script.latency >= 0.5;
    let pace = match unhurried {
        true => Pace::default(),
        false => Pace {
            poll: Duration::from_millis(100),
            watch: Duration::from_millis(500),
            backoff: Backoff { first: Duration::from_millis(100), longest: Duration::from_secs(2) },
        },
    };
    ConductorConfig {
        public_url: "https://rehearsal.invalid".to_owned(),
        media_url: MEDIA.to_owned(),
        certificate_pin: ShownPin::new([0; 32]),
        pace,
        evidence: None,
    }
}

/// Waiting times that fit the latency that is rehearsed.
fn timing(script: &Script) -> Timing {
    if script.latency >= 0.5 {
        return Timing::default();
    }
    Timing {
        answer: Duration::from_secs(10),
        busy_pause: Duration::from_millis(50),
        look: Duration::from_millis(50),
        media: Duration::from_secs(6),
        setting: Duration::from_secs(4),
        power: Duration::from_secs(10),
        ..Timing::default()
    }
}

fn temper(script: &Script) -> Temper {
    Temper { latency: script.latency, faults: script.faults.clone(), share: script.share, seed: script.seed }
}

/// A spec of `count` nodes of no particular make, all of which are worked on at a time. It may be larger than any real rack.
#[must_use]
pub fn rack_of(count: usize) -> Spec {
    let node = |n: usize| {
        let name = format!("n{n:05}");
        Some(NodeSpec {
            bmc: BmcAddress::Url(format!("https://{name}.invalid")),
            system: None,
            pin: None,
            ca_file: None,
            login: None,
            disk: DiskSelector { serial: Some(format!("S{n:05}")), ..DiskSelector::default() },
            wipe: Wipe::default(),
            image: "rehearsed@1".parse().ok()?,
            health: Default::default(),
            record_console: false,
            bios: Default::default(),
            serial: None,
            slot: None,
            feed: None,
            user_data: None,
            name: name.parse().ok()?,
        })
    };
    Spec {
        name: "rehearsal".to_owned(),
        nodes: (1..=count).filter_map(node).collect(),
        parallel: count.max(1),
        parallel_per_feed: None,
        canaries: 0,
        stop_after: None,
        timeouts: Timeouts::default(),
        user_data: BTreeMap::new(),
    }
}
