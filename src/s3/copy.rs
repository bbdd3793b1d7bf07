//! Copies: a new name for the same chunks.

use std::collections::BTreeMap;

use futures_util::StreamExt as _;
use s3s::dto::{
    ChecksumType, CopyObjectInput, CopyObjectOutput, CopyObjectResult, CopySource, MetadataDirective, Range,
    TaggingDirective, UploadPartCopyInput,
};
use s3s::{S3Error, S3ErrorCode, S3Request, S3Response, S3Result, s3_error};

use super::access::{Access, bucket_of, check_source};
use super::checksum::{self, Algorithm, set_checksums};
use super::conditions::Conditions;
use super::convert::{self, REDIRECT, STORAGE_CLASS, TAGGING, kept_headers};
use super::error::store_error;
use super::lock::{self, lock_wish};
use super::offered::refuse_unoffered;
use super::{Door, body, tags};
use crate::model::{BucketName, ByteRange, ObjectKey, VersionId};
use crate::store::{LEGAL_HOLD, LOCK_MODE, LOCK_UNTIL, ObjectInfo, PutRequest, StoreError};

/// An object to copy from, that the caller may read.
pub(super) struct Source {
    pub(super) bucket: BucketName,
    pub(super) key: ObjectKey,
    pub(super) version: Option<VersionId>,
    pub(super) access: Access,
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
    pub(super) async fn copy_source<T>(request: &S3Request<T>, source: &CopySource) -> S3Result<Source> {
        // Some clients write a blank as a plus, as S3 reads it; a plus itself is always escaped.
        let header = request.headers.get("x-amz-copy-source").and_then(|header| header.to_str().ok());
        let plain = header.filter(|header| header.contains('+'));
        let read = plain.and_then(|header| CopySource::parse(&header.replace('+', "%20")).ok());
        let CopySource::Bucket { bucket, key, version_id } = read.as_ref().unwrap_or(source) else {
            return Err(s3_error!(NotImplemented, "A copy source is /BUCKET/KEY."));
        };
        let version = convert::version(version_id.as_deref())?;
        let access = check_source(request, bucket, key, version_id.as_deref()).await?;
        Ok(Source { bucket: convert::bucket(bucket)?, key: convert::key(key)?, version, access })
    }

    pub(super) async fn copy_object(
        &self,
        request: S3Request<CopyObjectInput>,
    ) -> S3Result<S3Response<CopyObjectOutput>> {
        let place = bucket_of(&request)?;
        let source = Self::copy_source(&request, &request.input.copy_source).await?;
        let input = request.input;
        refuse_unoffered!(input);
        let (bucket, key) = (convert::bucket(&input.bucket)?, convert::key(&input.key)?);
        let replace = replaces(input.metadata_directive.as_ref().map(MetadataDirective::as_str))?;
        let replace_tags = replaces(input.tagging_directive.as_ref().map(TaggingDirective::as_str))?;
        let changes =
            replace || replace_tags || input.storage_class.is_some() || input.website_redirect_location.is_some();
        if !changes && source.version.is_none() && source.bucket == bucket && source.key == key {
            let text = "This copy request is illegal because it is trying to copy an object to itself without changing the object's metadata, storage class, website redirect location or encryption attributes.";
            return Err(s3_error!(InvalidRequest, "{}", text));
        }
        let found = self.store.head_version(&source.bucket, &source.key, source.version).await;
        let info = found.map_err(|error| source.access.missing(store_error(error)))?;
        let conditions = Conditions {
            if_match: input.copy_source_if_match.as_ref(),
            if_none_match: input.copy_source_if_none_match.as_ref(),
            if_modified_since: input.copy_source_if_modified_since.as_ref(),
            if_unmodified_since: input.copy_source_if_unmodified_since.as_ref(),
        };
        conditions.check(&info).map_err(as_precondition)?;
        let mut own = kept_headers!(input).into_map()?;
        let tags = if replace_tags { tags::from_header(input.tagging.as_deref())? } else { BTreeMap::new() };
        own.extend(lock::for_write(&self.store, &place, lock_wish!(input)).await?);
        let sums = match &input.checksum_algorithm {
            Some(algorithm) => self.checksum_for(&source, &info, Algorithm::named(algorithm.as_str())?).await?,
            None => None,
        };
        let describe = |info: &ObjectInfo| {
            let taken = |name: &str| match name {
                TAGGING => !replace_tags,
                name if name.starts_with(convert::INTERNAL)
                    || is_lock(name)
                    || name == STORAGE_CLASS
                    || name == REDIRECT =>
                {
                    false
                }
                name if name.starts_with(checksum::PREFIX) => sums.is_none(),
                _ => !replace,
            };
            let mut headers: BTreeMap<_, _> =
                info.headers.iter().filter(|(name, _)| taken(name)).map(|(n, v)| (n.clone(), v.clone())).collect();
            let given = |name: &str| replace || is_lock(name) || name == STORAGE_CLASS || name == REDIRECT;
            headers.extend(own.iter().filter(|(name, _)| given(name)).map(|(n, v)| (n.clone(), v.clone())));
            headers.extend(tags.clone());
            headers.extend(sums.clone().unwrap_or_default());
            let content_type = if replace { input.content_type.clone() } else { info.content_type.clone() };
            PutRequest { content_type, headers, ..PutRequest::default() }
        };
        let precondition = convert::precondition(input.if_match.as_ref(), input.if_none_match.as_ref());
        let from = (&source.bucket, &source.key, source.version);
        let copied = self.store.copy_version(from, (&bucket, &key), describe, &precondition).await;
        let copied = copied.map_err(store_error)?;
        let mut result = CopyObjectResult {
            e_tag: Some(convert::etag(&copied.etag)),
            last_modified: Some(convert::time(copied.modified)),
            checksum_type: checksum::type_of(&copied.headers),
            ..CopyObjectResult::default()
        };
        set_checksums!(result, &copied.headers);
        Ok(S3Response::new(CopyObjectOutput {
            copy_object_result: Some(result),
            copy_source_version_id: convert::version_id(source.access.bucket(), info.version),
            version_id: convert::version_id(&place, copied.version),
            ..CopyObjectOutput::default()
        }))
    }

    /// The checksum that a copy is to have, where its source has another: the source is read once for it.
    async fn checksum_for(
        &self,
        source: &Source,
        info: &ObjectInfo,
        wanted: Algorithm,
    ) -> S3Result<Option<BTreeMap<String, String>>> {
        let is_whole = checksum::type_of(&info.headers).is_some_and(|kind| kind.as_str() == ChecksumType::FULL_OBJECT);
        if is_whole && checksum::algorithm_of(&info.headers) == Some(wanted) {
            return Ok(None);
        }
        let (bucket, key) = (&source.bucket, &source.key);
        let (_, bytes) = self.store.get_version(bucket, key, source.version, None).await.map_err(store_error)?;
        let (mut bytes, sums) = body::pass(bytes, wanted);
        while let Some(piece) = bytes.next().await {
            piece.map_err(|error| store_error(StoreError::Body(error)))?;
        }
        Ok(Some(sums.get()))
    }
}

/// Whether a directive says to replace what the source has.
fn replaces(directive: Option<&str>) -> S3Result<bool> {
    match directive {
        None | Some(MetadataDirective::COPY) => Ok(false),
        Some(MetadataDirective::REPLACE) => Ok(true),
        Some(_) => Err(s3_error!(InvalidArgument, "A directive is COPY or REPLACE.")),
    }
}

fn is_lock(name: &str) -> bool {
    [LEGAL_HOLD, LOCK_MODE, LOCK_UNTIL].contains(&name)
}
