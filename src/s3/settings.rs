//! A bucket's settings: documents, kept as the XML or JSON in which S3 defines them.

use bytes::Bytes;
use s3s::dto::{
    CORSConfiguration, DeleteBucketCorsInput, DeleteBucketCorsOutput, DeleteBucketOwnershipControlsInput,
    DeleteBucketOwnershipControlsOutput, DeleteBucketTaggingInput, DeleteBucketTaggingOutput,
    DeletePublicAccessBlockInput, DeletePublicAccessBlockOutput, GetBucketCorsInput, GetBucketCorsOutput,
    GetBucketOwnershipControlsInput, GetBucketOwnershipControlsOutput, GetBucketTaggingInput, GetBucketTaggingOutput,
    GetPublicAccessBlockInput, GetPublicAccessBlockOutput, ObjectOwnership, OwnershipControls, OwnershipControlsRule,
    PublicAccessBlockConfiguration, PutBucketCorsInput, PutBucketCorsOutput, PutBucketOwnershipControlsInput,
    PutBucketOwnershipControlsOutput, PutBucketTaggingInput, PutBucketTaggingOutput, PutPublicAccessBlockInput,
    PutPublicAccessBlockOutput, Tagging,
};
use s3s::xml::{Deserialize, Deserializer, Serialize, Serializer};
use s3s::{S3Error, S3ErrorCode, S3Request, S3Response, S3Result, s3_error};

use super::access::bucket_of;
use super::cors::Rules;
use super::error::{internal, store_error};
use super::{Door, tags};
use crate::model::BucketName;
use crate::store::Store;

/// A setting, by what it is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Setting {
    Cors,
    Encryption,
    Lifecycle,
    Location,
    ObjectLock,
    OwnershipControls,
    Policy,
    PublicAccessBlock,
    Tagging,
}

impl Setting {
    /// Its name among the bucket's rows.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Cors => "cors",
            Self::Encryption => "encryption",
            Self::Lifecycle => "lifecycle",
            Self::Location => "location",
            Self::ObjectLock => "object-lock",
            Self::OwnershipControls => "ownership-controls",
            Self::Policy => "policy",
            Self::PublicAccessBlock => "public-access-block",
            Self::Tagging => "tagging",
        }
    }
}

/// A setting as it was set, if it was.
pub(super) async fn read<T>(store: &Store, bucket: &BucketName, setting: Setting) -> S3Result<Option<T>>
where
    T: for<'xml> Deserialize<'xml>,
{
    let Some(xml) = store.setting(bucket, setting.name()).await.map_err(store_error)? else { return Ok(None) };
    T::deserialize(&mut Deserializer::new(&xml)).map(Some).map_err(internal)
}

/// Sets a setting, or removes it.
pub(super) async fn write<T: Serialize>(
    store: &Store,
    bucket: &BucketName,
    setting: Setting,
    value: Option<&T>,
) -> S3Result<()> {
    let xml = match value {
        None => None,
        Some(value) => {
            let mut xml = Vec::new();
            value.serialize(&mut Serializer::new(&mut xml)).map_err(internal)?;
            Some(Bytes::from(xml))
        }
    };
    store.set_setting(bucket, setting.name(), xml).await.map_err(store_error)
}

/// Removes a setting.
pub(super) async fn remove(store: &Store, bucket: &BucketName, setting: Setting) -> S3Result<()> {
    store.set_setting(bucket, setting.name(), None).await.map_err(store_error)
}

/// S3's answer where a setting was never set.
pub(super) fn not_set(code: &str, text: &'static str) -> S3Error {
    let mut error = S3Error::with_message(S3ErrorCode::Custom(code.to_owned().into()), text);
    error.set_status_code(hyper::StatusCode::NOT_FOUND);
    error
}

impl Door {
    pub(super) async fn get_bucket_tagging(
        &self,
        request: S3Request<GetBucketTaggingInput>,
    ) -> S3Result<S3Response<GetBucketTaggingOutput>> {
        let place = bucket_of(&request)?;
        let found = read::<Tagging>(&self.store, &place.name, Setting::Tagging).await?;
        let found = found.ok_or_else(|| s3_error!(NoSuchTagSet, "The TagSet does not exist"))?;
        Ok(S3Response::new(GetBucketTaggingOutput { tag_set: found.tag_set }))
    }

    pub(super) async fn put_bucket_tagging(
        &self,
        request: S3Request<PutBucketTaggingInput>,
    ) -> S3Result<S3Response<PutBucketTaggingOutput>> {
        let place = bucket_of(&request)?;
        let tagging = request.input.tagging;
        tags::check(&tagging.tag_set, tags::BUCKET_MAX)?;
        write(&self.store, &place.name, Setting::Tagging, Some(&tagging)).await?;
        let mut response = S3Response::new(PutBucketTaggingOutput::default());
        response.status = Some(hyper::StatusCode::NO_CONTENT);
        Ok(response)
    }

    pub(super) async fn delete_bucket_tagging(
        &self,
        request: S3Request<DeleteBucketTaggingInput>,
    ) -> S3Result<S3Response<DeleteBucketTaggingOutput>> {
        remove(&self.store, &bucket_of(&request)?.name, Setting::Tagging).await?;
        Ok(S3Response::new(DeleteBucketTaggingOutput::default()))
    }

    pub(super) async fn get_bucket_cors(
        &self,
        request: S3Request<GetBucketCorsInput>,
    ) -> S3Result<S3Response<GetBucketCorsOutput>> {
        let place = bucket_of(&request)?;
        let found = read::<CORSConfiguration>(&self.store, &place.name, Setting::Cors).await?;
        let found = found.ok_or_else(|| not_set("NoSuchCORSConfiguration", "The CORS configuration does not exist"))?;
        Ok(S3Response::new(GetBucketCorsOutput { cors_rules: Some(found.cors_rules) }))
    }

    pub(super) async fn put_bucket_cors(
        &self,
        request: S3Request<PutBucketCorsInput>,
    ) -> S3Result<S3Response<PutBucketCorsOutput>> {
        let place = bucket_of(&request)?;
        let wanted = request.input.cors_configuration;
        Rules::try_from(wanted.clone())?;
        write(&self.store, &place.name, Setting::Cors, Some(&wanted)).await?;
        Ok(S3Response::new(PutBucketCorsOutput::default()))
    }

    pub(super) async fn delete_bucket_cors(
        &self,
        request: S3Request<DeleteBucketCorsInput>,
    ) -> S3Result<S3Response<DeleteBucketCorsOutput>> {
        remove(&self.store, &bucket_of(&request)?.name, Setting::Cors).await?;
        Ok(S3Response::new(DeleteBucketCorsOutput::default()))
    }

    pub(super) async fn get_public_access_block(
        &self,
        request: S3Request<GetPublicAccessBlockInput>,
    ) -> S3Result<S3Response<GetPublicAccessBlockOutput>> {
        let place = bucket_of(&request)?;
        let setting = Setting::PublicAccessBlock;
        let found = read::<PublicAccessBlockConfiguration>(&self.store, &place.name, setting).await?;
        let missing =
            || not_set("NoSuchPublicAccessBlockConfiguration", "The public access block configuration was not found");
        let public_access_block_configuration = Some(found.ok_or_else(missing)?);
        Ok(S3Response::new(GetPublicAccessBlockOutput { public_access_block_configuration }))
    }

    pub(super) async fn put_public_access_block(
        &self,
        request: S3Request<PutPublicAccessBlockInput>,
    ) -> S3Result<S3Response<PutPublicAccessBlockOutput>> {
        let place = bucket_of(&request)?;
        let given = request.input.public_access_block_configuration;
        let wanted = PublicAccessBlockConfiguration {
            block_public_acls: Some(given.block_public_acls.unwrap_or_default()),
            ignore_public_acls: Some(given.ignore_public_acls.unwrap_or_default()),
            block_public_policy: Some(given.block_public_policy.unwrap_or_default()),
            restrict_public_buckets: Some(given.restrict_public_buckets.unwrap_or_default()),
        };
        write(&self.store, &place.name, Setting::PublicAccessBlock, Some(&wanted)).await?;
        Ok(S3Response::new(PutPublicAccessBlockOutput::default()))
    }

    pub(super) async fn delete_public_access_block(
        &self,
        request: S3Request<DeletePublicAccessBlockInput>,
    ) -> S3Result<S3Response<DeletePublicAccessBlockOutput>> {
        remove(&self.store, &bucket_of(&request)?.name, Setting::PublicAccessBlock).await?;
        Ok(S3Response::new(DeletePublicAccessBlockOutput::default()))
    }

    pub(super) async fn get_bucket_ownership_controls(
        &self,
        request: S3Request<GetBucketOwnershipControlsInput>,
    ) -> S3Result<S3Response<GetBucketOwnershipControlsOutput>> {
        let place = bucket_of(&request)?;
        let found = read::<OwnershipControls>(&self.store, &place.name, Setting::OwnershipControls).await?;
        let missing = || not_set("OwnershipControlsNotFoundError", "The bucket ownership controls were not found");
        let ownership_controls = Some(found.ok_or_else(missing)?);
        Ok(S3Response::new(GetBucketOwnershipControlsOutput { ownership_controls }))
    }

    /// The owner owns all: the other kinds of ownership work through lists of grants, which are not offered.
    pub(super) async fn put_bucket_ownership_controls(
        &self,
        request: S3Request<PutBucketOwnershipControlsInput>,
    ) -> S3Result<S3Response<PutBucketOwnershipControlsOutput>> {
        let place = bucket_of(&request)?;
        let wanted = request.input.ownership_controls;
        let [OwnershipControlsRule { object_ownership }] = &wanted.rules[..] else {
            return Err(s3_error!(MalformedXML, "There is one rule."));
        };
        check_ownership(object_ownership)?;
        write(&self.store, &place.name, Setting::OwnershipControls, Some(&wanted)).await?;
        Ok(S3Response::new(PutBucketOwnershipControlsOutput::default()))
    }

    pub(super) async fn delete_bucket_ownership_controls(
        &self,
        request: S3Request<DeleteBucketOwnershipControlsInput>,
    ) -> S3Result<S3Response<DeleteBucketOwnershipControlsOutput>> {
        remove(&self.store, &bucket_of(&request)?.name, Setting::OwnershipControls).await?;
        Ok(S3Response::new(DeleteBucketOwnershipControlsOutput::default()))
    }
}

/// Whether this kind of ownership can be had.
pub(super) fn check_ownership(wanted: &ObjectOwnership) -> S3Result<()> {
    match wanted.as_str() {
        ObjectOwnership::BUCKET_OWNER_ENFORCED => Ok(()),
        ObjectOwnership::BUCKET_OWNER_PREFERRED | ObjectOwnership::OBJECT_WRITER => {
            Err(s3_error!(NotImplemented, "Only BucketOwnerEnforced is offered: grant access with a bucket policy."))
        }
        _ => Err(s3_error!(MalformedXML, "ObjectOwnership is BucketOwnerEnforced.")),
    }
}
