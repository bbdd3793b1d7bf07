//! Sessions, as STS gives them out: `POST /` with a form, signed for the service `sts`, on the same port as S3.
//!
//! s3s checks the signature, body included, and hands the request over; refusals of its own are put into STS's words on
//! their way out. What a session asks for that we cannot honour, such as a policy, is refused: a session that may do more
//! than was asked is worse than none.

use std::collections::BTreeMap;

use hyper::header::{AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::http::Extensions;
use hyper::{HeaderMap, Method, Response, StatusCode, Uri};
use s3s::route::S3Route;
use s3s::{Body, S3Error, S3ErrorCode, S3Request, S3Response, S3Result, s3_error};

use super::access;
use super::error::internal;
use super::service::OperationName;
use crate::auth::{Auth, Caller, NewSession, Principal, SessionError};

/// Largest form, in bytes; s3s reads no more either.
const FORM_MAX: usize = 8192;
/// Largest refusal that is put into other words, in bytes.
const REFUSAL_MAX: usize = 64 * 1024;
const VERSION: &str = "2011-06-15";
const NAMESPACE: &str = "https://sts.amazonaws.com/doc/2011-06-15/";

/// The route to sessions.
pub(super) struct Sts(pub(super) Auth);

/// Whether a request is STS's and not S3's: S3 has no form of this type.
pub(super) fn asks(method: &Method, uri: &Uri, headers: &HeaderMap) -> bool {
    let is_form = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).is_some_and(|value| {
        let media_type = value.split(';').next().unwrap_or_default();
        media_type.trim().eq_ignore_ascii_case("application/x-www-form-urlencoded")
    });
    method == Method::POST && uri.path() == "/" && is_form
}

/// Whether the signature of a request is for STS.
pub(super) fn is_signed_for_sts(headers: &HeaderMap) -> bool {
    let shown = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
    shown.contains("/sts/aws4_request")
}

#[async_trait::async_trait]
impl S3Route for Sts {
    fn is_match(&self, method: &Method, uri: &Uri, headers: &HeaderMap, _: &mut Extensions) -> bool {
        asks(method, uri, headers)
    }

    async fn check_access(&self, request: &mut S3Request<Body>) -> S3Result<()> {
        let Some(credentials) = &request.credentials else {
            return Err(refuse("MissingAuthenticationToken", StatusCode::FORBIDDEN, "sign the request, for sts"));
        };
        if request.service.as_deref() != Some("sts") {
            let text = "the credential's scope must be that of the service sts";
            return Err(refuse("SignatureDoesNotMatch", StatusCode::FORBIDDEN, text));
        }
        // Without a digest of its body, a signed request could be made to ask for something else.
        if request.headers.get("x-amz-content-sha256").is_some_and(|value| value.len() != 64) {
            let text = "the signature must cover the form: give its SHA-256, or no x-amz-content-sha256";
            return Err(refuse("IncompleteSignature", StatusCode::BAD_REQUEST, text));
        }
        let caller = access::admit(&self.0, &credentials.access_key, &request.headers, &request.uri).await?;
        request.extensions.insert(caller);
        Ok(())
    }

    async fn call(&self, mut request: S3Request<Body>) -> S3Result<S3Response<Body>> {
        let Some(caller) = request.extensions.remove::<Caller>() else { return Err(s3_error!(AccessDenied)) };
        let bytes = request.input.store_all_limited(FORM_MAX).await;
        let bytes = bytes.map_err(|_| invalid("the form is over 8 KiB, or not what was signed"))?;
        let form = Form::read(&bytes)?;
        let action = form.get("Action").unwrap_or_default().to_owned();
        if let Some(name) = request.extensions.get::<OperationName>()
            && matches!(action.as_str(), "AssumeRole" | "GetSessionToken" | "GetCallerIdentity")
        {
            drop(name.0.set(action.clone()));
        }
        let id = hex::encode(crate::sys::entropy::fresh_id());
        let result = match action.as_str() {
            "AssumeRole" => self.assume_role(&caller, &form).await?,
            "GetSessionToken" => self.session_token(&caller, &form).await?,
            "GetCallerIdentity" => {
                form.allow(&[])?;
                identity(&caller)
            }
            _ => {
                let text = "STS here knows AssumeRole, GetSessionToken and GetCallerIdentity, of 2011-06-15";
                return Err(refuse("InvalidAction", StatusCode::BAD_REQUEST, text));
            }
        };
        let text = format!(
            "<{action}Response xmlns=\"{NAMESPACE}\"><{action}Result>{result}</{action}Result>\
             <ResponseMetadata><RequestId>{id}</RequestId></ResponseMetadata></{action}Response>"
        );
        let mut answer = S3Response::new(Body::from(text));
        answer.headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/xml"));
        answer.headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        Ok(answer)
    }
}

impl Sts {
    async fn assume_role(&self, caller: &Caller, form: &Form) -> S3Result<String> {
        form.allow(&["RoleArn", "RoleSessionName", "DurationSeconds"])?;
        let (arn, name) = (form.required("RoleArn")?, form.required("RoleSessionName")?);
        let session = self.0.assume_role(caller, arn, name, form.seconds()?).await.map_err(session_error)?;
        let credentials = credentials(&session);
        Ok(format!(
            "{credentials}<AssumedRoleUser><AssumedRoleId>{}</AssumedRoleId><Arn>{}</Arn></AssumedRoleUser>",
            escape(&unique_id(&session.principal)),
            escape(&session.principal.arn())
        ))
    }

    async fn session_token(&self, caller: &Caller, form: &Form) -> S3Result<String> {
        form.allow(&["DurationSeconds"])?;
        let session = self.0.session_token(caller, form.seconds()?).await.map_err(session_error)?;
        Ok(credentials(&session))
    }
}

fn credentials(session: &NewSession) -> String {
    format!(
        "<Credentials><AccessKeyId>{}</AccessKeyId><SecretAccessKey>{}</SecretAccessKey>\
         <SessionToken>{}</SessionToken><Expiration>{}</Expiration></Credentials>",
        session.access_key,
        session.secret_key.reveal(),
        session.token.reveal(),
        session.expires
    )
}

fn identity(caller: &Caller) -> String {
    let principal = &caller.principal;
    format!(
        "<Arn>{}</Arn><UserId>{}</UserId><Account>{}</Account>",
        escape(&principal.arn()),
        escape(&unique_id(principal)),
        escape(principal.owner())
    )
}

/// What names a principal and no other, in fewer words than its ARN.
fn unique_id(principal: &Principal) -> String {
    match principal {
        Principal::Role { tenant, role, session } => format!("{tenant}/{role}:{session}"),
        Principal::User { tenant, name } => format!("{tenant}/{name}"),
        Principal::Root | Principal::Tenant(_) => principal.owner().to_owned(),
    }
}

/// A form's fields.
struct Form(BTreeMap<String, String>);

impl Form {
    fn read(bytes: &[u8]) -> S3Result<Self> {
        let mut fields = BTreeMap::new();
        for (name, value) in url::form_urlencoded::parse(bytes) {
            if fields.insert(name.to_string(), value.into_owned()).is_some() {
                return Err(invalid(format!("{name} is given twice")));
            }
        }
        let form = Self(fields);
        match form.get("Version") {
            Some(VERSION) => Ok(form),
            _ => Err(refuse("NoSuchVersion", StatusCode::BAD_REQUEST, "Version must be 2011-06-15")),
        }
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    fn required(&self, name: &str) -> S3Result<&str> {
        self.get(name).ok_or_else(|| invalid(format!("{name} is missing")))
    }

    fn seconds(&self) -> S3Result<Option<u64>> {
        let parse = |text: &str| text.parse().map_err(|_| invalid("DurationSeconds is not a number of seconds"));
        self.get("DurationSeconds").map(parse).transpose()
    }

    /// Refuses fields beyond these: what is asked for and not heard would be missed later.
    fn allow(&self, names: &[&str]) -> S3Result<()> {
        let strange =
            |name: &&String| !matches!(name.as_str(), "Action" | "Version") && !names.contains(&name.as_str());
        match self.0.keys().find(strange) {
            None => Ok(()),
            Some(name) => Err(invalid(format!("{name} is not supported: leave it out"))),
        }
    }
}

fn refuse(code: &'static str, status: StatusCode, text: impl Into<String>) -> S3Error {
    let mut error = S3Error::with_message(S3ErrorCode::Custom(code.into()), text.into());
    error.set_status_code(status);
    error
}

fn invalid(text: impl Into<String>) -> S3Error {
    refuse("ValidationError", StatusCode::BAD_REQUEST, text)
}

fn session_error(error: SessionError) -> S3Error {
    match error {
        SessionError::Invalid(text) => invalid(text),
        SessionError::Denied(text) => S3Error::with_message(S3ErrorCode::AccessDenied, text),
        SessionError::Auth(error) => internal(error),
    }
}

/// An answer in STS's words: a refusal is an `ErrorResponse`, with STS's codes.
pub(super) async fn in_its_words(answer: Response<Body>) -> Response<Body> {
    if answer.status().is_success() {
        return answer;
    }
    let (mut parts, mut body) = answer.into_parts();
    let bytes = body.store_all_limited(REFUSAL_MAX).await.unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let (code, message) = (element(&text, "Code"), element(&text, "Message"));
    let code = match code.unwrap_or("InternalFailure") {
        "InvalidAccessKeyId" => {
            parts.status = StatusCode::FORBIDDEN;
            "InvalidClientTokenId"
        }
        "InternalError" => "InternalFailure",
        code => code,
    };
    let kind = if parts.status.is_server_error() { "Receiver" } else { "Sender" };
    let id = hex::encode(crate::sys::entropy::fresh_id());
    // What s3s wrote is XML already: it is not escaped again.
    let text = format!(
        "<ErrorResponse xmlns=\"{NAMESPACE}\"><Error><Type>{kind}</Type><Code>{code}</Code>\
         <Message>{}</Message></Error><RequestId>{id}</RequestId></ErrorResponse>",
        message.unwrap_or_default()
    );
    parts.headers.remove(hyper::header::CONTENT_LENGTH);
    parts.headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/xml"));
    Response::from_parts(parts, Body::from(text))
}

/// The text of an element, still escaped.
fn element<'a>(xml: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = xml.split_once(&format!("<{name}>"))?;
    rest.split_once(&format!("</{name}>")).map(|(text, _)| text)
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    //! Forms are read strictly, and refusals come out in STS's words.
    use super::*;

    #[test]
    fn forms_are_strict() {
        let form = Form::read(b"Action=A&Version=2011-06-15&RoleArn=a%3Ab%2Fc+d&DurationSeconds=900").unwrap();
        assert_eq!((form.get("RoleArn"), form.seconds().unwrap()), (Some("a:b/c d"), Some(900)));
        assert!(form.allow(&["RoleArn", "DurationSeconds"]).is_ok() && form.allow(&["RoleArn"]).is_err());
        assert!(form.required("RoleSessionName").is_err());
        for bad in [&b""[..], b"Action=A", b"Version=2012-01-01", b"Version=2011-06-15&Version=2011-06-15"] {
            assert!(Form::read(bad).is_err());
        }
        for bad in ["-1", "1.5", "", "99999999999999999999"] {
            let form = Form::read(format!("Version=2011-06-15&DurationSeconds={bad}").as_bytes()).unwrap();
            assert!(form.seconds().is_err(), "{bad}");
        }
    }

    #[tokio::test]
    async fn refusals_are_in_its_words() {
        let xml = "<?xml?><Error><Code>InvalidAccessKeyId</Code><Message>a &lt; b</Message></Error>";
        let mut answer = Response::new(Body::from(xml.to_owned()));
        *answer.status_mut() = StatusCode::BAD_REQUEST;
        let answer = in_its_words(answer).await;
        assert_eq!(answer.status(), StatusCode::FORBIDDEN);
        let text = answer.into_body().store_all_limited(REFUSAL_MAX).await.unwrap();
        let text = String::from_utf8_lossy(&text).into_owned();
        assert!(
            text.contains("<Type>Sender</Type><Code>InvalidClientTokenId</Code><Message>a &lt; b</Message>"),
            "{text}"
        );
    }

    #[test]
    fn only_forms_at_the_root_are_its() {
        let mut headers = HeaderMap::new();
        let form = HeaderValue::from_static("application/x-www-form-urlencoded; charset=utf-8");
        headers.insert(CONTENT_TYPE, form);
        assert!(asks(&Method::POST, &Uri::from_static("/"), &headers));
        assert!(!asks(&Method::PUT, &Uri::from_static("/"), &headers));
        assert!(!asks(&Method::POST, &Uri::from_static("/bucket"), &headers));
        assert!(!asks(&Method::POST, &Uri::from_static("/"), &HeaderMap::new()));
    }
}
