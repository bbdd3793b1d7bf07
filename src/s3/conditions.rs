//! The conditions on a read, as RFC 9110 orders them.

use hyper::HeaderMap;
use s3s::dto::{ETagCondition, Timestamp};
use s3s::{S3Error, S3ErrorCode, S3Result, s3_error};

use super::convert;
use crate::store::ObjectInfo;

/// What a read wants of the object that it finds.
pub(super) struct Conditions<'a> {
    pub(super) if_match: Option<&'a ETagCondition>,
    pub(super) if_none_match: Option<&'a ETagCondition>,
    pub(super) if_modified_since: Option<&'a Timestamp>,
    pub(super) if_unmodified_since: Option<&'a Timestamp>,
}

/// The conditions of a request that reads an object.
macro_rules! conditions {
    ($input:expr) => {
        $crate::s3::conditions::Conditions {
            if_match: $input.if_match.as_ref(),
            if_none_match: $input.if_none_match.as_ref(),
            if_modified_since: $input.if_modified_since.as_ref(),
            if_unmodified_since: $input.if_unmodified_since.as_ref(),
        }
    };
}
pub(super) use conditions;

impl Conditions<'_> {
    /// Whether the object may be read; a 304 carries what a cache needs.
    pub(super) fn check(&self, info: &ObjectInfo) -> S3Result<()> {
        let same = |condition: &ETagCondition| {
            condition.as_etag().is_none_or(|etag| etag.value().trim_matches('"') == info.etag)
        };
        // HTTP's dates have whole seconds.
        let modified = i64::try_from(info.modified.0 / 1_000).unwrap_or(i64::MAX);
        let seconds = |at: &Timestamp| time::OffsetDateTime::from(at.clone()).unix_timestamp();
        let met = match (self.if_match, self.if_unmodified_since) {
            (Some(condition), _) => same(condition),
            (None, Some(at)) => modified <= seconds(at),
            (None, None) => true,
        };
        if !met {
            return Err(s3_error!(PreconditionFailed, "At least one of the pre-conditions you specified did not hold"));
        }
        let fresh = match (self.if_none_match, self.if_modified_since) {
            (Some(condition), _) => !same(condition),
            (None, Some(at)) => modified > seconds(at),
            (None, None) => true,
        };
        if fresh { Ok(()) } else { Err(not_modified(info)) }
    }
}

fn not_modified(info: &ObjectInfo) -> S3Error {
    let mut error = S3Error::new(S3ErrorCode::NotModified);
    let mut headers = HeaderMap::new();
    if let Ok(etag) = convert::etag(&info.etag).to_http_header() {
        headers.insert("etag", etag);
    }
    error.set_headers(headers);
    error
}
