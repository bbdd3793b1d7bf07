//! What is not a policy in every part is refused with words that say why, and no text, however hostile, panics.

use proptest::prelude::*;

use super::*;
use crate::auth::policy::{POLICY_MAX, PolicyError};

fn error(json: &str) -> String {
    match Policy::parse(json.as_bytes(), "bucket") {
        Ok(_) => panic!("accepted {json}"),
        Err(error) => error.to_string(),
    }
}

const GOOD: &str = r#"{"Version":"2012-10-17","Id":"i","Statement":[{"Sid":"s","Effect":"Allow","Principal":"*","Action":"s3:GetObject","Resource":"arn:aws:s3:::bucket/*","Condition":{"Bool":{"aws:SecureTransport":"true"}}}]}"#;

#[test]
fn keeps_the_text_as_given() {
    let spaced = GOOD.replace(',', " ,\n ");
    assert_eq!(policy(&spaced).text(), spaced);
    policy(&GOOD.replace("[{", "{").replace("}]}", "}}"));
    policy(&GOOD.replace(r#""Version":"2012-10-17","#, ""));
    // An empty Sid is none.
    let statement = r#"{"Sid":"","Effect":"Deny","Principal":"*","Action":"*","Resource":"*"}"#;
    statements(&format!("{statement},{statement}"));
}

/// A piece of the good policy, what to put in its place, and words of the refusal.
const SLIPS: &[(&str, &str, &str)] = &[
    ("2012-10-17", "2012-10-18", "2012-10-18"),
    (r#""2012-10-17""#, "1", "Version is a number"),
    (r#""Id":"i""#, r#""Id":[]"#, "Id is a list"),
    (r#""Id""#, r#""Ident""#, "Ident"),
    (r#""Statement""#, r#""Statements""#, "no Statement"),
    (r#""Id":"i""#, r#""Version":"2012-10-17""#, "twice"),
    (r#""Sid":"s""#, r#""Sid":1"#, "Sid is a number"),
    (r#""Sid""#, r#""sid""#, "\"sid\""),
    (r#""Effect":"Allow","#, "", "no Effect"),
    ("Allow", "allow", "allow"),
    ("Allow", "Permit", "Permit"),
    (r#""Principal":"*","#, "", "neither Principal nor NotPrincipal"),
    (r#""Principal":"*""#, r#""Principal":"*","NotPrincipal":{"AWS":"a"}"#, "both Principal and NotPrincipal"),
    (r#""Principal":"*""#, r#""NotPrincipal":{"AWS":"a"}"#, "NotPrincipal does not go with Allow"),
    (r#""Principal":"*""#, r#""Principal":"tenant""#, "tenant"),
    (r#""Principal":"*""#, r#""Principal":["*"]"#, "a list"),
    (r#""Principal":"*""#, r#""Principal":{}"#, "empty"),
    (r#""Principal":"*""#, r#""Principal":{"AWS":[]}"#, "empty"),
    (r#""Principal":"*""#, r#""Principal":{"AWS":""}"#, "no tenant's name"),
    (r#""Principal":"*""#, r#""Principal":{"AWS":"a*"}"#, "wildcard"),
    (r#""Principal":"*""#, r#""Principal":{"AWS":"arn:aws:iam::t:user/*"}"#, "wildcard"),
    (r#""Principal":"*""#, r#""Principal":{"AWS":"arn:aws:iam::t:group/g"}"#, "is not one of"),
    (r#""Principal":"*""#, r#""Principal":{"AWS":[["a"]]}"#, "a list stands"),
    (r#""Principal":"*""#, r#""Principal":{"Service":"x"}"#, "Service"),
    (r#""Principal":"*""#, r#""Principal":{"CanonicalUser":"*"}"#, "no tenant's name"),
    (r#""Principal":"*""#, r#""Principal":{"AWS":"a","AWS":"b"}"#, "twice"),
    (r#""Action":"s3:GetObject","#, "", "neither Action nor NotAction"),
    (r#""s3:GetObject""#, "[]", "empty"),
    (r#""s3:GetObject""#, "[1]", "a number stands"),
    ("s3:GetObject", "GetObject", "GetObject"),
    ("s3:GetObject", "ec2:RunInstances", "no action of S3"),
    ("s3:GetObject", "s3:GetObjects", "no action of S3"),
    ("s3:GetObject", "s3:", "no action of S3"),
    ("s3:GetObject", "*:*", "no action of S3"),
    ("s3:GetObject", "s3*", "no action of S3"),
    ("s3:GetObject", "", "no action of S3"),
    (r#""Resource":"arn:aws:s3:::bucket/*","#, "", "neither Resource nor NotResource"),
    (r#""arn:aws:s3:::bucket/*""#, "[]", "empty"),
    ("arn:aws:s3:::bucket/*", "arn:aws:s3:::other/*", "not within the bucket"),
    ("arn:aws:s3:::bucket/*", "arn:aws:s3:::bucket2", "not within the bucket"),
    ("arn:aws:s3:::bucket/*", "arn:aws:s3:::Bucket/*", "not within the bucket"),
    ("arn:aws:s3:::bucket/*", "arn:aws:s3:::bucke", "not within the bucket"),
    ("arn:aws:s3:::bucket/*", "arn:aws:s3:::?ucket2/x", "not within the bucket"),
    ("arn:aws:s3:::bucket/*", "bucket/*", "no resource of S3"),
    ("arn:aws:s3:::bucket/*", "arn:aws:sns:::bucket/*", "no resource of S3"),
    ("arn:aws:s3:::bucket/*", "arn:aws:s3:::bucket/${aws:username", "without its"),
    ("arn:aws:s3:::bucket/*", "arn:aws:s3:::bucket/${username}", "no policy variable"),
    (r#"{"Bool":{"aws:SecureTransport":"true"}}"#, "[]", "a list"),
    (r#"{"aws:SecureTransport":"true"}"#, "{}", "empty"),
    (r#"{"aws:SecureTransport":"true"}"#, r#""x""#, "a string"),
    ("Bool", "Boolean", "no condition operator"),
    ("Bool", "bool", "no condition operator"),
    ("Bool", "ForAllValues:", "no condition operator"),
    ("Bool", "ForAnyValue:ForAllValues:Bool", "no condition operator"),
    ("Bool", "BoolIfExistsIfExists", "no condition operator"),
    ("Bool", "NullIfExists", "no condition operator"),
    ("Bool", "NotBool", "no condition operator"),
    ("aws:SecureTransport", "SecureTransport", "no condition key"),
    ("aws:SecureTransport", "s3:prefixes", "no condition key"),
    ("aws:SecureTransport", "s3:ExistingObjectTag/", "no condition key"),
    ("aws:SecureTransport", "ec2:Region", "no condition key"),
    (r#""aws:SecureTransport":"true""#, r#""aws:SecureTransport":"true","aws:securetransport":"true""#, "twice"),
    (r#"Transport":"true""#, r#"Transport":"yes""#, "true or false"),
    (r#"Transport":"true""#, r#"Transport":[]"#, "empty"),
    (r#"Transport":"true""#, r#"Transport":null"#, "null stands"),
    (r#"Transport":"true""#, r#"Transport":[["true"]]"#, "a list stands"),
    (r#"Bool":{"aws:SecureTransport":"true""#, r#"NumericEquals":{"s3:max-keys":"ten""#, "a number"),
    (r#"Bool":{"aws:SecureTransport":"true""#, r#"DateEquals":{"aws:CurrentTime":"now""#, "a time"),
    (r#"Bool":{"aws:SecureTransport":"true""#, r#"IpAddress":{"aws:SourceIp":"10.0.0.0/33""#, "addresses"),
    (r#"Bool":{"aws:SecureTransport":"true""#, r#"ArnLike":{"aws:SourceArn":"arn:aws:s3""#, "not an ARN"),
    (r#"Bool":{"aws:SecureTransport":"true""#, r#"BinaryEquals":{"s3:x-amz-meta":"!""#, "base64"),
    (r#"Bool":{"aws:SecureTransport":"true""#, r#"StringLike":{"s3:prefix":"${""#, "without its"),
];

#[test]
fn each_slip_is_named() {
    for (from, to, words) in SLIPS {
        assert!(GOOD.contains(from), "{from}");
        let said = error(&GOOD.replacen(from, to, 1));
        assert!(said.contains(words), "{from} -> {to}: {said}");
    }
}

#[test]
fn shapes_that_are_no_policy() {
    for (json, words) in [
        ("", "JSON"),
        ("{", "JSON"),
        ("null", "not an object"),
        ("[]", "not an object"),
        ("{}", "no Statement"),
        (r#"{"Statement":[]}"#, "empty list"),
        (r#"{"Statement":{}}"#, "no Effect"),
        (r#"{"Statement":[1]}"#, "statement 1: it is a number"),
        (r#"{"Statement":"x"}"#, "statement 1: it is a string"),
    ] {
        let said = error(json);
        assert!(said.contains(words), "{json}: {said}");
    }
    assert!(error(&format!("{GOOD} x")).contains("JSON"));
    let twice = r#"{"Sid":"a","Effect":"Deny","Principal":"*","Action":"*","Resource":"*"}"#;
    assert!(error(&format!(r#"{{"Statement":[{twice},{twice}]}}"#)).contains("statement 2: Sid \"a\" stands twice"));
    let anyone = r#"{"Statement":{"Effect":"Deny","NotPrincipal":"*","Action":"*","Resource":"*"}}"#;
    assert!(error(anyone).contains("leaves nobody"));
    assert!(matches!(Policy::parse(b"\xff", "bucket"), Err(PolicyError::Json(_))));
}

#[test]
fn length_is_bounded() {
    let padded = |length: usize| format!("{GOOD}{}", " ".repeat(length - GOOD.len()));
    policy(&padded(POLICY_MAX));
    assert!(error(&padded(POLICY_MAX + 1)).contains("20481 bytes"));
    assert!(error(&"[".repeat(POLICY_MAX)).contains("JSON"));
}

#[test]
fn resources_with_wildcards_that_reach_the_bucket() {
    for resource in [
        "*",
        "arn:aws:s3:::*",
        "arn:aws:s3:::*/*",
        "arn:aws:s3:::buck*",
        "arn:aws:s3:::b?cket/x",
        "arn:aws:s3:::${aws:username}/x",
    ] {
        policy(&GOOD.replace("arn:aws:s3:::bucket/*", resource));
    }
}

fn json() -> impl Strategy<Value = String> {
    let names = prop::sample::select(vec![
        "Version",
        "Id",
        "Statement",
        "Sid",
        "Effect",
        "Principal",
        "NotPrincipal",
        "Action",
        "NotAction",
        "Resource",
        "NotResource",
        "Condition",
        "AWS",
        "CanonicalUser",
        "StringLike",
        "Null",
        "IpAddress",
        "ArnLike",
        "s3:prefix",
        "aws:SourceIp",
        "DateLessThan",
        "NumericEquals",
    ]);
    let leaf = prop_oneof![
        Just("\"*\"".to_owned()),
        Just("\"Allow\"".to_owned()),
        Just("\"Deny\"".to_owned()),
        Just("\"s3:*\"".to_owned()),
        Just("\"arn:aws:s3:::bucket/*\"".to_owned()),
        Just("\"2012-10-17\"".to_owned()),
        any::<f64>().prop_map(|number| serde_json::to_string(&number).unwrap_or_default()),
        any::<bool>().prop_map(|truth| truth.to_string()),
        ".*".prop_map(|text| serde_json::to_string(&text).unwrap_or_default()),
        "[$*?{}:/a]{0,12}".prop_map(|text| serde_json::to_string(&text).unwrap_or_default()),
    ];
    leaf.prop_recursive(6, 64, 8, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(|list| format!("[{}]", list.join(","))),
            prop::collection::vec((names.clone(), inner), 0..6).prop_map(|members| {
                let members: Vec<String> = members.iter().map(|(name, json)| format!("\"{name}\":{json}")).collect();
                format!("{{{}}}", members.join(","))
            }),
        ]
    })
}

fn never_panics(text: &[u8]) {
    if let Ok(policy) = Policy::parse(text, "bucket") {
        let context = Context::new().with("s3:prefix", "a").with("aws:SourceIp", "10.0.0.1");
        let caller = Caller::user("t", "u");
        std::hint::black_box((verdict(&policy, &caller, "s3:GetObject", "key", &context), policy.is_public()));
    }
    drop(Policy::parse_session(text));
}

proptest! {
    #[test]
    fn hostile_bytes(text in prop::collection::vec(any::<u8>(), 0..300)) {
        never_panics(&text);
    }

    #[test]
    fn hostile_json(text in json()) {
        never_panics(text.as_bytes());
    }

    #[test]
    fn hostile_values(value in json(), action in json(), resource in json(), principal in json(), condition in json()) {
        never_panics(format!(r#"{{"Version":"2012-10-17","Statement":{{"Effect":"Allow","Principal":{principal},"Action":{action},"Resource":{resource},"Condition":{condition}}}}}"#).as_bytes());
        for operator in ["StringLike", "ArnLike", "IpAddress", "DateEquals", "NumericEquals", "BinaryEquals", "Null"] {
            never_panics(format!(r#"{{"Version":"2012-10-17","Statement":{{"Effect":"Allow","Principal":"*","Action":"*","Resource":"*","Condition":{{"{operator}":{{"s3:prefix":{value}}}}}}}}}"#).as_bytes());
        }
    }

    #[test]
    fn hostile_edits(place in 0usize..GOOD.len(), with in ".{0,3}", drop in 0usize..12) {
        let end = (place + drop).min(GOOD.len());
        never_panics(format!("{}{with}{}", &GOOD[..place], &GOOD[end..]).as_bytes());
    }
}
