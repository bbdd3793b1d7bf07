//! Requests of web pages from elsewhere: the question that a browser asks first, and the headers on the answers after it.

use hyper::header::{ACCESS_CONTROL_REQUEST_HEADERS, ACCESS_CONTROL_REQUEST_METHOD, ORIGIN, VARY};
use hyper::{Method, Request, Response, StatusCode};
use s3s::Body;
use s3s::dto::CORSConfiguration;

use super::address;
use super::cors::{Rules, VARIES};
use super::settings::{self, Setting};
use crate::model::BucketName;
use crate::store::Store;

/// What a page's request says of itself.
pub(super) struct CrossOrigin {
    bucket: BucketName,
    origin: String,
    method: String,
    /// The headers that the request after this one is to have; only of a browser's first question.
    headers: Option<String>,
    is_preflight: bool,
}

impl CrossOrigin {
    /// Reads a request; none where it comes from no page, or names no bucket. `domains` are those whose sub-domains name buckets.
    pub(super) fn of<B>(request: &Request<B>, domains: &[String]) -> Option<Self> {
        let headers = request.headers();
        let text = |name| headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let origin = text(ORIGIN)?;
        let (bucket, _) = address::bucket_and_rest(request.uri(), headers, domains);
        let bucket = BucketName::parse_readable(&bucket).ok()?;
        let asked = text(ACCESS_CONTROL_REQUEST_METHOD);
        let is_preflight = request.method() == Method::OPTIONS;
        let method = asked.filter(|_| is_preflight).unwrap_or_else(|| request.method().to_string());
        Some(Self { bucket, origin, method, headers: text(ACCESS_CONTROL_REQUEST_HEADERS), is_preflight })
    }

    async fn rules(&self, store: &Store) -> Option<Rules> {
        let found = settings::read::<CORSConfiguration>(store, &self.bucket, Setting::Cors).await.ok()??;
        Rules::try_from(found).ok()
    }

    /// Adds to an answer what lets the page read it.
    pub(super) async fn allow(&self, store: &Store, answer: &mut Response<Body>) {
        let Some(rules) = self.rules(store).await else { return };
        let found = rules.matching(&self.origin, &self.method, None);
        match found {
            Some(found) => answer.headers_mut().extend(found.headers()),
            None => drop(answer.headers_mut().insert(VARY, hyper::header::HeaderValue::from_static(VARIES))),
        }
    }

    /// The answer to a browser's first question.
    async fn preflight(&self, store: &Store) -> Response<Body> {
        let Some(rules) = self.rules(store).await else {
            return refusal(
                "AccessForbidden",
                "CORSResponse: CORS is not enabled for this bucket.",
                StatusCode::FORBIDDEN,
            );
        };
        match rules.matching(&self.origin, &self.method, self.headers.as_deref()) {
            Some(found) => {
                let mut answer = Response::new(Body::empty());
                answer.headers_mut().extend(found.preflight_headers());
                answer
            }
            None => {
                let text = "CORSResponse: This CORS request is not allowed. This is usually because the evalution of Origin, request method / Access-Control-Request-Method or Access-Control-Request-Headers are not whitelisted by the resource's CORS spec.";
                refusal("AccessForbidden", text, StatusCode::FORBIDDEN)
            }
        }
    }
}

/// Answers an `OPTIONS` request.
pub(super) async fn preflight(asked: Option<&CrossOrigin>, store: &Store) -> Response<Body> {
    match asked.filter(|asked| asked.is_preflight) {
        Some(asked) => asked.preflight(store).await,
        None => {
            let text = "Insufficient information. Origin request header needed.";
            refusal("BadRequest", text, StatusCode::BAD_REQUEST)
        }
    }
}

fn refusal(code: &str, text: &str, status: StatusCode) -> Response<Body> {
    let xml = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>{code}</Code><Message>{text}</Message></Error>"
    );
    let mut answer = Response::new(Body::from(xml));
    *answer.status_mut() = status;
    answer.headers_mut().insert("content-type", hyper::header::HeaderValue::from_static("application/xml"));
    answer
}

#[cfg(test)]
mod tests {
    //! The bucket is found in the path and in the host; what is no page's request is left alone.
    use super::*;

    #[test]
    fn requests_of_pages_are_known() {
        let domains = ["s3.example.internal".to_owned()];
        let of = |uri: &str, host: &str, origin: Option<&str>| {
            let mut request = Request::builder().method("OPTIONS").uri(uri).header("host", host);
            if let Some(origin) = origin {
                request = request.header("origin", origin).header("access-control-request-method", "PUT");
            }
            CrossOrigin::of(&request.body(()).unwrap(), &domains)
        };
        let asked = of("/photos/a.jpg", "localhost:9000", Some("https://a.example")).unwrap();
        assert_eq!((asked.bucket.as_str(), asked.method.as_str()), ("photos", "PUT"));
        let asked = of("/a.jpg", "photos.s3.example.internal:9000", Some("https://a.example")).unwrap();
        assert_eq!(asked.bucket.as_str(), "photos");
        assert!(of("/photos/a", "localhost", None).is_none() && of("/", "localhost", Some("x")).is_none());
    }
}
