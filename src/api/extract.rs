//! What handlers take out of a request, with refusals in the control door's own words.

use std::time::Duration;

use axum::body::Body;
use axum::extract::rejection::JsonRejection;
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use futures_util::{StreamExt as _, stream};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::error::{ApiError, ApiResult};
use crate::store::ByteStream;

/// Longest JSON document that a request may carry, in bytes: a spec of some thousand nodes.
pub(super) const JSON_MAX: usize = 4 * 1024 * 1024;
/// Longest pause between two pieces of a streamed body.
const PAUSE_MAX: Duration = Duration::from_secs(120);

/// A JSON body, in or out.
pub(super) struct Json<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Json<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        match axum::Json::<T>::from_request(request, state).await {
            Ok(axum::Json(value)) => Ok(Self(value)),
            Err(rejection) => Err(refuse_json(&rejection)),
        }
    }
}

impl<T: Serialize> axum::response::IntoResponse for Json<T> {
    fn into_response(self) -> axum::response::Response {
        axum::Json(self.0).into_response()
    }
}

fn refuse_json(rejection: &JsonRejection) -> ApiError {
    let hint = "GET /api/v1/openapi.json describes what this address takes";
    match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => ApiError::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "too-large",
            format!("the request's JSON is longer than {JSON_MAX} bytes"),
            "send it in parts",
        ),
        _ => ApiError::bad_request(rejection.body_text(), hint),
    }
}

/// Query parameters.
pub(super) struct Query<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Query<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let query = axum::extract::Query::<T>::from_request_parts(parts, state).await;
        query.map(|axum::extract::Query(value)| Self(value)).map_err(|rejection| {
            ApiError::bad_request(rejection.body_text(), "GET /api/v1/openapi.json names the parameters")
        })
    }
}

/// Reads a name out of a path.
pub(super) fn parse<T: std::str::FromStr>(text: &str) -> ApiResult<T>
where
    T::Err: std::fmt::Display,
{
    text.parse().map_err(|error: T::Err| ApiError::bad_request(error.to_string(), "correct the name in the address"))
}

/// The body's announced length.
pub(super) fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// The body as the store takes it. A sender that stalls ends the stream with an error, so that nothing waits for ever.
pub(super) fn byte_stream(body: Body) -> ByteStream {
    Box::pin(stream::try_unfold(body.into_data_stream(), |mut pieces| async move {
        match tokio::time::timeout(PAUSE_MAX, pieces.next()).await {
            Err(_) => Err(format!("no bytes arrived for {} s", PAUSE_MAX.as_secs()).into()),
            Ok(None) => Ok(None),
            Ok(Some(Err(error))) => Err(error.into()),
            Ok(Some(Ok(piece))) => Ok(Some((piece, pieces))),
        }
    }))
}
