//! The last touch on each answer: an id by which its request is found in the log, also inside of errors, and the code that S3 documents
//! where s3s has another.

use bytes::Bytes;
use hyper::header::{CONTENT_LENGTH, HeaderValue};
use hyper::{Method, Response, StatusCode};
use s3s::Body;

use crate::sys::entropy;

/// The header that carries the id.
const REQUEST_ID: &str = "x-amz-request-id";
/// Where the id goes in an error.
const ERROR_END: &str = "</Error>";

/// A fresh id of a request: 16 capital hexadecimal digits, as S3's own look.
pub(super) fn fresh_id() -> String {
    let mut bytes = [0; 8];
    entropy::fill(&mut bytes);
    hex::encode_upper(bytes)
}

/// Completes the answer to the request of that id.
pub(super) fn finish(answer: &mut Response<Body>, method: &Method, path: &str, id: &str) {
    if answer.status().is_client_error() || answer.status().is_server_error() {
        let text = answer.body().bytes().and_then(|bytes| String::from_utf8(bytes.to_vec()).ok());
        if let Some(text) = text.filter(|text| text.contains(ERROR_END)) {
            let text = if *method == Method::POST { as_form_refusal(answer, text) } else { text };
            let resource = path.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
            let more = format!(
                "<Resource>{resource}</Resource><RequestId>{id}</RequestId><HostId>bedplate</HostId>{ERROR_END}"
            );
            let text = text.replacen(ERROR_END, &more, 1);
            if let Some(length) = answer.headers_mut().get_mut(CONTENT_LENGTH) {
                *length = HeaderValue::from(text.len());
            }
            *answer.body_mut() = Body::from(Bytes::from(text));
        }
    }
    if let Ok(id) = HeaderValue::from_str(id) {
        answer.headers_mut().insert(REQUEST_ID, id);
    }
    answer.headers_mut().entry("server").or_insert(HeaderValue::from_static("bedplate"));
}

/// A form that breaks a condition of its own policy is denied, and is no malformed policy.
fn as_form_refusal(answer: &mut Response<Body>, text: String) -> String {
    let code = "<Code>InvalidPolicyDocument</Code>";
    let is_broken = text.contains("Policy condition ") || text.contains("does not match bucket in URL");
    if !text.contains(code) || !is_broken {
        return text;
    }
    *answer.status_mut() = StatusCode::FORBIDDEN;
    text.replace(code, "<Code>AccessDenied</Code>")
        .replace("Policy condition ", "Invalid according to Policy: Policy Condition failed: ")
}

#[cfg(test)]
mod tests {
    //! Every answer has an id, errors carry it inside, and a broken form is denied.
    use super::*;

    fn answer(status: u16, text: &str) -> Response<Body> {
        let mut answer = Response::new(Body::from(text.to_owned()));
        *answer.status_mut() = StatusCode::from_u16(status).unwrap();
        answer
    }

    fn text(answer: &Response<Body>) -> String {
        String::from_utf8(answer.body().bytes().unwrap().to_vec()).unwrap()
    }

    #[test]
    fn answers_have_ids() {
        let id = fresh_id();
        let mut good = answer(200, "</Error>");
        finish(&mut good, &Method::GET, "/b/k", &id);
        assert_eq!((good.headers()[REQUEST_ID].to_str().unwrap(), text(&good).as_str()), (id.as_str(), "</Error>"));
        let mut bad = answer(404, "<Error><Code>NoSuchKey</Code></Error>");
        finish(&mut bad, &Method::GET, "/b/<k>", &id);
        let end =
            format!("<Resource>/b/&lt;k&gt;</Resource><RequestId>{id}</RequestId><HostId>bedplate</HostId></Error>");
        assert!(text(&bad).ends_with(&end), "{}", text(&bad));
    }

    #[test]
    fn broken_forms_are_denied() {
        let code = "<Error><Code>InvalidPolicyDocument</Code><Message>Policy condition 'eq' failed</Message></Error>";
        let mut broken = answer(400, code);
        finish(&mut broken, &Method::POST, "/b", "1");
        assert!(broken.status() == StatusCode::FORBIDDEN && text(&broken).contains("<Code>AccessDenied</Code>"));
        let mut malformed = answer(400, "<Error><Code>InvalidPolicyDocument</Code></Error>");
        finish(&mut malformed, &Method::POST, "/b", "1");
        assert_eq!(malformed.status(), StatusCode::BAD_REQUEST);
    }
}
