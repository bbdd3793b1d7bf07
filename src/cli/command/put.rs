//! `bedplate put`: files and folders into the store.

use std::os::fd::AsFd as _;
use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt as _, TryStreamExt as _};
use indicatif::ProgressBar;
use object_store::aws::AmazonS3;
use object_store::{MultipartUpload, ObjectStoreExt as _, PutPayload};
use serde::Serialize;
use tokio::io::{AsyncRead, AsyncReadExt as _};

use crate::cli::Context;
use crate::cli::exit::{CliError, DONE, Exit};
use crate::cli::files::{FileBelow, files_below};
use crate::cli::remote::{self, PART_BYTES, PARTS_ABOVE, Place};
use crate::model::ByteSize;

/// Files that travel at once.
const FILES_AT_ONCE: usize = 8;
/// Parts of one file that travel at once.
const PARTS_AT_ONCE: usize = 4;

/// Put files and folders into the store.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  bedplate put model.bin datasets/models/model.bin
  bedplate put --recursive ./dataset datasets/v1
  tar c dir | bedplate put - backups/dir.tar

A file whose length and entity tag are those of the object that is there does not travel again, so a put that was
interrupted goes on where it was. --output json ends with bytes_total, bytes_sent and seconds.")]
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
}

/// What a put did.
#[derive(Debug, Serialize)]
struct Summary {
    files: u64,
    files_skipped: u64,
    bytes_total: u64,
    bytes_sent: u64,
    seconds: f64,
}

/// What one put works with.
struct Sender<'a> {
    context: &'a Context,
    store: Arc<AmazonS3>,
    bucket: String,
    force: bool,
    bar: ProgressBar,
    sent: AtomicU64,
    skipped: AtomicU64,
}

/// Puts, and prints what travelled.
pub async fn run(args: PutArgs, context: &Context) -> Result<Exit, CliError> {
    let started = Instant::now();
    let from_stdin = args.source == FilePath::new("-");
    let items = if from_stdin { Vec::new() } else { collect(&args)? };
    let bytes_total: u64 = items.iter().map(|item| item.bytes).sum();
    let sender = Sender {
        context,
        store: Arc::new(remote::open(context, &args.target.bucket)?),
        bucket: args.target.bucket.to_string(),
        force: args.force,
        bar: context.output.byte_bar(bytes_total, "put"),
        sent: AtomicU64::new(0),
        skipped: AtomicU64::new(0),
    };
    let files = if from_stdin {
        if args.target.key.is_empty() || args.target.key.ends_with('/') {
            return Err(CliError::usage("standard input has no name: give the whole BUCKET/KEY"));
        }
        sender.in_parts(remote::standard_stream(std::io::stdin().as_fd())?, &args.target.key).await?;
        1
    } else {
        let sends = futures_util::stream::iter(&items).map(|item| sender.put(item));
        sends.buffer_unordered(FILES_AT_ONCE).try_collect::<Vec<()>>().await?;
        items.len() as u64
    };
    sender.bar.finish_and_clear();
    let bytes_sent = sender.sent.load(Ordering::Relaxed);
    let summary = Summary {
        files,
        files_skipped: sender.skipped.load(Ordering::Relaxed),
        bytes_total: if from_stdin { bytes_sent } else { bytes_total },
        bytes_sent,
        seconds: started.elapsed().as_secs_f64(),
    };
    context.output.value(&summary, |summary| {
        format!(
            "{} of {} files sent, {} of {} in {:.1} s",
            summary.files - summary.files_skipped,
            summary.files,
            ByteSize(summary.bytes_sent),
            ByteSize(summary.bytes_total),
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
    files_below(&args.source, &args.target.key)
}

impl Sender<'_> {
    fn failed(&self, key: &str, error: &object_store::Error) -> CliError {
        remote::explain(self.context, &format!("{}/{key}", self.bucket), error)
    }

    async fn put(&self, item: &FileBelow) -> Result<(), CliError> {
        let unreadable = |error: std::io::Error| CliError::because(format!("read {}", item.file.display()), &error);
        if !self.force && self.is_there(item).await? {
            self.skipped.fetch_add(1, Ordering::Relaxed);
            self.bar.inc(item.bytes);
            return Ok(());
        }
        if item.bytes > PARTS_ABOVE {
            return self.in_parts(tokio::fs::File::open(&item.file).await.map_err(unreadable)?, &item.key).await;
        }
        let bytes: Bytes = tokio::fs::read(&item.file).await.map_err(unreadable)?.into();
        let length = bytes.len() as u64;
        let path = remote::path(&item.key)?;
        self.store.put(&path, bytes.into()).await.map_err(|error| self.failed(&item.key, &error))?;
        self.count(length);
        Ok(())
    }

    fn count(&self, bytes: u64) {
        self.sent.fetch_add(bytes, Ordering::Relaxed);
        self.bar.inc(bytes);
    }

    /// Whether the object that is there is this file.
    async fn is_there(&self, item: &FileBelow) -> Result<bool, CliError> {
        let found = match self.store.head(&remote::path(&item.key)?).await {
            Ok(found) => found,
            Err(object_store::Error::NotFound { .. }) => return Ok(false),
            Err(error) => return Err(self.failed(&item.key, &error)),
        };
        if found.size != item.bytes {
            return Ok(false);
        }
        let (file, bytes) = (item.file.clone(), item.bytes);
        let tag = tokio::task::spawn_blocking(move || remote::entity_tag(&file, bytes)).await?;
        let tag = tag.map_err(|error| CliError::because(format!("read {}", item.file.display()), &error))?;
        Ok(found.e_tag.is_some_and(|there| there.trim_matches('"') == tag))
    }

    /// Sends in parts of equal length, a few at once; a failure leaves nothing behind.
    async fn in_parts(&self, mut input: impl AsyncRead + Unpin, key: &str) -> Result<(), CliError> {
        let path = remote::path(key)?;
        let mut upload = self.store.put_multipart(&path).await.map_err(|error| self.failed(key, &error))?;
        let ended = match self.send_parts(upload.as_mut(), &mut input, key).await {
            Ok(()) => upload.complete().await.map(drop).map_err(|error| self.failed(key, &error)),
            Err(error) => Err(error),
        };
        if ended.is_err() {
            // The first error is the one to tell; an upload that stays open holds no object.
            drop(upload.abort().await);
        }
        ended
    }

    async fn send_parts(
        &self,
        upload: &mut dyn MultipartUpload,
        input: &mut (impl AsyncRead + Unpin),
        key: &str,
    ) -> Result<(), CliError> {
        let mut under_way = futures_util::stream::FuturesUnordered::new();
        let mut first = true;
        loop {
            let part = read_part(input).await.map_err(|error| CliError::because("read the source", &error))?;
            let length = part.len() as u64;
            if length == 0 && !first {
                break;
            }
            first = false;
            let sending = upload.put_part(PutPayload::from(part));
            under_way.push(async move { sending.await.map(|()| length) });
            while under_way.len() >= PARTS_AT_ONCE || (length < PART_BYTES && !under_way.is_empty()) {
                let Some(done) = under_way.next().await else { break };
                self.count(done.map_err(|error| self.failed(key, &error))?);
            }
            if length < PART_BYTES {
                break;
            }
        }
        while let Some(done) = under_way.next().await {
            self.count(done.map_err(|error| self.failed(key, &error))?);
        }
        Ok(())
    }
}

/// One part, shorter than the others only at the end.
async fn read_part(input: &mut (impl AsyncRead + Unpin)) -> std::io::Result<Bytes> {
    let mut part = BytesMut::with_capacity(1 << 20);
    let mut rest = input.take(PART_BYTES);
    while rest.read_buf(&mut part).await? > 0 {
        part.reserve(64 * 1024);
    }
    Ok(part.freeze())
}
