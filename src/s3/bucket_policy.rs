//! Bucket policies: set, read, and whether they are public.

use bytes::Bytes;
use s3s::dto::{
    DeleteBucketPolicyInput, DeleteBucketPolicyOutput, GetBucketPolicyInput, GetBucketPolicyOutput,
    GetBucketPolicyStatusInput, GetBucketPolicyStatusOutput, PolicyStatus, PublicAccessBlockConfiguration,
    PutBucketPolicyInput, PutBucketPolicyOutput,
};
use s3s::{S3Error, S3ErrorCode, S3Request, S3Response, S3Result, s3_error};

use super::Door;
use super::access::bucket_of;
use super::error::{internal, store_error};
use super::settings::{self, Setting};
use crate::auth::policy::Policy;
use crate::model::BucketName;

impl Door {
    async fn policy_text(&self, bucket: &BucketName) -> S3Result<Bytes> {
        let found = self.store.setting(bucket, Setting::Policy.name()).await.map_err(store_error)?;
        found.ok_or_else(|| s3_error!(NoSuchBucketPolicy, "The bucket policy does not exist"))
    }

    pub(super) async fn get_bucket_policy(
        &self,
        request: S3Request<GetBucketPolicyInput>,
    ) -> S3Result<S3Response<GetBucketPolicyOutput>> {
        let text = self.policy_text(&bucket_of(&request)?.name).await?;
        let policy = Some(String::from_utf8_lossy(&text).into_owned());
        Ok(S3Response::new(GetBucketPolicyOutput { policy }))
    }

    pub(super) async fn put_bucket_policy(
        &self,
        request: S3Request<PutBucketPolicyInput>,
    ) -> S3Result<S3Response<PutBucketPolicyOutput>> {
        let place = bucket_of(&request)?;
        let text = request.input.policy;
        let policy = Policy::parse(text.as_bytes(), place.name.as_str())
            .map_err(|error| S3Error::with_message(S3ErrorCode::MalformedPolicy, error.to_string()))?;
        if policy.is_public() {
            let block = Setting::PublicAccessBlock;
            let block = settings::read::<PublicAccessBlockConfiguration>(&self.store, &place.name, block).await?;
            if block.is_some_and(|block| block.block_public_policy == Some(true)) {
                let text = "The policy is public, and the bucket's public access block refuses public policies.";
                return Err(S3Error::with_message(S3ErrorCode::AccessDenied, text));
            }
        }
        let text = Some(Bytes::from(text));
        self.store.set_setting(&place.name, Setting::Policy.name(), text).await.map_err(store_error)?;
        Ok(S3Response::new(PutBucketPolicyOutput::default()))
    }

    pub(super) async fn delete_bucket_policy(
        &self,
        request: S3Request<DeleteBucketPolicyInput>,
    ) -> S3Result<S3Response<DeleteBucketPolicyOutput>> {
        settings::remove(&self.store, &bucket_of(&request)?.name, Setting::Policy).await?;
        Ok(S3Response::new(DeleteBucketPolicyOutput::default()))
    }

    pub(super) async fn get_bucket_policy_status(
        &self,
        request: S3Request<GetBucketPolicyStatusInput>,
    ) -> S3Result<S3Response<GetBucketPolicyStatusOutput>> {
        let place = bucket_of(&request)?;
        let text = self.policy_text(&place.name).await?;
        let policy = Policy::parse(&text, place.name.as_str()).map_err(internal)?;
        let policy_status = Some(PolicyStatus { is_public: Some(policy.is_public()) });
        Ok(S3Response::new(GetBucketPolicyStatusOutput { policy_status }))
    }
}
