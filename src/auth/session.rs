//! Sessions: keys that end by themselves, as STS hands them out. No row is kept of them.
//!
//! A session's access key is `ASIA` and 24 letters and digits: 96 random bits and a mark that only we can make. Its
//! secret key is an HMAC of its access key, so that a signature can be checked with the access key alone. Who the session
//! is, until when, and of which key it was made, stands encrypted in its token, which is bound to the access key.

use std::time::Duration;

use ring::hmac;
use serde::{Deserialize, Serialize};

use super::key::Key;
use super::principal::{self, Principal};
use super::vault::Vault;
use super::{Auth, AuthError, base64, tenant_key};
use crate::model::Secret;
use crate::sys::clock::{self, Timestamp};
use crate::sys::entropy;

/// How the access keys of sessions begin, and no others.
pub(super) const PREFIX: &str = "ASIA";
/// A session's random bytes, and those of the mark behind them.
const RANDOM_BYTES: usize = 12;
const MARK_BYTES: usize = 3;
/// Bytes of a session's secret key; 40 characters in base64.
const SECRET_BYTES: usize = 30;
/// First byte of every token.
const TOKEN_VERSION: u8 = 1;
/// How long a session lasts, in seconds: at least, at most, and unless asked for.
const SECONDS_MIN: u64 = 900;
const SECONDS_MAX: u64 = 43_200;
const SECONDS: u64 = 3_600;
const DIGITS: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";

/// Who calls, and how.
#[derive(Clone, Debug)]
pub struct Caller {
    /// Who it is.
    pub principal: Principal,
    /// The access key that the request was signed with.
    pub access_key: String,
    /// Whether that is a session's.
    pub temporary: bool,
}

/// Why a signed request is not let in.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// Nobody has the key, or not any more; or it is a session's whose own key is not there any more.
    #[error("the access key is unknown, disabled or expired")]
    UnknownKey,
    /// A session's key without its token, or a token that is not its own, or one beside a key that needs none.
    #[error("the session token is missing, or does not belong to the access key")]
    BadToken,
    /// The session is over.
    #[error("the session has expired")]
    Expired,
    /// It could not be found out.
    #[error(transparent)]
    Auth(#[from] AuthError),
}

/// Why there is no session.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// What was asked for cannot be.
    #[error("{0}")]
    Invalid(String),
    /// Not for this caller.
    #[error("{0}")]
    Denied(String),
    /// It could not be found out.
    #[error(transparent)]
    Auth(#[from] AuthError),
}

/// A session as its maker sees it, this once.
#[derive(Clone, Debug)]
pub struct NewSession {
    /// The access key.
    pub access_key: String,
    /// The secret key.
    pub secret_key: Secret,
    /// What every request must carry beside its signature.
    pub token: Secret,
    /// When it ends.
    pub expires: Timestamp,
    /// Who its holder is.
    pub principal: Principal,
}

/// What a token holds.
#[derive(Serialize, Deserialize)]
struct Token {
    principal: Principal,
    /// Milliseconds since 1970.
    expires: u64,
    /// The access key that the session was made with.
    parent: String,
    /// What that key was like then, see [`likeness`].
    likeness: String,
}

impl Auth {
    /// The secret that an access key signs with; `None` where nobody has that key, or not any more. Whether a session may
    /// still sign is for [`Auth::admit`] to say.
    pub async fn secret_of(&self, access_key: &str) -> Result<Option<Secret>, AuthError> {
        if is_ours(&self.vault, access_key) {
            return Ok(Some(secret_of(&self.vault, access_key)));
        }
        Ok(self.key(access_key).await?.map(|key| key.secret_key))
    }

    /// Who calls, where a request was signed with this access key and carries this token.
    pub async fn admit(&self, access_key: &str, token: Option<&str>) -> Result<Caller, Refusal> {
        if is_ours(&self.vault, access_key) {
            let principal = self.session(access_key, token.ok_or(Refusal::BadToken)?).await?;
            return Ok(Caller { principal, access_key: access_key.to_owned(), temporary: true });
        }
        let key = self.key(access_key).await?.ok_or(Refusal::UnknownKey)?;
        if token.is_some() {
            return Err(Refusal::BadToken);
        }
        Ok(Caller { principal: key.principal(), access_key: access_key.to_owned(), temporary: false })
    }

    /// A session of a role, `arn:aws:iam::TENANT:role/NAME`, of the caller's own tenant; root's may be any tenant's. It
    /// lasts so many seconds.
    pub async fn assume_role(
        &self,
        caller: &Caller,
        role_arn: &str,
        session: &str,
        seconds: Option<u64>,
    ) -> Result<NewSession, SessionError> {
        let Some((tenant, role)) = principal::role_of(role_arn) else {
            let text = "RoleArn is not arn:aws:iam::TENANT:role/NAME, with a tenant's name and a role's without a path";
            return Err(SessionError::Invalid(text.to_owned()));
        };
        if !principal::is_name(session, 2) {
            let text = "RoleSessionName has 2 to 64 letters, digits and characters of _+=,.@-";
            return Err(SessionError::Invalid(text.to_owned()));
        }
        let exists = async { Ok::<bool, AuthError>(self.read(&tenant_key(tenant)).await?.is_some()) };
        // A tenant that is not there and one that is another's look the same.
        if !caller.principal.may_use(tenant) || !exists.await? {
            let text = format!("{} may not assume {role_arn}", caller.principal.arn());
            return Err(SessionError::Denied(text));
        }
        let (tenant, role, session) = (tenant.to_owned(), role.to_owned(), session.to_owned());
        self.begin(caller, Principal::Role { tenant, role, session }, seconds).await
    }

    /// A session of the caller itself, of so many seconds.
    pub async fn session_token(&self, caller: &Caller, seconds: Option<u64>) -> Result<NewSession, SessionError> {
        self.begin(caller, caller.principal.clone(), seconds).await
    }

    async fn begin(
        &self,
        caller: &Caller,
        principal: Principal,
        seconds: Option<u64>,
    ) -> Result<NewSession, SessionError> {
        let seconds = seconds.unwrap_or(SECONDS);
        if !(SECONDS_MIN..=SECONDS_MAX).contains(&seconds) {
            let text = format!("DurationSeconds is {seconds}; it must be between {SECONDS_MIN} and {SECONDS_MAX}");
            return Err(SessionError::Invalid(text));
        }
        if caller.temporary {
            let text = "a session cannot make sessions: sign with the key that it was made with";
            return Err(SessionError::Denied(text.to_owned()));
        }
        let Some(parent) = self.key(&caller.access_key).await? else {
            return Err(SessionError::Denied(Refusal::UnknownKey.to_string()));
        };
        let asked = clock::now().plus(Duration::from_secs(seconds));
        // The session ends with its key in any case: its holder should know when.
        let expires = parent.expires.map_or(asked, |parent| parent.min(asked));
        let expires = Timestamp(expires.0 - expires.0 % 1_000);
        let access_key = fresh_access_key(&self.vault);
        let token = Token {
            principal: principal.clone(),
            expires: expires.0,
            likeness: likeness(&self.vault, &caller.access_key, &parent),
            parent: caller.access_key.clone(),
        };
        let token = token.seal(&self.vault, &access_key);
        let secret_key = secret_of(&self.vault, &access_key);
        Ok(NewSession { access_key, secret_key, token, expires, principal })
    }

    async fn session(&self, access_key: &str, token: &str) -> Result<Principal, Refusal> {
        let token = Token::open(&self.vault, access_key, token).ok_or(Refusal::BadToken)?;
        if token.expires <= clock::now().0 {
            return Err(Refusal::Expired);
        }
        let parent = self.key(&token.parent).await?.ok_or(Refusal::UnknownKey)?;
        if likeness(&self.vault, &token.parent, &parent) != token.likeness {
            return Err(Refusal::UnknownKey);
        }
        Ok(token.principal)
    }
}

impl Token {
    fn seal(&self, vault: &Vault, access_key: &str) -> Secret {
        let plain = serde_json::to_vec(self).expect("a token of text and numbers has a JSON form");
        let mut bytes = vec![TOKEN_VERSION];
        bytes.extend(vault.tokens.seal(&["token", access_key], &plain));
        Secret::new(base64::encode(&bytes))
    }

    /// The token, where it was made for this access key and not altered since.
    fn open(vault: &Vault, access_key: &str, text: &str) -> Option<Self> {
        let bytes = base64::decode(text)?;
        // One token, one text: base64 has several for the same bytes.
        if base64::encode(&bytes) != text {
            return None;
        }
        let sealed = bytes.strip_prefix(&[TOKEN_VERSION])?;
        serde_json::from_slice(&vault.tokens.open(&["token", access_key], sealed)?).ok()
    }
}

/// Tells a key from one that was made later under the same name, or with another secret.
fn likeness(vault: &Vault, access_key: &str, key: &Key) -> String {
    let arn = key.principal().arn();
    let text = format!("{access_key}\0{arn}\0{}", key.secret_key.reveal());
    hex::encode(&hmac::sign(&vault.parents, text.as_bytes()).as_ref()[..16])
}

fn fresh_access_key(vault: &Vault) -> String {
    let mut random = [0; RANDOM_BYTES];
    entropy::fill(&mut random);
    let bytes = [&random[..], &mark(vault, &random)].concat();
    format!("{PREFIX}{}", base32(&bytes))
}

/// Whether we made this access key for a session. It spares strangers' keys, and no more, the look at their tokens.
fn is_ours(vault: &Vault, access_key: &str) -> bool {
    let parts = || {
        let bytes = unbase32(access_key.strip_prefix(PREFIX)?)?;
        let (random, shown) = bytes.split_first_chunk::<RANDOM_BYTES>()?;
        (mark(vault, random) == *shown).then_some(())
    };
    parts().is_some()
}

fn mark(vault: &Vault, random: &[u8; RANDOM_BYTES]) -> [u8; MARK_BYTES] {
    let tag = hmac::sign(&vault.session_ids, random);
    let mut mark = [0; MARK_BYTES];
    mark.copy_from_slice(&tag.as_ref()[..MARK_BYTES]);
    mark
}

fn secret_of(vault: &Vault, access_key: &str) -> Secret {
    let tag = hmac::sign(&vault.session_secrets, access_key.as_bytes());
    Secret::new(base64::encode(&tag.as_ref()[..SECRET_BYTES]))
}

/// Base32 of bytes in fives.
pub(super) fn base32(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() / 5 * 8);
    for group in bytes.chunks_exact(5) {
        let value = group.iter().fold(0u64, |value, byte| value << 8 | u64::from(*byte));
        text.extend((0..8).map(|place| char::from(DIGITS[(value >> (35 - 5 * place) & 31) as usize])));
    }
    text
}

fn unbase32(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len() / 8 * 5);
    let groups = text.as_bytes().chunks_exact(8);
    if !groups.remainder().is_empty() {
        return None;
    }
    for group in groups {
        let mut value = 0u64;
        for digit in group {
            value = value << 5 | DIGITS.iter().position(|known| known == digit)? as u64;
        }
        bytes.extend_from_slice(&value.to_be_bytes()[3..]);
    }
    Some(bytes)
}
