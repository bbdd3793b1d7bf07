//! Lifecycle: rules by which a bucket's objects expire, older versions are removed and forgotten uploads aborted.

mod rules;
mod sweep;
#[cfg(test)]
mod tests;

pub use sweep::{Lifecycle, LifecycleSettings};

use s3s::dto::{
    BucketLifecycleConfiguration, DeleteBucketLifecycleInput, DeleteBucketLifecycleOutput,
    GetBucketLifecycleConfigurationInput, GetBucketLifecycleConfigurationOutput, PutBucketLifecycleConfigurationInput,
    PutBucketLifecycleConfigurationOutput,
};
use s3s::{S3Request, S3Response, S3Result, s3_error};

use super::Door;
use super::access::bucket_of;
use super::convert;
use super::settings::{self, Setting};
use crate::store::{BucketInfo, ObjectInfo};
use crate::sys::entropy;

impl Door {
    pub(super) async fn get_bucket_lifecycle_configuration(
        &self,
        request: S3Request<GetBucketLifecycleConfigurationInput>,
    ) -> S3Result<S3Response<GetBucketLifecycleConfigurationOutput>> {
        let place = bucket_of(&request)?;
        let found =
            settings::read::<BucketLifecycleConfiguration>(&self.store, &place.name, Setting::Lifecycle).await?;
        let found = found
            .ok_or_else(|| s3_error!(NoSuchLifecycleConfiguration, "The lifecycle configuration does not exist"))?;
        Ok(S3Response::new(GetBucketLifecycleConfigurationOutput {
            rules: Some(found.rules),
            ..GetBucketLifecycleConfigurationOutput::default()
        }))
    }

    pub(super) async fn put_bucket_lifecycle_configuration(
        &self,
        request: S3Request<PutBucketLifecycleConfigurationInput>,
    ) -> S3Result<S3Response<PutBucketLifecycleConfigurationOutput>> {
        let place = bucket_of(&request)?;
        let wanted = request.input.lifecycle_configuration;
        let mut wanted = wanted.ok_or_else(|| s3_error!(MalformedXML, "Send a configuration."))?;
        rules::check(&mut wanted, || hex::encode(entropy::fresh_id()))?;
        settings::write(&self.store, &place.name, Setting::Lifecycle, Some(&wanted)).await?;
        Ok(S3Response::new(PutBucketLifecycleConfigurationOutput::default()))
    }

    pub(super) async fn delete_bucket_lifecycle(
        &self,
        request: S3Request<DeleteBucketLifecycleInput>,
    ) -> S3Result<S3Response<DeleteBucketLifecycleOutput>> {
        settings::remove(&self.store, &bucket_of(&request)?.name, Setting::Lifecycle).await?;
        Ok(S3Response::new(DeleteBucketLifecycleOutput::default()))
    }

    /// When and by which rule an object expires, as the header `x-amz-expiration` says it.
    pub(super) async fn expiration(&self, place: &BucketInfo, info: &ObjectInfo) -> S3Result<Option<String>> {
        let found =
            settings::read::<BucketLifecycleConfiguration>(&self.store, &place.name, Setting::Lifecycle).await?;
        let Some(found) = found else { return Ok(None) };
        Ok(rules::expiration(&found.rules, info).map(|(at, rule)| {
            format!("expiry-date=\"{}\", rule-id=\"{}\"", convert::httpdate(at), convert::url_encode(rule))
        }))
    }
}
