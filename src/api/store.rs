//! The store's figures, its check, its scrub and its garbage collection.

use std::time::Duration;

use axum::extract::State;
use serde::Deserialize;

use super::ApiState;
use super::endpoint::{Content, Endpoint, Who};
use super::error::ApiResult;
use super::extract::{Json, Query};
use crate::model::BucketName;
use crate::store::{
    FsckOptions, FsckReport, GcOptions, GcReport, RebuildOptions, RebuildReport, ScrubOptions, ScrubReport,
    ScrubStatus, Stats,
};

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
        Endpoint::get("/api/v1/store/scrub", Who::Admin, scrub_status)
            .about("How long packs were left alone, what is damaged, and which objects need it.")
            .gives(Content::Json("ScrubStatus")),
        Endpoint::post("/api/v1/store/scrub", Who::Admin, scrub)
            .about("With `all`, reads and compares every pack at once; with `repair`, repairs what is stored a second time.")
            .takes(Content::Json("ScrubOptions"))
            .gives(Content::Json("ScrubReport"))
            .refuses(&[409, 507]),
        Endpoint::post("/api/v1/store/rebuild-index", Who::Admin, rebuild_index)
            .about("Makes the index of chunks again from the directories of all packs.")
            .takes(Content::Json("RebuildOptions"))
            .gives(Content::Json("RebuildReport"))
            .refuses(&[507]),
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

async fn scrub_status(State(state): State<ApiState>) -> ApiResult<Json<ScrubStatus>> {
    Ok(Json(state.store().scrub_status().await?))
}

/// Body of [`scrub`].
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ScrubBody {
    #[serde(default)]
    all: bool,
    #[serde(default)]
    repair: bool,
}

async fn scrub(State(state): State<ApiState>, Json(body): Json<ScrubBody>) -> ApiResult<Json<ScrubReport>> {
    let older_than = if body.all { Duration::ZERO } else { Duration::MAX };
    let options = ScrubOptions { older_than, rate: 0, repair: body.repair };
    Ok(Json(state.store().scrub(options).await?))
}

/// Body of [`rebuild_index`].
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RebuildBody {}

async fn rebuild_index(State(state): State<ApiState>, Json(_): Json<RebuildBody>) -> ApiResult<Json<RebuildReport>> {
    // Packs without a row are left alone: beside uploads and garbage collection nobody can tell what they are.
    Ok(Json(state.store().rebuild_index(RebuildOptions { adopt: false }).await?))
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
