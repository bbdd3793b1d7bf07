//! `bedplate man`: the manual pages, one a command.

use std::path::PathBuf;

use clap::CommandFactory as _;

use crate::cli::exit::{CliError, DONE, Exit};
use crate::cli::{Args, Context};

/// Write the manual pages.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  bedplate man | man -l -\n  bedplate man --dir /usr/local/share/man/man1")]
pub struct ManArgs {
    /// Write one page a command into this folder, instead of the first page to standard output
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
}

/// Writes the pages.
pub async fn run(args: ManArgs, context: &Context) -> Result<Exit, CliError> {
    match args.dir {
        Some(dir) => {
            std::fs::create_dir_all(&dir)
                .and_then(|()| clap_mangen::generate_to(Args::command(), &dir))
                .map_err(|error| CliError::because(format!("write manual pages to {}", dir.display()), &error))?;
        }
        None => {
            let mut page = Vec::new();
            clap_mangen::Man::new(Args::command()).render(&mut page)?;
            context.output.bytes(&page)?;
        }
    }
    Ok(DONE)
}
