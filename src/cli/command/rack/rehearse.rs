//! `bedplate rack rehearse`: tonight's rebuild against simulated BMCs, before it touches hardware.

use std::os::unix::fs::DirBuilderExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::read_whole_spec;
use crate::bmc::twin::Fault;
use crate::cli::exit::{CliError, DONE, Exit, FAILED};
use crate::cli::{Context, output};
use crate::job::TaskState;
use crate::meta::Embedded;
use crate::model::ByteSize;
use crate::rack::rehearse::{Rehearsal, RehearsedNode, Script, rack_of, rehearse};
use crate::sys::space::Reserve;
use crate::sys::{entropy, process};
use crate::telemetry::log;

/// Nodes that a table shows when all is well with them.
const SHOWN: usize = 80;

#[derive(Debug, clap::Args)]
pub(super) struct RehearseArgs {
    /// The spec; a node whose `bmc` is a folder with a recorded tree is simulated from that tree
    #[arg(required_unless_present = "nodes")]
    spec: Option<PathBuf>,
    /// Instead of a spec: a rack of this many nodes of no particular make, at most 20000
    #[arg(long, value_name = "COUNT", conflicts_with = "spec", value_parser = clap::value_parser!(u16).range(1..=20_000))]
    nodes: Option<u16>,
    /// A folder with recorded trees (`bedplate bmc record`), each in a folder of its node's name
    #[arg(long, value_name = "DIR")]
    recordings: Option<PathBuf>,
    /// How slow BMCs answer: times the latency recorded of a real one, 0 for at once
    #[arg(long, value_name = "FACTOR", default_value_t = 1.0)]
    latency: f64,
    /// Seconds from power-on until something runs on a node; real servers take minutes
    #[arg(long, value_name = "SECONDS", default_value_t = 2.0)]
    post: f64,
    /// Seconds that an agent writes
    #[arg(long, value_name = "SECONDS", default_value_t = 2.0)]
    install: f64,
    /// What goes wrong: slow, drop, busy, error, lie, stale or reboot; may be repeated
    #[arg(long, value_name = "KIND")]
    fault: Vec<Fault>,
    /// With which share of the requests
    #[arg(long, value_name = "SHARE", default_value_t = 0.02)]
    share: f64,
    /// What the draws begin with: the same seed goes wrong the same way
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// End after the survey
    #[arg(long)]
    survey_only: bool,
}

pub(super) async fn run(args: RehearseArgs, context: &Context) -> Result<Exit, CliError> {
    let spec = match (&args.spec, args.nodes) {
        (Some(path), _) => read_whole_spec(path, &[])?,
        (None, count) => rack_of(count.unwrap_or(1).into()),
    };
    for (name, value) in [("--latency", args.latency), ("--post", args.post), ("--install", args.install)] {
        if !(0.0..=86_400.0).contains(&value) {
            return Err(CliError::usage(format!("{name} is from 0 to 86400, not {value}")));
        }
    }
    if !(0.0..=1.0).contains(&args.share) {
        return Err(CliError::usage(format!("--share is from 0 to 1, not {}", args.share)));
    }
    let script = Script {
        latency: args.latency,
        post: Duration::from_secs_f64(args.post),
        install: Duration::from_secs_f64(args.install),
        faults: args.fault,
        share: args.share,
        seed: args.seed,
        recordings: args.recordings,
        survey_only: args.survey_only,
    };
    // Quiet, unless BEDPLATE_LOG asks for more: what goes wrong is in the table.
    log::init("off", false);
    // One listener a BMC, and some connections.
    process::raise_open_files();
    let failed = |error: &(dyn std::error::Error + 'static)| CliError::because("rehearse", error);
    // A name that nobody can guess, so that nobody else's folder is there.
    let folder = std::env::temp_dir().join(format!("bedplate-rehearsal-{}", entropy::token()));
    std::fs::DirBuilder::new().mode(0o700).create(&folder).map_err(|error| failed(&error))?;
    let meta = Embedded::open_with(&folder, Reserve::default()).map_err(|error| failed(&error))?;
    let played = tokio::select! {
        played = Box::pin(rehearse(&spec, &script, Arc::clone(&meta))) => played.map_err(|error| failed(&error)),
        _ = tokio::signal::ctrl_c() => Err(CliError::failed("interrupted")),
    };
    drop(meta);
    drop(std::fs::remove_dir_all(&folder));
    let played = played?;
    context.output.value(&played, shown)?;
    let unwell = played.failed + played.survey_failed + usize::from(played.sessions_left > 0);
    Ok(if unwell == 0 { DONE } else { FAILED })
}

fn shown(played: &Rehearsal) -> String {
    let well = |node: &&RehearsedNode| node.error.is_none() && matches!(node.state, None | Some(TaskState::Imaged));
    let (fine, odd): (Vec<_>, Vec<_>) = played.nodes.iter().partition(well);
    let rows = odd.iter().chain(fine.iter().take(SHOWN.saturating_sub(odd.len()))).map(|node| {
        let state = node.state.map_or_else(|| "surveyed".to_owned(), |state| format!("{state:?}").to_lowercase());
        vec![
            node.node.to_string(),
            state,
            node.seconds.map_or_else(|| "-".to_owned(), |seconds| format!("{seconds} s")),
            node.job_requests.max(node.survey_requests).to_string(),
            node.connections_peak.to_string(),
            format!("{} of {}", node.starts, node.planned_starts),
            node.error.clone().or_else(|| node.notes.last().cloned()).unwrap_or_default(),
        ]
    });
    let header = ["node", "state", "took", "requests", "connections", "starts", "why"];
    let mut text = output::table(&header, rows.collect());
    let hidden = played.nodes.len().saturating_sub(SHOWN.max(odd.len()));
    if hidden > 0 {
        text.push_str(&format!("\nand {hidden} more that are well"));
    }
    text.push_str(&format!(
        "\n\nsurvey {:.1} s, {} of {} could not be asked",
        played.survey_seconds,
        played.survey_failed,
        played.nodes.len()
    ));
    if let Some(seconds) = played.job_seconds {
        text.push_str(&format!(
            "\njob {seconds:.1} s: {} imaged, {} failed; at most {} requests to one BMC",
            played.imaged, played.failed, played.requests_most
        ));
    }
    text.push_str(&format!(
        "\nat most {} connections to one BMC, {} sessions left open, {} of memory at most (with the simulated BMCs)",
        played.connections_peak,
        played.sessions_left,
        ByteSize(played.memory_peak_bytes)
    ));
    text
}
