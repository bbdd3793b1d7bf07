//! The catalogue of images.

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use serde::Deserialize;

use super::ApiState;
use super::endpoint::{Content, Endpoint, Who};
use super::error::{ApiError, ApiResult};
use super::extract::{Json, Query, byte_stream, content_length, parse};
use crate::image::{ImageDiff, ImageInfo, Imported};
use crate::model::ImageRef;

pub(super) fn endpoints() -> Vec<Endpoint> {
    vec![
        Endpoint::get("/api/v1/images", Who::Admin, list)
            .about("Every image version.")
            .gives(Content::JsonList("ImageInfo")),
        Endpoint::get("/api/v1/images/{image}", Who::Admin, show)
            .about("One image version.")
            .gives(Content::Json("ImageInfo"))
            .refuses(&[404]),
        Endpoint::put("/api/v1/images/{image}", Who::Admin, import)
            .about("Imports a raw disk image as NAME@VERSION. A version never changes: the same content again succeeds, other content is refused.")
            .takes(Content::Bytes("application/octet-stream"))
            .gives(Content::Json("Imported"))
            .refuses(&[409]),
        Endpoint::delete("/api/v1/images/{image}", Who::Admin, remove)
            .about("Takes a version out of the catalogue, unless an open job installs it.")
            .status(204)
            .refuses(&[404, 409]),
        Endpoint::get("/api/v1/images/{image}/diff", Who::Admin, diff)
            .about("What a version shares with another: what travels when a disk that holds the other is rebuilt.")
            .query(&[("from", "the version that the disk holds, NAME@VERSION")])
            .gives(Content::Json("ImageDiff"))
            .refuses(&[404]),
    ]
}

async fn list(State(state): State<ApiState>) -> ApiResult<Json<Vec<ImageInfo>>> {
    Ok(Json(state.catalogue().list().await?))
}

async fn show(State(state): State<ApiState>, Path(image): Path<String>) -> ApiResult<Json<ImageInfo>> {
    Ok(Json(state.catalogue().info(&parse(&image)?).await?))
}

async fn import(
    State(state): State<ApiState>,
    Path(image): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> ApiResult<Json<Imported>> {
    let image: ImageRef = parse(&image)?;
    let imported = state.catalogue().import(&image, byte_stream(body), content_length(&headers)).await?;
    tracing::info!(%image, bytes = imported.image.bytes, existed = imported.existed, "imported an image");
    Ok(Json(imported))
}

async fn remove(State(state): State<ApiState>, Path(image): Path<String>) -> ApiResult<StatusCode> {
    let image: ImageRef = parse(&image)?;
    if let Some(job) = state.open_job_of(&image).await? {
        return Err(ApiError::new(
            StatusCode::CONFLICT,
            "in-use",
            format!("image {image} is being installed by job {job}"),
            "wait for the job to end, or cancel it",
        ));
    }
    state.catalogue().remove(&image).await?;
    tracing::info!(%image, "removed an image");
    Ok(StatusCode::NO_CONTENT)
}

/// Query of [`diff`].
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DiffQuery {
    from: ImageRef,
}

async fn diff(
    State(state): State<ApiState>,
    Path(image): Path<String>,
    Query(query): Query<DiffQuery>,
) -> ApiResult<Json<ImageDiff>> {
    Ok(Json(state.catalogue().diff(&query.from, &parse(&image)?).await?))
}
