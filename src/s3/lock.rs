//! Object lock: a bucket's default, and the retention and legal hold of each version.

use std::collections::BTreeMap;
use std::time::Duration;

use s3s::dto::{
    DefaultRetention, GetObjectLegalHoldInput, GetObjectLegalHoldOutput, GetObjectLockConfigurationInput,
    GetObjectLockConfigurationOutput, GetObjectRetentionInput, GetObjectRetentionOutput, ObjectLockConfiguration,
    ObjectLockEnabled, ObjectLockLegalHold, ObjectLockLegalHoldStatus, ObjectLockMode, ObjectLockRetention,
    ObjectLockRetentionMode, PutObjectLegalHoldInput, PutObjectLegalHoldOutput, PutObjectLockConfigurationInput,
    PutObjectLockConfigurationOutput, PutObjectRetentionInput, PutObjectRetentionOutput, Timestamp as S3Time,
};
use s3s::{S3Error, S3ErrorCode, S3Request, S3Response, S3Result, s3_error};

use super::Door;
use super::access::bucket_of;
use super::convert;
use super::error::store_error;
use super::settings::{self, Setting};
use crate::store::{BucketInfo, LEGAL_HOLD, LOCK_MODE, LOCK_UNTIL, Store, StoreError};
use crate::sys::clock::{self, Timestamp};

const DAY: Duration = Duration::from_secs(24 * 3_600);
/// Longest default retention (S3): 100 years.
const DAYS_MAX: i32 = 36_500;

/// What a write wants its version locked with.
pub(super) struct LockWish<'a> {
    pub(super) mode: Option<&'a str>,
    pub(super) until: Option<Timestamp>,
    pub(super) hold: Option<&'a str>,
}

/// What a request wants its version locked with.
macro_rules! lock_wish {
    ($input:expr) => {
        $crate::s3::lock::LockWish {
            mode: $input.object_lock_mode.as_ref().map(|mode| mode.as_str()),
            until: $input.object_lock_retain_until_date.as_ref().map($crate::s3::convert::timestamp),
            hold: $input.object_lock_legal_hold_status.as_ref().map(|hold| hold.as_str()),
        }
    };
}
pub(super) use lock_wish;

/// What a new version in this bucket keeps of locks: as it asks, or as the bucket's default says.
pub(super) async fn for_write(
    store: &Store,
    place: &BucketInfo,
    wish: LockWish<'_>,
) -> S3Result<BTreeMap<String, String>> {
    let mut kept = BTreeMap::new();
    let asks = wish.mode.is_some() || wish.until.is_some() || wish.hold.is_some();
    if !place.object_lock {
        return if asks { Err(no_lock_here()) } else { Ok(kept) };
    }
    if let Some(hold) = wish.hold {
        check_hold(hold, S3ErrorCode::InvalidArgument)?;
        kept.insert(LEGAL_HOLD.to_owned(), hold.to_owned());
    }
    let now = clock::now();
    match (wish.mode, wish.until) {
        (Some(mode), Some(until)) => {
            check_mode(mode, S3ErrorCode::InvalidArgument)?;
            if until <= now {
                return Err(s3_error!(InvalidArgument, "The retain until date must be in the future!"));
            }
            kept.extend(retained(mode, until));
        }
        (None, None) => {
            let found = settings::read::<ObjectLockConfiguration>(store, &place.name, Setting::ObjectLock).await?;
            if let Some(default) = found.and_then(|found| found.rule).and_then(|rule| rule.default_retention)
                && let Some(mode) = &default.mode
            {
                kept.extend(retained(mode.as_str(), now.plus(DAY.saturating_mul(days(&default)))));
            }
        }
        _ => {
            return Err(s3_error!(
                InvalidArgument,
                "x-amz-object-lock-retain-until-date and x-amz-object-lock-mode must both be supplied"
            ));
        }
    }
    Ok(kept)
}

/// Whether a header is one of a lock's.
pub(super) fn is_lock(name: &str) -> bool {
    [LEGAL_HOLD, LOCK_MODE, LOCK_UNTIL].contains(&name)
}

fn days(default: &DefaultRetention) -> u32 {
    let days = default.days.unwrap_or_else(|| default.years.unwrap_or(0).saturating_mul(365));
    u32::try_from(days).unwrap_or_default()
}

fn retained(mode: &str, until: Timestamp) -> [(String, String); 2] {
    [(LOCK_MODE.to_owned(), mode.to_owned()), (LOCK_UNTIL.to_owned(), until.to_string())]
}

fn no_lock_here() -> S3Error {
    s3_error!(InvalidRequest, "Bucket is missing Object Lock Configuration")
}

/// The bucket of a request about the lock of a version.
fn lockable<T>(request: &S3Request<T>) -> S3Result<BucketInfo> {
    let place = bucket_of(request)?;
    if place.object_lock { Ok(place) } else { Err(no_lock_here()) }
}

fn nothing_set() -> S3Error {
    s3_error!(NoSuchObjectLockConfiguration, "The specified object does not have a ObjectLock configuration")
}

fn check_mode(mode: &str, code: S3ErrorCode) -> S3Result<()> {
    let known = [ObjectLockMode::GOVERNANCE, ObjectLockMode::COMPLIANCE].contains(&mode);
    if known { Ok(()) } else { Err(S3Error::with_message(code, "The mode is GOVERNANCE or COMPLIANCE.")) }
}

fn check_hold(hold: &str, code: S3ErrorCode) -> S3Result<()> {
    let known = [ObjectLockLegalHoldStatus::ON, ObjectLockLegalHoldStatus::OFF].contains(&hold);
    if known { Ok(()) } else { Err(S3Error::with_message(code, "A legal hold is ON or OFF.")) }
}

/// The lock of a version, as answers carry it.
pub(super) struct Lock {
    pub(super) mode: Option<ObjectLockMode>,
    pub(super) until: Option<S3Time>,
    pub(super) hold: Option<ObjectLockLegalHoldStatus>,
}

/// The lock among what a version keeps.
pub(super) fn of(headers: &BTreeMap<String, String>) -> Lock {
    let until = headers.get(LOCK_UNTIL).and_then(|until| until.parse::<Timestamp>().ok());
    Lock {
        mode: headers.get(LOCK_MODE).cloned().map(ObjectLockMode::from),
        until: until.map(convert::time),
        hold: headers.get(LEGAL_HOLD).cloned().map(ObjectLockLegalHoldStatus::from),
    }
}

/// Whether a retention may become another: compliance only grows; governance does as well, unless it is bypassed.
fn may_change(headers: &BTreeMap<String, String>, mode: Option<&str>, until: Option<Timestamp>, bypass: bool) -> bool {
    let Some((there, there_mode)) = headers.get(LOCK_UNTIL).zip(headers.get(LOCK_MODE)) else { return true };
    // A retention that cannot be read holds.
    let Ok(there) = there.parse::<Timestamp>() else { return false };
    if there <= clock::now() || (bypass && there_mode == ObjectLockMode::GOVERNANCE) {
        return true;
    }
    mode == Some(there_mode.as_str()) && until.is_some_and(|until| until >= there)
}

impl Door {
    pub(super) async fn put_object_lock_configuration(
        &self,
        request: S3Request<PutObjectLockConfigurationInput>,
    ) -> S3Result<S3Response<PutObjectLockConfigurationOutput>> {
        let place = bucket_of(&request)?;
        let malformed = |text| S3Error::with_message(S3ErrorCode::MalformedXML, text);
        let wanted = request.input.object_lock_configuration.ok_or_else(|| malformed("Send a configuration."))?;
        if wanted.object_lock_enabled.as_ref().map(ObjectLockEnabled::as_str) != Some(ObjectLockEnabled::ENABLED) {
            return Err(malformed("ObjectLockEnabled is Enabled."));
        }
        if let Some(rule) = &wanted.rule {
            let default =
                rule.default_retention.as_ref().ok_or_else(|| malformed("A rule has a default retention."))?;
            let mode = default.mode.as_ref().ok_or_else(|| malformed("A default retention has a mode."))?;
            check_mode(mode.as_str(), S3ErrorCode::MalformedXML)?;
            if default.days.is_some() == default.years.is_some() {
                return Err(malformed("A default retention has days or years."));
            }
            let length = default.days.or(default.years).unwrap_or_default();
            if !(1..=DAYS_MAX).contains(&length) || days(default) > DAYS_MAX.unsigned_abs() {
                let code = S3ErrorCode::Custom("InvalidRetentionPeriod".into());
                let mut error = S3Error::with_message(code, "The retention period has 1 to 36,500 days.");
                error.set_status_code(hyper::StatusCode::BAD_REQUEST);
                return Err(error);
            }
        }
        if !place.object_lock {
            self.store.allow_object_lock(&place.name).await.map_err(store_error)?;
        }
        settings::write(&self.store, &place.name, Setting::ObjectLock, Some(&wanted)).await?;
        Ok(S3Response::new(PutObjectLockConfigurationOutput::default()))
    }

    pub(super) async fn get_object_lock_configuration(
        &self,
        request: S3Request<GetObjectLockConfigurationInput>,
    ) -> S3Result<S3Response<GetObjectLockConfigurationOutput>> {
        let place = bucket_of(&request)?;
        if !place.object_lock {
            return Err(s3_error!(ObjectLockConfigurationNotFoundError));
        }
        let found = settings::read::<ObjectLockConfiguration>(&self.store, &place.name, Setting::ObjectLock).await?;
        let enabled = ObjectLockConfiguration {
            object_lock_enabled: Some(ObjectLockEnabled::from_static(ObjectLockEnabled::ENABLED)),
            rule: None,
        };
        let object_lock_configuration = Some(found.unwrap_or(enabled));
        Ok(S3Response::new(GetObjectLockConfigurationOutput { object_lock_configuration }))
    }

    pub(super) async fn put_object_retention(
        &self,
        request: S3Request<PutObjectRetentionInput>,
    ) -> S3Result<S3Response<PutObjectRetentionOutput>> {
        let place = lockable(&request)?;
        let input = request.input;
        let wanted = input.retention.unwrap_or_default();
        let mode = wanted.mode.as_ref().map(ObjectLockRetentionMode::as_str);
        let until = wanted.retain_until_date.as_ref().map(convert::timestamp);
        if mode.is_some() != until.is_some() {
            return Err(s3_error!(MalformedXML, "A retention has a mode and a date, or neither."));
        }
        if let Some(mode) = mode {
            check_mode(mode, S3ErrorCode::MalformedXML)?;
        }
        if until.is_some_and(|until| until <= clock::now()) {
            return Err(s3_error!(InvalidArgument, "The retain until date must be in the future!"));
        }
        let bypass = input.bypass_governance_retention == Some(true);
        let change = |headers: &mut BTreeMap<String, String>| {
            if !may_change(headers, mode, until, bypass) {
                return Err(StoreError::Locked);
            }
            headers.remove(LOCK_MODE);
            headers.remove(LOCK_UNTIL);
            headers.extend(mode.zip(until).into_iter().flat_map(|(mode, until)| retained(mode, until)));
            Ok(())
        };
        let (key, version) = convert::key_and_version(&input.key, input.version_id.as_deref())?;
        self.store.amend(&place.name, &key, version, change).await.map_err(store_error)?;
        Ok(S3Response::new(PutObjectRetentionOutput::default()))
    }

    pub(super) async fn get_object_retention(
        &self,
        request: S3Request<GetObjectRetentionInput>,
    ) -> S3Result<S3Response<GetObjectRetentionOutput>> {
        let place = lockable(&request)?;
        let input = request.input;
        let (key, version) = convert::key_and_version(&input.key, input.version_id.as_deref())?;
        let info = self.store.head_version(&place.name, &key, version).await.map_err(store_error)?;
        let lock = of(&info.headers);
        let mode = lock.mode.ok_or_else(nothing_set)?;
        let retention = ObjectLockRetention {
            mode: Some(ObjectLockRetentionMode::from(mode.as_str().to_owned())),
            retain_until_date: lock.until,
        };
        Ok(S3Response::new(GetObjectRetentionOutput { retention: Some(retention) }))
    }

    pub(super) async fn put_object_legal_hold(
        &self,
        request: S3Request<PutObjectLegalHoldInput>,
    ) -> S3Result<S3Response<PutObjectLegalHoldOutput>> {
        let place = lockable(&request)?;
        let input = request.input;
        let status = input.legal_hold.and_then(|hold| hold.status);
        let status = status.ok_or_else(|| s3_error!(MalformedXML, "A legal hold has a status."))?;
        check_hold(status.as_str(), S3ErrorCode::MalformedXML)?;
        let change = |headers: &mut BTreeMap<String, String>| {
            headers.insert(LEGAL_HOLD.to_owned(), status.as_str().to_owned());
            Ok(())
        };
        let (key, version) = convert::key_and_version(&input.key, input.version_id.as_deref())?;
        self.store.amend(&place.name, &key, version, change).await.map_err(store_error)?;
        Ok(S3Response::new(PutObjectLegalHoldOutput::default()))
    }

    pub(super) async fn get_object_legal_hold(
        &self,
        request: S3Request<GetObjectLegalHoldInput>,
    ) -> S3Result<S3Response<GetObjectLegalHoldOutput>> {
        let place = lockable(&request)?;
        let input = request.input;
        let (key, version) = convert::key_and_version(&input.key, input.version_id.as_deref())?;
        let info = self.store.head_version(&place.name, &key, version).await.map_err(store_error)?;
        let status = Some(of(&info.headers).hold.ok_or_else(nothing_set)?);
        Ok(S3Response::new(GetObjectLegalHoldOutput { legal_hold: Some(ObjectLockLegalHold { status }) }))
    }
}

#[cfg(test)]
mod tests {
    //! Compliance is never shortened, governance only by who may bypass it.
    use super::*;

    #[test]
    fn retentions_only_grow() {
        let at = |day: u64| Timestamp(4_000_000_000_000 + day * 86_400_000);
        let headers = |mode: &str| BTreeMap::from(retained(mode, at(10)));
        for (mode, bypassed) in [("GOVERNANCE", true), ("COMPLIANCE", false)] {
            assert!(may_change(&headers(mode), Some(mode), Some(at(11)), false));
            assert!(!may_change(&headers(mode), Some(mode), Some(at(9)), false));
            assert!(!may_change(&headers(mode), None, None, false));
            assert_eq!(may_change(&headers(mode), Some(mode), Some(at(9)), true), bypassed);
            assert_eq!(may_change(&headers(mode), None, None, true), bypassed);
        }
        assert!(!may_change(&headers("GOVERNANCE"), Some("COMPLIANCE"), Some(at(11)), false));
        assert!(may_change(&BTreeMap::new(), Some("COMPLIANCE"), Some(at(1)), false));
    }
}
