//! `bedplate mount`: a bucket, or a snapshot of one, as a folder.

use std::io::{BufRead as _, BufReader};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

use super::serve::period;
use crate::cli::config::size;
use crate::cli::context::Credentials;
use crate::cli::exit::{CliError, DONE, Exit};
use crate::cli::{Context, fstab, remote};
use crate::model::Secret;
use crate::model::{BucketName, ByteSize};
use crate::mount::{self, Bucket, BucketError, Cache, Figures, Mount, MountSettings, STATISTICS_FILE};
use crate::pull::{Appliance, Login, ObjectSource, Patience};
use crate::sys::{process, wire};
use crate::telemetry::log;

/// How long files that are open are waited for when the mount is to end.
const PARTING: Duration = Duration::from_secs(10);
/// Memory for reads ahead, in bytes.
const READ_AHEAD: usize = 64 * 1024 * 1024;

/// Mount a bucket, or a snapshot of one, as a folder
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  bedplate mount datasets@v1 /mnt/datasets --allow-other
  bedplate mount datasets/images /mnt/images --background
  bedplate mount checkpoints /mnt/checkpoints --read-write
  bedplate mount --stats /mnt/datasets
  umount /mnt/images

A snapshot never changes, and the kernel keeps what it has read of it. A bucket is looked at again whenever a file is opened.
Bytes come from the cache of this node, which all mounts share, or travel compressed and are checked here.")]
pub struct MountArgs {
    /// What to mount
    #[arg(value_name = "BUCKET[@SNAPSHOT][/PREFIX]", required_unless_present = "stats")]
    place: Option<String>,
    /// The folder to mount it on
    #[arg(value_name = "DIR", required_unless_present = "stats")]
    folder: Option<PathBuf>,
    /// Mount nothing, and tell what the mount on this folder has done so far
    #[arg(long, value_name = "DIR", conflicts_with_all = ["place", "folder"])]
    stats: Option<PathBuf>,
    /// Where this node keeps chunks [default: bedplate in $XDG_CACHE_HOME or ~/.cache]
    #[arg(long, value_name = "DIR")]
    cache: Option<PathBuf>,
    /// How much it keeps there; 0 keeps nothing
    #[arg(long, value_name = "SIZE", default_value = "10GiB")]
    cache_size: String,
    /// Let other users than this one enter
    #[arg(long)]
    allow_other: bool,
    /// Owner of everything in the mount [default: this user]
    #[arg(long)]
    uid: Option<u32>,
    /// Group of everything in the mount [default: this user's]
    #[arg(long)]
    gid: Option<u32>,
    /// Permissions of files, in octal; folders may be entered by whoever may read [default: 0444, or 0644 with --read-write]
    #[arg(long, value_name = "OCTAL")]
    mode: Option<String>,
    /// Refuse writes, as is the default
    #[arg(long, conflicts_with = "read_write")]
    read_only: bool,
    /// Let files be made, replaced, renamed and removed; not in a snapshot
    #[arg(long)]
    read_write: bool,
    /// Refuse to run programs that are in it
    #[arg(long)]
    no_exec: bool,
    /// How long an appliance that is away is waited for before a read fails
    #[arg(long, default_value = "60s", value_name = "TIME")]
    patience: String,
    /// A file with BEDPLATE_ACCESS_KEY=… and BEDPLATE_SECRET_KEY=…, instead of the environment
    #[arg(long, value_name = "FILE")]
    credentials: Option<PathBuf>,
    /// Return once it is mounted, and go on beside
    #[arg(long)]
    background: bool,
    /// An option of /etc/fstab that is none of ours
    #[arg(long, hide = true)]
    unknown_option: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Mounted {
    bucket: String,
    folder: PathBuf,
}

/// Mounts, and serves the mount until it is unmounted, or until SIGTERM or SIGINT.
pub async fn run(args: MountArgs, context: &Context) -> Result<Exit, CliError> {
    if let Some(folder) = &args.stats {
        return tell(folder, context);
    }
    if let Some(option) = args.unknown_option.first() {
        return Err(CliError::usage(format!("there is no mount option {option:?}"))
            .hint("docs/operating.md lists those that a line of /etc/fstab may have"));
    }
    if args.background {
        return in_background();
    }
    // Both are there unless statistics were asked for.
    let (place, folder) = (args.place.unwrap_or_default(), args.folder.unwrap_or_default());
    log::init("info,fuser=error", false);
    wire::install_crypto();
    process::raise_open_files();
    let mut context = context.clone();
    context.given = args.credentials.as_deref().map(credentials_in).transpose()?;
    let context = &context;
    let (bucket, prefix) = split(&place)?;
    if args.read_write && bucket.snapshot().is_some() {
        return Err(CliError::usage("a snapshot never changes")
            .hint("mount it with --read-only, or branch it and mount the branch"));
    }
    let patience = period(&args.patience)?.ok_or_else(|| CliError::usage("--patience has an end: write 60s"))?;
    let cache_bytes = size(&args.cache_size)?;
    let cache = (cache_bytes > 0).then(|| {
        let folder = args.cache.clone().unwrap_or_else(mount::default_cache);
        Cache::open(&folder, cache_bytes).map_err(|error| {
            CliError::because(format!("use the cache {}", folder.display()), &error).hint("name another with --cache")
        })
    });
    let own = context.credentials()?;
    let login = Login::Key { access_key: own.access_key.clone(), secret_key: own.secret_key.clone() };
    let appliance = Appliance::new(&context.url, context.pin, &login)?;
    let s3 = Arc::new(remote::open(context, &bucket)?);
    let names = Bucket::new(&context.s3_url, &bucket, (&own.access_key, &own.secret_key), patience)?;
    names.impatient().probe().await.map_err(|error| unlisted(context, bucket.as_str(), &error))?;
    let source = ObjectSource::new(appliance.clone(), bucket.as_str(), Patience::For(patience));
    let snapshot = if bucket.snapshot().is_some() { Some(source.snapshot_name().await?) } else { None };
    let settings = MountSettings {
        bucket: bucket.to_string(),
        snapshot,
        prefix,
        uid: args.uid.unwrap_or_else(process::user),
        gid: args.gid.unwrap_or_else(process::group),
        mode: mode(args.mode.as_deref().unwrap_or(if args.read_write { "0644" } else { "0444" }))?,
        is_read_only: !args.read_write,
        may_execute: !args.no_exec,
        allow_other: args.allow_other,
        patience,
        read_ahead: READ_AHEAD,
    };
    let mounted = Mount::new(&folder, settings, appliance, names, s3, cache.transpose()?).map_err(|error| {
        CliError::because(format!("mount on {}", folder.display()), &error)
            .hint("the folder must exist, and this user must be root or have fusermount3 (package fuse3)")
    })?;
    context.output.value(&Mounted { bucket: bucket.to_string(), folder: folder.clone() }, |it| {
        format!("{} is mounted on {}", it.bucket, it.folder.display())
    })?;
    serve(mounted, &folder, context).await
}

/// The key in a credentials file.
fn credentials_in(file: &Path) -> Result<Credentials, CliError> {
    let text = std::fs::read_to_string(file)
        .map_err(|error| CliError::because(format!("read the credentials {}", file.display()), &error))?;
    let value = |name: &str| {
        let line = text.lines().find_map(|line| line.trim().strip_prefix(name)?.strip_prefix('='));
        line.map(|value| value.trim_matches(['"', '\'', ' ']).to_owned())
            .ok_or_else(|| CliError::usage(format!("{} has no line {name}=…", file.display())))
    };
    let secret_key = Secret::new(value("BEDPLATE_SECRET_KEY")?);
    Ok(Credentials { access_key: value("BEDPLATE_ACCESS_KEY")?, secret_key })
}

fn mode(text: &str) -> Result<u16, CliError> {
    let mode = u16::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o777);
    mode.ok_or_else(|| CliError::usage(format!("{text:?} is not a mode: write 0444")))
}

/// Why a bucket cannot be listed, in people's words.
fn unlisted(context: &Context, bucket: &str, error: &BucketError) -> CliError {
    match error {
        BucketError::Refused { status, .. } if status.as_u16() == 404 => {
            CliError::failed(format!("there is no {bucket}")).hint("`bedplate ls` lists buckets")
        }
        BucketError::Refused { status, .. } if matches!(status.as_u16(), 401 | 403) => {
            CliError::because(format!("list {bucket}"), error)
                .hint("check BEDPLATE_ACCESS_KEY and BEDPLATE_SECRET_KEY, and whose the bucket is")
        }
        _ => CliError::because(format!("reach {bucket} at {}", context.s3_url), error)
            .hint("check that `bedplate serve` runs there, or name another address with --s3-url"),
    }
}

/// Tells what the mount on a folder has done so far.
fn tell(folder: &Path, context: &Context) -> Result<Exit, CliError> {
    let file = folder.join(STATISTICS_FILE);
    let failed = |error: &(dyn std::error::Error + 'static)| {
        CliError::because(format!("read {}", file.display()), error)
            .hint("name the folder that `bedplate mount` mounted on, as a user who may enter it")
    };
    let text = std::fs::read_to_string(&file).map_err(|error| failed(&error))?;
    let figures: Figures = serde_json::from_str(&text).map_err(|error| failed(&error))?;
    context.output.value(&figures, in_words)?;
    Ok(DONE)
}

fn in_words(figures: &Figures) -> String {
    let looked_up = figures.cache_hits + figures.cache_misses;
    let percent = (figures.cache_hits * 100).checked_div(looked_up).unwrap_or(0);
    [
        format!("read        {}", ByteSize(figures.read_bytes)),
        format!("written     {}", ByteSize(figures.written_bytes)),
        format!("from cache  {} ({percent} % of {looked_up} chunks)", ByteSize(figures.cache_bytes)),
        format!("network     {} in {} requests", ByteSize(figures.network_bytes), figures.requests),
        format!("errors      {}", figures.errors),
        format!("open        {} files; {} names known", figures.open_files, figures.known_names),
        format!("mounted     {} s", figures.seconds),
    ]
    .join("\n")
}

/// Serves until the mount is gone.
async fn serve(mut mounted: Mount, folder: &Path, context: &Context) -> Result<Exit, CliError> {
    let mut unmounter = mounted.unmounter();
    let listen = |kind| signal(kind).map_err(|error| CliError::because("listen for signals", &error));
    let (mut terminate, mut interrupt) = (listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?);
    let mut told = async || tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} };
    let (tell, mut served) = oneshot::channel();
    // A thread of its own: it stays with the kernel for as long as files are open, which this program need not.
    std::thread::spawn(move || drop(tell.send(mounted.serve())));
    let ended = tokio::select! {
        ended = &mut served => Some(ended),
        () = told() => {
            let unmounted = tokio::task::spawn_blocking(move || unmounter.unmount()).await?;
            if unmounted.is_err() {
                process::detach(folder).map_err(|error| {
                    CliError::because(format!("unmount {}", folder.display()), &error)
                        .hint("close what has files open in it, and unmount it with umount")
                })?;
                let seconds = PARTING.as_secs();
                context.output.say(&format!("files are still open; this ends when they are closed, or in {seconds} s"));
            }
            tokio::select! {
                ended = &mut served => Some(ended),
                () = tokio::time::sleep(PARTING) => None,
                () = told() => None,
            }
        }
    };
    if let Some(Ok(served)) = ended {
        served?.stop().await;
    }
    Ok(DONE)
}

/// Starts this program once more without `--background`, and waits until it says that it has mounted.
fn in_background() -> Result<Exit, CliError> {
    let failed = |error: std::io::Error| CliError::because("start the mount in the background", &error);
    let args = fstab::arguments().into_iter().skip(1).filter(|arg| arg != "--background");
    let mut child = std::process::Command::new(std::env::current_exe().map_err(failed)?)
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .process_group(0)
        .spawn()
        .map_err(failed)?;
    let mut line = String::new();
    if let Some(stdout) = child.stdout.take() {
        BufReader::new(stdout).read_line(&mut line).map_err(failed)?;
    }
    if line.is_empty() {
        let code = child.wait().map_err(failed)?.code().and_then(|code| u8::try_from(code).ok());
        return Ok(Exit(code.unwrap_or(1)));
    }
    Ok(DONE)
}

/// Bucket and prefix of `BUCKET[@SNAPSHOT][/PREFIX]`; the prefix is empty or ends with a slash.
fn split(place: &str) -> Result<(BucketName, String), CliError> {
    let (bucket, prefix) = place.split_once('/').unwrap_or((place, ""));
    let bucket = BucketName::parse_readable(bucket).map_err(|error| CliError::usage(error.to_string()))?;
    let prefix = prefix.trim_matches('/');
    Ok((bucket, if prefix.is_empty() { String::new() } else { format!("{prefix}/") }))
}

#[cfg(test)]
mod tests {
    //! Places are read as people write them.
    use super::*;

    #[test]
    fn places() {
        let of = |text: &str| split(text).map(|(bucket, prefix)| (bucket.to_string(), prefix)).unwrap();
        assert_eq!(of("data"), ("data".to_owned(), String::new()));
        assert_eq!(of("data@v1/a/b/"), ("data@v1".to_owned(), "a/b/".to_owned()));
        assert!(split("Bad_Name").is_err());
    }
}
