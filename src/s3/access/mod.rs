//! Who may do what: keys for s3s's signature check, the tokens of sessions, and the gate, which asks the bucket's owner and policy.

mod action;
mod rights;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use hyper::http::Extensions;
use hyper::{HeaderMap, Uri};
use s3s::access::{S3Access, S3AccessContext};
use s3s::auth::{Credentials, S3Auth, SecretKey};
use s3s::dto::PublicAccessBlockConfiguration;
use s3s::path::S3Path;
use s3s::{S3Error, S3ErrorCode, S3Request, S3Result, s3_error};

pub(super) use self::rights::Rights;
use super::error::{internal, store_error};
use super::lock::LockWish;
use super::service::OperationName;
use super::settings::{self, Setting};
use super::{convert, encryption, lock, sts, tags};
use crate::auth::policy::{self, Caller, Context, Policy};
use crate::auth::{self, Auth, Principal, ROOT, Refusal};
use crate::model::BucketName;
use crate::store::{BucketIdentity, BucketInfo, Store, StoreError};
use crate::sys::clock;
use crate::sys::wire::Peer;

/// Policies that are kept read at once.
const POLICIES_MAX: usize = 256;

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

/// What is known of a request's right to a bucket.
#[derive(Clone)]
pub(super) struct Access {
    caller: Caller,
    is_owner: bool,
    bucket: BucketInfo,
    policy: Option<Arc<Policy>>,
    context: Context,
}

impl Access {
    /// Whether the caller may do this with the bucket, or with an object in it.
    pub(super) fn check(&self, action: &str, key: Option<&str>) -> S3Result<()> {
        // Whoever may read a bucket may read its snapshots.
        let bucket = self.bucket.name.base();
        let resource = match key {
            None => format!("arn:aws:s3:::{bucket}"),
            Some(key) => format!("arn:aws:s3:::{bucket}/{key}"),
        };
        let request = policy::Request { caller: &self.caller, action, resource: &resource, context: &self.context };
        let allowed = policy::decide(self.is_owner, self.policy.as_deref(), &request);
        if allowed { Ok(()) } else { Err(s3_error!(AccessDenied, "Access Denied")) }
    }

    /// The bucket that it is about.
    pub(super) fn bucket(&self) -> &BucketInfo {
        &self.bucket
    }

    /// What a caller is told of an object that is not there: only who may list the bucket learns of it.
    pub(super) fn missing(&self, error: S3Error) -> S3Error {
        let is_missing = matches!(error.code(), S3ErrorCode::NoSuchKey | S3ErrorCode::NoSuchVersion);
        if is_missing && self.check("s3:ListBucket", None).is_err() {
            return s3_error!(AccessDenied, "Access Denied");
        }
        error
    }
}

/// Each with the text that it was read from.
type Policies = HashMap<BucketName, (Bytes, Arc<Policy>)>;

/// Lets a request through where its caller may do what it asks.
pub(super) struct Gate {
    auth: Auth,
    store: Store,
    /// Policies as they were last read, by bucket.
    policies: Arc<Mutex<Policies>>,
}

impl Gate {
    pub(super) fn new(auth: Auth, store: Store) -> Self {
        Self { auth, store, policies: Arc::default() }
    }

    /// Who calls; nobody where the request is not signed.
    async fn principal(
        &self,
        credentials: Option<&Credentials>,
        headers: &HeaderMap,
        uri: &Uri,
    ) -> S3Result<Option<Principal>> {
        let Some(credentials) = credentials else { return Ok(None) };
        if sts::is_signed_for_sts(headers) {
            return Err(s3_error!(NotImplemented, "STS is asked with POST and a form; sign S3 requests for s3."));
        }
        let caller = admit(&self.auth, &credentials.access_key, headers, uri).await?;
        Ok(Some(caller.principal))
    }

    async fn policy(&self, bucket: &BucketName) -> S3Result<Option<Arc<Policy>>> {
        let Some(text) = self.store.setting(bucket, Setting::Policy.name()).await.map_err(store_error)? else {
            return Ok(None);
        };
        let lock = || self.policies.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((kept, policy)) = lock().get(bucket)
            && *kept == text
        {
            return Ok(Some(policy.clone()));
        }
        let policy = Arc::new(Policy::parse(&text, bucket.as_str()).map_err(internal)?);
        let mut policies = lock();
        if policies.len() >= POLICIES_MAX {
            policies.clear();
        }
        policies.insert(bucket.clone(), (text, policy.clone()));
        Ok(Some(policy))
    }

    /// What is known of this caller's right to a bucket; an absent bucket says so.
    async fn access(&self, principal: Option<&Principal>, bucket: &str, asked: Asked<'_>) -> S3Result<Access> {
        let name = convert::bucket(bucket)?;
        let bucket = self.store.bucket(&name).await.map_err(|error| match error {
            StoreError::NoSuchBucket { .. } => s3_error!(NoSuchBucket),
            error => store_error(error),
        })?;
        let is_owner = principal.is_some_and(|principal| principal.may_use(&bucket.owner));
        let mut policy = self.policy(&name.base()).await?;
        if !is_owner && policy.as_ref().is_some_and(|policy| policy.is_public()) {
            let block = Setting::PublicAccessBlock;
            let block = settings::read::<PublicAccessBlockConfiguration>(&self.store, &name.base(), block).await?;
            if block.is_some_and(|block| block.restrict_public_buckets == Some(true)) {
                policy = None;
            }
        }
        let mut context = asked.context();
        if let Some(key) = asked.key.filter(|_| wants_tags(policy.as_deref())) {
            context = self.with_tags(context, &name, key, asked.version.as_deref()).await?;
        }
        Ok(Access { caller: principal.map_or(Caller::Anonymous, caller_of), is_owner, bucket, policy, context })
    }

    /// The context, with the tags of the object that it is about.
    async fn with_tags(
        &self,
        context: Context,
        name: &BucketName,
        key: &str,
        version: Option<&str>,
    ) -> S3Result<Context> {
        let found = self.store.head_version(name, &convert::key(key)?, convert::version(version)?).await;
        let info = match found.map_err(store_error) {
            Ok(info) => info,
            // What is not there has no tags. What cannot be read may have some that deny.
            Err(error) if error.code().status_code().is_some_and(|status| status.is_client_error()) => {
                return Ok(context);
            }
            Err(error) => return Err(error),
        };
        let tags = tags::of(&info.headers);
        Ok(context.existing_tags(
            tags.iter().filter_map(|tag| Some((tag.key.as_deref()?, tag.value.as_deref().unwrap_or_default()))),
        ))
    }
}

/// Whether a policy asks for the tags of objects.
fn wants_tags(policy: Option<&Policy>) -> bool {
    policy.is_some_and(|policy| policy.wants("s3:ExistingObjectTag/"))
}

/// The caller as policies know them. Root is the account of that name.
fn caller_of(principal: &Principal) -> Caller {
    match principal {
        Principal::Root => Caller::account(ROOT),
        Principal::Tenant(tenant) => Caller::account(tenant),
        Principal::User { tenant, name } => Caller::user(tenant, name),
        Principal::Role { tenant, role, session } => Caller::role(tenant, role, session),
    }
}

/// Who signed with `access_key`, where the session token that the request carries, or its absence, is right.
pub(super) async fn admit(auth: &Auth, access_key: &str, headers: &HeaderMap, uri: &Uri) -> S3Result<auth::Caller> {
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

/// What a request says of its circumstances.
struct Asked<'a> {
    headers: &'a HeaderMap,
    uri: &'a Uri,
    key: Option<&'a str>,
    version: Option<String>,
    peer: Option<Peer>,
}

impl<'a> Asked<'a> {
    fn new(cx: &'a S3AccessContext<'_>) -> Self {
        let key = match cx.s3_path() {
            S3Path::Object { key, .. } => Some(&**key),
            _ => None,
        };
        Self { headers: cx.headers(), uri: cx.uri(), key, version: query(cx.uri(), "versionId"), peer: None }
    }

    fn header(&self, name: &str) -> Option<&'a str> {
        self.headers.get(name)?.to_str().ok()
    }

    fn context(&self) -> Context {
        let mut context = Context::new()
            .at(clock::now())
            .with_some("aws:SourceIp", self.peer.map(|peer| peer.addr.ip().to_canonical().to_string()))
            .with_some("aws:SecureTransport", self.peer.map(|peer| peer.tls.to_string()))
            .with_some("aws:UserAgent", self.header("user-agent"))
            .with_some("aws:Referer", self.header("referer"));
        for (name, value) in url::form_urlencoded::parse(self.uri.query().unwrap_or_default().as_bytes()) {
            if matches!(&*name, "prefix" | "delimiter" | "max-keys" | "versionId") {
                context.add(&format!("s3:{name}"), value);
            }
        }
        for name in self.headers.keys().map(hyper::header::HeaderName::as_str) {
            if let (true, Some(value)) = (name.starts_with("x-amz-"), self.header(name)) {
                let key = name.strip_prefix("x-amz-").filter(|name| name.starts_with("object-lock-")).unwrap_or(name);
                context.add(&format!("s3:{key}"), value);
            }
        }
        let tags: Vec<_> = self
            .header(convert::TAGGING)
            .map_or_else(Vec::new, |header| url::form_urlencoded::parse(header.as_bytes()).into_owned().collect());
        context.request_tags(tags.iter().map(|(key, value)| (key.as_str(), value.as_str())))
    }
}

/// A parameter of the query.
fn query(uri: &Uri, wanted: &str) -> Option<String> {
    let mut pairs = url::form_urlencoded::parse(uri.query()?.as_bytes());
    pairs.find(|(name, _)| name == wanted).map(|(_, value)| value.into_owned())
}

/// Whether a request wants other headers in the answer than the object has.
fn names_response_headers(uri: &Uri) -> bool {
    url::form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes())
        .any(|(name, _)| name.starts_with("response-"))
}

#[async_trait::async_trait]
impl S3Access for Gate {
    async fn check(&self, cx: &mut S3AccessContext<'_>) -> S3Result<()> {
        let operation = cx.s3_op().name().to_owned();
        if let Some(name) = cx.extensions_mut().get::<OperationName>() {
            // A cell that is filled already belongs to the same request.
            drop(name.0.set(operation.clone()));
        }
        let principal = self.principal(cx.credentials(), cx.headers(), cx.uri()).await?;
        let peer = cx.extensions_mut().get::<Peer>().copied();
        let access = match cx.s3_path() {
            S3Path::Bucket { bucket } | S3Path::Object { bucket, .. } if operation != "CreateBucket" => {
                let asked = Asked { peer, ..Asked::new(cx) };
                let (key, has_version) = (asked.key, asked.version.is_some());
                let has_bypass = asked
                    .header("x-amz-bypass-governance-retention")
                    .is_some_and(|text| !text.eq_ignore_ascii_case("false"));
                let besides: Vec<_> =
                    action::BESIDES.into_iter().filter(|(name, _)| asked.headers.contains_key(*name)).collect();
                let expected = asked.header("x-amz-expected-bucket-owner");
                let access = self.access(principal.as_ref(), bucket, asked).await?;
                if expected.is_some_and(|expected| expected != access.bucket.owner) {
                    return Err(s3_error!(AccessDenied, "The bucket belongs to somebody else than expected."));
                }
                if let Some(action) = action::of(&operation, has_version) {
                    access.check(action, key)?;
                }
                if access.bucket.name.is_snapshot() && !action::reads_snapshots(&operation) {
                    return Err(store_error(StoreError::IsSnapshot(access.bucket.name)));
                }
                if has_bypass && action::bypasses(&operation) {
                    access.check("s3:BypassGovernanceRetention", key)?;
                }
                for (_, action) in besides.into_iter().filter(|_| action::may_ask_besides(&operation)) {
                    access.check(action, key)?;
                }
                if principal.is_none() && operation == "GetObject" && names_response_headers(cx.uri()) {
                    let text = "Request specific response headers cannot be used for anonymous GET requests.";
                    return Err(S3Error::with_message(S3ErrorCode::InvalidRequest, text));
                }
                Some(access)
            }
            _ if principal.is_none() => return Err(s3_error!(AccessDenied, "Sign the request.")),
            _ => None,
        };
        let extensions = cx.extensions_mut();
        if let Some(principal) = principal {
            extensions.insert(principal);
        }
        if let Some(access) = access {
            extensions.insert(access);
        }
        // Copies name a second bucket.
        extensions.insert(Self { auth: self.auth.clone(), store: self.store.clone(), policies: self.policies.clone() });
        Ok(())
    }
}

impl Clone for Gate {
    fn clone(&self) -> Self {
        Self { auth: self.auth.clone(), store: self.store.clone(), policies: self.policies.clone() }
    }
}

/// Whether a caller may put an object, and what S3 would keep of it besides its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Leave {
    /// It may not.
    Refused,
    /// It may over S3 only: the bucket encrypts what is put into it.
    Encrypted,
    /// It may.
    Granted {
        /// Into this bucket, and no other of its name.
        bucket: BucketIdentity,
        /// The headers that the object has: locks, by the bucket's default.
        headers: BTreeMap<String, String>,
    },
}

/// The gate, for doors that speak another language than S3: it asks the same owners and policies.
#[derive(Clone)]
pub struct SideGate(Gate);

impl std::fmt::Debug for SideGate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SideGate").finish_non_exhaustive()
    }
}

impl SideGate {
    /// A gate to what is in `store`.
    #[must_use]
    pub fn new(auth: Auth, store: Store) -> Self {
        Self(Gate::new(auth, store))
    }

    /// Whether the caller may get the object; of a bucket that is not there, nobody may.
    pub async fn may_get(
        &self,
        principal: &Principal,
        peer: Option<Peer>,
        bucket: &str,
        key: &str,
    ) -> Result<bool, S3Error> {
        let (headers, uri) = (HeaderMap::new(), Uri::default());
        let asked = Asked { headers: &headers, uri: &uri, key: Some(key), version: None, peer };
        match self.0.access(Some(principal), bucket, asked).await {
            Ok(access) => Ok(access.check("s3:GetObject", Some(key)).is_ok()),
            Err(error) if matches!(error.code(), S3ErrorCode::NoSuchBucket) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Whether the caller may list the bucket; one that is not there, nobody may.
    pub async fn may_list(&self, principal: &Principal, peer: Option<Peer>, bucket: &str) -> Result<bool, S3Error> {
        let (headers, uri) = (HeaderMap::new(), Uri::default());
        let asked = Asked { headers: &headers, uri: &uri, key: None, version: None, peer };
        match self.0.access(Some(principal), bucket, asked).await {
            Ok(access) => Ok(access.check("s3:ListBucket", None).is_ok()),
            Err(error) if matches!(error.code(), S3ErrorCode::NoSuchBucket) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Whether the caller may put the object; into a bucket that is not there, nobody may.
    pub async fn may_put(
        &self,
        principal: &Principal,
        peer: Option<Peer>,
        bucket: &str,
        key: &str,
    ) -> Result<Leave, S3Error> {
        let (headers, uri) = (HeaderMap::new(), Uri::default());
        let asked = Asked { headers: &headers, uri: &uri, key: Some(key), version: None, peer };
        let access = match self.0.access(Some(principal), bucket, asked).await {
            Ok(access) => access,
            Err(error) if matches!(error.code(), S3ErrorCode::NoSuchBucket) => return Ok(Leave::Refused),
            Err(error) => return Err(error),
        };
        let place = access.bucket();
        if place.name.is_snapshot() || access.check("s3:PutObject", Some(key)).is_err() {
            return Ok(Leave::Refused);
        }
        if encryption::is_default(&self.0.store, &place.name).await? {
            return Ok(Leave::Encrypted);
        }
        let nothing = LockWish { mode: None, until: None, hold: None };
        let headers = lock::for_write(&self.0.store, place, nothing).await?;
        Ok(Leave::Granted { bucket: place.identity(), headers })
    }
}

/// Whether the caller may read the object that a copy names as its source.
pub(super) async fn check_source<T>(
    request: &S3Request<T>,
    bucket: &str,
    key: &str,
    version: Option<&str>,
) -> S3Result<Access> {
    let gate = request.extensions.get::<Gate>().cloned().ok_or_else(|| s3_error!(AccessDenied))?;
    let asked = Asked {
        headers: &request.headers,
        uri: &request.uri,
        key: Some(key),
        version: version.map(str::to_owned),
        peer: request.extensions.get::<Peer>().copied(),
    };
    let access = gate.access(request.extensions.get::<Principal>(), bucket, asked).await?;
    let expected = request.headers.get("x-amz-source-expected-bucket-owner").map(hyper::header::HeaderValue::as_bytes);
    if expected.is_some_and(|expected| expected != access.bucket.owner.as_bytes()) {
        return Err(s3_error!(AccessDenied, "The source's bucket belongs to somebody else than expected."));
    }
    access.check(if version.is_some() { "s3:GetObjectVersion" } else { "s3:GetObject" }, Some(key))?;
    Ok(access)
}

/// Who calls, as the gate found out.
pub(super) fn caller<T>(request: &S3Request<T>) -> S3Result<Principal> {
    request.extensions.get::<Principal>().cloned().ok_or_else(|| s3_error!(AccessDenied))
}

/// What the gate found out of the caller's right to the bucket.
pub(super) fn access_of<T>(request: &S3Request<T>) -> S3Result<Access> {
    from(&request.extensions).cloned()
}

/// The bucket that a request names, as the gate found it.
pub(super) fn bucket_of<T>(request: &S3Request<T>) -> S3Result<BucketInfo> {
    from(&request.extensions).map(|access| access.bucket.clone())
}

fn from(extensions: &Extensions) -> S3Result<&Access> {
    extensions.get::<Access>().ok_or_else(|| s3_error!(AccessDenied))
}
