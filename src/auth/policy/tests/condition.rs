//! Every operator with values that fit, values that do not, and no value at all; how several values count together.

use super::*;
use crate::sys::clock::Timestamp;

/// Each operator with a key, the policy's value, a value of a request that fits, and one that does not.
const OPERATORS: &[(&str, &str, &str, &str, &str)] = &[
    ("StringEquals", "s3:prefix", r#""a*""#, "a*", "ab"),
    ("StringEquals", "s3:prefix", r#"["x","a"]"#, "a", "A"),
    ("StringEquals", "s3:prefix", r#""""#, "", "a"),
    ("StringEqualsIgnoreCase", "aws:UserAgent", r#""Agent""#, "aGENT", "agent/1"),
    ("StringLike", "s3:prefix", r#""home/*""#, "home/", "home"),
    ("StringLike", "s3:prefix", r#""a?c""#, "abc", "aBbc"),
    ("StringLike", "s3:prefix", r#""a${*}c""#, "a*c", "abc"),
    ("StringLike", "aws:Referer", r#"["http://a/*","http://b/*"]"#, "http://b/x", "http://c/x"),
    ("NumericEquals", "s3:max-keys", "10", "10.0", "11"),
    ("NumericEquals", "s3:max-keys", r#""10""#, "10", "x"),
    ("NumericLessThan", "s3:signatureAge", "600000", "599999", "600000"),
    ("NumericLessThanEquals", "s3:max-keys", r#""10""#, "10", "10.5"),
    ("NumericGreaterThan", "s3:max-keys", r#""10""#, "11", "10"),
    ("NumericGreaterThanEquals", "s3:TlsVersion", "1.2", "1.3", "1.1"),
    ("NumericLessThan", "s3:max-keys", r#""10""#, "9", "nan"),
    ("DateEquals", "aws:CurrentTime", r#""2020-01-01""#, "2020-01-01T00:00:00.000Z", "2020-01-01T00:00:00.001Z"),
    ("DateLessThan", "aws:CurrentTime", r#""2020-01-01T00:00:00Z""#, "2019-12-31T23:59:59Z", "2020-01-01T00:00:00Z"),
    ("DateLessThanEquals", "aws:CurrentTime", r#""1577836800""#, "2020-01-01T00:00:00Z", "2020-01-01T00:00:01Z"),
    ("DateGreaterThan", "aws:EpochTime", r#""2020-01-01T00:00:00Z""#, "1577836801", "1577836800"),
    ("DateGreaterThanEquals", "aws:EpochTime", "1577836800", "1577836800", "soon"),
    ("Bool", "aws:SecureTransport", "true", "true", "false"),
    ("Bool", "aws:SecureTransport", r#""False""#, "false", "no"),
    ("BinaryEquals", "s3:x-amz-meta", r#""Zm9v""#, "Zm9v", "Zm9vYmFy"),
    ("IpAddress", "aws:SourceIp", r#""192.0.2.0/24""#, "192.0.2.200", "192.0.3.1"),
    ("IpAddress", "aws:SourceIp", r#"["192.0.2.1","2001:db8::/32"]"#, "2001:db8:9::1", "192.0.2.2"),
    ("IpAddress", "aws:SourceIp", r#""192.0.2.0/24""#, "::ffff:192.0.2.1", "unknown"),
    ("ArnEquals", "aws:SourceArn", r#""arn:aws:s3:::a*""#, "arn:aws:s3:::abc", "arn:aws:s3:::b"),
    ("ArnLike", "aws:SourceArn", r#""arn:aws:*:*:t:*""#, "arn:aws:sns:r:t:x:y", "arn:aws:sns:r:u:t:x"),
    ("ArnLike", "aws:SourceArn", r#""*""#, "arn:aws:s3:::a", ""),
    ("ArnLike", "aws:SourceArn", r#""arn:aws:s3:::?""#, "arn:aws:s3:::a", "arn"),
];

#[test]
fn operators_and_their_opposites() {
    for (operator, key, value, fits, differs) in OPERATORS {
        let opposite = match *operator {
            "IpAddress" => Some("NotIpAddress".to_owned()),
            "Bool" | "BinaryEquals" => None,
            name => ["String", "Numeric", "Date", "Arn"]
                .iter()
                .find(|kind| name.starts_with(**kind) && (name.contains("Like") || name.contains("Equals")))
                .filter(|_| !name.contains("Than"))
                .map(|kind| name.replacen(kind, &format!("{kind}Not"), 1)),
        };
        let with = |value: &str| Context::new().with(key, value);
        let ask = |operator: &str, context: &Context| {
            applies(&format!(r#"{{"{operator}":{{"{}":{value}}}}}"#, key.to_uppercase()), context)
        };
        let absent = Context::new();
        let whole = *value == r#""*""#;
        assert!(ask(operator, &with(fits)), "{operator} {value} {fits}");
        assert_eq!(ask(operator, &with(differs)), whole, "{operator} {value} {differs}");
        assert!(!ask(operator, &absent), "{operator} {value} absent");
        let if_exists = format!("{operator}IfExists");
        assert!(ask(&if_exists, &with(fits)), "{if_exists} {value} {fits}");
        assert_eq!(ask(&if_exists, &with(differs)), whole, "{if_exists} {value} {differs}");
        assert!(ask(&if_exists, &absent), "{if_exists} {value} absent");
        let Some(opposite) = opposite else { continue };
        assert!(!ask(&opposite, &with(fits)), "{opposite} {value} {fits}");
        assert_eq!(ask(&opposite, &with(differs)), !whole, "{opposite} {value} {differs}");
        assert!(ask(&opposite, &absent), "{opposite} {value} absent");
        assert!(ask(&format!("{opposite}IfExists"), &absent), "{opposite}IfExists {value} absent");
    }
}

#[test]
fn opposites_of_several_values_exclude_each() {
    let ask = |value: &str| {
        applies(r#"{"StringNotEquals":{"s3:prefix":["a","b"]}}"#, &Context::new().with("s3:prefix", value))
    };
    assert!(!ask("a"));
    assert!(!ask("b"));
    assert!(ask("c"));
}

#[test]
fn null_asks_whether_the_key_is_there() {
    let (here, absent) = (Context::new().with("s3:prefix", ""), Context::new());
    for (value, of_here, of_absent) in [
        (r#""true""#, false, true),
        ("true", false, true),
        (r#""false""#, true, false),
        (r#"[true,false]"#, true, true),
    ] {
        let condition = format!(r#"{{"Null":{{"s3:prefix":{value}}}}}"#);
        assert_eq!(applies(&condition, &here), of_here, "{value}");
        assert_eq!(applies(&condition, &absent), of_absent, "{value}");
    }
    let encryption = r#"{"Null":{"s3:x-amz-server-side-encryption":"true"}}"#;
    assert!(applies(encryption, &Context::new()));
    assert!(!applies(encryption, &Context::new().with("s3:x-amz-server-side-encryption", "AES256")));
}

#[test]
fn sets_of_values() {
    let tags = |keys: &[&str]| Context::new().request_tags(keys.iter().map(|key| (*key, "v")));
    for (operator, values, expected) in [
        ("ForAllValues:StringEquals", &["a", "b"][..], true),
        ("ForAllValues:StringEquals", &["a"], true),
        ("ForAllValues:StringEquals", &["a", "c"], false),
        ("ForAllValues:StringEquals", &[], true),
        ("ForAnyValue:StringEquals", &["c", "a"], true),
        ("ForAnyValue:StringEquals", &["c"], false),
        ("ForAnyValue:StringEquals", &[], false),
        ("ForAnyValue:StringEqualsIfExists", &[], false),
        ("ForAllValues:StringNotEquals", &["c", "d"], true),
        ("ForAllValues:StringNotEquals", &["c", "a"], false),
        ("ForAllValues:StringNotEquals", &[], true),
        ("ForAnyValue:StringNotEquals", &["c", "a"], true),
        ("ForAnyValue:StringNotEquals", &["b", "a"], false),
        ("ForAnyValue:StringNotEquals", &[], false),
        // Without a set, one value that fits is enough, and one that is excluded too much.
        ("StringEquals", &["c", "a"], true),
        ("StringNotEquals", &["c", "a"], false),
    ] {
        let condition = format!(r#"{{"{operator}":{{"s3:RequestObjectTagKeys":["a","b"]}}}}"#);
        assert_eq!(applies(&condition, &tags(values)), expected, "{operator} {values:?}");
    }
}

#[test]
fn all_conditions_have_to_hold() {
    let condition = r#"{"IpAddress":{"aws:SourceIp":"192.0.2.0/24"},"NotIpAddress":{"aws:SourceIp":"192.0.2.9"},"StringEquals":{"s3:prefix":"a","s3:delimiter":"/"}}"#;
    let context = |ip: &str, prefix: &str, delimiter: Option<&str>| {
        let context = Context::new().with("aws:SourceIp", ip).with("s3:prefix", prefix);
        context.with_some("s3:delimiter", delimiter)
    };
    assert!(applies(condition, &context("192.0.2.1", "a", Some("/"))));
    assert!(!applies(condition, &context("192.0.2.9", "a", Some("/"))));
    assert!(!applies(condition, &context("192.0.3.1", "a", Some("/"))));
    assert!(!applies(condition, &context("192.0.2.1", "b", Some("/"))));
    assert!(!applies(condition, &context("192.0.2.1", "a", None)));
    assert!(applies("{}", &Context::new()));
}

#[test]
fn tags_are_known_by_their_keys() {
    let condition = r#"{"StringEquals":{"s3:ExistingObjectTag/Team":"red"}}"#;
    assert!(applies(condition, &Context::new().existing_tags([("Other", "blue"), ("Team", "red")])));
    assert!(!applies(condition, &Context::new().existing_tags([("Team", "blue")])));
    assert!(!applies(condition, &Context::new().existing_tags([("Other", "red")])));
    assert!(!applies(condition, &Context::new().request_tags([("Team", "red")])));
}

#[test]
fn the_caller_is_known_by_itself() {
    let ask = |key: &str, value: &str, caller: &Caller| {
        applies_to(&format!(r#"{{"StringEquals":{{"{key}":"{value}"}}}}"#), &Context::new(), caller)
    };
    let (ann, role) = (Caller::user("t", "ann"), Caller::role("t", "r", "s"));
    assert!(ask("aws:username", "ann", &ann));
    assert!(ask("aws:PrincipalAccount", "t", &ann));
    assert!(ask("aws:PrincipalArn", "arn:aws:iam::t:user/ann", &ann));
    assert!(ask("aws:PrincipalArn", "arn:aws:iam::t:role/r", &role));
    assert!(ask("aws:userid", "t/r:s", &role));
    assert!(ask("aws:PrincipalType", "AssumedRole", &role));
    assert!(ask("aws:PrincipalType", "Anonymous", &Caller::Anonymous));
    assert!(!ask("aws:username", "ann", &Caller::account("t")));
    assert!(!ask("aws:username", "r", &role));
    assert!(!ask("aws:PrincipalAccount", "", &Caller::Anonymous));
    let forged = Context::new().with("aws:PrincipalAccount", "boss").with("aws:username", "boss");
    assert!(!applies(r#"{"StringEquals":{"aws:PrincipalAccount":"boss"}}"#, &forged));
    assert!(!applies(r#"{"StringEquals":{"aws:username":"boss"}}"#, &forged));
    let arn = r#"{"ArnLike":{"aws:PrincipalArn":"arn:aws:iam::${aws:PrincipalAccount}:user/a*"}}"#;
    assert!(applies_to(arn, &Context::new(), &ann));
    assert!(!applies_to(arn, &Context::new(), &Caller::user("t", "bob")));
    assert!(!applies_to(arn, &Context::new(), &Caller::Anonymous));
}

#[test]
fn the_moment_is_given() {
    let condition = r#"{"DateGreaterThan":{"aws:CurrentTime":"2026-11-23T22:00:00Z"},"NumericLessThan":{"aws:EpochTime":1795557600}}"#;
    let at = |text: &str| Context::new().at(text.parse::<Timestamp>().unwrap());
    assert!(applies(condition, &at("2026-11-23T22:00:00.001Z")));
    assert!(!applies(condition, &at("2026-11-23T22:00:00.000Z")));
    assert!(!applies(condition, &at("2027-11-23T22:00:00.000Z")));
}

#[test]
fn variables_in_values() {
    let condition = r#"{"StringLike":{"s3:prefix":["home/${aws:username}/*","${aws:username, 'public'}"]}}"#;
    let ask = |prefix: &str, caller: &Caller| applies_to(condition, &Context::new().with("s3:prefix", prefix), caller);
    assert!(ask("home/ann/x", &Caller::user("t", "ann")));
    assert!(ask("ann", &Caller::user("t", "ann")));
    assert!(!ask("home/bob/x", &Caller::user("t", "ann")));
    assert!(!ask("home/bob/x", &Caller::user("t", "*")));
    assert!(ask("public", &Caller::Anonymous));
    assert!(!ask("home//x", &Caller::Anonymous));
}
