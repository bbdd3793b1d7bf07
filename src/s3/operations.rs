//! The operations that are offered, each in its own file; all others answer `NotImplemented`.

use s3s::dto::{
    AbortMultipartUploadInput, AbortMultipartUploadOutput, CompleteMultipartUploadInput, CompleteMultipartUploadOutput,
    CopyObjectInput, CopyObjectOutput, CreateBucketInput, CreateBucketOutput, CreateMultipartUploadInput,
    CreateMultipartUploadOutput, DeleteBucketInput, DeleteBucketOutput, DeleteObjectInput, DeleteObjectOutput,
    DeleteObjectsInput, DeleteObjectsOutput, GetBucketLocationInput, GetBucketLocationOutput, GetBucketVersioningInput,
    GetBucketVersioningOutput, GetObjectAttributesInput, GetObjectAttributesOutput, GetObjectInput, GetObjectOutput,
    HeadBucketInput, HeadBucketOutput, HeadObjectInput, HeadObjectOutput, ListBucketsInput, ListBucketsOutput,
    ListMultipartUploadsInput, ListMultipartUploadsOutput, ListObjectsInput, ListObjectsOutput, ListObjectsV2Input,
    ListObjectsV2Output, ListPartsInput, ListPartsOutput, PutObjectInput, PutObjectOutput, UploadPartCopyInput,
    UploadPartCopyOutput, UploadPartInput, UploadPartOutput,
};
use s3s::{S3, S3Request, S3Response, S3Result};

use super::Door;

/// The offered operations, for s3s to call.
pub(super) struct Operations(pub(super) Door);

macro_rules! offered {
    ($($operation:ident $input:ident $output:ident)*) => {
        #[async_trait::async_trait]
        impl S3 for Operations {
            $(
                async fn $operation(&self, request: S3Request<$input>) -> S3Result<S3Response<$output>> {
                    self.0.$operation(request).await
                }
            )*

            async fn head_bucket(&self, request: S3Request<HeadBucketInput>) -> S3Result<S3Response<HeadBucketOutput>> {
                Ok(Door::head_bucket(request))
            }

            async fn get_bucket_location(
                &self,
                request: S3Request<GetBucketLocationInput>,
            ) -> S3Result<S3Response<GetBucketLocationOutput>> {
                Ok(Door::bucket_location(request))
            }

            /// Clients ask before they list; a bucket that never had versions answers nothing.
            async fn get_bucket_versioning(
                &self,
                _request: S3Request<GetBucketVersioningInput>,
            ) -> S3Result<S3Response<GetBucketVersioningOutput>> {
                Ok(S3Response::new(GetBucketVersioningOutput::default()))
            }
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
    delete_object DeleteObjectInput DeleteObjectOutput
    delete_objects DeleteObjectsInput DeleteObjectsOutput
    get_object GetObjectInput GetObjectOutput
    get_object_attributes GetObjectAttributesInput GetObjectAttributesOutput
    head_object HeadObjectInput HeadObjectOutput
    list_buckets ListBucketsInput ListBucketsOutput
    list_multipart_uploads ListMultipartUploadsInput ListMultipartUploadsOutput
    list_objects ListObjectsInput ListObjectsOutput
    list_objects_v2 ListObjectsV2Input ListObjectsV2Output
    list_parts ListPartsInput ListPartsOutput
    put_object PutObjectInput PutObjectOutput
    upload_part UploadPartInput UploadPartOutput
    upload_part_copy UploadPartCopyInput UploadPartCopyOutput
}
