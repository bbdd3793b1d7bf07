//! What a mount pulls: an object's recipe, for whoever may get the object over S3, and the pack ranges that it names. The bytes
//! go out as they are stored; the reader decodes and verifies them on its own cores.

use axum::Extension;
use axum::extract::{Path, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::ApiState;
use super::endpoint::{Content, Endpoint, Who};
use super::error::{ApiError, ApiResult};
use super::extract::{Json, Query, parse};
use super::pull;
use crate::auth::Principal;
use crate::format::chunk_list::ChunkList;
use crate::format::recipe::{self, RECIPE_BYTES_MAX, Recipe, Run, STORED_MAX};
use crate::model::{BucketName, ByteRange, ObjectKey, PackId};
use crate::store::{ENCRYPTION, Stretch};
use crate::sys::wire::Peer;

const OCTETS: &str = "application/octet-stream";

pub(super) fn endpoints() -> Vec<Endpoint> {
    vec![
        Endpoint::get("/api/v1/pull/objects/{bucket}", Who::Holder, object)
            .about("The recipe of a stretch of an object (docs/format.md), for whoever may get the object over S3.")
            .query(&[
                ("key", "the object's key"),
                ("start", "where the stretch begins, in bytes"),
                ("end", "where it ends; at most 1 GiB further"),
                ("stored", "how many stored bytes may come along with the recipe where they are all; at most 256 KiB"),
                ("unless", "MODIFIED-ETAG of the object that the caller knows: 304 if it is still that"),
            ])
            .gives(Content::Bytes(OCTETS))
            .refuses(&[404, 409]),
        Endpoint::get("/api/v1/pull/snapshots/{bucket}", Who::Holder, snapshot)
            .about("Which snapshot BUCKET@NAME is now: when it was made, in milliseconds since 1970.")
            .gives(Content::Json("SnapshotSeen"))
            .refuses(&[403, 404]),
        Endpoint::get("/api/v1/pull/runs/{pack}", Who::Anyone, run)
            .about("A range of a pack within a run that a recipe's seal opens. The Range header is required and names both its ends.")
            .query(&[
                ("start", "the run's first byte"),
                ("end", "the run's end"),
                ("until", "until when the seal opens, as the recipe says"),
                ("seal", "the run's seal, 64 hexadecimal digits"),
            ])
            .gives(Content::Bytes(OCTETS))
            .status(206)
            .refuses(&[403, 404, 416]),
    ]
}

/// Query of [`object`].
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct StretchQuery {
    key: String,
    start: u64,
    end: u64,
    #[serde(default)]
    stored: u64,
    unless: Option<String>,
}

async fn object(
    State(state): State<ApiState>,
    Extension(caller): Extension<Principal>,
    peer: Option<Extension<Peer>>,
    Path(bucket): Path<String>,
    Query(query): Query<StretchQuery>,
) -> ApiResult<Response> {
    let peer = peer.map(|Extension(peer)| peer);
    let allowed = state.gate().may_get(&caller, peer, &bucket, &query.key).await;
    if !allowed.map_err(|error| ApiError::internal(&*error))? {
        return Err(ApiError::new(
            StatusCode::FORBIDDEN,
            "not-allowed",
            format!("the key may not read {bucket}/{}", query.key),
            "ask the bucket's owner for s3:GetObject in its policy, or use the owner's key",
        ));
    }
    let key: ObjectKey = parse(&query.key)?;
    let bucket = BucketName::parse_readable(&bucket)
        .map_err(|error| ApiError::bad_request(error.to_string(), "correct the name in the address"))?;
    if let Some(known) = query.unless {
        let now = state.store().head(&bucket, &key).await?;
        if known == format!("{}-{}", now.modified.0, now.etag) {
            return Ok(StatusCode::NOT_MODIFIED.into_response());
        }
    }
    let end = query.end.min(query.start.saturating_add(RECIPE_BYTES_MAX));
    let (info, start, stretch) = state.store().stretch(&bucket, &key, ByteRange { start: query.start, end }).await?;
    if info.headers.contains_key(ENCRYPTION) {
        return Err(ApiError::new(
            StatusCode::CONFLICT,
            "encrypted",
            format!("{bucket}/{key} is encrypted, and its stored bytes are of no use to a reader"),
            "get it over S3",
        ));
    }
    let content = match stretch {
        Stretch::Inline(bytes) => recipe::Content::Inline(bytes),
        Stretch::Chunks(list) => {
            let (seals, until) = (state.seals(), state.seals().until());
            let runs = recipe::runs(&list, until, |pack, range| seals.seal(&list.packs[pack as usize], range, until));
            let stored = along(&state, &list, &runs, query.stored.min(STORED_MAX)).await?;
            recipe::Content::Chunks { list, runs, stored }
        }
    };
    let recipe = Recipe { size: info.size, modified: info.modified.0, etag: info.etag, start, content };
    Ok(([(CONTENT_TYPE, OCTETS)], recipe.encode()).into_response())
}

/// What runs hold, where it is at most so much.
async fn along(state: &ApiState, list: &ChunkList, runs: &[Run], most: u64) -> ApiResult<Option<Bytes>> {
    let len = recipe::runs_len(runs);
    if len == 0 || len > most {
        return Ok(None);
    }
    let mut stored = Vec::with_capacity(len as usize);
    for run in runs {
        stored.extend_from_slice(&state.store().read_pack(list.packs[run.pack as usize], run.range).await?);
    }
    Ok(Some(stored.into()))
}

/// Which snapshot a name stands for.
#[derive(Serialize)]
struct SnapshotSeen {
    /// When it was made: another snapshot of the same name was made at another time.
    created: u64,
}

async fn snapshot(
    State(state): State<ApiState>,
    Extension(caller): Extension<Principal>,
    peer: Option<Extension<Peer>>,
    Path(bucket): Path<String>,
) -> ApiResult<Json<SnapshotSeen>> {
    let allowed = state.gate().may_list(&caller, peer.map(|Extension(peer)| peer), &bucket).await;
    if !allowed.map_err(|error| ApiError::internal(&*error))? {
        return Err(ApiError::new(
            StatusCode::FORBIDDEN,
            "not-allowed",
            format!("the key may not list {bucket}"),
            "ask the bucket's owner for s3:ListBucket in its policy, or use the owner's key",
        ));
    }
    let bucket = BucketName::parse_readable(&bucket)
        .map_err(|error| ApiError::bad_request(error.to_string(), "correct the name in the address"))?;
    let created = state.store().snapshot_made(&bucket).await?;
    Ok(Json(SnapshotSeen { created: created.0 }))
}

/// Query of [`run`].
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RunQuery {
    start: u64,
    end: u64,
    until: u64,
    seal: String,
}

async fn run(
    State(state): State<ApiState>,
    Path(pack): Path<String>,
    Query(query): Query<RunQuery>,
    headers: HeaderMap,
) -> ApiResult<Response> {
    let pack: PackId = parse(&pack)?;
    let mut seal = [0; 32];
    let sealed = ByteRange { start: query.start, end: query.end };
    let wanted = pull::wanted(&headers)?;
    let is_within = sealed.start <= wanted.start && wanted.end <= sealed.end;
    let reads = hex::decode_to_slice(&query.seal, &mut seal).is_ok();
    if !reads || !is_within || !state.seals().opens(&pack, sealed, query.until, seal) {
        return Err(ApiError::new(
            StatusCode::FORBIDDEN,
            "seal",
            "the seal does not open this range, or not any more",
            "fetch the object's recipe again",
        ));
    }
    pull::send(state, pack, wanted).await
}
