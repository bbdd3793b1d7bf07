//! Copies: a new name for the same chunks.

use s3s::dto::{
    CopyObjectInput, CopyObjectOutput, CopyObjectResult, CopySource, MetadataDirective, Range, UploadPartCopyInput,
};
use s3s::{S3Error, S3ErrorCode, S3Request, S3Response, S3Result, s3_error};

use super::Door;
use super::access::{caller, check_bucket};
use super::convert::{self, KeptHeaders};
use super::error::store_error;
use super::object::{Conditions, refuse_unoffered, refuse_version};
use crate::model::{BucketName, ByteRange, ObjectKey};
use crate::store::PutRequest;

/// An object to copy from, that the caller may read.
pub(super) struct Source {
    pub(super) bucket: BucketName,
    pub(super) key: ObjectKey,
}

/// The conditions of a part's copy.
pub(super) fn part_conditions(input: &UploadPartCopyInput) -> Conditions<'_> {
    Conditions {
        if_match: input.copy_source_if_match.as_ref(),
        if_none_match: input.copy_source_if_none_match.as_ref(),
        if_modified_since: input.copy_source_if_modified_since.as_ref(),
        if_unmodified_since: input.copy_source_if_unmodified_since.as_ref(),
    }
}

/// A copy whose condition fails answers 412 where a read would answer 304.
pub(super) fn as_precondition(error: S3Error) -> S3Error {
    if matches!(error.code(), S3ErrorCode::NotModified) { s3_error!(PreconditionFailed) } else { error }
}

/// The bytes of `bytes=first-last` in a source of `size` bytes; both ends are needed, and must lie inside.
pub(super) fn part_range(header: Option<&str>, size: u64) -> S3Result<Option<ByteRange>> {
    let Some(header) = header else { return Ok(None) };
    match Range::parse(header) {
        Ok(Range::Int { first, last: Some(last) }) if first <= last && last < size => {
            Ok(Some(ByteRange { start: first, end: last + 1 }))
        }
        Ok(Range::Int { last: Some(_), .. }) => Err(s3_error!(InvalidRange)),
        _ => Err(s3_error!(InvalidArgument, "The copy source range is bytes=first-last.")),
    }
}

impl Door {
    /// The source that a request names, once the caller was found to be allowed to read it.
    pub(super) async fn copy_source<T>(&self, request: &S3Request<T>, source: &CopySource) -> S3Result<Source> {
        let CopySource::Bucket { bucket, key, version_id } = source else {
            return Err(s3_error!(NotImplemented, "A copy source is /BUCKET/KEY."));
        };
        refuse_version(version_id.as_deref())?;
        check_bucket(&self.store, &caller(request)?, bucket).await?;
        Ok(Source { bucket: convert::bucket(bucket)?, key: convert::key(key)? })
    }

    pub(super) async fn copy_object(
        &self,
        request: S3Request<CopyObjectInput>,
    ) -> S3Result<S3Response<CopyObjectOutput>> {
        refuse_unoffered(&request.headers)?;
        let source = self.copy_source(&request, &request.input.copy_source).await?;
        let input = request.input;
        let (bucket, key) = (convert::bucket(&input.bucket)?, convert::key(&input.key)?);
        let replace =
            input.metadata_directive.as_ref().is_some_and(|directive| directive.as_str() == MetadataDirective::REPLACE);
        if !replace && source.bucket == bucket && source.key == key {
            return Err(s3_error!(InvalidRequest, "A copy onto itself must replace the metadata."));
        }
        let info = self.store.head(&source.bucket, &source.key).await.map_err(store_error)?;
        let conditions = Conditions {
            if_match: input.copy_source_if_match.as_ref(),
            if_none_match: input.copy_source_if_none_match.as_ref(),
            if_modified_since: input.copy_source_if_modified_since.as_ref(),
            if_unmodified_since: input.copy_source_if_unmodified_since.as_ref(),
        };
        conditions.check(&info).map_err(as_precondition)?;
        let described = replace.then(|| {
            let kept = KeptHeaders {
                cache_control: input.cache_control.as_deref(),
                content_disposition: input.content_disposition.as_deref(),
                content_encoding: input.content_encoding.as_deref(),
                content_language: input.content_language.as_deref(),
                expires: input.expires.as_deref(),
                metadata: input.metadata.as_ref(),
            };
            PutRequest { content_type: input.content_type.clone(), headers: kept.into_map(), ..PutRequest::default() }
        });
        let precondition = convert::precondition(input.if_match.as_ref(), input.if_none_match.as_ref())?;
        let copied = self.store.copy((&source.bucket, &source.key), (&bucket, &key), described, &precondition).await;
        let copied = copied.map_err(store_error)?;
        Ok(S3Response::new(CopyObjectOutput {
            copy_object_result: Some(CopyObjectResult {
                e_tag: Some(convert::etag(&copied.etag)),
                last_modified: Some(convert::time(copied.modified)),
                ..CopyObjectResult::default()
            }),
            ..CopyObjectOutput::default()
        }))
    }
}
