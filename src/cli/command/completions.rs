//! `bedplate completions`: the grammar as a shell's completion script.

use clap::CommandFactory as _;
use clap_complete::Shell;

use crate::cli::exit::{CliError, DONE, Exit};
use crate::cli::{Args, Context};

/// Write completions for a shell.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  bedplate completions bash > /etc/bash_completion.d/bedplate")]
pub struct CompletionsArgs {
    /// The shell
    pub shell: Shell,
}

/// Writes the script to standard output.
pub async fn run(args: CompletionsArgs, context: &Context) -> Result<Exit, CliError> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Args::command(), "bedplate", &mut script);
    context.output.bytes(&script)?;
    Ok(DONE)
}
