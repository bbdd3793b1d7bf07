//! What the verbs of `bedplate bmc` take.

use std::path::PathBuf;

use crate::bmc::{Fact, Subject};

/// Which BMC, and as whom.
#[derive(Debug, clap::Args)]
pub(super) struct TargetArgs {
    /// The BMC's URL (https://HOST[:PORT]), or a folder with a recorded tree
    #[arg(value_name = "URL|FOLDER")]
    pub(super) address: String,
    /// The user name at the BMC
    #[arg(long, env = "BEDPLATE_BMC_USERNAME")]
    pub(super) username: Option<String>,
    /// The environment variable that holds the password [default: BEDPLATE_BMC_PASSWORD]
    #[arg(long, value_name = "NAME", conflicts_with = "password_file")]
    pub(super) password_env: Option<String>,
    /// The file that holds the password, in its first line
    #[arg(long, value_name = "FILE")]
    pub(super) password_file: Option<PathBuf>,
    /// SHA-256 of the certificate that the BMC must show [default: the known one, or the first seen]
    #[arg(long, value_name = "SHA256")]
    pub(super) bmc_pin: Option<String>,
    /// The site's authority, in PEM: the BMC must show a certificate that it signed and that names it; no pin is kept
    #[arg(long, value_name = "FILE", conflicts_with = "bmc_pin")]
    pub(super) bmc_ca: Option<PathBuf>,
    /// Which system, where the BMC manages several: its id, UUID, name or serial number
    #[arg(long)]
    pub(super) system: Option<String>,
    /// An oddity that this BMC no longer has (`bedplate bmc facts` lists them); may be repeated
    #[arg(long, value_name = "FACT")]
    pub(super) without: Vec<Fact>,
    /// The file of known certificates [default: bedplate/known-bmcs.toml in the user's configuration folder]
    #[arg(long, value_name = "FILE")]
    pub(super) known_bmcs: Option<PathBuf>,
}

/// The verbs.
#[derive(Debug, clap::Subcommand)]
pub(super) enum Managed {
    /// Whether the machine is well, as its BMC measures it; exits with 1 where something is critical
    Health(TargetArgs),
    /// Show the BMC's logs, newest first
    Log {
        #[command(flatten)]
        target: TargetArgs,
        /// Only this log
        #[arg(long)]
        log: Option<String>,
        /// Entries at most
        #[arg(long, default_value_t = 50)]
        most: usize,
        /// Empty the log that --log names
        #[arg(long, requires = "log")]
        clear: bool,
    },
    /// List the BMC's tasks and jobs
    Tasks(TargetArgs),
    /// Show BIOS settings, or order them for the next start
    Bios {
        #[command(flatten)]
        target: TargetArgs,
        /// A setting to order; may be repeated
        #[arg(long, value_name = "NAME=VALUE", value_parser = setting)]
        set: Vec<(String, String)>,
        /// Set everything back to its default at the next start
        #[arg(long, conflicts_with = "set")]
        reset: bool,
        /// Only settings whose name contains this
        #[arg(long)]
        filter: Option<String>,
    },
    /// Show the boot order, or put something first
    BootOrder {
        #[command(flatten)]
        target: TargetArgs,
        /// What comes first: a reference such as Boot0003, or a part of its name; may be repeated
        #[arg(long, value_name = "OPTION")]
        first: Vec<String>,
    },
    /// Boot next from virtual CD, disk or an address, or as the machine's own order says
    Boot {
        #[command(flatten)]
        target: TargetArgs,
        /// What to boot next
        #[arg(long, value_enum, required_unless_present = "http")]
        next: Option<Next>,
        /// Boot next from this address, over HTTP
        #[arg(long, value_name = "URL", conflicts_with = "next")]
        http: Option<String>,
    },
    /// Show the BMC's certificate, let it make a request for another, or put that in
    Certificate(CertificateArgs),
    /// Show secure boot, or change it
    SecureBoot {
        #[command(flatten)]
        target: TargetArgs,
        /// Switch it on or off from the next start
        #[arg(long, value_name = "ON|OFF", value_parser = on_off)]
        set: Option<bool>,
        /// Reset all keys
        #[arg(long, value_enum, value_name = "HOW")]
        keys: Option<Keys>,
        /// Add this certificate (PEM) to the database that --database names
        #[arg(long, value_name = "FILE")]
        add: Option<PathBuf>,
        /// The key database: PK, KEK, db or dbx
        #[arg(long, default_value = "db")]
        database: String,
    },
    /// List firmware, or update it
    Firmware {
        #[command(flatten)]
        target: TargetArgs,
        /// Update from this file, or from this address, which the BMC fetches it from
        #[arg(long, value_name = "FILE|URL")]
        update: Option<String>,
        /// What to update: the link of a part; may be repeated [default: the BMC finds out from the file]
        #[arg(long, value_name = "LINK", requires = "update")]
        part: Vec<String>,
    },
    /// List the BMC's accounts, or see to it that there is one
    Accounts {
        #[command(flatten)]
        target: TargetArgs,
        /// Make this account an administrator, with the password of --new-password-env
        #[arg(long, value_name = "NAME", requires = "new_password_env")]
        ensure: Option<String>,
        /// The environment variable that holds the new password
        #[arg(long, value_name = "NAME")]
        new_password_env: Option<String>,
        /// After how many wrong passwords accounts lock; 0 for never
        #[arg(long, value_name = "TRIES")]
        lockout: Option<u64>,
    },
    /// Change the password of the account that logs in
    Password {
        #[command(flatten)]
        target: TargetArgs,
        /// The environment variable that holds the new password
        #[arg(long, value_name = "NAME")]
        new_password_env: String,
        /// The BMC does nothing before it is changed
        #[arg(long)]
        first_login: bool,
    },
    /// List who the BMC sends events to, or add one; with --follow, show its events as they happen
    Events(EventsArgs),
}

#[derive(Debug, clap::Args)]
pub(super) struct EventsArgs {
    #[command(flatten)]
    pub(super) target: TargetArgs,
    /// Show events from now on, until Ctrl-C: by the BMC's stream where it has one, else by its logs
    #[arg(long, conflicts_with_all = ["subscribe", "unsubscribe"])]
    pub(super) follow: bool,
    /// Send events to this address
    #[arg(long, value_name = "URL")]
    pub(super) subscribe: Option<String>,
    /// No longer send events to this address
    #[arg(long, value_name = "URL")]
    pub(super) unsubscribe: Option<String>,
}

/// What boots next.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub(super) enum Next {
    /// The virtual CD
    Cd,
    /// The disk
    Disk,
    /// An address that the network offers, over HTTP
    Http,
    /// As the machine's own order says
    Order,
}

#[derive(Debug, clap::Args)]
pub(super) struct CertificateArgs {
    #[command(flatten)]
    pub(super) target: TargetArgs,
    /// Make a key and a request for an authority to sign: C=DE,ST=Hessen,L=Frankfurt,O=Example,OU=Racks[,CN=HOST]
    #[arg(long, value_name = "SUBJECT", conflicts_with = "install")]
    pub(super) request: Option<Subject>,
    /// A further name in the request, such as an IP address; may be repeated
    #[arg(long, value_name = "NAME", requires = "request")]
    pub(super) also: Vec<String>,
    /// Put in the certificate that the authority made of the last request, in PEM, with those that vouch for it after it
    #[arg(long, value_name = "FILE")]
    pub(super) install: Option<PathBuf>,
    /// Restart the BMC for it, which some demand before they show another certificate
    #[arg(long, requires = "install")]
    pub(super) restart_bmc: bool,
}

/// How keys are reset.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub(super) enum Keys {
    /// To the vendor's defaults
    Default,
    /// Delete all keys: setup mode
    DeleteAll,
    /// Delete the platform key: setup mode
    DeletePk,
}

/// Reads `NAME=VALUE`.
fn setting(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or_else(|| format!("{text:?} is not NAME=VALUE"))?;
    Ok((name.to_owned(), value.to_owned()))
}

/// Reads `on` or `off`.
fn on_off(text: &str) -> Result<bool, String> {
    match text.to_ascii_lowercase().as_str() {
        "on" => Ok(true),
        "off" => Ok(false),
        _ => Err(format!("{text:?} is neither on nor off")),
    }
}

impl Keys {
    /// What Redfish calls it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Default => "ResetAllKeysToDefault",
            Self::DeleteAll => "DeleteAllKeys",
            Self::DeletePk => "DeletePK",
        }
    }
}
