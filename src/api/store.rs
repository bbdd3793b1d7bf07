//! The store's figures and its check.

use axum::extract::State;
use serde::Deserialize;

use super::ApiState;
use super::endpoint::{Content, Endpoint, Who};
use super::error::ApiResult;
use super::extract::{Json, Query};
use crate::model::BucketName;
use crate::store::{FsckOptions, FsckReport, Stats};

pub(super) fn endpoints() -> Vec<Endpoint> {
    vec![
        Endpoint::get("/api/v1/store/stats", Who::Admin, stats)
            .about("What the store holds and what it takes, of one bucket or of all.")
            .query(&[("bucket", "count this bucket only")])
            .gives(Content::Json("Stats"))
            .refuses(&[404]),
        Endpoint::post("/api/v1/store/fsck", Who::Admin, fsck)
            .about("Checks packs, index and objects against each other; with `data`, reads and verifies every chunk.")
            .takes(Content::Json("FsckOptions"))
            .gives(Content::Json("FsckReport")),
    ]
}

/// Query of [`stats`].
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct StatsQuery {
    bucket: Option<BucketName>,
}

async fn stats(State(state): State<ApiState>, Query(query): Query<StatsQuery>) -> ApiResult<Json<Stats>> {
    Ok(Json(state.store().stats(query.bucket.as_ref()).await?))
}

/// Body of [`fsck`].
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FsckBody {
    #[serde(default)]
    data: bool,
}

async fn fsck(State(state): State<ApiState>, Json(body): Json<FsckBody>) -> ApiResult<Json<FsckReport>> {
    Ok(Json(state.store().fsck(FsckOptions { data: body.data }).await?))
}
