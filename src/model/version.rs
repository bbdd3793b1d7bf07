//! Versions of objects.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The version that an object's bytes are: which of them is newer, and a number that no other of its key has.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Version {
    /// Microseconds since 1970 when it was written, or just after the version before it, whichever is later; 0 in a bucket that
    /// never kept versions.
    pub stamp: u64,
    /// Random; 0 names the one version of a key that was written while its bucket kept none.
    pub random: u64,
}

impl Version {
    /// Whether its id is `null`.
    #[must_use]
    pub fn is_null(self) -> bool {
        self.random == 0
    }

    /// How clients name it.
    #[must_use]
    pub fn id(self) -> VersionId {
        if self.is_null() { VersionId::Null } else { VersionId::Of(self) }
    }
}

/// How clients name a version: `null`, or 32 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum VersionId {
    /// The version that was written while the bucket kept none.
    Null,
    /// This version.
    Of(Version),
}

/// The text names no version.
#[derive(Debug, thiserror::Error)]
#[error("a version id is null or 32 hexadecimal digits, not {0:?}")]
pub struct VersionError(String);

impl fmt::Display for VersionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("null"),
            Self::Of(version) => write!(f, "{:016x}{:016x}", version.stamp, version.random),
        }
    }
}

impl FromStr for VersionId {
    type Err = VersionError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "null" {
            return Ok(Self::Null);
        }
        let mut bytes = [0; 16];
        hex::decode_to_slice(text, &mut bytes).map_err(|_| VersionError(text.to_owned()))?;
        let number = u128::from_be_bytes(bytes);
        let version = Version { stamp: (number >> 64) as u64, random: number as u64 };
        if version.is_null() { Err(VersionError(text.to_owned())) } else { Ok(Self::Of(version)) }
    }
}

impl Serialize for VersionId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for VersionId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// Whether a bucket keeps the versions of its objects.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Versioning {
    /// It never did.
    #[default]
    Off,
    /// Every write adds a version.
    Enabled,
    /// It did: what is there stays, and writes replace the version `null`.
    Suspended,
}

#[cfg(test)]
mod tests {
    //! Ids read back, and no text but one names the null version.
    use super::*;

    #[test]
    fn ids_read_back() {
        let version = Version { stamp: 1_795_471_199_999_000, random: 7 };
        let text = version.id().to_string();
        assert_eq!(text.len(), 32);
        assert_eq!(text.parse::<VersionId>().unwrap(), VersionId::Of(version));
        assert_eq!("null".parse::<VersionId>().unwrap(), VersionId::Null);
        assert_eq!(Version::default().id(), VersionId::Null);
        for wrong in ["", "Null", "00000000000000010000000000000000", "xyz"] {
            assert!(wrong.parse::<VersionId>().is_err(), "{wrong}");
        }
    }
}
