//! Tags: of objects, kept as the query string in which clients send them, and the rules that sets of tags obey.

use std::collections::BTreeMap;

use s3s::dto::{
    DeleteObjectTaggingInput, DeleteObjectTaggingOutput, GetObjectTaggingInput, GetObjectTaggingOutput,
    PutObjectTaggingInput, PutObjectTaggingOutput, Tag,
};
use s3s::{S3Error, S3ErrorCode, S3Request, S3Response, S3Result, s3_error};

use super::Door;
use super::access::bucket_of;
use super::convert::{self, TAGGING};
use super::error::store_error;
use crate::model::{ObjectKey, VersionId};
use crate::store::BucketInfo;

/// Most tags of an object (S3).
const OBJECT_MAX: usize = 10;
/// Most tags of a bucket (S3).
pub(super) const BUCKET_MAX: usize = 50;
/// Longest key and value in characters (S3).
const KEY_MAX: usize = 128;
const VALUE_MAX: usize = 256;

/// A set of tags that obeys the rules.
pub(super) fn check(tags: &[Tag], most: usize) -> S3Result<Vec<(String, String)>> {
    let invalid = |text: String| Err(S3Error::with_message(S3ErrorCode::InvalidTag, text));
    if tags.len() > most {
        return invalid(format!("There can be at most {most} tags."));
    }
    let mut checked: Vec<(String, String)> = Vec::with_capacity(tags.len());
    for tag in tags {
        let (key, value) = (tag.key.clone().unwrap_or_default(), tag.value.clone().unwrap_or_default());
        if key.is_empty() || key.chars().count() > KEY_MAX {
            return invalid(format!("A tag's key has 1 to {KEY_MAX} characters."));
        }
        if value.chars().count() > VALUE_MAX {
            return invalid(format!("A tag's value has at most {VALUE_MAX} characters."));
        }
        if key.starts_with("aws:") {
            return invalid("Keys that begin with aws: are reserved.".to_owned());
        }
        let allowed = |c: char| c.is_alphanumeric() || c.is_whitespace() || "_.:/=+-@".contains(c);
        if !key.chars().chain(value.chars()).all(allowed) {
            return invalid("Tags consist of letters, digits, spaces and _ . : / = + - @".to_owned());
        }
        if checked.iter().any(|(there, _)| *there == key) {
            return invalid("Cannot provide multiple Tags with the same key".to_owned());
        }
        checked.push((key, value));
    }
    Ok(checked)
}

/// The tags of a header `x-amz-tagging`, as an object keeps them.
pub(super) fn from_header(header: Option<&str>) -> S3Result<BTreeMap<String, String>> {
    let Some(header) = header else { return Ok(BTreeMap::new()) };
    let tags = read(header);
    let mut keys: Vec<_> = tags.iter().map(|tag| tag.key.clone()).collect();
    keys.sort();
    if keys.windows(2).any(|pair| pair[0] == pair[1]) {
        return Err(s3_error!(
            InvalidArgument,
            "The header 'x-amz-tagging' shall be encoded as UTF-8 then URLEncoded URL query parameters without tag name duplicates."
        ));
    }
    Ok(kept(&check(&tags, OBJECT_MAX)?))
}

/// A checked set as an object keeps it; none is nothing.
fn kept(tags: &[(String, String)]) -> BTreeMap<String, String> {
    if tags.is_empty() {
        return BTreeMap::new();
    }
    let written =
        tags.iter().map(|(key, value)| format!("{}={}", convert::url_encode(key), convert::url_encode(value)));
    BTreeMap::from([(TAGGING.to_owned(), written.collect::<Vec<_>>().join("&"))])
}

/// The tags that an object keeps.
pub(super) fn of(headers: &BTreeMap<String, String>) -> Vec<Tag> {
    headers.get(TAGGING).map(|text| read(text)).unwrap_or_default()
}

/// How many tags an object keeps, for the answer; none is not told.
pub(super) fn count(headers: &BTreeMap<String, String>) -> Option<i32> {
    i32::try_from(of(headers).len()).ok().filter(|count| *count > 0)
}

fn read(text: &str) -> Vec<Tag> {
    let pairs = url::form_urlencoded::parse(text.as_bytes());
    pairs.map(|(key, value)| Tag { key: Some(key.into_owned()), value: Some(value.into_owned()) }).collect()
}

impl Door {
    pub(super) async fn get_object_tagging(
        &self,
        request: S3Request<GetObjectTaggingInput>,
    ) -> S3Result<S3Response<GetObjectTaggingOutput>> {
        let place = bucket_of(&request)?;
        let input = request.input;
        let (key, version) = convert::key_and_version(&input.key, input.version_id.as_deref())?;
        let info = self.store.head_version(&place.name, &key, version).await.map_err(store_error)?;
        let version_id = convert::version_id(&place, info.version);
        Ok(S3Response::new(GetObjectTaggingOutput { tag_set: of(&info.headers), version_id }))
    }

    pub(super) async fn put_object_tagging(
        &self,
        request: S3Request<PutObjectTaggingInput>,
    ) -> S3Result<S3Response<PutObjectTaggingOutput>> {
        let place = bucket_of(&request)?;
        let input = request.input;
        let tags = kept(&check(&input.tagging.tag_set, OBJECT_MAX)?);
        let named = convert::key_and_version(&input.key, input.version_id.as_deref())?;
        let version_id = self.set_tags(&place, named, &tags).await?;
        Ok(S3Response::new(PutObjectTaggingOutput { version_id }))
    }

    pub(super) async fn delete_object_tagging(
        &self,
        request: S3Request<DeleteObjectTaggingInput>,
    ) -> S3Result<S3Response<DeleteObjectTaggingOutput>> {
        let place = bucket_of(&request)?;
        let input = request.input;
        let named = convert::key_and_version(&input.key, input.version_id.as_deref())?;
        let version_id = self.set_tags(&place, named, &BTreeMap::new()).await?;
        let mut response = S3Response::new(DeleteObjectTaggingOutput { version_id });
        response.status = Some(hyper::StatusCode::NO_CONTENT);
        Ok(response)
    }

    async fn set_tags(
        &self,
        place: &BucketInfo,
        (key, version): (ObjectKey, Option<VersionId>),
        tags: &BTreeMap<String, String>,
    ) -> S3Result<Option<String>> {
        let change = |headers: &mut BTreeMap<String, String>| {
            headers.remove(TAGGING);
            headers.extend(tags.clone());
            Ok(())
        };
        let info = self.store.amend(&place.name, &key, version, change).await.map_err(store_error)?;
        Ok(convert::version_id(place, info.version))
    }
}

#[cfg(test)]
mod tests {
    //! Tags read back as they were given, and sets that break a rule are refused.
    use super::*;

    #[test]
    fn tags_read_back() {
        let kept = from_header(Some("colour=light%20blue&empty=&%C3%BC=%3D")).unwrap();
        let tags = of(&kept);
        assert_eq!(tags.len(), 3);
        assert_eq!(tags[0].value.as_deref(), Some("light blue"));
        assert_eq!((tags[2].key.as_deref(), tags[2].value.as_deref()), (Some("ü"), Some("=")));
        assert_eq!(count(&kept), Some(3));
        assert!(from_header(None).unwrap().is_empty() && count(&BTreeMap::new()).is_none());
    }

    #[test]
    fn rules_are_kept() {
        let tag = |key: &str, value: &str| Tag { key: Some(key.into()), value: Some(value.into()) };
        assert!(check(&[tag(&"k".repeat(128), &"v".repeat(256))], 10).is_ok());
        for wrong in
            [tag(&"k".repeat(129), ""), tag("k", &"v".repeat(257)), tag("", "v"), tag("aws:x", "v"), tag("a*", "")]
        {
            assert!(check(std::slice::from_ref(&wrong), 10).is_err(), "{wrong:?}");
        }
        assert!(check(&[tag("a", "1"), tag("a", "2")], 10).is_err());
        assert!(check(&vec![tag("a", "1"); 11], 10).is_err());
        assert!(from_header(Some("a=1&a=2")).is_err());
    }
}
