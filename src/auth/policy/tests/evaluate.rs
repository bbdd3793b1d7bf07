//! Denials beat allowances, only those who are named are meant, wildcards and variables reach as far as they say, and
//! the owner is not locked out.

use super::*;
use crate::auth::policy::decide;

const ALLOW_ALL: &str =
    r#"{"Effect":"Allow","Principal":"*","Action":"s3:*","Resource":["arn:aws:s3:::bucket","arn:aws:s3:::bucket/*"]}"#;

fn plain(policy: &Policy, caller: &Caller, action: &str, key: &str) -> Verdict {
    verdict(policy, caller, action, key, &Context::new())
}

#[test]
fn deny_beats_allow_in_either_order() {
    let deny = r#"{"Effect":"Deny","Principal":{"AWS":"eve"},"Action":"s3:DeleteObject","Resource":"arn:aws:s3:::bucket/keep/*"}"#;
    for list in [format!("{ALLOW_ALL},{deny}"), format!("{deny},{ALLOW_ALL}")] {
        let policy = statements(&list);
        let eve = Caller::account("eve");
        assert_eq!(plain(&policy, &eve, "s3:DeleteObject", "keep/x"), Verdict::Deny);
        assert_eq!(plain(&policy, &eve, "s3:DeleteObject", "other/x"), Verdict::Allow);
        assert_eq!(plain(&policy, &eve, "s3:GetObject", "keep/x"), Verdict::Allow);
        assert_eq!(plain(&policy, &Caller::account("bob"), "s3:DeleteObject", "keep/x"), Verdict::Allow);
        assert_eq!(plain(&policy, &Caller::Anonymous, "s3:DeleteObject", "keep/x"), Verdict::Allow);
    }
}

#[test]
fn only_the_named_are_meant() {
    let policy = statements(
        r#"{"Effect":"Allow","Principal":{"AWS":["alice","arn:aws:iam::bob:user/u"],"CanonicalUser":"carol"},"Action":"s3:GetObject","Resource":"arn:aws:s3:::bucket/*"}"#,
    );
    for (caller, expected) in [
        (Caller::account("alice"), Verdict::Allow),
        (Caller::user("alice", "anyone"), Verdict::Allow),
        (Caller::user("bob", "u"), Verdict::Allow),
        (Caller::account("carol"), Verdict::Allow),
        (Caller::account("bob"), Verdict::Silent),
        (Caller::user("bob", "v"), Verdict::Silent),
        (Caller::role("bob", "u", "u"), Verdict::Silent),
        (Caller::account("Alice"), Verdict::Silent),
        (Caller::account("alice2"), Verdict::Silent),
        (Caller::Anonymous, Verdict::Silent),
    ] {
        assert_eq!(plain(&policy, &caller, "s3:GetObject", "key"), expected, "{caller:?}");
    }
    // Not the bucket, and not another action.
    assert_eq!(plain(&policy, &Caller::account("alice"), "s3:GetObject", ""), Verdict::Silent);
    assert_eq!(plain(&policy, &Caller::account("alice"), "s3:GetObjectAcl", "key"), Verdict::Silent);
}

#[test]
fn the_negated_elements() {
    let policy = statements(
        r#"{"Effect":"Deny","NotPrincipal":{"AWS":"alice"},"NotAction":"s3:Get*","NotResource":"arn:aws:s3:::bucket/free/*"}"#,
    );
    assert_eq!(plain(&policy, &Caller::account("bob"), "s3:PutObject", "x"), Verdict::Deny);
    assert_eq!(plain(&policy, &Caller::Anonymous, "s3:PutObject", "x"), Verdict::Deny);
    assert_eq!(plain(&policy, &Caller::account("alice"), "s3:PutObject", "x"), Verdict::Silent);
    assert_eq!(plain(&policy, &Caller::account("bob"), "s3:GetObject", "x"), Verdict::Silent);
    assert_eq!(plain(&policy, &Caller::account("bob"), "s3:PutObject", "free/x"), Verdict::Silent);
}

#[test]
fn actions_know_no_capitals_and_resources_do() {
    let policy = statements(
        r#"{"Effect":"Allow","Principal":"*","Action":["S3:gETobject","s3:list*","s3:?utObject"],"Resource":"arn:aws:s3:::bucket/A?c/*"}"#,
    );
    let alice = Caller::account("alice");
    for (action, key, expected) in [
        ("s3:GetObject", "Abc/x", Verdict::Allow),
        ("s3:GETOBJECT", "Abc/", Verdict::Allow),
        ("s3:ListBucket", "A/c/x/y", Verdict::Allow),
        ("s3:PutObject", "Aéc/x", Verdict::Allow),
        ("s3:GetObject", "abc/x", Verdict::Silent),
        ("s3:GetObject", "Abc", Verdict::Silent),
        ("s3:GetObject", "Abbc/x", Verdict::Silent),
        ("s3:GetObjectVersion", "Abc/x", Verdict::Silent),
        ("s3:PutObjectAcl", "Abc/x", Verdict::Silent),
    ] {
        assert_eq!(plain(&policy, &alice, action, key), expected, "{action} {key}");
    }
}

#[test]
fn variables_in_resources() {
    let home = r#"{"Effect":"Allow","Principal":"*","Action":"s3:*","Resource":"arn:aws:s3:::bucket/home/${aws:PrincipalAccount}/${aws:username}/*"}"#;
    let policy = statements(home);
    let ann = Caller::user("t", "ann");
    assert_eq!(plain(&policy, &ann, "s3:GetObject", "home/t/ann/x"), Verdict::Allow);
    assert_eq!(plain(&policy, &ann, "s3:GetObject", "home/t/bob/x"), Verdict::Silent);
    assert_eq!(plain(&policy, &Caller::user("u", "ann"), "s3:GetObject", "home/t/ann/x"), Verdict::Silent);
    // A name that looks like a wildcard is a name.
    assert_eq!(plain(&policy, &Caller::user("t", "*"), "s3:GetObject", "home/t/bob/x"), Verdict::Silent);
    // Who has no name has no home, even one without a name.
    assert_eq!(plain(&policy, &Caller::account("t"), "s3:GetObject", "home/t//x"), Verdict::Silent);
    assert_eq!(plain(&policy, &Caller::Anonymous, "s3:GetObject", "home///x"), Verdict::Silent);
    // Nothing the request says of itself counts as who it is.
    let forged = Context::new().with("aws:username", "bob");
    assert_eq!(verdict(&policy, &ann, "s3:GetObject", "home/t/bob/x", &forged), Verdict::Silent);
    // In the older version of the language it is text.
    let old = super::policy(&format!(r#"{{"Version":"2008-10-17","Statement":{home}}}"#));
    assert_eq!(plain(&old, &ann, "s3:GetObject", "home/t/ann/x"), Verdict::Silent);
    assert_eq!(plain(&old, &ann, "s3:GetObject", "home/${aws:PrincipalAccount}/${aws:username}/x"), Verdict::Allow);
    let literal = statements(
        r#"{"Effect":"Allow","Principal":"*","Action":"s3:*","Resource":"arn:aws:s3:::bucket/${*}${?}${$}"}"#,
    );
    assert_eq!(plain(&literal, &ann, "s3:GetObject", "*?$"), Verdict::Allow);
    assert_eq!(plain(&literal, &ann, "s3:GetObject", "xy$"), Verdict::Silent);
}

#[test]
fn a_variable_without_a_value_never_helps() {
    let not = |effect: &str| {
        statements(&format!(
            r#"{{"Effect":"{effect}","Principal":"*","Action":"s3:*","NotResource":"arn:aws:s3:::bucket/${{aws:username}}/*"}}"#
        ))
    };
    assert_eq!(plain(&not("Allow"), &Caller::account("t"), "s3:GetObject", "x"), Verdict::Silent);
    assert_eq!(plain(&not("Deny"), &Caller::account("t"), "s3:GetObject", "x"), Verdict::Deny);
    assert_eq!(plain(&not("Allow"), &Caller::user("t", "u"), "s3:GetObject", "x"), Verdict::Allow);
    assert_eq!(plain(&not("Deny"), &Caller::user("t", "u"), "s3:GetObject", "u/x"), Verdict::Silent);
    let unless = |effect: &str| {
        statements(&format!(
            r#"{{"Effect":"{effect}","Principal":"*","Action":"s3:*","Resource":"*","Condition":{{"StringNotEquals":{{"s3:prefix":"${{aws:username}}"}}}}}}"#
        ))
    };
    let context = Context::new().with("s3:prefix", "x");
    assert_eq!(verdict(&unless("Allow"), &Caller::Anonymous, "s3:ListBucket", "", &context), Verdict::Silent);
    assert_eq!(verdict(&unless("Deny"), &Caller::Anonymous, "s3:ListBucket", "", &context), Verdict::Deny);
    assert_eq!(verdict(&unless("Allow"), &Caller::user("t", "u"), "s3:ListBucket", "", &context), Verdict::Allow);
}

#[test]
fn the_owner_has_what_is_not_denied() {
    let (owner, other) = (Caller::account("own"), Caller::account("other"));
    let context = Context::new();
    let ask = |is_owner, policy: Option<&Policy>, caller: &Caller, action: &str| {
        let resource = if action.contains("Bucket") { "arn:aws:s3:::bucket" } else { "arn:aws:s3:::bucket/key" };
        decide(is_owner, policy, &Request { caller, action, resource, context: &context })
    };
    assert!(ask(true, None, &owner, "s3:GetObject"));
    assert!(!ask(false, None, &other, "s3:GetObject"));
    assert!(!ask(false, None, &Caller::Anonymous, "s3:GetObject"));
    let open = statements(ALLOW_ALL);
    assert!(ask(false, Some(&open), &Caller::Anonymous, "s3:GetObject"));
    let shut = statements(
        r#"{"Effect":"Deny","Principal":"*","Action":"*","Resource":["arn:aws:s3:::bucket","arn:aws:s3:::bucket/*"]}"#,
    );
    assert!(!ask(true, Some(&shut), &owner, "s3:GetObject"));
    assert!(!ask(true, Some(&shut), &owner, "s3:DeleteBucket"));
    for action in ["s3:GetBucketPolicy", "s3:PutBucketPolicy", "s3:deletebucketpolicy"] {
        assert!(ask(true, Some(&shut), &owner, action), "{action}");
        assert!(!ask(true, Some(&shut), &Caller::user("own", "u"), action), "{action}");
        assert!(!ask(false, Some(&shut), &other, action), "{action}");
        assert!(!ask(false, None, &other, action), "{action}");
        assert!(!ask(false, Some(&shut), &Caller::Anonymous, action), "{action}");
    }
    assert!(!ask(true, Some(&shut), &owner, "s3:GetBucketPolicyStatus"));
    // What allows somebody else takes nothing from the owner.
    let bob =
        r#"{"Effect":"Allow","Principal":{"AWS":"other"},"Action":"s3:GetObject","Resource":"arn:aws:s3:::bucket/*"}"#;
    let bob = statements(bob);
    assert!(ask(true, Some(&bob), &owner, "s3:PutObject"));
    assert!(ask(false, Some(&bob), &other, "s3:GetObject"));
    assert!(!ask(false, Some(&bob), &other, "s3:PutObject"));
}

#[test]
fn sessions_have_policies_without_principals() {
    let text = r#"{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"s3:GetObject","Resource":"arn:aws:s3:::any/*"}}"#;
    let session = Policy::parse_session(text.as_bytes()).unwrap();
    let caller = Caller::role("t", "r", "s");
    let context = Context::new();
    let ask =
        |resource| session.evaluate(&Request { caller: &caller, action: "s3:GetObject", resource, context: &context });
    assert_eq!(ask("arn:aws:s3:::any/x"), Verdict::Allow);
    assert_eq!(ask("arn:aws:s3:::other/x"), Verdict::Silent);
    let named = text.replace("\"Action\"", "\"Principal\":\"*\",\"Action\"");
    assert!(Policy::parse_session(named.as_bytes()).unwrap_err().to_string().contains("Principal"));
    assert!(Policy::parse(text.as_bytes(), "any").unwrap_err().to_string().contains("Principal"));
    let long = text.replace('{', &format!("{{{}", " ".repeat(2_048)));
    assert!(Policy::parse_session(long.as_bytes()).is_err());
}

#[test]
fn asks_only_for_what_it_needs() {
    let tags = statements(
        r#"{"Effect":"Allow","Principal":"*","Action":"s3:*","Resource":"*","Condition":{"StringEquals":{"S3:ExistingObjectTag/Team":"a"}}}"#,
    );
    assert!(tags.wants("s3:ExistingObjectTag/"));
    assert!(tags.wants("s3:existingobjecttag/team"));
    assert!(!tags.wants("s3:RequestObjectTag/"));
    let variable = statements(
        r#"{"Effect":"Allow","Principal":"*","Action":"s3:*","Resource":"arn:aws:s3:::bucket/${s3:ExistingObjectTag/Team}/*"}"#,
    );
    assert!(variable.wants("s3:ExistingObjectTag/"));
    assert!(!statements(ALLOW_ALL).wants("s3:"));
    assert!(!statements(ALLOW_ALL).wants(""));
}

#[test]
fn what_takes_too_long_is_denied() {
    let slow = format!(
        r#"{ALLOW_ALL},{{"Effect":"Deny","Principal":"*","Action":"*","Resource":"*","Condition":{{"StringLike":{{"aws:UserAgent":"*{}b"}}}}}}"#,
        "a".repeat(8_000)
    );
    let policy = statements(&slow);
    let agent = |text: String| Context::new().with("aws:UserAgent", text);
    let ask = |context: &Context| verdict(&policy, &Caller::Anonymous, "s3:GetObject", "key", context);
    assert_eq!(ask(&agent("a".repeat(60_000))), Verdict::Deny);
    assert_eq!(ask(&agent("a".repeat(500))), Verdict::Allow);
    assert_eq!(ask(&agent("x".repeat(60_000))), Verdict::Allow);
}
