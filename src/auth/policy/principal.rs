//! Whom a statement is about.

use super::request::{Caller, Identity};

/// One principal of a statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Principal {
    /// Everyone, and nobody too.
    Anyone,
    /// A tenant, with all its users and roles.
    Account(String),
    /// A user of a tenant.
    User(String, String),
    /// A role of a tenant, whatever the session.
    Role(String, String),
    /// One session of a role of a tenant.
    Session(String, String, String),
}

impl Principal {
    /// Reads a principal of kind `AWS`. The error is what is wrong with it, in words.
    pub(super) fn new(text: &str) -> Result<Self, String> {
        if text == "*" {
            return Ok(Self::Anyone);
        }
        if text.contains(['*', '?']) {
            return Err(format!("principal {text:?} has a wildcard; only \"*\" alone is allowed, name the others"));
        }
        let Some(arn) = text.strip_prefix("arn:") else { return Self::account(text) };
        let wrong = || {
            format!(
                "principal {text:?} is not one of TENANT, arn:aws:iam::TENANT:root, arn:aws:iam::TENANT:user/NAME, \
                 arn:aws:iam::TENANT:role/NAME and arn:aws:sts::TENANT:assumed-role/ROLE/SESSION"
            )
        };
        let fields: Vec<&str> = arn.splitn(5, ':').collect();
        let ["aws", service, "", tenant, name] = fields[..] else { return Err(wrong()) };
        let named = |kind: &str| name.strip_prefix(kind).filter(|name| !name.is_empty() && !name.ends_with('/'));
        let own = |text: &str| text.to_owned();
        let found = match (service, tenant) {
            // Without an account, the name is itself the account's.
            ("iam", "") => named("user/").filter(|name| is_account(name)).map(|name| Self::Account(own(name))),
            ("iam", tenant) if !is_account(tenant) => None,
            ("iam", tenant) if name == "root" => Some(Self::Account(own(tenant))),
            ("iam", tenant) => named("user/")
                .map(|name| Self::User(own(tenant), own(name)))
                .or_else(|| named("role/").map(|name| Self::Role(own(tenant), own(name)))),
            ("sts", tenant) if is_account(tenant) => named("assumed-role/")
                .and_then(|name| name.rsplit_once('/'))
                .map(|(role, session)| Self::Session(own(tenant), own(role), own(session)))
                .filter(|_| !name.contains("//")),
            _ => None,
        };
        found.ok_or_else(wrong)
    }

    /// An account by its id, which is the tenant's name.
    pub(super) fn account(text: &str) -> Result<Self, String> {
        if !is_account(text) {
            return Err(format!("principal {text:?} is no tenant's name; write the name, or an ARN"));
        }
        Ok(Self::Account(text.to_owned()))
    }

    /// Whether `caller` is meant.
    pub(super) fn means(&self, caller: &Caller) -> bool {
        if *self == Self::Anyone {
            return true;
        }
        let Caller::Account { tenant, identity } = caller else { return false };
        match (self, identity) {
            (Self::Anyone, _) => true,
            (Self::Account(own), _) => own == tenant,
            (Self::User(own, name), Identity::User(user)) => own == tenant && name == user,
            (Self::Role(own, name), Identity::Role { role, .. }) => own == tenant && name == role,
            (Self::Session(own, name, of), Identity::Role { role, session }) => {
                own == tenant && name == role && of == session
            }
            _ => false,
        }
    }
}

/// Whether `text` can be an account's id at all.
fn is_account(text: &str) -> bool {
    !text.is_empty() && !text.contains([':', '/', '*', '?']) && !text.contains(char::is_whitespace)
}

#[cfg(test)]
mod tests {
    //! Every form of principal means whom it should, and nobody else; what is none is refused.
    use super::*;

    #[test]
    fn means_whom_it_names() {
        let callers = [
            Caller::Anonymous,
            Caller::account("a"),
            Caller::user("a", "u"),
            Caller::user("a", "team/u"),
            Caller::role("a", "r", "s"),
            Caller::account("b"),
            Caller::user("b", "u"),
            Caller::role("b", "r", "s"),
        ];
        for (text, expected) in [
            ("*", [true; 8]),
            ("a", [false, true, true, true, true, false, false, false]),
            ("arn:aws:iam::a:root", [false, true, true, true, true, false, false, false]),
            ("arn:aws:iam:::user/a", [false, true, true, true, true, false, false, false]),
            ("arn:aws:iam::a:user/u", [false, false, true, false, false, false, false, false]),
            ("arn:aws:iam::a:user/team/u", [false, false, false, true, false, false, false, false]),
            ("arn:aws:iam::b:role/r", [false, false, false, false, false, false, false, true]),
            ("arn:aws:sts::a:assumed-role/r/s", [false, false, false, false, true, false, false, false]),
            ("arn:aws:sts::a:assumed-role/r/t", [false; 8]),
            ("arn:aws:iam:::user/u", [false; 8]),
            ("A", [false; 8]),
        ] {
            let principal = Principal::new(text).unwrap();
            let means: Vec<bool> = callers.iter().map(|caller| principal.means(caller)).collect();
            assert_eq!(means, expected, "{text}");
        }
    }

    #[test]
    fn refuses_what_is_none() {
        for text in [
            "",
            "a*",
            "a b",
            "arn:aws:iam::a:user/*",
            "arn:aws:iam::*:root",
            "arn:aws:iam::a:user/",
            "arn:aws:iam::a:group/g",
            "arn:aws:iam:r:a:user/u",
            "arn:aws:iam:::root",
            "arn:aws:iam:::role/r",
            "arn:aws:iam:::user/x/y",
            "arn:aws:sts::a:assumed-role/r",
            "arn:aws:sts::a:assumed-role/r/",
            "arn:aws:sts::a:assumed-role//s",
            "arn:aws:sts:::assumed-role/r/s",
            "arn:aws:s3:::bucket",
            "arn:aws-cn:iam::a:root",
            "arn:",
            "a/b",
        ] {
            assert!(Principal::new(text).is_err(), "{text}");
        }
        assert!(Principal::account("*").is_err());
    }
}
