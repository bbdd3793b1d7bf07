//! `bedplate key`: the access keys of tenants.

use serde_json::json;

use super::serve::period;
use crate::auth::{self, KeyInfo, NewKey};
use crate::cli::api_client::encode_segment;
use crate::cli::exit::{CliError, DONE, Exit};
use crate::cli::{Context, output};
use crate::meta::Embedded;
use crate::sys::clock::Timestamp;

/// Make, list, disable and remove access keys.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  bedplate key create --tenant research
  bedplate key create --tenant research --user ann --expires-in 12h
  bedplate key create --tenant research --access-key RESEARCH01 --secret-key \"$SECRET\"
  bedplate --output json key list
  bedplate key disable RESEARCH01

To replace a key, make another for the same user, let its programs use it, disable the old one, and remove it when
nobody has missed it. What a key signs, and the sessions made with it, are refused from the moment it is disabled,
removed or expired.")]
pub struct KeyArgs {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Make a key for a tenant and print it; the secret is shown only now
    Create(CreateArgs),
    /// List the keys, without their secrets
    List,
    /// Refuse what a key signs, until it is enabled again
    Disable {
        /// The access key
        #[arg(value_name = "ACCESS_KEY")]
        access_key: String,
    },
    /// Enable a key that was disabled
    Enable {
        /// The access key
        #[arg(value_name = "ACCESS_KEY")]
        access_key: String,
    },
    /// Remove a key for good
    Remove {
        /// The access key
        #[arg(value_name = "ACCESS_KEY")]
        access_key: String,
    },
    /// Remove every key but root's, while no appliance runs: the way on when the master key is lost
    ForgetAll {
        /// Really do it: every tenant needs new keys afterwards
        #[arg(long)]
        yes: bool,
    },
}

#[derive(Debug, clap::Args)]
struct CreateArgs {
    /// The tenant
    #[arg(long, value_name = "NAME")]
    tenant: String,
    /// A user of the tenant [default: its root user]
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
    /// When the key ends by itself, as in 2026-12-31T00:00:00Z
    #[arg(long, value_name = "TIME", conflicts_with = "expires_in")]
    expires: Option<Timestamp>,
    /// The same, counted from now, as in 90m, 12h or 30d
    #[arg(long, value_name = "TIME")]
    expires_in: Option<String>,
    /// The access key, instead of a random one
    #[arg(long, value_name = "AK", requires = "secret_key")]
    access_key: Option<String>,
    /// The secret key, instead of a random one
    #[arg(long, value_name = "SK", requires = "access_key", env = "BEDPLATE_NEW_SECRET_KEY", hide_env_values = true)]
    secret_key: Option<String>,
}

/// Runs the verb through the control API.
pub async fn run(args: KeyArgs, context: &Context) -> Result<Exit, CliError> {
    match args.verb {
        Verb::Create(args) => create(args, context).await?,
        Verb::List => {
            let keys: Vec<KeyInfo> = context.api()?.get_json("/api/v1/keys").await?;
            context.output.value(&keys, |keys| {
                let heads = ["access key", "tenant", "user", "state", "expires", "created"];
                output::table(&heads, keys.iter().map(row).collect())
            })?;
        }
        Verb::Disable { access_key } => change(&access_key, "disable", "disabled", context).await?,
        Verb::Enable { access_key } => change(&access_key, "enable", "enabled", context).await?,
        Verb::Remove { access_key } => {
            context.api()?.delete(&format!("/api/v1/keys/{}", encode_segment(&access_key))).await?;
            let removed = json!({ "removed": access_key });
            context.output.value(&removed, |_| format!("key {access_key} is removed"))?;
        }
        Verb::ForgetAll { yes } => forget_all(yes, context).await?,
    }
    Ok(DONE)
}

async fn create(args: CreateArgs, context: &Context) -> Result<(), CliError> {
    let expires_in = match args.expires_in.as_deref() {
        Some(text) => period(text)?.map(|period| period.as_secs()),
        None => None,
    };
    let wanted = json!({
        "tenant": args.tenant,
        "user": args.user,
        "access_key": args.access_key,
        "secret_key": args.secret_key,
        "expires": args.expires,
        "expires_in": expires_in,
    });
    let key: NewKey = context.api()?.post_json("/api/v1/keys", &wanted).await?;
    context.output.value(&key, |key| {
        let mut text = format!("access_key  {}\nsecret_key  {}", key.access_key, key.secret_key);
        if let Some(expires) = key.expires {
            text.push_str(&format!("\nexpires     {expires}"));
        }
        text
    })
}

async fn change(access_key: &str, verb: &str, done: &str, context: &Context) -> Result<(), CliError> {
    let path = format!("/api/v1/keys/{}/{verb}", encode_segment(access_key));
    let key: KeyInfo = context.api()?.post_json(&path, &json!({})).await?;
    context.output.value(&key, |key| format!("key {} is {done}", key.access_key))
}

async fn forget_all(yes: bool, context: &Context) -> Result<(), CliError> {
    if !yes {
        return Err(CliError::refused("every key of every tenant would be removed for good")
            .hint("give --yes where the master key is lost; `bedplate key remove` removes one key"));
    }
    if !context.data.join("meta").exists() {
        return Err(CliError::failed(format!("{} is no data folder", context.data.display()))
            .hint("name the appliance's data folder with --data"));
    }
    let meta = Embedded::open_with(&context.data.join("meta"), context.config.serve.reserve()?)?;
    let outcome = auth::forget_keys(&*meta).await;
    meta.close().await;
    let removed = outcome?;
    context.output.value(&json!({ "removed": removed }), |_| format!("{removed} keys are removed"))
}

fn row(key: &KeyInfo) -> Vec<String> {
    let state = serde_json::to_value(key.state).ok();
    let state = state.as_ref().and_then(serde_json::Value::as_str).unwrap_or_default();
    vec![
        key.access_key.clone(),
        key.tenant.clone(),
        key.user.clone().unwrap_or_default(),
        state.to_owned(),
        key.expires.map(|expires| expires.to_string()).unwrap_or_default(),
        key.created.to_string(),
    ]
}
