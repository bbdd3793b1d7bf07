//! Whether a bucket keeps versions, and which it has.

use s3s::dto::{
    BucketVersioningStatus, CommonPrefix, DeleteMarkerEntry, GetBucketVersioningInput, GetBucketVersioningOutput,
    ListObjectVersionsInput, ListObjectVersionsOutput, MFADelete, ObjectVersion, ObjectVersionStorageClass,
    PutBucketVersioningInput, PutBucketVersioningOutput,
};
use s3s::{S3Request, S3Response, S3Result, s3_error};

use super::access::bucket_of;
use super::bucket::owner;
use super::error::store_error;
use super::list::{Names, checksum_algorithms, page_limit};
use super::{Door, checksum, convert};
use crate::model::Versioning;
use crate::store::{ObjectInfo, VersionInfo, VersionListRequest};

fn version(version: &VersionInfo, names: Names, owned_by: &str) -> ObjectVersion {
    let info: &ObjectInfo = &version.info;
    let class = ObjectVersionStorageClass::from_static(ObjectVersionStorageClass::STANDARD);
    ObjectVersion {
        key: Some(names.write(info.key.as_str())),
        version_id: Some(info.version.id().to_string()),
        is_latest: Some(version.latest),
        last_modified: Some(convert::time(info.modified)),
        e_tag: Some(convert::etag(&info.etag)),
        size: i64::try_from(info.size).ok(),
        owner: Some(owner(owned_by)),
        storage_class: Some(convert::header(info, convert::STORAGE_CLASS).map_or(class, Into::into)),
        checksum_algorithm: checksum_algorithms(info),
        checksum_type: checksum::type_of(&info.headers),
        ..ObjectVersion::default()
    }
}

fn marker(version: &VersionInfo, names: Names, owned_by: &str) -> DeleteMarkerEntry {
    DeleteMarkerEntry {
        key: Some(names.write(version.info.key.as_str())),
        version_id: Some(version.info.version.id().to_string()),
        is_latest: Some(version.latest),
        last_modified: Some(convert::time(version.info.modified)),
        owner: Some(owner(owned_by)),
    }
}

impl Door {
    /// Clients ask before they list; a bucket that never had versions answers nothing.
    pub(super) fn get_bucket_versioning(
        request: &S3Request<GetBucketVersioningInput>,
    ) -> S3Result<S3Response<GetBucketVersioningOutput>> {
        let status = match bucket_of(request)?.versioning {
            Versioning::Off => None,
            Versioning::Enabled => Some(BucketVersioningStatus::ENABLED),
            Versioning::Suspended => Some(BucketVersioningStatus::SUSPENDED),
        };
        let status = status.map(BucketVersioningStatus::from_static);
        Ok(S3Response::new(GetBucketVersioningOutput { status, mfa_delete: None }))
    }

    pub(super) async fn put_bucket_versioning(
        &self,
        request: S3Request<PutBucketVersioningInput>,
    ) -> S3Result<S3Response<PutBucketVersioningOutput>> {
        let place = bucket_of(&request)?;
        let wanted = request.input.versioning_configuration;
        if wanted.mfa_delete.as_ref().is_some_and(|mfa| mfa.as_str() == MFADelete::ENABLED) {
            return Err(s3_error!(NotImplemented, "Multi-factor deletes are not offered; lock what must stay."));
        }
        let versioning = match wanted.status.as_ref().map(BucketVersioningStatus::as_str) {
            Some(BucketVersioningStatus::ENABLED) => Versioning::Enabled,
            Some(BucketVersioningStatus::SUSPENDED) => Versioning::Suspended,
            _ => return Err(s3_error!(MalformedXML, "Status is Enabled or Suspended.")),
        };
        self.store.set_versioning(&place.name, versioning).await.map_err(store_error)?;
        Ok(S3Response::new(PutBucketVersioningOutput::default()))
    }

    pub(super) async fn list_object_versions(
        &self,
        request: S3Request<ListObjectVersionsInput>,
    ) -> S3Result<S3Response<ListObjectVersionsOutput>> {
        let place = bucket_of(&request)?;
        let input = request.input;
        let names = Names::new(input.encoding_type.as_ref())?;
        let limit = page_limit(input.max_keys)?;
        let key_after = input.key_marker.clone().filter(|key| !key.is_empty());
        let version_after = input.version_id_marker.as_deref().filter(|id| !id.is_empty());
        if version_after.is_some() && key_after.is_none() {
            return Err(s3_error!(InvalidArgument, "A version-id marker cannot be specified without a key marker."));
        }
        let wanted = VersionListRequest {
            prefix: input.prefix.clone().unwrap_or_default(),
            delimiter: input.delimiter.clone().filter(|delimiter| !delimiter.is_empty()),
            key_after,
            version_after: convert::version(version_after)?,
            limit: usize::try_from(limit).unwrap_or_default(),
        };
        let page = self.store.list_versions(&place.name, &wanted).await.map_err(store_error)?;
        let (markers, versions): (Vec<_>, Vec<_>) = page.versions.iter().partition(|version| version.info.marker);
        let (next_key, next_id) = page.next.clone().unzip();
        let prefixes = page.prefixes.iter().map(|prefix| CommonPrefix { prefix: Some(names.write(prefix)) });
        Ok(S3Response::new(ListObjectVersionsOutput {
            versions: Some(versions.into_iter().map(|found| version(found, names, &place.owner)).collect()),
            delete_markers: Some(markers.into_iter().map(|found| marker(found, names, &place.owner)).collect()),
            common_prefixes: Some(prefixes.collect()),
            is_truncated: Some(page.next.is_some()),
            next_key_marker: next_key.map(|key| names.write(&key)),
            next_version_id_marker: next_id.flatten().map(|id| id.to_string()),
            key_marker: Some(names.write(&input.key_marker.unwrap_or_default())),
            version_id_marker: Some(input.version_id_marker.unwrap_or_default()),
            max_keys: Some(limit),
            name: Some(input.bucket),
            prefix: Some(names.write(&input.prefix.unwrap_or_default())),
            delimiter: input.delimiter.map(|delimiter| names.write(&delimiter)),
            encoding_type: input.encoding_type,
            ..ListObjectVersionsOutput::default()
        }))
    }
}
