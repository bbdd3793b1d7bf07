//! `bedplate ls`: buckets, and what is in them.

use futures_util::TryStreamExt as _;
use object_store::{ObjectMeta, ObjectStore as _};
use serde::Serialize;

use super::bucket;
use crate::cli::exit::{CliError, DONE, Exit};
use crate::cli::remote::{self, Place};
use crate::cli::{Context, output};
use crate::model::ByteSize;
use crate::sys::clock::Timestamp;

/// List buckets, or what is in one.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  bedplate ls
  bedplate ls datasets
  bedplate ls --recursive datasets/v1")]
pub struct LsArgs {
    /// A bucket, or a folder in one; without it, the buckets are listed
    #[arg(value_name = "BUCKET[@SNAPSHOT][/PREFIX]")]
    place: Option<Place>,
    /// List all objects below, not only this folder's
    #[arg(long, short)]
    recursive: bool,
}

/// What a folder holds.
#[derive(Debug, Serialize)]
struct Listing {
    prefixes: Vec<String>,
    objects: Vec<Object>,
}

#[derive(Debug, Serialize)]
struct Object {
    key: String,
    bytes: u64,
    modified: String,
    etag: Option<String>,
}

/// Lists.
pub async fn run(args: LsArgs, context: &Context) -> Result<Exit, CliError> {
    let Some(place) = args.place else {
        let buckets = bucket::list(context).await?;
        context.output.value(&buckets, |buckets| {
            let row = |bucket: &bucket::BucketLine| vec![bucket.name.clone(), bucket.created.clone()];
            output::table(&["bucket", "created"], buckets.iter().map(row).collect())
        })?;
        return Ok(DONE);
    };
    let store = remote::open(context, &place.bucket)?;
    let prefix = remote::path(place.key.trim_end_matches('/'))?;
    let failed = |error| remote::explain(context, &place.to_string(), &error);
    let listing = if args.recursive {
        let objects: Vec<ObjectMeta> = store.list(Some(&prefix)).try_collect().await.map_err(failed)?;
        Listing { prefixes: Vec::new(), objects: objects.into_iter().map(object).collect() }
    } else {
        let found = store.list_with_delimiter(Some(&prefix)).await.map_err(failed)?;
        Listing {
            prefixes: found.common_prefixes.iter().map(|prefix| format!("{prefix}/")).collect(),
            objects: found.objects.into_iter().map(object).collect(),
        }
    };
    context.output.value(&listing, show)?;
    Ok(DONE)
}

fn object(found: ObjectMeta) -> Object {
    Object {
        key: found.location.to_string(),
        bytes: found.size,
        modified: Timestamp(u64::try_from(found.last_modified.timestamp_millis()).unwrap_or(0)).to_string(),
        etag: found.e_tag.map(|tag| tag.trim_matches('"').to_owned()),
    }
}

fn show(listing: &Listing) -> String {
    let prefixes = listing.prefixes.iter().map(|prefix| vec![prefix.clone(), String::new(), String::new()]);
    let objects = listing
        .objects
        .iter()
        .map(|object| vec![object.key.clone(), ByteSize(object.bytes).to_string(), object.modified.clone()]);
    output::table(&["key", "size", "modified"], prefixes.chain(objects).collect())
}
