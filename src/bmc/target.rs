//! Which BMC, and as whom.

use std::path::PathBuf;
use std::str::FromStr;

use url::Url;

use super::{BmcError, Facts, Trust};
use crate::model::Secret;

/// Where a BMC is found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// An `https` or `http` URL that names host and port only.
    Url(Url),
    /// A folder with a recorded tree.
    Folder(PathBuf),
}

/// A user of a BMC.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credentials {
    /// The user name.
    pub username: String,
    /// The password.
    pub password: Secret,
}

/// One BMC, and the system behind it that is meant.
#[derive(Clone, Debug)]
pub struct Target {
    /// Where.
    pub address: Address,
    /// Which system, by id, UUID, name or serial number; needed only where a BMC manages several that boot.
    pub system: Option<String>,
    /// As whom; none for a recorded tree.
    pub credentials: Option<Credentials>,
    /// What makes its certificate believed.
    pub trust: Trust,
    /// Oddities that this BMC no longer has: they are not worked around.
    pub without: Facts,
}

impl Address {
    /// The name under which a BMC's pin is kept, `host:port`; none for a folder.
    #[must_use]
    pub fn authority(&self) -> Option<String> {
        match self {
            Self::Url(url) => Some(format!("{}:{}", url.host()?, url.port_or_known_default()?)),
            Self::Folder(_) => None,
        }
    }
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Url(url) => f.write_str(url.as_str().trim_end_matches('/')),
            Self::Folder(path) => write!(f, "{}", path.display()),
        }
    }
}

impl FromStr for Address {
    type Err = BmcError;

    /// Anything with `://` is a URL, anything else a folder.
    fn from_str(text: &str) -> Result<Self, BmcError> {
        let bad = |why: &str| BmcError::Address { text: text.to_owned(), why: why.to_owned() };
        if text.trim().is_empty() {
            return Err(bad("it is empty"));
        }
        if !text.contains("://") {
            return Ok(Self::Folder(PathBuf::from(text)));
        }
        let mut url = Url::parse(text).map_err(|e| bad(&e.to_string()))?;
        if !matches!(url.scheme(), "https" | "http") {
            return Err(bad("BMCs speak https (or http)"));
        }
        if !url.username().is_empty() || url.password().is_some() {
            // Not quoted: the text holds a password.
            let text = url.host_str().unwrap_or_default().to_owned();
            return Err(BmcError::Address { text, why: "user name and password do not belong in a URL".to_owned() });
        }
        if !matches!(url.path().trim_end_matches('/'), "" | "/redfish" | "/redfish/v1") || url.query().is_some() {
            return Err(bad("only host and port are needed, no path"));
        }
        url.set_path("/");
        url.set_fragment(None);
        Ok(Self::Url(url))
    }
}

#[cfg(test)]
mod tests {
    //! Addresses that people write are read, and what would leak or mislead is refused.
    use super::*;

    #[test]
    fn reads_urls_and_folders() {
        let at = |text: &str| text.parse::<Address>().unwrap();
        assert_eq!(at("https://10.0.0.5").authority().unwrap(), "10.0.0.5:443");
        assert_eq!(at("https://bmc.rack:8443/redfish/v1/").to_string(), "https://bmc.rack:8443");
        assert_eq!(at("https://[fd00::5]").authority().unwrap(), "[fd00::5]:443");
        assert_eq!(at("trees/one"), Address::Folder("trees/one".into()));
    }

    #[test]
    fn refuses_what_misleads() {
        for text in ["", "ftp://10.0.0.5", "https://", "https://h/redfish/v1/Systems", "https://h?x=1"] {
            assert!(text.parse::<Address>().is_err(), "{text}");
        }
        let error = "https://admin:hunter2@h".parse::<Address>().unwrap_err();
        assert!(!error.to_string().contains("hunter2"));
    }
}
