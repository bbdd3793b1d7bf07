//! The store's figures, its check and its garbage collection.

use axum::extract::State;
use serde::Deserialize;

use super::ApiState;
use super::endpoint::{Content, Endpoint, Who};
use super::error::ApiResult;
use super::extract::{Json, Query};
use crate::model::BucketName;
use crate::store::{FsckOptions, FsckReport, GcOptions, GcReport, Stats};

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
        Endpoint::post("/api/v1/store/gc", Who::Admin, gc)
            .about("Removes packs that no object needs, while the store serves; with `dry_run`, only says what it would do.")
            .takes(Content::Json("GcOptions"))
            .gives(Content::Json("GcReport"))
            .refuses(&[409]),
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

/// Rounds at most: garbage is condemned in one and goes in the next, and so do the packs whose rest was moved.
const ROUNDS: u32 = 4;
/// Rounds that a caller may ask for.
const ROUNDS_MAX: u32 = 100;

/// Body of [`gc`].
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct GcBody {
    #[serde(default)]
    dry_run: bool,
    #[serde(default)]
    rounds: Option<u32>,
}

async fn gc(State(state): State<ApiState>, Json(body): Json<GcBody>) -> ApiResult<Json<GcReport>> {
    let rounds = body.rounds.unwrap_or(ROUNDS).min(ROUNDS_MAX);
    let options = GcOptions { dry_run: body.dry_run, rounds, seal: true, gentle: false };
    Ok(Json(state.store().gc(options).await?))
}
