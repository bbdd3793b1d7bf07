//! `bedplate rm`: objects out of the store, for good.

use futures_util::{StreamExt as _, TryStreamExt as _};
use object_store::{ObjectStore as _, ObjectStoreExt as _};

use crate::cli::Context;
use crate::cli::exit::{CliError, DONE, Exit};
use crate::cli::remote::{self, Place};

/// Remove objects.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  bedplate rm datasets/v1/readme.txt
  bedplate rm --recursive --yes datasets/v1

Without --yes, --recursive only says what it would remove (exit code 4).")]
pub struct RmArgs {
    /// What to remove: BUCKET/KEY, or BUCKET[/PREFIX] with --recursive
    #[arg(value_name = "BUCKET/KEY")]
    place: Place,
    /// Remove all objects below
    #[arg(long, short)]
    recursive: bool,
    /// Do it without asking
    #[arg(long)]
    yes: bool,
}

/// Removes, and prints how many.
pub async fn run(args: RmArgs, context: &Context) -> Result<Exit, CliError> {
    let store = remote::open(context, &args.place.bucket)?;
    let failed = |error| remote::explain(context, &args.place.to_string(), &error);
    let removed = if args.recursive {
        let prefix = remote::path(args.place.key.trim_end_matches('/'))?;
        let keys: Vec<_> =
            store.list(Some(&prefix)).map_ok(|object| object.location).try_collect().await.map_err(failed)?;
        if !args.yes && !keys.is_empty() {
            return Err(CliError::refused(format!(
                "{} objects under {} would be removed for good",
                keys.len(),
                args.place
            ))
            .hint("add --yes to remove them"));
        }
        let count = keys.len();
        let keys = futures_util::stream::iter(keys.into_iter().map(Ok)).boxed();
        store.delete_stream(keys).try_collect::<Vec<_>>().await.map_err(failed)?;
        count
    } else {
        if args.place.key.is_empty() {
            return Err(CliError::usage(format!("{} is a bucket", args.place.bucket))
                .hint("name a key, or empty the bucket with --recursive, then `bedplate bucket remove` it"));
        }
        let path = remote::path(&args.place.key)?;
        store.head(&path).await.map_err(failed)?;
        store.delete(&path).await.map_err(failed)?;
        1
    };
    context.output.value(&serde_json::json!({ "removed": removed }), |_| format!("{removed} removed"))?;
    Ok(DONE)
}
