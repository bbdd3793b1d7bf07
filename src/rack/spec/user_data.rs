//! User data: what an image is told at its first start, in the words of cloud-init. A spec names files; what stands in them travels
//! with a job and may hold secrets, so that nothing but the node's seed ever shows it.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::model::{Digest, Secret};
use crate::rack::spec::{Spec, SpecError};

/// Bytes of one file at most: what fits the seed volume with room to spare, and a job's row.
pub const USER_DATA_MAX: usize = 256 * 1024;
/// Different files of one spec at most: they are journalled with the job in one transaction.
const USER_DATA_FILES_MAX: usize = 64;
/// Bytes of all of them at most: they travel in one request.
const USER_DATA_SUM_MAX: usize = 2 * 1024 * 1024;
/// How far into a MIME message cloud-init looks for its version.
const MIME_HEAD: usize = 4096;

/// The text of one file, checked.
#[derive(Clone, PartialEq, Eq)]
pub struct UserData(Secret);

/// What may be told of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserDataFacts {
    /// The file that the spec names.
    pub file: PathBuf,
    /// SHA-256 of its text, as `sha256sum` prints it.
    pub sha256: Digest,
    /// Its length in bytes.
    pub bytes: usize,
}

impl UserData {
    /// Checks a file's content.
    ///
    /// # Errors
    /// What is wrong with it, and what to do; nothing of its content.
    pub fn check(bytes: Vec<u8>) -> Result<Self, String> {
        if bytes.len() > USER_DATA_MAX {
            return Err(format!(
                "it is longer than {USER_DATA_MAX} bytes; let it fetch what is large from the store at the first start"
            ));
        }
        let text = String::from_utf8(bytes)
            .ok()
            .filter(|text| !text.contains('\0'))
            .ok_or("it is no text in UTF-8; give the text itself, neither compressed nor encoded")?;
        match text.lines().next() {
            None => return Err("it is empty; leave user-data out, or write a #cloud-config or a script".to_owned()),
            Some(_) if text.starts_with("#!") && text.split('\n').next().is_some_and(|line| line.ends_with('\r')) => {
                return Err(
                    "its first line ends with a carriage return, and no system finds that interpreter; save it with \
                            the line ends of Unix"
                        .to_owned(),
                );
            }
            Some(first) if first.starts_with("#cloud-config") || first.starts_with("#!") || is_mime(&text) => {}
            Some(_) => {
                return Err(
                    "cloud-init would ignore it; its first line must begin with #cloud-config or #!, or it must be a \
                            MIME message (Content-Type and MIME-Version first)"
                        .to_owned(),
                );
            }
        }
        Ok(Self(Secret::new(text)))
    }

    /// The text, for the seed and the journal.
    #[must_use]
    pub fn text(&self) -> &Secret {
        &self.0
    }

    /// SHA-256 of the text.
    #[must_use]
    pub fn sha256(&self) -> Digest {
        let digest = ring::digest::digest(&ring::digest::SHA256, self.0.reveal().as_bytes());
        Digest(digest.as_ref().try_into().unwrap_or_default())
    }

    /// What may be told of it, as the content of `file`.
    #[must_use]
    pub fn facts(&self, file: &Path) -> UserDataFacts {
        UserDataFacts { file: file.to_owned(), sha256: self.sha256(), bytes: self.0.reveal().len() }
    }
}

fn is_mime(text: &str) -> bool {
    let end = (0..=MIME_HEAD.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    let head = text[..end].to_ascii_lowercase();
    (head.starts_with("content-type:") || head.starts_with("mime-version:")) && head.contains("mime-version:")
}

impl fmt::Debug for UserData {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "UserData({} bytes)", self.0.reveal().len())
    }
}

impl Serialize for UserData {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.0.reveal())
    }
}

impl<'de> Deserialize<'de> for UserData {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::check(text.into_bytes()).map_err(|why| serde::de::Error::custom(format!("user data is refused: {why}")))
    }
}

impl Spec {
    /// The spec with the content of the files that its nodes name, each read once by `read`, which need not read more than
    /// [`USER_DATA_MAX`] bytes and one. Refuses a file that cannot be read, or whose content is no user data.
    pub fn with_user_data(mut self, read: impl Fn(&Path) -> io::Result<Vec<u8>>) -> Result<Self, SpecError> {
        let mut texts = BTreeMap::new();
        for node in &self.nodes {
            let Some(file) = node.user_data.as_ref().filter(|file| !texts.contains_key(*file)) else { continue };
            let mistake = |problem: String| SpecError::Mistake {
                place: format!("rack {:?}, node {:?}", self.name, node.name.as_str()),
                problem: format!("user-data = {:?}: {problem}", file.display().to_string()),
            };
            let bytes = read(file).map_err(|error| {
                mistake(format!("{error}; the path begins at the spec's folder: correct it, or leave user-data out"))
            })?;
            texts.insert(file.clone(), UserData::check(bytes).map_err(mistake)?);
        }
        self.user_data = texts;
        self.check_user_data()?;
        Ok(self)
    }

    /// Refuses more user data than one job carries.
    pub(super) fn check_user_data(&self) -> Result<(), SpecError> {
        let sum: usize = self.user_data.values().map(|text| text.0.reveal().len()).sum();
        let problem = if self.user_data.len() > USER_DATA_FILES_MAX {
            format!(
                "its nodes name {} files of user data, and at most {USER_DATA_FILES_MAX} go with one job; give nodes of one role \
                 the same file, which finds the node's name in /etc/hostname",
                self.user_data.len()
            )
        } else if sum > USER_DATA_SUM_MAX {
            format!(
                "its user data has {sum} bytes in all, and at most {USER_DATA_SUM_MAX} go with one job; let it fetch what is large \
                 from the store at the first start"
            )
        } else {
            return Ok(());
        };
        Err(SpecError::Mistake { place: format!("rack {:?}", self.name), problem })
    }
}

#[cfg(test)]
mod tests {
    //! What cloud-init would take is taken byte by byte, what it would not is refused with what to do, and neither shows the content.
    use super::*;

    fn check(text: &[u8]) -> Result<UserData, String> {
        UserData::check(text.to_vec())
    }

    #[test]
    fn beginnings() {
        for good in [
            "#cloud-config\npackages: []\n",
            "#cloud-config\r\nruncmd: []\r\n",
            "#!/bin/sh\necho\n",
            "MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=x\n\n--x\n",
            "content-type: multipart/mixed; boundary=x\nMIME-Version: 1.0\n\n--x\n",
        ] {
            assert_eq!(check(good.as_bytes()).unwrap().text().reveal(), good);
        }
        for (bad, told) in [
            ("", "it is empty"),
            ("hunter2\n", "cloud-init would ignore it"),
            (" #cloud-config\n", "cloud-init would ignore it"),
            ("Content-Type: text/plain\n\nhunter2", "cloud-init would ignore it"),
            ("#!/bin/sh\r\nhunter2\r\n", "carriage return"),
            ("#!/bin/sh\n\0hunter2", "no text in UTF-8"),
        ] {
            let error = check(bad.as_bytes()).unwrap_err();
            assert!(error.contains(told) && !error.contains("hunter2"), "{bad:?}: {error}");
        }
        assert!(check(b"#!/bin/sh\n\xff").unwrap_err().contains("UTF-8"));
        let mut long = b"#!/bin/sh\n".to_vec();
        long.resize(USER_DATA_MAX, b'#');
        assert!(check(&long).is_ok());
        long.push(b'#');
        assert!(check(&long).unwrap_err().contains("longer than 262144 bytes"));
    }

    #[test]
    fn only_its_digest_is_told() {
        let text = check(b"#!/bin/sh\nhunter2\n").unwrap();
        assert_eq!(format!("{text:?}"), "UserData(18 bytes)");
        // What `printf '#!/bin/sh\nhunter2\n' | sha256sum` prints.
        let sum = "caed8f802503054c6bb83301eed56b7df43642545c02945f7bca44de73e4f452";
        assert_eq!(text.facts(Path::new("a")).sha256.to_string(), sum);
    }

    #[test]
    fn a_spec_reads_each_file_once_and_bounds_them_all() {
        let text = "name = \"r\"\nimage = \"os@1\"\ndisk = { serial = \"S\" }\n[role.a]\nuser-data = \"x/../one\"\n\
                    [[node]]\nname = \"n1\"\nbmc = \"https://1\"\nrole = \"a\"\n[[node]]\nname = \"n2\"\nbmc = \"https://2\"\nrole = \"a\"\n\
                    [[node]]\nname = \"n3\"\nbmc = \"https://3\"\nrole = \"a\"\nuser-data = \"/two\"\n";
        let spec = Spec::parse(text, "rack.toml", Path::new("/racks")).unwrap();
        let reads = std::cell::RefCell::new(Vec::new());
        let read = spec.clone().with_user_data(|path| {
            reads.borrow_mut().push(path.to_owned());
            Ok(format!("#!{}", path.display()).into_bytes())
        });
        let read = read.unwrap();
        assert_eq!(*reads.borrow(), [Path::new("/racks/one"), Path::new("/two")]);
        assert_eq!(read.user_data[Path::new("/two")].text().reveal(), "#!/two");
        // As JSON, which is how it travels, it is the same.
        assert_eq!(serde_json::from_value::<Spec>(serde_json::to_value(&read).unwrap()).unwrap(), read);
        let missing = spec.with_user_data(|_| Err(io::Error::from(io::ErrorKind::NotFound))).unwrap_err().to_string();
        assert!(missing.contains("node \"n1\"") && missing.contains("/racks/one"), "{missing}");
        let mut many = read;
        let one = many.user_data[Path::new("/two")].clone();
        many.user_data = (0..=USER_DATA_FILES_MAX).map(|n| (PathBuf::from(n.to_string()), one.clone())).collect();
        assert!(many.check_user_data().unwrap_err().to_string().contains("65 files"));
        let long = check(format!("#!{}", "x".repeat(USER_DATA_MAX - 2)).as_bytes()).unwrap();
        many.user_data = (0..9).map(|n| (PathBuf::from(n.to_string()), long.clone())).collect();
        assert!(many.check_user_data().unwrap_err().to_string().contains("2359296 bytes in all"));
    }
}
