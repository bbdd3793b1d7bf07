//! Errors, translated: one table from the store's errors to S3's codes.

use std::error::Error;

use hyper::HeaderMap;
use hyper::header::HeaderValue;
use s3s::stream::aws_chunked_stream::AwsChunkedStreamError;
use s3s::stream::upload_stream::UploadStreamError;
use s3s::{BodySizeLimitExceeded, S3Error, S3ErrorCode};

use super::body::ChecksumMismatch;
use super::convert;
use crate::model::VersionId;
use crate::store::StoreError;
use crate::sys::clock::Timestamp;

/// The store's error as S3 says it. What is our fault is logged here, once, with its causes.
pub(super) fn store_error(error: StoreError) -> S3Error {
    let code = match &error {
        StoreError::NoSuchBucket { .. } => S3ErrorCode::NoSuchBucket,
        StoreError::BucketExists { .. } => S3ErrorCode::BucketAlreadyExists,
        StoreError::BucketNotEmpty { .. } => S3ErrorCode::BucketNotEmpty,
        StoreError::HasSnapshots(_) | StoreError::SnapshotInUse { .. } => {
            return S3Error::with_message(S3ErrorCode::BucketNotEmpty, error.to_string());
        }
        StoreError::NoSuchSnapshot(_) => return S3Error::with_message(S3ErrorCode::NoSuchBucket, error.to_string()),
        StoreError::IsSnapshot(_) => return S3Error::with_message(S3ErrorCode::AccessDenied, error.to_string()),
        StoreError::NoSuchKey { .. } => S3ErrorCode::NoSuchKey,
        StoreError::NoSuchVersion { .. } => S3ErrorCode::NoSuchVersion,
        StoreError::DeleteMarker { version, modified, named } => return delete_marker(*version, *modified, *named),
        StoreError::Locked => {
            let text = "Access Denied because object protected by object lock.";
            return S3Error::with_message(S3ErrorCode::AccessDenied, text);
        }
        StoreError::BucketState(text) => return S3Error::with_message(S3ErrorCode::InvalidBucketState, *text),
        StoreError::WrongOffset { .. } => {
            let code = S3ErrorCode::Custom("InvalidWriteOffset".into());
            let mut answer = S3Error::with_message(code, error.to_string());
            answer.set_status_code(hyper::StatusCode::BAD_REQUEST);
            return answer;
        }
        StoreError::Unfit(text) => return S3Error::with_message(S3ErrorCode::InvalidRequest, *text),
        StoreError::NoSuchUpload { .. } => S3ErrorCode::NoSuchUpload,
        StoreError::InvalidPart { .. } => S3ErrorCode::InvalidPart,
        StoreError::InvalidPartOrder => S3ErrorCode::InvalidPartOrder,
        StoreError::EntityTooSmall { .. } => S3ErrorCode::EntityTooSmall,
        StoreError::PreconditionFailed => S3ErrorCode::PreconditionFailed,
        StoreError::BadDigest => S3ErrorCode::BadDigest,
        StoreError::IncompleteBody { .. } => S3ErrorCode::IncompleteBody,
        StoreError::InvalidRange { .. } => S3ErrorCode::InvalidRange,
        StoreError::Busy => S3ErrorCode::SlowDown,
        StoreError::Closed => S3ErrorCode::ServiceUnavailable,
        StoreError::DiskFull => return disk_full(&error),
        StoreError::Body(source) => return body_error(source.as_ref()),
        StoreError::Corrupt { .. } => return internal_as(&error, true),
        _ => return internal(error),
    };
    S3Error::new(code)
}

/// The object was deleted: not found, or, where the marker itself was asked for, nothing that can be read.
fn delete_marker(version: VersionId, modified: Timestamp, named: bool) -> S3Error {
    let mut error = S3Error::new(if named { S3ErrorCode::MethodNotAllowed } else { S3ErrorCode::NoSuchKey });
    let mut headers = HeaderMap::new();
    headers.insert("x-amz-delete-marker", HeaderValue::from_static("true"));
    headers.insert("content-type", HeaderValue::from_static("application/xml"));
    if let Ok(version) = version.to_string().parse() {
        headers.insert("x-amz-version-id", version);
    }
    if named {
        headers.insert("allow", HeaderValue::from_static("DELETE"));
        if let Ok(modified) = convert::httpdate(modified).parse() {
            headers.insert("last-modified", modified);
        }
    }
    error.set_headers(headers);
    error
}

/// No code of S3's says it; 507 does, and clients do not hammer on.
fn disk_full(error: &StoreError) -> S3Error {
    tracing::error!(%error, "no space is left in the store");
    let mut answer = S3Error::with_message(S3ErrorCode::Custom("InsufficientStorage".into()), error.to_string());
    answer.set_status_code(hyper::StatusCode::INSUFFICIENT_STORAGE);
    answer
}

/// A failure of ours: logged, and told without its inside.
pub(super) fn internal(error: impl Error + 'static) -> S3Error {
    internal_as(&error, false)
}

/// A failure of ours; `tell` lets the client read the outermost message.
fn internal_as(error: &(dyn Error + 'static), tell: bool) -> S3Error {
    tracing::error!(error = chain(error), "an S3 request failed");
    if tell {
        S3Error::with_message(S3ErrorCode::InternalError, error.to_string())
    } else {
        S3Error::new(S3ErrorCode::InternalError)
    }
}

/// Why a request's body could not be taken, by the first cause that says.
fn body_error(error: &(dyn Error + 'static)) -> S3Error {
    let mut cause = Some(error);
    while let Some(current) = cause {
        if let Some(mismatch) = current.downcast_ref::<ChecksumMismatch>() {
            return S3Error::with_message(S3ErrorCode::BadDigest, mismatch.to_string());
        }
        if current.is::<BodySizeLimitExceeded>() {
            return S3Error::new(S3ErrorCode::EntityTooLarge);
        }
        if matches!(current.downcast_ref(), Some(UploadStreamError::Sha256Mismatch)) {
            return sha256_mismatch();
        }
        let code = current
            .downcast_ref::<UploadStreamError>()
            .map(UploadStreamError::to_s3_error_code)
            .or_else(|| current.downcast_ref::<AwsChunkedStreamError>().map(AwsChunkedStreamError::to_s3_error_code));
        match code {
            None | Some(S3ErrorCode::InternalError) => cause = current.source(),
            Some(code) => return S3Error::new(code),
        }
    }
    // The connection broke in the middle of the body.
    S3Error::new(S3ErrorCode::IncompleteBody)
}

/// The body is not the one that was signed.
fn sha256_mismatch() -> S3Error {
    let text = "The provided 'x-amz-content-sha256' header does not match what was computed.";
    let mut error = S3Error::with_message(S3ErrorCode::Custom("XAmzContentSHA256Mismatch".into()), text);
    error.set_status_code(hyper::StatusCode::BAD_REQUEST);
    error
}

fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(current) = cause {
        text.push_str(": ");
        text.push_str(&current.to_string());
        cause = current.source();
    }
    text
}
