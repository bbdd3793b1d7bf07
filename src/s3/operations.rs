//! The operations that are offered, each in its own file; all others answer `NotImplemented`.

use s3s::dto::{
    AbortMultipartUploadInput, AbortMultipartUploadOutput, CompleteMultipartUploadInput, CompleteMultipartUploadOutput,
    CopyObjectInput, CopyObjectOutput, CreateBucketInput, CreateBucketOutput, CreateMultipartUploadInput,
    CreateMultipartUploadOutput, DeleteBucketCorsInput, DeleteBucketCorsOutput, DeleteBucketEncryptionInput,
    DeleteBucketEncryptionOutput, DeleteBucketInput, DeleteBucketLifecycleInput, DeleteBucketLifecycleOutput,
    DeleteBucketOutput, DeleteBucketOwnershipControlsInput, DeleteBucketOwnershipControlsOutput,
    DeleteBucketPolicyInput, DeleteBucketPolicyOutput, DeleteBucketTaggingInput, DeleteBucketTaggingOutput,
    DeleteObjectInput, DeleteObjectOutput, DeleteObjectTaggingInput, DeleteObjectTaggingOutput, DeleteObjectsInput,
    DeleteObjectsOutput, DeletePublicAccessBlockInput, DeletePublicAccessBlockOutput,
    GetBucketAccelerateConfigurationInput, GetBucketAccelerateConfigurationOutput, GetBucketAclInput,
    GetBucketAclOutput, GetBucketCorsInput, GetBucketCorsOutput, GetBucketEncryptionInput, GetBucketEncryptionOutput,
    GetBucketLifecycleConfigurationInput, GetBucketLifecycleConfigurationOutput, GetBucketLocationInput,
    GetBucketLocationOutput, GetBucketLoggingInput, GetBucketLoggingOutput, GetBucketNotificationConfigurationInput,
    GetBucketNotificationConfigurationOutput, GetBucketOwnershipControlsInput, GetBucketOwnershipControlsOutput,
    GetBucketPolicyInput, GetBucketPolicyOutput, GetBucketPolicyStatusInput, GetBucketPolicyStatusOutput,
    GetBucketReplicationInput, GetBucketReplicationOutput, GetBucketRequestPaymentInput, GetBucketRequestPaymentOutput,
    GetBucketTaggingInput, GetBucketTaggingOutput, GetBucketVersioningInput, GetBucketVersioningOutput,
    GetBucketWebsiteInput, GetBucketWebsiteOutput, GetObjectAclInput, GetObjectAclOutput, GetObjectAttributesInput,
    GetObjectAttributesOutput, GetObjectInput, GetObjectLegalHoldInput, GetObjectLegalHoldOutput,
    GetObjectLockConfigurationInput, GetObjectLockConfigurationOutput, GetObjectOutput, GetObjectRetentionInput,
    GetObjectRetentionOutput, GetObjectTaggingInput, GetObjectTaggingOutput, GetPublicAccessBlockInput,
    GetPublicAccessBlockOutput, HeadBucketInput, HeadBucketOutput, HeadObjectInput, HeadObjectOutput, ListBucketsInput,
    ListBucketsOutput, ListMultipartUploadsInput, ListMultipartUploadsOutput, ListObjectVersionsInput,
    ListObjectVersionsOutput, ListObjectsInput, ListObjectsOutput, ListObjectsV2Input, ListObjectsV2Output,
    ListPartsInput, ListPartsOutput, PutBucketAclInput, PutBucketAclOutput, PutBucketCorsInput, PutBucketCorsOutput,
    PutBucketEncryptionInput, PutBucketEncryptionOutput, PutBucketLifecycleConfigurationInput,
    PutBucketLifecycleConfigurationOutput, PutBucketNotificationConfigurationInput,
    PutBucketNotificationConfigurationOutput, PutBucketOwnershipControlsInput, PutBucketOwnershipControlsOutput,
    PutBucketPolicyInput, PutBucketPolicyOutput, PutBucketRequestPaymentInput, PutBucketRequestPaymentOutput,
    PutBucketTaggingInput, PutBucketTaggingOutput, PutBucketVersioningInput, PutBucketVersioningOutput,
    PutObjectAclInput, PutObjectAclOutput, PutObjectInput, PutObjectLegalHoldInput, PutObjectLegalHoldOutput,
    PutObjectLockConfigurationInput, PutObjectLockConfigurationOutput, PutObjectOutput, PutObjectRetentionInput,
    PutObjectRetentionOutput, PutObjectTaggingInput, PutObjectTaggingOutput, PutPublicAccessBlockInput,
    PutPublicAccessBlockOutput, RenameObjectInput, RenameObjectOutput, UploadPartCopyInput, UploadPartCopyOutput,
    UploadPartInput, UploadPartOutput,
};
use s3s::{S3, S3Request, S3Response, S3Result};

use super::{Door, fixed};

/// The offered operations, for s3s to call.
pub(super) struct Operations(pub(super) Door);

macro_rules! offered {
    (
        $($operation:ident $input:ident $output:ident)*;
        at once: $($simple:ident $simple_input:ident $simple_output:ident)*;
        fixed: $($fixed:ident $fixed_input:ident $fixed_output:ident)*
    ) => {
        #[async_trait::async_trait]
        impl S3 for Operations {
            $(
                async fn $operation(&self, request: S3Request<$input>) -> S3Result<S3Response<$output>> {
                    self.0.$operation(request).await
                }
            )*
            $(
                async fn $simple(&self, request: S3Request<$simple_input>) -> S3Result<S3Response<$simple_output>> {
                    Door::$simple(&request)
                }
            )*
            $(
                async fn $fixed(&self, request: S3Request<$fixed_input>) -> S3Result<S3Response<$fixed_output>> {
                    fixed::$fixed(&request.input).map(S3Response::new)
                }
            )*
        }
    };
}

offered! {
    abort_multipart_upload AbortMultipartUploadInput AbortMultipartUploadOutput
    complete_multipart_upload CompleteMultipartUploadInput CompleteMultipartUploadOutput
    copy_object CopyObjectInput CopyObjectOutput
    create_bucket CreateBucketInput CreateBucketOutput
    create_multipart_upload CreateMultipartUploadInput CreateMultipartUploadOutput
    delete_bucket DeleteBucketInput DeleteBucketOutput
    delete_bucket_cors DeleteBucketCorsInput DeleteBucketCorsOutput
    delete_bucket_encryption DeleteBucketEncryptionInput DeleteBucketEncryptionOutput
    delete_bucket_lifecycle DeleteBucketLifecycleInput DeleteBucketLifecycleOutput
    delete_bucket_ownership_controls DeleteBucketOwnershipControlsInput DeleteBucketOwnershipControlsOutput
    delete_bucket_policy DeleteBucketPolicyInput DeleteBucketPolicyOutput
    delete_bucket_tagging DeleteBucketTaggingInput DeleteBucketTaggingOutput
    delete_object DeleteObjectInput DeleteObjectOutput
    delete_object_tagging DeleteObjectTaggingInput DeleteObjectTaggingOutput
    delete_objects DeleteObjectsInput DeleteObjectsOutput
    delete_public_access_block DeletePublicAccessBlockInput DeletePublicAccessBlockOutput
    get_bucket_cors GetBucketCorsInput GetBucketCorsOutput
    get_bucket_location GetBucketLocationInput GetBucketLocationOutput
    get_bucket_encryption GetBucketEncryptionInput GetBucketEncryptionOutput
    get_bucket_lifecycle_configuration GetBucketLifecycleConfigurationInput GetBucketLifecycleConfigurationOutput
    get_bucket_ownership_controls GetBucketOwnershipControlsInput GetBucketOwnershipControlsOutput
    get_bucket_policy GetBucketPolicyInput GetBucketPolicyOutput
    get_bucket_policy_status GetBucketPolicyStatusInput GetBucketPolicyStatusOutput
    get_bucket_tagging GetBucketTaggingInput GetBucketTaggingOutput
    get_object GetObjectInput GetObjectOutput
    get_object_acl GetObjectAclInput GetObjectAclOutput
    get_object_attributes GetObjectAttributesInput GetObjectAttributesOutput
    get_object_legal_hold GetObjectLegalHoldInput GetObjectLegalHoldOutput
    get_object_lock_configuration GetObjectLockConfigurationInput GetObjectLockConfigurationOutput
    get_object_retention GetObjectRetentionInput GetObjectRetentionOutput
    get_object_tagging GetObjectTaggingInput GetObjectTaggingOutput
    get_public_access_block GetPublicAccessBlockInput GetPublicAccessBlockOutput
    head_object HeadObjectInput HeadObjectOutput
    list_buckets ListBucketsInput ListBucketsOutput
    list_multipart_uploads ListMultipartUploadsInput ListMultipartUploadsOutput
    list_object_versions ListObjectVersionsInput ListObjectVersionsOutput
    list_objects ListObjectsInput ListObjectsOutput
    list_objects_v2 ListObjectsV2Input ListObjectsV2Output
    list_parts ListPartsInput ListPartsOutput
    put_bucket_cors PutBucketCorsInput PutBucketCorsOutput
    put_bucket_encryption PutBucketEncryptionInput PutBucketEncryptionOutput
    put_bucket_lifecycle_configuration PutBucketLifecycleConfigurationInput PutBucketLifecycleConfigurationOutput
    put_bucket_ownership_controls PutBucketOwnershipControlsInput PutBucketOwnershipControlsOutput
    put_bucket_policy PutBucketPolicyInput PutBucketPolicyOutput
    put_bucket_tagging PutBucketTaggingInput PutBucketTaggingOutput
    put_bucket_versioning PutBucketVersioningInput PutBucketVersioningOutput
    put_object PutObjectInput PutObjectOutput
    put_object_acl PutObjectAclInput PutObjectAclOutput
    put_object_legal_hold PutObjectLegalHoldInput PutObjectLegalHoldOutput
    put_object_lock_configuration PutObjectLockConfigurationInput PutObjectLockConfigurationOutput
    put_object_retention PutObjectRetentionInput PutObjectRetentionOutput
    put_object_tagging PutObjectTaggingInput PutObjectTaggingOutput
    put_public_access_block PutPublicAccessBlockInput PutPublicAccessBlockOutput
    rename_object RenameObjectInput RenameObjectOutput
    upload_part UploadPartInput UploadPartOutput
    upload_part_copy UploadPartCopyInput UploadPartCopyOutput;
    at once:
    head_bucket HeadBucketInput HeadBucketOutput
    get_bucket_versioning GetBucketVersioningInput GetBucketVersioningOutput
    get_bucket_acl GetBucketAclInput GetBucketAclOutput
    put_bucket_acl PutBucketAclInput PutBucketAclOutput;
    fixed:
    get_bucket_request_payment GetBucketRequestPaymentInput GetBucketRequestPaymentOutput
    put_bucket_request_payment PutBucketRequestPaymentInput PutBucketRequestPaymentOutput
    get_bucket_accelerate_configuration GetBucketAccelerateConfigurationInput GetBucketAccelerateConfigurationOutput
    get_bucket_logging GetBucketLoggingInput GetBucketLoggingOutput
    get_bucket_notification_configuration GetBucketNotificationConfigurationInput GetBucketNotificationConfigurationOutput
    put_bucket_notification_configuration PutBucketNotificationConfigurationInput PutBucketNotificationConfigurationOutput
    get_bucket_website GetBucketWebsiteInput GetBucketWebsiteOutput
    get_bucket_replication GetBucketReplicationInput GetBucketReplicationOutput
}
