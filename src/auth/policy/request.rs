//! What a policy is asked about: who calls, for what, and under which circumstances.

use std::borrow::Cow;
use std::collections::BTreeMap;

use crate::sys::clock::Timestamp;

/// Who calls. An account is a tenant; its name is the account's id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Caller {
    /// Nobody signed.
    Anonymous,
    /// Somebody of a tenant.
    Account {
        /// The tenant.
        tenant: String,
        /// Who of it.
        identity: Identity,
    },
}

/// Who of an account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Identity {
    /// The account itself: one of the tenant's own keys.
    Root,
    /// A user of the account, by name, with its path where it has one.
    User(String),
    /// Somebody with temporary credentials of a role.
    Role {
        /// The role's name.
        role: String,
        /// The session's name.
        session: String,
    },
}

impl Caller {
    /// The tenant itself.
    #[must_use]
    pub fn account(tenant: &str) -> Self {
        Self::Account { tenant: tenant.to_owned(), identity: Identity::Root }
    }

    /// A user of the tenant.
    #[must_use]
    pub fn user(tenant: &str, name: &str) -> Self {
        Self::Account { tenant: tenant.to_owned(), identity: Identity::User(name.to_owned()) }
    }

    /// A session of a role of the tenant.
    #[must_use]
    pub fn role(tenant: &str, role: &str, session: &str) -> Self {
        let identity = Identity::Role { role: role.to_owned(), session: session.to_owned() };
        Self::Account { tenant: tenant.to_owned(), identity }
    }

    /// The caller's tenant; nobody has none.
    #[must_use]
    pub fn tenant(&self) -> Option<&str> {
        match self {
            Self::Anonymous => None,
            Self::Account { tenant, .. } => Some(tenant),
        }
    }

    /// The value of `aws:PrincipalArn`; of a session it is the role's.
    #[must_use]
    pub fn arn(&self) -> Option<String> {
        let Self::Account { tenant, identity } = self else { return None };
        Some(match identity {
            Identity::Root => format!("arn:aws:iam::{tenant}:root"),
            Identity::User(name) => format!("arn:aws:iam::{tenant}:user/{name}"),
            Identity::Role { role, .. } => format!("arn:aws:iam::{tenant}:role/{role}"),
        })
    }

    /// The one value that the caller gives to a key, for keys that tell of the caller; no context overrides them.
    fn value(&self, key: &str) -> Option<Option<String>> {
        let identity = match self {
            Self::Anonymous => None,
            Self::Account { identity, .. } => Some(identity),
        };
        Some(match key {
            "aws:principalaccount" => self.tenant().map(str::to_owned),
            "aws:principalarn" => self.arn(),
            "aws:principaltype" => Some(
                match identity {
                    None => "Anonymous",
                    Some(Identity::Root) => "Account",
                    Some(Identity::User(_)) => "User",
                    Some(Identity::Role { .. }) => "AssumedRole",
                }
                .to_owned(),
            ),
            "aws:userid" => Some(self.user_id()),
            "aws:username" => match identity {
                // The name without its path.
                Some(Identity::User(name)) => Some(name.rsplit('/').next().unwrap_or(name).to_owned()),
                _ => None,
            },
            _ => return None,
        })
    }

    /// The value of `aws:userid`: `anonymous`, `TENANT`, `TENANT:USER` or `TENANT/ROLE:SESSION`.
    #[must_use]
    pub fn user_id(&self) -> String {
        match self {
            Self::Anonymous => "anonymous".to_owned(),
            Self::Account { tenant, identity: Identity::Root } => tenant.clone(),
            Self::Account { tenant, identity: Identity::User(name) } => format!("{tenant}:{name}"),
            Self::Account { tenant, identity: Identity::Role { role, session } } => {
                format!("{tenant}/{role}:{session}")
            }
        }
    }
}

/// The circumstances of a request: values by condition key.
///
/// Keys are taken without regard to capitals. What tells of the caller (`aws:PrincipalAccount`, `aws:PrincipalArn`,
/// `aws:PrincipalType`, `aws:userid`, `aws:username`) comes from [`Caller`] and is ignored here. Give only what the
/// door has made sure of, or read from the request that was signed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Context {
    values: BTreeMap<String, Vec<String>>,
}

impl Context {
    /// One without any value.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a value to a key, after those that it has.
    #[must_use]
    pub fn with(mut self, key: &str, value: impl Into<String>) -> Self {
        self.add(key, value);
        self
    }

    /// Adds a value where there is one.
    #[must_use]
    pub fn with_some(mut self, key: &str, value: Option<impl Into<String>>) -> Self {
        if let Some(value) = value {
            self.add(key, value);
        }
        self
    }

    /// The moment of the request: `aws:CurrentTime` and `aws:EpochTime`.
    #[must_use]
    pub fn at(self, now: Timestamp) -> Self {
        self.with("aws:CurrentTime", now.to_string()).with("aws:EpochTime", (now.0 / 1_000).to_string())
    }

    /// The tags that the object has: `s3:ExistingObjectTag/KEY`.
    #[must_use]
    pub fn existing_tags<'a>(mut self, tags: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        for (key, value) in tags {
            self.add(&format!("s3:ExistingObjectTag/{key}"), value);
        }
        self
    }

    /// The tags that the request brings: `s3:RequestObjectTag/KEY` and `s3:RequestObjectTagKeys`.
    #[must_use]
    pub fn request_tags<'a>(mut self, tags: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        for (key, value) in tags {
            self.add(&format!("s3:RequestObjectTag/{key}"), value);
            self.add("s3:RequestObjectTagKeys", key);
        }
        self
    }

    /// As [`Self::with`], in place.
    pub fn add(&mut self, key: &str, value: impl Into<String>) {
        self.values.entry(key.to_ascii_lowercase()).or_default().push(value.into());
    }
}

/// One thing that somebody asks to do.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// Who asks.
    pub caller: &'a Caller,
    /// What for: `s3:GetObject`.
    pub action: &'a str,
    /// On what: `arn:aws:s3:::bucket` or `arn:aws:s3:::bucket/key`.
    pub resource: &'a str,
    /// Under which circumstances.
    pub context: &'a Context,
}

impl<'a> Request<'a> {
    /// The values of a lower-case key; none where it is absent.
    pub(super) fn values(&self, key: &str) -> Cow<'a, [String]> {
        match self.caller.value(key) {
            Some(value) => Cow::Owned(value.into_iter().collect()),
            None => Cow::Borrowed(self.context.values.get(key).map_or(&[], Vec::as_slice)),
        }
    }

    /// What a policy variable stands for: the value of a key that has exactly one.
    pub(super) fn resolve(&self, key: &str) -> Option<String> {
        match &*self.values(key) {
            [value] => Some(value.clone()),
            _ => None,
        }
    }
}
