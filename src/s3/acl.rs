//! Access control lists, as S3 answers for buckets whose owner owns all that is in them: the owner has full control, and nobody else is
//! granted anything here.

use s3s::dto::{
    AccessControlPolicy, BucketCannedACL, GetBucketAclInput, GetBucketAclOutput, GetObjectAclInput, GetObjectAclOutput,
    Grant, Grantee, ObjectCannedACL, Permission, PutBucketAclInput, PutBucketAclOutput, PutObjectAclInput,
    PutObjectAclOutput, Type,
};
use s3s::{S3Error, S3ErrorCode, S3Request, S3Response, S3Result};

use super::access::bucket_of;
use super::bucket::owner;
use super::error::store_error;
use super::offered::check_acl;
use super::{Door, convert};

fn owners_grant(name: &str) -> Grant {
    let grantee = Grantee {
        id: Some(name.to_owned()),
        display_name: Some(name.to_owned()),
        email_address: None,
        type_: Type::from_static(Type::CANONICAL_USER),
        uri: None,
    };
    Grant { grantee: Some(grantee), permission: Some(Permission::from_static(Permission::FULL_CONTROL)) }
}

/// A list that says what is so anyway may be set; any other not.
fn check_list(list: Option<&AccessControlPolicy>, name: &str) -> S3Result<()> {
    let Some(list) = list else { return Ok(()) };
    let grants = list.grants.as_deref().unwrap_or_default();
    let is_owners = |grant: &Grant| {
        let full = grant.permission.as_ref().is_some_and(|permission| permission.as_str() == Permission::FULL_CONTROL);
        full && grant.grantee.as_ref().and_then(|grantee| grantee.id.as_deref()) == Some(name)
    };
    if grants.iter().all(is_owners) {
        return Ok(());
    }
    let text = "The bucket does not allow ACLs; grant access with a bucket policy.";
    Err(S3Error::with_message(S3ErrorCode::AccessControlListNotSupported, text))
}

impl Door {
    pub(super) fn get_bucket_acl(request: &S3Request<GetBucketAclInput>) -> S3Result<S3Response<GetBucketAclOutput>> {
        let place = bucket_of(request)?;
        let grants = Some(vec![owners_grant(&place.owner)]);
        Ok(S3Response::new(GetBucketAclOutput { grants, owner: Some(owner(&place.owner)) }))
    }

    pub(super) fn put_bucket_acl(request: &S3Request<PutBucketAclInput>) -> S3Result<S3Response<PutBucketAclOutput>> {
        let place = bucket_of(request)?;
        let input = &request.input;
        let grants = [&input.grant_full_control, &input.grant_read, &input.grant_read_acp, &input.grant_write_acp];
        let grants = grants.into_iter().chain([&input.grant_write]).any(Option::is_some);
        check_acl(input.acl.as_ref().map(BucketCannedACL::as_str), grants)?;
        check_list(input.access_control_policy.as_ref(), &place.owner)?;
        Ok(S3Response::new(PutBucketAclOutput::default()))
    }

    pub(super) async fn get_object_acl(
        &self,
        request: S3Request<GetObjectAclInput>,
    ) -> S3Result<S3Response<GetObjectAclOutput>> {
        let place = bucket_of(&request)?;
        let input = request.input;
        let (key, version) = convert::key_and_version(&input.key, input.version_id.as_deref())?;
        self.store.head_version(&place.name, &key, version).await.map_err(store_error)?;
        let grants = Some(vec![owners_grant(&place.owner)]);
        let owner = Some(owner(&place.owner));
        Ok(S3Response::new(GetObjectAclOutput { grants, owner, ..GetObjectAclOutput::default() }))
    }

    pub(super) async fn put_object_acl(
        &self,
        request: S3Request<PutObjectAclInput>,
    ) -> S3Result<S3Response<PutObjectAclOutput>> {
        let place = bucket_of(&request)?;
        let input = request.input;
        let (key, version) = convert::key_and_version(&input.key, input.version_id.as_deref())?;
        self.store.head_version(&place.name, &key, version).await.map_err(store_error)?;
        let grants = [&input.grant_full_control, &input.grant_read, &input.grant_read_acp, &input.grant_write_acp];
        let grants = grants.into_iter().chain([&input.grant_write]).any(Option::is_some);
        check_acl(input.acl.as_ref().map(ObjectCannedACL::as_str), grants)?;
        check_list(input.access_control_policy.as_ref(), &place.owner)?;
        Ok(S3Response::new(PutObjectAclOutput::default()))
    }
}
