//! Access keys, tenants, and who may call.
//!
//! The root key is the file `root-credentials.toml` in the data folder: it may do everything, and is not stored
//! anywhere else, so a lost root key is replaced by removing the file and starting again. Every other key belongs to a
//! tenant, which owns the buckets that its keys create and sees no others. Secrets leave this module only to verify a
//! signature and, once, to whoever makes the key.

pub mod base64;
pub mod policy;
mod root;

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

pub use root::{RootCredentials, RootError};

use crate::meta::{self, Meta, MetaError, Transaction};
use crate::model::Secret;
use crate::sys::clock::{self, Timestamp};

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
    /// The name or key has a form that is not allowed.
    #[error("{0}")]
    BadName(String),
}

/// Who calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Principal {
    /// The root key's holder, who may do everything.
    Root,
    /// A tenant.
    Tenant(String),
}

impl Principal {
    /// The name under which the caller owns buckets.
    #[must_use]
    pub fn owner(&self) -> &str {
        match self {
            Self::Root => ROOT,
            Self::Tenant(name) => name,
        }
    }

    /// Whether the caller may see and use what `owner` owns.
    #[must_use]
    pub fn may_use(&self, owner: &str) -> bool {
        *self == Self::Root || self.owner() == owner
    }
}

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

/// A tenant's row, JSON at `t/NAME`.
#[derive(Serialize, Deserialize)]
struct TenantRow {
    version: u32,
    created: Timestamp,
}

/// A key's row, JSON at `k/ACCESS_KEY`.
#[derive(Serialize, Deserialize)]
struct KeyRow {
    version: u32,
    secret_key: String,
    tenant: String,
    created: Timestamp,
}

const ROW_VERSION: u32 = 1;

#[derive(Clone)]
struct Key {
    secret_key: Secret,
    principal: Principal,
}

/// Who may call: looks keys up and makes them. Clones share everything.
#[derive(Clone)]
pub struct Auth {
    meta: Arc<dyn Meta>,
    root: Arc<RootCredentials>,
    /// Keys that were read from their rows; a key never changes once made.
    known: Arc<RwLock<HashMap<String, Key>>>,
}

impl std::fmt::Debug for Auth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Auth").field("root", &self.root.access_key).finish_non_exhaustive()
    }
}

impl Auth {
    /// Opens the rows, with the root key that [`RootCredentials::establish`] answered.
    #[must_use]
    pub fn open(meta: Arc<dyn Meta>, root: RootCredentials) -> Self {
        Self { meta, root: Arc::new(root), known: Arc::default() }
    }

    /// The secret of an access key; `None` where nobody has that key.
    pub async fn secret_of(&self, access_key: &str) -> Result<Option<Secret>, AuthError> {
        Ok(self.key(access_key).await?.map(|key| key.secret_key))
    }

    /// Whose an access key is.
    pub async fn principal_of(&self, access_key: &str) -> Result<Option<Principal>, AuthError> {
        Ok(self.key(access_key).await?.map(|key| key.principal))
    }

    /// Who calls with this `Authorization: Basic …` header; `None` where key and secret do not match.
    pub async fn check_basic(&self, header: &str) -> Result<Option<Principal>, AuthError> {
        let Some((access_key, secret_key)) = basic_pair(header) else { return Ok(None) };
        let Some(key) = self.key(&access_key).await? else { return Ok(None) };
        Ok(same(key.secret_key.reveal(), &secret_key).then_some(key.principal))
    }

    /// Makes a tenant.
    pub async fn create_tenant(&self, name: &str) -> Result<Tenant, AuthError> {
        check_tenant_name(name)?;
        let created = clock::now();
        let row = encode(&TenantRow { version: ROW_VERSION, created });
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

    /// Makes a key for a tenant: the given pair, or a random one.
    pub async fn create_key(&self, tenant: &str, pair: Option<(String, Secret)>) -> Result<NewKey, AuthError> {
        let (access_key, secret_key) =
            pair.unwrap_or_else(|| (root::random_access_key(), Secret::new(root::random_secret_key())));
        root::check_pair(&access_key, secret_key.reveal()).map_err(AuthError::BadName)?;
        if access_key == self.root.access_key {
            return Err(AuthError::KeyExists(access_key));
        }
        let tenant_row = self.read(&tenant_key(tenant)).await?;
        let Some(tenant_row) = tenant_row else { return Err(AuthError::NoSuchTenant(tenant.to_owned())) };
        let row = encode(&KeyRow {
            version: ROW_VERSION,
            secret_key: secret_key.reveal().to_owned(),
            tenant: tenant.to_owned(),
            created: clock::now(),
        });
        let change = Transaction::new()
            .expect(tenant_key(tenant), Some(tenant_row))
            .expect(key_key(&access_key), None)
            .put(key_key(&access_key), row);
        match self.meta.commit(change).await {
            Ok(()) => Ok(NewKey { access_key, secret_key: secret_key.reveal().to_owned(), tenant: tenant.to_owned() }),
            Err(MetaError::Conflict) => Err(AuthError::KeyExists(access_key)),
            Err(source) => Err(AuthError::Meta { action: "make a key", source }),
        }
    }

    /// All keys but root's, by access key, without their secrets.
    pub async fn list_keys(&self) -> Result<Vec<KeyInfo>, AuthError> {
        let rows = self.rows(b"k/").await?;
        rows.into_iter()
            .map(|(access_key, row)| {
                let row: KeyRow = decode(&access_key, &row)?;
                Ok(KeyInfo { access_key, tenant: row.tenant, created: row.created })
            })
            .collect()
    }

    async fn key(&self, access_key: &str) -> Result<Option<Key>, AuthError> {
        if access_key == self.root.access_key {
            return Ok(Some(Key { secret_key: self.root.secret_key.clone(), principal: Principal::Root }));
        }
        if let Some(key) = self.known.read().unwrap_or_else(PoisonError::into_inner).get(access_key) {
            return Ok(Some(key.clone()));
        }
        let Some(row) = self.read(&key_key(access_key)).await? else { return Ok(None) };
        let row: KeyRow = decode(access_key, &row)?;
        let key = Key { secret_key: Secret::new(row.secret_key), principal: Principal::Tenant(row.tenant) };
        self.known.write().unwrap_or_else(PoisonError::into_inner).insert(access_key.to_owned(), key.clone());
        Ok(Some(key))
    }

    async fn read(&self, key: &[u8]) -> Result<Option<Bytes>, AuthError> {
        self.meta.get(key).await.map_err(|source| AuthError::Meta { action: "look up a key or tenant", source })
    }

    /// All rows of a prefix, each with the rest of its key.
    async fn rows(&self, prefix: &[u8]) -> Result<Vec<(String, Bytes)>, AuthError> {
        let end = meta::prefix_end(prefix);
        let mut start = prefix.to_vec();
        let mut all = Vec::new();
        loop {
            let page = self.meta.scan(&start, &end, PAGE).await;
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
}

fn tenant_key(name: &str) -> Vec<u8> {
    format!("t/{name}").into_bytes()
}

fn key_key(access_key: &str) -> Vec<u8> {
    format!("k/{access_key}").into_bytes()
}

fn encode<T: Serialize>(row: &T) -> Bytes {
    serde_json::to_vec(row).expect("a row of text and numbers has a JSON form").into()
}

fn decode<T: for<'de> Deserialize<'de>>(what: &str, row: &[u8]) -> Result<T, AuthError> {
    serde_json::from_slice(row).map_err(|_| AuthError::Damaged { what: what.to_owned() })
}

fn check_tenant_name(name: &str) -> Result<(), AuthError> {
    let label = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    if name == ROOT {
        return Err(AuthError::BadName("the name root is the root key's own; choose another".to_owned()));
    }
    if name.is_empty() || name.len() > 64 || !name.bytes().all(label) || !name.as_bytes()[0].is_ascii_alphanumeric() {
        let text = "a tenant's name has 1 to 64 letters, digits, dots, hyphens and underscores, beginning with a letter or digit";
        return Err(AuthError::BadName(text.to_owned()));
    }
    Ok(())
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
mod tests {
    //! Keys work for who made them and for nobody else, survive a restart, and a wrong secret opens nothing.
    use super::*;

    fn root() -> RootCredentials {
        RootCredentials { access_key: "ROOTKEY".into(), secret_key: Secret::new("rootsecret") }
    }

    fn basic(pair: &str) -> String {
        format!("Basic {}", base64::encode(pair.as_bytes()))
    }

    #[tokio::test]
    async fn keys_belong_to_tenants() {
        let dir = tempfile::tempdir().unwrap();
        let meta = meta::Embedded::open(dir.path()).unwrap();
        let auth = Auth::open(meta.clone(), root());
        assert!(matches!(auth.create_key("lab", None).await, Err(AuthError::NoSuchTenant(_))));
        auth.create_tenant("lab").await.unwrap();
        assert!(matches!(auth.create_tenant("lab").await, Err(AuthError::TenantExists(_))));
        assert!(matches!(auth.create_tenant(ROOT).await, Err(AuthError::BadName(_))));
        let key = auth.create_key("lab", None).await.unwrap();
        let pair = Some((key.access_key.clone(), Secret::new("another-secret")));
        assert!(matches!(auth.create_key("lab", pair).await, Err(AuthError::KeyExists(_))));

        let auth = Auth::open(meta, root());
        let principal = auth.principal_of(&key.access_key).await.unwrap().unwrap();
        assert_eq!(principal, Principal::Tenant("lab".into()));
        assert!(principal.may_use("lab") && !principal.may_use(ROOT) && Principal::Root.may_use("lab"));
        assert_eq!(auth.secret_of(&key.access_key).await.unwrap().unwrap().reveal(), key.secret_key);
        assert_eq!(auth.secret_of("NOBODY").await.unwrap(), None);
        assert_eq!(auth.list_keys().await.unwrap().len(), 1);
        assert_eq!(auth.list_tenants().await.unwrap()[0].name, "lab");
    }

    #[tokio::test]
    async fn basic_headers_are_checked() {
        let dir = tempfile::tempdir().unwrap();
        let auth = Auth::open(meta::Embedded::open(dir.path()).unwrap(), root());
        assert_eq!(auth.check_basic(&basic("ROOTKEY:rootsecret")).await.unwrap(), Some(Principal::Root));
        for header in [&basic("ROOTKEY:wrong"), &basic("ROOTKEY"), "Basic !", "Bearer x", "Basic A", ""] {
            assert_eq!(auth.check_basic(header).await.unwrap(), None, "{header}");
        }
    }
}
