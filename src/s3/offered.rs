//! What is not offered is refused aloud: ignoring it would betray who asks for it.

use s3s::{S3Error, S3ErrorCode, S3Result};

/// Canned lists that say no more than that the bucket's owner owns what is in it.
const OWNERS_LISTS: [&str; 4] = ["private", "bucket-owner-full-control", "bucket-owner-read", "aws-exec-read"];

/// What a request that writes may ask for in vain.
pub(super) struct Wishes<'a> {
    pub(super) canned_acl: Option<&'a str>,
    pub(super) grants: bool,
}

impl Wishes<'_> {
    /// Refuses what is not offered.
    pub(super) fn check(&self) -> S3Result<()> {
        check_acl(self.canned_acl, self.grants)
    }
}

/// Buckets own what is in them: lists that grant to others are refused.
pub(super) fn check_acl(canned: Option<&str>, grants: bool) -> S3Result<()> {
    if grants || canned.is_some_and(|canned| !OWNERS_LISTS.contains(&canned)) {
        let text = "The bucket does not allow ACLs; grant access with a bucket policy.";
        return Err(S3Error::with_message(S3ErrorCode::AccessControlListNotSupported, text));
    }
    Ok(())
}

/// Refuses a write that asks for what is not offered.
macro_rules! refuse_unoffered {
    ($input:expr) => {
        $crate::s3::offered::Wishes {
            canned_acl: $input.acl.as_ref().map(|acl| acl.as_str()),
            grants: $input.grant_full_control.is_some()
                || $input.grant_read.is_some()
                || $input.grant_read_acp.is_some()
                || $input.grant_write_acp.is_some(),
        }
        .check()?
    };
}
pub(super) use refuse_unoffered;
