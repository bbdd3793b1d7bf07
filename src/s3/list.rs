//! Listings: version 2 and version 1 over one walk of the store.

use s3s::dto::{
    ChecksumAlgorithm, CommonPrefix, EncodingType, ListObjectsInput, ListObjectsOutput, ListObjectsV2Input,
    ListObjectsV2Output, Object, ObjectStorageClass,
};
use s3s::{S3Request, S3Response, S3Result, s3_error};

use super::Door;
use super::bucket::owner;
use super::error::store_error;
use super::{checksum, convert};
use crate::store::{ListPage, ListRequest, ObjectInfo};

/// Most keys and prefixes in one answer (S3).
const PAGE_MAX: i32 = 1_000;

/// How names are written in one answer.
#[derive(Clone, Copy)]
pub(super) struct Names {
    url: bool,
}

impl Names {
    /// As the request asks.
    pub(super) fn new(encoding: Option<&EncodingType>) -> S3Result<Self> {
        match encoding.map(EncodingType::as_str) {
            None => Ok(Self { url: false }),
            Some(EncodingType::URL) => Ok(Self { url: true }),
            Some(_) => Err(s3_error!(InvalidArgument, "The only encoding-type is url.")),
        }
    }

    /// A name in the answer.
    pub(super) fn write(self, name: &str) -> String {
        if self.url { convert::url_encode(name) } else { name.to_owned() }
    }
}

/// The number of entries that an answer may have.
pub(super) fn page_limit(asked: Option<i32>) -> S3Result<i32> {
    match asked.unwrap_or(PAGE_MAX) {
        negative if negative < 0 => Err(s3_error!(InvalidArgument, "A page cannot have fewer than 0 entries.")),
        limit => Ok(limit.min(PAGE_MAX)),
    }
}

fn object(info: &ObjectInfo, names: Names, owned_by: Option<&str>) -> Object {
    Object {
        key: Some(names.write(info.key.as_str())),
        size: i64::try_from(info.size).ok(),
        e_tag: Some(convert::etag(&info.etag)),
        last_modified: Some(convert::time(info.modified)),
        owner: owned_by.map(owner),
        storage_class: Some(storage_class(info)),
        checksum_algorithm: checksum_algorithms(info),
        checksum_type: checksum::type_of(&info.headers),
        ..Object::default()
    }
}

/// The class as lists give it.
fn storage_class(info: &ObjectInfo) -> ObjectStorageClass {
    let usual = ObjectStorageClass::from_static(ObjectStorageClass::STANDARD);
    convert::header(info, convert::STORAGE_CLASS).map_or(usual, ObjectStorageClass::from)
}

/// The algorithm of an object's checksum, as lists give it.
pub(super) fn checksum_algorithms(info: &ObjectInfo) -> Option<Vec<ChecksumAlgorithm>> {
    checksum::algorithm_of(&info.headers).map(|algorithm| vec![ChecksumAlgorithm::from_static(algorithm.name())])
}

fn prefixes(page: &ListPage, names: Names) -> Vec<CommonPrefix> {
    page.prefixes.iter().map(|prefix| CommonPrefix { prefix: Some(names.write(prefix)) }).collect()
}

/// A continuation token is the key to go on after, in hexadecimal digits: keys may hold what headers and XML may not.
fn token_to_key(token: &str) -> S3Result<String> {
    let key = hex::decode(token).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    key.ok_or_else(|| s3_error!(InvalidArgument, "The continuation token is not one of ours."))
}

impl Door {
    /// One page; an answer of no entries is complete.
    async fn page(&self, bucket: &str, request: ListRequest) -> S3Result<ListPage> {
        let bucket = convert::bucket(bucket)?;
        if request.limit == 0 {
            return Ok(ListPage::default());
        }
        self.store.list(&bucket, &request).await.map_err(store_error)
    }

    pub(super) async fn list_objects_v2(
        &self,
        request: S3Request<ListObjectsV2Input>,
    ) -> S3Result<S3Response<ListObjectsV2Output>> {
        let input = request.input;
        let names = Names::new(input.encoding_type.as_ref())?;
        let limit = page_limit(input.max_keys)?;
        let after = match &input.continuation_token {
            Some(token) => Some(token_to_key(token)?),
            None => input.start_after.clone(),
        };
        let wanted = ListRequest {
            prefix: input.prefix.clone().unwrap_or_default(),
            delimiter: input.delimiter.clone().filter(|delimiter| !delimiter.is_empty()),
            start_after: after.filter(|key| !key.is_empty()),
            limit: usize::try_from(limit).unwrap_or_default(),
        };
        let page = self.page(&input.bucket, wanted).await?;
        let owned_by = if input.fetch_owner == Some(true) {
            Some(self.store.bucket(&convert::bucket(&input.bucket)?).await.map_err(store_error)?.owner)
        } else {
            None
        };
        let contents: Vec<_> = page.objects.iter().map(|info| object(info, names, owned_by.as_deref())).collect();
        let common_prefixes = prefixes(&page, names);
        Ok(S3Response::new(ListObjectsV2Output {
            key_count: i32::try_from(contents.len() + common_prefixes.len()).ok(),
            contents: Some(contents),
            common_prefixes: Some(common_prefixes),
            is_truncated: Some(page.next.is_some()),
            next_continuation_token: page.next.map(hex::encode),
            max_keys: Some(limit),
            name: Some(input.bucket),
            prefix: Some(names.write(&input.prefix.unwrap_or_default())),
            delimiter: input.delimiter.map(|delimiter| names.write(&delimiter)),
            start_after: input.start_after.map(|key| names.write(&key)),
            continuation_token: input.continuation_token,
            encoding_type: input.encoding_type,
            ..ListObjectsV2Output::default()
        }))
    }

    pub(super) async fn list_objects(
        &self,
        request: S3Request<ListObjectsInput>,
    ) -> S3Result<S3Response<ListObjectsOutput>> {
        let input = request.input;
        let names = Names::new(input.encoding_type.as_ref())?;
        let limit = page_limit(input.max_keys)?;
        let wanted = ListRequest {
            prefix: input.prefix.clone().unwrap_or_default(),
            delimiter: input.delimiter.clone().filter(|delimiter| !delimiter.is_empty()),
            start_after: input.marker.clone().filter(|key| !key.is_empty()),
            limit: usize::try_from(limit).unwrap_or_default(),
        };
        let page = self.page(&input.bucket, wanted).await?;
        let owned_by = self.store.bucket(&convert::bucket(&input.bucket)?).await.map_err(store_error)?.owner;
        Ok(S3Response::new(ListObjectsOutput {
            contents: Some(page.objects.iter().map(|info| object(info, names, Some(&owned_by))).collect()),
            common_prefixes: Some(prefixes(&page, names)),
            is_truncated: Some(page.next.is_some()),
            next_marker: page.next.map(|key| names.write(&key)),
            max_keys: Some(limit),
            name: Some(input.bucket),
            prefix: Some(names.write(&input.prefix.unwrap_or_default())),
            marker: Some(names.write(&input.marker.unwrap_or_default())),
            delimiter: input.delimiter.map(|delimiter| names.write(&delimiter)),
            encoding_type: input.encoding_type,
            ..ListObjectsOutput::default()
        }))
    }
}
