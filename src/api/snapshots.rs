//! Snapshots of buckets, and branches of them.

use std::time::Duration;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde::Deserialize;

use super::ApiState;
use super::endpoint::{Content, Endpoint, Who};
use super::error::{ApiError, ApiResult};
use super::extract::{Json, Query, parse};
use crate::model::{BucketName, SnapshotName};
use crate::store::{BucketInfo, SnapshotDiff, SnapshotInfo};

/// Changes that one comparison lists, unless it is asked for another number, and at most.
const CHANGES: usize = 1_000;
const CHANGES_MAX: usize = 100_000;
/// Days that a snapshot may be kept for: a hundred years.
const KEEP_DAYS_MAX: u64 = 36_500;

pub(super) fn endpoints() -> Vec<Endpoint> {
    vec![
        Endpoint::get("/api/v1/buckets/{bucket}/snapshots", Who::Admin, list)
            .about("The snapshots of a bucket, the oldest first.")
            .gives(Content::JsonList("Snapshot"))
            .refuses(&[404]),
        Endpoint::post("/api/v1/buckets/{bucket}/snapshots", Who::Admin, create)
            .about("Keeps a bucket as it is now. Takes no longer for a large bucket than for a small one.")
            .takes(Content::Json("SnapshotRequest"))
            .gives(Content::Json("Snapshot"))
            .status(201)
            .refuses(&[404, 409]),
        Endpoint::delete("/api/v1/buckets/{bucket}/snapshots/{snapshot}", Who::Admin, remove)
            .about("Removes a snapshot; garbage collection then frees what only it kept.")
            .status(204)
            .refuses(&[404, 409]),
        Endpoint::post("/api/v1/buckets/{bucket}/snapshots/{snapshot}/branches", Who::Admin, branch)
            .about("Makes a bucket that begins as a snapshot, and can be written.")
            .takes(Content::Json("BranchRequest"))
            .gives(Content::Json("Bucket"))
            .status(201)
            .refuses(&[404, 409]),
        Endpoint::get("/api/v1/snapshots/diff", Who::Admin, diff)
            .about("What changed from one bucket or snapshot to another.")
            .query(&[
                ("from", "BUCKET or BUCKET@SNAPSHOT"),
                ("to", "BUCKET or BUCKET@SNAPSHOT"),
                ("limit", "changes to list at most; all are counted. 1000 unless given"),
            ])
            .gives(Content::Json("SnapshotDiff"))
            .refuses(&[404]),
    ]
}

async fn list(State(state): State<ApiState>, Path(bucket): Path<String>) -> ApiResult<Json<Vec<SnapshotInfo>>> {
    Ok(Json(state.store().snapshots(&parse(&bucket)?).await?))
}

/// Body of [`create`].
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SnapshotRequest {
    name: SnapshotName,
    /// Days from now.
    keep_days: Option<u64>,
}

async fn create(
    State(state): State<ApiState>,
    Path(bucket): Path<String>,
    Json(request): Json<SnapshotRequest>,
) -> ApiResult<(StatusCode, Json<SnapshotInfo>)> {
    if request.keep_days.is_some_and(|days| !(1..=KEEP_DAYS_MAX).contains(&days)) {
        return Err(ApiError::bad_request(
            format!("keep_days is not from 1 to {KEEP_DAYS_MAX}"),
            "leave it out to keep the snapshot until it is removed",
        ));
    }
    let keep = request.keep_days.map(|days| Duration::from_secs(days * 86_400));
    let made = state.store().create_snapshot(&parse(&bucket)?, &request.name, keep).await?;
    Ok((StatusCode::CREATED, Json(made)))
}

async fn remove(
    State(state): State<ApiState>,
    Path((bucket, snapshot)): Path<(String, String)>,
) -> ApiResult<StatusCode> {
    state.store().remove_snapshot(&parse(&bucket)?, &parse(&snapshot)?).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Body of [`branch`].
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct BranchRequest {
    bucket: BucketName,
}

async fn branch(
    State(state): State<ApiState>,
    Path((bucket, snapshot)): Path<(String, String)>,
    Json(request): Json<BranchRequest>,
) -> ApiResult<(StatusCode, Json<BucketInfo>)> {
    let made = state.store().branch_snapshot(&parse(&bucket)?, &parse(&snapshot)?, &request.bucket).await?;
    Ok((StatusCode::CREATED, Json(made)))
}

/// Query of [`diff`].
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DiffQuery {
    from: String,
    to: String,
    limit: Option<usize>,
}

async fn diff(State(state): State<ApiState>, Query(query): Query<DiffQuery>) -> ApiResult<Json<SnapshotDiff>> {
    let place = |text: &str| {
        BucketName::parse_readable(text)
            .map_err(|error| ApiError::bad_request(error.to_string(), "name a BUCKET, or a BUCKET@SNAPSHOT"))
    };
    let limit = query.limit.unwrap_or(CHANGES).min(CHANGES_MAX);
    Ok(Json(state.store().snapshot_diff(&place(&query.from)?, &place(&query.to)?, limit).await?))
}
