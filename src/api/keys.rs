//! Tenants and their access keys.

use axum::extract::State;
use axum::http::StatusCode;
use serde::Deserialize;

use super::ApiState;
use super::endpoint::{Content, Endpoint, Who};
use super::error::{ApiError, ApiResult};
use super::extract::Json;
use crate::auth::{KeyInfo, NewKey, Tenant};
use crate::model::Secret;

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
    access_key: Option<String>,
    secret_key: Option<String>,
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
    Ok((StatusCode::CREATED, Json(state.auth().create_key(&request.tenant, pair).await?)))
}
