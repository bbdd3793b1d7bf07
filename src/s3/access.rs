//! Who may do what: keys for s3s's signature check, the tokens of sessions, and the one rule that a tenant uses only its
//! own buckets.

use hyper::{HeaderMap, Uri};
use s3s::access::{S3Access, S3AccessContext};
use s3s::auth::{S3Auth, SecretKey};
use s3s::path::S3Path;
use s3s::{S3Error, S3ErrorCode, S3Request, S3Result, s3_error};

use super::convert;
use super::error::{internal, store_error};
use super::service::OperationName;
use super::sts;
use crate::auth::{Auth, Caller, Principal, Refusal};
use crate::store::{Store, StoreError};

/// Looks keys up for the signature check.
pub(super) struct Keys(pub(super) Auth);

#[async_trait::async_trait]
impl S3Auth for Keys {
    async fn get_secret_key(&self, access_key: &str) -> S3Result<SecretKey> {
        match self.0.secret_of(access_key).await {
            Ok(Some(secret)) => Ok(SecretKey::from(secret.reveal())),
            Ok(None) => Err(s3_error!(InvalidAccessKeyId)),
            Err(error) => Err(internal(error)),
        }
    }
}

/// Lets a signed request through where its caller may use the bucket that it names.
pub(super) struct Gate {
    pub(super) auth: Auth,
    pub(super) store: Store,
}

#[async_trait::async_trait]
impl S3Access for Gate {
    async fn check(&self, cx: &mut S3AccessContext<'_>) -> S3Result<()> {
        let operation = cx.s3_op().name().to_owned();
        if let Some(name) = cx.extensions_mut().get::<OperationName>() {
            // A cell that is filled already belongs to the same request.
            drop(name.0.set(operation.clone()));
        }
        let Some(access_key) = cx.credentials().map(|credentials| credentials.access_key.clone()) else {
            return Err(s3_error!(AccessDenied, "Sign the request: anonymous access is off."));
        };
        if sts::is_signed_for_sts(cx.headers()) {
            return Err(s3_error!(NotImplemented, "STS is asked with POST and a form; sign S3 requests for s3."));
        }
        let principal = admit(&self.auth, &access_key, cx.headers(), cx.uri()).await?.principal;
        if operation != "CreateBucket" {
            match cx.s3_path() {
                S3Path::Root => {}
                S3Path::Bucket { bucket } | S3Path::Object { bucket, .. } => {
                    check_bucket(&self.store, &principal, bucket).await?;
                }
            }
        }
        cx.extensions_mut().insert(principal);
        Ok(())
    }
}

/// Who signed with `access_key`, where the session token that the request carries, or its absence, is right.
pub(super) async fn admit(auth: &Auth, access_key: &str, headers: &HeaderMap, uri: &Uri) -> S3Result<Caller> {
    let token = session_token(headers, uri)?;
    auth.admit(access_key, token.as_deref()).await.map_err(|refusal| match refusal {
        Refusal::UnknownKey => s3_error!(InvalidAccessKeyId),
        Refusal::BadToken => s3_error!(InvalidToken),
        Refusal::Expired => s3_error!(ExpiredToken),
        Refusal::Auth(error) => internal(error),
    })
}

/// The session token in the header, or in a presigned URL; several are refused.
fn session_token(headers: &HeaderMap, uri: &Uri) -> S3Result<Option<String>> {
    let in_headers = headers.get_all("x-amz-security-token").iter();
    let in_headers = in_headers.map(|value| value.to_str().unwrap_or_default().to_owned());
    let in_query = url::form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes());
    let in_query = in_query.filter(|(name, _)| name.eq_ignore_ascii_case("x-amz-security-token"));
    let mut tokens = in_headers.chain(in_query.map(|(_, value)| value.into_owned()));
    let token = tokens.next();
    if tokens.next().is_some() { Err(s3_error!(InvalidToken)) } else { Ok(token) }
}

/// Whether `principal` may use `bucket`; an absent bucket says so.
pub(super) async fn check_bucket(store: &Store, principal: &Principal, bucket: &str) -> S3Result<()> {
    let name = convert::bucket(bucket)?;
    match store.bucket(&name).await {
        Ok(info) if principal.may_use(&info.owner) => Ok(()),
        Ok(_) => Err(S3Error::new(S3ErrorCode::AccessDenied)),
        Err(StoreError::NoSuchBucket { .. }) => Err(s3_error!(NoSuchBucket)),
        Err(error) => Err(store_error(error)),
    }
}

/// Who calls, as the gate found out.
pub(super) fn caller<T>(request: &S3Request<T>) -> S3Result<Principal> {
    request.extensions.get::<Principal>().cloned().ok_or_else(|| S3Error::new(S3ErrorCode::AccessDenied))
}
