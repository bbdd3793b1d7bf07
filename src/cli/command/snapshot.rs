//! `bedplate snapshot`: keep a bucket as it is, compare, and branch off.

use serde_json::json;

use crate::cli::exit::{CliError, DONE, Exit, REFUSED};
use crate::cli::{Context, output};
use crate::model::{BucketName, ByteSize, SnapshotName};
use crate::store::{BucketInfo, ChangeKind, SnapshotDiff, SnapshotInfo};

/// Keep buckets as they are, compare, and branch off.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  bedplate snapshot create datasets 2026-11-27
  bedplate snapshot create datasets nightly-42 --keep-days 30
  bedplate get datasets@2026-11-27/train/ ./train --recursive
  bedplate snapshot diff datasets@2026-11-27 datasets
  bedplate snapshot branch datasets@2026-11-27 experiment-7
  bedplate snapshot remove datasets 2026-11-27 --yes")]
pub struct SnapshotArgs {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Keep a bucket as it is now; at once, whatever it holds. Read it as BUCKET@NAME
    Create {
        /// The bucket
        bucket: BucketName,
        /// The snapshot's name: letters, digits, dots, hyphens and underscores
        name: SnapshotName,
        /// Days after which it goes by itself; for good without
        #[arg(long, value_name = "N")]
        keep_days: Option<u64>,
    },
    /// List a bucket's snapshots, the oldest first
    List {
        /// The bucket
        bucket: BucketName,
    },
    /// Remove a snapshot; garbage collection then frees what only it kept
    Remove {
        /// The bucket
        bucket: BucketName,
        /// The snapshot's name
        name: SnapshotName,
        /// Do it: what only the snapshot holds is lost
        #[arg(long)]
        yes: bool,
    },
    /// Show what changed from one snapshot, or bucket, to another
    Diff {
        /// The first
        #[arg(value_name = "BUCKET@A", value_parser = BucketName::parse_readable)]
        from: BucketName,
        /// The second
        #[arg(value_name = "BUCKET[@B]", value_parser = BucketName::parse_readable)]
        to: BucketName,
        /// Changes to list; all are counted
        #[arg(long, value_name = "N", default_value_t = 1_000)]
        limit: usize,
    },
    /// Make a bucket that begins as a snapshot and can be written; nothing is copied
    Branch {
        /// The snapshot
        #[arg(value_name = "BUCKET@NAME", value_parser = BucketName::parse_readable)]
        snapshot: BucketName,
        /// The new bucket
        #[arg(value_name = "NEWBUCKET")]
        bucket: BucketName,
    },
}

/// Runs the verb through the control API.
pub async fn run(args: SnapshotArgs, context: &Context) -> Result<Exit, CliError> {
    let api = context.api()?;
    let of = |bucket: &BucketName| format!("/api/v1/buckets/{bucket}/snapshots");
    match args.verb {
        Verb::Create { bucket, name, keep_days } => {
            let body = json!({ "name": name, "keep_days": keep_days });
            let made: SnapshotInfo = api.post_json(&of(&bucket), &body).await?;
            context.output.value(&made, |made| {
                let until = made.expires.map(|expires| format!(", kept until {expires}")).unwrap_or_default();
                format!("snapshot {}@{} is made{until}", made.bucket, made.name)
            })?;
        }
        Verb::List { bucket } => {
            let found: Vec<SnapshotInfo> = api.get_json(&of(&bucket)).await?;
            context.output.value(&found, |found| {
                let rows = found.iter().map(|snapshot| {
                    let expires = snapshot.expires.map_or_else(|| "never".to_owned(), |expires| expires.to_string());
                    let branches: Vec<_> = snapshot.branches.iter().map(BucketName::as_str).collect();
                    vec![snapshot.name.to_string(), snapshot.created.to_string(), expires, branches.join(" ")]
                });
                output::table(&["snapshot", "created", "expires", "branches"], rows.collect())
            })?;
        }
        Verb::Remove { bucket, name, yes: false } => {
            context.output.error(
                &CliError::failed(format!("{bucket}@{name} is kept: what only the snapshot holds would be lost")).hint(
                    format!(
                        "`bedplate snapshot diff {bucket}@{name} {bucket}` shows what that is; say --yes to remove it"
                    ),
                ),
            );
            return Ok(REFUSED);
        }
        Verb::Remove { bucket, name, yes: true } => {
            api.delete(&format!("{}/{name}", of(&bucket))).await?;
            let gone = json!({ "bucket": bucket, "name": name });
            context.output.value(&gone, |_| format!("snapshot {bucket}@{name} is removed"))?;
        }
        Verb::Diff { from, to, limit } => {
            let path = format!("/api/v1/snapshots/diff?from={from}&to={to}&limit={limit}");
            let diff: SnapshotDiff = api.get_json(&path).await?;
            context.output.value(&diff, show_diff)?;
        }
        Verb::Branch { snapshot, bucket } => {
            let Some((origin, name)) = snapshot.snapshot() else {
                return Err(CliError::usage(format!("{snapshot} is a bucket, and branches begin as snapshots")).hint(
                    format!("`bedplate snapshot create {snapshot} NAME` makes one; then branch {snapshot}@NAME"),
                ));
            };
            let path = format!("{}/{name}/branches", of(&origin));
            let made: BucketInfo = api.post_json(&path, &json!({ "bucket": bucket })).await?;
            context.output.value(&made, |made| format!("bucket {} is made, and begins as {snapshot}", made.name))?;
        }
    }
    Ok(DONE)
}

fn show_diff(diff: &SnapshotDiff) -> String {
    let mut text = String::new();
    for change in &diff.changes {
        let sign = match change.kind {
            ChangeKind::Added => '+',
            ChangeKind::Changed => '~',
            ChangeKind::Removed => '-',
        };
        text.push_str(&format!("{sign} {} ({})\n", change.key, ByteSize(change.bytes)));
    }
    if diff.truncated {
        text.push_str("... there are more; --limit lists more of them\n");
    }
    let of = |count: u64, bytes: u64| format!("{count} ({})", ByteSize(bytes));
    text.push_str(&format!(
        "from {} to {}: {} added, {} changed, {} removed",
        diff.from,
        diff.to,
        of(diff.added, diff.added_bytes),
        of(diff.changed, diff.changed_bytes),
        of(diff.removed, diff.removed_bytes),
    ));
    text
}
