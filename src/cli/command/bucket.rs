//! `bedplate bucket`: make, list and remove buckets.

use hyper::Method;
use serde::Serialize;

use crate::cli::exit::{CliError, DONE, Exit};
use crate::cli::{Context, output, remote};
use crate::model::BucketName;

/// Make, list and remove buckets.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  bedplate bucket create datasets
  bedplate bucket list --output json
  bedplate bucket remove datasets")]
pub struct BucketArgs {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Make a bucket; one that you own already is left as it is
    Create {
        /// Its name
        name: BucketName,
    },
    /// List the buckets that you may use
    List,
    /// Remove an empty bucket
    Remove {
        /// Its name
        name: BucketName,
    },
}

/// A bucket, as lists show it.
#[derive(Debug, Serialize)]
pub struct BucketLine {
    /// Its name.
    pub name: String,
    /// When it was made.
    pub created: String,
}

/// Runs the verb against S3.
pub async fn run(args: BucketArgs, context: &Context) -> Result<Exit, CliError> {
    match args.verb {
        Verb::Create { name } => {
            let (status, body) = remote::signed(context, Method::PUT, &format!("/{name}")).await?;
            let text = String::from_utf8_lossy(&body);
            let mine = remote::element(&text, "Code") == Some("BucketAlreadyOwnedByYou");
            if !status.is_success() && !mine {
                return Err(remote::refusal(&format!("make the bucket {name}"), status, &body));
            }
            let said = if mine { "was there already" } else { "is made" };
            context
                .output
                .value(&serde_json::json!({ "name": name, "existed": mine }), |_| format!("bucket {name} {said}"))?;
        }
        Verb::List => {
            let buckets = list(context).await?;
            context.output.value(&buckets, |buckets| {
                let row = |bucket: &BucketLine| vec![bucket.name.clone(), bucket.created.clone()];
                output::table(&["bucket", "created"], buckets.iter().map(row).collect())
            })?;
        }
        Verb::Remove { name } => {
            let (status, body) = remote::signed(context, Method::DELETE, &format!("/{name}")).await?;
            if !status.is_success() {
                return Err(remote::refusal(&format!("remove the bucket {name}"), status, &body));
            }
            context.output.value(&serde_json::json!({ "name": name }), |_| format!("bucket {name} is removed"))?;
        }
    }
    Ok(DONE)
}

/// The buckets that the caller may use.
pub(super) async fn list(context: &Context) -> Result<Vec<BucketLine>, CliError> {
    let (status, body) = remote::signed(context, Method::GET, "/").await?;
    if !status.is_success() {
        return Err(remote::refusal("list the buckets", status, &body));
    }
    let text = String::from_utf8_lossy(&body);
    let entries = text.split("<Bucket>").skip(1).filter_map(|entry| {
        let of = |name| remote::element(entry, name).map(ToOwned::to_owned);
        Some(BucketLine { name: of("Name")?, created: of("CreationDate").unwrap_or_default() })
    });
    Ok(entries.collect())
}
