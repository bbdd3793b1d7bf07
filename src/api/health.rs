//! Whether the appliance lives, whether it can be worked with, and what it counts.

use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;

use super::ApiState;
use super::endpoint::{Content, Endpoint, Who};
use super::error::{ApiError, ApiResult};
use super::extract::Json;
use super::openapi;
use crate::telemetry::metrics;

pub(super) fn endpoints() -> Vec<Endpoint> {
    vec![
        Endpoint::get("/healthz", Who::Anyone, healthz)
            .about("Answers as long as the process lives.")
            .gives(Content::Bytes("text/plain")),
        Endpoint::get("/readyz", Who::Anyone, readyz)
            .about("Answers 200 once the store is open and both doors are, 503 before and while stopping.")
            .gives(Content::Bytes("text/plain"))
            .refuses(&[503]),
        Endpoint::get("/metrics", Who::Anyone, render_metrics)
            .about("Metrics in Prometheus' text format.")
            .gives(Content::Bytes("text/plain")),
        Endpoint::get("/api/v1/openapi.json", Who::Anyone, openapi_document)
            .about("This document.")
            .gives(Content::Bytes("application/json")),
    ]
}

async fn healthz() -> &'static str {
    "ok\n"
}

async fn readyz(State(state): State<ApiState>) -> ApiResult<&'static str> {
    if state.is_ready() {
        return Ok("ready\n");
    }
    Err(ApiError::new(
        StatusCode::SERVICE_UNAVAILABLE,
        "not-ready",
        "the appliance is starting or stopping",
        "ask again in a moment",
    ))
}

async fn render_metrics() -> impl IntoResponse {
    ([(CONTENT_TYPE, "text/plain; version=0.0.4")], metrics::render())
}

async fn openapi_document() -> Json<serde_json::Value> {
    Json(openapi::document(&super::endpoints()))
}
