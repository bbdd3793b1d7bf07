//! What can go wrong with one BMC, each with what to do next. The BMC's own words are kept: often they are all
//! there is.

use std::fmt;

/// Why a call to a BMC failed. `Display` says what failed, [`BmcError::hint`] what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BmcError {
    /// The address cannot be one of a BMC.
    #[error("{text:?} is not a BMC's address: {why}")]
    Address {
        /// The address as given.
        text: String,
        /// What is wrong with it.
        why: String,
    },
    /// No answer came from the BMC's address.
    #[error("BMC {bmc} cannot be reached: {why}")]
    Unreachable {
        /// The BMC, as host and port.
        bmc: String,
        /// How it failed.
        why: Reach,
    },
    /// The user name or the password is wrong, or there is none.
    #[error("BMC {bmc} refused {}", who(.username.as_deref()))]
    WrongPassword {
        /// The BMC, as host and port.
        bmc: String,
        /// The user name that was tried; none when no credentials were given.
        username: Option<String>,
    },
    /// The account must change its password before the BMC does anything else.
    #[error("BMC {bmc} wants the password of {account} changed before it does anything else")]
    PasswordChange {
        /// The BMC, as host and port.
        bmc: String,
        /// The account, as the BMC names it.
        account: String,
    },
    /// The certificate is not the one that is known.
    #[error("BMC {bmc} shows another certificate than before: known is sha256:{}, seen is sha256:{}; nothing was sent to it",
        hex::encode(.known), hex::encode(.seen))]
    PinChanged {
        /// The BMC, as host and port.
        bmc: String,
        /// SHA-256 of the known certificate.
        known: [u8; 32],
        /// SHA-256 of the one it showed now.
        seen: [u8; 32],
        /// Where the known pin is kept; none where the caller gave it.
        place: Option<String>,
    },
    /// The TLS handshake failed for another reason than the pin.
    #[error("no secure connection to BMC {bmc}: {why}")]
    Tls {
        /// The BMC, as host and port.
        bmc: String,
        /// What TLS said.
        why: String,
    },
    /// What answers there does not speak Redfish.
    #[error("{bmc} is no Redfish service: {why}")]
    NotRedfish {
        /// The address, as host and port, or the folder.
        bmc: String,
        /// What it answered instead.
        why: String,
    },
    /// The folder holds no recorded tree.
    #[error("{folder} holds no recorded BMC: {why}")]
    NoTree {
        /// The folder.
        folder: String,
        /// What is missing.
        why: String,
    },
    /// The BMC answered that it will not.
    #[error("BMC {bmc} refused {request}: {} {message}", .status)]
    Refused {
        /// The BMC, as host and port.
        bmc: String,
        /// Method and path.
        request: String,
        /// HTTP status.
        status: u16,
        /// The BMC's own message.
        message: String,
        /// The BMC's own advice; empty where it gave none.
        resolution: String,
        /// The message ids, such as `Base.1.8.ActionParameterMissing`.
        ids: Vec<String>,
    },
    /// The BMC wants a licence for it.
    #[error("BMC {bmc} wants a licence for {request}: {message}")]
    Licence {
        /// The BMC, as host and port.
        bmc: String,
        /// Method and path.
        request: String,
        /// The BMC's own message.
        message: String,
    },
    /// What the BMC began did not succeed.
    #[error("BMC {bmc} began {what}, but {why}")]
    Failed {
        /// The BMC, as host and port.
        bmc: String,
        /// What was ordered.
        what: String,
        /// How its task ended, in the BMC's words.
        why: String,
    },
    /// The BMC kept answering that it is busy.
    #[error("BMC {bmc} stayed busy for {seconds} s on {request}: {message}")]
    Busy {
        /// The BMC, as host and port.
        bmc: String,
        /// Method and path.
        request: String,
        /// How long it was asked.
        seconds: u64,
        /// The BMC's own message.
        message: String,
    },
    /// The answer named an address on another machine; nothing was sent there.
    #[error("BMC {bmc} answered {request} with a link to another address, {uri}; nothing was sent there")]
    ForeignLink {
        /// The BMC, as host and port.
        bmc: String,
        /// Method and path.
        request: String,
        /// The link.
        uri: String,
    },
    /// The answer is larger than any that is believed.
    #[error("BMC {bmc} answered {request} with more than {limit} bytes")]
    TooLarge {
        /// The BMC, as host and port.
        bmc: String,
        /// Method and path.
        request: String,
        /// The bound in bytes.
        limit: usize,
    },
    /// The answer cannot be read.
    #[error("BMC {bmc} answered {request} with something unreadable: {why}")]
    Unreadable {
        /// The BMC, as host and port.
        bmc: String,
        /// Method and path.
        request: String,
        /// What is wrong with it.
        why: String,
    },
    /// The BMC does not offer what is needed.
    #[error("BMC {bmc} cannot {what}")]
    Unsupported {
        /// The BMC, as host and port.
        bmc: String,
        /// What was wanted and what is missing.
        what: String,
    },
    /// The BMC said yes and did not do it.
    #[error("BMC {bmc} accepted {what}, but {seen}")]
    NotObeyed {
        /// The BMC, as host and port.
        bmc: String,
        /// What was ordered.
        what: String,
        /// What was read back instead.
        seen: String,
    },
    /// The BMC manages several systems, or none that fits.
    #[error("{why}")]
    WhichSystem {
        /// The BMC, as host and port.
        bmc: String,
        /// What was found.
        why: String,
    },
    /// A recorded tree cannot be changed.
    #[error("{folder} is a recorded tree: {request} was not carried out")]
    Recorded {
        /// The folder.
        folder: String,
        /// Method and path.
        request: String,
    },
    /// Something on this machine failed (a port, a file of pins).
    #[error("{what}: {why}")]
    Local {
        /// What failed.
        what: String,
        /// What the system said.
        why: String,
    },
}

/// How a BMC could not be reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reach {
    /// The name does not resolve.
    Name(String),
    /// The address refuses connections on that port.
    Refused,
    /// Nothing answered in time.
    TimedOut {
        /// What was waited for.
        phase: &'static str,
        /// How long, in seconds.
        seconds: u64,
    },
    /// The connection broke.
    Broken(String),
}

impl fmt::Display for Reach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(why) => write!(f, "its name does not resolve ({why})"),
            Self::Refused => f.write_str("the connection was refused"),
            Self::TimedOut { phase, seconds } => write!(f, "no {phase} within {seconds} s"),
            Self::Broken(why) => write!(f, "the connection broke ({why})"),
        }
    }
}

fn who(username: Option<&str>) -> String {
    match username {
        Some(name) => format!("the password of {name:?}"),
        None => "to answer without a user name and a password".to_owned(),
    }
}

impl BmcError {
    /// A short stable name of the kind, for JSON and metrics.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Address { .. } => "address",
            Self::Unreachable { .. } => "unreachable",
            Self::WrongPassword { .. } => "wrong-password",
            Self::PasswordChange { .. } => "password-change",
            Self::PinChanged { .. } => "pin-changed",
            Self::Tls { .. } => "tls",
            Self::NotRedfish { .. } => "not-redfish",
            Self::NoTree { .. } => "no-tree",
            Self::Refused { .. } => "refused",
            Self::Licence { .. } => "licence",
            Self::Failed { .. } => "failed",
            Self::Busy { .. } => "busy",
            Self::ForeignLink { .. } => "foreign-link",
            Self::TooLarge { .. } => "too-large",
            Self::Unreadable { .. } => "unreadable",
            Self::Unsupported { .. } => "unsupported",
            Self::NotObeyed { .. } => "not-obeyed",
            Self::WhichSystem { .. } => "which-system",
            Self::Recorded { .. } => "recorded",
            Self::Local { .. } => "local",
        }
    }

    /// What to do next, in one or two sentences.
    #[must_use]
    pub fn hint(&self) -> String {
        match self {
            Self::Address { .. } => "Write https://HOST or https://HOST:PORT, or a folder with a recorded tree.".into(),
            Self::Unreachable { why: Reach::Name(_), .. } => {
                "Check the name in the spec or on the command line, or write the BMC's IP address.".into()
            }
            Self::Unreachable { why: Reach::Refused, .. } => {
                "Check the port, and that the BMC's HTTPS service is enabled.".into()
            }
            Self::Unreachable { .. } => "Check the cable of the management network, the BMC's address and that it has \
                                         power; a BMC that was just reset needs a few minutes."
                .into(),
            Self::WrongPassword { username: None, .. } => {
                "Give --username and --password-env or --password-file (in a spec: username and password-env under [bmc]).".into()
            }
            Self::WrongPassword { .. } => "Check the user name and the password. Do not try often: most BMCs lock the \
                                           account after a few wrong ones."
                .into(),
            Self::PasswordChange { .. } => {
                "Set a new one with `bedplate bmc password URL --username NAME --new-password-env VARIABLE --first-login`, then give that one.".into()
            }
            Self::PinChanged { bmc, seen, place, .. } => {
                let remove = place.as_ref().map(|place| format!(", or remove {bmc} from {place}")).unwrap_or_default();
                format!(
                    "If the BMC or its certificate was replaced on purpose, accept the new one: give --bmc-pin sha256:{0} once \
                     (in a spec: pin = \"sha256:{0}\"){remove}. If not, somebody may be between you and the BMC.",
                    hex::encode(seen)
                )
            }
            Self::Tls { .. } => {
                "Check that this is the BMC's HTTPS port; very old BMCs speak only TLS versions that are no longer safe: update \
                 their firmware."
                    .into()
            }
            Self::NotRedfish { .. } => {
                "Check the address and the port; on some BMCs Redfish must be switched on first in their web page.".into()
            }
            Self::NoTree { .. } => "Name the folder that holds redfish/v1, as `bedplate bmc record` makes it; a BMC's URL \
                                    begins with https://."
                .into(),
            Self::Refused { resolution, .. } if !resolution.is_empty() => {
                format!("The BMC advises: {resolution}")
            }
            Self::Refused { status: 403, .. } => "Give an account with the administrator's role.".into(),
            Self::Refused { .. } => "See the BMC's own log; `bedplate bmc check` shows what this BMC offers.".into(),
            Self::Licence { .. } => {
                format!("Install the vendor's licence for out-of-band management ({}).", super::oem::SUPERMICRO_LICENCES)
            }
            Self::Failed { .. } => "See the BMC's own log (`bedplate bmc log`), and try again.".into(),
            Self::Busy { .. } => "Wait some minutes and try again; a BMC that stays busy needs a reset of its own.".into(),
            Self::ForeignLink { .. } => {
                "A BMC links only to itself. Check that no proxy stands before it, and report it to its vendor.".into()
            }
            Self::TooLarge { .. } | Self::Unreadable { .. } => {
                "Update the BMC's firmware, or reset the BMC, and try again.".into()
            }
            Self::Unsupported { .. } => "`bedplate bmc check` shows what this BMC offers; newer firmware may offer more.".into(),
            Self::NotObeyed { .. } => {
                "Try again; if it stays so, reset the BMC (not the node) and look into the BMC's own log.".into()
            }
            Self::WhichSystem { .. } => "Name one with --system (in a spec: system = \"…\" at the node).".into(),
            Self::Recorded { .. } => "Give the BMC's URL to act on a machine.".into(),
            Self::Local { .. } => "Correct it and try again.".into(),
        }
    }

    /// Whether the same call may well succeed a little later, unchanged.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Unreachable { why, .. } => !matches!(why, Reach::Name(_)),
            Self::Busy { .. } => true,
            Self::Refused { status, .. } => matches!(status, 500 | 502 | 503 | 504),
            _ => false,
        }
    }

    pub(super) fn status(&self) -> Option<u16> {
        match self {
            Self::Refused { status, .. } => Some(*status),
            _ => None,
        }
    }

    /// Whether the BMC's refusal carries a message id that ends so (`ActionParameterMissing`), or says so in its text.
    pub(super) fn says(&self, what: &str) -> bool {
        match self {
            Self::Refused { ids, message, .. } => {
                ids.iter().any(|id| id.rsplit('.').next() == Some(what)) || message.contains(what)
            }
            _ => false,
        }
    }
}
