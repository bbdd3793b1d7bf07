//! The control door: racks, jobs, images, the agent's endpoint, boot media.
//!
//! Every endpoint is an entry of one table ([`endpoints`]); the router, who may call, and the OpenAPI document are made
//! from it. Handlers translate, call one service, and translate back.

mod agent;
mod endpoint;
mod error;
mod extract;
mod guard;
mod health;
pub mod identity;
mod images;
mod jobs;
mod keys;
mod media;
mod objects;
mod openapi;
mod pull;
mod push;
mod racks;
mod range;
mod refused;
mod seal;
mod snapshots;
mod store;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{DefaultBodyLimit, Request};
use axum::http::StatusCode;
use axum::middleware::{self, Next};
use axum::response::Response;

use crate::auth::Auth;
use crate::auth::Principal;
use crate::image::boot::BootMedia;
use crate::image::{Catalogue, ImageError};
use crate::job::JobView;
use crate::model::{ImageRef, JobId};
use crate::rack::{Conductor, ImageFacts, Images};
use crate::store::{BoxError, BucketIdentity, Store};
use crate::sys::lane::Lane;
use crate::sys::wire::{IdleBody, Peer, ShownPin};
use crate::telemetry::metrics;
use endpoint::Endpoint;
use error::{ApiError, ApiResult};
use seal::Seals;

/// How long the next bytes of a request's body are awaited.
const BODY_PATIENCE: Duration = Duration::from_secs(60);

/// Whether a caller may put an object by this door.
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
        /// The headers that the object has, as it would have them over S3.
        headers: BTreeMap<String, String>,
    },
}

/// Who may read and write which objects: S3's owners and policies, asked by this door.
#[async_trait::async_trait]
pub trait Gate: Send + Sync {
    /// Whether the caller may get the object.
    async fn may_get(&self, caller: &Principal, peer: Option<Peer>, bucket: &str, key: &str) -> Result<bool, BoxError>;

    /// Whether the caller may list the bucket.
    async fn may_list(&self, caller: &Principal, peer: Option<Peer>, bucket: &str) -> Result<bool, BoxError>;

    /// Whether the caller may put the object.
    async fn may_put(&self, caller: &Principal, peer: Option<Peer>, bucket: &str, key: &str)
    -> Result<Leave, BoxError>;
}

/// What the control door works with.
pub struct ApiParts {
    /// The store.
    pub store: Store,
    /// The images in it.
    pub catalogue: Catalogue,
    /// Plans and jobs.
    pub conductor: Conductor,
    /// Keys and tenants.
    pub auth: Auth,
    /// Who may read and write which objects.
    pub gate: Arc<dyn Gate>,
    /// The boot image, where there is one.
    pub boot: Option<BootMedia>,
    /// Base URL under which nodes reach this door, `https://address:port`.
    pub public_url: String,
    /// SHA-256 of the certificate.
    pub certificate_pin: ShownPin,
}

/// The control door's state. Cheap to clone.
#[derive(Clone)]
pub struct ApiState {
    parts: Arc<ApiParts>,
    ready: Arc<AtomicBool>,
    seals: Arc<Seals>,
    /// Pushes that may be received at once.
    pushes: Lane,
}

impl ApiState {
    /// A state that is not ready yet.
    #[must_use]
    pub fn new(parts: ApiParts) -> Self {
        let pushes = Lane::new(push::AT_ONCE);
        Self { parts: Arc::new(parts), ready: Arc::default(), seals: Arc::new(Seals::new()), pushes }
    }

    /// Says whether `/readyz` answers 200: once both doors are bound, and no more when stopping.
    pub fn set_ready(&self, ready: bool) {
        self.ready.store(ready, Ordering::Relaxed);
    }

    fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Relaxed)
    }

    fn store(&self) -> &Store {
        &self.parts.store
    }

    fn catalogue(&self) -> &Catalogue {
        &self.parts.catalogue
    }

    fn conductor(&self) -> &Conductor {
        &self.parts.conductor
    }

    /// An open job that installs this image.
    async fn open_job_of(&self, image: &ImageRef) -> ApiResult<Option<JobId>> {
        let jobs = self.conductor().jobs(None, usize::MAX).await?;
        let installs = |job: &JobView| job.nodes.iter().any(|node| node.image == *image && !node.state.is_over());
        Ok(jobs.iter().find(|job| installs(job)).map(|job| job.id))
    }

    fn auth(&self) -> &Auth {
        &self.parts.auth
    }

    fn gate(&self) -> &dyn Gate {
        &*self.parts.gate
    }

    fn seals(&self) -> &Seals {
        &self.seals
    }

    fn boot(&self) -> Option<&BootMedia> {
        self.parts.boot.as_ref()
    }

    fn public_url(&self) -> &str {
        &self.parts.public_url
    }

    /// SHA-256 of the certificate, 64 hexadecimal digits.
    fn certificate_pin(&self) -> String {
        self.parts.certificate_pin.text()
    }
}

/// A rack asks the catalogue what an image is; nothing else of it.
#[async_trait::async_trait]
impl Images for Catalogue {
    async fn find(&self, image: &ImageRef) -> Result<Option<ImageFacts>, BoxError> {
        match self.info(image).await {
            Ok(info) => Ok(Some(ImageFacts { image: image.clone(), bytes: info.bytes, root_digest: info.root_digest })),
            Err(ImageError::NoSuchImage(_)) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

/// Every endpoint of the door.
fn endpoints() -> Vec<Endpoint> {
    [
        health::endpoints(),
        media::endpoints(),
        agent::endpoints(),
        pull::endpoints(),
        objects::endpoints(),
        push::endpoints(),
        images::endpoints(),
        racks::endpoints(),
        jobs::endpoints(),
        store::endpoints(),
        snapshots::endpoints(),
        keys::endpoints(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// The control door as a service.
pub fn router(state: ApiState) -> Router {
    let mut router = Router::new();
    for endpoint in endpoints() {
        let path = endpoint.path;
        let guard = middleware::from_fn_with_state((state.clone(), endpoint.who), guard::guard);
        let count = middleware::from_fn(move |request, next| observe(path, request, next));
        router = router.route(path, endpoint.handler.layer(guard).layer(count));
    }
    router
        .fallback(no_such_address)
        .method_not_allowed_fallback(no_such_method)
        .layer(DefaultBodyLimit::max(extract::JSON_MAX))
        .layer(middleware::from_fn(refused::read_on))
        .layer(middleware::map_request(impatient))
        .with_state(state)
}

/// Lets nobody wait for ever for a body that does not come.
async fn impatient(request: Request) -> Request {
    request.map(|body| Body::new(IdleBody::new(body, BODY_PATIENCE)))
}

/// Counts and logs one request. The path is the table's, so that neither ids nor tokens reach a log.
async fn observe(path: &'static str, request: Request, next: Next) -> Response {
    let method = request.method().clone();
    let response = next.run(request).await;
    let status = response.status().as_u16();
    metrics::request("api", path, status);
    tracing::debug!(%method, path, status, "answered");
    response
}

async fn no_such_address() -> ApiError {
    ApiError::not_found("there is no such address here", "GET /api/v1/openapi.json lists the addresses")
}

async fn no_such_method() -> ApiError {
    ApiError::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "method",
        "this address does not do that",
        "GET /api/v1/openapi.json says what each address does",
    )
}

#[cfg(test)]
mod tests;
