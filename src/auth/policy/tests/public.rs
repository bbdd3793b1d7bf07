//! A policy is public where everyone is allowed something and nothing fixed narrows it.

use super::*;

fn is_public(principal: &str, condition: &str) -> bool {
    let allow = format!(
        r#"{{"Effect":"Allow","Principal":{principal},"Action":"s3:GetObject","Resource":"*","Condition":{condition}}}"#
    );
    statements(&allow).is_public()
}

#[test]
fn everyone_without_a_condition() {
    assert!(is_public(r#""*""#, "{}"));
    assert!(is_public(r#"{"AWS":"*"}"#, "{}"));
    assert!(is_public(r#"{"AWS":["tenant","*"]}"#, "{}"));
    assert!(!is_public(r#"{"AWS":"tenant"}"#, "{}"));
    assert!(!is_public(r#"{"CanonicalUser":"tenant"}"#, "{}"));
    let deny = r#"{"Effect":"Deny","Principal":"*","Action":"*","Resource":"*"}"#;
    assert!(!statements(deny).is_public());
    let allow = r#"{"Effect":"Allow","Principal":"*","Action":"s3:GetObject","Resource":"*"}"#;
    assert!(statements(&format!("{deny},{allow}")).is_public());
}

#[test]
fn conditions_that_narrow_and_that_do_not() {
    for (condition, public) in [
        (r#"{"IpAddress":{"aws:SourceIp":"192.0.2.0/24"}}"#, false),
        (r#"{"IpAddress":{"aws:SourceIp":"10.0.0.0/8"}}"#, false),
        (r#"{"IpAddress":{"aws:SourceIp":"10.0.0.0/7"}}"#, true),
        (r#"{"IpAddress":{"aws:SourceIp":"0.0.0.0/0"}}"#, true),
        (r#"{"IpAddress":{"aws:SourceIp":["192.0.2.0/24","::/0"]}}"#, true),
        (r#"{"IpAddress":{"aws:SourceIp":"2001:db8::/32"}}"#, false),
        (r#"{"IpAddressIfExists":{"aws:SourceIp":"192.0.2.0/24"}}"#, true),
        (r#"{"NotIpAddress":{"aws:SourceIp":"192.0.2.0/24"}}"#, true),
        (r#"{"ForAllValues:IpAddress":{"aws:SourceIp":"192.0.2.0/24"}}"#, true),
        (r#"{"ForAnyValue:IpAddress":{"aws:SourceIp":"192.0.2.0/24"}}"#, false),
        (r#"{"IpAddress":{"aws:VpcSourceIp":"192.0.2.0/24"}}"#, true),
        (r#"{"StringEquals":{"aws:PrincipalAccount":"tenant"}}"#, false),
        (r#"{"StringEquals":{"aws:PrincipalAccount":["a","b"]}}"#, false),
        (r#"{"StringNotEquals":{"aws:PrincipalAccount":"tenant"}}"#, true),
        (r#"{"StringEqualsIfExists":{"aws:PrincipalAccount":"tenant"}}"#, true),
        (r#"{"ForAllValues:StringEquals":{"aws:PrincipalAccount":"tenant"}}"#, true),
        (r#"{"StringLike":{"aws:PrincipalAccount":"ten*"}}"#, true),
        (r#"{"StringLike":{"aws:PrincipalAccount":"tenant"}}"#, false),
        (r#"{"StringEquals":{"aws:PrincipalAccount":"${aws:PrincipalAccount}"}}"#, true),
        (r#"{"StringEquals":{"aws:PrincipalAccount":["tenant","${s3:prefix}"]}}"#, true),
        (r#"{"ArnEquals":{"aws:PrincipalArn":"arn:aws:iam::tenant:root"}}"#, false),
        (r#"{"ArnLike":{"aws:PrincipalArn":"arn:aws:iam::tenant:user/*"}}"#, true),
        (r#"{"ArnLike":{"aws:PrincipalArn":"*"}}"#, true),
        (r#"{"StringEquals":{"aws:userid":"tenant:ann"}}"#, false),
        (r#"{"StringLike":{"aws:userid":"tenant:*"}}"#, true),
        (r#"{"StringEquals":{"aws:SourceVpce":"vpce-1"}}"#, false),
        (r#"{"StringEquals":{"aws:Referer":"https://example.com/"}}"#, true),
        (r#"{"StringEquals":{"aws:username":"ann"}}"#, true),
        (r#"{"StringEquals":{"s3:x-amz-server-side-encryption-aws-kms-key-id":"k"}}"#, true),
        (r#"{"Bool":{"aws:SecureTransport":"true"}}"#, true),
        (r#"{"Null":{"aws:PrincipalAccount":"false"}}"#, true),
        (r#"{"Bool":{"aws:SecureTransport":"true"},"StringEquals":{"aws:PrincipalAccount":"tenant"}}"#, false),
    ] {
        assert_eq!(is_public(r#""*""#, condition), public, "{condition}");
    }
}
