//! `bedplate bmc discover`: which addresses are BMCs.

use std::path::PathBuf;
use std::time::Duration;

use futures_util::StreamExt as _;

use super::{explain, show};
use crate::bmc::{PinFile, Timing, addresses, discover};
use crate::cli::Context;
use crate::cli::exit::{CliError, DONE, Exit};

#[derive(Debug, clap::Args)]
pub(super) struct DiscoverArgs {
    /// The networks (10.0.0.0/24) and addresses to ask; at most 65,536 addresses
    #[arg(required = true)]
    networks: Vec<String>,
    /// The port to ask at
    #[arg(long, default_value_t = 443)]
    port: u16,
    /// Seconds to wait for a connection, and five times as long for an answer
    #[arg(long, value_name = "SECONDS", default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=60))]
    wait: u64,
    /// The file of known certificates [default: bedplate/known-bmcs.toml in the user's configuration folder]
    #[arg(long, value_name = "FILE")]
    known_bmcs: Option<PathBuf>,
}

pub(super) async fn run(args: DiscoverArgs, context: &Context) -> Result<Exit, CliError> {
    let all = addresses(&args.networks).map_err(CliError::usage)?;
    let known = args.known_bmcs.map_or_else(super::known_bmcs, Ok)?;
    let known = PinFile::open(&known).map_err(|e| explain(&e))?;
    let wait = Duration::from_secs(args.wait);
    let timing = Timing { connect: wait, answer: 5 * wait, busy_limit: 5 * wait, ..Timing::default() };
    let progress = context.output.count_bar(all.len() as u64, "addresses asked");
    let answers = discover(&all, args.port, &known, &timing).await.map_err(|e| explain(&e))?;
    let told = answers.inspect(|_| progress.inc(1)).filter_map(async |answer| answer);
    let mut found: Vec<_> = told.collect().await;
    progress.finish_and_clear();
    if found.is_empty() {
        let message = format!("none of {} addresses answers as a BMC on port {}", all.len(), args.port);
        return Err(CliError::failed(message)
            .hint("is this machine in the BMCs' network? a BMC that is still starting takes some minutes to answer"));
    }
    found.sort_by_key(|bmc| bmc.address);
    context.output.value(&found, |found| show::discovered(found))?;
    Ok(DONE)
}
