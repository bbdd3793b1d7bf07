//! Access keys, tenants, sessions, and who may call.
//!
//! The root key is the file `root-credentials.toml` in the data folder: it may do everything, and is not stored
//! anywhere else, so a lost root key is replaced by removing the file and starting again. Every other key belongs to a
//! tenant, which owns the buckets that its keys create and sees no others. Secrets lie in the rows encrypted under the
//! master key, and leave this module only to verify a signature and, once, to whoever makes the key.

pub mod base64;
mod files;
mod key;
mod known;
mod master;
mod object_key;
pub mod policy;
mod principal;
mod root;
mod session;
mod vault;

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

pub use key::{KeyInfo, KeyState, NewKey, NewKeyRequest, forget_keys};
pub use master::{MasterError, MasterSource};
pub use object_key::ObjectKeys;
pub use principal::Principal;
pub use root::{RootCredentials, RootError};
pub use session::{Caller, NewSession, Refusal, SessionError};

use crate::meta::{self, Meta, MetaError, Transaction};
use crate::sys::clock::{self, Timestamp};
use known::Known;
use vault::Vault;

/// The name under which root owns buckets; no tenant may have it.
pub const ROOT: &str = "root";
/// Keys read in one scan at start-up.
const PAGE: usize = 1_000;

/// Why a caller, a tenant or a key was refused.
#[derive(Debug, thiserror::Error)]
pub enum AuthError {
    /// The rows could not be read or written.
    #[error("cannot {action}")]
    Meta {
        /// What was tried.
        action: &'static str,
        /// What the database said.
        #[source]
        source: MetaError,
    },
    /// A row is not what was written.
    #[error("the row of {what} is damaged; restore the data folder from a copy, or make it anew under another name")]
    Damaged {
        /// Which key or tenant.
        what: String,
    },
    /// The tenant exists.
    #[error("tenant {0} exists; make a key for it, or choose another name")]
    TenantExists(String),
    /// No such tenant.
    #[error("there is no tenant {0}; make it with `bedplate tenant create {0}`")]
    NoSuchTenant(String),
    /// The access key exists.
    #[error("access key {0} exists; choose another, or leave it out to have one made")]
    KeyExists(String),
    /// No such access key.
    #[error("there is no access key {0}; `bedplate key list` lists them")]
    NoSuchKey(String),
    /// The key cannot be changed here.
    #[error("{0} is the root key: remove root-credentials.toml from the data folder and start again to have a new one")]
    IsRoot(String),
    /// There is no master key, or not the right one.
    #[error(transparent)]
    Master(#[from] MasterError),
    /// A row that a later program wrote.
    #[error(
        "the row of {what} is of version {version}, which this program does not know; start the program that wrote it"
    )]
    Version {
        /// Which key or tenant.
        what: String,
        /// Its version.
        version: u32,
    },
    /// The name or key has a form that is not allowed.
    #[error("{0}")]
    BadName(String),
}

/// A tenant: an owner of buckets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tenant {
    /// Its name.
    pub name: String,
    /// When it was made.
    pub created: Timestamp,
}

/// A tenant's row, JSON at `t/NAME`.
#[derive(Serialize, Deserialize)]
struct TenantRow {
    version: u32,
    created: Timestamp,
}

/// The version of a tenant's row.
const TENANT_VERSION: u32 = 1;

/// Who may call: looks keys up and makes them. Clones share everything.
#[derive(Clone)]
pub struct Auth {
    meta: Arc<dyn Meta>,
    root: Arc<RootCredentials>,
    vault: Arc<Vault>,
    known: Arc<Known<key::Key>>,
}

impl std::fmt::Debug for Auth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Auth").field("root", &self.root.access_key).finish_non_exhaustive()
    }
}

impl Auth {
    /// Opens the rows, with the root key that [`RootCredentials::establish`] answered. Makes a master key where there has
    /// been none, refuses one that is not the rows' own, and encrypts the secrets of rows that an older program wrote.
    pub async fn open(meta: Arc<dyn Meta>, root: RootCredentials, master: &MasterSource) -> Result<Self, AuthError> {
        let vault = key::unlock(&*meta, master).await?;
        let auth = Self { meta, root: Arc::new(root), vault: Arc::new(vault), known: Arc::default() };
        auth.encrypt_old_rows().await?;
        Ok(auth)
    }

    /// Who calls with this `Authorization: Basic …` header; `None` where key and secret do not match, and for
    /// sessions, which have no place for their token there.
    pub async fn check_basic(&self, header: &str) -> Result<Option<Principal>, AuthError> {
        let Some((access_key, secret_key)) = basic_pair(header) else { return Ok(None) };
        let Some(key) = self.key(&access_key).await? else { return Ok(None) };
        Ok(same(key.secret_key.reveal(), &secret_key).then(|| key.principal()))
    }

    /// Makes a tenant.
    pub async fn create_tenant(&self, name: &str) -> Result<Tenant, AuthError> {
        principal::check_tenant(name)?;
        let created = clock::now();
        let row = encode(&TenantRow { version: TENANT_VERSION, created });
        let change = Transaction::new().expect(tenant_key(name), None).put(tenant_key(name), row);
        match self.meta.commit(change).await {
            Ok(()) => Ok(Tenant { name: name.to_owned(), created }),
            Err(MetaError::Conflict) => Err(AuthError::TenantExists(name.to_owned())),
            Err(source) => Err(AuthError::Meta { action: "make a tenant", source }),
        }
    }

    /// All tenants, by name.
    pub async fn list_tenants(&self) -> Result<Vec<Tenant>, AuthError> {
        let rows = self.rows(b"t/").await?;
        rows.into_iter()
            .map(|(name, row)| Ok(Tenant { created: decode::<TenantRow>(&name, &row)?.created, name }))
            .collect()
    }

    async fn read(&self, key: &[u8]) -> Result<Option<Bytes>, AuthError> {
        self.meta.get(key).await.map_err(|source| AuthError::Meta { action: "look up a key or tenant", source })
    }

    /// All rows of a prefix, each with the rest of its key.
    async fn rows(&self, prefix: &[u8]) -> Result<Vec<(String, Bytes)>, AuthError> {
        rows(&*self.meta, prefix).await
    }
}

async fn rows(meta: &dyn Meta, prefix: &[u8]) -> Result<Vec<(String, Bytes)>, AuthError> {
    let end = meta::prefix_end(prefix);
    let mut start = prefix.to_vec();
    let mut all = Vec::new();
    loop {
        let page = meta.scan(&start, &end, PAGE).await;
        let page = page.map_err(|source| AuthError::Meta { action: "list keys or tenants", source })?;
        let full = page.len() == PAGE;
        for (key, row) in page {
            start = [&key[..], &[0]].concat();
            all.push((String::from_utf8_lossy(&key[prefix.len()..]).into_owned(), row));
        }
        if !full {
            return Ok(all);
        }
    }
}

fn tenant_key(name: &str) -> Vec<u8> {
    format!("t/{name}").into_bytes()
}

fn encode<T: Serialize>(row: &T) -> Bytes {
    serde_json::to_vec(row).expect("a row of text and numbers has a JSON form").into()
}

fn decode<T: for<'de> Deserialize<'de>>(what: &str, row: &[u8]) -> Result<T, AuthError> {
    serde_json::from_slice(row).map_err(|_| AuthError::Damaged { what: what.to_owned() })
}

/// Key and secret of a Basic header.
fn basic_pair(header: &str) -> Option<(String, String)> {
    let (scheme, coded) = header.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let plain = String::from_utf8(base64::decode(coded.trim())?).ok()?;
    let (access_key, secret_key) = plain.split_once(':')?;
    Some((access_key.to_owned(), secret_key.to_owned()))
}

/// Whether two secrets are the same, in a time that tells nothing of where they differ: what is compared are their
/// digests, and all of each.
fn same(left: &str, right: &str) -> bool {
    let digest = |text: &str| ring::digest::digest(&ring::digest::SHA256, text.as_bytes());
    let (left, right) = (digest(left), digest(right));
    let differ = left.as_ref().iter().zip(right.as_ref()).fold(0, |differ, (a, b)| differ | (a ^ b));
    std::hint::black_box(differ) == 0
}

#[cfg(test)]
mod tests;
