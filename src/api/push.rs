//! What a client pushes that has cut and hashed a file itself: it asks which chunks the store has, and sends the others. For whoever
//! may put the object over S3, by the same keys, owners and policies; the objects are as if they had come that way, but for their
//! entity tag (docs/semantics.md).

use std::time::Duration;

use axum::Extension;
use axum::body::Body;
use axum::extract::{FromRequestParts, Path, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use futures_util::{StreamExt as _, stream};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use super::endpoint::{Content, Endpoint, Who};
use super::error::{ApiError, ApiResult};
use super::extract::{Json, Query, parse};
use super::{ApiState, Leave};
use crate::auth::Principal;
use crate::format::known::{LIST_BYTES_MAX, decode_digests, encode_bits, encode_digests};
use crate::format::push::PushReader;
use crate::model::{BucketName, ByteRange, Digest, ObjectKey, UploadId};
use crate::store::{
    ByteStream, Given, ObjectInfo, PUSHED, PartInfo, PatchBase, Precondition, PutRequest, RecordStream, StoreError,
    UploadInfo,
};
use crate::sys::lane::{Crowded, Pulse, Seat};
use crate::sys::wire::Peer;

const OCTETS: &str = "application/octet-stream";
/// Pushes that are received at once.
pub(super) const AT_ONCE: usize = 16;
/// Longest pause of a body.
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// Open uploads of one key that are looked through.
const UPLOADS_MAX: usize = 100;
/// Longest name that a client gives an upload.
const NAME_MAX: usize = 128;

pub(super) fn endpoints() -> Vec<Endpoint> {
    const KEY: (&str, &str) = ("key", "the object's key");
    const PROVE: (&str, &str) = ("prove", "the key of the proofs, as the terms say; absent where they say none");
    const BASE: (&str, &str) = ("base", "the entity tag that the object has of which patches are made");
    vec![
        Endpoint::get("/api/v1/push/terms/{bucket}", Who::Holder, terms)
            .about("Whether an object can be pushed, by whoever may put it over S3, and what its references need.")
            .query(&[KEY])
            .gives(Content::Json("PushTerms"))
            .refuses(&[403, 409]),
        Endpoint::post("/api/v1/push/known/{bucket}", Who::Holder, known)
            .about("Which of these chunks the store has: a list of digests in, a bit for each out (docs/format.md).")
            .query(&[KEY])
            .takes(Content::Bytes(OCTETS))
            .gives(Content::Bytes(OCTETS))
            .refuses(&[403, 409]),
        Endpoint::get("/api/v1/push/signature/{bucket}", Who::Holder, signature)
            .about("What a stretch of an object is made of (docs/format.md), for patches; for whoever may also get it over S3.")
            .query(&[KEY, ("start", "where the stretch begins, in bytes"), ("end", "where it ends; at most 64 MiB further")])
            .gives(Content::Bytes(OCTETS))
            .refuses(&[403, 404, 409]),
        Endpoint::put("/api/v1/push/objects/{bucket}", Who::Holder, object)
            .about(
                "Puts an object as a push (docs/format.md). 409 with a list of digests: these chunks must come along.",
            )
            .query(&[KEY, PROVE, BASE])
            .takes(Content::Bytes(OCTETS))
            .gives(Content::Json("PushedObject"))
            .refuses(&[403, 409]),
        Endpoint::post("/api/v1/push/uploads/{bucket}", Who::Holder, open)
            .about("Opens an upload in parts, or the one again that was opened under this name and not completed.")
            .query(&[KEY, ("name", "what the client will know it by, at most 128 bytes")])
            .gives(Content::Json("PushUpload"))
            .refuses(&[403, 409]),
        Endpoint::put("/api/v1/push/parts/{bucket}", Who::Holder, part)
            .about("Puts a part as a push. 409 with a list of digests: these chunks must come along.")
            .query(&[KEY, ("upload", "the upload's id"), ("part", "the part's number, from 1"), PROVE, BASE])
            .takes(Content::Bytes(OCTETS))
            .gives(Content::Json("PushPart"))
            .refuses(&[403, 404, 409]),
        Endpoint::post("/api/v1/push/complete/{bucket}", Who::Holder, complete)
            .about("Makes an object of the parts, by ascending number.")
            .query(&[KEY, ("upload", "the upload's id")])
            .takes(Content::Json("PushParts"))
            .gives(Content::Json("PushedObject"))
            .refuses(&[403, 404, 409]),
    ]
}

/// What a push needs.
#[derive(Serialize)]
struct PushTerms {
    /// The key of the proofs that references need; absent where a digest is enough.
    prove: Option<String>,
}

/// An object that was pushed.
#[derive(Serialize)]
struct PushedObject {
    etag: String,
    size: u64,
}

impl From<ObjectInfo> for PushedObject {
    fn from(info: ObjectInfo) -> Self {
        Self { etag: info.etag, size: info.size }
    }
}

/// An upload in parts, with those that it has.
#[derive(Serialize)]
struct PushUpload {
    upload: UploadId,
    parts: Vec<PushPart>,
}

/// A part that was pushed.
#[derive(Serialize, Deserialize)]
struct PushPart {
    number: u32,
    etag: String,
    size: u64,
}

impl From<PartInfo> for PushPart {
    fn from(part: PartInfo) -> Self {
        Self { number: part.number, etag: part.etag, size: part.size }
    }
}

/// The parts of a completion.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PushParts {
    parts: Vec<PushPart>,
}

/// The query of every request: the key, and what else it names.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PushQuery {
    key: String,
    #[serde(default)]
    prove: Option<String>,
    #[serde(default)]
    base: Option<String>,
    #[serde(default)]
    start: Option<u64>,
    #[serde(default)]
    end: Option<u64>,
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    upload: Option<String>,
    #[serde(default)]
    part: Option<u32>,
}

/// Who asks, where to, and what the gate says.
struct Push {
    caller: Principal,
    peer: Option<Peer>,
    bucket: BucketName,
    key: ObjectKey,
    /// What is put, as the gate lets it be.
    request: PutRequest,
    query: PushQuery,
}

/// Whoever may not put the object comes no further than this.
impl FromRequestParts<ApiState> for Push {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &ApiState) -> ApiResult<Self> {
        let caller = Extension::<Principal>::from_request_parts(parts, state).await;
        let Extension(caller) = caller.map_err(|error| ApiError::internal(&error))?;
        let peer = parts.extensions.get::<Peer>().copied();
        let bucket = Path::<String>::from_request_parts(parts, state).await;
        let Path(bucket) =
            bucket.map_err(|error| ApiError::bad_request(error.body_text(), "correct the name in the address"))?;
        let Query(query) = Query::<PushQuery>::from_request_parts(parts, state).await?;
        let leave = state.gate().may_put(&caller, peer, &bucket, &query.key).await;
        let request = match leave.map_err(|error| ApiError::internal(&*error))? {
            Leave::Granted { bucket, headers } => {
                let precondition = Precondition { bucket: Some(bucket), ..Precondition::default() };
                PutRequest { headers, precondition, ..PutRequest::default() }
            }
            Leave::Refused => {
                return Err(ApiError::new(
                    StatusCode::FORBIDDEN,
                    "not-allowed",
                    format!("the key may not write {bucket}/{}", query.key),
                    "ask the bucket's owner for s3:PutObject in its policy, or use the owner's key",
                ));
            }
            Leave::Encrypted => {
                return Err(ApiError::new(
                    StatusCode::CONFLICT,
                    "encrypted",
                    format!("{bucket} encrypts its objects, and encrypted objects share no chunks"),
                    "put it over S3",
                ));
            }
        };
        let (bucket, key) = (parse(&bucket)?, parse(&query.key)?);
        Ok(Self { caller, peer, bucket, key, request, query })
    }
}

impl Push {
    /// Root may read everything, so that a digest gives it nothing that it could not get; everybody else must show that it has the bytes.
    fn prove(&self, state: &ApiState) -> ApiResult<Option<[u8; 32]>> {
        if self.caller == Principal::Root {
            return Ok(None);
        }
        let owner = self.caller.owner();
        let good = [0, 1].map(|days| state.seals().proof_key(owner, days));
        let shown = self.query.prove.as_deref().map(str::parse::<Digest>).transpose();
        let shown = shown.map_err(|error| ApiError::bad_request(error.to_string(), "ask for the terms again"))?;
        match shown {
            // Without a key, or with one of before a restart, no reference counts, and all that it names must come along.
            None => Ok(Some(good[0])),
            Some(shown) => Ok(Some(if good.contains(&shown.0) { shown.0 } else { good[0] })),
        }
    }

    /// Whether the caller may read what is there now.
    async fn may_read(&self, state: &ApiState) -> ApiResult<bool> {
        let (bucket, key) = (self.bucket.to_string(), self.key.to_string());
        let allowed = state.gate().may_get(&self.caller, self.peer, &bucket, &key).await;
        allowed.map_err(|error| ApiError::internal(&*error))
    }

    /// The object that patches are made of; none for who may not read it.
    async fn base(&self, state: &ApiState) -> ApiResult<Option<PatchBase>> {
        let Some(etag) = self.query.base.clone() else { return Ok(None) };
        let base = PatchBase { bucket: self.bucket.clone(), key: self.key.clone(), etag };
        Ok(self.may_read(state).await?.then_some(base))
    }

    fn upload(&self) -> ApiResult<UploadId> {
        parse(self.query.upload.as_deref().unwrap_or_default())
    }
}

async fn terms(State(state): State<ApiState>, push: Push) -> ApiResult<Json<PushTerms>> {
    let prove = push.prove(&state)?.map(hex::encode);
    Ok(Json(PushTerms { prove }))
}

async fn known(State(state): State<ApiState>, _: Push, body: Body) -> ApiResult<Response> {
    let unread = |error: String| ApiError::bad_request(error, "docs/format.md says how a list of digests is laid out");
    let body = axum::body::to_bytes(body, LIST_BYTES_MAX).await.map_err(|error| unread(error.to_string()))?;
    let digests = decode_digests(&body).map_err(|error| unread(error.to_string()))?;
    let known = state.store().known_chunks(&digests).await?;
    Ok(([(CONTENT_TYPE, OCTETS)], encode_bits(&known)).into_response())
}

async fn signature(State(state): State<ApiState>, push: Push) -> ApiResult<Response> {
    if !push.may_read(&state).await? {
        return Err(ApiError::new(
            StatusCode::FORBIDDEN,
            "not-allowed",
            format!("the key may not read {}/{}", push.bucket, push.key),
            "push without patches",
        ));
    }
    let _turn = Turn::of(&state).await?;
    let stretch = ByteRange { start: push.query.start.unwrap_or_default(), end: push.query.end.unwrap_or_default() };
    let signature = state.store().signature(&push.bucket, &push.key, stretch).await?;
    Ok(([(CONTENT_TYPE, OCTETS)], signature.encode()).into_response())
}

async fn object(State(state): State<ApiState>, push: Push, body: Body) -> ApiResult<Response> {
    let turn = Turn::of(&state).await?;
    let base = push.base(&state).await?;
    let given = Given { records: records(turn.body(body)), prove: push.prove(&state)?, base };
    match state.store().put_given(&push.bucket, &push.key, given, push.request).await {
        Ok(info) => Ok(Json(PushedObject::from(info)).into_response()),
        Err(error) => turn.failed(error),
    }
}

async fn open(State(state): State<ApiState>, push: Push) -> ApiResult<Json<PushUpload>> {
    let name = push.query.name.unwrap_or_default();
    if name.is_empty() || name.len() > NAME_MAX {
        return Err(ApiError::bad_request(
            format!("an upload's name has 1 to {NAME_MAX} bytes"),
            "name it so that this client finds it again, and no other does",
        ));
    }
    // One caller's uploads are no other's to go on with.
    let name = format!("{} {name}", push.caller.arn());
    let open = state.store().list_uploads_after(&push.bucket, push.key.as_str(), None, UPLOADS_MAX).await?;
    let is_it = |upload: &&UploadInfo| upload.key == push.key && upload.headers.get(PUSHED) == Some(&name);
    if let Some(UploadInfo { id, .. }) = open.iter().find(is_it) {
        match state.store().list_parts(&push.bucket, &push.key, id).await {
            // It has ended since it was listed.
            Err(StoreError::NoSuchUpload(_)) => {}
            parts => {
                let parts = parts?.into_iter().map(PushPart::from).collect();
                return Ok(Json(PushUpload { upload: *id, parts }));
            }
        }
    }
    let mut request = push.request;
    request.headers.insert(PUSHED.to_owned(), name);
    let upload = state.store().create_upload(&push.bucket, &push.key, request).await?;
    Ok(Json(PushUpload { upload, parts: Vec::new() }))
}

async fn part(State(state): State<ApiState>, push: Push, body: Body) -> ApiResult<Response> {
    let (upload, number) = (push.upload()?, push.query.part.unwrap_or_default());
    must_be_pushed(&state.store().upload(&push.bucket, &push.key, &upload).await?)?;
    let turn = Turn::of(&state).await?;
    let base = push.base(&state).await?;
    let given = Given { records: records(turn.body(body)), prove: push.prove(&state)?, base };
    match state.store().put_given_part(&push.bucket, &push.key, &upload, number, given).await {
        Ok(part) => Ok(Json(PushPart::from(part)).into_response()),
        Err(error) => turn.failed(error),
    }
}

/// Refuses an upload that was opened over S3, whose parts keep what a push knows nothing of.
fn must_be_pushed(about: &UploadInfo) -> ApiResult<()> {
    if about.headers.contains_key(PUSHED) { Ok(()) } else { Err(ApiError::from(StoreError::NoSuchUpload(about.id))) }
}

async fn complete(
    State(state): State<ApiState>,
    push: Push,
    Json(named): Json<PushParts>,
) -> ApiResult<Json<PushedObject>> {
    let parts: Vec<(u32, String)> = named.parts.into_iter().map(|part| (part.number, part.etag)).collect();
    let upload = push.upload()?;
    match state.store().upload(&push.bucket, &push.key, &upload).await {
        Ok(about) => must_be_pushed(&about)?,
        // It may have been completed, and the answer lost.
        Err(StoreError::NoSuchUpload(_)) => {}
        Err(error) => return Err(error.into()),
    }
    let info = state.store().complete_push(&push.bucket, &push.key, &upload, &parts).await?;
    Ok(Json(PushedObject::from(info)))
}

/// A place among those whose pushes are received. Who has one and does not use it loses it to one who waits.
struct Turn {
    pulse: Pulse,
    _seat: Seat,
}

impl Turn {
    async fn of(state: &ApiState) -> ApiResult<Self> {
        let pulse = Pulse::new(CancellationToken::new());
        match state.pushes.enter(1, &pulse).await {
            Ok(seat) => Ok(Self { pulse, _seat: seat }),
            Err(Crowded) => Err(busy()),
        }
    }

    /// The body, of which every pause is noted.
    fn body(&self, body: Body) -> ByteStream {
        let state = (body.into_data_stream(), self.pulse.clone());
        let pieces = stream::try_unfold(state, |(mut pieces, pulse)| async move {
            pulse.turn(0);
            let piece = tokio::select! {
                biased;
                piece = pieces.next() => piece,
                () = pulse.cut() => return Err("others needed the place".into()),
                () = tokio::time::sleep(PAUSE_MAX) => return Err("no bytes arrived for a minute".into()),
            };
            pulse.done(piece.as_ref().map_or(0, |piece| piece.as_ref().map_or(0, |bytes| bytes.len() as u64)));
            match piece {
                None => Ok(None),
                Some(Err(error)) => Err(error.into()),
                Some(Ok(piece)) => Ok(Some((piece, (pieces, pulse)))),
            }
        });
        pieces.boxed()
    }

    /// What is answered to a push that failed: where chunks are missing, which.
    fn failed(&self, error: StoreError) -> ApiResult<Response> {
        match error {
            StoreError::MissingChunks(digests) => {
                Ok((StatusCode::CONFLICT, [(CONTENT_TYPE, OCTETS)], encode_digests(&digests)).into_response())
            }
            StoreError::Body(_) if self.pulse.is_cut() => Err(busy()),
            error => Err(error.into()),
        }
    }
}

fn busy() -> ApiError {
    ApiError::new(
        StatusCode::SERVICE_UNAVAILABLE,
        "busy",
        "as many pushes as may be are under way",
        "try again in a moment",
    )
}

/// The records of a body, as they come.
fn records(body: ByteStream) -> RecordStream {
    let state = (body, PushReader::new());
    let records = stream::try_unfold(state, |(mut body, mut reader)| async move {
        loop {
            if let Some(record) = reader.record()? {
                return Ok(Some((record, (body, reader))));
            }
            match body.next().await {
                Some(piece) => reader.give(&piece?),
                None => {
                    reader.finish()?;
                    return Ok(None);
                }
            }
        }
    });
    records.boxed()
}
