//! Jobs: begun, watched, paused, cancelled.

use std::collections::BTreeMap;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::Value;

use super::ApiState;
use super::endpoint::{Content, Endpoint, Who};
use super::error::{ApiError, ApiResult};
use super::extract::{Json, Query, parse};
use crate::job::JobView;
use crate::rack::{JobRequest, Started};

/// Jobs that a listing shows.
const JOBS_SHOWN: usize = 100;

pub(super) fn endpoints() -> Vec<Endpoint> {
    vec![
        Endpoint::get("/api/v1/jobs", Who::Admin, jobs)
            .about("The latest jobs, newest first.")
            .query(&[("rack", "Only those of this rack."), ("limit", "So many at most; 100 where it is left out.")])
            .gives(Content::JsonList("JobView")),
        Endpoint::post("/api/v1/jobs", Who::Admin, apply)
            .about(
                "Applies a spec: plans, journals a job, and begins it. The job goes on whatever becomes of the caller.",
            )
            .takes(Content::Json("JobRequest"))
            .gives(Content::Json("Started"))
            .status(201)
            .refuses(&[409, 503]),
        Endpoint::get("/api/v1/jobs/{job}", Who::Admin, job)
            .about("One job and its nodes.")
            .gives(Content::Json("JobView"))
            .refuses(&[404]),
        Endpoint::get("/api/v1/jobs/{job}/nodes/{node}/evidence", Who::Admin, evidence)
            .about(
                "What was kept of a node that failed: the task, the last requests to its BMC, and what the BMC showed.",
            )
            .gives(Content::Json("Evidence"))
            .refuses(&[404]),
        Endpoint::post("/api/v1/jobs/{job}/pause", Who::Admin, pause)
            .about("Pauses a job: nodes that were begun go on, no other is begun.")
            .gives(Content::Json("JobView"))
            .refuses(&[404, 409]),
        Endpoint::post("/api/v1/jobs/{job}/resume", Who::Admin, resume)
            .about("Lets a paused job go on.")
            .gives(Content::Json("JobView"))
            .refuses(&[404, 409]),
        Endpoint::post("/api/v1/jobs/{job}/cancel", Who::Admin, cancel)
            .about("Ends a job: nodes that wait are left alone, nodes that are being worked on are left safe.")
            .gives(Content::Json("JobView"))
            .refuses(&[404, 409]),
    ]
}

/// Query of [`jobs`].
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct JobsQuery {
    rack: Option<String>,
    limit: Option<usize>,
}

async fn jobs(State(state): State<ApiState>, Query(query): Query<JobsQuery>) -> ApiResult<Json<Vec<JobView>>> {
    let limit = query.limit.unwrap_or(JOBS_SHOWN).min(JOBS_SHOWN);
    Ok(Json(state.conductor().jobs(query.rack.as_deref(), limit).await?))
}

async fn apply(
    State(state): State<ApiState>,
    Json(request): Json<JobRequest>,
) -> ApiResult<(StatusCode, Json<Started>)> {
    // Known now: without this, every node would be switched off first and fail at its BMC's fetch.
    if state.boot().is_none() {
        return Err(ApiError::no_boot_image());
    }
    let job = state.conductor().apply(request.spec, &request.only).await?;
    Ok((StatusCode::CREATED, Json(Started { job })))
}

async fn job(State(state): State<ApiState>, Path(job): Path<String>) -> ApiResult<Json<JobView>> {
    Ok(Json(state.conductor().job(parse(&job)?).await?))
}

async fn evidence(
    State(state): State<ApiState>,
    Path((job, node)): Path<(String, String)>,
) -> ApiResult<Json<BTreeMap<String, Value>>> {
    let (job, node) = (parse(&job)?, parse(&node)?);
    let found = state.conductor().evidence(job, &node).await?;
    found.map(Json).ok_or_else(|| {
        ApiError::not_found(
            format!("nothing is kept of node {node} in job {job}"),
            "evidence is kept of nodes that fail, for the last 200 jobs with failures",
        )
    })
}

async fn pause(State(state): State<ApiState>, Path(job): Path<String>) -> ApiResult<Json<JobView>> {
    Ok(Json(state.conductor().pause(parse(&job)?, true).await?))
}

async fn resume(State(state): State<ApiState>, Path(job): Path<String>) -> ApiResult<Json<JobView>> {
    Ok(Json(state.conductor().pause(parse(&job)?, false).await?))
}

async fn cancel(State(state): State<ApiState>, Path(job): Path<String>) -> ApiResult<Json<JobView>> {
    Ok(Json(state.conductor().cancel(parse(&job)?).await?))
}
