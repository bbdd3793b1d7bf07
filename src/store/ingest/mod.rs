//! Bytes in: gathered into batches, cut and digested, looked up, encoded where new, packed. MD5, where it is asked for, runs beside.
//! While one batch is cut, the one before it is placed and the one after it is read.

mod claim;
mod cut;
mod feed;
mod given;
mod guard;
mod join;
mod patch;
mod place;
mod predict;

use std::sync::Arc;

use bytes::Bytes;
use md5::{Digest as _, Md5};

pub(super) use self::claim::Underway;
use self::cut::{Cut, Piece, Tail};
use self::feed::{Batch, Feed, Share};
pub(super) use self::feed::{Pool, Source};
pub(super) use self::given::{known, take};
pub(super) use self::join::join;
use self::place::{Placer, RUN, RUNS_BYTES};
use super::Inner;
use super::error::StoreError;
use crate::format::digest::{RootDigest, chunk_digest};
use crate::format::manifest::Term;
use crate::model::Digest;
use crate::model::limit::{CHUNK_MAX, INLINE_MAX};
use crate::sys::worker::blocking;

/// What an upload must be.
pub(super) struct Expected {
    /// Whether a short body may live in its row.
    pub(super) may_inline: bool,
    /// Whether its MD5 is wanted: it is the dearest step of all.
    pub(super) sums: bool,
    pub(super) bytes: Option<u64>,
    pub(super) md5: Option<[u8; 16]>,
}

/// An upload whose bytes are stored, durably, but that no row names yet.
pub(super) struct Ingested {
    pub(super) size: u64,
    /// Zeros where it was not wanted.
    pub(super) md5: [u8; 16],
    pub(super) root_digest: Digest,
    pub(super) content: Content,
}

/// Where the bytes are.
pub(super) enum Content {
    Inline(Bytes),
    Terms(Vec<Term>),
}

/// Stores the source's bytes. They are durable when this returns.
pub(super) async fn ingest(inner: &Arc<Inner>, source: Source, expected: Expected) -> Result<Ingested, StoreError> {
    let share = Share::of(&inner.uploads);
    let mut feed = Feed::new(source, expected.bytes, inner.pool.clone());
    let first = feed.next(&share).await?;
    let mut size = first.len() as u64;
    if first.last && expected.may_inline && first.len() < INLINE_MAX {
        let ingested = inline(&first.data[CHUNK_MAX..], &expected);
        inner.pool.give(first.data.freeze());
        return ingested;
    }
    let mut placer = Placer::new(inner.clone());
    let mut state = Work { cut: Cut::new(), md5: expected.sums.then(Md5::new) };
    let mut batch = Some(first);
    let (mut tail, mut pieces, mut placing) = (Tail::default(), Vec::new(), Bytes::new());
    while let Some(current) = batch.take() {
        let last = current.last;
        let next = async { if last { Ok(None) } else { feed.next(&share).await.map(Some) } };
        let run_limit = share.part(RUNS_BYTES, RUN);
        let place = placer.place(std::mem::take(&mut pieces), run_limit);
        let (worked, placed, next) = tokio::join!(work(state, current, tail), place, next);
        let done: Done = worked?;
        (state, tail, pieces) = (done.work, done.tail, done.pieces);
        if let Some(pack) = placed?
            && !state.cut.predictor.knows(pack)
            // A pack that cannot be read is no guide; who reads the object will be told.
            && let Ok(chunks) = inner.chunks(pack, 0).await
            // Nor is one that is damaged: what is guessed is not looked up, and so would be found where it cannot be read.
            && !inner.is_damaged(pack).await?
        {
            state.cut.predictor.learn(pack, chunks);
        }
        inner.pool.give(std::mem::replace(&mut placing, done.data));
        batch = next?;
        size += batch.as_ref().map_or(0, Batch::len) as u64;
    }
    placer.place(pieces, 0).await?;
    inner.pool.give(placing);
    let md5 = state.md5.map(|md5| md5.finalize().into()).unwrap_or_default();
    check(&expected, size, &md5)?;
    let terms = placer.finish().await?;
    Ok(Ingested { size, md5, root_digest: state.cut.root(), content: Content::Terms(terms) })
}

fn inline(data: &[u8], expected: &Expected) -> Result<Ingested, StoreError> {
    let size = data.len() as u64;
    let md5: [u8; 16] = if expected.sums { Md5::digest(data).into() } else { [0; 16] };
    check(expected, size, &md5)?;
    let mut root = RootDigest::new();
    if !data.is_empty() {
        root.push(chunk_digest(data), size);
    }
    Ok(Ingested { size, md5, root_digest: root.finish(), content: Content::Inline(Bytes::copy_from_slice(data)) })
}

fn check(expected: &Expected, size: u64, md5: &[u8; 16]) -> Result<(), StoreError> {
    match (expected.bytes, &expected.md5) {
        (Some(bytes), _) if bytes != size => Err(StoreError::IncompleteBody { expected: bytes, received: size }),
        (_, Some(announced)) if announced != md5 => Err(StoreError::BadDigest),
        _ => Ok(()),
    }
}

/// What runs over all bytes in order.
struct Work {
    cut: Cut,
    md5: Option<Md5>,
}

/// A batch that was cut.
struct Done {
    work: Work,
    tail: Tail,
    pieces: Vec<Piece>,
    /// All bytes of the batch, to be used again once its pieces are placed.
    data: Bytes,
}

/// Cuts and digests a batch on one thread while another computes MD5.
async fn work(state: Work, batch: Batch, tail: Tail) -> Result<Done, StoreError> {
    let Work { mut cut, md5 } = state;
    let Batch { mut data, last } = batch;
    let begin = CHUNK_MAX - tail.data.len();
    data[begin..CHUNK_MAX].copy_from_slice(&tail.data);
    let whole = data.freeze();
    let (data, fresh) = (whole.slice(begin..), whole.slice(CHUNK_MAX..));
    let sums = async {
        match md5 {
            None => Ok(None),
            Some(mut md5) => {
                blocking(move || {
                    md5.update(&fresh);
                    Some(md5)
                })
                .await
            }
        }
    };
    let cuts = blocking(move || {
        let (tail, pieces) = cut.run(&data, &tail, last);
        // Copied out: the batch's memory is to be used again.
        let tail = tail.detached();
        (cut, tail, pieces)
    });
    let (sums, cuts) = tokio::join!(sums, cuts);
    let (cut, tail, pieces) = cuts.map_err(StoreError::step)?;
    Ok(Done { work: Work { cut, md5: sums.map_err(StoreError::step)? }, tail, pieces, data: whole })
}
