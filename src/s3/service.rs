//! The door as a service: limits, health answers, and counting, around s3s.

use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use hyper::body::Incoming;
use hyper::header::{CONNECTION, CONTENT_LENGTH, EXPECT, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use s3s::Body;
use s3s::config::{S3Config as Limits, StaticConfigProvider};
use s3s::host::MultiDomain;
use s3s::service::{S3Service, S3ServiceBuilder};
use tokio::sync::Semaphore;

use super::Door;
use super::access::{Gate, Keys};
use super::answer;
use super::cross_origin::{self, CrossOrigin};
use super::operations::Operations;
use super::sts::{self, Sts};
use crate::auth::Auth;
use crate::model::limit;
use crate::store::Store;
use crate::sys::wire::BoxError;
use crate::telemetry::metrics;

/// Largest signed chunk of an aws-chunked body: it is held in memory until its signature is verified. Clients send 64
/// KiB to 8 MiB.
const SIGNED_CHUNK_MAX: usize = 16 * 1024 * 1024;
/// Largest XML body: a batch delete of 1,000 keys with room to spare.
const XML_MAX: usize = 4 * 1024 * 1024;
/// Bodies received at once; more wait their turn.
const WRITES_MAX: usize = 24;
/// Bodies sent at once; more wait their turn.
const READS_MAX: usize = 128;

/// What the door is set up with.
#[derive(Clone, Debug, Default)]
pub struct S3Config {
    /// Domains whose sub-domains name buckets.
    pub domains: Vec<String>,
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
        let door = Door {
            store: store.clone(),
            writes: Arc::new(Semaphore::new(WRITES_MAX)),
            reads: Arc::new(Semaphore::new(READS_MAX)),
        };
        let mut builder = S3ServiceBuilder::new(Operations(door));
        // Without this line s3s would be open to everybody.
        builder.set_auth(Keys(auth.clone()));
        builder.set_route(Sts(auth.clone()));
        builder.set_access(Gate::new(auth, store.clone()));
        if !config.domains.is_empty() {
            builder.set_host(MultiDomain::new(&config.domains).map_err(|error| S3ConfigError(Box::new(error)))?);
        }
        builder.set_config(Arc::new(StaticConfigProvider::new(Arc::new(limits()))));
        Ok(Self { inner: builder.build(), store, domains: config.domains.clone().into() })
    }
}

fn limits() -> Limits {
    let mut limits = Limits::default();
    limits.xml_max_body_size = XML_MAX;
    limits.put_object_max_size = Some(limit::PUT_MAX);
    limits.post_object_max_file_size = limit::PUT_MAX;
    limits.aws_chunked_stream_max_chunk_size = SIGNED_CHUNK_MAX;
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

/// Whether the client waits for `100 Continue` before it sends a body of no bytes. There is nothing to read, so it is not told to go on, and some
/// clients then take the next answer for the missing one: the connection ends with this answer.
fn expects_in_vain<B>(request: &Request<B>) -> bool {
    let header = |name| request.headers().get(name).map(HeaderValue::as_bytes);
    header(EXPECT).is_some() && header(CONTENT_LENGTH) == Some(b"0")
}

impl tower_service::Service<Request<Incoming>> for S3Door {
    type Response = Response<Body>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<Incoming>) -> Self::Future {
        if asks_for_health(&request) {
            // The door is opened last, so whoever reaches it reaches a program that is ready.
            let mut answer = Response::new(Body::from("ok\n".to_owned()));
            *answer.status_mut() = StatusCode::OK;
            return Box::pin(std::future::ready(Ok(answer)));
        }
        let page = CrossOrigin::of(&request, &self.domains);
        let store = self.store.clone();
        if request.method() == Method::OPTIONS {
            return Box::pin(async move {
                let answer = cross_origin::preflight(page.as_ref(), &store).await;
                metrics::request("s3", "Preflight", answer.status().as_u16());
                Ok(answer)
            });
        }
        let ends = expects_in_vain(&request);
        let (id, method, path) = (answer::fresh_id(), request.method().clone(), request.uri().path().to_owned());
        let name = OperationName::default();
        request.extensions_mut().insert(name.clone());
        let is_sts = sts::asks(request.method(), request.uri(), request.headers());
        let answer = tower_service::Service::call(&mut self.inner, request);
        Box::pin(async move {
            let mut answer = answer.await.map_err(s3s::HttpError::into_std_error)?;
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
            let operation = name.0.get().map_or("refused", String::as_str);
            metrics::request("s3", operation, answer.status().as_u16());
            Ok(answer)
        })
    }
}
