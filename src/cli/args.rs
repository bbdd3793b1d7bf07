//! The command line's grammar.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

use super::command;
use super::output::Format;

const EXIT_CODES: &str = "\
Exit codes:
  0  what was asked is done
  1  it failed; the message says why and what to do
  2  the command line, or a file that it names, is not understood
  3  the plan has changes to make (plan --detailed-exitcode)
  4  refused for safety

Commands sign with BEDPLATE_ACCESS_KEY and BEDPLATE_SECRET_KEY, or else with the root key in the data folder.";

/// Turns a powered rack of bare GPU servers into imaged, verified nodes, then serves them their data.
#[derive(Debug, Parser)]
#[command(name = "bedplate", version, after_help = EXIT_CODES, max_term_width = 100, disable_help_subcommand = true)]
pub struct Args {
    /// What every command takes.
    #[command(flatten)]
    pub global: GlobalArgs,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What every command takes.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Global options")]
pub struct GlobalArgs {
    /// How to print: for people, or one JSON document for programs
    #[arg(long, global = true, value_enum, default_value_t, env = "BEDPLATE_OUTPUT")]
    pub output: Format,
    /// Configuration file (config/bedplate.toml documents every key)
    #[arg(long, global = true, value_name = "FILE", env = "BEDPLATE_CONFIG")]
    pub config: Option<PathBuf>,
    /// Address of the appliance's control API [default: http://127.0.0.1:9100]
    #[arg(long, global = true, value_name = "URL", env = "BEDPLATE_URL")]
    pub url: Option<String>,
    /// Address of the appliance's S3 [default: http://127.0.0.1:9000]
    #[arg(long, global = true, value_name = "URL", env = "BEDPLATE_S3_URL")]
    pub s3_url: Option<String>,
    /// SHA-256 of the appliance's certificate, needed with an https address
    #[arg(long, global = true, value_name = "SHA256", env = "BEDPLATE_PIN")]
    pub pin: Option<String>,
    /// The data folder [default: ./bedplate-data]
    #[arg(long, global = true, value_name = "DIR", env = "BEDPLATE_DATA")]
    pub data: Option<PathBuf>,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the appliance: S3, the control API, the agent's endpoint and boot media
    Serve(command::serve::ServeArgs),
    /// Import, list and remove images
    Image(command::image::ImageArgs),
    /// Bring racks to what their spec says: survey, plan, apply, status
    Rack(command::rack::RackArgs),
    /// Look at single nodes, switch their power and their identify light
    Node(command::node::NodeArgs),
    /// Look at a BMC: what its machine is made of, and what it can do
    Bmc(command::bmc::BmcArgs),
    /// Make, list and remove buckets
    Bucket(command::bucket::BucketArgs),
    /// Keep buckets as they are, compare, and branch off
    Snapshot(command::snapshot::SnapshotArgs),
    /// Put files and folders into the store
    Put(command::put::PutArgs),
    /// Get objects out of the store
    Get(command::get::GetArgs),
    /// List buckets, or what is in one
    Ls(command::ls::LsArgs),
    /// Mount a bucket, or a snapshot of one, as a folder
    Mount(command::mount::MountArgs),
    /// Remove objects
    Rm(command::rm::RmArgs),
    /// Figures of the store, whether it is sound, and garbage collection
    Store(command::store::StoreArgs),
    /// Make tenants, who own buckets
    Tenant(command::tenant::TenantArgs),
    /// Make and list access keys
    Key(command::key::KeyArgs),
    /// Write completions for a shell
    Completions(command::completions::CompletionsArgs),
    /// Write the manual pages
    Man(command::man::ManArgs),
}

#[cfg(test)]
mod tests {
    //! The grammar has no contradictions, and every command explains itself.
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn grammar_is_sound() {
        Args::command().debug_assert();
        let mut grammar = Args::command();
        for command in grammar.get_subcommands_mut() {
            assert!(command.get_about().is_some(), "{} says nothing", command.get_name());
        }
    }

    #[test]
    fn exit_codes_are_documented() {
        let help = Args::command().render_long_help().to_string();
        for line in ["0  what", "1  it failed", "2  the command", "3  the plan", "4  refused"] {
            assert!(help.contains(line), "{line}");
        }
    }
}
