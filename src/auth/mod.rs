//! Access keys, tenants, and who may call.
//!
//! The root key is the file `root-credentials.toml` in the data folder: it may do everything, and is not stored
//! anywhere else, so a lost root key is replaced by removing the file and starting again. Every other key belongs to a
//! tenant, which owns the buckets that its keys create and sees no others. Secrets leave this module only to verify a
//! signature and, once, to whoever makes the key.

mod root;

use serde::{Deserialize, Serialize};

pub use root::{RootCredentials, RootError};

use crate::sys::clock::Timestamp;

/// A tenant: an owner of buckets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tenant {
    /// Its name.
    pub name: String,
    /// When it was made.
    pub created: Timestamp,
}

/// A key as lists show it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyInfo {
    /// The access key.
    pub access_key: String,
    /// Whose it is.
    pub tenant: String,
    /// When it was made.
    pub created: Timestamp,
}

/// A key as its maker sees it, this once.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewKey {
    /// The access key.
    pub access_key: String,
    /// The secret key.
    pub secret_key: String,
    /// Whose it is.
    pub tenant: String,
}

impl std::fmt::Debug for NewKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NewKey")
            .field("access_key", &self.access_key)
            .field("tenant", &self.tenant)
            .finish_non_exhaustive()
    }
}
