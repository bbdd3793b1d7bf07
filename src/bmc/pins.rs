//! Which certificate each BMC showed when it was first met: trust on first use, kept in a file of people's text.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use serde::{Deserialize, Serialize};

use super::BmcError;
use super::ledger::{Ledger, Noted};

/// Where pins are kept: a file for the command line, rows for the appliance.
pub trait Pins: Send + Sync + 'static {
    /// The pin of the BMC at this authority (`host:port`): SHA-256 of its certificate's DER encoding.
    fn known(&self, authority: &str) -> Option<[u8; 32]>;

    /// Keeps a pin, replacing an older one. It must be durable when this returns.
    ///
    /// # Errors
    /// [`BmcError::Local`] when it cannot be kept: the BMC is then not talked to.
    fn remember(&self, authority: &str, pin: [u8; 32]) -> Result<(), BmcError>;

    /// Where a person finds the pins, for the message about a changed one.
    fn place(&self) -> String {
        "the known pins".to_owned()
    }

    /// Notes that this process is about to ask a BMC for a session, so that it is looked for should the process be killed before the
    /// answer; answers the note's name.
    fn session_asked(&self, _authority: &str) -> Option<String> {
        None
    }

    /// The answer to what was noted is there, or is lost: then a session may be open.
    fn session_settled(&self, _authority: &str, _note: &str, _lost: bool) {}

    /// Notes that this process has a session at a BMC, so that it is found should the process be killed.
    fn session_begun(&self, _authority: &str, _place: &str) {}

    /// Notes that nobody will end a session that this process has, so that it is ended at the next contact.
    fn session_left(&self, _authority: &str, _place: &str) {}

    /// Forgets a session that is no more.
    fn session_ended(&self, _authority: &str, _place: &str) {}

    /// What is noted of sessions at a BMC.
    fn sessions_noted(&self, _authority: &str) -> Noted {
        Noted::default()
    }

    /// Forgets what gone processes asked for without learning its name.
    fn sessions_unnamed_ended(&self, _authority: &str) {}
}

/// Pins in a TOML file (`"10.0.0.5:443" = "sha256:…"`), read whole and replaced whole.
///
/// Open sessions are noted in the folder `….sessions` beside it.
pub struct PinFile {
    path: PathBuf,
    sessions: Ledger,
    pins: Mutex<BTreeMap<String, [u8; 32]>>,
}

#[derive(Serialize, Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct Page {
    #[serde(default)]
    bmc: BTreeMap<String, String>,
}

impl PinFile {
    /// Reads the file; a file that is not there holds no pins.
    ///
    /// # Errors
    /// [`BmcError::Local`] when it cannot be read or is damaged.
    pub fn open(path: &Path) -> Result<Self, BmcError> {
        let fail = |why: String| BmcError::Local { what: format!("the known pins in {}", path.display()), why };
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(e) => return Err(fail(e.to_string())),
        };
        let page: Page = toml::from_str(&text).map_err(|e| fail(e.message().to_owned()))?;
        let mut pins = BTreeMap::new();
        for (authority, text) in page.bmc {
            let pin =
                parse_pin(&text).ok_or_else(|| fail(format!("{text:?} is not sha256: and 64 hexadecimal digits")))?;
            pins.insert(authority, pin);
        }
        let sessions = Ledger::at(path.with_extension("sessions"));
        Ok(Self { path: path.to_owned(), sessions, pins: Mutex::new(pins) })
    }

    fn write(&self, pins: &BTreeMap<String, [u8; 32]>) -> std::io::Result<()> {
        use std::io::Write as _;
        let page = Page { bmc: pins.iter().map(|(k, v)| (k.clone(), format_pin(v))).collect() };
        let text = toml::to_string(&page).map_err(std::io::Error::other)?;
        let folder = self.path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        std::fs::create_dir_all(folder)?;
        let fresh = self.path.with_extension(format!("new-{}", std::process::id()));
        let mut file = std::fs::File::create(&fresh)?;
        file.write_all(b"# Certificates of BMCs, as they were first seen. Remove a line to accept a new one.\n")?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&fresh, &self.path)?;
        std::fs::File::open(folder)?.sync_all()
    }
}

impl Pins for PinFile {
    fn known(&self, authority: &str) -> Option<[u8; 32]> {
        self.pins.lock().unwrap_or_else(std::sync::PoisonError::into_inner).get(authority).copied()
    }

    fn remember(&self, authority: &str, pin: [u8; 32]) -> Result<(), BmcError> {
        let mut pins = self.pins.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let before = pins.insert(authority.to_owned(), pin);
        if before == Some(pin) {
            return Ok(());
        }
        self.write(&pins).map_err(|e| {
            match before {
                Some(old) => pins.insert(authority.to_owned(), old),
                None => pins.remove(authority),
            };
            BmcError::Local { what: format!("keeping the pin in {}", self.path.display()), why: e.to_string() }
        })
    }

    fn place(&self) -> String {
        self.path.display().to_string()
    }

    fn session_asked(&self, authority: &str) -> Option<String> {
        self.sessions.asked(authority).inspect_err(|error| not_noted(authority, error)).ok()
    }

    fn session_settled(&self, authority: &str, note: &str, lost: bool) {
        drop(self.sessions.settled(authority, note, lost).inspect_err(|error| not_noted(authority, error)));
    }

    fn session_begun(&self, authority: &str, place: &str) {
        drop(self.sessions.begun(authority, place).inspect_err(|error| not_noted(authority, error)));
    }

    fn session_left(&self, authority: &str, place: &str) {
        drop(self.sessions.left(authority, place).inspect_err(|error| not_noted(authority, error)));
    }

    fn session_ended(&self, authority: &str, place: &str) {
        self.sessions.ended(authority, place);
    }

    fn sessions_noted(&self, authority: &str) -> Noted {
        self.sessions.noted(authority)
    }

    fn sessions_unnamed_ended(&self, authority: &str) {
        self.sessions.unnamed_ended(authority);
    }
}

fn not_noted(bmc: &str, error: &std::io::Error) {
    tracing::warn!(bmc, %error, "a BMC session could not be noted; it stays open should this process be killed");
}

/// Pins in memory only: for tests, and for tools that look once.
#[derive(Default)]
pub struct MemoryPins(Mutex<BTreeMap<String, [u8; 32]>>);

impl Pins for MemoryPins {
    fn known(&self, authority: &str) -> Option<[u8; 32]> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).get(authority).copied()
    }

    fn remember(&self, authority: &str, pin: [u8; 32]) -> Result<(), BmcError> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).insert(authority.to_owned(), pin);
        Ok(())
    }
}

/// Reads a pin: `sha256:` (which may be left out) and 64 hexadecimal digits, with or without colons.
#[must_use]
pub fn parse_pin(text: &str) -> Option<[u8; 32]> {
    let text = text.trim();
    let digits: String = text.strip_prefix("sha256:").unwrap_or(text).chars().filter(|c| *c != ':').collect();
    let mut pin = [0; 32];
    hex::decode_to_slice(digits, &mut pin).ok()?;
    Some(pin)
}

/// Writes a pin as `sha256:…`.
#[must_use]
pub fn format_pin(pin: &[u8; 32]) -> String {
    format!("sha256:{}", hex::encode(pin))
}

#[cfg(test)]
mod tests {
    //! A pin that was remembered is known after a new start, and damage is named.
    use super::*;

    #[test]
    fn remembers_across_opens_and_names_damage() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/known-bmcs.toml");
        let pins = PinFile::open(&path).unwrap();
        assert_eq!(pins.known("10.0.0.5:443"), None);
        pins.remember("10.0.0.5:443", [7; 32]).unwrap();
        assert_eq!(PinFile::open(&path).unwrap().known("10.0.0.5:443"), Some([7; 32]));
        std::fs::write(&path, "[bmc]\n\"a:1\" = \"sha256:12\"\n").unwrap();
        assert!(PinFile::open(&path).err().unwrap().to_string().contains("64 hexadecimal digits"));
    }

    #[test]
    fn reads_pins_as_people_paste_them() {
        let plain = "ab".repeat(32);
        assert_eq!(parse_pin(&plain), Some([0xab; 32]));
        assert_eq!(parse_pin(&format!("sha256:{plain}")), Some([0xab; 32]));
        assert_eq!(parse_pin(&vec!["AB"; 32].join(":")), Some([0xab; 32]));
        assert_eq!(parse_pin("sha256:ab"), None);
    }
}
