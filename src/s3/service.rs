//! The door as a service: limits, health answers, and counting, around s3s.

use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::body::{Body as _, Incoming};
use hyper::header::{AUTHORIZATION, CONNECTION, CONTENT_LENGTH, EXPECT, HeaderValue, RETRY_AFTER};
use hyper::{Method, Request, Response, StatusCode, Version};
use s3s::config::{S3Config as Limits, StaticConfigProvider};
use s3s::host::MultiDomain;
use s3s::service::{S3Service, S3ServiceBuilder};
use s3s::validation::{AwsNameValidation, NameValidation};
use s3s::{Body, S3Error};

use super::access::{Gate, Keys};
use super::admission::{Turns, Watch};
use super::answer;
use super::batch::Batches;
use super::cross_origin::{self, CrossOrigin};
use super::intake::{DOCUMENT_MAX, FORM_FIELDS_MAX, Intake, SIGNED_FRAME_MAX};
use super::operations::Operations;
use super::routes::Routes;
use super::sts::{self, Sts};
use super::{Door, head};
use crate::auth::Auth;
use crate::model::{BucketName, limit};
use crate::store::Store;
use crate::sys::wire::BoxError;
use crate::telemetry::metrics;

/// A client that sends no byte of its request's body for so long is told, and its connection is closed.
pub const BODY_PATIENCE: Duration = Duration::from_secs(60);
/// When to try again, in seconds, after a 503.
const RETRY_SECONDS: u32 = 2;

/// What the door is set up with.
#[derive(Clone, Debug)]
pub struct S3Config {
    /// Domains whose sub-domains name buckets.
    pub domains: Vec<String>,
    /// How long a request's next bytes are awaited.
    pub body_patience: Duration,
}

impl Default for S3Config {
    fn default() -> Self {
        Self { domains: Vec::new(), body_patience: BODY_PATIENCE }
    }
}

/// The set-up is unusable.
#[derive(Debug, thiserror::Error)]
#[error("an S3 domain is unusable; give host names such as s3.example.internal, none of them twice")]
pub struct S3ConfigError(#[source] BoxError);

/// The operation that a request turned out to be; `access` fills it in.
#[derive(Clone, Default)]
pub(super) struct OperationName(pub(super) Arc<OnceLock<String>>);

/// The door, as a service for `sys::wire::serve`.
#[derive(Clone)]
pub struct S3Door {
    inner: S3Service,
    turns: Turns,
    body_patience: Duration,
    store: Store,
    domains: Arc<[String]>,
}

impl std::fmt::Debug for S3Door {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("S3Door").finish_non_exhaustive()
    }
}

impl S3Door {
    /// The door to `store` for whoever `auth` knows.
    pub fn new(store: Store, auth: Auth, config: &S3Config) -> Result<Self, S3ConfigError> {
        let turns = Turns::new();
        let domains: Arc<[String]> = config.domains.clone().into();
        let door = Door { store: store.clone(), keys: auth.object_keys(), turns: turns.clone() };
        let mut builder = S3ServiceBuilder::new(Operations(door.clone()));
        // Without this line s3s would be open to everybody.
        builder.set_auth(Keys(auth.clone()));
        let gate = Gate::new(auth.clone(), store.clone());
        let batches = Batches { door, gate: gate.clone(), domains: domains.clone() };
        builder.set_route(Routes { sts: Sts(auth), batches });
        builder.set_validation(Names);
        builder.set_access(gate);
        if !config.domains.is_empty() {
            builder.set_host(MultiDomain::new(&config.domains).map_err(|error| S3ConfigError(Box::new(error)))?);
        }
        builder.set_config(Arc::new(StaticConfigProvider::new(Arc::new(limits()))));
        Ok(Self { inner: builder.build(), turns, body_patience: config.body_patience, store, domains })
    }
}

/// The names that requests may begin with: buckets, and snapshots of them.
struct Names;

impl NameValidation for Names {
    fn validate_bucket_name(&self, name: &str) -> bool {
        AwsNameValidation::new().validate_bucket_name(name) || BucketName::parse_readable(name).is_ok()
    }
}

fn limits() -> Limits {
    let mut limits = Limits::default();
    limits.xml_max_body_size = DOCUMENT_MAX;
    limits.custom_route_max_body_size = Some(DOCUMENT_MAX as u64);
    limits.form_max_field_size = FORM_FIELDS_MAX;
    limits.form_max_fields_size = FORM_FIELDS_MAX;
    limits.form_max_parts = 100;
    limits.put_object_max_size = Some(limit::PUT_MAX);
    limits.post_object_max_file_size = limit::PUT_MAX;
    limits.aws_chunked_stream_max_chunk_size = SIGNED_FRAME_MAX;
    limits.enable_sig_v2 = false;
    limits.presigned_url_max_expires_secs = 7 * 24 * 3_600;
    limits
}

/// Whether the request asks for the server's health, and not for a bucket of that name: S3 requests are signed.
fn asks_for_health<B>(request: &Request<B>) -> bool {
    matches!(request.uri().path(), "/healthz" | "/readyz")
        && matches!(*request.method(), Method::GET | Method::HEAD)
        && request.uri().query().is_none()
        && !request.headers().contains_key("authorization")
}

impl tower_service::Service<Request<Incoming>> for S3Door {
    type Response = Response<Body>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Incoming>) -> Self::Future {
        if asks_for_health(&request) {
            // The door is opened last, so whoever reaches it reaches a program that is ready.
            let mut answer = Response::new(Body::from("ok\n".to_owned()));
            *answer.status_mut() = StatusCode::OK;
            return Box::pin(std::future::ready(Ok(answer)));
        }
        let door = self.clone();
        if request.method() == Method::OPTIONS {
            return Box::pin(async move { Ok(door.preflight(&request).await) });
        }
        Box::pin(async move { door.complete(request).await })
    }
}

/// Whether the client waits for `100 Continue` before it sends a body of no bytes. There is nothing to read, so it is not told to go on, and some
/// clients then take the next answer for the missing one: the connection ends with this answer.
fn expects_in_vain<B>(request: &Request<B>) -> bool {
    let header = |name| request.headers().get(name).map(HeaderValue::as_bytes);
    header(EXPECT).is_some() && header(CONTENT_LENGTH) == Some(b"0")
}

impl S3Door {
    /// Answers what a browser asks before a page's request.
    async fn preflight(&self, request: &Request<Incoming>) -> Response<Body> {
        let page = CrossOrigin::of(request, &self.domains);
        let answer = cross_origin::preflight(page.as_ref(), &self.store).await;
        metrics::request("s3", "Preflight", answer.status().as_u16());
        answer
    }

    /// Answers a request, with what every answer carries.
    async fn complete(self, mut request: Request<Incoming>) -> Result<Response<Body>, BoxError> {
        // An empty signature is none.
        if request.headers().get(AUTHORIZATION).is_some_and(HeaderValue::is_empty) {
            request.headers_mut().remove(AUTHORIZATION);
        }
        let page = CrossOrigin::of(&request, &self.domains);
        let ends = expects_in_vain(&request);
        let is_sts = sts::asks(request.method(), request.uri(), request.headers());
        let (id, method, path) = (answer::fresh_id(), request.method().clone(), request.uri().path().to_owned());
        let store = self.store.clone();
        let mut answer = self.answer(request).await?;
        if let Some(page) = page {
            page.allow(&store, &mut answer).await;
        }
        if is_sts {
            answer = sts::in_its_words(answer).await;
        }
        answer::finish(&mut answer, &method, &path, &id);
        if ends {
            answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        Ok(answer)
    }

    async fn answer(self, mut request: Request<Incoming>) -> Result<Response<Body>, BoxError> {
        let name = OperationName::default();
        let watch = Watch::new(request.extensions().get());
        request.extensions_mut().insert(name.clone());
        request.extensions_mut().insert(watch.clone());
        let (version, has_body) = (request.version(), !request.body().is_end_stream());
        let answer = match head::check(&request) {
            Err(code) => refusal(S3Error::new(code))?,
            Ok(()) if has_body => {
                let request = Intake::new(request, name.clone(), watch.clone(), self.turns, self.body_patience);
                self.inner.call(request.map(Body::http_body_unsync)).await.map_err(s3s::HttpError::into_std_error)?
            }
            Ok(()) => self.inner.call(request.map(Body::from)).await.map_err(s3s::HttpError::into_std_error)?,
        };
        // Why the body broke off is known here best, whatever came of it further in.
        let mut answer = match watch.broken() {
            Some(broken) if !answer.status().is_success() => refusal(broken.error())?,
            _ => answer,
        };
        if answer.status() == StatusCode::SERVICE_UNAVAILABLE {
            answer.headers_mut().insert(RETRY_AFTER, RETRY_SECONDS.into());
        }
        // What was not read of the body must not be taken for the next request.
        if has_body && !watch.is_received() && version <= Version::HTTP_11 {
            answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        let operation = name.0.get().map_or("refused", String::as_str);
        metrics::request("s3", operation, answer.status().as_u16());
        Ok(answer)
    }
}

fn refusal(error: S3Error) -> Result<Response<Body>, BoxError> {
    let mut answer = error.to_http_response().map_err(Box::new)?;
    answer.headers_mut().remove(CONTENT_LENGTH);
    Ok(answer)
}
