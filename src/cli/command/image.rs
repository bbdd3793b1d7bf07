//! `bedplate image`: the catalogue of images.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Instant;

use bytes::Bytes;
use futures_util::{Stream, stream};
use indicatif::ProgressBar;
use serde::{Deserialize, Serialize};

use crate::cli::exit::{CliError, DONE, Exit};
use crate::cli::{Context, output};
use crate::image::raw;
use crate::image::{ImageDiff, ImageInfo, Imported};
use crate::model::{ByteSize, ImageRef};
use crate::sys::sparse::SparseReader;
use crate::sys::wire::BoxError;

/// Import, list and remove images.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  bedplate image import node-minimal@1 target/images/node-minimal/disk.img
  bedplate --output json image list
  bedplate image diff node-minimal@1 node-minimal@2")]
pub struct ImageArgs {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Import a raw disk image as a new version; a version never changes
    Import {
        /// The version, NAME@VERSION
        image: ImageRef,
        /// The raw disk image; holes cost nothing
        file: PathBuf,
    },
    /// List every version
    List,
    /// Show one version
    Show {
        /// The version, NAME@VERSION
        image: ImageRef,
    },
    /// Show what one version shares with another, and what would travel
    Diff {
        /// The version that a disk holds
        from: ImageRef,
        /// The version that it is to hold
        to: ImageRef,
    },
    /// Take a version out of the catalogue
    Remove {
        /// The version, NAME@VERSION
        image: ImageRef,
    },
}

/// What an import printed as JSON has.
#[derive(Serialize, Deserialize)]
struct ImportReport {
    #[serde(flatten)]
    imported: Imported,
    seconds: f64,
}

/// Runs the verb through the control API.
pub async fn run(args: ImageArgs, context: &Context) -> Result<Exit, CliError> {
    match args.verb {
        Verb::Import { image, file } => import(&image, &file, context).await?,
        Verb::List => {
            let images: Vec<ImageInfo> = context.api()?.get_json("/api/v1/images").await?;
            context.output.value(&images, |images| {
                let row = |image: &ImageInfo| {
                    let size = ByteSize(image.bytes).to_string();
                    vec![
                        image.name.clone(),
                        image.version.clone(),
                        size,
                        image.root_digest.short(),
                        image.imported.to_string(),
                    ]
                };
                output::table(&["name", "version", "size", "digest", "imported"], images.iter().map(row).collect())
            })?;
        }
        Verb::Show { image } => {
            let info: ImageInfo = context.api()?.get_json(&format!("/api/v1/images/{image}")).await?;
            context.output.value(&info, show)?;
        }
        Verb::Diff { from, to } => {
            let path = format!("/api/v1/images/{to}/diff?from={from}");
            let diff: ImageDiff = context.api()?.get_json(&path).await?;
            context.output.value(&diff, |diff| show_diff(&from, &to, diff))?;
        }
        Verb::Remove { image } => {
            context.api()?.delete(&format!("/api/v1/images/{image}")).await?;
            context.output.value(&serde_json::json!({ "removed": image }), |_| format!("removed {image}"))?;
        }
    }
    Ok(DONE)
}

async fn import(image: &ImageRef, path: &Path, context: &Context) -> Result<(), CliError> {
    let started = Instant::now();
    let reader = open(path)?;
    let api = context.api()?;
    // Asked first, so that a wrong key or address is known before gigabytes are on their way.
    let _: Vec<ImageInfo> = api.get_json("/api/v1/images").await?;
    let bytes = reader.bytes();
    let bar = context.output.byte_bar(bytes, "importing");
    let sent: Result<Imported, CliError> =
        api.put_stream(&format!("/api/v1/images/{image}"), bytes, blocks(reader, bar.clone())).await;
    bar.finish_and_clear();
    let report = ImportReport { imported: sent?, seconds: started.elapsed().as_secs_f64() };
    context.output.value(&report, |report| {
        let verb = if report.imported.existed { "already held" } else { "imported" };
        let size = ByteSize(report.imported.image.bytes);
        let digest = report.imported.image.root_digest;
        format!("{verb} {image}: {size} in {:.1} s, root digest {digest}", report.seconds)
    })
}

/// Opens the file and refuses what is certainly no raw disk image.
fn open(path: &Path) -> Result<SparseReader, CliError> {
    use std::os::unix::fs::FileExt;
    let failed = |error: std::io::Error| CliError::because(format!("read {}", path.display()), &error);
    let file = File::open(path).map_err(failed)?;
    if file.metadata().map_err(failed)?.is_dir() {
        return Err(CliError::failed(format!("{} is a folder", path.display()))
            .hint("name the raw disk image in it, as in target/images/node-minimal/disk.img"));
    }
    let mut head = [0; raw::PEEK_BYTES];
    let mut filled = 0;
    while filled < head.len() {
        match file.read_at(&mut head[filled..], filled as u64).map_err(failed)? {
            0 => break,
            read => filled += read,
        }
    }
    raw::check(&head[..filled])
        .map_err(|reason| CliError::failed(format!("{} is no raw disk image: {reason}", path.display())))?;
    SparseReader::new(file).map_err(failed)
}

/// The file's bytes, a block at a time, read off the disk while the last block is on its way.
fn blocks(reader: SparseReader, bar: ProgressBar) -> impl Stream<Item = Result<Bytes, BoxError>> + Send + 'static {
    stream::try_unfold((reader, bar), |(mut reader, bar)| async move {
        let (block, reader) = tokio::task::spawn_blocking(move || (reader.next_block(), reader)).await?;
        Ok(block?.map(|block| {
            bar.inc(block.len() as u64);
            (block, (reader, bar))
        }))
    })
}

fn show(info: &ImageInfo) -> String {
    format!(
        "name         {}\nversion      {}\nsize         {} ({} bytes)\nroot digest  {}\nimported     {}",
        info.name,
        info.version,
        ByteSize(info.bytes),
        info.bytes,
        info.root_digest,
        info.imported
    )
}

fn show_diff(from: &ImageRef, to: &ImageRef, diff: &ImageDiff) -> String {
    let share = if diff.to.bytes == 0 { 0.0 } else { 100.0 * diff.bytes_shared as f64 / diff.to.bytes as f64 };
    format!(
        "of {to}'s {} in {} chunks, {from} holds {} ({share:.1} %) in {} chunks; {} in {} chunks differ, and {} travel",
        ByteSize(diff.to.bytes),
        diff.chunks_shared + diff.chunks_different,
        ByteSize(diff.bytes_shared),
        diff.chunks_shared,
        ByteSize(diff.bytes_different),
        diff.chunks_different,
        ByteSize(diff.bytes_to_fetch),
    )
}
