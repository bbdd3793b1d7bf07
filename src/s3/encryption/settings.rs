//! What a bucket's new objects are encrypted with where they do not say.

use s3s::dto::{
    DeleteBucketEncryptionInput, DeleteBucketEncryptionOutput, EncryptionType, GetBucketEncryptionInput,
    GetBucketEncryptionOutput, PutBucketEncryptionInput, PutBucketEncryptionOutput, ServerSideEncryptionConfiguration,
    ServerSideEncryptionRule,
};
use s3s::{S3Request, S3Response, S3Result, s3_error};

use super::wish::{AES256, no_kms};
use crate::model::BucketName;
use crate::s3::Door;
use crate::s3::access::bucket_of;
use crate::s3::settings::{self, Setting, not_set};
use crate::store::Store;

/// A bucket's rule.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Rule {
    /// Objects that do not say are encrypted under a key of the store's.
    pub(super) encrypts: bool,
    /// Keys that requests bring are refused.
    pub(super) blocks_customer: bool,
}

impl Rule {
    pub(super) async fn of(store: &Store, bucket: &BucketName) -> S3Result<Self> {
        let found = settings::read(store, bucket, Setting::Encryption).await?;
        found.map_or(Ok(Self::default()), |found| Self::read(&found))
    }

    /// Reads a configuration, when it is one that can be kept.
    fn read(wanted: &ServerSideEncryptionConfiguration) -> S3Result<Self> {
        let [ServerSideEncryptionRule { apply_server_side_encryption_by_default, blocked_encryption_types, .. }] =
            &wanted.rules[..]
        else {
            return Err(s3_error!(MalformedXML, "There is one rule."));
        };
        let default = apply_server_side_encryption_by_default.as_ref();
        let encrypts = match default.map(|default| default.sse_algorithm.as_str()) {
            None => false,
            Some(AES256) => true,
            Some("aws:kms" | "aws:kms:dsse") => return Err(no_kms()),
            Some(_) => return Err(s3_error!(MalformedXML, "SSEAlgorithm is AES256.")),
        };
        if default.is_some_and(|default| default.kms_master_key_id.is_some()) {
            let text = "a KMSMasterKeyID is not applicable if the default sse algorithm is not aws:kms or aws:kms:dsse";
            return Err(s3_error!(InvalidArgument, "{}", text));
        }
        let blocked = blocked_encryption_types.as_ref().and_then(|blocked| blocked.encryption_type.as_ref());
        let blocks = blocked.map(|types| types.iter().map(EncryptionType::as_str).collect::<Vec<_>>());
        let blocks_customer = match blocks.as_deref() {
            None | Some([EncryptionType::NONE]) => false,
            Some([EncryptionType::SSE_C]) => true,
            Some(_) => return Err(s3_error!(MalformedXML, "What can be blocked is SSE-C, or NONE.")),
        };
        if default.is_none() && blocks.is_none() {
            return Err(s3_error!(MalformedXML, "The rule says nothing."));
        }
        Ok(Self { encrypts, blocks_customer })
    }
}

impl Door {
    pub(in crate::s3) async fn get_bucket_encryption(
        &self,
        request: S3Request<GetBucketEncryptionInput>,
    ) -> S3Result<S3Response<GetBucketEncryptionOutput>> {
        let place = bucket_of(&request)?;
        let found = settings::read(&self.store, &place.name, Setting::Encryption).await?;
        let text = "The server side encryption configuration was not found";
        let found = found.ok_or_else(|| not_set("ServerSideEncryptionConfigurationNotFoundError", text))?;
        Ok(S3Response::new(GetBucketEncryptionOutput { server_side_encryption_configuration: Some(found) }))
    }

    pub(in crate::s3) async fn put_bucket_encryption(
        &self,
        request: S3Request<PutBucketEncryptionInput>,
    ) -> S3Result<S3Response<PutBucketEncryptionOutput>> {
        let place = bucket_of(&request)?;
        let mut wanted = request.input.server_side_encryption_configuration;
        Rule::read(&wanted)?;
        for rule in &mut wanted.rules {
            rule.bucket_key_enabled.get_or_insert(false);
        }
        settings::write(&self.store, &place.name, Setting::Encryption, Some(&wanted)).await?;
        Ok(S3Response::new(PutBucketEncryptionOutput::default()))
    }

    pub(in crate::s3) async fn delete_bucket_encryption(
        &self,
        request: S3Request<DeleteBucketEncryptionInput>,
    ) -> S3Result<S3Response<DeleteBucketEncryptionOutput>> {
        settings::remove(&self.store, &bucket_of(&request)?.name, Setting::Encryption).await?;
        Ok(S3Response::new(DeleteBucketEncryptionOutput::default()))
    }
}
