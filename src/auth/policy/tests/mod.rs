//! The policy language as a whole: who gets in and who does not, every condition operator, what is no policy, and what
//! is public.

mod condition;
mod evaluate;
mod malformed;
mod public;

use super::{Caller, Context, Policy, Request, Verdict};

/// A policy for `bucket`.
fn policy(json: &str) -> Policy {
    Policy::parse(json.as_bytes(), "bucket").unwrap_or_else(|error| panic!("{error}: {json}"))
}

/// A policy of these statements, in the newer version of the language.
fn statements(list: &str) -> Policy {
    policy(&format!(r#"{{"Version":"2012-10-17","Statement":[{list}]}}"#))
}

/// What `policy` says of reading `bucket/key`.
fn verdict(policy: &Policy, caller: &Caller, action: &str, key: &str, context: &Context) -> Verdict {
    let resource = if key.is_empty() { "arn:aws:s3:::bucket".to_owned() } else { format!("arn:aws:s3:::bucket/{key}") };
    policy.evaluate(&Request { caller, action, resource: &resource, context })
}

/// Whether a statement with this condition, which allows everyone everything, applies.
fn applies(condition: &str, context: &Context) -> bool {
    applies_to(condition, context, &Caller::account("tenant"))
}

fn applies_to(condition: &str, context: &Context, caller: &Caller) -> bool {
    let policy = statements(&format!(
        r#"{{"Effect":"Allow","Principal":"*","Action":"*","Resource":"*","Condition":{condition}}}"#
    ));
    verdict(&policy, caller, "s3:GetObject", "key", context) == Verdict::Allow
}
