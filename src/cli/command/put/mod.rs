//! `bedplate put`: files and folders into the store.

mod mirror;
mod over_s3;
mod push;

use std::collections::BTreeMap;
use std::os::fd::AsFd as _;
use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use futures_util::{StreamExt as _, TryStreamExt as _};
use indicatif::ProgressBar;
use object_store::ObjectStoreExt as _;
use object_store::aws::AmazonS3;
use serde::Serialize;

use self::mirror::Listed;
use crate::cli::Context;
use crate::cli::exit::{CliError, DONE, Exit};
use crate::cli::files::{FileBelow, files_below};
use crate::cli::remote::{self, Place};
use crate::model::ByteSize;
use crate::push::{GroupFile, PushFile, Pusher};
use crate::sys::worker::blocking;

/// Files, or groups of small ones, that travel at once.
const FILES_AT_ONCE: usize = 8;
/// Files that are compared with what is there at once.
const COMPARED_AT_ONCE: usize = 4;

/// Put files and folders into the store.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  bedplate put model.bin datasets/models/model.bin
  bedplate put --recursive ./dataset datasets/v1
  bedplate put --recursive --delete --dry-run ./dataset datasets/v1
  tar c dir | bedplate put - backups/dir.tar

A file that is there already, with the same content, does not travel again. Of the others only chunks travel that the
store lacks, compressed, and of a chunk that differs little from the object that is there only the difference: this needs the control API (--url) beside S3. What is cut off goes on where it was when it is
put again. Files below 64 KiB, and all files for buckets that encrypt by default, travel whole, over S3.

--delete removes what is under BUCKET/KEY and not in the folder, once all files are there, and nothing if any failed.
--output json ends with bytes_total, bytes_sent, bytes_known (which the store had) and seconds.")]
pub struct PutArgs {
    /// A file, a folder (with --recursive), or - for standard input
    source: PathBuf,
    /// Where to: BUCKET/KEY; a key that ends with / (or none) takes the file's name
    #[arg(value_name = "BUCKET/KEY")]
    target: Place,
    /// Put a folder's files, each under KEY/ and its path in the folder
    #[arg(long, short)]
    recursive: bool,
    /// Send files even where the same is there
    #[arg(long)]
    force: bool,
    /// Remove objects under KEY/ that the folder does not have
    #[arg(long, requires = "recursive")]
    delete: bool,
    /// Only say what would be sent and removed
    #[arg(long)]
    dry_run: bool,
}

/// What a put did, or would do.
#[derive(Debug, Serialize)]
struct Summary {
    files: u64,
    files_skipped: u64,
    files_removed: u64,
    bytes_total: u64,
    bytes_sent: u64,
    bytes_known: u64,
    bytes_received: u64,
    seconds: f64,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    dry_run: bool,
}

/// What one put works with.
struct Sender<'a> {
    context: &'a Context,
    store: Arc<AmazonS3>,
    bucket: String,
    bar: ProgressBar,
    /// Bytes that went over S3.
    sent: AtomicU64,
    /// What sends new chunks only, where the appliance takes that.
    pusher: Option<Pusher>,
}

/// A file that is not there as it is now.
#[derive(Clone, Copy)]
struct Fresh<'a> {
    item: &'a FileBelow,
    /// How long the object is that is there in its place.
    old: Option<u64>,
}

/// One thing to send.
enum Load<'a> {
    /// A file whole, over S3.
    Whole(&'a FileBelow),
    /// A file's new chunks, and how long the object is that is there now.
    Chunks(&'a FileBelow, Option<u64>),
    /// The new chunks of several small files.
    Group(Vec<GroupFile>),
}

/// Puts, and prints what travelled.
pub async fn run(args: PutArgs, context: &Context) -> Result<Exit, CliError> {
    let started = Instant::now();
    let from_stdin = args.source == FilePath::new("-");
    if from_stdin && (args.target.key.is_empty() || args.target.key.ends_with('/')) {
        return Err(CliError::usage("standard input has no name: give the whole BUCKET/KEY"));
    }
    if args.delete && !args.source.is_dir() {
        return Err(CliError::usage(format!("{} is no folder to compare with", args.source.display()))
            .hint("--delete goes with --recursive and a folder"));
    }
    let items = if from_stdin { Vec::new() } else { collect(&args)? };
    if args.delete && items.is_empty() {
        return Err(CliError::refused(format!(
            "{} has no files, and --delete would remove all of {}",
            args.source.display(),
            args.target
        ))
        .hint("is its disk mounted? `bedplate rm --recursive` removes on purpose"));
    }
    let store = Arc::new(remote::open(context, &args.target.bucket)?);
    let listed = mirror::listed(&args, context, &store).await?;
    let fresh = fresh(&args, context, &store, &items, listed.as_ref()).await?;
    let removable = match &listed {
        Some(listed) if args.delete => mirror::removable(listed, &items, &args),
        _ => Vec::new(),
    };
    let bytes_total = items.iter().map(|item| item.bytes).sum();
    let mut summary = Summary {
        files: if from_stdin { 1 } else { items.len() as u64 },
        files_skipped: (items.len() - fresh.len()) as u64,
        files_removed: removable.len() as u64,
        bytes_total,
        bytes_sent: 0,
        bytes_known: 0,
        bytes_received: 0,
        seconds: 0.0,
        dry_run: args.dry_run,
    };
    if args.dry_run {
        fresh
            .iter()
            .for_each(|Fresh { item, .. }| context.output.say(&format!("put {} to {}", item.file.display(), item.key)));
        removable.iter().for_each(|key| context.output.say(&format!("remove {key}")));
        return tell(context, &summary);
    }
    let bar = context.output.byte_bar(bytes_total, "put");
    bar.inc(bytes_total - fresh.iter().map(|Fresh { item, .. }| item.bytes).sum::<u64>());
    let example = if from_stdin { Some(args.target.key.as_str()) } else { push::example(&fresh) };
    let pusher = push::open(context, &args.target, example, &bar).await?;
    let bucket = args.target.bucket.to_string();
    let sender = Sender { context, store: store.clone(), bucket, bar, sent: AtomicU64::new(0), pusher };
    if from_stdin {
        summary.bytes_total = sender.standard_input(&args.target.key).await?;
    } else {
        let loads = push::loads(&fresh, sender.pusher.is_some());
        let sends = futures_util::stream::iter(&loads).map(|load| sender.send(load));
        sends.buffer_unordered(FILES_AT_ONCE).try_collect::<Vec<()>>().await?;
    }
    sender.bar.finish_and_clear();
    mirror::remove(context, &args, &store, removable).await?;
    (summary.bytes_sent, summary.bytes_known, summary.bytes_received) = sender.moved();
    summary.seconds = started.elapsed().as_secs_f64();
    tell(context, &summary)
}

fn tell(context: &Context, summary: &Summary) -> Result<Exit, CliError> {
    context.output.value(summary, |summary| {
        let (sent, removed) = (summary.files - summary.files_skipped, summary.files_removed);
        if summary.dry_run {
            return format!("{sent} of {} files would be sent, {removed} objects removed", summary.files);
        }
        let removed = if removed > 0 { format!(", {removed} objects removed") } else { String::new() };
        format!(
            "{sent} of {} files sent, {} for {} ({} known to the store) in {:.1} s{removed}",
            summary.files,
            ByteSize(summary.bytes_sent),
            ByteSize(summary.bytes_total),
            ByteSize(summary.bytes_known),
            summary.seconds
        )
    })?;
    Ok(DONE)
}

/// The files to send, by name.
fn collect(args: &PutArgs) -> Result<Vec<FileBelow>, CliError> {
    if args.source.is_dir() && !args.recursive {
        let text = format!("{} is a folder", args.source.display());
        return Err(CliError::usage(text).hint("add --recursive to put the files in it"));
    }
    let mut files = files_below(&args.source, &args.target.key)?;
    for file in &mut files {
        // As S3's way of sending writes it, so that a file has one key whichever way it travels.
        file.key = remote::path(&file.key)?.to_string();
    }
    Ok(files)
}

/// The files that are not there with the same content, in order.
async fn fresh<'a>(
    args: &PutArgs,
    context: &Context,
    store: &AmazonS3,
    items: &'a [FileBelow],
    listed: Option<&BTreeMap<String, Listed>>,
) -> Result<Vec<Fresh<'a>>, CliError> {
    if args.force {
        return Ok(items.iter().map(|item| Fresh { item, old: None }).collect());
    }
    let bucket = &args.target.bucket;
    let compare = futures_util::stream::iter(items).map(|item| async move {
        let found = match listed {
            Some(listed) => listed.get(remote::path(&item.key)?.as_ref()).cloned(),
            None => match store.head(&remote::path(&item.key)?).await {
                Ok(found) => Some(Listed { size: found.size, etag: found.e_tag }),
                Err(object_store::Error::NotFound { .. }) => None,
                Err(error) => return Err(remote::explain(context, &format!("{bucket}/{}", item.key), &error)),
            },
        };
        let Some(Listed { size, etag: Some(etag) }) = found else {
            return Ok(Some(Fresh { item, old: None }));
        };
        let fresh = Fresh { item, old: Some(size) };
        if size != item.bytes {
            return Ok(Some(fresh));
        }
        let file = item.file.clone();
        let same = blocking(move || remote::is_same(&file, size, &etag)).await?;
        let same = same.map_err(|error| CliError::because(format!("read {}", item.file.display()), &error))?;
        Ok((!same).then_some(fresh))
    });
    let compared: Vec<Option<Fresh<'_>>> = compare.buffered(COMPARED_AT_ONCE).try_collect().await?;
    Ok(compared.into_iter().flatten().collect())
}

impl Sender<'_> {
    fn failed(&self, key: &str, error: &object_store::Error) -> CliError {
        remote::explain(self.context, &format!("{}/{key}", self.bucket), error)
    }

    /// Bytes that travelled, bytes that did not have to, and bytes of what the store told to save them.
    fn moved(&self) -> (u64, u64, u64) {
        let over_s3 = self.sent.load(Ordering::Relaxed);
        match &self.pusher {
            Some(pusher) => {
                let door = pusher.door();
                (over_s3 + door.bytes_sent(), pusher.tally().known(), door.bytes_received())
            }
            None => (over_s3, 0, 0),
        }
    }

    async fn send(&self, load: &Load<'_>) -> Result<(), CliError> {
        match (load, &self.pusher) {
            (Load::Whole(item), _) | (Load::Chunks(item, _), None) => self.whole(item).await,
            (Load::Chunks(item, old), Some(pusher)) => push::file(pusher, item, *old).await,
            (Load::Group(files), Some(pusher)) => pusher.push_group(files).await.map_err(|error| push::failed(&error)),
            // Groups are made for a pusher.
            (Load::Group(_), None) => Ok(()),
        }
    }

    /// Puts what comes on standard input; answers how much it was.
    async fn standard_input(&self, key: &str) -> Result<u64, CliError> {
        let Some(pusher) = &self.pusher else {
            self.in_parts(remote::standard_stream(std::io::stdin().as_fd())?, key).await?;
            return Ok(self.sent.load(Ordering::Relaxed));
        };
        let input = std::fs::File::from(std::io::stdin().as_fd().try_clone_to_owned()?);
        let name = push::fresh_name();
        let file = PushFile { key, what: "standard input", bytes: 0, name: &name, old: None };
        let pushed = pusher.push(input, &file).await;
        pushed.map_err(|error| push::failed(&error))?;
        Ok(pusher.tally().done())
    }
}
