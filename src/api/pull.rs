//! What an agent pulls: an image's chunk list, and ranges of the packs that hold its chunks. The bytes go out as they
//! are stored; the agent decodes and verifies them.

use axum::Extension;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::header::{ACCEPT_RANGES, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, RANGE};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream;

use super::ApiState;
use super::endpoint::{Content, Endpoint, Who};
use super::error::{ApiError, ApiResult};
use super::extract::parse;
use super::guard::AgentToken;
use super::range;
use crate::model::{ByteRange, ImageRef, PackId};
use crate::store::StoreError;

/// Longest range of one request, in bytes.
const RANGE_MAX: u64 = 16 * 1024 * 1024;
/// Read from the store at once, in bytes: what one slow reader can hold in memory.
const BLOCK: u64 = 1024 * 1024;
const OCTETS: &str = "application/octet-stream";

pub(super) fn endpoints() -> Vec<Endpoint> {
    vec![
        Endpoint::get("/api/v1/pull/images/{image}", Who::Puller, chunk_list)
            .about("An image's chunk list (docs/format.md). A token gets its own job's image only.")
            .gives(Content::Bytes(OCTETS))
            .refuses(&[404]),
        Endpoint::get("/api/v1/pull/packs/{pack}", Who::Puller, pack)
            .about("A range of a pack, at most 16 MiB. The Range header is required and names both its ends.")
            .gives(Content::Bytes(OCTETS))
            .status(206)
            .refuses(&[404, 416]),
    ]
}

async fn chunk_list(
    State(state): State<ApiState>,
    token: Option<Extension<AgentToken>>,
    Path(image): Path<String>,
) -> ApiResult<Response> {
    let image: ImageRef = parse(&image)?;
    if let Some(Extension(token)) = token
        && state.conductor().pull_image(token.text()).await? != image
    {
        return Err(ApiError::not_found(
            format!("this node's order is not for image {image}"),
            "pull the image that the order names",
        ));
    }
    let listing = state.catalogue().listing(&image).await?;
    Ok(([(CONTENT_TYPE, OCTETS)], listing.bytes.clone()).into_response())
}

async fn pack(
    State(state): State<ApiState>,
    token: Option<Extension<AgentToken>>,
    Path(pack): Path<String>,
    headers: HeaderMap,
) -> ApiResult<Response> {
    let pack: PackId = parse(&pack)?;
    let wanted = wanted(&headers)?;
    if let Some(Extension(token)) = token {
        let image = state.conductor().pull_image(token.text()).await?;
        if !state.catalogue().listing(&image).await?.covers(&pack, wanted) {
            return Err(no_such_pack(&pack));
        }
    }
    send(state, pack, wanted).await
}

/// The range that a request names, where it is one of a pack.
pub(super) fn wanted(headers: &HeaderMap) -> ApiResult<ByteRange> {
    let wanted = range::exact(headers.get(RANGE).and_then(|value| value.to_str().ok()));
    wanted.filter(|range| range.len() <= RANGE_MAX).ok_or_else(|| {
        ApiError::new(
            StatusCode::RANGE_NOT_SATISFIABLE,
            "range",
            "a pack is read in ranges of at most 16 MiB",
            "send `Range: bytes=FIRST-LAST`, as the chunk list says",
        )
    })
}

/// A range of a pack, block by block.
pub(super) async fn send(state: ApiState, pack: PackId, wanted: ByteRange) -> ApiResult<Response> {
    let first = read(&state, pack, wanted.start, wanted.end).await?;
    let headers = [
        (CONTENT_TYPE, OCTETS.to_owned()),
        (ACCEPT_RANGES, "bytes".to_owned()),
        (CACHE_CONTROL, "private, immutable".to_owned()),
        (CONTENT_LENGTH, wanted.len().to_string()),
        (CONTENT_RANGE, format!("bytes {}-{}/*", wanted.start, wanted.end - 1)),
    ];
    let body = stream::try_unfold((state, first, wanted.start), move |(state, ready, at)| async move {
        if !ready.is_empty() {
            let next = at + ready.len() as u64;
            return Ok::<_, ApiStreamError>(Some((ready, (state, Bytes::new(), next))));
        }
        if at >= wanted.end {
            return Ok(None);
        }
        let block = read(&state, pack, at, wanted.end).await.map_err(|_| ApiStreamError)?;
        let next = at + block.len() as u64;
        Ok(Some((block, (state, Bytes::new(), next))))
    });
    Ok((StatusCode::PARTIAL_CONTENT, headers, Body::from_stream(body)).into_response())
}

/// The range could not be read to its end; the connection breaks off, and the store has logged why.
#[derive(Debug, thiserror::Error)]
#[error("the pack could not be read to the end of the range")]
struct ApiStreamError;

/// The next block of a range: never empty, since the store answers with exactly what was asked for.
async fn read(state: &ApiState, pack: PackId, at: u64, end: u64) -> ApiResult<Bytes> {
    let block = ByteRange { start: at, end: end.min(at + BLOCK) };
    match state.store().read_pack(pack, block).await {
        Ok(bytes) => Ok(bytes),
        Err(StoreError::NoSuchPack(_)) => Err(no_such_pack(&pack)),
        Err(error) => Err(error.into()),
    }
}

fn no_such_pack(pack: &PackId) -> ApiError {
    ApiError::not_found(format!("no pack {pack} here for you"), "fetch the chunk list again: it names the packs")
}
