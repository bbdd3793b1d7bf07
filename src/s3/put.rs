//! Writing an object in one piece.

use std::collections::BTreeMap;

use s3s::dto::{PutObjectInput, PutObjectOutput};
use s3s::{S3Request, S3Response, S3Result, s3_error};

use super::access::bucket_of;
use super::checksum::{self, Algorithm, set_checksums};
use super::convert::{self, kept_headers};
use super::encryption::{self, Encryption, encryption_wish, tell_encryption};
use super::error::store_error;
use super::lock::{self, lock_wish};
use super::offered::refuse_unoffered;
use super::{Door, body, tags};
use crate::model::{BucketName, ObjectKey};
use crate::store::{ObjectInfo, PutRequest};

impl Door {
    pub(super) async fn put_object(&self, request: S3Request<PutObjectInput>) -> S3Result<S3Response<PutObjectOutput>> {
        let place = bucket_of(&request)?;
        let input = request.input;
        refuse_unoffered!(input);
        let (bucket, key) = (convert::bucket(&input.bucket)?, convert::key(&input.key)?);
        let mut headers = kept_headers!(input).into_map()?;
        headers.extend(tags::from_header(input.tagging.as_deref())?);
        headers.extend(lock::for_write(&self.store, &place, lock_wish!(input)).await?);
        let encryption = self.encryption_for(&place, &key, &encryption_wish!(input), &Encryption::NONE).await?;
        let seat = self.turns.write(&request.extensions).await?;
        let (stream, late) =
            body::receive(input.body, &request.headers, request.trailing_headers, Algorithm::Crc64Nvme)?;
        let mut put = PutRequest {
            content_type: input.content_type.clone(),
            headers,
            precondition: convert::precondition(input.if_match.as_ref(), input.if_none_match.as_ref()),
            expected_bytes: convert::length(input.content_length)?,
            expected_md5: convert::md5(input.content_md5.as_deref())?,
            late: late.clone(),
            ..PutRequest::default()
        };
        let written = match input.write_offset_bytes {
            None => {
                let stream = encryption.seal(stream, &mut put);
                self.store.put(&bucket, &key, stream, put).await
            }
            Some(offset) => {
                self.refuse_encrypted(&bucket, &key, &encryption).await?;
                let offset = convert::length(Some(offset))?.unwrap_or_default();
                self.store.append(&bucket, &key, offset, stream, put, longer).await
            }
        };
        let info = written.map_err(store_error)?;
        drop(seat);
        let late = late.get();
        let mut output = PutObjectOutput {
            e_tag: Some(convert::etag(&info.etag)),
            size: input.write_offset_bytes.and_then(|_| i64::try_from(info.size).ok()),
            checksum_type: checksum::type_of(&late),
            expiration: self.expiration(&place, &info).await?,
            version_id: convert::version_id(&place, info.version),
            ..PutObjectOutput::default()
        };
        set_checksums!(output, late);
        tell_encryption!(output, &encryption);
        Ok(S3Response::new(output))
    }

    /// Refuses to append where the key or the bytes are encrypted: what is appended would need a key and a nonce of its own.
    async fn refuse_encrypted(&self, bucket: &BucketName, key: &ObjectKey, wanted: &Encryption) -> S3Result<()> {
        let there = self.store.head(bucket, key).await;
        let is_encrypted = there.is_ok_and(|info| info.headers.keys().any(|name| encryption::is_own(name)));
        if wanted.headers().is_some() || is_encrypted {
            return Err(s3_error!(NotImplemented, "Encrypted objects are not appended to."));
        }
        Ok(())
    }
}

/// What an object keeps once bytes were appended to it: of its checksum, what the two add up to.
fn longer(info: &ObjectInfo, added: &BTreeMap<String, String>, bytes: u64) -> BTreeMap<String, String> {
    let mut headers = info.headers.clone();
    headers.retain(|name, _| !name.starts_with(checksum::PREFIX));
    headers.extend(checksum::added(&info.headers, added, bytes));
    headers
}
