//! Many objects in one request: `POST /BUCKET?batch-get` with a list of keys, answered by a tar stream in the order of the list.
//!
//! The request is signed as all of S3's are, body included, and each key is asked about as GetObject would. A batch ends in one of two
//! ways: with the end that a tar stream has, after everything that was asked for, or by a broken connection.

mod ahead;
mod list;
mod send;
mod tar;

use std::borrow::Cow;
use std::sync::Arc;

use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use hyper::http::Extensions;
use hyper::{HeaderMap, Method, Uri};
use s3s::route::S3Route;
use s3s::{Body, S3Request, S3Response, S3Result, s3_error};

use self::ahead::{Ahead, Source};
use self::list::{List, OnError};
use self::send::Batch;
use super::access::{Gate, Rights};
use super::error::store_error;
use super::intake::DOCUMENT_MAX;
use super::service::OperationName;
use super::{Door, address, body};
use crate::store::StoreError;

/// The parameter that makes a request a batch.
const PARAMETER: &str = "batch-get";
/// Its name in metrics.
const OPERATION: &str = "BatchGet";

/// The route of batches.
pub(super) struct Batches {
    pub(super) door: Door,
    pub(super) gate: Gate,
    /// Whose sub-domains name buckets.
    pub(super) domains: Arc<[String]>,
}

#[async_trait::async_trait]
impl S3Route for Batches {
    fn is_match(&self, method: &Method, uri: &Uri, headers: &HeaderMap, _: &mut Extensions) -> bool {
        *method == Method::POST
            && parameters(uri).any(|name| name == PARAMETER)
            && address::bucket_alone(uri, headers, &self.domains).is_some()
    }

    async fn check_access(&self, request: &mut S3Request<Body>) -> S3Result<()> {
        if let Some(name) = request.extensions.get::<OperationName>() {
            drop(name.0.set(OPERATION.to_owned()));
        }
        // A signature in the address, or a version, would mean something else than it does for a get.
        if parameters(&request.uri).any(|name| name != PARAMETER) {
            return Err(s3_error!(InvalidRequest, "A batch takes no other parameter than batch-get."));
        }
        let shown = |name: &str| request.headers.get(name).map(HeaderValue::as_bytes);
        // Without a digest of its body, a signed request could be made to ask for something else.
        let is_covered = request.headers.contains_key(AUTHORIZATION)
            && shown("x-amz-content-sha256").is_some_and(|value| value.len() == 64);
        if request.credentials.is_some() && !is_covered {
            return Err(s3_error!(
                InvalidRequest,
                "The signature of a batch must cover its list: sign with headers, and give its SHA-256 as x-amz-content-sha256."
            ));
        }
        if request.headers.keys().any(|name| name.as_str().starts_with("x-amz-server-side-encryption")) {
            return Err(s3_error!(
                InvalidRequest,
                "A batch brings no keys: get objects that are encrypted under a key of yours one by one."
            ));
        }
        let bucket = address::bucket_alone(&request.uri, &request.headers, &self.domains).unwrap_or_default();
        let rights = self.gate.rights(request, &bucket).await?;
        request.extensions.insert(rights);
        Ok(())
    }

    async fn call(&self, mut request: S3Request<Body>) -> S3Result<S3Response<Body>> {
        let Some(rights) = request.extensions.remove::<Rights>() else { return Err(s3_error!(AccessDenied)) };
        let text = request.input.store_all_limited(DOCUMENT_MAX).await;
        let text = text.map_err(|error| store_error(StoreError::Body(error)))?;
        let list = List::read(&text)?;
        let room = self.door.turns.list(list.weight() + text.len() as u64, &request.extensions).await?;
        let turn = self.door.turns.read(&request.extensions).await?;
        drop(text);
        let bucket = rights.access().bucket().name.clone();
        let source = Arc::new(Source { door: self.door.clone(), bucket, rights });
        if list.on_error == OnError::Stop {
            source.look_for_all(&list).await?;
        }
        let batch = Batch::new(Ahead::new(source, list), room);
        let body = body::send(Box::pin(batch), turn).await?;
        let mut answer = S3Response::new(Body::from(body));
        answer.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-tar"));
        Ok(answer)
    }
}

/// The names of what stands behind an address's question mark.
fn parameters(uri: &Uri) -> impl Iterator<Item = Cow<'_, str>> {
    url::form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes()).map(|(name, _)| name)
}
