//! Jobs: begun, watched, cancelled.

use axum::extract::{Path, State};
use axum::http::StatusCode;

use super::ApiState;
use super::endpoint::{Content, Endpoint, Who};
use super::error::{ApiError, ApiResult};
use super::extract::{Json, parse};
use crate::job::JobView;
use crate::rack::{JobRequest, Started};

pub(super) fn endpoints() -> Vec<Endpoint> {
    vec![
        Endpoint::get("/api/v1/jobs", Who::Admin, jobs)
            .about("The latest jobs, newest first.")
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
        Endpoint::post("/api/v1/jobs/{job}/cancel", Who::Admin, cancel)
            .about("Ends a job: nodes that wait are left alone, nodes that are being worked on are left safe.")
            .gives(Content::Json("JobView"))
            .refuses(&[404, 409]),
    ]
}

async fn jobs(State(state): State<ApiState>) -> ApiResult<Json<Vec<JobView>>> {
    Ok(Json(state.conductor().jobs().await?))
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

async fn cancel(State(state): State<ApiState>, Path(job): Path<String>) -> ApiResult<Json<JobView>> {
    Ok(Json(state.conductor().cancel(parse(&job)?).await?))
}
