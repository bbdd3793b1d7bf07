//! The command line: one file a command; each builds a value, and `output` prints it.

pub mod api_client;
pub mod args;
pub mod command;
pub mod config;
pub mod context;
pub mod exit;
pub mod files;
pub mod fstab;
pub mod output;
pub mod remote;

pub use api_client::ApiClient;
pub use args::{Args, Command};
pub use context::Context;
pub use exit::{CliError, Exit};
pub use output::Output;

/// Runs the command that `args` name, prints its error where it fails, and answers its exit code.
pub async fn run(args: Args) -> Exit {
    let output = Output::new(args.global.output);
    let ended = match Context::new(args.global) {
        Ok(context) => Box::pin(dispatch(args.command, &context)).await,
        Err(error) => Err(error),
    };
    ended.unwrap_or_else(|error| {
        output.error(&error);
        error.exit
    })
}

async fn dispatch(command: Command, context: &Context) -> Result<Exit, CliError> {
    match command {
        Command::Serve(args) => command::serve::run(args, context).await,
        Command::Image(args) => command::image::run(args, context).await,
        Command::Rack(args) => command::rack::run(args, context).await,
        Command::Node(args) => command::node::run(args, context).await,
        Command::Bmc(args) => command::bmc::run(args, context).await,
        Command::Bucket(args) => command::bucket::run(args, context).await,
        Command::Snapshot(args) => command::snapshot::run(args, context).await,
        Command::Put(args) => command::put::run(args, context).await,
        Command::Get(args) => command::get::run(args, context).await,
        Command::Ls(args) => command::ls::run(args, context).await,
        Command::Mount(args) => command::mount::run(args, context).await,
        Command::Rm(args) => command::rm::run(args, context).await,
        Command::Store(args) => command::store::run(args, context).await,
        Command::Tenant(args) => command::tenant::run(args, context).await,
        Command::Key(args) => command::key::run(args, context).await,
        Command::Completions(args) => command::completions::run(args, context).await,
        Command::Man(args) => command::man::run(args, context).await,
    }
}
