//! Access keys and their rows: made, listed, disabled, removed, and looked up for every request.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::master::MasterSource;
use super::principal::{self, Principal};
use super::vault::Vault;
use super::{Auth, AuthError, base64, decode, encode, root, rows, session, tenant_key};
use crate::meta::{Meta, MetaError, Transaction};
use crate::model::Secret;
use crate::sys::clock::{self, Timestamp};

/// Holds a text that only the right master key opens.
const CHECK_ROW: &[u8] = b"a/master";
const CHECK_TEXT: &[u8] = b"bedplate";
/// The version of rows whose secrets are encrypted. Version 1 held them plainly.
const KEY_VERSION: u32 = 2;
const CHECK_VERSION: u32 = 1;
/// How often a change is tried again where another one came first.
const TRIES: usize = 5;
/// Rows removed in one transaction.
const REMOVED_AT_ONCE: usize = 100;

/// What a key is made with.
#[derive(Clone, Debug, Default)]
pub struct NewKeyRequest {
    /// The tenant whose it will be.
    pub tenant: String,
    /// The tenant's user whose it will be; the root user where there is none.
    pub user: Option<String>,
    /// Access key and secret key; random ones where there are none.
    pub pair: Option<(String, Secret)>,
    /// When it ends by itself.
    pub expires: Option<Timestamp>,
}

/// A key as lists show it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyInfo {
    /// The access key.
    pub access_key: String,
    /// Whose it is.
    pub tenant: String,
    /// Which user's of the tenant; none is the root user.
    pub user: Option<String>,
    /// When it was made.
    pub created: Timestamp,
    /// When it ends by itself.
    pub expires: Option<Timestamp>,
    /// Whether it opens anything now.
    pub state: KeyState,
}

/// Whether a key opens anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KeyState {
    /// It does.
    Active,
    /// It was disabled, and may be enabled again.
    Disabled,
    /// Its time is over.
    Expired,
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
    /// Which user's of the tenant; none is the root user.
    pub user: Option<String>,
    /// When it ends by itself.
    pub expires: Option<Timestamp>,
}

impl std::fmt::Debug for NewKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NewKey")
            .field("access_key", &self.access_key)
            .field("tenant", &self.tenant)
            .finish_non_exhaustive()
    }
}

/// A key that may be used now.
#[derive(Clone)]
pub(super) struct Key {
    pub(super) secret_key: Secret,
    /// None is root's.
    tenant: Option<(String, Option<String>)>,
    pub(super) expires: Option<Timestamp>,
}

impl Key {
    pub(super) fn principal(&self) -> Principal {
        match self.tenant.clone() {
            None => Principal::Root,
            Some((tenant, user)) => Principal::of_key(tenant, user),
        }
    }
}

/// A key's row, JSON at `k/ACCESS_KEY`.
#[derive(Clone, Serialize, Deserialize)]
struct KeyRow {
    version: u32,
    /// The secret key, sealed in the context of access key, tenant and user, in base64.
    sealed: String,
    tenant: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    user: Option<String>,
    created: Timestamp,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    disabled: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    expires: Option<Timestamp>,
}

/// A key's row as programs before the master key wrote it.
#[derive(Deserialize)]
struct PlainKeyRow {
    secret_key: String,
    tenant: String,
    created: Timestamp,
}

/// The row at [`CHECK_ROW`].
#[derive(Serialize, Deserialize)]
struct CheckRow {
    version: u32,
    sealed: String,
}

#[derive(Deserialize)]
struct Versioned {
    version: u32,
}

impl KeyRow {
    fn read(access_key: &str, row: &[u8]) -> Result<Self, AuthError> {
        match decode::<Versioned>(access_key, row)?.version {
            KEY_VERSION => decode(access_key, row),
            version => Err(AuthError::Version { what: access_key.to_owned(), version }),
        }
    }

    fn seal(&mut self, vault: &Vault, access_key: &str, secret_key: &Secret) {
        let sealed = vault.rows.seal(&self.context(access_key), secret_key.reveal().as_bytes());
        self.sealed = base64::encode(&sealed);
    }

    fn open(&self, vault: &Vault, access_key: &str) -> Result<Secret, AuthError> {
        let plain = base64::decode(&self.sealed)
            .and_then(|sealed| vault.rows.open(&self.context(access_key), &sealed))
            .and_then(|plain| String::from_utf8(plain).ok());
        plain.map(Secret::new).ok_or_else(|| AuthError::Damaged { what: access_key.to_owned() })
    }

    fn context<'a>(&'a self, access_key: &'a str) -> [&'a str; 4] {
        ["key", access_key, &self.tenant, self.user.as_deref().unwrap_or_default()]
    }

    fn info(self, access_key: String) -> KeyInfo {
        let state = match self.expires {
            Some(expires) if expires <= clock::now() => KeyState::Expired,
            _ if self.disabled => KeyState::Disabled,
            _ => KeyState::Active,
        };
        let Self { tenant, user, created, expires, .. } = self;
        KeyInfo { access_key, tenant, user, created, expires, state }
    }
}

impl Auth {
    /// Makes a key for a tenant: the given pair, or a random one.
    pub async fn create_key(&self, request: NewKeyRequest) -> Result<NewKey, AuthError> {
        let NewKeyRequest { tenant, user, pair, expires } = request;
        let (access_key, secret_key) =
            pair.unwrap_or_else(|| (root::random_access_key(), Secret::new(root::random_secret_key())));
        root::check_pair(&access_key, secret_key.reveal()).map_err(AuthError::BadName)?;
        if access_key.starts_with(session::PREFIX) {
            let text = format!("access keys that begin with {} are those of sessions; choose another", session::PREFIX);
            return Err(AuthError::BadName(text));
        }
        user.as_deref().map(principal::check_user).transpose()?;
        let created = clock::now();
        if expires.is_some_and(|expires| expires <= created) {
            return Err(AuthError::BadName("the key would have expired already; give a time to come".to_owned()));
        }
        if access_key == self.root.access_key {
            return Err(AuthError::KeyExists(access_key));
        }
        let tenant_row = self.read(&tenant_key(&tenant)).await?;
        let Some(tenant_row) = tenant_row else { return Err(AuthError::NoSuchTenant(tenant)) };
        let (version, sealed, disabled) = (KEY_VERSION, String::new(), false);
        let mut row = KeyRow { version, sealed, tenant, user, created, disabled, expires };
        row.seal(&self.vault, &access_key, &secret_key);
        let change = Transaction::new()
            .expect(tenant_key(&row.tenant), Some(tenant_row))
            .expect(key_key(&access_key), None)
            .put(key_key(&access_key), encode(&row));
        match self.meta.commit(change).await {
            Ok(()) => {
                let secret_key = secret_key.reveal().to_owned();
                Ok(NewKey { access_key, secret_key, tenant: row.tenant, user: row.user, expires })
            }
            Err(MetaError::Conflict) => Err(AuthError::KeyExists(access_key)),
            Err(source) => Err(AuthError::Meta { action: "make a key", source }),
        }
    }

    /// All keys but root's, by access key, without their secrets.
    pub async fn list_keys(&self) -> Result<Vec<KeyInfo>, AuthError> {
        let rows = self.rows(b"k/").await?;
        rows.into_iter().map(|(access_key, row)| Ok(KeyRow::read(&access_key, &row)?.info(access_key))).collect()
    }

    /// Disables a key, or enables it again. What it signs, and its sessions, are refused as soon as this returns.
    pub async fn set_disabled(&self, access_key: &str, disabled: bool) -> Result<KeyInfo, AuthError> {
        let changed = self.change_key(access_key, "change a key", |row| Some(KeyRow { disabled, ..row }));
        Ok(changed.await?.info(access_key.to_owned()))
    }

    /// Removes a key. What it signs, and its sessions, are refused as soon as this returns.
    pub async fn remove_key(&self, access_key: &str) -> Result<(), AuthError> {
        self.change_key(access_key, "remove a key", |_| None).await.map(drop)
    }

    /// Puts what `change` makes of a key's row in its place, or removes it; answers the row as it is, or was.
    async fn change_key(
        &self,
        access_key: &str,
        action: &'static str,
        change: impl Fn(KeyRow) -> Option<KeyRow>,
    ) -> Result<KeyRow, AuthError> {
        if access_key == self.root.access_key {
            return Err(AuthError::IsRoot(access_key.to_owned()));
        }
        let key = key_key(access_key);
        for _ in 0..TRIES {
            let Some(found) = self.read(&key).await? else {
                return Err(AuthError::NoSuchKey(access_key.to_owned()));
            };
            let row = KeyRow::read(access_key, &found)?;
            let changed = change(row.clone());
            let transaction = Transaction::new().expect(key.clone(), Some(found));
            let transaction = match &changed {
                Some(changed) => transaction.put(key.clone(), encode(changed)),
                None => transaction.delete(key.clone()),
            };
            let changing = self.known.change(access_key);
            let outcome = self.meta.commit(transaction).await;
            changing.done();
            match outcome {
                Ok(()) => return Ok(changed.unwrap_or(row)),
                Err(MetaError::Conflict) => {}
                Err(source) => return Err(AuthError::Meta { action, source }),
            }
        }
        Err(AuthError::Meta { action, source: MetaError::Conflict })
    }

    /// The key, where it may be used now.
    pub(super) async fn key(&self, access_key: &str) -> Result<Option<Key>, AuthError> {
        if access_key == self.root.access_key {
            let secret_key = self.root.secret_key.clone();
            return Ok(Some(Key { secret_key, tenant: None, expires: None }));
        }
        let key = match self.known.get(access_key) {
            Ok(key) => key,
            Err(turn) => {
                let Some(row) = self.read(&key_key(access_key)).await? else { return Ok(None) };
                let row = KeyRow::read(access_key, &row)?;
                if row.disabled {
                    return Ok(None);
                }
                let secret_key = row.open(&self.vault, access_key)?;
                let key = Key { secret_key, tenant: Some((row.tenant, row.user)), expires: row.expires };
                self.known.keep(access_key, key.clone(), turn);
                key
            }
        };
        Ok(Some(key).filter(|key| key.expires.is_none_or(|expires| clock::now() < expires)))
    }

    /// Encrypts the secrets that rows of version 1 hold plainly.
    pub(super) async fn encrypt_old_rows(&self) -> Result<(), AuthError> {
        let mut encrypted = 0;
        for (access_key, found) in self.rows(b"k/").await? {
            if decode::<Versioned>(&access_key, &found)?.version != 1 {
                // Where it does not open, this says so now and not when somebody needs it.
                if KeyRow::read(&access_key, &found)?.open(&self.vault, &access_key).is_err() {
                    tracing::error!(%access_key, "a key's secret does not decrypt: remove the key and make another");
                }
                continue;
            }
            let old: PlainKeyRow = decode(&access_key, &found)?;
            let (version, sealed) = (KEY_VERSION, String::new());
            let (user, disabled, expires) = (None, false, None);
            let mut row = KeyRow { version, sealed, tenant: old.tenant, user, created: old.created, disabled, expires };
            row.seal(&self.vault, &access_key, &Secret::new(old.secret_key));
            let key = key_key(&access_key);
            let change = Transaction::new().expect(key.clone(), Some(found)).put(key, encode(&row));
            let outcome = self.meta.commit(change).await;
            outcome.map_err(|source| AuthError::Meta { action: "encrypt a key's secret", source })?;
            encrypted += 1;
        }
        if encrypted > 0 {
            tracing::info!(keys = encrypted, "the secrets of keys that an older program made are encrypted now");
        }
        Ok(())
    }
}

/// The keys derived from the master key, once it has proved to be the right one.
pub(super) async fn unlock(meta: &dyn Meta, source: &MasterSource) -> Result<Vault, AuthError> {
    let failed = |action| move |source| AuthError::Meta { action, source };
    let check = meta.get(CHECK_ROW).await.map_err(failed("look for the master key's mark"))?;
    let master = match (source.read()?, &check) {
        (Some(master), _) => master,
        (None, Some(_)) => return Err(source.missing().into()),
        (None, None) => source.create()?,
    };
    let vault = Vault::new(&master);
    let Some(check) = check else {
        let sealed = base64::encode(&vault.rows.seal(&["check"], CHECK_TEXT));
        let row = encode(&CheckRow { version: CHECK_VERSION, sealed });
        let change = Transaction::new().expect(CHECK_ROW, None).put(CHECK_ROW, row);
        meta.commit(change).await.map_err(failed("keep the master key's mark"))?;
        return Ok(vault);
    };
    if is_right(&vault, &check)? { Ok(vault) } else { Err(source.wrong().into()) }
}

fn is_right(vault: &Vault, check: &Bytes) -> Result<bool, AuthError> {
    const WHAT: &str = "the master key's mark";
    let row: CheckRow = decode(WHAT, check)?;
    if row.version != CHECK_VERSION {
        return Err(AuthError::Version { what: WHAT.to_owned(), version: row.version });
    }
    let sealed = base64::decode(&row.sealed).ok_or_else(|| AuthError::Damaged { what: WHAT.to_owned() })?;
    Ok(vault.rows.open(&["check"], &sealed).as_deref() == Some(CHECK_TEXT))
}

/// Removes every key, and the mark of the master key that encrypted their secrets: the way on when that key is lost.
/// Tenants and what they own stay. Answers how many keys there were.
pub async fn forget_keys(meta: &dyn Meta) -> Result<usize, AuthError> {
    let keys = rows(meta, b"k/").await?;
    let failed = |source| AuthError::Meta { action: "remove all keys", source };
    for some in keys.chunks(REMOVED_AT_ONCE) {
        let change = some.iter().fold(Transaction::new(), |change, (name, _)| change.delete(key_key(name)));
        meta.commit(change).await.map_err(failed)?;
    }
    // Last, so that a removal that breaks off can only be begun again.
    meta.commit(Transaction::new().delete(CHECK_ROW)).await.map_err(failed)?;
    Ok(keys.len())
}

/// The key of an access key's row.
pub(super) fn key_key(access_key: &str) -> Vec<u8> {
    format!("k/{access_key}").into_bytes()
}
