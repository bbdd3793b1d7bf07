//! Rules do what the S3 documents say, at the moment that they say, and to nothing else; rules that cannot be are refused.

use std::collections::BTreeMap;

use s3s::dto::{
    AbortIncompleteMultipartUpload, BucketLifecycleConfiguration, ExpirationStatus, LifecycleExpiration, LifecycleRule,
    LifecycleRuleAndOperator, LifecycleRuleFilter, NoncurrentVersionExpiration, Tag,
};

use super::rules::{Action, Standing, aborts, action, check, expiration};
use super::sweep::Walk;
use crate::format::row::PartList;
use crate::model::{UploadId, Version};
use crate::store::{ObjectInfo, UploadInfo, VersionInfo};
use crate::sys::clock::Timestamp;

const DAY: u64 = 86_400_000;
const NEWEST: Standing = Standing { superseded: None, newer_noncurrent: 0, alone: true };

fn at(days: u64, millis: u64) -> Timestamp {
    Timestamp(20_000 * DAY + days * DAY + millis)
}

fn info(key: &str, modified: Timestamp) -> ObjectInfo {
    ObjectInfo {
        key: key.parse().unwrap(),
        size: 100,
        etag: "e".into(),
        modified,
        content_type: None,
        headers: BTreeMap::from([("x-amz-tagging".to_owned(), "kind=log".to_owned())]),
        root_digest: None,
        parts: None,
        version: Version::default(),
        marker: false,
        part_list: PartList::default(),
        home: None,
    }
}

fn rule(filter: LifecycleRuleFilter) -> LifecycleRule {
    LifecycleRule {
        abort_incomplete_multipart_upload: None,
        expiration: None,
        filter: Some(filter),
        id: Some("r".into()),
        noncurrent_version_expiration: None,
        noncurrent_version_transitions: None,
        prefix: None,
        status: ExpirationStatus::from_static(ExpirationStatus::ENABLED),
        transitions: None,
    }
}

fn under(prefix: &str) -> LifecycleRuleFilter {
    LifecycleRuleFilter { prefix: Some(prefix.into()), ..LifecycleRuleFilter::default() }
}

fn expires_after(days: i32, filter: LifecycleRuleFilter) -> LifecycleRule {
    let expiration = LifecycleExpiration { days: Some(days), ..LifecycleExpiration::default() };
    LifecycleRule { expiration: Some(expiration), ..rule(filter) }
}

#[test]
fn objects_expire_at_the_midnight_after_their_days() {
    let rules = [expires_after(2, under("log/"))];
    let object = info("log/a", at(0, 1));
    assert_eq!(action(&rules, &object, NEWEST, at(3, 0)), Some(Action::Expire));
    assert_eq!(action(&rules, &object, NEWEST, Timestamp(at(3, 0).0 - 1)), None);
    assert_eq!(action(&rules, &info("data/a", at(0, 1)), NEWEST, at(9, 0)), None);
    assert_eq!(expiration(&rules, &object), Some((at(3, 0), "r")));
    let mut off = rules[0].clone();
    off.status = ExpirationStatus::from_static(ExpirationStatus::DISABLED);
    assert_eq!(action(&[off], &object, NEWEST, at(9, 0)), None);
}

#[test]
fn filters_mean_what_they_say() {
    let tag = |value: &str| Tag { key: Some("kind".into()), value: Some(value.into()) };
    let and = |value: &str, above| LifecycleRuleFilter {
        and: Some(LifecycleRuleAndOperator {
            tags: Some(vec![tag(value)]),
            object_size_greater_than: Some(above),
            ..LifecycleRuleAndOperator::default()
        }),
        ..LifecycleRuleFilter::default()
    };
    let object = info("a", at(0, 0));
    for (filter, meant) in [(and("log", 99), true), (and("log", 100), false), (and("data", 1), false)] {
        let expired = action(&[expires_after(1, filter)], &object, NEWEST, at(9, 0)).is_some();
        assert_eq!(expired, meant);
    }
}

#[test]
fn older_versions_go_once_they_are_superseded_long_enough_and_enough_newer_ones_are_kept() {
    let noncurrent = NoncurrentVersionExpiration { newer_noncurrent_versions: Some(2), noncurrent_days: Some(1) };
    let rules = [LifecycleRule { noncurrent_version_expiration: Some(noncurrent), ..rule(under("")) }];
    let standing = |newer| Standing { superseded: Some(at(5, 0)), newer_noncurrent: newer, alone: false };
    let old = info("a", at(0, 0));
    assert_eq!(action(&rules, &old, standing(2), at(6, 0)), Some(Action::Remove));
    assert_eq!(action(&rules, &old, standing(1), at(6, 0)), None);
    assert_eq!(action(&rules, &old, standing(2), at(5, 9)), None);
    assert_eq!(action(&rules, &old, NEWEST, at(99, 0)), None);
}

#[test]
fn markers_go_when_nothing_is_left_behind_them() {
    let expiration = LifecycleExpiration { expired_object_delete_marker: Some(true), ..LifecycleExpiration::default() };
    let rules = [LifecycleRule { expiration: Some(expiration), ..rule(under("")) }];
    let marker = ObjectInfo { marker: true, ..info("a", at(0, 0)) };
    assert_eq!(action(&rules, &marker, NEWEST, at(0, 1)), Some(Action::Remove));
    assert_eq!(action(&rules, &marker, Standing { alone: false, ..NEWEST }, at(0, 1)), None);
    assert_eq!(action(&rules, &info("a", at(0, 0)), NEWEST, at(99, 0)), None);
}

#[test]
fn forgotten_uploads_are_aborted() {
    let abort = AbortIncompleteMultipartUpload { days_after_initiation: Some(3) };
    let rules = [LifecycleRule { abort_incomplete_multipart_upload: Some(abort), ..rule(under("big/")) }];
    let upload = |key: &str| UploadInfo {
        key: key.parse().unwrap(),
        id: UploadId([1; 16]),
        created: at(0, 0),
        headers: BTreeMap::new(),
    };
    assert!(aborts(&rules, &upload("big/a"), at(3, 0)) && !aborts(&rules, &upload("big/a"), at(2, 0)));
    assert!(!aborts(&rules, &upload("small/a"), at(9, 0)));
}

#[test]
fn a_walk_knows_where_versions_stand_across_pages() {
    let version = |key: &str, day, latest| VersionInfo { info: info(key, at(day, 0)), latest };
    let mut walk = Walk::default();
    walk.add(vec![version("a", 3, true), version("a", 2, false)]);
    let (first, standing) = walk.next(false).unwrap();
    assert!(first.latest && standing == Standing { alone: false, ..NEWEST });
    assert!(walk.next(false).is_none());
    walk.add(vec![version("a", 1, false), version("b", 9, true)]);
    let standings: Vec<_> = std::iter::from_fn(|| walk.next(true)).map(|(_, standing)| standing).collect();
    let superseded = |day, newer| Standing { superseded: Some(at(day, 0)), newer_noncurrent: newer, alone: false };
    assert_eq!(standings, [superseded(3, 0), superseded(2, 1), NEWEST]);
}

#[test]
fn rules_that_cannot_be_are_refused() {
    let good = expires_after(1, under("a"));
    let with = |change: &dyn Fn(&mut LifecycleRule)| {
        let mut rule = good.clone();
        change(&mut rule);
        vec![rule]
    };
    let wrong = [
        vec![],
        vec![good.clone(), good.clone()],
        with(&|rule| rule.status = "enabled".to_owned().into()),
        with(&|rule| rule.expiration = None),
        with(&|rule| rule.filter = None),
        with(&|rule| rule.prefix = Some("b".into())),
        with(&|rule| rule.id = Some("i".repeat(256))),
        with(&|rule| rule.expiration = Some(LifecycleExpiration { days: Some(0), ..LifecycleExpiration::default() })),
    ];
    for rules in wrong {
        let mut wanted = BucketLifecycleConfiguration { rules };
        assert!(check(&mut wanted, || "fresh".to_owned()).is_err(), "{:?}", wanted.rules);
    }
    let mut wanted = BucketLifecycleConfiguration { rules: with(&|rule| rule.id = None) };
    check(&mut wanted, || "fresh".to_owned()).unwrap();
    assert_eq!(wanted.rules[0].id.as_deref(), Some("fresh"));
}
