//! `bedplate key`: the access keys of tenants.

use serde_json::json;

use crate::auth::{KeyInfo, NewKey};
use crate::cli::exit::{CliError, DONE, Exit};
use crate::cli::{Context, output};

/// Make and list access keys.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  bedplate key create --tenant research
  bedplate key create --tenant research --access-key RESEARCH01 --secret-key \"$SECRET\"
  bedplate --output json key list")]
pub struct KeyArgs {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Make a key for a tenant and print it; the secret is shown only now
    Create {
        /// The tenant
        #[arg(long, value_name = "NAME")]
        tenant: String,
        /// The access key, instead of a random one
        #[arg(long, value_name = "AK", requires = "secret_key")]
        access_key: Option<String>,
        /// The secret key, instead of a random one
        #[arg(
            long,
            value_name = "SK",
            requires = "access_key",
            env = "BEDPLATE_NEW_SECRET_KEY",
            hide_env_values = true
        )]
        secret_key: Option<String>,
    },
    /// List the keys, without their secrets
    List,
}

/// Runs the verb through the control API.
pub async fn run(args: KeyArgs, context: &Context) -> Result<Exit, CliError> {
    let api = context.api()?;
    match args.verb {
        Verb::Create { tenant, access_key, secret_key } => {
            let wanted = json!({ "tenant": tenant, "access_key": access_key, "secret_key": secret_key });
            let key: NewKey = api.post_json("/api/v1/keys", &wanted).await?;
            context
                .output
                .value(&key, |key| format!("access_key  {}\nsecret_key  {}", key.access_key, key.secret_key))?;
        }
        Verb::List => {
            let keys: Vec<KeyInfo> = api.get_json("/api/v1/keys").await?;
            context.output.value(&keys, |keys| {
                let row = |key: &KeyInfo| vec![key.access_key.clone(), key.tenant.clone(), key.created.to_string()];
                output::table(&["access key", "tenant", "created"], keys.iter().map(row).collect())
            })?;
        }
    }
    Ok(DONE)
}
