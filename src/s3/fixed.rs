//! Settings that every bucket has alike: asked for, they are told as they are; a change of them is refused aloud.

use s3s::dto::{
    GetBucketAccelerateConfigurationInput, GetBucketAccelerateConfigurationOutput, GetBucketLoggingInput,
    GetBucketLoggingOutput, GetBucketNotificationConfigurationInput, GetBucketNotificationConfigurationOutput,
    GetBucketReplicationInput, GetBucketReplicationOutput, GetBucketRequestPaymentInput, GetBucketRequestPaymentOutput,
    GetBucketWebsiteInput, GetBucketWebsiteOutput, Payer, PutBucketNotificationConfigurationInput,
    PutBucketNotificationConfigurationOutput, PutBucketRequestPaymentInput, PutBucketRequestPaymentOutput,
};
use s3s::{S3Result, s3_error};

use super::settings::not_set;

/// The owner pays, as ever.
pub(super) fn get_bucket_request_payment(_: &GetBucketRequestPaymentInput) -> S3Result<GetBucketRequestPaymentOutput> {
    Ok(GetBucketRequestPaymentOutput { payer: Some(Payer::from_static(Payer::BUCKET_OWNER)) })
}

pub(super) fn put_bucket_request_payment(
    input: &PutBucketRequestPaymentInput,
) -> S3Result<PutBucketRequestPaymentOutput> {
    match input.request_payment_configuration.payer.as_str() {
        Payer::BUCKET_OWNER => Ok(PutBucketRequestPaymentOutput::default()),
        Payer::REQUESTER => Err(s3_error!(NotImplemented, "Requesters do not pay here.")),
        _ => Err(s3_error!(MalformedXML, "Payer is BucketOwner or Requester.")),
    }
}

pub(super) fn get_bucket_accelerate_configuration(
    _: &GetBucketAccelerateConfigurationInput,
) -> S3Result<GetBucketAccelerateConfigurationOutput> {
    Ok(GetBucketAccelerateConfigurationOutput::default())
}

pub(super) fn get_bucket_logging(_: &GetBucketLoggingInput) -> S3Result<GetBucketLoggingOutput> {
    Ok(GetBucketLoggingOutput::default())
}

pub(super) fn get_bucket_notification_configuration(
    _: &GetBucketNotificationConfigurationInput,
) -> S3Result<GetBucketNotificationConfigurationOutput> {
    Ok(GetBucketNotificationConfigurationOutput::default())
}

/// Switching all notifications off is done at once: there are none.
pub(super) fn put_bucket_notification_configuration(
    input: &PutBucketNotificationConfigurationInput,
) -> S3Result<PutBucketNotificationConfigurationOutput> {
    let wanted = &input.notification_configuration;
    let none = wanted.event_bridge_configuration.is_none()
        && wanted.lambda_function_configurations.as_ref().is_none_or(Vec::is_empty)
        && wanted.queue_configurations.as_ref().is_none_or(Vec::is_empty)
        && wanted.topic_configurations.as_ref().is_none_or(Vec::is_empty);
    if none {
        return Ok(PutBucketNotificationConfigurationOutput::default());
    }
    Err(s3_error!(NotImplemented, "Notifications are not offered; list the bucket, or read the log."))
}

pub(super) fn get_bucket_website(_: &GetBucketWebsiteInput) -> S3Result<GetBucketWebsiteOutput> {
    Err(s3_error!(NoSuchWebsiteConfiguration, "The specified bucket does not have a website configuration"))
}

pub(super) fn get_bucket_replication(_: &GetBucketReplicationInput) -> S3Result<GetBucketReplicationOutput> {
    Err(not_set("ReplicationConfigurationNotFoundError", "The replication configuration was not found"))
}
