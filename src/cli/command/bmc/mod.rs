//! `bedplate bmc`: what one BMC, or a recorded tree, tells of its machine, and changing it.

mod args;
pub(super) mod console;
mod discover;
mod manage;
mod show;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use self::args::TargetArgs;

use crate::bmc::{
    Address, Bmc, BmcError, Credentials, PinFile, Pins as _, SiteCa, Target, Trust, format_pin, parse_pin,
};
use crate::cli::Context;
use crate::cli::exit::{CliError, DONE, Exit};
use crate::model::Secret;

/// The password's variable where the command line names none.
const PASSWORD_ENV: &str = "BEDPLATE_BMC_PASSWORD";

/// Look at a BMC: what its machine is made of, and what it can do; and manage it.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  bedplate bmc discover 10.0.0.0/24
  BEDPLATE_BMC_PASSWORD=... bedplate bmc inventory https://10.0.0.5 --username admin
  bedplate bmc check trees/rack1-node7
  bedplate bmc bios https://10.0.0.5 --username admin --set BootMode=Uefi
  bedplate bmc console https://10.0.0.5 --username admin
  bedplate bmc firmware https://10.0.0.5 --username admin --update BMC_2.84.bin")]
pub struct BmcArgs {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Find the BMCs in a network, by asking its addresses who they are; no credentials are sent
    Discover(discover::DiscoverArgs),
    /// List what the machine is made of
    Inventory(TargetArgs),
    /// Find out what the BMC can do for a rack, by reading alone
    Check(TargetArgs),
    /// The machine's serial console, by the BMC's SSH server
    Console(console::ConsoleArgs),
    #[command(flatten)]
    Manage(args::Managed),
    /// List every known oddity of BMCs and what is done about it
    Facts,
    /// Record the BMC's tree into a folder that can stand for it in `inventory`, `check` and `rack survey`
    Record {
        #[command(flatten)]
        target: TargetArgs,
        /// The folder, new or empty
        folder: PathBuf,
    },
}

/// Looks or changes, prints, and ends the session at the BMC.
pub async fn run(args: BmcArgs, context: &Context) -> Result<Exit, CliError> {
    match args.verb {
        Verb::Discover(args) => return discover::run(args, context).await,
        Verb::Inventory(target) => {
            let found = with(&target, context, async |bmc: &Bmc| bmc.inventory().await).await?;
            context.output.value(&found, show::inventory)?;
        }
        Verb::Check(target) => {
            let found = with(&target, context, async |bmc: &Bmc| bmc.card().await).await?;
            context.output.value(&found, show::card)?;
        }
        Verb::Record { target, folder } => {
            context.output.say("recording; a whole tree takes a real BMC some minutes");
            let made = with(&target, context, async |bmc: &Bmc| bmc.record(&folder).await).await?;
            context.output.value(&made, show::recording)?;
        }
        Verb::Facts => context.output.value(&show::facts(), |facts| show::fact_table(facts))?,
        Verb::Console(args) => return console::run(args, context).await,
        Verb::Manage(verb) => return manage::run(verb, context).await,
    }
    Ok(DONE)
}

/// Connects, does the work, and ends the session, whatever came of it.
async fn with<T>(
    target: &TargetArgs,
    context: &Context,
    work: impl AsyncFnOnce(&Bmc) -> Result<T, BmcError>,
) -> Result<T, CliError> {
    let bmc = Box::pin(connect(target, context)).await?;
    ended(&bmc, Box::pin(work(&bmc))).await
}

/// Waits for the work, or for the person to lose patience; either way the session at the BMC is ended.
async fn ended<T>(bmc: &Bmc, work: impl Future<Output = Result<T, BmcError>>) -> Result<T, CliError> {
    let outcome = tokio::select! {
        outcome = work => outcome.map_err(|e| explain(&e)),
        _ = tokio::signal::ctrl_c() => Err(CliError::failed("interrupted")),
    };
    bmc.close().await;
    outcome
}

/// A BMC's error as the command line tells it: one paragraph, a hint, and the exit code.
#[must_use]
pub fn explain(error: &BmcError) -> CliError {
    let message = error.to_string();
    let told = match error {
        BmcError::PinChanged { .. } | BmcError::ForeignLink { .. } => CliError::refused(message),
        BmcError::Address { .. } => CliError::usage(message),
        _ => CliError::failed(message),
    };
    told.hint(error.hint())
}

/// The file of known certificates in the user's configuration folder.
pub fn known_bmcs() -> Result<PathBuf, CliError> {
    let folder = |name: &str| std::env::var_os(name).filter(|text| !text.is_empty()).map(PathBuf::from);
    let config = folder("XDG_CONFIG_HOME").or_else(|| Some(folder("HOME")?.join(".config")));
    let config = config.ok_or_else(|| {
        CliError::usage("there is no configuration folder: neither HOME nor XDG_CONFIG_HOME is set")
            .hint("name a file with --known-bmcs")
    })?;
    Ok(config.join("bedplate/known-bmcs.toml"))
}

async fn connect(args: &TargetArgs, context: &Context) -> Result<Bmc, CliError> {
    let target = target(args)?;
    let known = args.known_bmcs.clone().map_or_else(known_bmcs, Ok);
    // A recorded tree shows no certificate, so nothing is read or written for it.
    let known = match (&target.address, known) {
        (Address::Folder(_), Err(_)) => PathBuf::from("known-bmcs.toml"),
        (_, known) => known?,
    };
    let pins = PinFile::open(&known).map_err(|e| explain(&e))?;
    let authority = target.address.authority().unwrap_or_default();
    let met = pins.known(&authority).is_some();
    let pins = Arc::new(pins);
    let bmc = Bmc::connect(&target, pins.clone()).await.map_err(|e| explain(&e))?;
    if let Some(pin) = pins.known(&authority).filter(|_| !met) {
        let (pin, place) = (format_pin(&pin), known.display());
        context.output.say(&format!("first contact with {authority}: its certificate, {pin}, is now kept in {place}"));
    }
    Ok(bmc)
}

fn target(args: &TargetArgs) -> Result<Target, CliError> {
    let address: Address = args.address.parse().map_err(|e| explain(&e))?;
    let trust = match (&args.bmc_pin, &args.bmc_ca) {
        (Some(text), _) => Trust::Pin(parse_pin(text).ok_or_else(|| {
            CliError::usage(format!("{text:?} is not a pin")).hint("write sha256: and 64 hexadecimal digits")
        })?),
        (None, Some(file)) => Trust::Site(SiteCa::read(file).map_err(|e| explain(&e))?),
        (None, None) => Trust::Known,
    };
    let password = password(args)?;
    let credentials = match (&address, &args.username, password) {
        (Address::Folder(_), _, _) | (_, None, None) => None,
        (_, Some(username), Some(password)) => Some(Credentials { username: username.clone(), password }),
        (_, Some(username), None) => {
            return Err(CliError::usage(format!("there is no password for {username:?}")).hint(format!(
                "set {PASSWORD_ENV}, or name a variable with --password-env or a file with --password-file"
            )));
        }
        (_, None, Some(_)) if args.password_env.is_none() && args.password_file.is_none() => None,
        (_, None, Some(_)) => return Err(CliError::usage("a password without a user name").hint("give --username")),
    };
    let without = args.without.iter().copied().collect();
    Ok(Target { address, system: args.system.clone(), credentials, trust, without })
}

fn password(args: &TargetArgs) -> Result<Option<Secret>, CliError> {
    if let Some(file) = &args.password_file {
        return read_password(file).map(Some);
    }
    let name = args.password_env.as_deref().unwrap_or(PASSWORD_ENV);
    match (std::env::var(name), &args.password_env) {
        (Ok(text), _) if !text.is_empty() => Ok(Some(Secret::new(text))),
        (_, Some(name)) => Err(CliError::usage(format!("the environment variable {name} holds no password"))),
        _ => Ok(None),
    }
}

fn read_password(file: &Path) -> Result<Secret, CliError> {
    let text = std::fs::read_to_string(file)
        .map_err(|e| CliError::usage(format!("cannot read the password from {}: {e}", file.display())))?;
    match text.lines().next().filter(|line| !line.is_empty()) {
        Some(line) => Ok(Secret::new(line)),
        None => Err(CliError::usage(format!("{} holds no password in its first line", file.display()))),
    }
}
