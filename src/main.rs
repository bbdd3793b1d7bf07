//! The operator's and the appliance's binary: parse, build, run, exit code.

use std::process::ExitCode;

use clap::Parser as _;

/// Many threads make and free small things for each request, and the C library's allocator takes a fifth of a small request's time.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Threads at least that cut, encode, and wait for disks. More of them than that share the cores no better, and each has a stack.
const BLOCKING_MIN: usize = 32;

fn main() -> ExitCode {
    let args = bedplate::cli::Args::parse_from(bedplate::cli::fstab::arguments());
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime.enable_all().max_blocking_threads(BLOCKING_MIN.max(4 * cores)).build();
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
