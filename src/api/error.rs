//! What the control door answers when it cannot do what was asked: one JSON shape, with the fitting status.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use crate::auth::AuthError;
use crate::image::ImageError;
use crate::rack::{AgentError, RackError};
use crate::store::StoreError;

/// An error as it goes over the wire: `{"error":{"kind","message","hint"}}`.
#[derive(Debug)]
pub(super) struct ApiError {
    status: StatusCode,
    kind: &'static str,
    message: String,
    hint: String,
}

/// What every handler answers.
pub(super) type ApiResult<T> = Result<T, ApiError>;

#[derive(Serialize)]
struct Body<'a> {
    error: Detail<'a>,
}

#[derive(Serialize)]
struct Detail<'a> {
    kind: &'a str,
    message: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    hint: &'a str,
}

impl ApiError {
    /// `kind` is for programs and never changes; `message` says what failed and `hint` what to do next.
    pub(super) fn new(
        status: StatusCode,
        kind: &'static str,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) -> Self {
        Self { status, kind, message: message.into(), hint: hint.into() }
    }

    /// The request cannot be understood.
    pub(super) fn bad_request(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad-request", message, hint)
    }

    /// What was asked for does not exist.
    pub(super) fn not_found(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not-found", message, hint)
    }

    /// The caller is not known, or not allowed.
    pub(super) fn unauthorised(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "unauthorised", message, hint)
    }

    /// There is nothing to start nodes from.
    pub(super) fn no_boot_image() -> Self {
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "no-boot-image",
            "this appliance has no boot image to start nodes from",
            "build it with `cargo xtask image build agent` and start `bedplate serve --boot-image FILE`",
        )
    }

    /// A failure of ours: logged here, where it is handled.
    pub(super) fn internal(error: &dyn std::error::Error) -> Self {
        let message = causes(error);
        tracing::error!(error = %message, "a request failed");
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", message, "see the appliance's log around this time")
    }
}

/// An error and its causes, each once, joined by colons.
pub(super) fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.ends_with(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
        cause = error.source();
    }
    text
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        let (status, kind) = match &error {
            StoreError::NoSuchBucket(_)
            | StoreError::NoSuchSnapshot(_)
            | StoreError::NoSuchKey(_)
            | StoreError::NoSuchPack(_) => (StatusCode::NOT_FOUND, "not-found"),
            StoreError::BucketExists(_) | StoreError::SnapshotExists(_) => (StatusCode::CONFLICT, "exists"),
            StoreError::SnapshotInUse { .. } => (StatusCode::CONFLICT, "in-use"),
            StoreError::BucketState(_) | StoreError::IsSnapshot(_) => (StatusCode::CONFLICT, "bucket-state"),
            StoreError::InvalidRange { .. } => (StatusCode::RANGE_NOT_SATISFIABLE, "range"),
            StoreError::IncompleteBody { .. } | StoreError::Body(_) => (StatusCode::BAD_REQUEST, "broken-body"),
            StoreError::NoSuchUpload(_) => (StatusCode::NOT_FOUND, "no-such-upload"),
            StoreError::MissingChunks(_) => (StatusCode::CONFLICT, "missing"),
            StoreError::InvalidPart { .. }
            | StoreError::InvalidPartOrder
            | StoreError::EntityTooSmall { .. }
            | StoreError::Unfit(_)
            | StoreError::BadDigest => (StatusCode::BAD_REQUEST, "unfit"),
            StoreError::PreconditionFailed => (StatusCode::PRECONDITION_FAILED, "changed"),
            StoreError::DiskFull => (StatusCode::INSUFFICIENT_STORAGE, "disk-full"),
            StoreError::NotCollected { .. } => (StatusCode::CONFLICT, "damaged"),
            StoreError::Busy | StoreError::Closed => (StatusCode::SERVICE_UNAVAILABLE, "busy"),
            _ => return Self::internal(&error),
        };
        Self::new(status, kind, causes(&error), "")
    }
}

impl From<ImageError> for ApiError {
    fn from(error: ImageError) -> Self {
        let (status, kind) = match &error {
            ImageError::NoSuchImage(_) => (StatusCode::NOT_FOUND, "not-found"),
            ImageError::Taken { .. } => (StatusCode::CONFLICT, "exists"),
            ImageError::Raced(_) => (StatusCode::CONFLICT, "conflict"),
            ImageError::NotRaw { .. } => (StatusCode::BAD_REQUEST, "not-raw"),
            ImageError::Store { .. } => {
                let message = causes(&error);
                let ImageError::Store { source, .. } = error else { return Self::internal(&error) };
                return Self { message, ..Self::from(source) };
            }
        };
        Self::new(status, kind, error.to_string(), "")
    }
}

impl From<RackError> for ApiError {
    fn from(error: RackError) -> Self {
        let status = match error.kind() {
            "internal" => return Self::internal(&error),
            "bad-spec" => StatusCode::BAD_REQUEST,
            "no-such-job" => StatusCode::NOT_FOUND,
            _ => StatusCode::CONFLICT,
        };
        Self::new(status, error.kind(), causes(&error), error.hint())
    }
}

impl From<AgentError> for ApiError {
    fn from(error: AgentError) -> Self {
        let (status, hint) = match &error {
            AgentError::Unknown => (StatusCode::UNAUTHORIZED, "the job that gave the token is over: apply again"),
            AgentError::Refused(_) => (StatusCode::CONFLICT, "the job's state says what comes next: GET /api/v1/jobs"),
            AgentError::Internal(_) => (StatusCode::SERVICE_UNAVAILABLE, "ask again in a moment"),
        };
        Self::new(status, error.kind(), causes(&error), hint)
    }
}

impl From<AuthError> for ApiError {
    fn from(error: AuthError) -> Self {
        let (status, kind) = match &error {
            AuthError::TenantExists(_) | AuthError::KeyExists(_) => (StatusCode::CONFLICT, "exists"),
            AuthError::NoSuchTenant(_) | AuthError::NoSuchKey(_) => (StatusCode::NOT_FOUND, "not-found"),
            AuthError::IsRoot(_) => (StatusCode::CONFLICT, "root-key"),
            AuthError::BadName(_) => (StatusCode::BAD_REQUEST, "bad-request"),
            AuthError::Meta { .. } | AuthError::Damaged { .. } | AuthError::Version { .. } | AuthError::Master(_) => {
                return Self::internal(&error);
            }
        };
        Self::new(status, kind, error.to_string(), "")
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let body = Body { error: Detail { kind: self.kind, message: &self.message, hint: &self.hint } };
        let mut response = (self.status, Json(body)).into_response();
        if self.status == StatusCode::UNAUTHORIZED {
            let scheme = axum::http::HeaderValue::from_static("Basic realm=\"bedplate\", Bearer");
            response.headers_mut().insert(axum::http::header::WWW_AUTHENTICATE, scheme);
        }
        response
    }
}
