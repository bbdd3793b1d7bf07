//! Lifecycle rules as S3 documents them: what makes them valid, and what they say of a version at a moment. Pure.

use std::collections::HashSet;
use std::time::Duration;

use s3s::dto::{BucketLifecycleConfiguration, ExpirationStatus, LifecycleRule, LifecycleRuleFilter, Tag};
use s3s::{S3Error, S3ErrorCode, S3Result, s3_error};

use crate::s3::{convert, tags};
use crate::store::{ObjectInfo, UploadInfo};
use crate::sys::clock::Timestamp;

/// Most rules of a bucket (S3).
const RULES_MAX: usize = 1_000;
/// Longest id of a rule in characters (S3).
const ID_MAX: usize = 255;
/// Most days that a rule counts: 100 years.
const DAYS_MAX: i32 = 36_500;
const DAY_MILLIS: u64 = 24 * 3_600 * 1_000;

/// What is to become of a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// The object is deleted, as a user would: in a bucket that keeps versions, by a marker.
    Expire,
    /// The version, or the marker, is removed.
    Remove,
}

/// Where a version stands among those of its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Standing {
    /// When the one after it was written; none for the newest.
    pub(super) superseded: Option<Timestamp>,
    /// How many there are between it and the newest.
    pub(super) newer_noncurrent: u32,
    /// Whether it is the only one.
    pub(super) alone: bool,
}

/// What the rules say of a version at `now`.
pub(super) fn action(rules: &[LifecycleRule], info: &ObjectInfo, standing: Standing, now: Timestamp) -> Option<Action> {
    let meant = rules.iter().filter(|rule| is_enabled(rule) && (info.marker || means(rule, info)));
    let meant: Vec<_> = meant.filter(|rule| info.key.as_str().starts_with(prefix(rule))).collect();
    let removes = meant.iter().any(|rule| match standing.superseded {
        Some(superseded) => removes_noncurrent(rule, superseded, standing.newer_noncurrent, now),
        None => info.marker && standing.alone && removes_marker(rule, info, now),
    });
    if removes {
        return Some(Action::Remove);
    }
    let expires = standing.superseded.is_none() && !info.marker;
    let expires = expires && meant.iter().any(|rule| expiry(rule, info.modified).is_some_and(|at| at <= now));
    expires.then_some(Action::Expire)
}

/// Whether an open upload is to be aborted at `now`.
pub(super) fn aborts(rules: &[LifecycleRule], upload: &UploadInfo, now: Timestamp) -> bool {
    rules.iter().filter(|rule| is_enabled(rule) && upload.key.as_str().starts_with(prefix(rule))).any(|rule| {
        let days = rule.abort_incomplete_multipart_upload.as_ref().and_then(|abort| abort.days_after_initiation);
        days.is_some_and(|days| after_days(upload.created, days) <= now)
    })
}

/// When an object that is written at `modified` expires, and by which rule; the first to do so.
pub(super) fn expiration<'a>(rules: &'a [LifecycleRule], info: &ObjectInfo) -> Option<(Timestamp, &'a str)> {
    let meant = rules
        .iter()
        .filter(|rule| is_enabled(rule) && info.key.as_str().starts_with(prefix(rule)) && means(rule, info));
    let dates = meant.filter_map(|rule| Some((expiry(rule, info.modified)?, rule.id.as_deref().unwrap_or_default())));
    dates.min_by_key(|(at, _)| *at)
}

fn is_enabled(rule: &LifecycleRule) -> bool {
    rule.status.as_str() == ExpirationStatus::ENABLED
}

fn prefix(rule: &LifecycleRule) -> &str {
    let filter = rule.filter.as_ref();
    let of_filter = filter.and_then(|filter| filter.prefix.as_deref());
    let of_and = filter.and_then(|filter| filter.and.as_ref()).and_then(|and| and.prefix.as_deref());
    rule.prefix.as_deref().or(of_filter).or(of_and).unwrap_or_default()
}

/// Whether the rule's tags and sizes are those of the object.
fn means(rule: &LifecycleRule, info: &ObjectInfo) -> bool {
    let Some(filter) = &rule.filter else { return true };
    let and = filter.and.as_ref();
    let wanted = filter.tag.iter().chain(and.and_then(|and| and.tags.as_ref()).into_iter().flatten());
    let there = tags::of(&info.headers);
    let has = |tag: &Tag| there.iter().any(|found| found.key == tag.key && found.value == tag.value);
    let size = i64::try_from(info.size).unwrap_or(i64::MAX);
    let above = [filter.object_size_greater_than, and.and_then(|and| and.object_size_greater_than)];
    let below = [filter.object_size_less_than, and.and_then(|and| and.object_size_less_than)];
    wanted.into_iter().all(has)
        && above.into_iter().flatten().all(|bound| size > bound)
        && below.into_iter().flatten().all(|bound| size < bound)
}

/// The first midnight (UTC) that is so many days later.
fn after_days(at: Timestamp, days: i32) -> Timestamp {
    let days = Duration::from_millis(DAY_MILLIS.saturating_mul(u64::try_from(days).unwrap_or_default()));
    Timestamp(at.plus(days).0.div_ceil(DAY_MILLIS).saturating_mul(DAY_MILLIS))
}

/// When the rule expires what was written at `modified`.
fn expiry(rule: &LifecycleRule, modified: Timestamp) -> Option<Timestamp> {
    let expiration = rule.expiration.as_ref()?;
    match (&expiration.date, expiration.days) {
        (Some(date), _) => Some(convert::timestamp(date)),
        (None, Some(days)) => Some(after_days(modified, days)),
        (None, None) => None,
    }
}

fn removes_marker(rule: &LifecycleRule, info: &ObjectInfo, now: Timestamp) -> bool {
    let asked =
        rule.expiration.as_ref().is_some_and(|expiration| expiration.expired_object_delete_marker == Some(true));
    let has_tags = rule.filter.as_ref().is_some_and(has_tags);
    asked || (!has_tags && expiry(rule, info.modified).is_some_and(|at| at <= now))
}

fn removes_noncurrent(rule: &LifecycleRule, superseded: Timestamp, newer: u32, now: Timestamp) -> bool {
    let Some(noncurrent) = &rule.noncurrent_version_expiration else { return false };
    let kept = u32::try_from(noncurrent.newer_noncurrent_versions.unwrap_or(0)).unwrap_or(0);
    noncurrent.noncurrent_days.is_some_and(|days| newer >= kept && after_days(superseded, days) <= now)
}

fn has_tags(filter: &LifecycleRuleFilter) -> bool {
    let and = filter.and.as_ref().and_then(|and| and.tags.as_ref());
    filter.tag.is_some() || and.is_some_and(|tags| !tags.is_empty())
}

fn malformed(text: &'static str) -> S3Error {
    S3Error::with_message(S3ErrorCode::MalformedXML, text)
}

/// Rules that can be set: each with an id, which is made where it has none.
pub(super) fn check(wanted: &mut BucketLifecycleConfiguration, fresh_id: impl Fn() -> String) -> S3Result<()> {
    if wanted.rules.is_empty() || wanted.rules.len() > RULES_MAX {
        return Err(malformed("There are 1 to 1,000 rules."));
    }
    let mut ids = HashSet::new();
    for rule in &mut wanted.rules {
        let id = rule.id.get_or_insert_with(&fresh_id);
        if id.is_empty() {
            *id = fresh_id();
        }
        if id.chars().count() > ID_MAX {
            return Err(s3_error!(InvalidArgument, "ID length should not exceed allowed limit of 255"));
        }
        if !ids.insert(id.clone()) {
            return Err(s3_error!(InvalidArgument, "Rule ID must be unique. Found same ID for more than one rule"));
        }
        check_rule(rule)?;
    }
    Ok(())
}

fn check_rule(rule: &LifecycleRule) -> S3Result<()> {
    if ![ExpirationStatus::ENABLED, ExpirationStatus::DISABLED].contains(&rule.status.as_str()) {
        return Err(malformed("Status is Enabled or Disabled."));
    }
    if rule.filter.is_some() == rule.prefix.is_some() {
        return Err(malformed("A rule has a Filter, or the older Prefix."));
    }
    if let Some(filter) = &rule.filter {
        check_filter(filter)?;
    }
    let transitions = rule.transitions.as_ref().is_some_and(|list| !list.is_empty())
        || rule.noncurrent_version_transitions.as_ref().is_some_and(|list| !list.is_empty());
    if transitions {
        return Err(s3_error!(NotImplemented, "Transitions are not offered: all classes are stored alike."));
    }
    let positive = |days: Option<i32>| days.is_none_or(|days| (1..=DAYS_MAX).contains(&days));
    if let Some(expiration) = &rule.expiration {
        let given =
            [expiration.days.is_some(), expiration.date.is_some(), expiration.expired_object_delete_marker.is_some()];
        if given.into_iter().filter(|given| *given).count() != 1 {
            return Err(malformed("An Expiration has Days, a Date or ExpiredObjectDeleteMarker."));
        }
        if !positive(expiration.days) {
            return Err(s3_error!(InvalidArgument, "'Days' for Expiration action must be a positive integer"));
        }
        if expiration.date.as_ref().is_some_and(|date| !convert::timestamp(date).0.is_multiple_of(DAY_MILLIS)) {
            return Err(s3_error!(InvalidArgument, "'Date' must be at midnight GMT"));
        }
        if expiration.expired_object_delete_marker == Some(true) && rule.filter.as_ref().is_some_and(has_tags) {
            return Err(s3_error!(InvalidRequest, "ExpiredObjectDeleteMarker cannot be specified with Tags."));
        }
    }
    if let Some(noncurrent) = &rule.noncurrent_version_expiration {
        if noncurrent.noncurrent_days.is_none() || !positive(noncurrent.noncurrent_days) {
            return Err(s3_error!(
                InvalidArgument,
                "'NoncurrentDays' for NoncurrentVersionExpiration action must be a positive integer"
            ));
        }
        if noncurrent.newer_noncurrent_versions.is_some_and(|count| !(1..=100).contains(&count)) {
            return Err(s3_error!(InvalidArgument, "'NewerNoncurrentVersions' must be between 1 and 100"));
        }
    }
    if let Some(abort) = &rule.abort_incomplete_multipart_upload {
        if !positive(abort.days_after_initiation) || abort.days_after_initiation.is_none() {
            return Err(s3_error!(
                InvalidArgument,
                "'DaysAfterInitiation' for AbortIncompleteMultipartUpload action must be a positive integer"
            ));
        }
        if rule.filter.as_ref().is_some_and(has_tags) {
            return Err(s3_error!(InvalidRequest, "AbortIncompleteMultipartUpload cannot be specified with Tags."));
        }
    }
    let acts = rule.expiration.is_some()
        || rule.noncurrent_version_expiration.is_some()
        || rule.abort_incomplete_multipart_upload.is_some();
    if acts { Ok(()) } else { Err(s3_error!(InvalidRequest, "At least one action needs to be specified in a rule")) }
}

fn check_filter(filter: &LifecycleRuleFilter) -> S3Result<()> {
    let given = [
        filter.and.is_some(),
        filter.object_size_greater_than.is_some(),
        filter.object_size_less_than.is_some(),
        filter.prefix.is_some(),
        filter.tag.is_some(),
    ];
    if given.into_iter().filter(|given| *given).count() > 1 {
        return Err(malformed("A Filter has one condition; join several in And."));
    }
    let mut tags: Vec<Tag> = filter.tag.iter().cloned().collect();
    if let Some(and) = &filter.and {
        tags.extend(and.tags.iter().flatten().cloned());
        let bounds = and.object_size_greater_than.zip(and.object_size_less_than);
        if bounds.is_some_and(|(above, below)| above >= below) {
            return Err(s3_error!(InvalidRequest, "ObjectSizeGreaterThan is less than ObjectSizeLessThan."));
        }
    }
    tags::check(&tags, RULES_MAX).map(drop)
}
