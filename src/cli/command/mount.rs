//! `bedplate mount`: a bucket, or a snapshot of one, as a folder.

use std::io::{BufRead as _, BufReader};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use hyper::Method;
use serde::Serialize;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

use super::serve::period;
use crate::cli::config::size;
use crate::cli::context::Credentials;
use crate::cli::exit::{CliError, DONE, Exit};
use crate::cli::{Context, fstab, remote};
use crate::model::BucketName;
use crate::model::Secret;
use crate::mount::{self, Cache, Marker, Mount, MountSettings};
use crate::pull::{Appliance, Login, query_value};
use crate::sys::{process, wire};
use crate::telemetry::log;

/// How long files that are open are waited for when the mount is to end.
const PARTING: Duration = Duration::from_secs(10);
/// Memory for reads ahead, in bytes.
const READ_AHEAD: usize = 128 * 1024 * 1024;

/// Mount a bucket, or a snapshot of one, as a folder
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  bedplate mount datasets@v1 /mnt/datasets --allow-other
  bedplate mount datasets/images /mnt/images --background
  bedplate mount checkpoints /mnt/checkpoints --read-write
  umount /mnt/images

A snapshot never changes, and the kernel keeps what it has read of it. A bucket is looked at again whenever a file is opened.
Bytes come from the cache of this node, which all mounts share, or travel compressed and are checked here.")]
pub struct MountArgs {
    /// What to mount
    #[arg(value_name = "BUCKET[@SNAPSHOT][/PREFIX]")]
    place: String,
    /// The folder to mount it on
    #[arg(value_name = "DIR")]
    folder: PathBuf,
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
    /// How long an appliance that is away is waited for before a read fails
    #[arg(long, default_value = "60s", value_name = "TIME")]
    patience: String,
    /// A file with BEDPLATE_ACCESS_KEY=… and BEDPLATE_SECRET_KEY=…, instead of the environment
    #[arg(long, value_name = "FILE")]
    credentials: Option<PathBuf>,
    /// Return once it is mounted, and go on beside
    #[arg(long)]
    background: bool,
}

#[derive(Debug, Serialize)]
struct Mounted {
    bucket: String,
    folder: PathBuf,
}

/// Mounts, and serves the mount until it is unmounted, or until SIGTERM or SIGINT.
pub async fn run(args: MountArgs, context: &Context) -> Result<Exit, CliError> {
    if args.background {
        return in_background();
    }
    log::init("info,fuser=error", false);
    wire::install_crypto();
    process::raise_open_files();
    let mut context = context.clone();
    context.given = args.credentials.as_deref().map(credentials_in).transpose()?;
    let context = &context;
    let (bucket, prefix) = split(&args.place)?;
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
    let key = context.credentials()?;
    let login = Login::Key { access_key: key.access_key, secret_key: key.secret_key };
    let appliance = Appliance::new(&context.url, context.pin, &login)?;
    let s3 = Arc::new(remote::open(context, &bucket)?);
    check(context, bucket.as_str(), &prefix, &s3).await?;
    let settings = MountSettings {
        bucket: bucket.to_string(),
        prefix,
        uid: args.uid.unwrap_or_else(process::user),
        gid: args.gid.unwrap_or_else(process::group),
        mode: mode(args.mode.as_deref().unwrap_or(if args.read_write { "0644" } else { "0444" }))?,
        marker: args.read_write.then(|| marker(context, bucket.as_str())),
        allow_other: args.allow_other,
        patience,
        read_ahead: READ_AHEAD,
    };
    let mounted = Mount::new(&args.folder, settings, appliance, s3, cache.transpose()?).map_err(|error| {
        CliError::because(format!("mount on {}", args.folder.display()), &error)
            .hint("the folder must exist, and this user must be root or have fusermount3 (package fuse3)")
    })?;
    let folder = args.folder;
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

/// What puts and removes the empty objects that stand for folders: the client library has no keys that end with a slash.
fn marker(context: &Context, bucket: &str) -> Marker {
    let (context, bucket) = (context.clone(), bucket.to_owned());
    Arc::new(move |key, is_there| {
        let (context, bucket) = (context.clone(), bucket.clone());
        Box::pin(async move {
            let method = if is_there { Method::PUT } else { Method::DELETE };
            let key: Vec<String> = key.split('/').map(query_value).collect();
            let answer = remote::signed(&context, method, &format!("/{bucket}/{}", key.join("/"))).await;
            answer.map(|(status, _)| status.as_u16()).map_err(|error| error.message)
        })
    })
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

/// Finds out now whether the bucket can be read.
async fn check(
    context: &Context,
    bucket: &str,
    prefix: &str,
    s3: &Arc<object_store::aws::AmazonS3>,
) -> Result<(), CliError> {
    let asked = mount::probe(s3.clone(), prefix, Duration::ZERO).await;
    asked.map_err(|error| remote::explain(context, bucket, &error))
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
