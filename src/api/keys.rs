//! Tenants and their access keys.

use std::time::Duration;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde::Deserialize;

use super::ApiState;
use super::endpoint::{Content, Endpoint, Who};
use super::error::{ApiError, ApiResult};
use super::extract::Json;
use crate::auth::{KeyInfo, NewKey, NewKeyRequest, Tenant};
use crate::model::Secret;
use crate::sys::clock::{self, Timestamp};

pub(super) fn endpoints() -> Vec<Endpoint> {
    vec![
        Endpoint::get("/api/v1/tenants", Who::Admin, tenants).about("Every tenant.").gives(Content::JsonList("Tenant")),
        Endpoint::post("/api/v1/tenants", Who::Admin, create_tenant)
            .about("Makes a tenant.")
            .takes(Content::Json("TenantRequest"))
            .gives(Content::Json("Tenant"))
            .status(201)
            .refuses(&[409]),
        Endpoint::get("/api/v1/keys", Who::Admin, keys)
            .about("Every key of a tenant, without its secret.")
            .gives(Content::JsonList("KeyInfo")),
        Endpoint::post("/api/v1/keys", Who::Admin, create_key)
            .about("Makes a key for a tenant; the secret is in this answer and never again.")
            .takes(Content::Json("KeyRequest"))
            .gives(Content::Json("NewKey"))
            .status(201)
            .refuses(&[404, 409]),
        Endpoint::post("/api/v1/keys/{access_key}/disable", Who::Admin, disable)
            .about("Disables a key: what it signs, and its sessions, are refused from now on.")
            .gives(Content::Json("KeyInfo"))
            .refuses(&[404, 409]),
        Endpoint::post("/api/v1/keys/{access_key}/enable", Who::Admin, enable)
            .about("Enables a key that was disabled.")
            .gives(Content::Json("KeyInfo"))
            .refuses(&[404, 409]),
        Endpoint::delete("/api/v1/keys/{access_key}", Who::Admin, remove)
            .about("Removes a key: what it signs, and its sessions, are refused from now on.")
            .status(204)
            .refuses(&[404, 409]),
    ]
}

async fn tenants(State(state): State<ApiState>) -> ApiResult<Json<Vec<Tenant>>> {
    Ok(Json(state.auth().list_tenants().await?))
}

/// Body of [`create_tenant`].
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TenantRequest {
    name: String,
}

async fn create_tenant(
    State(state): State<ApiState>,
    Json(request): Json<TenantRequest>,
) -> ApiResult<(StatusCode, Json<Tenant>)> {
    Ok((StatusCode::CREATED, Json(state.auth().create_tenant(&request.name).await?)))
}

async fn keys(State(state): State<ApiState>) -> ApiResult<Json<Vec<KeyInfo>>> {
    Ok(Json(state.auth().list_keys().await?))
}

/// Body of [`create_key`].
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyRequest {
    tenant: String,
    user: Option<String>,
    access_key: Option<String>,
    secret_key: Option<String>,
    expires: Option<Timestamp>,
    /// Seconds from now.
    expires_in: Option<u64>,
}

async fn create_key(
    State(state): State<ApiState>,
    Json(request): Json<KeyRequest>,
) -> ApiResult<(StatusCode, Json<NewKey>)> {
    let pair = match (request.access_key, request.secret_key) {
        (Some(access_key), Some(secret_key)) => Some((access_key, Secret::new(secret_key))),
        (None, None) => None,
        _ => {
            return Err(ApiError::bad_request(
                "half a key was given",
                "give access_key and secret_key, or leave out both to have them made",
            ));
        }
    };
    let expires = match (request.expires, request.expires_in) {
        (expires, None) => expires,
        (None, Some(seconds)) => Some(clock::now().plus(Duration::from_secs(seconds))),
        (Some(_), Some(_)) => {
            return Err(ApiError::bad_request("both expires and expires_in were given", "give one of them"));
        }
    };
    let wanted = NewKeyRequest { tenant: request.tenant, user: request.user, pair, expires };
    Ok((StatusCode::CREATED, Json(state.auth().create_key(wanted).await?)))
}

async fn disable(State(state): State<ApiState>, Path(access_key): Path<String>) -> ApiResult<Json<KeyInfo>> {
    Ok(Json(state.auth().set_disabled(&access_key, true).await?))
}

async fn enable(State(state): State<ApiState>, Path(access_key): Path<String>) -> ApiResult<Json<KeyInfo>> {
    Ok(Json(state.auth().set_disabled(&access_key, false).await?))
}

async fn remove(State(state): State<ApiState>, Path(access_key): Path<String>) -> ApiResult<StatusCode> {
    state.auth().remove_key(&access_key).await?;
    Ok(StatusCode::NO_CONTENT)
}
