//! The node's agent: PID 1 in the boot image, or a command on a running system.

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;

use bedplate::model::{ImageRef, Secret};
use bedplate::node::command::{self, CommandError, WriteRequest};
use bedplate::node::report::{self, Gauge};
use bedplate::node::{self, console};
use bedplate::pull::{Appliance, Login, with_causes};
use bedplate::sys::worker::Workers;
use bedplate::sys::{process, wire};
use clap::{Args, Parser, Subcommand};

const FAILED: u8 = 1;
const REFUSED: u8 = 4;

/// Writes a verified image to a disk. As the first process of the boot image it installs what the appliance ordered.
#[derive(Parser)]
#[command(name = "bedplate-agent", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Write an image to a disk of this machine and read it back; prints figures as JSON
    Write(WriteArgs),
    /// Tell the appliance that this installed system has booted; its seed volume says where
    Report,
}

#[derive(Args)]
struct WriteArgs {
    /// The appliance's control address, as in `https://10.0.0.1:9100`
    #[arg(long)]
    url: String,
    /// The image, NAME@VERSION
    #[arg(long)]
    image: ImageRef,
    /// The disk, all of whose data is lost
    #[arg(long)]
    disk: PathBuf,
    /// Let `--disk` name a file
    #[arg(long)]
    allow_file: bool,
    /// SHA-256 of the appliance's certificate, 64 hexadecimal digits; needed for https
    #[arg(long, value_parser = parse_pin)]
    pin: Option<[u8; 32]>,
    /// Read the disk first, and fetch only what it lacks
    #[arg(long)]
    reuse: bool,
    /// An access key of the appliance
    #[arg(long, env = "BEDPLATE_ACCESS_KEY")]
    access_key: String,
    /// Its secret
    #[arg(long, env = "BEDPLATE_SECRET_KEY", hide_env_values = true)]
    secret_key: String,
}

fn parse_pin(text: &str) -> Result<[u8; 32], String> {
    let mut pin = [0; 32];
    let digits = text.strip_prefix("sha256:").unwrap_or(text);
    hex::decode_to_slice(digits, &mut pin).map_err(|_| "a pin is 64 hexadecimal digits".to_owned())?;
    Ok(pin)
}

fn main() -> ExitCode {
    // The kernel hands unknown words of its command line to the first process: they are not ours to parse.
    if process::is_first() {
        node::run::as_first_process();
    }
    let words: Vec<String> = std::env::args().collect();
    if let [_, quiet, rest @ .., name] = words.as_slice()
        && quiet == "-q"
        && rest.len() < 2
    {
        return if node::modules::answer_kernel(name).is_ok() { ExitCode::SUCCESS } else { ExitCode::from(FAILED) };
    }
    let cli = Cli::parse();
    console::log_to_console();
    wire::install_crypto();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error, FAILED),
    };
    runtime.block_on(async {
        match cli.command {
            Command::Write(args) => write(args).await,
            Command::Report => tell_of_boot().await,
        }
    })
}

async fn write(args: WriteArgs) -> ExitCode {
    let login = Login::Key { access_key: args.access_key, secret_key: Secret::new(args.secret_key) };
    let appliance = match Appliance::new(&args.url, args.pin, &login) {
        Ok(appliance) => appliance,
        Err(error) => return fail(&error, FAILED),
    };
    let request = WriteRequest { image: args.image, disk: args.disk, allow_file: args.allow_file, reuse: args.reuse };
    let (gauge, workers) = (Gauge::default(), Workers::new());
    workers.spawn("progress", report::keep_telling(None, gauge.clone(), workers.token()));
    let outcome = command::write(&appliance, &request, &gauge).await;
    workers.stop().await;
    match outcome {
        Ok(installed) => match console::print_json(&installed) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => fail(&error, FAILED),
        },
        Err(error) => {
            let code = if CommandError::is_refusal(&error) { REFUSED } else { FAILED };
            fail(&error, code)
        }
    }
}

async fn tell_of_boot() -> ExitCode {
    match node::seed::report_boot().await {
        Ok(told) => {
            console::say("report", if told { "the appliance knows of this boot" } else { "reported before" });
            ExitCode::SUCCESS
        }
        Err(error) => fail(&error, FAILED),
    }
}

fn fail(error: &(dyn Error + 'static), code: u8) -> ExitCode {
    console::say("error", with_causes(error));
    ExitCode::from(code)
}
