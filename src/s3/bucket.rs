//! Buckets.

use bytes::Bytes;
use s3s::dto::{
    Bucket, BucketCannedACL, BucketLocationConstraint, CreateBucketInput, CreateBucketOutput, DeleteBucketInput,
    DeleteBucketOutput, GetBucketLocationInput, GetBucketLocationOutput, HeadBucketInput, HeadBucketOutput,
    ListBucketsInput, ListBucketsOutput, Owner,
};
use s3s::{S3Error, S3ErrorCode, S3Request, S3Response, S3Result, s3_error};

use super::access::{bucket_of, caller};
use super::error::store_error;
use super::offered::check_acl;
use super::settings::{Setting, check_ownership};
use super::{Door, convert};
use crate::auth::Principal;
use crate::store::StoreError;

/// The one region there is; clients that ask are told this one, and any is accepted in a signature.
const REGION: &str = "us-east-1";
/// Most buckets in one answer.
const BUCKETS_MAX: usize = 1_000;

/// An owner as answers carry it.
pub(super) fn owner(name: &str) -> Owner {
    Owner { id: Some(name.to_owned()), display_name: Some(name.to_owned()) }
}

impl Door {
    pub(super) async fn create_bucket(
        &self,
        request: S3Request<CreateBucketInput>,
    ) -> S3Result<S3Response<CreateBucketOutput>> {
        let principal = caller(&request)?;
        let input = request.input;
        let grants = [&input.grant_full_control, &input.grant_read, &input.grant_read_acp, &input.grant_write_acp];
        let grants = grants.into_iter().chain([&input.grant_write]).any(Option::is_some);
        check_acl(input.acl.as_ref().map(BucketCannedACL::as_str), grants)?;
        input.object_ownership.as_ref().map_or(Ok(()), check_ownership)?;
        let object_lock = input.object_lock_enabled_for_bucket == Some(true);
        let name = input
            .bucket
            .parse()
            .map_err(|error| S3Error::with_message(S3ErrorCode::InvalidBucketName, format!("{error}")))?;
        match self.store.create_bucket_as(&name, principal.owner(), object_lock).await {
            Ok(()) => {}
            Err(StoreError::BucketExists { .. }) => {
                let info = self.store.bucket(&name).await.map_err(store_error)?;
                let mine = info.owner == principal.owner();
                return Err(if mine { s3_error!(BucketAlreadyOwnedByYou) } else { s3_error!(BucketAlreadyExists) });
            }
            Err(error) => return Err(store_error(error)),
        }
        let wanted = input.create_bucket_configuration.and_then(|wanted| wanted.location_constraint);
        if let Some(wanted) = wanted.filter(|wanted| !wanted.as_str().is_empty() && wanted.as_str() != REGION) {
            let constraint = Bytes::from(wanted.as_str().to_owned());
            let name_of = Setting::Location.name();
            self.store.set_setting(&name, name_of, Some(constraint)).await.map_err(store_error)?;
        }
        let location = Some(format!("/{name}"));
        Ok(S3Response::new(CreateBucketOutput { location, ..CreateBucketOutput::default() }))
    }

    pub(super) async fn delete_bucket(
        &self,
        request: S3Request<DeleteBucketInput>,
    ) -> S3Result<S3Response<DeleteBucketOutput>> {
        self.store.delete_bucket(&convert::bucket(&request.input.bucket)?).await.map_err(store_error)?;
        Ok(S3Response::new(DeleteBucketOutput {}))
    }

    /// The gate has found the bucket and its owner already.
    pub(super) fn head_bucket(_: &S3Request<HeadBucketInput>) -> S3Result<S3Response<HeadBucketOutput>> {
        let bucket_region = Some(REGION.to_owned());
        Ok(S3Response::new(HeadBucketOutput { bucket_region, ..HeadBucketOutput::default() }))
    }

    /// The constraint that the bucket was made with: there is one place, whatever it is called. S3 answers none for the usual region.
    pub(super) async fn get_bucket_location(
        &self,
        request: S3Request<GetBucketLocationInput>,
    ) -> S3Result<S3Response<GetBucketLocationOutput>> {
        let place = bucket_of(&request)?;
        let kept = self.store.setting(&place.name, Setting::Location.name()).await.map_err(store_error)?;
        let location_constraint =
            kept.and_then(|kept| String::from_utf8(kept.to_vec()).ok()).map(BucketLocationConstraint::from);
        Ok(S3Response::new(GetBucketLocationOutput { location_constraint }))
    }

    pub(super) async fn list_buckets(
        &self,
        request: S3Request<ListBucketsInput>,
    ) -> S3Result<S3Response<ListBucketsOutput>> {
        let principal: Principal = caller(&request)?;
        let input = request.input;
        let prefix = input.prefix.clone().unwrap_or_default();
        let after = input.continuation_token.unwrap_or_default();
        let most = input.max_buckets.and_then(|most| usize::try_from(most).ok()).unwrap_or(usize::MAX);
        let mut buckets = self.store.buckets().await.map_err(store_error)?;
        buckets.retain(|info| {
            !info.name.is_internal()
                && principal.may_use(&info.owner)
                && info.name.as_str().starts_with(&prefix)
                && info.name.as_str() > after.as_str()
        });
        let paged = input.max_buckets.is_some();
        let limit = if paged { most.clamp(1, BUCKETS_MAX) } else { usize::MAX };
        let more = buckets.len() > limit;
        buckets.truncate(limit);
        let continuation_token = if more { buckets.last().map(|info| info.name.to_string()) } else { None };
        let buckets = buckets.iter().map(|info| Bucket {
            name: Some(info.name.to_string()),
            creation_date: Some(convert::time(info.created)),
            bucket_region: paged.then(|| REGION.to_owned()),
            ..Bucket::default()
        });
        Ok(S3Response::new(ListBucketsOutput {
            buckets: Some(buckets.collect()),
            owner: Some(owner(principal.owner())),
            continuation_token,
            prefix: input.prefix,
        }))
    }
}
