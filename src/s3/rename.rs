//! Renaming an object within its bucket, as S3's directory buckets offer it.

use s3s::dto::{ETagCondition, RenameObjectInput, RenameObjectOutput};
use s3s::{S3Request, S3Response, S3Result, s3_error};

use super::access::access_of;
use super::conditions::Conditions;
use super::error::store_error;
use super::{Door, convert, encryption};
use crate::store::{ObjectInfo, StoreError};

impl Door {
    pub(super) async fn rename_object(
        &self,
        request: S3Request<RenameObjectInput>,
    ) -> S3Result<S3Response<RenameObjectOutput>> {
        let access = access_of(&request)?;
        let input = request.input;
        // The source is a key of the same bucket, or /BUCKET/KEY, URL-encoded.
        let source = convert::url_decode(&input.rename_source)?;
        let within = format!("/{}/", input.bucket);
        let source = source.strip_prefix(&within).or_else(|| source.strip_prefix(&within[1..])).unwrap_or(&source);
        access.check("s3:GetObject", Some(source))?;
        access.check("s3:DeleteObject", Some(source))?;
        let as_condition = |text: &Option<String>| {
            text.as_deref().map(str::parse::<ETagCondition>).transpose().map_err(|_| s3_error!(InvalidArgument))
        };
        let (if_match, if_none_match) =
            (as_condition(&input.source_if_match)?, as_condition(&input.source_if_none_match)?);
        let conditions = Conditions {
            if_match: if_match.as_ref(),
            if_none_match: if_none_match.as_ref(),
            if_modified_since: input.source_if_modified_since.as_ref(),
            if_unmodified_since: input.source_if_unmodified_since.as_ref(),
        };
        let fits = |info: &ObjectInfo| {
            if info.headers.keys().any(|name| encryption::is_own(name)) {
                return Err(StoreError::Unfit("An encrypted object is bound to its key; copy it, then delete it."));
            }
            conditions.check(info).map_err(|_| StoreError::PreconditionFailed)
        };
        let target = convert::precondition(
            access.bucket(),
            input.destination_if_match.as_ref(),
            input.destination_if_none_match.as_ref(),
        );
        let (bucket, from, to) = (convert::bucket(&input.bucket)?, convert::key(source)?, convert::key(&input.key)?);
        self.store.rename(&bucket, &from, &to, fits, &target).await.map_err(store_error)?;
        Ok(S3Response::new(RenameObjectOutput::default()))
    }
}
