//! Names, headers, times and conditions between S3's words and the store's.

use std::collections::BTreeMap;

use s3s::dto::{ETag, ETagCondition, Metadata, Timestamp as S3Time, TimestampFormat};
use s3s::{S3Error, S3ErrorCode, S3Result, s3_error};

use crate::auth::base64;
use crate::model::{BucketName, ObjectKey, UploadId, Version, VersionId, Versioning};
use crate::store::{BucketInfo, ObjectInfo, Precondition};
use crate::sys::clock::Timestamp;

/// Before the name of each of a user's own headers.
const USER_HEADER: &str = "x-amz-meta-";

/// Before the names of what the door keeps of an object for itself: never shown, never copied.
pub(super) const INTERNAL: &str = "x-bedplate-";

/// A bucket's name, or that of a snapshot of one; a name that neither can have names none.
pub(super) fn bucket(name: &str) -> S3Result<BucketName> {
    BucketName::parse_readable(name).map_err(|_| S3Error::new(S3ErrorCode::NoSuchBucket))
}

/// An object's key.
pub(super) fn key(key: &str) -> S3Result<ObjectKey> {
    key.parse().map_err(|_| S3Error::new(S3ErrorCode::KeyTooLongError))
}

/// An upload's id; one that was never given out names no upload.
pub(super) fn upload(id: &str) -> S3Result<UploadId> {
    id.parse().map_err(|_| S3Error::new(S3ErrorCode::NoSuchUpload))
}

/// A time as S3's answers carry it.
pub(super) fn time(at: Timestamp) -> S3Time {
    // The last moment that S3's dates can say.
    const LAST: u64 = 253_402_300_799_000;
    Timestamp(at.0.min(LAST)).system_time().into()
}

/// A time as HTTP's headers carry it.
pub(super) fn httpdate(at: Timestamp) -> String {
    let mut text = Vec::new();
    let written = time(at).format(TimestampFormat::HttpDate, &mut text);
    written.map(|()| String::from_utf8_lossy(&text).into_owned()).unwrap_or_default()
}

/// An ETag as S3's answers carry it.
pub(super) fn etag(text: &str) -> ETag {
    ETag::Strong(text.trim_matches('"').to_owned())
}

/// The MD5 of a `Content-MD5` header.
pub(super) fn md5(text: Option<&str>) -> S3Result<Option<[u8; 16]>> {
    let Some(text) = text else { return Ok(None) };
    let bytes = base64::decode(text.trim()).and_then(|bytes| <[u8; 16]>::try_from(bytes).ok());
    bytes.map(Some).ok_or_else(|| S3Error::new(S3ErrorCode::InvalidDigest))
}

/// A body's length.
pub(super) fn length(length: Option<i64>) -> S3Result<Option<u64>> {
    length.map(u64::try_from).transpose().map_err(|_| s3_error!(InvalidArgument, "Content-Length is negative."))
}

/// The conditions on a write: those of the request, and that the bucket is still the one that it was let into.
pub(super) fn precondition(
    place: &BucketInfo,
    if_match: Option<&ETagCondition>,
    if_none_match: Option<&ETagCondition>,
) -> Precondition {
    let if_match = if_match.map(|condition| match condition {
        ETagCondition::ETag(etag) => etag.value().trim_matches('"').to_owned(),
        ETagCondition::Any => "*".to_owned(),
    });
    let (if_none_match_any, if_none_match) = match if_none_match {
        None => (false, None),
        Some(ETagCondition::Any) => (true, None),
        Some(ETagCondition::ETag(etag)) => (false, Some(etag.value().trim_matches('"').to_owned())),
    };
    Precondition { bucket: Some(place.identity()), if_match, if_none_match_any, if_none_match }
}

/// Storage classes that are read at once; all are stored alike, and the class is a label.
const STORAGE_CLASSES: [&str; 6] =
    ["STANDARD", "REDUCED_REDUNDANCY", "STANDARD_IA", "ONEZONE_IA", "INTELLIGENT_TIERING", "GLACIER_IR"];
/// The label's name.
pub(super) const STORAGE_CLASS: &str = "x-amz-storage-class";
/// Where a website sends whoever asks for the object.
pub(super) const REDIRECT: &str = "x-amz-website-redirect-location";
/// Tags, as a query string.
pub(super) const TAGGING: &str = "x-amz-tagging";

/// The headers that an object keeps, as a request gives them.
#[derive(Default)]
pub(super) struct KeptHeaders<'a> {
    pub(super) cache_control: Option<&'a str>,
    pub(super) content_disposition: Option<&'a str>,
    pub(super) content_encoding: Option<&'a str>,
    pub(super) content_language: Option<&'a str>,
    pub(super) expires: Option<&'a str>,
    pub(super) storage_class: Option<&'a str>,
    pub(super) redirect: Option<&'a str>,
    pub(super) metadata: Option<&'a Metadata>,
}

/// The headers that a request gives an object to keep.
macro_rules! kept_headers {
    ($input:expr) => {
        $crate::s3::convert::KeptHeaders {
            cache_control: $input.cache_control.as_deref(),
            content_disposition: $input.content_disposition.as_deref(),
            content_encoding: $input.content_encoding.as_deref(),
            content_language: $input.content_language.as_deref(),
            expires: $input.expires.as_deref(),
            storage_class: $input.storage_class.as_ref().map(|class| class.as_str()),
            redirect: $input.website_redirect_location.as_deref(),
            metadata: $input.metadata.as_ref(),
        }
    };
}
pub(super) use kept_headers;

impl KeptHeaders<'_> {
    /// The map that the store keeps. `aws-chunked` is how the body travelled, not what it is.
    pub(super) fn into_map(self) -> S3Result<BTreeMap<String, String>> {
        let encoding = self.content_encoding.map(|codings| {
            let kept = codings.split(',').map(str::trim).filter(|coding| !coding.eq_ignore_ascii_case("aws-chunked"));
            kept.collect::<Vec<_>>().join(",")
        });
        if self.storage_class.is_some_and(|class| !STORAGE_CLASSES.contains(&class)) {
            return Err(s3_error!(
                InvalidStorageClass,
                "The storage class you specified is not valid; objects here are read at once."
            ));
        }
        let system = [
            ("cache-control", self.cache_control),
            ("content-disposition", self.content_disposition),
            ("content-encoding", encoding.as_deref().filter(|coding| !coding.is_empty())),
            ("content-language", self.content_language),
            ("expires", self.expires),
            (STORAGE_CLASS, self.storage_class.filter(|class| *class != STORAGE_CLASSES[0])),
            (REDIRECT, self.redirect),
        ];
        let system = system.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?.to_owned())));
        let user = self.metadata.into_iter().flatten();
        Ok(system.chain(user.map(|(name, value)| (format!("{USER_HEADER}{name}"), value.clone()))).collect())
    }
}

/// A version's id as a request gives it; absent or empty is the object as it is now.
pub(super) fn version(id: Option<&str>) -> S3Result<Option<VersionId>> {
    match id {
        None => Ok(None),
        Some("") => Err(s3_error!(InvalidArgument, "Version id cannot be the empty string")),
        Some(id) => id.parse().map(Some).map_err(|_| s3_error!(InvalidArgument, "Invalid version id specified")),
    }
}

/// What a request about an object, or about one of its versions, names.
pub(super) fn key_and_version(name: &str, id: Option<&str>) -> S3Result<(ObjectKey, Option<VersionId>)> {
    Ok((key(name)?, version(id)?))
}

/// The version's id as answers give it; none in a bucket that never kept versions.
pub(super) fn version_id(bucket: &BucketInfo, version: Version) -> Option<String> {
    (bucket.versioning != Versioning::Off).then(|| version.id().to_string())
}

/// A moment that a request gives.
pub(super) fn timestamp(at: &S3Time) -> Timestamp {
    let millis = time::OffsetDateTime::from(at.clone()).unix_timestamp_nanos() / 1_000_000;
    Timestamp(u64::try_from(millis).unwrap_or_default())
}

/// A kept system header.
pub(super) fn header(info: &ObjectInfo, name: &str) -> Option<String> {
    info.headers.get(name).cloned()
}

/// The user's own headers; `None` where there are none.
pub(super) fn metadata(info: &ObjectInfo) -> Option<Metadata> {
    let user = info
        .headers
        .iter()
        .filter_map(|(name, value)| Some((name.strip_prefix(USER_HEADER)?.to_owned(), value.clone())));
    let user: Metadata = user.collect();
    (!user.is_empty()).then_some(user)
}

/// Text as `encoding-type=url` wants it: everything escaped but unreserved characters and slashes.
pub(super) fn url_encode(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => char::from(byte).to_string(),
            _ => format!("%{byte:02X}"),
        })
        .collect()
}

/// Text out of a URL.
pub(super) fn url_decode(text: &str) -> S3Result<String> {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut rest = bytes.iter();
    while let Some(byte) = rest.next() {
        if *byte != b'%' {
            out.push(*byte);
            continue;
        }
        let digits = [rest.next(), rest.next()].map(|digit| digit.copied().unwrap_or_default());
        let mut decoded = [0];
        hex::decode_to_slice(digits, &mut decoded)
            .map_err(|_| s3_error!(InvalidArgument, "The source is not URL-encoded."))?;
        out.push(decoded[0]);
    }
    String::from_utf8(out).map_err(|_| s3_error!(InvalidArgument, "The source is not UTF-8."))
}

#[cfg(test)]
mod tests {
    //! Headers keep what they mean, digests are checked for form, and keys survive URL encoding.
    use super::*;

    #[test]
    fn transport_coding_is_not_kept() {
        let kept =
            |coding| KeptHeaders { content_encoding: Some(coding), ..KeptHeaders::default() }.into_map().unwrap();
        assert!(kept("aws-chunked").is_empty());
        assert_eq!(kept("gzip, aws-chunked")["content-encoding"], "gzip");
    }

    #[test]
    fn digests_have_sixteen_bytes() {
        assert_eq!(md5(Some("1B2M2Y8AsgTpgAmY7PhCfg==")).unwrap().unwrap()[0], 0xd4);
        assert!(md5(Some("AAAA")).is_err() && md5(Some("not base64")).is_err());
        assert_eq!(md5(None).unwrap(), None);
    }

    #[test]
    fn keys_are_url_encoded() {
        assert_eq!(url_encode("a/b c+ü"), "a/b%20c%2B%C3%BC");
    }
}
