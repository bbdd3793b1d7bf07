//! Reading an object: get, head, attributes.

use s3s::dto::{
    Checksum, ChecksumMode, GetObjectAttributesInput, GetObjectAttributesOutput, GetObjectAttributesParts,
    GetObjectInput, GetObjectOutput, HeadObjectInput, HeadObjectOutput, ObjectAttributes, ObjectPart, Range,
    StorageClass,
};
use s3s::{S3Request, S3Response, S3Result, s3_error};

use super::access::{access_of, bucket_of};
use super::checksum::{self, set_checksums};
use super::conditions::{Conditions, conditions};
use super::encryption::{check_read, customer_headers, tell_encryption};
use super::error::store_error;
use super::{Door, body, convert, lock, tags};
use crate::format::row::PartList;
use crate::model::{BucketName, ByteRange, ObjectKey, VersionId};
use crate::store::{BucketInfo, ByteStream, ObjectInfo, StoreError};

/// How often a ranged read starts over because the object was replaced between its two looks.
const READ_TRIES: u32 = 5;
/// Most parts in one answer.
const PARTS_MAX: i32 = 1_000;

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
            (Some(_), Some(_)) => {
                Err(s3_error!(InvalidRequest, "Cannot specify both Range header and partNumber query parameter"))
            }
            (Some(range), None) => {
                let bytes = range.check(info.size)?;
                Ok(Some(ByteRange { start: bytes.start, end: bytes.end }))
            }
            (None, None) => Ok(None),
            (None, Some(part)) => part_of(info, part),
        }
    }
}

/// The bytes of one part.
fn part_of(info: &ObjectInfo, part: i32) -> S3Result<Option<ByteRange>> {
    let none = || s3_error!(InvalidPart, "The requested part does not exist");
    let wanted = u32::try_from(part).ok().filter(|part| *part > 0).ok_or_else(none)?;
    let Some(parts) = info.parts else { return if wanted == 1 { Ok(None) } else { Err(none()) } };
    if info.part_list.runs.is_empty() {
        let whole = wanted == 1 && parts == 1;
        let text = "The object was stored before the bounds of parts were kept; read it by range.";
        return if whole { Ok(None) } else { Err(s3_error!(NotImplemented, "{}", text)) };
    }
    let found = each_part(&info.part_list).find(|part| part.number == wanted).ok_or_else(none)?;
    Ok(Some(ByteRange { start: found.start, end: found.start + found.bytes }))
}

/// One part of a stored object.
struct StoredPart {
    number: u32,
    start: u64,
    bytes: u64,
    /// Its place among the parts, from 0.
    place: usize,
}

/// The parts in order.
fn each_part(list: &PartList) -> impl Iterator<Item = StoredPart> + '_ {
    let parts = list.runs.iter().flat_map(|run| (0..run.count).map(move |n| (run.first.saturating_add(n), run.bytes)));
    parts.enumerate().scan(0u64, |start, (place, (number, bytes))| {
        let part = StoredPart { number, start: *start, bytes, place };
        *start = start.saturating_add(bytes);
        Some(part)
    })
}

fn content_range(range: ByteRange, size: u64) -> String {
    format!("bytes {}-{}/{size}", range.start, range.end.saturating_sub(1))
}

fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

/// The class as answers give it: the usual one is not told.
fn storage_class(info: &ObjectInfo) -> Option<StorageClass> {
    convert::header(info, convert::STORAGE_CLASS).map(StorageClass::from)
}

/// What answers to GET and HEAD say alike.
macro_rules! describe {
    ($output:ident { $($extra:tt)* }, $place:expr, $info:expr, $range:expr, $encryption:expr, $part:expr, $checksums:expr) => {{
        let (info, range): (&ObjectInfo, Option<ByteRange>) = ($info, $range);
        let held = lock::of(&info.headers);
        let mut output = $output {
            accept_ranges: Some("bytes".to_owned()),
            content_length: Some(signed(range.map_or(info.size, |range| range.len()))),
            content_range: range.map(|range| content_range(range, info.size)),
            content_type: Some(info.content_type.clone().unwrap_or_else(|| "binary/octet-stream".to_owned())),
            cache_control: convert::header(info, "cache-control"),
            content_disposition: convert::header(info, "content-disposition"),
            content_encoding: convert::header(info, "content-encoding"),
            content_language: convert::header(info, "content-language"),
            expires: convert::header(info, "expires"),
            e_tag: Some(convert::etag(&info.etag)),
            last_modified: Some(convert::time(info.modified)),
            metadata: convert::metadata(info),
            object_lock_mode: held.mode,
            object_lock_retain_until_date: held.until,
            object_lock_legal_hold_status: held.hold,
            parts_count: $part.and(info.parts).and_then(|parts| i32::try_from(parts).ok()),
            storage_class: storage_class(info),
            tag_count: tags::count(&info.headers),
            version_id: convert::version_id($place, info.version),
            website_redirect_location: convert::header(info, convert::REDIRECT),
            $($extra)*
        };
        tell_encryption!(output, $encryption);
        // The checksum is of the whole object.
        let whole = range.is_none_or(|range| range.len() == info.size);
        if $checksums.is_some_and(|mode| mode.as_str() == ChecksumMode::ENABLED) && whole {
            set_checksums!(output, &info.headers);
            output.checksum_type = checksum::type_of(&info.headers);
        }
        output
    }};
}

impl Door {
    pub(super) async fn get_object(&self, request: S3Request<GetObjectInput>) -> S3Result<S3Response<GetObjectOutput>> {
        let access = access_of(&request)?;
        check_read(&request.headers)?;
        let input = request.input;
        let (bucket, key) = (convert::bucket(&input.bucket)?, convert::key(&input.key)?);
        let version = convert::version(input.version_id.as_deref())?;
        let conditions = conditions!(input);
        let turn = self.turns.read(&request.extensions).await?;
        let wanted = Wanted { range: input.range.as_ref(), part: input.part_number };
        let read = self.read((&bucket, &key, version), &conditions, wanted).await;
        let (info, range, stream) = read.map_err(|error| access.missing(error))?;
        let encryption = self.encryption_of(&bucket, &info, customer_headers!(input))?;
        let stream = encryption.unseal(&bucket, &info, range.map_or(0, |range| range.start), stream)?;
        let body = Some(body::send(stream, turn).await?);
        let expiration = self.expiration(access.bucket(), &info).await?;
        Ok(S3Response::new(describe!(
            GetObjectOutput { body, expiration, ..GetObjectOutput::default() },
            access.bucket(),
            &info,
            range,
            &encryption,
            input.part_number,
            input.checksum_mode
        )))
    }

    /// Opens an object. A range needs the object's size, so it takes two looks; where the object was replaced between
    /// them, both are taken again.
    async fn read(
        &self,
        (bucket, key, version): (&BucketName, &ObjectKey, Option<VersionId>),
        conditions: &Conditions<'_>,
        wanted: Wanted<'_>,
    ) -> S3Result<(ObjectInfo, Option<ByteRange>, ByteStream)> {
        if wanted.range.is_none() && wanted.part.is_none() {
            let (info, stream) = self.store.get_version(bucket, key, version, None).await.map_err(store_error)?;
            conditions.check(&info)?;
            return Ok((info, None, stream));
        }
        for _ in 0..READ_TRIES {
            let seen = self.store.head_version(bucket, key, version).await.map_err(store_error)?;
            conditions.check(&seen)?;
            let range = wanted.of(&seen)?;
            let read = match self.store.get_version(bucket, key, version, range).await {
                // What was within the object that was seen lies outside of the one that is there now.
                Err(StoreError::InvalidRange { .. }) => continue,
                read => read,
            };
            let (info, stream) = read.map_err(store_error)?;
            if info.etag == seen.etag && info.modified == seen.modified && info.version == seen.version {
                return Ok((info, range, stream));
            }
        }
        Err(s3_error!(SlowDown, "The object is being replaced over and over."))
    }

    pub(super) async fn head_object(
        &self,
        request: S3Request<HeadObjectInput>,
    ) -> S3Result<S3Response<HeadObjectOutput>> {
        let access = access_of(&request)?;
        check_read(&request.headers)?;
        let input = request.input;
        let (bucket, key) = (convert::bucket(&input.bucket)?, convert::key(&input.key)?);
        let version = convert::version(input.version_id.as_deref())?;
        let found = self.store.head_version(&bucket, &key, version).await;
        let info = found.map_err(|error| access.missing(store_error(error)))?;
        conditions!(input).check(&info)?;
        let encryption = self.encryption_of(&bucket, &info, customer_headers!(input))?;
        let range = Wanted { range: input.range.as_ref(), part: input.part_number }.of(&info)?;
        let expiration = self.expiration(access.bucket(), &info).await?;
        Ok(S3Response::new(describe!(
            HeadObjectOutput { expiration, ..HeadObjectOutput::default() },
            access.bucket(),
            &info,
            range,
            &encryption,
            input.part_number,
            input.checksum_mode
        )))
    }

    pub(super) async fn get_object_attributes(
        &self,
        request: S3Request<GetObjectAttributesInput>,
    ) -> S3Result<S3Response<GetObjectAttributesOutput>> {
        let place: BucketInfo = bucket_of(&request)?;
        let input = request.input;
        let known = [
            ObjectAttributes::CHECKSUM,
            ObjectAttributes::ETAG,
            ObjectAttributes::OBJECT_PARTS,
            ObjectAttributes::OBJECT_SIZE,
            ObjectAttributes::STORAGE_CLASS,
        ];
        // Clients send them in one header, or in several.
        let wanted: Vec<&str> =
            input.object_attributes.iter().flat_map(|names| names.as_str().split(',')).map(str::trim).collect();
        if wanted.is_empty() || wanted.iter().any(|name| !known.contains(name)) {
            return Err(s3_error!(InvalidArgument, "Invalid attribute name specified."));
        }
        let (bucket, key) = (convert::bucket(&input.bucket)?, convert::key(&input.key)?);
        let version = convert::version(input.version_id.as_deref())?;
        let info = self.store.head_version(&bucket, &key, version).await.map_err(store_error)?;
        self.encryption_of(&bucket, &info, customer_headers!(input))?;
        let asked = |name: &str| wanted.contains(&name);
        let kept = checksum::algorithm_of(&info.headers).filter(|_| asked(ObjectAttributes::CHECKSUM));
        let checksum = kept.map(|_| {
            let mut checksum = Checksum { checksum_type: checksum::type_of(&info.headers), ..Checksum::default() };
            set_checksums!(checksum, &info.headers);
            checksum
        });
        let class = StorageClass::from_static(StorageClass::STANDARD);
        let object_parts = if asked(ObjectAttributes::OBJECT_PARTS) { parts(&info, &input)? } else { None };
        Ok(S3Response::new(GetObjectAttributesOutput {
            checksum,
            e_tag: asked(ObjectAttributes::ETAG).then(|| convert::etag(&info.etag)),
            object_size: asked(ObjectAttributes::OBJECT_SIZE).then(|| signed(info.size)),
            object_parts,
            storage_class: asked(ObjectAttributes::STORAGE_CLASS).then(|| storage_class(&info).unwrap_or(class)),
            last_modified: Some(convert::time(info.modified)),
            version_id: convert::version_id(&place, info.version),
            ..GetObjectAttributesOutput::default()
        }))
    }
}

/// A page of an object's parts; none for an object that was put in one piece.
fn parts(info: &ObjectInfo, input: &GetObjectAttributesInput) -> S3Result<Option<GetObjectAttributesParts>> {
    let Some(count) = info.parts else { return Ok(None) };
    let limit = input.max_parts.unwrap_or(PARTS_MAX);
    let marker = input.part_number_marker.unwrap_or(0);
    let (Ok(most), Ok(after)) = (usize::try_from(limit.min(PARTS_MAX)), u32::try_from(marker)) else {
        return Err(s3_error!(InvalidArgument, "Parts are counted from 0 on."));
    };
    let algorithm = checksum::algorithm_of(&info.headers);
    let mut rest = each_part(&info.part_list).filter(|part| part.number > after).peekable();
    let mut page = Vec::new();
    while page.len() < most
        && let Some(part) = rest.next()
    {
        let mut listed = ObjectPart {
            part_number: i32::try_from(part.number).ok(),
            size: Some(signed(part.bytes)),
            ..ObjectPart::default()
        };
        let sum = algorithm.and_then(|algorithm| checksum::of_part(algorithm, &info.part_list.sums, part.place));
        let sum: std::collections::BTreeMap<_, _> = sum.into_iter().collect();
        set_checksums!(listed, &sum);
        page.push(listed);
    }
    let more = rest.peek().is_some();
    let next = page.last().and_then(|part| part.part_number);
    Ok(Some(GetObjectAttributesParts {
        total_parts_count: i32::try_from(count).ok(),
        is_truncated: Some(more),
        max_parts: Some(limit.min(PARTS_MAX)),
        part_number_marker: Some(marker),
        next_part_number_marker: if more { next } else { Some(next.unwrap_or(0)) },
        parts: Some(page),
    }))
}

#[cfg(test)]
mod tests {
    //! Parts are found by their own numbers, gaps between them or not.
    use super::*;

    #[test]
    fn parts_lie_one_after_the_other() {
        let mut list = PartList::default();
        for (number, bytes) in [(1, 10), (2, 10), (5, 10), (9, 3)] {
            list.push(number, bytes);
        }
        let found: Vec<_> = each_part(&list).map(|part| (part.number, part.start, part.bytes, part.place)).collect();
        assert_eq!(found, [(1, 0, 10, 0), (2, 10, 10, 1), (5, 20, 10, 2), (9, 30, 3, 3)]);
    }
}
