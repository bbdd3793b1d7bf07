//! The project's own chores, one file a command. This one parses and dispatches.

mod bench;
mod clients;
mod demo;
mod fuzz;
mod image;
mod install;
mod lab;
mod served;
mod shell;
mod sim;
mod test;
mod tidy;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// The project's own chores.
#[derive(Parser)]
#[command(name = "cargo xtask")]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Measure: our figure, the rivals' and the physical limit in one run
    Bench(bench::Arguments),
    /// Run real S3 clients, as their registries carry them, against a running server
    Clients(clients::Arguments),
    /// Play the main job on a virtual rack, from bare machines to data read back
    Demo(demo::Arguments),
    /// Throw made-up bytes at every decoder, and keep what breaks one
    Fuzz(fuzz::Arguments),
    /// Build or verify an image from its recipe in images/
    Image(image::Arguments),
    /// Bring up or take down a virtual rack: QEMU machines behind Redfish emulators
    Lab(lab::Arguments),
    /// Run seeds of the store's simulation: power cuts, full disks and lies of disks against a plain model
    Sim(sim::Arguments),
    /// Check everything that must hold; what CI runs
    Test(test::TestArgs),
    /// Check the rules of the tree that no compiler checks
    Tidy,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().unwrap_or_default();
    let outcome = match args.command {
        Command::Bench(args) => bench::run(&args),
        Command::Clients(args) => clients::run(&root, &args),
        Command::Demo(args) => demo::run(&args),
        Command::Fuzz(args) => fuzz::run(&args),
        Command::Image(args) => image::run(&args),
        Command::Lab(args) => lab::run(&args),
        Command::Sim(args) => sim::run(&root, &args),
        Command::Test(args) => test::run(&root, &args),
        Command::Tidy => tidy::run(&root),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
