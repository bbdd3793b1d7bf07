//! Boot media: the one boot image as each node sees it. Plain HTTP is allowed, because many BMCs fetch nothing else;
//! the address is unguessable and works only while the node's job is open.

use std::io;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::header::{
    ACCEPT_RANGES, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, IF_NONE_MATCH, IF_RANGE, RANGE,
};
use axum::http::{HeaderMap, HeaderName, StatusCode};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream;

use super::ApiState;
use super::endpoint::{Content, Endpoint, Who};
use super::error::{ApiError, ApiResult};
use super::range::{self, Asked};
use crate::image::boot::NodeMedia;
use crate::model::ByteRange;
use crate::rack::AgentError;

/// Read from disk at once, in bytes: what one slow BMC can hold in memory.
const BLOCK: u64 = 256 * 1024;
const ISO: &str = "application/x-iso9660-image";

pub(super) fn endpoints() -> Vec<Endpoint> {
    vec![
        Endpoint::get("/media/{id}/boot.iso", Who::Anyone, boot_iso)
            .about("The boot image of one node, with its order address laid in. HEAD and Range are understood.")
            .gives(Content::Bytes(ISO))
            .refuses(&[404, 416, 503]),
    ]
}

async fn boot_iso(State(state): State<ApiState>, Path(id): Path<String>, headers: HeaderMap) -> ApiResult<Response> {
    let region = state.conductor().boot_region(&id).await.map_err(|error| match error {
        AgentError::Unknown => ApiError::not_found(
            "no boot image is waiting at this address",
            "a node's boot image is there from the start of its job until it is installed: apply again",
        ),
        other => other.into(),
    })?;
    let boot = state.boot().ok_or_else(ApiError::no_boot_image)?;
    let media = boot.for_node(&region).map_err(|error| ApiError::internal(&error))?;
    Ok(serve(&media, &headers))
}

/// Answers a GET or HEAD for the media, whole or in part.
fn serve(media: &NodeMedia, headers: &HeaderMap) -> Response {
    let text = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    let total = media.bytes();
    let fixed = [
        (ACCEPT_RANGES, "bytes".to_owned()),
        (CONTENT_TYPE, ISO.to_owned()),
        (ETAG, media.etag().to_owned()),
        (CACHE_CONTROL, "no-store".to_owned()),
    ];
    if text(IF_NONE_MATCH).is_some_and(|tags| tags.split(',').any(|tag| tag.trim() == media.etag())) {
        return (StatusCode::NOT_MODIFIED, fixed).into_response();
    }
    let fresh = text(IF_RANGE).is_none_or(|tag| tag.trim() == media.etag());
    match range::asked(text(RANGE).filter(|_| fresh), total) {
        Asked::Whole => {
            let body = stream_of(media.clone(), ByteRange { start: 0, end: total });
            (fixed, [(CONTENT_LENGTH, total.to_string())], body).into_response()
        }
        Asked::Part(part) => {
            let lengths = [
                (CONTENT_LENGTH, part.len().to_string()),
                (CONTENT_RANGE, format!("bytes {}-{}/{total}", part.start, part.end - 1)),
            ];
            (StatusCode::PARTIAL_CONTENT, fixed, lengths, stream_of(media.clone(), part)).into_response()
        }
        Asked::Beyond => {
            let error = ApiError::new(
                StatusCode::RANGE_NOT_SATISFIABLE,
                "range",
                format!("the boot image has {total} bytes, and the range begins after them"),
                "ask for a range within it",
            );
            ([(CONTENT_RANGE, format!("bytes */{total}"))], error).into_response()
        }
    }
}

/// The bytes of `range`, a block at a time, each read when the last one is on its way.
fn stream_of(media: NodeMedia, range: ByteRange) -> Body {
    Body::from_stream(stream::try_unfold((media, range), |(media, rest)| async move {
        if rest.is_empty() {
            return Ok::<_, io::Error>(None);
        }
        let take = rest.len().min(BLOCK);
        let reader = media.clone();
        let block = tokio::task::spawn_blocking(move || {
            let mut block = vec![0; take as usize];
            reader.read_at(&mut block, rest.start).map(|()| block)
        })
        .await
        .map_err(io::Error::other)??;
        let rest = ByteRange { start: rest.start + take, end: rest.end };
        Ok(Some((Bytes::from(block), (media, rest))))
    }))
}

#[cfg(test)]
mod tests {
    //! Ranges, tags and lengths are exact, and what is sent is the image with the region laid in.
    use axum::body::to_bytes;
    use axum::http::HeaderValue;

    use super::*;
    use crate::format::boot_region::{self, BootRegion};
    use crate::image::boot::BootMedia;

    fn media() -> (NodeMedia, Vec<u8>) {
        let region =
            BootRegion { url: "https://a:1".into(), certificate_pin: "p".into(), token: "t".into(), node: "n".into() };
        let at = boot_region::OFFSET as usize;
        let mut bytes: Vec<u8> = (0..700_000_u32).map(|n| (n % 253) as u8).collect();
        bytes[at..at + boot_region::LENGTH].copy_from_slice(&boot_region::empty());
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), &bytes).unwrap();
        bytes[at..at + boot_region::LENGTH].copy_from_slice(&region.encode().unwrap());
        (BootMedia::open(file.path()).unwrap().for_node(&region).unwrap(), bytes)
    }

    async fn ask(media: &NodeMedia, headers: &[(HeaderName, &str)]) -> (StatusCode, HeaderMap, Bytes) {
        let headers = headers.iter().map(|(name, value)| (name.clone(), HeaderValue::from_str(value).unwrap()));
        let (head, body) = serve(media, &headers.collect()).into_parts();
        (head.status, head.headers, to_bytes(body, usize::MAX).await.unwrap())
    }

    #[tokio::test]
    async fn whole_and_parts() {
        let (media, want) = media();
        let (status, headers, body) = ask(&media, &[]).await;
        assert_eq!((status, headers[CONTENT_LENGTH].to_str().unwrap()), (StatusCode::OK, "700000"));
        assert_eq!(headers[ACCEPT_RANGES], "bytes");
        assert!(body == want);
        let (status, headers, body) = ask(&media, &[(RANGE, "bytes=24000-300000")]).await;
        assert_eq!(status, StatusCode::PARTIAL_CONTENT);
        assert_eq!(headers[CONTENT_RANGE], "bytes 24000-300000/700000");
        assert_eq!(headers[CONTENT_LENGTH], "276001");
        assert!(body == want[24_000..300_001]);
        let (status, headers, _) = ask(&media, &[(RANGE, "bytes=700000-")]).await;
        assert_eq!(status, StatusCode::RANGE_NOT_SATISFIABLE);
        assert_eq!(headers[CONTENT_RANGE], "bytes */700000");
    }

    #[tokio::test]
    async fn conditions() {
        let (media, want) = media();
        let etag = media.etag().to_owned();
        let (status, ..) = ask(&media, &[(IF_NONE_MATCH, &format!("\"x\", {etag}"))]).await;
        assert_eq!(status, StatusCode::NOT_MODIFIED);
        let (status, _, body) = ask(&media, &[(RANGE, "bytes=0-9"), (IF_RANGE, &etag)]).await;
        assert_eq!((status, body.len()), (StatusCode::PARTIAL_CONTENT, 10));
        let (status, _, body) = ask(&media, &[(RANGE, "bytes=0-9"), (IF_RANGE, "\"older\"")]).await;
        assert_eq!((status, body.len()), (StatusCode::OK, want.len()));
    }
}
