//! `put --delete`: what is under the prefix and not in the folder goes, once all that is in the folder is there.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::{StreamExt as _, TryStreamExt as _};
use object_store::aws::AmazonS3;
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore as _};

use super::PutArgs;
use crate::cli::Context;
use crate::cli::exit::CliError;
use crate::cli::files::FileBelow;
use crate::cli::remote;

/// What is known of an object in a list.
#[derive(Clone)]
pub(super) struct Listed {
    pub(super) size: u64,
    pub(super) etag: Option<String>,
}

/// What is under the prefix of a folder's put, by key; nothing for a single file, or where nobody needs it.
pub(super) async fn listed(
    args: &PutArgs,
    context: &Context,
    store: &AmazonS3,
) -> Result<Option<BTreeMap<String, Listed>>, CliError> {
    if !args.recursive || !args.source.is_dir() || args.force && !args.delete {
        return Ok(None);
    }
    let prefix = prefix(args)?;
    let objects = store
        .list(Some(&prefix))
        .map_ok(|ObjectMeta { location, size, e_tag, .. }| (location.to_string(), Listed { size, etag: e_tag }));
    objects.try_collect().await.map(Some).map_err(|error| remote::explain(context, &args.target.to_string(), &error))
}

fn prefix(args: &PutArgs) -> Result<Path, CliError> {
    remote::path(args.target.key.trim_end_matches('/'))
}

/// The objects that the folder does not have. The mark of a folder that is there, an empty object by its name, stays.
pub(super) fn removable(listed: &BTreeMap<String, Listed>, items: &[FileBelow], args: &PutArgs) -> Vec<String> {
    let kept: BTreeSet<&str> = items.iter().map(|item| item.key.trim_matches('/')).collect();
    let prefix = args.target.key.trim_matches('/');
    let is_folder = |key: &str| {
        let below = key.strip_prefix(prefix).unwrap_or(key).trim_start_matches('/');
        args.source.join(below).is_dir()
    };
    // Links to folders are not followed: what was put from behind one is not gone.
    let is_linked = |key: &str| {
        let below = std::path::Path::new(key.strip_prefix(prefix).unwrap_or(key).trim_start_matches('/'));
        below.ancestors().skip(1).any(|above| !above.as_os_str().is_empty() && args.source.join(above).is_symlink())
    };
    let gone = listed
        .iter()
        .filter(|(key, object)| !(kept.contains(key.as_str()) || object.size == 0 && is_folder(key) || is_linked(key)));
    gone.map(|(key, _)| key.clone()).collect()
}

/// Removes them.
pub(super) async fn remove(
    context: &Context,
    args: &PutArgs,
    store: &AmazonS3,
    keys: Vec<String>,
) -> Result<(), CliError> {
    let paths = keys.iter().map(|key| remote::path(key)).collect::<Result<Vec<_>, _>>()?;
    let paths = futures_util::stream::iter(paths.into_iter().map(Ok)).boxed();
    let removed = store.delete_stream(paths).try_collect::<Vec<_>>().await;
    removed.map(drop).map_err(|error| remote::explain(context, &args.target.to_string(), &error))
}
