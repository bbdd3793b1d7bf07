//! Writing an object in one piece.

use std::collections::BTreeMap;

use hyper::Method;
use s3s::dto::{PutObjectInput, PutObjectOutput};
use s3s::{S3Request, S3Response, S3Result, s3_error};

use super::access::{access_of, bucket_of};
use super::checksum::{self, Algorithm, set_checksums};
use super::convert::{self, kept_headers};
use super::encryption::{self, Encryption, encryption_wish, tell_encryption};
use super::error::store_error;
use super::lock::{self, lock_wish};
use super::offered::refuse_unoffered;
use super::{Door, body, tags};
use crate::store::{ObjectInfo, PutRequest, StoreError};

impl Door {
    pub(super) async fn put_object(&self, request: S3Request<PutObjectInput>) -> S3Result<S3Response<PutObjectOutput>> {
        let place = bucket_of(&request)?;
        if request.method == Method::POST {
            check_form(&request)?;
        }
        let input = request.input;
        refuse_unoffered!(input);
        let (bucket, key) = (convert::bucket(&input.bucket)?, convert::key(&input.key)?);
        let mut headers = kept_headers!(input).into_map()?;
        headers.extend(tags::from_header(input.tagging.as_deref())?);
        headers.extend(lock::for_write(&self.store, &place, lock_wish!(input)).await?);
        let kept = if input.write_offset_bytes.is_some() { headers.clone() } else { BTreeMap::new() };
        let encryption = self.encryption_for(&place, &key, &encryption_wish!(input), &Encryption::NONE).await?;
        let seat = self.turns.write_object(&request.extensions, &request.headers).await?;
        let (stream, late) =
            body::receive(input.body, &request.headers, request.trailing_headers, Algorithm::Crc64Nvme)?;
        let mut put = PutRequest {
            content_type: input.content_type.clone(),
            headers,
            precondition: convert::precondition(&place, input.if_match.as_ref(), input.if_none_match.as_ref()),
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
                if encryption.headers().is_some() {
                    return Err(s3_error!(NotImplemented, "{}", NO_ENCRYPTED_APPEND));
                }
                if offset > 0 && kept.keys().any(|name| !lock::is_lock(name)) {
                    return Err(s3_error!(
                        NotImplemented,
                        "An append keeps the object's metadata and tags as they are."
                    ));
                }
                let offset = convert::length(Some(offset))?.unwrap_or_default();
                let longer = |info: &_, added: &_, bytes| longer(info, added, bytes, &kept);
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
}

/// A form names its key, and all else that it asks for, in its fields: the gate has seen none of them.
fn check_form(request: &S3Request<PutObjectInput>) -> S3Result<()> {
    let (access, input) = (access_of(request)?, &request.input);
    let asks = [
        (true, "s3:PutObject"),
        (input.tagging.is_some(), "s3:PutObjectTagging"),
        (input.object_lock_mode.is_some() || input.object_lock_retain_until_date.is_some(), "s3:PutObjectRetention"),
        (input.object_lock_legal_hold_status.is_some(), "s3:PutObjectLegalHold"),
    ];
    asks.into_iter().filter(|(asks, _)| *asks).try_for_each(|(_, action)| access.check(action, Some(&input.key)))
}

/// Why an encrypted object is not appended to.
const NO_ENCRYPTED_APPEND: &str =
    "Encrypted objects are not appended to: what is appended would need a key of its own.";

/// What an object keeps once bytes were appended to it: of its checksum, what the two add up to; of locks, those of the append.
fn longer(
    info: &ObjectInfo,
    added: &BTreeMap<String, String>,
    bytes: u64,
    kept: &BTreeMap<String, String>,
) -> Result<BTreeMap<String, String>, StoreError> {
    if info.headers.keys().any(|name| encryption::is_own(name)) {
        return Err(StoreError::Unfit(NO_ENCRYPTED_APPEND));
    }
    let mut headers = info.headers.clone();
    headers.retain(|name, _| !name.starts_with(checksum::PREFIX) && !lock::is_lock(name));
    headers.extend(checksum::added(&info.headers, added, bytes));
    headers
        .extend(kept.iter().filter(|(name, _)| lock::is_lock(name)).map(|(name, value)| (name.clone(), value.clone())));
    Ok(headers)
}
