//! `bedplate rack`: what a rack should be, what is there, what must happen, and making it so.

mod follow;
mod import;
mod rehearse;
mod watch;

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use self::follow::follow;
use self::import::ImportArgs;
use self::rehearse::RehearseArgs;
use self::watch::WatchArgs;
use crate::bmc::{MemoryPins, PinFile};
use crate::cli::command::bmc::known_bmcs;
use crate::cli::exit::{CHANGES, CliError, DONE, Exit, FAILED, REFUSED, USAGE};
use crate::cli::{ApiClient, Context, output};
use crate::job::{JobState, JobView, NodeRow};
use crate::model::{JobId, NodeName};
use crate::rack::machine::PIN_CHANGED;
use crate::rack::redfish::RedfishMachines;
use crate::rack::spec::{BmcAddress, USER_DATA_MAX};
use crate::rack::survey::{self, Survey};
use crate::rack::{JobRequest, Plan, Spec, SpecError, Started, show};
use crate::sys::clock;

/// Bring racks to what their spec says.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  bedplate rack survey rack.toml\n  bedplate rack plan rack.toml\n  \
                        bedplate rack apply rack.toml --yes --wait\n\nconfig/racks/example.toml shows every key of a spec.")]
pub struct RackArgs {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Make a spec of the list that came with the rack (CSV); needs no appliance
    Import(ImportArgs),
    /// Ask every BMC what is there; needs no appliance
    Survey(Which),
    /// Show what must happen so that the rack is as its spec says
    Plan {
        #[command(flatten)]
        which: Which,
        /// Exit with 3 when something must change
        #[arg(long)]
        detailed_exitcode: bool,
    },
    /// Make the rack as its spec says; without --yes, only show the plan
    Apply {
        #[command(flatten)]
        which: Which,
        /// Do it
        #[arg(long)]
        yes: bool,
        /// Follow the job until it is over, with --output json as a stream of JSON lines; exits with 1 when a node failed
        #[arg(long)]
        wait: bool,
    },
    /// Try a spec against simulated BMCs and agents first; needs no appliance and touches no machine
    Rehearse(RehearseArgs),
    /// Show where every node stands
    Status(Which),
    /// Watch the rack: full-screen, with what is behind each node; as JSON lines with --output json
    Watch(WatchArgs),
    /// List the last jobs
    Jobs,
    /// Begin no other node of a job; those that were begun go on
    Pause {
        /// The job's id
        job: JobId,
    },
    /// Let a paused job go on
    Resume {
        /// The job's id
        job: JobId,
    },
    /// Fetch what was kept of a node that failed: the last requests to its BMC, its log, its health
    Evidence {
        /// The job's id
        job: JobId,
        /// The node
        node: NodeName,
        /// The folder to write it to [default: JOB-NODE]
        #[arg(long, value_name = "DIR")]
        into: Option<PathBuf>,
    },
    /// End a job: nodes that wait are left alone, nodes that are being worked on are left safe
    Cancel {
        /// The job's id
        job: JobId,
    },
}

#[derive(Debug, clap::Args)]
struct Which {
    /// The spec
    spec: PathBuf,
    /// Only this node; may be repeated
    #[arg(long, value_name = "NODE")]
    only: Vec<NodeName>,
}

fn refused(error: &SpecError) -> CliError {
    let exit = match error {
        SpecError::Mistake { .. } => USAGE,
        SpecError::AmbiguousDisk { .. } => REFUSED,
    };
    CliError { exit, message: error.to_string(), hint: None }
}

/// Runs the verb.
pub async fn run(args: RackArgs, context: &Context) -> Result<Exit, CliError> {
    match args.verb {
        Verb::Import(args) => import::run(args, context),
        Verb::Survey(which) => survey(&which, context).await,
        Verb::Plan { which, detailed_exitcode } => plan(&which, detailed_exitcode, context).await,
        Verb::Apply { which, yes, wait } => apply(&which, yes, wait, context).await,
        Verb::Rehearse(args) => rehearse::run(args, context).await,
        Verb::Status(which) => status(&which, context).await,
        Verb::Jobs => jobs(context).await,
        Verb::Watch(args) => Box::pin(watch::run(args, context)).await,
        Verb::Evidence { job, node, into } => evidence(job, &node, into, context).await,
        Verb::Pause { job } => order(job, "pause", context).await,
        Verb::Resume { job } => order(job, "resume", context).await,
        Verb::Cancel { job } => order(job, "cancel", context).await,
    }
}

/// Fetches what was kept of a failed node: into a folder, or as one JSON value.
async fn evidence(job: JobId, node: &NodeName, into: Option<PathBuf>, context: &Context) -> Result<Exit, CliError> {
    let path = format!("/api/v1/jobs/{job}/nodes/{node}/evidence");
    let found: BTreeMap<String, serde_json::Value> = context.api()?.get_json(&path).await?;
    if context.output.is_json() {
        context.output.value(&found, |_| String::new())?;
        return Ok(DONE);
    }
    let folder = into.unwrap_or_else(|| PathBuf::from(format!("{job}-{node}")));
    let failed = |error: std::io::Error| CliError::because(format!("write to {}", folder.display()), &error);
    std::fs::create_dir_all(&folder).map_err(failed)?;
    let mut lines = vec![];
    for (name, value) in &found {
        // Names come from the appliance: a file of this folder, or none.
        let plain = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
        if plain {
            let file = folder.join(format!("{name}.json"));
            std::fs::write(&file, serde_json::to_vec_pretty(value)?).map_err(failed)?;
            lines.push(file.display().to_string());
        }
    }
    context.output.data(&lines.join("\n"))?;
    Ok(DONE)
}

/// Tells the appliance what to do with a job.
async fn order(job: JobId, what: &str, context: &Context) -> Result<Exit, CliError> {
    let api = context.api()?;
    let job: JobView = api.post_json(&format!("/api/v1/jobs/{job}/{what}"), &serde_json::json!({})).await?;
    print_job(context, &job)?;
    Ok(DONE)
}

fn read(which: &Which) -> Result<Spec, CliError> {
    read_spec(&which.spec, &which.only)
}

/// Reads and checks a spec and that it has the nodes `only`; paths in it are taken from its own folder.
pub(super) fn read_spec(path: &Path, only: &[NodeName]) -> Result<Spec, CliError> {
    let origin = path.display().to_string();
    let text = std::fs::read_to_string(path).map_err(|error| CliError {
        exit: USAGE,
        message: format!("cannot read the spec {origin}: {error}"),
        hint: Some("name an existing spec; config/racks/example.toml is one to start from".to_owned()),
    })?;
    let spec = parse_spec(&text, path)?;
    spec.select(only).map_err(|error| refused(&error))?;
    Ok(spec)
}

/// The same, with the user data that its nodes name.
fn read_whole_spec(path: &Path, only: &[NodeName]) -> Result<Spec, CliError> {
    with_user_data(read_spec(path, only)?)
}

/// Reads the user data that the nodes of a spec name.
fn with_user_data(spec: Spec) -> Result<Spec, CliError> {
    let read = |file: &Path| {
        let mut bytes = Vec::new();
        std::fs::File::open(file)?.take(USER_DATA_MAX as u64 + 1).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    spec.with_user_data(read).map_err(|error| refused(&error))
}

/// Checks the text of the spec `path`; paths in it are taken from its folder.
pub(super) fn parse_spec(text: &str, path: &Path) -> Result<Spec, CliError> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let folder = std::path::absolute(folder).map_err(|error| CliError::because("find the working folder", &error))?;
    Spec::parse(text, &path.display().to_string(), &folder).map_err(|error| refused(&error))
}

/// Reaches the machines of a spec with the certificates that this user knows; recorded trees need none.
pub(super) fn machines(spec: &Spec) -> Result<RedfishMachines, CliError> {
    if spec.nodes.iter().all(|node| matches!(node.bmc, BmcAddress::Folder(_))) {
        return Ok(RedfishMachines::new(Arc::new(MemoryPins::default())));
    }
    let pins = PinFile::open(&known_bmcs()?).map_err(|error| CliError::failed(error.to_string()).hint(error.hint()))?;
    Ok(RedfishMachines::new(Arc::new(pins)))
}

async fn survey(which: &Which, context: &Context) -> Result<Exit, CliError> {
    let spec = read(which)?;
    let machines = machines(&spec)?;
    let nodes = spec.select(&which.only).map_err(|error| refused(&error))?;
    let found = survey::survey(&spec.name, &nodes, &machines).await;
    context.output.value(&found, |found| {
        let columns = show::survey(found);
        output::table(&columns.header, columns.rows)
    })?;
    if !context.output.is_json() {
        for line in show::survey_gaps(&found) {
            context.output.say(&line);
        }
    }
    Ok(survey_exit(&found))
}

/// A certificate that changed is a refusal, a BMC that could not be asked a failure; the table is printed all the same.
fn survey_exit(survey: &Survey) -> Exit {
    let kinds: Vec<&str> = survey.nodes.iter().filter_map(|node| Some(node.error.as_ref()?.kind.as_str())).collect();
    match kinds.as_slice() {
        [] => DONE,
        kinds if kinds.contains(&PIN_CHANGED) => REFUSED,
        _ => FAILED,
    }
}

async fn fetch_plan(which: &Which, context: &Context) -> Result<(Spec, ApiClient, Plan), CliError> {
    let spec = read_whole_spec(&which.spec, &which.only)?;
    let api = context.api()?;
    let request = JobRequest { spec: spec.clone(), only: which.only.clone() };
    let plan: Plan = api.post_json("/api/v1/racks/plan", &request).await?;
    Ok((spec, api, plan))
}

async fn plan(which: &Which, detailed: bool, context: &Context) -> Result<Exit, CliError> {
    let (_, _, plan) = fetch_plan(which, context).await?;
    context.output.value(&plan, show::plan)?;
    Ok(if detailed && plan.changes > 0 { CHANGES } else { DONE })
}

async fn apply(which: &Which, yes: bool, wait: bool, context: &Context) -> Result<Exit, CliError> {
    if !yes {
        let (_, _, plan) = fetch_plan(which, context).await?;
        context.output.value(&plan, show::plan)?;
        if plan.changes == 0 {
            return Ok(DONE);
        }
        context.output.say("nothing was touched; give --yes to make these changes");
        return Ok(CHANGES);
    }
    let spec = read_whole_spec(&which.spec, &which.only)?;
    let api = context.api()?;
    let request = JobRequest { spec, only: which.only.clone() };
    let started: Started = api.post_json("/api/v1/jobs", &request).await?;
    if !wait {
        context.output.value(&started, |started| {
            format!("job {} has begun; `bedplate rack status {}` shows it", started.job, which.spec.display())
        })?;
        return Ok(DONE);
    }
    context.output.say(&format!("job {}", started.job));
    let job = follow(&api, started.job, context).await?;
    if !context.output.is_json() {
        print_job(context, &job)?;
    }
    Ok(if job.state == JobState::Done { DONE } else { FAILED })
}

fn print_job(context: &Context, job: &JobView) -> Result<(), CliError> {
    context.output.value(job, |job| {
        let columns = show::job(job, clock::now());
        let mut text = output::table(&columns.header, columns.rows);
        if job.paused {
            text.push_str(&format!("\npaused: no other node is begun until `bedplate rack resume {}`", job.id));
        }
        for node in &job.unchanged {
            text.push_str(&format!("\n{node}: already as the spec says"));
        }
        text
    })
}

/// Where a rack stands: the JSON of `rack status`.
#[derive(serde::Serialize)]
struct Status {
    rack: String,
    /// The last job on this rack.
    job: Option<JobView>,
    /// What is known of its nodes.
    nodes: Vec<NodeRow>,
}

async fn status(which: &Which, context: &Context) -> Result<Exit, CliError> {
    let spec = read(which)?;
    let api = context.api()?;
    let jobs: Vec<JobView> = api.get_json(&format!("/api/v1/jobs?rack={}&limit=1", spec.name)).await?;
    let nodes: Vec<NodeRow> = api.get_json("/api/v1/nodes").await?;
    let wanted = |name: &NodeName| spec.node(name).is_some() && (which.only.is_empty() || which.only.contains(name));
    let mut job = jobs.into_iter().next();
    if let Some(job) = &mut job {
        job.nodes.retain(|node| wanted(&node.node));
    }
    let nodes = nodes.into_iter().filter(|row| row.rack == spec.name && wanted(&row.node)).collect();
    let status = Status { rack: spec.name.clone(), job, nodes };
    context.output.value(&status, |status| {
        let now = clock::now();
        let mut parts = Vec::new();
        if let Some(job) = status.job.as_ref().filter(|job| !job.nodes.is_empty()) {
            let columns = show::job(job, now);
            parts.push(format!("last job {}\n{}", job.id, output::table(&columns.header, columns.rows)));
        }
        if !status.nodes.is_empty() {
            let columns = show::nodes(&status.nodes, now);
            parts.push(output::table(&columns.header, columns.rows));
        }
        if parts.is_empty() {
            parts.push(format!("nothing is known of rack {} yet; `bedplate rack apply` begins a job", status.rack));
        }
        parts.join("\n\n")
    })?;
    Ok(DONE)
}

async fn jobs(context: &Context) -> Result<Exit, CliError> {
    let jobs: Vec<JobView> = context.api()?.get_json("/api/v1/jobs").await?;
    context.output.value(&jobs, |jobs| {
        let rows = jobs.iter().map(|job| {
            let state = serde_json::to_value(job.state).ok().and_then(|value| value.as_str().map(str::to_owned));
            let state = if job.paused { Some("paused".to_owned()) } else { state };
            let nodes = job.nodes.len() + job.unchanged.len();
            vec![
                job.id.to_string(),
                job.rack.clone(),
                state.unwrap_or_default(),
                nodes.to_string(),
                job.created.to_string(),
                job.ended.map_or_else(|| "-".to_owned(), |ended| ended.to_string()),
            ]
        });
        output::table(&["job", "rack", "state", "nodes", "began", "ended"], rows.collect())
    })?;
    Ok(DONE)
}
