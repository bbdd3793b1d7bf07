//! The root key and its file.

use std::path::{Path, PathBuf};
use std::{fs, io};

use serde::{Deserialize, Serialize};

use super::files;
use crate::model::Secret;
use crate::sys::entropy;

/// The file's name in the data folder.
const FILE: &str = "root-credentials.toml";
/// Names the environment variable that sets the root access key.
const ACCESS_KEY_ENV: &str = "BEDPLATE_ROOT_ACCESS_KEY";
/// Names the environment variable that sets the root secret key.
const SECRET_KEY_ENV: &str = "BEDPLATE_ROOT_SECRET_KEY";

/// The key that may do everything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RootCredentials {
    /// The access key.
    pub access_key: String,
    /// The secret key.
    pub secret_key: Secret,
}

/// Why there is no root key.
#[derive(Debug, thiserror::Error)]
pub enum RootError {
    /// The file cannot be read or written.
    #[error("cannot {verb} {}", path.display())]
    Io {
        /// What was tried.
        verb: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The file is not what was written.
    #[error("{} is damaged: remove it and start `bedplate serve` again to have a new root key", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What the parser said.
        #[source]
        source: toml::de::Error,
    },
    /// The environment sets half a key, or one that no client can sign with.
    #[error("{0}")]
    Environment(String),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    access_key: String,
    secret_key: String,
}

impl RootCredentials {
    /// Reads the file in `data`.
    pub fn read(data: &Path) -> Result<Self, RootError> {
        let path = data.join(FILE);
        let text = fs::read_to_string(&path).map_err(|source| RootError::Io {
            verb: "read the root key in",
            path: path.clone(),
            source,
        })?;
        let file: File = toml::from_str(&text).map_err(|source| RootError::Damaged { path, source })?;
        Ok(Self { access_key: file.access_key, secret_key: Secret::new(file.secret_key) })
    }

    /// The root key at start-up: as the environment sets it, else as the file has it, else a fresh one. The file holds
    /// it afterwards, readable by its owner only.
    pub fn establish(data: &Path) -> Result<Self, RootError> {
        let from_env = |name: &str| std::env::var(name).ok().filter(|text| !text.is_empty());
        let wanted = match (from_env(ACCESS_KEY_ENV), from_env(SECRET_KEY_ENV)) {
            (Some(access_key), Some(secret_key)) => {
                check_pair(&access_key, &secret_key).map_err(RootError::Environment)?;
                Some(Self { access_key, secret_key: Secret::new(secret_key) })
            }
            (None, None) => None,
            _ => {
                let text = format!("{ACCESS_KEY_ENV} and {SECRET_KEY_ENV} are set together or not at all");
                return Err(RootError::Environment(text));
            }
        };
        let known = match Self::read(data) {
            Ok(known) => Some(known),
            Err(RootError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => None,
            Err(RootError::Damaged { .. }) if wanted.is_some() => None,
            Err(error) => return Err(error),
        };
        match (wanted, known) {
            (None, Some(known)) => Ok(known),
            (Some(wanted), Some(known)) if wanted == known => Ok(known),
            (wanted, _) => {
                let root = wanted.unwrap_or_else(Self::random);
                root.write(data)?;
                Ok(root)
            }
        }
    }

    fn random() -> Self {
        Self { access_key: random_access_key(), secret_key: Secret::new(random_secret_key()) }
    }

    /// Writes the file whole or not at all.
    fn write(&self, data: &Path) -> Result<(), RootError> {
        let path = data.join(FILE);
        let text = format!(
            "# The root key of this bedplate: it may do everything. Keep it secret.\naccess_key = {:?}\nsecret_key = {:?}\n",
            self.access_key,
            self.secret_key.reveal()
        );
        files::write_whole(data, FILE, &text).map_err(|source| RootError::Io {
            verb: "write the root key to",
            path,
            source,
        })
    }
}

/// A fresh access key: 20 letters and digits, as S3 clients expect.
pub(super) fn random_access_key() -> String {
    let token = entropy::token().to_ascii_uppercase();
    format!("BP{}", &token[..18])
}

/// A fresh secret key: 160 random bits.
pub(super) fn random_secret_key() -> String {
    entropy::token()[..40].to_owned()
}

/// Whether S3 clients can sign with the pair; the text says what a good one looks like.
pub(super) fn check_pair(access_key: &str, secret_key: &str) -> Result<(), String> {
    let label = |text: &str| text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
    if !(3..=128).contains(&access_key.len()) || !label(access_key) {
        return Err("an access key has 3 to 128 letters, digits, dots, hyphens and underscores".to_owned());
    }
    if !(8..=256).contains(&secret_key.len()) || !secret_key.bytes().all(|b| b.is_ascii_graphic()) {
        return Err("a secret key has 8 to 256 printable ASCII characters and no blanks".to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    //! The root key survives a restart, its file is the owner's alone, and it prints no secret.
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn is_made_once_and_kept() {
        let dir = tempfile::tempdir().unwrap();
        let first = RootCredentials::establish(dir.path()).unwrap();
        assert_eq!(RootCredentials::establish(dir.path()).unwrap(), first);
        assert_eq!(RootCredentials::read(dir.path()).unwrap(), first);
        let mode = fs::metadata(dir.path().join(FILE)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(!format!("{first:?}").contains(first.secret_key.reveal()));
    }

    #[test]
    fn a_damaged_file_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(FILE), "access_key = 3").unwrap();
        assert!(matches!(RootCredentials::establish(dir.path()), Err(RootError::Damaged { .. })));
    }
}
