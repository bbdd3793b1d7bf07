//! Who calls, and how that is written: names and ARNs.

use serde::{Deserialize, Serialize};

use super::{AuthError, ROOT};

/// Who calls.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Principal {
    /// The root key's holder, who may do everything.
    Root,
    /// A tenant's root user: a key of the tenant that names no user.
    Tenant(String),
    /// A named user of a tenant.
    User {
        /// The tenant.
        tenant: String,
        /// The user's name.
        name: String,
    },
    /// Whoever assumed a tenant's role, for as long as the session lasts.
    Role {
        /// The tenant.
        tenant: String,
        /// The role's name.
        role: String,
        /// The session's name.
        session: String,
    },
}

impl Principal {
    /// The name under which the caller owns buckets: its tenant's, or root's.
    #[must_use]
    pub fn owner(&self) -> &str {
        match self {
            Self::Root => ROOT,
            Self::Tenant(tenant) | Self::User { tenant, .. } | Self::Role { tenant, .. } => tenant,
        }
    }

    /// Whether the caller may see and use what `owner` owns.
    #[must_use]
    pub fn may_use(&self, owner: &str) -> bool {
        *self == Self::Root || self.owner() == owner
    }

    /// The user's name, where a named user calls.
    #[must_use]
    pub fn user(&self) -> Option<&str> {
        match self {
            Self::User { name, .. } => Some(name),
            _ => None,
        }
    }

    /// The caller as policies name it.
    #[must_use]
    pub fn arn(&self) -> String {
        match self {
            Self::Root | Self::Tenant(_) => format!("arn:aws:iam::{}:root", self.owner()),
            Self::User { tenant, name } => format!("arn:aws:iam::{tenant}:user/{name}"),
            Self::Role { tenant, role, session } => format!("arn:aws:sts::{tenant}:assumed-role/{role}/{session}"),
        }
    }

    /// The holder of a tenant's key.
    pub(super) fn of_key(tenant: String, user: Option<String>) -> Self {
        match user {
            None => Self::Tenant(tenant),
            Some(name) => Self::User { tenant, name },
        }
    }
}

/// Tenant and role of `arn:aws:iam::TENANT:role/NAME`.
pub(super) fn role_of(arn: &str) -> Option<(&str, &str)> {
    let (tenant, resource) = arn.strip_prefix("arn:aws:iam::")?.split_once(':')?;
    let role = resource.strip_prefix("role/")?;
    (check_tenant(tenant).is_ok() && is_name(role, 1)).then_some((tenant, role))
}

/// Whether users, roles and sessions may be called so: `least` to 64 letters, digits and `_+=,.@-`, as IAM has it.
pub(super) fn is_name(text: &str, least: usize) -> bool {
    (least..=64).contains(&text.len())
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'+' | b'=' | b',' | b'.' | b'@' | b'-'))
}

pub(super) fn check_tenant(name: &str) -> Result<(), AuthError> {
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

pub(super) fn check_user(name: &str) -> Result<(), AuthError> {
    if name == ROOT {
        let text = "a key that names no user is the tenant's root user's: leave the user out";
        return Err(AuthError::BadName(text.to_owned()));
    }
    if !is_name(name, 1) {
        let text = "a user's name has 1 to 64 letters, digits and characters of _+=,.@-";
        return Err(AuthError::BadName(text.to_owned()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    //! Everyone has an ARN, and only a role's ARN reads as one.
    use super::*;

    #[test]
    fn everyone_has_an_arn() {
        let user = Principal::of_key("lab".into(), Some("ann".into()));
        let role = Principal::Role { tenant: "lab".into(), role: "reader".into(), session: "s1".into() };
        for (principal, arn) in [
            (Principal::Root, "arn:aws:iam::root:root"),
            (Principal::of_key("lab".into(), None), "arn:aws:iam::lab:root"),
            (user.clone(), "arn:aws:iam::lab:user/ann"),
            (role.clone(), "arn:aws:sts::lab:assumed-role/reader/s1"),
        ] {
            assert_eq!(principal.arn(), arn);
        }
        assert_eq!((user.owner(), user.user(), role.owner(), role.user()), ("lab", Some("ann"), "lab", None));
        assert!(user.may_use("lab") && !user.may_use("other") && !role.may_use(ROOT) && Principal::Root.may_use("lab"));
    }

    #[test]
    fn roles_are_read_from_their_arns() {
        assert_eq!(role_of("arn:aws:iam::lab:role/reader"), Some(("lab", "reader")));
        for arn in [
            "",
            "arn:aws:iam::lab:user/reader",
            "arn:aws:iam::lab:role/",
            "arn:aws:iam::lab:role/path/reader",
            "arn:aws:iam:::role/reader",
            "arn:aws:iam::root:role/reader",
            "arn:aws:sts::lab:role/reader",
            "arn:aws:iam::lab:role/a<b",
        ] {
            assert_eq!(role_of(arn), None, "{arn}");
        }
    }
}
