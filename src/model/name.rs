//! Names that people give: checked when they are made, so that nothing further in has to.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::limit;

/// Why a name was refused; the text says what a good one looks like.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct NameError(String);

macro_rules! text_name {
    ($name:ident) => {
        impl $name {
            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

/// A bucket, named by S3's rules: 3 to 63 lower-case letters, digits, dots and hyphens.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct BucketName(String);
text_name!(BucketName);

impl BucketName {
    /// The bucket that holds images. Its leading dot keeps it out of S3's namespace: no client can name it.
    #[must_use]
    pub fn images() -> Self {
        Self(".images".to_owned())
    }

    /// Whether the bucket is the appliance's own and hidden from clients.
    #[must_use]
    pub fn is_internal(&self) -> bool {
        self.0.starts_with('.')
    }

    /// The bucket as a snapshot of it has it, written `BUCKET@SNAPSHOT`: read like a bucket, and written by nobody.
    #[must_use]
    pub fn at(&self, snapshot: &SnapshotName) -> Self {
        Self(format!("{}{AT}{snapshot}", self.0))
    }

    /// Whether the name is one of a snapshot.
    #[must_use]
    pub fn is_snapshot(&self) -> bool {
        self.0.contains(AT)
    }

    /// The bucket and the snapshot, where the name is one of a snapshot.
    #[must_use]
    pub fn snapshot(&self) -> Option<(Self, SnapshotName)> {
        let (bucket, snapshot) = self.0.split_once(AT)?;
        Some((Self(bucket.to_owned()), SnapshotName(snapshot.to_owned())))
    }

    /// The bucket itself, where the name is one of a snapshot.
    #[must_use]
    pub fn base(&self) -> Self {
        self.snapshot().map_or_else(|| self.clone(), |(bucket, _)| bucket)
    }

    /// Reads what people and clients name to read from: `BUCKET`, `BUCKET@SNAPSHOT`, or `BUCKET_at_SNAPSHOT` for clients that
    /// refuse an at sign. No bucket has an underscore in its name.
    pub fn parse_readable(text: &str) -> Result<Self, NameError> {
        match text.split_once(AT).or_else(|| text.split_once(AT_IN_WORDS)) {
            None => text.parse(),
            Some((bucket, snapshot)) => Ok(bucket.parse::<Self>()?.at(&snapshot.parse()?)),
        }
    }

    /// The name as S3 clients of any kind can carry it.
    #[must_use]
    pub fn on_the_wire(&self) -> String {
        self.0.replacen(AT, AT_IN_WORDS, 1)
    }
}

/// Between a bucket and its snapshot.
const AT: char = '@';
/// The same for clients that take an at sign for a mistake.
const AT_IN_WORDS: &str = "_at_";

/// A snapshot of a bucket: 1 to 64 letters, digits, dots, hyphens and underscores.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SnapshotName(String);
text_name!(SnapshotName);

impl FromStr for SnapshotName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if is_label(text, 64) {
            return Ok(Self(text.to_owned()));
        }
        Err(NameError(format!(
            "{text:?} is not a snapshot's name: use 1 to 64 letters, digits, dots, hyphens and underscores, \
             beginning with a letter or digit"
        )))
    }
}

impl FromStr for BucketName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bytes = text.as_bytes();
        let edge = |b: Option<&u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        let good = (3..=63).contains(&bytes.len())
            && bytes.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'-'))
            && edge(bytes.first())
            && edge(bytes.last())
            && !text.contains("..")
            && text.parse::<std::net::Ipv4Addr>().is_err()
            && !text.starts_with("xn--")
            && !text.ends_with("-s3alias");
        if good {
            Ok(Self(text.to_owned()))
        } else {
            Err(NameError(format!(
                "{text:?} is not a bucket name: use 3 to 63 lower-case letters, digits, dots and hyphens, \
                 beginning and ending with a letter or digit"
            )))
        }
    }
}

/// An object's key: 1 to 1,024 bytes of UTF-8.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ObjectKey(String);
text_name!(ObjectKey);

impl FromStr for ObjectKey {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.is_empty() || text.len() > limit::KEY_BYTES_MAX {
            return Err(NameError(format!("an object key has 1 to 1,024 bytes, not {}", text.len())));
        }
        Ok(Self(text.to_owned()))
    }
}

fn is_label(text: &str, max: usize) -> bool {
    !text.is_empty()
        && text.len() <= max
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'))
        && text.as_bytes()[0].is_ascii_alphanumeric()
}

/// An image and its version, written `name@version`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ImageRef {
    /// The image's name.
    pub name: String,
    /// Its version.
    pub version: String,
}

impl fmt::Display for ImageRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.name, self.version)
    }
}

impl FromStr for ImageRef {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once('@') {
            Some((name, version)) if is_label(name, 64) && is_label(version, 64) => {
                Ok(Self { name: name.to_owned(), version: version.to_owned() })
            }
            _ => Err(NameError(format!(
                "{text:?} is not an image: write NAME@VERSION, each of letters, digits, dots, hyphens and underscores"
            ))),
        }
    }
}

impl Serialize for ImageRef {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ImageRef {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// A node's name: also its host name, so a DNS label (letters, digits and hyphens, at most 63).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct NodeName(String);
text_name!(NodeName);

impl FromStr for NodeName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let good =
            is_label(text, 63) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') && !text.ends_with('-');
        if good {
            Ok(Self(text.to_owned()))
        } else {
            Err(NameError(format!(
                "{text:?} is not a node name: use at most 63 letters, digits and hyphens (it becomes the host name)"
            )))
        }
    }
}
