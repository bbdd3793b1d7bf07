//! `bedplate store`: figures of the store, whether it is sound, and garbage collection.

use std::path::PathBuf;

use serde_json::json;

use super::{gc, local, scrub};
use crate::cli::exit::{CliError, DONE, Exit, FAILED};
use crate::cli::remote::Place;
use crate::cli::{Context, output};
use crate::model::{BucketName, ByteSize};
use crate::store::{FsckError, FsckReport, Stats};

/// Figures of the store, whether it is sound, and garbage collection.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  bedplate store stats --output json
  bedplate store stats --bucket datasets
  bedplate store fsck --read-data
  bedplate store fsck --rebuild-index --data /srv/bedplate
  bedplate store scrub
  bedplate store scrub --now --repair
  bedplate store gc --dry-run
  bedplate store import --data /srv/bedplate datasets/v1 ./dataset
  bedplate store export --data /srv/bedplate datasets/v1/ ./dataset

import and export open the data folder themselves: stop `bedplate serve` first. They move bytes faster than any client can.")]
pub struct StoreArgs {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Objects, bytes before and after deduplication, packs
    Stats {
        /// Only this bucket
        #[arg(long, value_name = "BUCKET")]
        bucket: Option<BucketName>,
    },
    /// Check that every object can be read; exits with 1 where something is damaged
    Fsck {
        /// Read and verify every chunk too, not only the packs' directories
        #[arg(long)]
        read_data: bool,
        /// Make the index again from the packs, and, while no appliance uses the data folder, the list of packs too
        #[arg(long, conflicts_with = "read_data")]
        rebuild_index: bool,
    },
    /// How the scrub stands, and what is damaged; exits with 1 where something is
    Scrub {
        /// Read and compare all packs at once
        #[arg(long)]
        now: bool,
        /// Repair what is stored a second time
        #[arg(long)]
        repair: bool,
    },
    /// Bring a file, or all files of a folder, into the data folder, while no appliance uses it
    Import {
        /// Where to: BUCKET, BUCKET/PREFIX/ or, for a file, BUCKET/KEY
        #[arg(value_name = "BUCKET/PREFIX")]
        place: Place,
        /// The file or folder
        #[arg(value_name = "PATH")]
        source: PathBuf,
    },
    /// Take all objects below a prefix out of the data folder, while no appliance uses it
    Export {
        /// What: BUCKET or BUCKET/PREFIX
        #[arg(value_name = "BUCKET/PREFIX")]
        place: Place,
        /// The folder to write to
        #[arg(value_name = "FOLDER")]
        target: PathBuf,
    },
    /// Remove what no object needs, while the store serves; `bedplate serve` does it by itself too
    Gc {
        /// Only show what would be done
        #[arg(long)]
        dry_run: bool,
        /// Rounds at most: garbage is condemned in one and goes in the next
        #[arg(long, value_name = "N", default_value_t = 4)]
        rounds: u32,
    },
}

/// Asks the appliance.
pub async fn run(args: StoreArgs, context: &Context) -> Result<Exit, CliError> {
    match args.verb {
        Verb::Import { place, source } => local::import(context, &place, &source).await,
        Verb::Export { place, target } => local::export(context, &place, &target).await,
        Verb::Stats { bucket } => {
            let api = context.api()?;
            let query = bucket.map(|bucket| format!("?bucket={bucket}")).unwrap_or_default();
            let stats: Stats = api.get_json(&format!("/api/v1/store/stats{query}")).await?;
            context.output.value(&stats, show_stats)?;
            Ok(DONE)
        }
        Verb::Scrub { now, repair } => scrub::run(context, now, repair).await,
        Verb::Fsck { rebuild_index: true, .. } => scrub::rebuild(context).await,
        Verb::Fsck { read_data, .. } => {
            let api = context.api()?;
            let report: FsckReport = api.post_json("/api/v1/store/fsck", &json!({ "data": read_data })).await?;
            context.output.value(&report, show_report)?;
            if report.errors.is_empty() {
                return Ok(DONE);
            }
            context.output.error(
                &CliError::failed(format!("the store is damaged: {} errors", report.errors.len()))
                    .hint("put the named objects again from their source; what names no object can stay"),
            );
            Ok(FAILED)
        }
        Verb::Gc { dry_run, rounds } => gc::run(context, dry_run, rounds).await,
    }
}

fn show_stats(stats: &Stats) -> String {
    let bytes = |bytes: u64| format!("{} ({bytes})", ByteSize(bytes));
    let rows = [
        ("objects", stats.objects.to_string()),
        ("logical bytes", bytes(stats.logical_bytes)),
        ("unique bytes", bytes(stats.unique_bytes)),
        ("stored bytes", bytes(stats.stored_bytes)),
        ("metadata bytes", bytes(stats.metadata_bytes)),
        ("chunks", stats.chunks.to_string()),
        ("packs", stats.packs.to_string()),
        ("damaged", stats.damaged.to_string()),
    ];
    output::table(&["figure", "value"], rows.into_iter().map(|(name, value)| vec![name.to_owned(), value]).collect())
}

fn show_report(report: &FsckReport) -> String {
    let mut text = format!(
        "{} packs, {} chunks and {} objects checked, {} orphan packs, {} errors",
        report.packs_checked,
        report.chunks_checked,
        report.objects_checked,
        report.orphans.len(),
        report.errors.len()
    );
    for error in &report.errors {
        text.push('\n');
        text.push_str(&show_error(error));
    }
    text
}

fn show_error(error: &FsckError) -> String {
    let pack = error.pack.map(|pack| format!("pack {pack} "));
    let chunk = error.chunk.map(|chunk| format!("chunk {chunk} "));
    let object = error.object.as_ref().map(|object| format!("object {object} "));
    let place = [pack, chunk, object].into_iter().flatten().collect::<String>();
    format!("{}: {}", place.trim_end(), error.what)
}
