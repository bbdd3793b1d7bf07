//! Writing an object in one piece.

use s3s::dto::{PutObjectInput, PutObjectOutput};
use s3s::{S3Request, S3Response, S3Result};

use super::access::bucket_of;
use super::checksum::{self, Algorithm, set_checksums};
use super::convert::{self, kept_headers};
use super::error::store_error;
use super::lock::{self, lock_wish};
use super::offered::refuse_unoffered;
use super::{Door, body, tags};
use crate::store::PutRequest;

impl Door {
    pub(super) async fn put_object(&self, request: S3Request<PutObjectInput>) -> S3Result<S3Response<PutObjectOutput>> {
        let place = bucket_of(&request)?;
        let input = request.input;
        refuse_unoffered!(input);
        if input.write_offset_bytes.is_some() {
            return Err(s3s::s3_error!(NotImplemented, "Appending is not offered."));
        }
        let (bucket, key) = (convert::bucket(&input.bucket)?, convert::key(&input.key)?);
        let mut headers = kept_headers!(input).into_map()?;
        headers.extend(tags::from_header(input.tagging.as_deref())?);
        headers.extend(lock::for_write(&self.store, &place, lock_wish!(input)).await?);
        let seat = self.turns.write_object(&request.extensions, &request.headers).await?;
        let (stream, late) =
            body::receive(input.body, &request.headers, request.trailing_headers, Algorithm::Crc64Nvme)?;
        let put = PutRequest {
            content_type: input.content_type.clone(),
            headers,
            precondition: convert::precondition(input.if_match.as_ref(), input.if_none_match.as_ref()),
            expected_bytes: convert::length(input.content_length)?,
            expected_md5: convert::md5(input.content_md5.as_deref())?,
            late: late.clone(),
        };
        let info = self.store.put(&bucket, &key, stream, put).await.map_err(store_error)?;
        drop(seat);
        let late = late.get();
        let mut output = PutObjectOutput {
            e_tag: Some(convert::etag(&info.etag)),
            checksum_type: checksum::type_of(&late),
            expiration: self.expiration(&place, &info).await?,
            version_id: convert::version_id(&place, info.version),
            ..PutObjectOutput::default()
        };
        set_checksums!(output, late);
        Ok(S3Response::new(output))
    }
}
