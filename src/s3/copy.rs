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
use super::encryption::{Encryption, encryption_wish, source_headers, tell_encryption};
use super::error::store_error;
use super::lock::{self, lock_wish};
use super::offered::refuse_unoffered;
use super::{Door, body, tags};
use crate::model::{BucketName, ByteRange, ObjectKey, VersionId};
use crate::store::{ObjectInfo, PutRequest, StoreError};

/// S3's answer to a copy that would change nothing.
const ONTO_ITSELF: &str = "This copy request is illegal because it is trying to copy an object to itself without changing the object's metadata, storage class, website redirect location or encryption attributes.";

/// An object to copy from, that the caller may read.
pub(super) struct Source {
    pub(super) bucket: BucketName,
    pub(super) key: ObjectKey,
    pub(super) version: Option<VersionId>,
    pub(super) access: Access,
}

/// The conditions of a copy.
fn object_conditions(input: &CopyObjectInput) -> Conditions<'_> {
    Conditions {
        if_match: input.copy_source_if_match.as_ref(),
        if_none_match: input.copy_source_if_none_match.as_ref(),
        if_modified_since: input.copy_source_if_modified_since.as_ref(),
        if_unmodified_since: input.copy_source_if_unmodified_since.as_ref(),
    }
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
        let wish = encryption_wish!(input);
        let changes = replace
            || replace_tags
            || wish.is_some()
            || input.storage_class.is_some()
            || input.website_redirect_location.is_some();
        if !changes && source.version.is_none() && source.bucket == bucket && source.key == key {
            return Err(s3_error!(InvalidRequest, "{}", ONTO_ITSELF));
        }
        let found = self.store.head_version(&source.bucket, &source.key, source.version).await;
        let info = found.map_err(|error| source.access.missing(store_error(error)))?;
        object_conditions(&input).check(&info).map_err(as_precondition)?;
        let opened = self.encryption_of(&source.bucket, &info, source_headers!(input))?;
        let encryption = self.encryption_for(&place, &key, &wish, &opened).await?;
        let asked = input.checksum_algorithm.as_ref().map(|name| Algorithm::named(name.as_str())).transpose()?;
        let mut own = kept_headers!(input).into_map()?;
        let tags = if replace_tags { tags::from_header(input.tagging.as_deref())? } else { BTreeMap::new() };
        own.extend(lock::for_write(&self.store, &place, lock_wish!(input)).await?);
        let mut new = New { own, content_type: replace.then_some(input.content_type), tags, replace_tags, sums: None };
        let precondition = convert::precondition(&place, input.if_match.as_ref(), input.if_none_match.as_ref());
        let copied = if opened.shares_bytes_with(&encryption) {
            if let Some(wanted) = asked {
                new.sums = self.checksum_for(&source, &info, &opened, wanted).await?;
            }
            let describe = |found: &ObjectInfo| {
                // What was decided holds for what was looked at, and for nothing else.
                if *found != info {
                    return Err(StoreError::Busy);
                }
                let mut put = new.described(&info);
                put.headers.extend(self.carried(&opened, (&source.bucket, &info), (&bucket, &key))?);
                Ok(put)
            };
            let from = (&source.bucket, &source.key, source.version);
            self.store.copy_version(from, (&bucket, &key), describe, &precondition).await.map_err(store_error)?
        } else {
            let _seat = self.turns.write(&request.extensions).await?;
            let algorithm = asked.or(checksum::algorithm_of(&info.headers)).unwrap_or(Algorithm::Crc64Nvme);
            let put = PutRequest { precondition, ..new.described(&info) };
            self.copy_bytes((&source, &info), (&bucket, &key), (&opened, &encryption), algorithm, put).await?
        };
        let mut result = CopyObjectResult {
            e_tag: Some(convert::etag(&copied.etag)),
            last_modified: Some(convert::time(copied.modified)),
            checksum_type: checksum::type_of(&copied.headers),
            ..CopyObjectResult::default()
        };
        set_checksums!(result, &copied.headers);
        let mut output = CopyObjectOutput {
            copy_object_result: Some(result),
            copy_source_version_id: convert::version_id(source.access.bucket(), info.version),
            version_id: convert::version_id(&place, copied.version),
            ..CopyObjectOutput::default()
        };
        tell_encryption!(output, &encryption);
        Ok(S3Response::new(output))
    }

    /// Copies by reading and writing: the bytes that are stored for the copy are others.
    async fn copy_bytes(
        &self,
        (source, info): (&Source, &ObjectInfo),
        (bucket, key): (&BucketName, &ObjectKey),
        (opened, encryption): (&Encryption, &Encryption),
        algorithm: Algorithm,
        mut put: PutRequest,
    ) -> S3Result<ObjectInfo> {
        let read = self.store.get_version(&source.bucket, &source.key, source.version, None).await;
        let (read, bytes) = read.map_err(store_error)?;
        if read != *info {
            return Err(replaced());
        }
        let (bytes, late) = body::pass(opened.unseal(&source.bucket, info, 0, bytes)?, algorithm);
        put.headers.retain(|name, _| !name.starts_with(checksum::PREFIX));
        put.late = late;
        put.expected_bytes = Some(info.size);
        let bytes = encryption.seal(bytes, &mut put);
        self.store.put(bucket, key, bytes, put).await.map_err(store_error)
    }

    /// The checksum that a copy is to have, where its source has another: the source is read once for it.
    async fn checksum_for(
        &self,
        source: &Source,
        info: &ObjectInfo,
        opened: &Encryption,
        wanted: Algorithm,
    ) -> S3Result<Option<BTreeMap<String, String>>> {
        let is_whole = checksum::type_of(&info.headers).is_some_and(|kind| kind.as_str() == ChecksumType::FULL_OBJECT);
        if is_whole && checksum::algorithm_of(&info.headers) == Some(wanted) {
            return Ok(None);
        }
        let (bucket, key) = (&source.bucket, &source.key);
        let (read, bytes) = self.store.get_version(bucket, key, source.version, None).await.map_err(store_error)?;
        if read != *info {
            return Err(replaced());
        }
        let (mut bytes, sums) = body::pass(opened.unseal(bucket, &read, 0, bytes)?, wanted);
        while let Some(piece) = bytes.next().await {
            piece.map_err(|error| store_error(StoreError::Body(error)))?;
        }
        Ok(Some(sums.get()))
    }
}

/// What a copy has of its own.
struct New {
    /// Headers that the request gives.
    own: BTreeMap<String, String>,
    /// The content type that the request gives, where what the source keeps is replaced.
    content_type: Option<Option<String>>,
    tags: BTreeMap<String, String>,
    replace_tags: bool,
    /// A checksum in place of the source's.
    sums: Option<BTreeMap<String, String>>,
}

impl New {
    /// What the copy of this object keeps, but for how it is encrypted.
    fn described(&self, info: &ObjectInfo) -> PutRequest {
        let replace = self.content_type.is_some();
        let taken = |name: &str| match name {
            TAGGING => !self.replace_tags,
            name if lock::is_lock(name)
                || name == STORAGE_CLASS
                || name == REDIRECT
                || name.starts_with(convert::INTERNAL) =>
            {
                false
            }
            name if name.starts_with(checksum::PREFIX) => self.sums.is_none(),
            _ => !replace,
        };
        let mut headers: BTreeMap<_, _> =
            info.headers.iter().filter(|(name, _)| taken(name)).map(|(n, v)| (n.clone(), v.clone())).collect();
        let given = |name: &str| replace || lock::is_lock(name) || name == STORAGE_CLASS || name == REDIRECT;
        headers.extend(self.own.iter().filter(|(name, _)| given(name)).map(|(n, v)| (n.clone(), v.clone())));
        headers.extend(self.tags.clone());
        headers.extend(self.sums.clone().unwrap_or_default());
        let content_type = self.content_type.clone().unwrap_or_else(|| info.content_type.clone());
        PutRequest { content_type, headers, ..PutRequest::default() }
    }
}

/// The source is not what was looked at any more: clients try again.
fn replaced() -> S3Error {
    s3_error!(SlowDown, "The source was replaced while it was copied.")
}

/// Whether a directive says to replace what the source has.
fn replaces(directive: Option<&str>) -> S3Result<bool> {
    match directive {
        None | Some(MetadataDirective::COPY) => Ok(false),
        Some(MetadataDirective::REPLACE) => Ok(true),
        Some(_) => Err(s3_error!(InvalidArgument, "A directive is COPY or REPLACE.")),
    }
}
