//! Single objects: put, get, head, delete.

use futures_util::StreamExt as _;
use hyper::HeaderMap;
use s3s::dto::{
    Delete, DeleteObjectInput, DeleteObjectOutput, DeleteObjectsInput, DeleteObjectsOutput, DeletedObject,
    Error as DeleteFailure, GetObjectAttributesInput, GetObjectAttributesOutput, GetObjectAttributesParts,
    GetObjectInput, GetObjectOutput, HeadObjectInput, HeadObjectOutput, PutObjectInput, PutObjectOutput, Range,
};
use s3s::{S3Error, S3ErrorCode, S3Request, S3Response, S3Result, s3_error};

use super::convert::{self, KeptHeaders};
use super::error::store_error;
use super::{Door, body};
use crate::model::{BucketName, ByteRange, ObjectKey};
use crate::store::{ByteStream, ObjectInfo, PutRequest};

/// Most keys in one batch delete (S3).
const BATCH_MAX: usize = 1_000;
/// Deletes under way at once for one batch.
const BATCH_WIDTH: usize = 16;
/// How often a ranged read starts over because the object was replaced between its two looks.
const READ_TRIES: u32 = 5;

/// Headers that ask for what is not offered; ignoring them would betray who sends them.
const REFUSED_HEADERS: [(&str, &str); 6] = [
    ("x-amz-server-side-encryption", "Server-side encryption is not offered."),
    ("x-amz-server-side-encryption-customer-algorithm", "Server-side encryption is not offered."),
    ("x-amz-object-lock-mode", "Object lock is not offered."),
    ("x-amz-object-lock-legal-hold", "Object lock is not offered."),
    ("x-amz-tagging", "Object tags are not offered."),
    ("x-amz-write-offset-bytes", "Appending is not offered."),
];

/// Refuses a write that asks for what is not offered.
pub(super) fn refuse_unoffered(headers: &HeaderMap) -> S3Result<()> {
    match REFUSED_HEADERS.iter().find(|(name, _)| headers.contains_key(*name)) {
        Some((_, text)) => Err(S3Error::with_message(S3ErrorCode::NotImplemented, *text)),
        None => Ok(()),
    }
}

/// There is one version of each object, and its name is `null`.
pub(super) fn refuse_version(version: Option<&str>) -> S3Result<()> {
    match version {
        None | Some("null") => Ok(()),
        Some(_) => Err(s3_error!(NoSuchVersion)),
    }
}

/// The conditions on a read, as RFC 9110 orders them.
pub(super) struct Conditions<'a> {
    pub(super) if_match: Option<&'a s3s::dto::ETagCondition>,
    pub(super) if_none_match: Option<&'a s3s::dto::ETagCondition>,
    pub(super) if_modified_since: Option<&'a s3s::dto::Timestamp>,
    pub(super) if_unmodified_since: Option<&'a s3s::dto::Timestamp>,
}

impl Conditions<'_> {
    /// Whether the object may be read; a 304 carries what a cache needs.
    pub(super) fn check(&self, info: &ObjectInfo) -> S3Result<()> {
        let same = |condition: &s3s::dto::ETagCondition| {
            condition.as_etag().is_none_or(|etag| etag.value().trim_matches('"') == info.etag)
        };
        // HTTP's dates have whole seconds.
        let modified = i64::try_from(info.modified.0 / 1_000).unwrap_or(i64::MAX);
        let seconds = |at: &s3s::dto::Timestamp| time::OffsetDateTime::from(at.clone()).unix_timestamp();
        let met = match (self.if_match, self.if_unmodified_since) {
            (Some(condition), _) => same(condition),
            (None, Some(at)) => modified <= seconds(at),
            (None, None) => true,
        };
        if !met {
            return Err(s3_error!(PreconditionFailed));
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

/// What of an object a request wants.
#[derive(Clone, Copy)]
struct Wanted<'a> {
    range: Option<&'a Range>,
    part: Option<i32>,
}

impl Wanted<'_> {
    /// The bytes that are wanted of an object; `None` is all of it.
    fn of(self, info: &ObjectInfo) -> S3Result<Option<ByteRange>> {
        match (self.range, self.part) {
            (Some(_), Some(_)) => Err(s3_error!(InvalidRequest, "Ask for a range or for a part, not for both.")),
            (Some(range), None) => {
                let bytes = range.check(info.size)?;
                Ok(Some(ByteRange { start: bytes.start, end: bytes.end }))
            }
            (None, None) => Ok(None),
            (None, Some(1)) if info.parts.is_none_or(|parts| parts == 1) => Ok(None),
            (None, Some(_)) if info.parts.is_none() => Err(s3_error!(InvalidPart, "The object has no such part.")),
            (None, Some(_)) => Err(s3_error!(NotImplemented, "Reading one part by its number is not offered.")),
        }
    }
}

fn content_range(range: ByteRange, size: u64) -> String {
    format!("bytes {}-{}/{size}", range.start, range.end - 1)
}

fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

impl Door {
    pub(super) async fn put_object(&self, request: S3Request<PutObjectInput>) -> S3Result<S3Response<PutObjectOutput>> {
        refuse_unoffered(&request.headers)?;
        let input = request.input;
        let (bucket, key) = (convert::bucket(&input.bucket)?, convert::key(&input.key)?);
        let kept = KeptHeaders {
            cache_control: input.cache_control.as_deref(),
            content_disposition: input.content_disposition.as_deref(),
            content_encoding: input.content_encoding.as_deref(),
            content_language: input.content_language.as_deref(),
            expires: input.expires.as_deref(),
            metadata: input.metadata.as_ref(),
        };
        let put = PutRequest {
            content_type: input.content_type.clone(),
            headers: kept.into_map(),
            precondition: convert::precondition(input.if_match.as_ref(), input.if_none_match.as_ref())?,
            expected_bytes: convert::length(input.content_length)?,
            expected_md5: convert::md5(input.content_md5.as_deref())?,
        };
        let _seat = self.turns.write(&request.extensions).await?;
        let (stream, verified) = body::receive(input.body, &request.headers, request.trailing_headers);
        let info = self.store.put(&bucket, &key, stream, put).await.map_err(store_error)?;
        let checksum = verified.take();
        Ok(S3Response::new(PutObjectOutput {
            e_tag: Some(convert::etag(&info.etag)),
            checksum_crc32: checksum.checksum_crc32,
            checksum_crc32c: checksum.checksum_crc32c,
            checksum_crc64nvme: checksum.checksum_crc64nvme,
            checksum_sha1: checksum.checksum_sha1,
            checksum_sha256: checksum.checksum_sha256,
            ..PutObjectOutput::default()
        }))
    }

    pub(super) async fn get_object(&self, request: S3Request<GetObjectInput>) -> S3Result<S3Response<GetObjectOutput>> {
        let input = request.input;
        refuse_version(input.version_id.as_deref())?;
        let (bucket, key) = (convert::bucket(&input.bucket)?, convert::key(&input.key)?);
        let conditions = Conditions {
            if_match: input.if_match.as_ref(),
            if_none_match: input.if_none_match.as_ref(),
            if_modified_since: input.if_modified_since.as_ref(),
            if_unmodified_since: input.if_unmodified_since.as_ref(),
        };
        let turn = self.turns.read(&request.extensions).await?;
        let wanted = Wanted { range: input.range.as_ref(), part: input.part_number };
        let (info, range, stream) = self.read(&bucket, &key, &conditions, wanted).await?;
        let length = range.map_or(info.size, |range| range.len());
        let output = GetObjectOutput {
            body: Some(body::send(stream, turn).await?),
            accept_ranges: Some("bytes".to_owned()),
            content_length: Some(signed(length)),
            content_range: range.map(|range| content_range(range, info.size)),
            content_type: info.content_type.clone(),
            cache_control: convert::header(&info, "cache-control"),
            content_disposition: convert::header(&info, "content-disposition"),
            content_encoding: convert::header(&info, "content-encoding"),
            content_language: convert::header(&info, "content-language"),
            expires: convert::header(&info, "expires"),
            e_tag: Some(convert::etag(&info.etag)),
            last_modified: Some(convert::time(info.modified)),
            metadata: convert::metadata(&info),
            parts_count: input.part_number.and(info.parts).and_then(|parts| i32::try_from(parts).ok()),
            ..GetObjectOutput::default()
        };
        Ok(S3Response::new(output))
    }

    /// Opens an object. A range needs the object's size, so it takes two looks; where the object was replaced between
    /// them, both are taken again.
    async fn read(
        &self,
        bucket: &BucketName,
        key: &ObjectKey,
        conditions: &Conditions<'_>,
        wanted: Wanted<'_>,
    ) -> S3Result<(ObjectInfo, Option<ByteRange>, ByteStream)> {
        if wanted.range.is_none() && wanted.part.is_none() {
            let (info, stream) = self.store.get(bucket, key, None).await.map_err(store_error)?;
            conditions.check(&info)?;
            return Ok((info, None, stream));
        }
        for _ in 0..READ_TRIES {
            let seen = self.store.head(bucket, key).await.map_err(store_error)?;
            conditions.check(&seen)?;
            let range = wanted.of(&seen)?;
            let (info, stream) = self.store.get(bucket, key, range).await.map_err(store_error)?;
            if info.etag == seen.etag && info.modified == seen.modified {
                return Ok((info, range, stream));
            }
        }
        Err(s3_error!(SlowDown, "The object is being replaced over and over."))
    }

    pub(super) async fn head_object(
        &self,
        request: S3Request<HeadObjectInput>,
    ) -> S3Result<S3Response<HeadObjectOutput>> {
        let input = request.input;
        refuse_version(input.version_id.as_deref())?;
        let (bucket, key) = (convert::bucket(&input.bucket)?, convert::key(&input.key)?);
        let info = self.store.head(&bucket, &key).await.map_err(store_error)?;
        let conditions = Conditions {
            if_match: input.if_match.as_ref(),
            if_none_match: input.if_none_match.as_ref(),
            if_modified_since: input.if_modified_since.as_ref(),
            if_unmodified_since: input.if_unmodified_since.as_ref(),
        };
        conditions.check(&info)?;
        let range = Wanted { range: input.range.as_ref(), part: input.part_number }.of(&info)?;
        Ok(S3Response::new(HeadObjectOutput {
            accept_ranges: Some("bytes".to_owned()),
            content_length: Some(signed(range.map_or(info.size, |range| range.len()))),
            content_range: range.map(|range| content_range(range, info.size)),
            content_type: info.content_type.clone(),
            cache_control: convert::header(&info, "cache-control"),
            content_disposition: convert::header(&info, "content-disposition"),
            content_encoding: convert::header(&info, "content-encoding"),
            content_language: convert::header(&info, "content-language"),
            expires: convert::header(&info, "expires"),
            e_tag: Some(convert::etag(&info.etag)),
            last_modified: Some(convert::time(info.modified)),
            metadata: convert::metadata(&info),
            parts_count: input.part_number.and(info.parts).and_then(|parts| i32::try_from(parts).ok()),
            ..HeadObjectOutput::default()
        }))
    }

    pub(super) async fn get_object_attributes(
        &self,
        request: S3Request<GetObjectAttributesInput>,
    ) -> S3Result<S3Response<GetObjectAttributesOutput>> {
        let input = request.input;
        refuse_version(input.version_id.as_deref())?;
        let (bucket, key) = (convert::bucket(&input.bucket)?, convert::key(&input.key)?);
        let info = self.store.head(&bucket, &key).await.map_err(store_error)?;
        let asked = |name: &str| input.object_attributes.iter().any(|attribute| attribute.as_str() == name);
        let parts = info.parts.filter(|_| asked("ObjectParts")).map(|parts| GetObjectAttributesParts {
            total_parts_count: i32::try_from(parts).ok(),
            ..GetObjectAttributesParts::default()
        });
        Ok(S3Response::new(GetObjectAttributesOutput {
            e_tag: asked("ETag").then(|| convert::etag(&info.etag)),
            object_size: asked("ObjectSize").then(|| signed(info.size)),
            object_parts: parts,
            last_modified: Some(convert::time(info.modified)),
            ..GetObjectAttributesOutput::default()
        }))
    }

    pub(super) async fn delete_object(
        &self,
        request: S3Request<DeleteObjectInput>,
    ) -> S3Result<S3Response<DeleteObjectOutput>> {
        let input = request.input;
        refuse_version(input.version_id.as_deref())?;
        if input.if_match.is_some() {
            return Err(s3_error!(NotImplemented, "A delete takes no condition."));
        }
        let (bucket, key) = (convert::bucket(&input.bucket)?, convert::key(&input.key)?);
        // Deleting what is not there is done as well.
        self.store.delete(&bucket, &key).await.map_err(store_error)?;
        Ok(S3Response::new(DeleteObjectOutput::default()))
    }

    pub(super) async fn delete_objects(
        &self,
        request: S3Request<DeleteObjectsInput>,
    ) -> S3Result<S3Response<DeleteObjectsOutput>> {
        let input = request.input;
        let bucket = convert::bucket(&input.bucket)?;
        let Delete { objects, quiet } = input.delete;
        if objects.is_empty() || objects.len() > BATCH_MAX {
            return Err(s3_error!(MalformedXML, "A batch delete names 1 to 1,000 keys."));
        }
        let outcomes = futures_util::stream::iter(objects).map(|object| {
            let bucket = &bucket;
            async move {
                let deleted = self.delete_one(bucket, &object.key, object.version_id.as_deref()).await;
                (object.key, deleted)
            }
        });
        let outcomes: Vec<_> = outcomes.buffered(BATCH_WIDTH).collect().await;
        let (mut deleted, mut errors) = (Vec::new(), Vec::new());
        for (key, outcome) in outcomes {
            match outcome {
                Ok(()) => deleted.push(DeletedObject { key: Some(key), ..DeletedObject::default() }),
                Err(error) => errors.push(DeleteFailure {
                    key: Some(key),
                    code: Some(error.code().as_str().to_owned()),
                    message: error.message().map(ToOwned::to_owned),
                    version_id: None,
                }),
            }
        }
        if quiet == Some(true) {
            deleted.clear();
        }
        Ok(S3Response::new(DeleteObjectsOutput {
            deleted: Some(deleted),
            errors: Some(errors),
            ..DeleteObjectsOutput::default()
        }))
    }

    async fn delete_one(&self, bucket: &BucketName, key: &str, version: Option<&str>) -> S3Result<()> {
        refuse_version(version)?;
        self.store.delete(bucket, &convert::key(key)?).await.map(drop).map_err(store_error)
    }
}
