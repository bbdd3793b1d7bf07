//! Multipart uploads.

use s3s::dto::{
    AbortMultipartUploadInput, AbortMultipartUploadOutput, CompleteMultipartUploadInput, CompleteMultipartUploadOutput,
    CopyPartResult, CreateMultipartUploadInput, CreateMultipartUploadOutput, ListMultipartUploadsInput,
    ListMultipartUploadsOutput, ListPartsInput, ListPartsOutput, MultipartUpload, Part, StorageClass,
    UploadPartCopyInput, UploadPartCopyOutput, UploadPartInput, UploadPartOutput,
};
use s3s::{S3Request, S3Response, S3Result, s3_error};

use super::convert::{self, KeptHeaders};
use super::error::store_error;
use super::list::{Names, page_limit};
use super::object::refuse_unoffered;
use super::{Door, body};
use crate::model::limit;
use crate::store::PutRequest;

fn part_number(number: i32) -> S3Result<u32> {
    match u32::try_from(number) {
        Ok(number) if (1..=limit::PARTS_MAX).contains(&number) => Ok(number),
        _ => Err(s3_error!(InvalidArgument, "Part number must be an integer between 1 and 10000, inclusive")),
    }
}

fn standard() -> StorageClass {
    StorageClass::from_static(StorageClass::STANDARD)
}

impl Door {
    pub(super) async fn create_multipart_upload(
        &self,
        request: S3Request<CreateMultipartUploadInput>,
    ) -> S3Result<S3Response<CreateMultipartUploadOutput>> {
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
        let put =
            PutRequest { content_type: input.content_type.clone(), headers: kept.into_map(), ..PutRequest::default() };
        let upload = self.store.create_upload(&bucket, &key, put).await.map_err(store_error)?;
        Ok(S3Response::new(CreateMultipartUploadOutput {
            bucket: Some(input.bucket),
            key: Some(input.key),
            upload_id: Some(upload.to_string()),
            checksum_algorithm: input.checksum_algorithm,
            checksum_type: input.checksum_type,
            ..CreateMultipartUploadOutput::default()
        }))
    }

    pub(super) async fn upload_part(
        &self,
        request: S3Request<UploadPartInput>,
    ) -> S3Result<S3Response<UploadPartOutput>> {
        refuse_unoffered(&request.headers)?;
        let input = request.input;
        let (bucket, key) = (convert::bucket(&input.bucket)?, convert::key(&input.key)?);
        let (upload, number) = (convert::upload(&input.upload_id)?, part_number(input.part_number)?);
        let put = PutRequest {
            expected_bytes: convert::length(input.content_length)?,
            expected_md5: convert::md5(input.content_md5.as_deref())?,
            ..PutRequest::default()
        };
        let _seat = self.turns.write(&request.extensions).await?;
        let (stream, verified) = body::receive(input.body, &request.headers, request.trailing_headers);
        let part = self.store.put_part(&bucket, &key, &upload, number, stream, put).await;
        let part = part.map_err(store_error)?;
        let checksum = verified.take();
        Ok(S3Response::new(UploadPartOutput {
            e_tag: Some(convert::etag(&part.etag)),
            checksum_crc32: checksum.checksum_crc32,
            checksum_crc32c: checksum.checksum_crc32c,
            checksum_crc64nvme: checksum.checksum_crc64nvme,
            checksum_sha1: checksum.checksum_sha1,
            checksum_sha256: checksum.checksum_sha256,
            ..UploadPartOutput::default()
        }))
    }

    /// Reads the source and writes it as a part; deduplication finds its chunks again, so nothing is stored twice.
    pub(super) async fn upload_part_copy(
        &self,
        request: S3Request<UploadPartCopyInput>,
    ) -> S3Result<S3Response<UploadPartCopyOutput>> {
        let source = self.copy_source(&request, &request.input.copy_source).await?;
        let input = request.input;
        let (bucket, key) = (convert::bucket(&input.bucket)?, convert::key(&input.key)?);
        let (upload, number) = (convert::upload(&input.upload_id)?, part_number(input.part_number)?);
        let _seat = self.turns.write(&request.extensions).await?;
        let info = self.store.head(&source.bucket, &source.key).await.map_err(store_error)?;
        super::copy::part_conditions(&input).check(&info).map_err(super::copy::as_precondition)?;
        let range = super::copy::part_range(input.copy_source_range.as_deref(), info.size)?;
        let (read, stream) = self.store.get(&source.bucket, &source.key, range).await.map_err(store_error)?;
        if read.etag != info.etag {
            return Err(s3_error!(PreconditionFailed, "The source was replaced while it was copied."));
        }
        let length = range.map_or(info.size, |range| range.len());
        let put = PutRequest { expected_bytes: Some(length), ..PutRequest::default() };
        let part = self.store.put_part(&bucket, &key, &upload, number, stream, put).await;
        let part = part.map_err(store_error)?;
        Ok(S3Response::new(UploadPartCopyOutput {
            copy_part_result: Some(CopyPartResult {
                e_tag: Some(convert::etag(&part.etag)),
                last_modified: Some(convert::time(part.modified)),
                ..CopyPartResult::default()
            }),
            ..UploadPartCopyOutput::default()
        }))
    }

    pub(super) async fn complete_multipart_upload(
        &self,
        request: S3Request<CompleteMultipartUploadInput>,
    ) -> S3Result<S3Response<CompleteMultipartUploadOutput>> {
        let input = request.input;
        let (bucket, key) = (convert::bucket(&input.bucket)?, convert::key(&input.key)?);
        let upload = convert::upload(&input.upload_id)?;
        let precondition = convert::precondition(input.if_match.as_ref(), input.if_none_match.as_ref())?;
        let named = input.multipart_upload.and_then(|upload| upload.parts).unwrap_or_default();
        if named.is_empty() {
            return Err(s3_error!(MalformedXML, "Name at least one part."));
        }
        let mut parts = Vec::with_capacity(named.len());
        for part in named {
            let number = part_number(part.part_number.unwrap_or_default())?;
            let etag = part.e_tag.ok_or_else(|| s3_error!(InvalidPart))?;
            parts.push((number, etag.value().trim_matches('"').to_owned()));
        }
        let info = self.store.complete_upload(&bucket, &key, &upload, &parts, &precondition).await;
        let info = info.map_err(store_error)?;
        Ok(S3Response::new(CompleteMultipartUploadOutput {
            location: Some(format!("/{}/{}", input.bucket, convert::url_encode(&input.key))),
            bucket: Some(input.bucket),
            key: Some(input.key),
            e_tag: Some(convert::etag(&info.etag)),
            ..CompleteMultipartUploadOutput::default()
        }))
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
        let input = request.input;
        let (bucket, key) = (convert::bucket(&input.bucket)?, convert::key(&input.key)?);
        let upload = convert::upload(&input.upload_id)?;
        let limit = page_limit(input.max_parts)?;
        let after = u32::try_from(input.part_number_marker.unwrap_or(0)).unwrap_or(0);
        let mut parts = self.store.list_parts(&bucket, &key, &upload).await.map_err(store_error)?;
        parts.retain(|part| part.number > after);
        let most = usize::try_from(limit).unwrap_or_default();
        let more = parts.len() > most;
        parts.truncate(most);
        let last = parts.last().and_then(|part| i32::try_from(part.number).ok());
        let parts = parts.iter().map(|part| Part {
            part_number: i32::try_from(part.number).ok(),
            size: i64::try_from(part.size).ok(),
            e_tag: Some(convert::etag(&part.etag)),
            last_modified: Some(convert::time(part.modified)),
            ..Part::default()
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
            storage_class: Some(standard()),
            ..ListPartsOutput::default()
        }))
    }

    pub(super) async fn list_multipart_uploads(
        &self,
        request: S3Request<ListMultipartUploadsInput>,
    ) -> S3Result<S3Response<ListMultipartUploadsOutput>> {
        let input = request.input;
        let names = Names::new(input.encoding_type.as_ref())?;
        let limit = page_limit(input.max_uploads)?;
        if input.delimiter.as_deref().is_some_and(|delimiter| !delimiter.is_empty()) {
            return Err(s3_error!(NotImplemented, "Uploads are listed without a delimiter."));
        }
        let bucket = convert::bucket(&input.bucket)?;
        let prefix = input.prefix.clone().unwrap_or_default();
        let mut uploads = self.store.list_uploads(&bucket).await.map_err(store_error)?;
        uploads.sort_by(|a, b| (a.key.as_str(), a.id).cmp(&(b.key.as_str(), b.id)));
        let key_marker = input.key_marker.clone().unwrap_or_default();
        let id_marker = input.upload_id_marker.clone().filter(|id| !id.is_empty());
        uploads.retain(|upload| {
            let key = upload.key.as_str();
            let after = match &id_marker {
                Some(id) => (key, upload.id.to_string()) > (key_marker.as_str(), id.clone()),
                None => key_marker.is_empty() || key > key_marker.as_str(),
            };
            after && key.starts_with(&prefix)
        });
        let most = usize::try_from(limit).unwrap_or_default();
        let more = uploads.len() > most;
        uploads.truncate(most);
        let last = uploads.last().filter(|_| more).map(|upload| (upload.key.to_string(), upload.id.to_string()));
        let uploads = uploads.iter().map(|upload| MultipartUpload {
            key: Some(names.write(upload.key.as_str())),
            upload_id: Some(upload.id.to_string()),
            initiated: Some(convert::time(upload.created)),
            storage_class: Some(standard()),
            ..MultipartUpload::default()
        });
        let (next_key, next_id) = last.unzip();
        Ok(S3Response::new(ListMultipartUploadsOutput {
            uploads: Some(uploads.collect()),
            bucket: Some(input.bucket),
            is_truncated: Some(more),
            next_key_marker: next_key.map(|key| names.write(&key)),
            next_upload_id_marker: next_id,
            key_marker: Some(names.write(&key_marker)),
            upload_id_marker: input.upload_id_marker,
            max_uploads: Some(limit),
            prefix: Some(names.write(&prefix)),
            encoding_type: input.encoding_type,
            ..ListMultipartUploadsOutput::default()
        }))
    }
}
