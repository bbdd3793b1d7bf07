//! What a request's head may hold, as S3 documents it; checked before anything else is looked at.

use hyper::{Method, Request};
use s3s::S3ErrorCode;

/// All headers and the query together, in bytes.
const HEAD_MAX: usize = 8 * 1024;
/// A user's own metadata: names without their prefix, and values, in bytes.
const METADATA_MAX: usize = 2 * 1024;
/// Before the name of each of a user's own headers.
const USER_HEADER: &str = "x-amz-meta-";

/// Refuses a head that is too large, and a form whose length nobody knows: it would have to be held as a whole.
pub(super) fn check<B>(request: &Request<B>) -> Result<(), S3ErrorCode> {
    let headers = request.headers();
    let lines = headers.iter().map(|(name, value)| name.as_str().len() + value.len());
    let query = request.uri().query().map_or(0, str::len);
    if lines.sum::<usize>() + query > HEAD_MAX {
        return Err(S3ErrorCode::RequestHeaderSectionTooLarge);
    }
    let user =
        headers.iter().filter_map(|(name, value)| Some(name.as_str().strip_prefix(USER_HEADER)?.len() + value.len()));
    if user.sum::<usize>() > METADATA_MAX {
        return Err(S3ErrorCode::MetadataTooLarge);
    }
    let form = headers.get("content-type").is_some_and(|value| value.as_bytes().starts_with(b"multipart/form-data"));
    if *request.method() == Method::POST && form && !headers.contains_key("content-length") {
        return Err(S3ErrorCode::MissingContentLength);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    //! Each limit is met exactly.
    use super::*;

    fn with(headers: &[(String, String)], uri: &str) -> Result<(), S3ErrorCode> {
        let mut request = Request::post(uri);
        for (name, value) in headers {
            request = request.header(name, value);
        }
        check(&request.body(()).unwrap())
    }

    #[test]
    fn heads_are_bounded() {
        let header = |name: &str, length| (name.to_owned(), "v".repeat(length));
        assert!(with(&[header("x", HEAD_MAX - 1)], "/").is_ok());
        assert_eq!(with(&[header("x", HEAD_MAX)], "/"), Err(S3ErrorCode::RequestHeaderSectionTooLarge));
        assert_eq!(with(&[header("x", HEAD_MAX - 4)], "/?abcd"), Err(S3ErrorCode::RequestHeaderSectionTooLarge));
        let user = |length| [header("x-amz-meta-a", 1000), header("x-amz-meta-b", length)];
        assert!(with(&user(METADATA_MAX - 1002), "/").is_ok());
        assert_eq!(with(&user(METADATA_MAX - 1001), "/"), Err(S3ErrorCode::MetadataTooLarge));
    }

    #[test]
    fn forms_say_how_long_they_are() {
        let form = ("content-type".to_owned(), "multipart/form-data; boundary=x".to_owned());
        assert_eq!(with(std::slice::from_ref(&form), "/"), Err(S3ErrorCode::MissingContentLength));
        assert!(with(&[form, ("content-length".to_owned(), "1".to_owned())], "/").is_ok());
    }
}
