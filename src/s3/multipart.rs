//! Multipart uploads.

use std::collections::BTreeMap;

use bytes::Bytes;
use md5::{Digest as _, Md5};
use s3s::dto::{
    AbortMultipartUploadInput, AbortMultipartUploadOutput, ChecksumAlgorithm, ChecksumType,
    CompleteMultipartUploadInput, CompleteMultipartUploadOutput, CopyPartResult, CreateMultipartUploadInput,
    CreateMultipartUploadOutput, Initiator, ListPartsInput, ListPartsOutput, Part, StorageClass, UploadPartCopyInput,
    UploadPartCopyOutput, UploadPartInput, UploadPartOutput,
};
use s3s::{S3Request, S3Response, S3Result, s3_error};

use super::access::bucket_of;
use super::bucket::owner;
use super::checksum::{self, Algorithm, Scheme, given_checksums, set_checksums};
use super::convert::{self, kept_headers};
use super::encryption::{self, Encryption, customer_headers, encryption_wish, source_headers, tell_encryption};
use super::error::store_error;
use super::list::page_limit;
use super::lock::{self, lock_wish};
use super::offered::refuse_unoffered;
use super::{Door, body, tags};
use crate::model::{BucketName, ObjectKey, UploadId, limit};
use crate::store::{ObjectInfo, PartInfo, PutRequest, StoreError, UPLOAD, UploadInfo};

fn part_number(number: i32) -> S3Result<u32> {
    match u32::try_from(number) {
        Ok(number) if (1..=limit::PARTS_MAX).contains(&number) => Ok(number),
        _ => Err(s3_error!(InvalidArgument, "Part number must be an integer between 1 and 10000, inclusive")),
    }
}

/// Who began an upload: the bucket's owner, who owns all that is in it.
pub(super) fn initiator(name: &str) -> Initiator {
    Initiator { id: Some(name.to_owned()), display_name: Some(name.to_owned()) }
}

/// The class of the object to be.
pub(super) fn storage_class(about: &UploadInfo) -> StorageClass {
    let usual = StorageClass::from_static(StorageClass::STANDARD);
    about.headers.get(convert::STORAGE_CLASS).cloned().map_or(usual, StorageClass::from)
}

/// Of a part's checksums the one that its sender is told.
fn told(headers: &BTreeMap<String, String>, algorithm: Algorithm) -> BTreeMap<String, String> {
    headers.get_key_value(algorithm.header()).map(|(name, sum)| (name.clone(), sum.clone())).into_iter().collect()
}

/// What a completion says of the object to be.
struct Told<'a> {
    sums: &'a BTreeMap<u32, BTreeMap<String, String>>,
    whole: &'a BTreeMap<String, String>,
    kind: Option<&'a str>,
    size: Option<u64>,
}

/// The object's checksum, once what the completion says was found to be so.
fn complete(
    about: &UploadInfo,
    parts: &[PartInfo],
    told: &Told<'_>,
) -> Result<(BTreeMap<String, String>, Bytes), StoreError> {
    let scheme =
        Scheme::of(&about.headers).map_err(|_| StoreError::Unfit("The upload's checksum scheme is unknown."))?;
    if told.size.is_some_and(|size| size != parts.iter().map(|part| part.size).sum::<u64>()) {
        return Err(StoreError::Unfit("The provided 'x-amz-mp-object-size' header does not match what was computed."));
    }
    if told.kind.is_some_and(|kind| kind != scheme.kind()) {
        return Err(StoreError::Unfit("The checksum type is another than the upload was begun with."));
    }
    for part in parts {
        let given = told.sums.get(&part.number).into_iter().flatten();
        for (name, sum) in given {
            if part.headers.get(name) != Some(sum) {
                return Err(StoreError::InvalidPart { number: part.number });
            }
        }
    }
    let (mut kept, sums) = scheme.sum_up(parts)?;
    kept.insert(UPLOAD.to_owned(), about.id.to_string());
    let fits = |(name, sum): (&String, &String)| {
        kept.get(name).is_some_and(|found| {
            // A composite's number of parts may be left out.
            found == sum || found.split('-').next() == Some(sum)
        })
    };
    if !told.whole.iter().all(fits) {
        return Err(StoreError::BadDigest);
    }
    kept.extend(encryption::sum_up(about, parts)?);
    Ok((kept, sums))
}

impl Door {
    pub(super) async fn create_multipart_upload(
        &self,
        request: S3Request<CreateMultipartUploadInput>,
    ) -> S3Result<S3Response<CreateMultipartUploadOutput>> {
        let place = bucket_of(&request)?;
        let input = request.input;
        refuse_unoffered!(input);
        let (bucket, key) = (convert::bucket(&input.bucket)?, convert::key(&input.key)?);
        let algorithm = input.checksum_algorithm.as_ref().map(ChecksumAlgorithm::as_str);
        let scheme = Scheme::new(algorithm, input.checksum_type.as_ref().map(ChecksumType::as_str))?;
        let mut headers = kept_headers!(input).into_map()?;
        headers.extend(tags::from_header(input.tagging.as_deref())?);
        headers.extend(lock::for_write(&self.store, &place, lock_wish!(input)).await?);
        headers.extend(scheme.headers());
        let encryption = self.encryption_for(&place, &key, &encryption_wish!(input), &Encryption::NONE).await?;
        headers.extend(encryption.headers());
        let precondition = convert::precondition(&place, None, None);
        let put =
            PutRequest { content_type: input.content_type.clone(), headers, precondition, ..PutRequest::default() };
        let upload = self.store.create_upload(&bucket, &key, put).await.map_err(store_error)?;
        let mut output = CreateMultipartUploadOutput {
            bucket: Some(input.bucket),
            key: Some(input.key),
            upload_id: Some(upload.to_string()),
            checksum_algorithm: scheme.asked.then(|| ChecksumAlgorithm::from_static(scheme.algorithm.name())),
            checksum_type: scheme.asked.then(|| ChecksumType::from_static(scheme.kind())),
            ..CreateMultipartUploadOutput::default()
        };
        tell_encryption!(output, &encryption);
        Ok(S3Response::new(output))
    }

    pub(super) async fn upload_part(
        &self,
        request: S3Request<UploadPartInput>,
    ) -> S3Result<S3Response<UploadPartOutput>> {
        let input = request.input;
        let (bucket, key) = (convert::bucket(&input.bucket)?, convert::key(&input.key)?);
        let (upload, number) = (convert::upload(&input.upload_id)?, part_number(input.part_number)?);
        let about = self.store.upload(&bucket, &key, &upload).await.map_err(store_error)?;
        let scheme = Scheme::of(&about.headers)?;
        let encryption = self.encryption_of_upload(&bucket, &about, customer_headers!(input))?;
        let announced = checksum::announced(&request.headers)?.map(|announced| announced.algorithm);
        if let Some(algorithm) = announced.filter(|algorithm| scheme.asked && *algorithm != scheme.algorithm) {
            let (expected, actual) = (scheme.algorithm.name(), algorithm.name());
            return Err(s3_error!(
                InvalidRequest,
                "Checksum Type mismatch occurred, expected checksum Type: {expected}, actual checksum Type: {actual}"
            ));
        }
        let seat = self.turns.write(&request.extensions).await?;
        let (stream, late) = body::receive(input.body, &request.headers, request.trailing_headers, scheme.algorithm)?;
        let mut put = PutRequest {
            expected_bytes: convert::length(input.content_length)?,
            expected_md5: convert::md5(input.content_md5.as_deref())?,
            late: late.clone(),
            ..PutRequest::default()
        };
        let stream = encryption.seal_part(number, stream, &mut put);
        let part = self.store.put_part(&bucket, &key, &upload, number, stream, put).await;
        let part = part.map_err(store_error)?;
        drop(seat);
        let mut output = UploadPartOutput { e_tag: Some(convert::etag(&part.etag)), ..UploadPartOutput::default() };
        set_checksums!(output, &told(&part.headers, announced.unwrap_or(scheme.algorithm)));
        tell_encryption!(output, &encryption);
        Ok(S3Response::new(output))
    }

    /// Reads the source and writes it as a part; deduplication finds its chunks again, so nothing is stored twice, unless either is encrypted.
    pub(super) async fn upload_part_copy(
        &self,
        request: S3Request<UploadPartCopyInput>,
    ) -> S3Result<S3Response<UploadPartCopyOutput>> {
        let source = Self::copy_source(&request, &request.input.copy_source).await?;
        let input = request.input;
        let (bucket, key) = (convert::bucket(&input.bucket)?, convert::key(&input.key)?);
        let (upload, number) = (convert::upload(&input.upload_id)?, part_number(input.part_number)?);
        let _seat = self.turns.write(&request.extensions).await?;
        let about = self.store.upload(&bucket, &key, &upload).await.map_err(store_error)?;
        let scheme = Scheme::of(&about.headers)?;
        let info = self.store.head_version(&source.bucket, &source.key, source.version).await;
        let info = info.map_err(|error| source.access.missing(store_error(error)))?;
        super::copy::part_conditions(&input).check(&info).map_err(super::copy::as_precondition)?;
        let opened = self.encryption_of(&source.bucket, &info, source_headers!(input))?;
        let encryption = self.encryption_of_upload(&bucket, &about, customer_headers!(input))?;
        let range = super::copy::part_range(input.copy_source_range.as_deref(), info.size)?;
        let replaced = || s3_error!(SlowDown, "The source was replaced while it was copied.");
        let (read, stream) = match self.store.get_version(&source.bucket, &source.key, source.version, range).await {
            // What was within the source that was seen lies outside of the one that is there now.
            Err(StoreError::InvalidRange { .. }) => return Err(replaced()),
            read => read.map_err(store_error)?,
        };
        if read != info {
            return Err(replaced());
        }
        let stream = opened.unseal(&source.bucket, &read, range.map_or(0, |range| range.start), stream)?;
        let length = range.map_or(info.size, |range| range.len());
        let (stream, late) = body::pass(stream, scheme.algorithm);
        let mut put = PutRequest { expected_bytes: Some(length), late, ..PutRequest::default() };
        let stream = encryption.seal_part(number, stream, &mut put);
        let part = self.store.put_part(&bucket, &key, &upload, number, stream, put).await;
        let part = part.map_err(store_error)?;
        let mut result = CopyPartResult {
            e_tag: Some(convert::etag(&part.etag)),
            last_modified: Some(convert::time(part.modified)),
            ..CopyPartResult::default()
        };
        if scheme.asked {
            set_checksums!(result, &part.headers);
        }
        let mut output = UploadPartCopyOutput {
            copy_part_result: Some(result),
            copy_source_version_id: convert::version_id(source.access.bucket(), info.version),
            ..UploadPartCopyOutput::default()
        };
        tell_encryption!(output, &encryption);
        Ok(S3Response::new(output))
    }

    pub(super) async fn complete_multipart_upload(
        &self,
        request: S3Request<CompleteMultipartUploadInput>,
    ) -> S3Result<S3Response<CompleteMultipartUploadOutput>> {
        let place = bucket_of(&request)?;
        let input = request.input;
        let (bucket, key) = (convert::bucket(&input.bucket)?, convert::key(&input.key)?);
        let upload = convert::upload(&input.upload_id)?;
        let customer = customer_headers!(input);
        if customer.is_some() {
            match self.store.upload(&bucket, &key, &upload).await {
                Ok(about) => drop(self.encryption_of_upload(&bucket, &about, customer)?),
                // It may be complete already.
                Err(StoreError::NoSuchUpload(_)) => {}
                Err(error) => return Err(store_error(error)),
            }
        }
        let precondition = convert::precondition(&place, input.if_match.as_ref(), input.if_none_match.as_ref());
        let whole = given_checksums!(input);
        let kind = input.checksum_type.as_ref().map(|kind| kind.as_str().to_owned());
        let size = convert::length(input.mpu_object_size)?;
        let named = input.multipart_upload.and_then(|upload| upload.parts).unwrap_or_default();
        if named.is_empty() {
            return Err(s3_error!(MalformedXML, "Name at least one part."));
        }
        let mut parts = Vec::with_capacity(named.len());
        let mut sums = BTreeMap::new();
        for part in named {
            let number = part_number(part.part_number.unwrap_or_default())?;
            sums.insert(number, given_checksums!(part));
            let etag = part.e_tag.ok_or_else(|| s3_error!(InvalidPart))?;
            parts.push((number, etag.value().trim_matches('"').to_owned()));
        }
        let sum_up = |about: &UploadInfo, parts: &[PartInfo]| {
            complete(about, parts, &Told { sums: &sums, whole: &whole, kind: kind.as_deref(), size })
        };
        let info = match self.store.complete_upload_as(&bucket, &key, &upload, &parts, &precondition, sum_up).await {
            Err(gone @ StoreError::NoSuchUpload(_)) => self.completed(&bucket, &key, upload, &parts).await.ok_or(gone),
            other => other,
        };
        let info = info.map_err(store_error)?;
        let mut output = CompleteMultipartUploadOutput {
            location: Some(format!("/{}/{}", input.bucket, convert::url_encode(&input.key))),
            bucket: Some(input.bucket),
            key: Some(input.key),
            e_tag: Some(convert::etag(&info.etag)),
            checksum_type: checksum::type_of(&info.headers),
            server_side_encryption: encryption::method_of(&info.headers),
            version_id: convert::version_id(&place, info.version),
            ..CompleteMultipartUploadOutput::default()
        };
        set_checksums!(output, &info.headers);
        Ok(S3Response::new(output))
    }

    /// The object that an upload became. Who did not hear the answer to a completion asks for it again, and is told the same.
    async fn completed(
        &self,
        bucket: &BucketName,
        key: &ObjectKey,
        upload: UploadId,
        parts: &[(u32, String)],
    ) -> Option<ObjectInfo> {
        let info = self.store.head(bucket, key).await.ok()?;
        let mut sums = Md5::new();
        for (_, etag) in parts {
            sums.update(hex::decode(etag).ok()?);
        }
        let etag = format!("{}-{}", hex::encode(sums.finalize()), parts.len());
        let is_it = info.headers.get(UPLOAD) == Some(&upload.to_string()) && info.etag == etag;
        is_it.then_some(info)
    }

    pub(super) async fn abort_multipart_upload(
        &self,
        request: S3Request<AbortMultipartUploadInput>,
    ) -> S3Result<S3Response<AbortMultipartUploadOutput>> {
        let input = request.input;
        let (bucket, key) = (convert::bucket(&input.bucket)?, convert::key(&input.key)?);
        self.store.abort_upload(&bucket, &key, &convert::upload(&input.upload_id)?).await.map_err(store_error)?;
        Ok(S3Response::new(AbortMultipartUploadOutput::default()))
    }

    pub(super) async fn list_parts(&self, request: S3Request<ListPartsInput>) -> S3Result<S3Response<ListPartsOutput>> {
        let place = bucket_of(&request)?;
        let input = request.input;
        let (bucket, key) = (convert::bucket(&input.bucket)?, convert::key(&input.key)?);
        let upload = convert::upload(&input.upload_id)?;
        let limit = page_limit(input.max_parts)?;
        let after = u32::try_from(input.part_number_marker.unwrap_or(0)).unwrap_or(0);
        let about = self.store.upload(&bucket, &key, &upload).await.map_err(store_error)?;
        let scheme = Scheme::of(&about.headers)?;
        let mut parts = self.store.list_parts(&bucket, &key, &upload).await.map_err(store_error)?;
        parts.retain(|part| part.number > after);
        let most = usize::try_from(limit).unwrap_or_default();
        let more = parts.len() > most;
        parts.truncate(most);
        let last = parts.last().and_then(|part| i32::try_from(part.number).ok());
        let parts = parts.iter().map(|part| {
            let mut listed = Part {
                part_number: i32::try_from(part.number).ok(),
                size: i64::try_from(part.size).ok(),
                e_tag: Some(convert::etag(&part.etag)),
                last_modified: Some(convert::time(part.modified)),
                ..Part::default()
            };
            if scheme.asked {
                set_checksums!(listed, &told(&part.headers, scheme.algorithm));
            }
            listed
        });
        Ok(S3Response::new(ListPartsOutput {
            parts: Some(parts.collect()),
            bucket: Some(input.bucket),
            key: Some(input.key),
            upload_id: Some(input.upload_id),
            is_truncated: Some(more),
            next_part_number_marker: if more { last } else { None },
            part_number_marker: input.part_number_marker,
            max_parts: Some(limit),
            owner: Some(owner(&place.owner)),
            initiator: Some(initiator(&place.owner)),
            checksum_algorithm: scheme.asked.then(|| ChecksumAlgorithm::from_static(scheme.algorithm.name())),
            checksum_type: scheme.asked.then(|| ChecksumType::from_static(scheme.kind())),
            storage_class: Some(storage_class(&about)),
            ..ListPartsOutput::default()
        }))
    }
}
