//! Bucket policies: the policy language of the AWS documents, read strictly and evaluated without any effect.
//!
//! A policy is a list of statements, each of which allows or denies some principals some actions on some resources
//! under some conditions. A deny beats every allow, and what no statement speaks of is left to who owns the bucket
//! ([`decide`]). An account is a tenant, and its id is the tenant's name.
//!
//! Nothing here asks a clock, a disk or a network: the door gathers what it knows of a request in a [`Context`] and
//! asks. What the language leaves open is decided for safety: a policy variable without a value allows nothing and
//! spares nobody from a deny.

mod condition;
mod json;
mod names;
mod parse;
mod pattern;
mod principal;
mod request;
#[cfg(test)]
mod tests;
mod value;

pub use request::{Caller, Context, Identity, Request};

use condition::Condition;
use parse::Place;
use pattern::{Pattern, Scope};
use principal::Principal;

/// Most bytes of a bucket's policy.
pub const POLICY_MAX: usize = 20 * 1_024;
/// Most bytes of a session's policy.
pub const SESSION_POLICY_MAX: usize = 2_048;

/// Why a text is no policy; S3 calls it `MalformedPolicy`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// Longer than allowed.
    #[error("the policy has {bytes} bytes; at most {most} are allowed, so join statements or use wildcards")]
    TooLarge {
        /// How long it is.
        bytes: usize,
        /// How long it may be.
        most: usize,
    },
    /// Not JSON, or an object names a member twice.
    #[error("the policy is not valid JSON: {0}")]
    Json(String),
    /// Some element is not as it has to be.
    #[error("{at}: {what}")]
    Invalid {
        /// Where in the policy.
        at: String,
        /// What is wrong, and what to write instead.
        what: String,
    },
}

/// What a policy says of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// A statement allows it and none denies it.
    Allow,
    /// A statement denies it.
    Deny,
    /// No statement speaks of it.
    Silent,
}

/// What a statement does where it applies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Effect {
    Allow,
    Deny,
}

/// `Principal`, or `NotPrincipal` where negated.
#[derive(Clone, Debug, PartialEq)]
struct Principals {
    negated: bool,
    list: Vec<Principal>,
}

/// `Action` or `Resource`, or `NotAction` or `NotResource` where negated.
#[derive(Clone, Debug, PartialEq)]
struct Patterns {
    negated: bool,
    list: Vec<Pattern>,
}

#[derive(Clone, Debug, PartialEq)]
struct Statement {
    effect: Effect,
    principals: Principals,
    actions: Patterns,
    resources: Patterns,
    conditions: Vec<Condition>,
}

impl Statement {
    /// Whether it speaks of `request`.
    fn applies(&self, request: &Request<'_>, scope: &Scope<'_>) -> bool {
        let named = |principals: &Principals| {
            principals.list.iter().any(|principal| principal.means(request.caller)) != principals.negated
        };
        self.names_action(request.action)
            && named(&self.principals)
            && self.names_resource(request.resource, scope)
            && self.conditions.iter().all(|condition| condition.holds(request, scope, self.effect))
    }

    fn names_action(&self, action: &str) -> bool {
        self.actions.list.iter().any(|pattern| pattern.fits_alone(action, true)) != self.actions.negated
    }

    fn names_resource(&self, resource: &str, scope: &Scope<'_>) -> bool {
        let fit = condition::first_fit(self.resources.list.iter().map(|pattern| pattern.fit(resource, scope)));
        condition::holds(fit, self.resources.negated, self.effect)
    }

    /// Whether it allows something to people who are not named.
    fn is_public(&self) -> bool {
        self.effect == Effect::Allow
            && self.principals.list.contains(&Principal::Anyone)
            && !self.conditions.iter().any(Condition::narrows)
    }
}

/// A policy, ready to be asked.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    text: String,
    statements: Vec<Statement>,
}

impl Policy {
    /// Reads the policy of the bucket named `bucket`.
    ///
    /// # Errors
    ///
    /// Says what is wrong with a text that is not, in every part, a policy for this bucket.
    pub fn parse(json: &[u8], bucket: &str) -> Result<Self, PolicyError> {
        Self::read(json, Place::Bucket(bucket), POLICY_MAX)
    }

    /// Reads a policy that comes with temporary credentials: it names no principals, and any bucket.
    ///
    /// # Errors
    ///
    /// Says what is wrong with a text that is not, in every part, such a policy.
    pub fn parse_session(json: &[u8]) -> Result<Self, PolicyError> {
        Self::read(json, Place::Session, SESSION_POLICY_MAX)
    }

    fn read(json: &[u8], place: Place<'_>, most: usize) -> Result<Self, PolicyError> {
        if json.len() > most {
            return Err(PolicyError::TooLarge { bytes: json.len(), most });
        }
        let text = std::str::from_utf8(json).map_err(|error| PolicyError::Json(error.to_string()))?;
        Ok(Self { text: text.to_owned(), statements: parse::statements(text, place)? })
    }

    /// The text as it was given.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// What the policy says of `request`. Where it would take more than a few milliseconds to find out, which takes a
    /// policy made for it, the answer is a deny.
    #[must_use]
    pub fn evaluate(&self, request: &Request<'_>) -> Verdict {
        let resolve = |key: &str| request.resolve(key);
        let scope = Scope::new(&resolve);
        let mut verdict = Verdict::Silent;
        for statement in &self.statements {
            // An allow changes nothing any more where there is one already.
            if statement.effect == Effect::Allow && verdict == Verdict::Allow {
                continue;
            }
            if statement.applies(request, &scope) {
                match statement.effect {
                    Effect::Deny => return Verdict::Deny,
                    Effect::Allow => verdict = Verdict::Allow,
                }
            }
        }
        if scope.is_spent() { Verdict::Deny } else { verdict }
    }

    /// Whether an answer can depend on a condition key that begins with `key_prefix` (whatever the capitals), such as
    /// `s3:ExistingObjectTag/`; only then does the door have to find out.
    #[must_use]
    pub fn wants(&self, key_prefix: &str) -> bool {
        let prefix = key_prefix.to_ascii_lowercase();
        self.statements.iter().any(|statement| {
            let conditions = statement.conditions.iter().flat_map(Condition::keys);
            let resources = statement.resources.list.iter().flat_map(Pattern::variables);
            conditions.chain(resources).any(|key| key.starts_with(&prefix))
        })
    }

    /// Whether S3 would call the policy public: a statement allows something to everyone, and no condition of it
    /// narrows that to fixed values of a key that callers cannot choose (the caller's account, ARN or id, a range of
    /// addresses no wider than /8 or, with IPv6, /32, and the like). Statements that deny do not count.
    #[must_use]
    pub fn is_public(&self) -> bool {
        self.statements.iter().any(Statement::is_public)
    }
}

/// Whether `request` may be served.
///
/// `is_owner` says that the caller belongs to the account that owns the bucket, or is root. The owner may do everything
/// that `policy` does not deny; others may do what it allows. The owning account itself (not its users or sessions)
/// can always read, put and delete the policy, so that nobody locks himself out.
#[must_use]
pub fn decide(is_owner: bool, policy: Option<&Policy>, request: &Request<'_>) -> bool {
    const OWN_POLICY: [&str; 3] = ["s3:GetBucketPolicy", "s3:PutBucketPolicy", "s3:DeleteBucketPolicy"];
    let is_account = matches!(request.caller, Caller::Account { identity: Identity::Root, .. });
    if is_owner && is_account && OWN_POLICY.iter().any(|action| action.eq_ignore_ascii_case(request.action)) {
        return true;
    }
    match policy.map_or(Verdict::Silent, |policy| policy.evaluate(request)) {
        Verdict::Allow => true,
        Verdict::Deny => false,
        Verdict::Silent => is_owner,
    }
}
