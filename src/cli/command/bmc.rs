//! `bedplate bmc`: what one BMC, or a recorded tree, tells of its machine.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::bmc::{
    Address, Bmc, BmcError, Card, Credentials, Inventory, Mark, PinFile, Pins as _, Recording, Target, format_pin,
    parse_pin,
};
use crate::cli::exit::{CliError, DONE, Exit};
use crate::cli::{Context, output};
use crate::model::{ByteSize, Secret};

/// The password's variable where the command line names none.
const PASSWORD_ENV: &str = "BEDPLATE_BMC_PASSWORD";

/// Look at a BMC: what its machine is made of, and what it can do.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  BEDPLATE_BMC_PASSWORD=... bedplate bmc inventory https://10.0.0.5 --username admin
  bedplate bmc check trees/rack1-node7")]
pub struct BmcArgs {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// List what the machine is made of
    Inventory(TargetArgs),
    /// Find out what the BMC can do for a rack, by reading alone
    Check(TargetArgs),
    /// Record the BMC's tree into a folder that can stand for it in `inventory`, `check` and `rack survey`
    Record {
        #[command(flatten)]
        target: TargetArgs,
        /// The folder, new or empty
        folder: PathBuf,
    },
}

/// Which BMC, and as whom.
#[derive(Debug, clap::Args)]
struct TargetArgs {
    /// The BMC's URL (https://HOST[:PORT]), or a folder with a recorded tree
    #[arg(value_name = "URL|FOLDER")]
    address: String,
    /// The user name at the BMC
    #[arg(long, env = "BEDPLATE_BMC_USERNAME")]
    username: Option<String>,
    /// The environment variable that holds the password [default: BEDPLATE_BMC_PASSWORD]
    #[arg(long, value_name = "NAME", conflicts_with = "password_file")]
    password_env: Option<String>,
    /// The file that holds the password, in its first line
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
    /// SHA-256 of the certificate that the BMC must show [default: the known one, or the first seen]
    #[arg(long, value_name = "SHA256")]
    bmc_pin: Option<String>,
    /// Which system, where the BMC manages several: its id, UUID, name or serial number
    #[arg(long)]
    system: Option<String>,
    /// The file of known certificates [default: bedplate/known-bmcs.toml in the user's configuration folder]
    #[arg(long, value_name = "FILE")]
    known_bmcs: Option<PathBuf>,
}

/// Looks, prints, and ends the session at the BMC.
pub async fn run(args: BmcArgs, context: &Context) -> Result<Exit, CliError> {
    match args.verb {
        Verb::Inventory(target) => {
            let bmc = Box::pin(connect(&target, context)).await?;
            let found = ended(&bmc, Box::pin(bmc.inventory())).await?;
            context.output.value(&found, inventory)?;
        }
        Verb::Check(target) => {
            let bmc = Box::pin(connect(&target, context)).await?;
            let found = ended(&bmc, Box::pin(bmc.card())).await?;
            context.output.value(&found, card)?;
        }
        Verb::Record { target, folder } => {
            let bmc = Box::pin(connect(&target, context)).await?;
            context.output.say("recording; a whole tree takes a real BMC some minutes");
            let made = ended(&bmc, Box::pin(bmc.record(&folder))).await?;
            context.output.value(&made, recording)?;
        }
    }
    Ok(DONE)
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
    let pin = match &args.bmc_pin {
        Some(text) => Some(parse_pin(text).ok_or_else(|| {
            CliError::usage(format!("{text:?} is not a pin")).hint("write sha256: and 64 hexadecimal digits")
        })?),
        None => None,
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
    Ok(Target { address, system: args.system.clone(), credentials, pin })
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

fn or_dash(text: Option<&str>) -> String {
    text.unwrap_or("-").to_owned()
}

fn inventory(found: &Inventory) -> String {
    let dash = |text: &Option<String>| or_dash(text.as_deref());
    let size = |bytes: Option<u64>| bytes.map_or_else(|| "-".to_owned(), |bytes| ByteSize(bytes).to_string());
    let facts = [
        ("vendor", dash(&found.vendor)),
        ("model", dash(&found.model)),
        ("serial", dash(&found.serial)),
        ("uuid", dash(&found.uuid)),
        ("system", found.system_id.clone()),
        ("power", found.power.to_string()),
        ("bios", dash(&found.bios_version)),
        ("memory", size(found.memory_bytes)),
        ("bmc", format!("{} {}", dash(&found.manager.model), dash(&found.manager.firmware_version))),
    ];
    let mut text: String = facts.iter().map(|(name, value)| format!("{name:<8} {value}\n")).collect();
    let number = |n: Option<u64>| n.map_or_else(|| "-".to_owned(), |n| n.to_string());
    let cpus = found.cpus.iter().map(|c| vec![c.name.clone(), dash(&c.model), number(c.cores), number(c.threads)]);
    section(&mut text, &["cpu", "model", "cores", "threads"], cpus.collect());
    let gpus = found.gpus.iter().map(|g| vec![g.name.clone(), dash(&g.model), dash(&g.serial)]);
    section(&mut text, &["gpu", "model", "serial"], gpus.collect());
    let drives = found
        .drives
        .iter()
        .map(|d| vec![d.name.clone(), dash(&d.serial), dash(&d.model), size(d.bytes), dash(&d.protocol), dash(&d.wwn)]);
    section(&mut text, &["drive", "serial", "model", "size", "protocol", "wwn"], drives.collect());
    let nics = found.nics.iter().map(|n| vec![n.name.clone(), n.mac.clone()]);
    section(&mut text, &["nic", "mac"], nics.collect());
    let firmware = found.firmware.iter().map(|f| vec![f.name.clone(), f.version.clone()]);
    section(&mut text, &["firmware", "version"], firmware.collect());
    section(&mut text, &["not known"], found.gaps.iter().map(|gap| vec![gap.clone()]).collect());
    text
}

/// A table after a blank line; nothing where there is nothing to show.
fn section(text: &mut String, header: &[&str], rows: Vec<Vec<String>>) {
    if !rows.is_empty() {
        text.push('\n');
        text.push_str(&output::table(header, rows));
        text.push('\n');
    }
}

fn card(card: &Card) -> String {
    let version = or_dash(card.redfish_version.as_deref());
    let mut text = format!("{}: {}, Redfish {version}, system {}\n\n", card.bmc, card.family, card.system_id);
    let mark = |mark: Mark| match mark {
        Mark::Works => "works",
        Mark::WorkedAround => "worked around",
        Mark::Missing => "missing",
        Mark::Unknown => "unknown",
    };
    let rows = card.traits.iter().map(|t| vec![t.name.clone(), mark(t.mark).to_owned(), t.detail.clone()]);
    text.push_str(&output::table(&["what", "how it stands", "detail"], rows.collect()));
    text.push_str(match card.fit {
        true => "\n\nMachines behind this BMC can be imaged through it. (Nothing was changed to find this out.)",
        false => "\n\nMachines behind this BMC cannot be imaged through it as it stands: see what is missing.",
    });
    text
}

fn recording(made: &Recording) -> String {
    let mut text = format!("{} resources in {}", made.resources, made.folder.display());
    if !made.gaps.is_empty() {
        text.push_str(&format!("; {} could not be read:\n  {}", made.gaps.len(), made.gaps.join("\n  ")));
    }
    text
}
