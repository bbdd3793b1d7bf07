//! Deletes, one by one and in batches.

use futures_util::StreamExt as _;
use s3s::dto::{
    Delete, DeleteObjectInput, DeleteObjectOutput, DeleteObjectsInput, DeleteObjectsOutput, DeletedObject,
    ETagCondition, Error as DeleteFailure, ObjectIdentifier, Timestamp as S3Time,
};
use s3s::{S3Request, S3Response, S3Result, s3_error};

use super::access::{Access, bucket_of};
use super::error::store_error;
use super::{Door, convert};
use crate::model::{BucketName, VersionId};
use crate::store::{BucketInfo, DeleteRequest, Deleted};

/// Most keys in one batch delete (S3).
const BATCH_MAX: usize = 1_000;
/// Deletes under way at once for one batch.
const BATCH_WIDTH: usize = 16;

fn second(at: &S3Time) -> u64 {
    convert::timestamp(at).0 / 1_000
}

/// The version that an answer names: not that of a bucket that never kept versions.
fn named(place: &BucketInfo, deleted: Deleted) -> Option<VersionId> {
    deleted.version.filter(|_| place.versioning != crate::model::Versioning::Off)
}

impl Door {
    pub(super) async fn delete_object(
        &self,
        request: S3Request<DeleteObjectInput>,
    ) -> S3Result<S3Response<DeleteObjectOutput>> {
        let place = bucket_of(&request)?;
        let input = request.input;
        let (bucket, key) = (convert::bucket(&input.bucket)?, convert::key(&input.key)?);
        let wanted = DeleteRequest {
            version: convert::version(input.version_id.as_deref())?,
            if_match: input.if_match.as_ref().map(|condition| match condition {
                ETagCondition::ETag(etag) => etag.value().trim_matches('"').to_owned(),
                ETagCondition::Any => "*".to_owned(),
            }),
            if_modified: input.if_match_last_modified_time.as_ref().map(second),
            if_size: input.if_match_size.and_then(|size| u64::try_from(size).ok()),
            if_exactly: None,
            if_headers: None,
            if_placed: None,
            bypass_governance: input.bypass_governance_retention == Some(true),
        };
        // Deleting what is not there is done as well.
        let deleted = self.store.delete_as(&bucket, &key, &wanted).await.map_err(store_error)?;
        Ok(S3Response::new(DeleteObjectOutput {
            delete_marker: deleted.marker.then_some(true),
            version_id: named(&place, deleted).map(|id| id.to_string()),
            ..DeleteObjectOutput::default()
        }))
    }

    pub(super) async fn delete_objects(
        &self,
        request: S3Request<DeleteObjectsInput>,
    ) -> S3Result<S3Response<DeleteObjectsOutput>> {
        let place = bucket_of(&request)?;
        let access = request.extensions.get::<Access>().cloned();
        let input = request.input;
        let bucket = convert::bucket(&input.bucket)?;
        let bypass = input.bypass_governance_retention == Some(true);
        let Delete { objects, quiet } = input.delete;
        if objects.is_empty() || objects.len() > BATCH_MAX {
            return Err(s3_error!(MalformedXML, "A batch delete names 1 to 1,000 keys."));
        }
        let outcomes = futures_util::stream::iter(objects).map(|object| {
            let (bucket, access) = (&bucket, &access);
            async move {
                let deleted = self.delete_one(bucket, access.as_ref(), &object, bypass).await;
                (object, deleted)
            }
        });
        let outcomes: Vec<_> = outcomes.buffered(BATCH_WIDTH).collect().await;
        let (mut deleted, mut errors) = (Vec::new(), Vec::new());
        for (object, outcome) in outcomes {
            match outcome {
                Ok(outcome) => {
                    let id = named(&place, outcome).map(|id| id.to_string());
                    deleted.push(DeletedObject {
                        key: Some(object.key),
                        delete_marker: outcome.marker.then_some(true),
                        delete_marker_version_id: if outcome.marker { id } else { None },
                        version_id: object.version_id,
                    });
                }
                Err(error) => errors.push(DeleteFailure {
                    key: Some(object.key),
                    code: Some(error.code().as_str().to_owned()),
                    message: error.message().map(ToOwned::to_owned),
                    version_id: object.version_id,
                }),
            }
        }
        if quiet == Some(true) {
            deleted.clear();
        }
        Ok(S3Response::new(DeleteObjectsOutput {
            deleted: Some(deleted),
            errors: Some(errors),
            ..DeleteObjectsOutput::default()
        }))
    }

    async fn delete_one(
        &self,
        bucket: &BucketName,
        access: Option<&Access>,
        object: &ObjectIdentifier,
        bypass_governance: bool,
    ) -> S3Result<Deleted> {
        let action = if object.version_id.is_some() { "s3:DeleteObjectVersion" } else { "s3:DeleteObject" };
        let access = access.ok_or_else(|| s3_error!(AccessDenied))?;
        access.check(action, Some(&object.key))?;
        if bypass_governance {
            access.check("s3:BypassGovernanceRetention", Some(&object.key))?;
        }
        let wanted = DeleteRequest {
            version: convert::version(object.version_id.as_deref())?,
            if_match: object.e_tag.as_ref().map(|etag| etag.value().trim_matches('"').to_owned()),
            if_modified: object.last_modified_time.as_ref().map(second),
            if_size: object.size.and_then(|size| u64::try_from(size).ok()),
            if_exactly: None,
            if_headers: None,
            if_placed: None,
            bypass_governance,
        };
        self.store.delete_as(bucket, &convert::key(&object.key)?, &wanted).await.map_err(store_error)
    }
}
