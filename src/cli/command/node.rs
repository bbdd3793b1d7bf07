//! `bedplate node`: what is known of single machines, over all jobs; and their switch and light.

use std::path::PathBuf;

use serde::Serialize;

use crate::cli::command::rack;
use crate::cli::exit::{CliError, DONE, Exit, REFUSED};
use crate::cli::{Context, output};
use crate::job::NodeRow;
use crate::model::NodeName;
use crate::rack::machine::{MachineError, Machines as _, PIN_CHANGED, Power};
use crate::rack::show;
use crate::sys::clock;

/// Look at single nodes.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  bedplate node list\n  bedplate node identify node-7 --spec rack.toml")]
pub struct NodeArgs {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// List every node that a job has worked on
    List,
    /// Show all that is known of one node
    Show {
        /// The node, or RACK/NODE where several racks have one of that name
        node: String,
    },
    /// Show a node's power, or switch it, through its BMC
    Power {
        /// The node
        node: NodeName,
        /// What to do with it
        #[arg(value_enum, default_value_t)]
        action: PowerVerb,
        /// The spec that names its BMC
        #[arg(long)]
        spec: PathBuf,
        /// Switch it, although whatever runs on it ends at once
        #[arg(long)]
        yes: bool,
    },
    /// Switch a node's identify light, through its BMC
    Identify {
        /// The node
        node: NodeName,
        /// Switch it off
        #[arg(long)]
        off: bool,
        /// The spec that names its BMC
        #[arg(long)]
        spec: PathBuf,
    },
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
enum PowerVerb {
    /// Only show it
    #[default]
    Show,
    /// Switch it on
    On,
    /// Switch it off at once
    Off,
}

/// Runs the verb.
pub async fn run(args: NodeArgs, context: &Context) -> Result<Exit, CliError> {
    match args.verb {
        Verb::List => {
            let nodes: Vec<NodeRow> = context.api()?.get_json("/api/v1/nodes").await?;
            context.output.value(&nodes, |nodes| {
                let columns = show::nodes(nodes, clock::now());
                output::table(&columns.header, columns.rows)
            })?;
            Ok(DONE)
        }
        Verb::Show { node } => show_one(&node, context).await,
        Verb::Power { node, action, spec, yes } => power(&node, action, &spec, yes, context).await,
        Verb::Identify { node, off, spec } => identify(&node, !off, &spec, context).await,
    }
}

async fn show_one(name: &str, context: &Context) -> Result<Exit, CliError> {
    let nodes: Vec<NodeRow> = context.api()?.get_json("/api/v1/nodes").await?;
    let (rack, node) = name.split_once('/').map_or((None, name), |(rack, node)| (Some(rack), node));
    let mut fits =
        nodes.into_iter().filter(|row| row.node.as_str() == node && rack.is_none_or(|rack| row.rack == rack));
    let Some(row) = fits.next() else {
        return Err(CliError::failed(format!("nothing is known of a node {name}"))
            .hint("`bedplate node list` shows the nodes that a job has worked on"));
    };
    if let Some(other) = fits.next() {
        return Err(CliError::usage(format!("racks {} and {} both have a node {node}", row.rack, other.rack))
            .hint(format!("write {}/{node} or {}/{node}", row.rack, other.rack)));
    }
    // All of it: people read it as well as programs do.
    context.output.value(&row, |row| serde_json::to_string_pretty(row).unwrap_or_default())?;
    Ok(DONE)
}

/// The JSON of `node power`.
#[derive(Serialize)]
struct PowerAnswer {
    node: NodeName,
    power: Power,
}

async fn power(
    node: &NodeName,
    action: PowerVerb,
    spec: &std::path::Path,
    yes: bool,
    context: &Context,
) -> Result<Exit, CliError> {
    let spec = rack::read_spec(spec, std::slice::from_ref(node))?;
    if action == PowerVerb::Off && !yes {
        return Err(CliError::refused(format!("switching {node} off ends whatever runs on it; nothing was touched"))
            .hint("give --yes to do it"));
    }
    let machines = rack::machines(&spec)?;
    let Some(wanted) = spec.node(node) else { return Ok(DONE) };
    let machine = machines.connect(wanted).await.map_err(failed)?;
    let done = match action {
        PowerVerb::Show => Ok(()),
        PowerVerb::On => machine.power_on().await,
        PowerVerb::Off => machine.power_off().await,
    };
    let seen = machine.power().await;
    machine.close().await;
    done.map_err(failed)?;
    let answer = PowerAnswer { node: node.clone(), power: seen.map_err(failed)? };
    context.output.value(&answer, |answer| format!("{}: {}", answer.node, show::power(answer.power)))?;
    Ok(DONE)
}

async fn identify(node: &NodeName, on: bool, spec: &std::path::Path, context: &Context) -> Result<Exit, CliError> {
    let spec = rack::read_spec(spec, std::slice::from_ref(node))?;
    let machines = rack::machines(&spec)?;
    let Some(wanted) = spec.node(node) else { return Ok(DONE) };
    let machine = machines.connect(wanted).await.map_err(failed)?;
    let done = machine.identify(on).await;
    machine.close().await;
    done.map_err(failed)?;
    let answer = serde_json::json!({ "node": node, "identify": on });
    context.output.value(&answer, |_| format!("{node}: the identify light is {}", if on { "on" } else { "off" }))?;
    Ok(DONE)
}

fn failed(error: MachineError) -> CliError {
    let told = CliError::failed(error.message).hint(error.hint);
    if error.kind == PIN_CHANGED { CliError { exit: REFUSED, ..told } } else { told }
}
