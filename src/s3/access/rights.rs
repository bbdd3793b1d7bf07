//! The right of one caller to the objects of a bucket that one request lists.

use s3s::{Body, S3Request, S3Result, s3_error};

use super::{Access, Asked, Gate, wants_tags};
use crate::sys::wire::Peer;

/// A caller's right to read the objects of a bucket, each asked about on its own.
#[derive(Clone)]
pub(in crate::s3) struct Rights {
    gate: Gate,
    access: Access,
    wants_tags: bool,
}

impl Gate {
    /// What whoever sent a request may read of a bucket; an absent bucket says so.
    pub(in crate::s3) async fn rights(&self, request: &S3Request<Body>, bucket: &str) -> S3Result<Rights> {
        let (headers, uri) = (&request.headers, &request.uri);
        let principal = self.principal(request.credentials.as_ref(), headers, uri).await?;
        let peer = request.extensions.get::<Peer>().copied();
        let asked = Asked { headers, uri, key: None, version: None, peer };
        let expected = asked.header("x-amz-expected-bucket-owner");
        let access = self.access(principal.as_ref(), bucket, asked).await?;
        if expected.is_some_and(|expected| expected != access.bucket.owner) {
            return Err(s3_error!(AccessDenied, "The bucket belongs to somebody else than expected."));
        }
        if !access.is_owner && access.policy.is_none() {
            return Err(s3_error!(AccessDenied, "Access Denied"));
        }
        let wants_tags = wants_tags(access.policy.as_deref());
        Ok(Rights { gate: self.clone(), access, wants_tags })
    }
}

impl Rights {
    /// What is known of the caller and the bucket, without any object.
    pub(in crate::s3) fn access(&self) -> &Access {
        &self.access
    }

    /// Whether the caller may get the object.
    pub(in crate::s3) async fn check(&self, key: &str) -> S3Result<()> {
        if !self.wants_tags {
            return self.access.check("s3:GetObject", Some(key));
        }
        let context = self.gate.with_tags(self.access.context.clone(), &self.access.bucket.name, key, None).await?;
        Access { context, ..self.access.clone() }.check("s3:GetObject", Some(key))
    }
}
