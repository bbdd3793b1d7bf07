//! `bedplate get`: objects out of the store, into files and folders.

use std::collections::BTreeSet;
use std::fs::File;
use std::os::fd::AsFd as _;
use std::os::unix::fs::FileExt as _;
use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use futures_util::{StreamExt as _, TryStreamExt as _};
use indicatif::ProgressBar;
use object_store::aws::AmazonS3;
use object_store::path::Path;
use object_store::{GetOptions, ObjectMeta, ObjectStore as _, ObjectStoreExt as _};
use serde::Serialize;
use tokio::io::AsyncWriteExt as _;

use crate::cli::Context;
use crate::cli::exit::{CliError, DONE, Exit};
use crate::cli::files::entries_below;
use crate::cli::remote::{self, PART_BYTES, PARTS_ABOVE, Place};
use crate::model::ByteSize;

/// Objects that travel at once.
const OBJECTS_AT_ONCE: usize = 8;
/// Ranges of one object that travel at once.
const RANGES_AT_ONCE: usize = 4;
/// What is added to a file's name until it is whole.
const UNFINISHED: &str = ".bedplate-part";

/// Get objects out of the store.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  bedplate get datasets/models/model.bin
  bedplate get --recursive datasets/v1 ./dataset
  bedplate get --recursive --delete --dry-run datasets/v1 ./dataset
  bedplate get backups/dir.tar - | tar x

A file that is the object already does not travel again, so a get that was interrupted goes on where it was. A file
appears under its name only when it is whole. --delete removes files of the folder that have no object under
BUCKET/PREFIX, once all objects are there, and none if any failed; links are removed and not followed.
--output json ends with bytes_total, bytes_received and seconds.")]
pub struct GetArgs {
    /// What to get: BUCKET[@SNAPSHOT]/KEY, or BUCKET/PREFIX with --recursive
    #[arg(value_name = "BUCKET[@SNAPSHOT]/KEY")]
    source: Place,
    /// The file or folder to write, or - for standard output
    #[arg(default_value = ".")]
    target: PathBuf,
    /// Get all objects under the prefix, each into its path in the folder
    #[arg(long, short)]
    recursive: bool,
    /// Fetch objects even where the file is the same
    #[arg(long)]
    force: bool,
    /// Remove files of the folder that have no object under the prefix
    #[arg(long, requires = "recursive")]
    delete: bool,
    /// Only say what would be fetched and removed
    #[arg(long)]
    dry_run: bool,
}

/// What a get did, or would do.
#[derive(Debug, Serialize)]
struct Summary {
    files: u64,
    files_skipped: u64,
    files_removed: u64,
    bytes_total: u64,
    bytes_received: u64,
    seconds: f64,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    dry_run: bool,
}

/// What one get works with.
struct Fetcher<'a> {
    context: &'a Context,
    store: Arc<AmazonS3>,
    bucket: String,
    force: bool,
    bar: ProgressBar,
    received: AtomicU64,
    skipped: AtomicU64,
}

/// One object and the file that it becomes.
struct Item {
    object: ObjectMeta,
    file: PathBuf,
}

/// Gets, and prints what travelled.
pub async fn run(args: GetArgs, context: &Context) -> Result<Exit, CliError> {
    let started = Instant::now();
    let store = Arc::new(remote::open(context, &args.source.bucket)?);
    let to_stdout = args.target == FilePath::new("-");
    if to_stdout && (args.delete || args.dry_run) {
        return Err(CliError::usage("standard output is no folder: --delete and --dry-run go with one"));
    }
    if args.delete && args.target == FilePath::new(".") {
        return Err(CliError::usage("--delete removes files, and no folder was named")
            .hint("name the folder; this one by its path"));
    }
    let items = collect(&args, context, &store).await?;
    let removable = if args.delete { removable(&args.target, &items)? } else { Vec::new() };
    let bytes_total: u64 = items.iter().map(|item| item.object.size).sum();
    let fetcher = Fetcher {
        context,
        store,
        bucket: args.source.bucket.to_string(),
        force: args.force,
        bar: context.output.byte_bar(bytes_total, "get"),
        received: AtomicU64::new(0),
        skipped: AtomicU64::new(0),
    };
    if to_stdout {
        for item in &items {
            fetcher.to_stdout(&item.object).await?;
        }
        return Ok(DONE);
    }
    let gets = futures_util::stream::iter(&items)
        .map(|item| async { if args.dry_run { fetcher.say(item).await } else { fetcher.get(item).await } });
    gets.buffer_unordered(OBJECTS_AT_ONCE).try_collect::<Vec<()>>().await?;
    fetcher.bar.finish_and_clear();
    if args.dry_run {
        removable.iter().for_each(|file| context.output.say(&format!("remove {}", file.display())));
    } else {
        remove(&args.target, &removable)?;
    }
    let summary = Summary {
        files: items.len() as u64,
        files_skipped: fetcher.skipped.load(Ordering::Relaxed),
        files_removed: removable.len() as u64,
        bytes_total,
        bytes_received: fetcher.received.load(Ordering::Relaxed),
        seconds: started.elapsed().as_secs_f64(),
        dry_run: args.dry_run,
    };
    context.output.value(&summary, |summary| {
        let (received, removed) = (summary.files - summary.files_skipped, summary.files_removed);
        if summary.dry_run {
            return format!("{received} of {} files would be fetched, {removed} removed", summary.files);
        }
        let removed = if removed > 0 { format!(", {removed} removed") } else { String::new() };
        format!(
            "{received} of {} files received, {} of {} in {:.1} s{removed}",
            summary.files,
            ByteSize(summary.bytes_received),
            ByteSize(summary.bytes_total),
            summary.seconds
        )
    })?;
    Ok(DONE)
}

/// The files below the folder that no object becomes.
fn removable(folder: &FilePath, items: &[Item]) -> Result<Vec<PathBuf>, CliError> {
    // What is above a file is kept, too: it may be a link to a folder.
    let kept: BTreeSet<&FilePath> = items.iter().flat_map(|item| item.file.ancestors()).collect();
    Ok(entries_below(folder)?.into_iter().filter(|file| !kept.contains(file.as_path())).collect())
}

/// Removes files, and folders that are empty without them.
fn remove(folder: &FilePath, files: &[PathBuf]) -> Result<(), CliError> {
    for file in files {
        std::fs::remove_file(file).map_err(|error| CliError::because(format!("remove {}", file.display()), &error))?;
        let above = file.ancestors().skip(1).take_while(|above| above.starts_with(folder) && *above != folder);
        for above in above {
            // A folder with something in it stays.
            if std::fs::remove_dir(above).is_err() {
                break;
            }
        }
    }
    Ok(())
}

/// The objects to fetch, and where each goes.
async fn collect(args: &GetArgs, context: &Context, store: &AmazonS3) -> Result<Vec<Item>, CliError> {
    let failed = |error| remote::explain(context, &args.source.to_string(), &error);
    if !args.recursive {
        if args.source.key.is_empty() {
            return Err(
                CliError::usage(format!("{} is a bucket", args.source.bucket)).hint("add --recursive to get all of it")
            );
        }
        let object = store.head(&remote::path(&args.source.key)?).await.map_err(failed)?;
        let name = args.source.key.rsplit('/').next().unwrap_or_default();
        let file = if args.target.is_dir() { args.target.join(name) } else { args.target.clone() };
        return Ok(vec![Item { object, file }]);
    }
    let prefix = remote::path(args.source.key.trim_end_matches('/'))?;
    let objects: Vec<ObjectMeta> = store.list(Some(&prefix)).try_collect().await.map_err(failed)?;
    if objects.is_empty() {
        return Err(CliError::failed(format!("there is nothing under {}", args.source))
            .hint("`bedplate ls BUCKET` shows what a bucket holds"));
    }
    objects
        .into_iter()
        .map(|object| Ok(Item { file: target_of(&args.target, &prefix, &object.location)?, object }))
        .collect()
}

/// The file that an object becomes: its key below the prefix, inside the folder and nowhere else.
fn target_of(folder: &FilePath, prefix: &Path, key: &Path) -> Result<PathBuf, CliError> {
    let rest: Vec<String> =
        key.prefix_match(prefix).map(|parts| parts.map(|part| part.as_ref().to_owned()).collect()).unwrap_or_default();
    if rest.iter().any(|part| matches!(part.as_str(), "." | "..") || part.contains('\0')) {
        return Err(CliError::refused(format!("the key {key} would leave the folder {}", folder.display())));
    }
    Ok(rest.iter().fold(folder.to_owned(), |path, part| path.join(part)))
}

impl Fetcher<'_> {
    fn failed(&self, key: &Path, error: &object_store::Error) -> CliError {
        remote::explain(self.context, &format!("{}/{key}", self.bucket), error)
    }

    /// Whether the file need not be fetched; if so, counts it.
    async fn skips(&self, Item { object, file }: &Item) -> Result<bool, CliError> {
        let skips = !self.force && is_same(object, file).await?;
        if skips {
            self.skipped.fetch_add(1, Ordering::Relaxed);
            self.bar.inc(object.size);
        }
        Ok(skips)
    }

    /// Says what [`Fetcher::get`] would do.
    async fn say(&self, item: &Item) -> Result<(), CliError> {
        if !self.skips(item).await? {
            self.context.output.say(&format!("get {} to {}", item.object.location, item.file.display()));
        }
        Ok(())
    }

    async fn get(&self, item: &Item) -> Result<(), CliError> {
        let (object, file) = (&item.object, &item.file);
        if self.skips(item).await? {
            return Ok(());
        }
        let mut unfinished = file.clone().into_os_string();
        unfinished.push(UNFINISHED);
        let unfinished = PathBuf::from(unfinished);
        let unwritable = |error: std::io::Error| CliError::because(format!("write {}", file.display()), &error);
        if let Some(folder) = file.parent() {
            std::fs::create_dir_all(folder).map_err(unwritable)?;
        }
        let fetched = self.fetch(object, &unfinished).await;
        match fetched {
            Ok(()) => std::fs::rename(&unfinished, file).map_err(unwritable),
            Err(error) => {
                // The error that stopped it is the one to tell.
                drop(std::fs::remove_file(&unfinished));
                Err(error)
            }
        }
    }

    /// Writes the object to `path`, a few ranges at once; the object must stay the one that was listed.
    async fn fetch(&self, object: &ObjectMeta, path: &FilePath) -> Result<(), CliError> {
        let unwritable = |error: std::io::Error| CliError::because(format!("write {}", path.display()), &error);
        let file = Arc::new(File::create(path).map_err(unwritable)?);
        let step = if object.size > PARTS_ABOVE { PART_BYTES } else { object.size.max(1) };
        let starts = (0..object.size).step_by(usize::try_from(step)?);
        let ranges = starts.map(|start| start..(start + step).min(object.size));
        let fetches = futures_util::stream::iter(ranges).map(|range| {
            let file = file.clone();
            async move {
                let options = GetOptions {
                    range: Some(range.clone().into()),
                    if_match: object.e_tag.clone(),
                    ..GetOptions::default()
                };
                let failed = |error| self.failed(&object.location, &error);
                let got = self.store.get_opts(&object.location, options).await.map_err(failed)?;
                let mut pieces = got.into_stream();
                let mut at = range.start;
                while let Some(piece) = pieces.next().await {
                    let piece = piece.map_err(failed)?;
                    let (length, file) = (piece.len() as u64, file.clone());
                    tokio::task::spawn_blocking(move || file.write_all_at(&piece, at)).await?.map_err(unwritable)?;
                    at += length;
                    self.received.fetch_add(length, Ordering::Relaxed);
                    self.bar.inc(length);
                }
                if at == range.end {
                    return Ok(());
                }
                Err(CliError::failed(format!(
                    "{} ended after {at} of {} bytes: get it again",
                    object.location, object.size
                )))
            }
        });
        fetches.buffer_unordered(RANGES_AT_ONCE).try_collect::<Vec<()>>().await.map(drop)
    }

    async fn to_stdout(&self, object: &ObjectMeta) -> Result<(), CliError> {
        let failed = |error| self.failed(&object.location, &error);
        let mut pieces = self.store.get(&object.location).await.map_err(failed)?.into_stream();
        let mut out = remote::standard_stream(std::io::stdout().as_fd())?;
        while let Some(piece) = pieces.next().await {
            out.write_all(&piece.map_err(failed)?).await?;
        }
        Ok(out.flush().await?)
    }
}

/// Whether the file is the object already, as far as its entity tag can tell.
async fn is_same(object: &ObjectMeta, file: &FilePath) -> Result<bool, CliError> {
    let Ok(facts) = std::fs::metadata(file) else { return Ok(false) };
    if !facts.is_file() || facts.len() != object.size {
        return Ok(false);
    }
    let Some(etag) = object.e_tag.clone() else { return Ok(false) };
    let (path, bytes) = (file.to_owned(), object.size);
    let same = tokio::task::spawn_blocking(move || remote::is_same(&path, bytes, &etag)).await?;
    same.map_err(|error| CliError::because(format!("read {}", file.display()), &error))
}

#[cfg(test)]
mod tests {
    //! A key becomes a file below the folder, and never one outside of it.
    use super::*;

    #[test]
    fn keys_stay_in_the_folder() {
        let target = |prefix: &str, key: &str| {
            target_of(FilePath::new("out"), &Path::parse(prefix).unwrap(), &Path::parse(key).unwrap())
        };
        assert_eq!(target("a", "a/b/c").unwrap(), FilePath::new("out/b/c"));
        assert_eq!(target("", "x").unwrap(), FilePath::new("out/x"));
        assert!(Path::parse("a/../b").is_err() || target("a", "a/../b").is_err());
    }
}
