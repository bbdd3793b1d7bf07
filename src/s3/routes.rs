//! The requests on this port that s3s does not know: each is handed to who does.

use hyper::http::Extensions;
use hyper::{HeaderMap, Method, Uri};
use s3s::route::S3Route;
use s3s::{Body, S3Request, S3Response, S3Result};

use super::batch::Batches;
use super::sts::{self, Sts};

/// All routes, of which s3s takes one.
pub(super) struct Routes {
    pub(super) sts: Sts,
    pub(super) batches: Batches,
}

impl Routes {
    fn of(&self, request: &S3Request<Body>) -> &dyn S3Route {
        if sts::asks(&request.method, &request.uri, &request.headers) { &self.sts } else { &self.batches }
    }
}

#[async_trait::async_trait]
impl S3Route for Routes {
    fn is_match(&self, method: &Method, uri: &Uri, headers: &HeaderMap, extensions: &mut Extensions) -> bool {
        self.sts.is_match(method, uri, headers, extensions) || self.batches.is_match(method, uri, headers, extensions)
    }

    async fn check_access(&self, request: &mut S3Request<Body>) -> S3Result<()> {
        self.of(request).check_access(request).await
    }

    async fn call(&self, request: S3Request<Body>) -> S3Result<S3Response<Body>> {
        self.of(&request).call(request).await
    }
}
