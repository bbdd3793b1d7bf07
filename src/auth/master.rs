//! The master key: 32 bytes from which all keys are derived that encrypt secrets at rest and make session tokens.
//!
//! It comes from the environment, or a file that is named, or `master.key` in the data folder, which the first start
//! makes. It is never in the database, so that a copy of the rows alone shows no secret.

use std::path::PathBuf;
use std::{fs, io};

use super::files;
use crate::sys::entropy;

/// The file's name in the data folder.
const FILE: &str = "master.key";
/// Names the environment variable that holds the master key.
const ENV: &str = "BEDPLATE_MASTER_KEY";

/// 32 secret bytes.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct MasterKey([u8; 32]);

impl std::fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("MasterKey(…)")
    }
}

/// Where the master key is looked for: `BEDPLATE_MASTER_KEY`, else `file`, else `master.key` in `data`.
#[derive(Clone, Debug)]
pub struct MasterSource {
    /// The data folder.
    pub data: PathBuf,
    /// The file that was named, if one was.
    pub file: Option<PathBuf>,
}

/// Why there is no master key.
#[derive(Debug, thiserror::Error)]
pub enum MasterError {
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
    /// Others may read the file.
    #[error("{} can be read by others (mode {mode:03o}); run `chmod 600` on it, and consider the secrets of all keys as known", path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// What was given is no key.
    #[error("{0} does not hold a master key: 64 hexadecimal digits; restore it from its copy")]
    Damaged(String),
    /// There was a master key, and now there is none.
    #[error("the master key is missing: it is neither in {ENV} nor in {}; restore it, or see \"The master key is lost\" in docs/operating.md", path.display())]
    Missing {
        /// The file where it was looked for.
        path: PathBuf,
    },
    /// The rows were encrypted under another key.
    #[error(
        "the master key in {place} is not the one that this data folder's keys are encrypted with; give the right one, or see \"The master key is lost\" in docs/operating.md"
    )]
    Wrong {
        /// Where the key came from.
        place: String,
    },
}

impl MasterSource {
    /// The master key; none where nothing was given and the data folder has none.
    pub(super) fn read(&self) -> Result<Option<MasterKey>, MasterError> {
        if let Some(text) = from_env() {
            return MasterKey::parse(&text).map(Some).ok_or_else(|| MasterError::Damaged(ENV.to_owned()));
        }
        let path = self.path();
        let failed = |source| MasterError::Io { verb: "read the master key in", path: path.clone(), source };
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound && self.file.is_none() => return Ok(None),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => String::new(),
            Err(error) => return Err(failed(error)),
        };
        if let Some(mode) = files::exposed(&path).map_err(failed)? {
            return Err(MasterError::Exposed { path, mode });
        }
        MasterKey::parse(&text).map(Some).ok_or_else(|| MasterError::Damaged(path.display().to_string()))
    }

    /// Makes a master key and keeps it in the data folder; durable when it returns.
    pub(super) fn create(&self) -> Result<MasterKey, MasterError> {
        let mut key = MasterKey([0; 32]);
        entropy::fill(&mut key.0);
        let text = format!("{}\n", hex::encode(key.0));
        let wrote = files::write_whole(&self.data, FILE, &text);
        let path = self.data.join(FILE);
        wrote.map_err(|source| MasterError::Io { verb: "write the master key to", path: path.clone(), source })?;
        tracing::info!(file = %path.display(), "the master key is made: keep a copy of it apart from the data");
        Ok(key)
    }

    pub(super) fn missing(&self) -> MasterError {
        MasterError::Missing { path: self.path() }
    }

    pub(super) fn wrong(&self) -> MasterError {
        let place = if from_env().is_some() { ENV.to_owned() } else { self.path().display().to_string() };
        MasterError::Wrong { place }
    }

    fn path(&self) -> PathBuf {
        self.file.clone().unwrap_or_else(|| self.data.join(FILE))
    }
}

impl MasterKey {
    pub(super) fn bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Reads 64 hexadecimal digits, with space around them.
    fn parse(text: &str) -> Option<Self> {
        let mut key = [0; 32];
        hex::decode_to_slice(text.trim(), &mut key).ok()?;
        Some(Self(key))
    }
}

fn from_env() -> Option<String> {
    std::env::var(ENV).ok().filter(|text| !text.is_empty())
}

/// A source in a test's folder.
#[cfg(test)]
pub(super) fn test_source(data: &std::path::Path) -> MasterSource {
    MasterSource { data: data.to_owned(), file: None }
}

#[cfg(test)]
mod tests {
    //! The master key survives a restart, is its owner's alone, and what is exposed, damaged or absent stops the start.
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn is_made_once_and_kept() {
        let dir = tempfile::tempdir().unwrap();
        let source = test_source(dir.path());
        assert_eq!(source.read().unwrap(), None);
        let made = source.create().unwrap();
        assert_eq!(source.read().unwrap(), Some(made.clone()));
        let path = dir.path().join(FILE);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(!format!("{made:?}").contains(fs::read_to_string(&path).unwrap().trim()));

        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(source.read(), Err(MasterError::Exposed { mode: 0o640, .. })));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        for junk in [&b"12"[..], b"\xff\xfe", b""] {
            fs::write(&path, junk).unwrap();
            assert!(matches!(source.read(), Err(MasterError::Damaged(_))));
        }
    }

    #[test]
    fn a_file_that_is_named_must_be_there() {
        let dir = tempfile::tempdir().unwrap();
        let elsewhere = dir.path().join("elsewhere");
        let source = MasterSource { file: Some(elsewhere.clone()), ..test_source(dir.path()) };
        assert!(matches!(source.read(), Err(MasterError::Io { .. })));
        files::write_whole(dir.path(), "elsewhere", &"ab".repeat(32)).unwrap();
        assert_eq!(source.read().unwrap().unwrap().bytes(), &[0xab; 32]);
    }
}
