//! `bedplate tenant`: who owns buckets.

use serde_json::json;

use crate::auth::Tenant;
use crate::cli::exit::{CliError, DONE, Exit};
use crate::cli::{Context, output};

/// Make tenants, who own buckets.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  bedplate tenant create research\n  bedplate key create --tenant research")]
pub struct TenantArgs {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Make a tenant: it owns the buckets that its keys create, and sees no others
    Create {
        /// Its name: letters, digits, dots, hyphens and underscores
        name: String,
    },
    /// List the tenants
    List,
}

/// Runs the verb through the control API.
pub async fn run(args: TenantArgs, context: &Context) -> Result<Exit, CliError> {
    let api = context.api()?;
    match args.verb {
        Verb::Create { name } => {
            let tenant: Tenant = api.post_json("/api/v1/tenants", &json!({ "name": name })).await?;
            context.output.value(&tenant, |tenant| format!("tenant {} is made", tenant.name))?;
        }
        Verb::List => {
            let tenants: Vec<Tenant> = api.get_json("/api/v1/tenants").await?;
            context.output.value(&tenants, |tenants| {
                let rows = tenants.iter().map(|tenant| vec![tenant.name.clone(), tenant.created.to_string()]);
                output::table(&["tenant", "created"], rows.collect())
            })?;
        }
    }
    Ok(DONE)
}
