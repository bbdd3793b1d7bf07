//! The operator's and the appliance's binary: parse, build, run, exit code.

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    bedplate::sys::memory::keep_freed();
    let args = bedplate::cli::Args::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let exit = match runtime {
        Ok(runtime) => runtime.block_on(bedplate::cli::run(args)),
        Err(error) => {
            let output = bedplate::cli::Output::new(args.global.output);
            output.error(&bedplate::cli::CliError::because("start the runtime", &error));
            bedplate::cli::exit::FAILED
        }
    };
    ExitCode::from(exit.0)
}
