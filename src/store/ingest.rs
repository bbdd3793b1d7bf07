//! Bytes in: gathered into batches, cut and digested, looked up, encoded where new, packed. MD5 runs beside. While one
//! batch is cut, the one before it is placed and the one after it is read.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;
use md5::{Digest as _, Md5};

use super::Inner;
use super::error::StoreError;
use super::packer::{NewFrame, Packer};
use super::session::Tickets;
use super::types::ByteStream;
use crate::format::codec::{Codec, Encoder, Frame};
use crate::format::cut::Cutter;
use crate::format::digest::{RootDigest, chunk_digest};
use crate::format::manifest::{self, Location, Term};
use crate::format::row::{self, key};
use crate::meta::Meta;
use crate::model::limit::{CHUNK_MAX, INLINE_MAX};
use crate::model::Digest;
use crate::sys::worker::blocking;

/// Bytes that all uploads together may gather in batches, and in runs of new chunks: each takes its share.
const BATCHES_BYTES: usize = 16 * 1024 * 1024;
const RUNS_BYTES: usize = 40 * 1024 * 1024;
const BATCH: std::ops::RangeInclusive<usize> = 128 * 1024..=1024 * 1024;
const RUN: std::ops::RangeInclusive<usize> = 256 * 1024..=4 * 1024 * 1024;
/// Known chunks that may wait for a run to be packed.
const SLOTS_MAX: usize = 8192;
/// A batch of which less than this share is new is not kept alive by its new chunks: they are copied out.
const SPARSE: usize = 2;

/// Counts the uploads under way while it lives.
pub(super) struct Share(Arc<AtomicUsize>);

impl Share {
    pub(super) fn of(uploads: &Arc<AtomicUsize>) -> Self {
        uploads.fetch_add(1, Ordering::Relaxed);
        Self(uploads.clone())
    }

    fn part(&self, total: usize, bounds: std::ops::RangeInclusive<usize>) -> usize {
        (total / self.0.load(Ordering::Relaxed).max(1)).clamp(*bounds.start(), *bounds.end())
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What an upload must be.
pub(super) struct Expected {
    /// Whether a short body may live in its row.
    pub(super) may_inline: bool,
    pub(super) bytes: Option<u64>,
    pub(super) md5: Option<[u8; 16]>,
}

/// An upload whose bytes are stored, durably, but that no row names yet.
pub(super) struct Ingested {
    pub(super) size: u64,
    pub(super) md5: [u8; 16],
    pub(super) root_digest: Digest,
    pub(super) content: Content,
}

/// Where the bytes are.
pub(super) enum Content {
    Inline(Bytes),
    Terms(Vec<Term>),
}

/// Stores the body's bytes. They are durable when this returns.
pub(super) async fn ingest(inner: &Inner, body: ByteStream, expected: Expected) -> Result<Ingested, StoreError> {
    let share = Share::of(&inner.uploads);
    let mut feed = Feed { body, carry: Bytes::new(), ended: false };
    let first = feed.next(&share).await?;
    let mut size = first.data.len() as u64 - CHUNK_MAX as u64;
    if first.last && expected.may_inline && (size as usize) < INLINE_MAX {
        return inline(&first.data[CHUNK_MAX..], &expected);
    }
    let mut placer = Placer::new(inner.meta.clone(), inner.packer.clone());
    let mut state = Work { cutter: Cutter::new(), root: RootDigest::new(), md5: Md5::new() };
    let mut batch = Some(first);
    let (mut tail, mut pieces) = (Bytes::new(), Vec::new());
    while let Some(current) = batch.take() {
        let last = current.last;
        let next = async { if last { Ok(None) } else { feed.next(&share).await.map(Some) } };
        let run_limit = share.part(RUNS_BYTES, RUN);
        let (worked, placed, next) =
            tokio::join!(work(state, current, tail), placer.place(std::mem::take(&mut pieces), run_limit), next);
        placed?;
        batch = next?;
        if let Some(batch) = &batch {
            size += batch.data.len() as u64 - CHUNK_MAX as u64;
        }
        (state, tail, pieces) = worked?;
    }
    placer.place(pieces, 0).await?;
    let md5: [u8; 16] = state.md5.finalize().into();
    check(&expected, size, &md5)?;
    let terms = placer.finish().await?;
    Ok(Ingested { size, md5, root_digest: state.root.finish(), content: Content::Terms(terms) })
}

fn inline(data: &[u8], expected: &Expected) -> Result<Ingested, StoreError> {
    let size = data.len() as u64;
    let md5: [u8; 16] = Md5::digest(data).into();
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

/// A batch of the body: [`CHUNK_MAX`] bytes of room in front, for what the batch before left uncut, then the bytes.
struct Batch {
    data: BytesMut,
    last: bool,
}

struct Feed {
    body: ByteStream,
    carry: Bytes,
    ended: bool,
}

impl Feed {
    async fn next(&mut self, share: &Share) -> Result<Batch, StoreError> {
        let limit = share.part(BATCHES_BYTES, BATCH) + CHUNK_MAX;
        // The first bytes are awaited before the batch is allocated: an idle upload holds little.
        if self.carry.is_empty() {
            self.pull().await?;
        }
        let mut data = BytesMut::with_capacity(if self.ended { CHUNK_MAX } else { limit });
        data.resize(CHUNK_MAX, 0);
        while !self.carry.is_empty() {
            let count = self.carry.len().min(limit - data.len());
            data.extend_from_slice(&self.carry.split_to(count));
            if data.len() == limit {
                break;
            }
            self.pull().await?;
        }
        Ok(Batch { data, last: self.ended && self.carry.is_empty() })
    }

    /// Takes the next bytes that are not empty, or notes the end.
    async fn pull(&mut self) -> Result<(), StoreError> {
        while !self.ended && self.carry.is_empty() {
            match self.body.next().await {
                Some(Ok(bytes)) => {
                    self.carry = bytes;
                }
                Some(Err(error)) => return Err(StoreError::Body(error)),
                None => self.ended = true,
            }
        }
        Ok(())
    }
}

/// What runs over all bytes in order.
struct Work {
    cutter: Cutter,
    root: RootDigest,
    md5: Md5,
}

/// A chunk that was cut.
struct Piece {
    digest: Digest,
    data: Bytes,
}

/// Cuts and digests a batch on one thread while another computes MD5.
async fn work(state: Work, batch: Batch, tail: Bytes) -> Result<(Work, Bytes, Vec<Piece>), StoreError> {
    let Work { cutter, root, mut md5 } = state;
    let Batch { mut data, last } = batch;
    let begin = CHUNK_MAX - tail.len();
    data[begin..CHUNK_MAX].copy_from_slice(&tail);
    let seen = tail.len();
    drop(tail);
    let data = data.freeze().slice(begin..);
    let fresh = data.slice(seen..);
    let sums = blocking(move || {
        md5.update(&fresh);
        md5
    });
    let cuts = blocking(move || cut(cutter, root, &data, seen, last));
    let (sums, cuts) = tokio::join!(sums, cuts);
    let (cutter, root, tail, pieces) = cuts.map_err(StoreError::step)?;
    Ok((Work { cutter, root, md5: sums.map_err(StoreError::step)? }, tail, pieces))
}

/// Cuts `data`, whose first `seen` bytes the cutter has seen; what is left uncut comes back, unless it is the `last`.
fn cut(
    mut cutter: Cutter,
    mut root: RootDigest,
    data: &Bytes,
    seen: usize,
    last: bool,
) -> (Cutter, RootDigest, Bytes, Vec<Piece>) {
    let mut pieces = Vec::with_capacity(data.len() / (CHUNK_MAX / 4) + 1);
    let mut add = |chunk: Bytes| {
        let digest = chunk_digest(&chunk);
        root.push(digest, chunk.len() as u64);
        pieces.push(Piece { digest, data: chunk });
    };
    let (mut begin, mut at) = (0, seen);
    while at < data.len() {
        let Some(step) = cutter.next_cut(&data[at..]) else { break };
        at += step;
        add(data.slice(begin..at));
        begin = at;
    }
    if last && begin < data.len() {
        add(data.slice(begin..));
        begin = data.len();
    }
    (cutter, root, data.slice(begin..), pieces)
}

/// A chunk of the upload: where it is, or which of the run's new chunks it is.
#[derive(Clone, Copy)]
enum Slot {
    Known(Location, u32),
    New(usize, u32),
}

/// Finds each chunk, or packs it, and adds up the terms.
struct Placer {
    meta: Arc<dyn Meta>,
    packer: Packer,
    encoder: Encoder,
    run: Vec<NewFrame>,
    run_chunks: usize,
    run_bytes: usize,
    run_index: HashMap<Digest, usize>,
    slots: Vec<Slot>,
    terms: Vec<Term>,
    tickets: Tickets,
}

impl Placer {
    fn new(meta: Arc<dyn Meta>, packer: Packer) -> Self {
        Self {
            meta,
            packer,
            encoder: Encoder::new(),
            run: Vec::new(),
            run_chunks: 0,
            run_bytes: 0,
            run_index: HashMap::new(),
            slots: Vec::new(),
            terms: Vec::new(),
            tickets: Tickets::default(),
        }
    }

    /// Places a batch's chunks; packs the run when it has reached `run_limit` bytes.
    async fn place(&mut self, pieces: Vec<Piece>, run_limit: usize) -> Result<(), StoreError> {
        let known = self.look_up(&pieces).await?;
        let total: usize = pieces.iter().map(|piece| piece.data.len()).sum();
        let mut fresh = Vec::new();
        for piece in pieces {
            let raw_len = piece.data.len() as u32;
            let slot = match (known.get(&piece.digest), self.run_index.get(&piece.digest)) {
                (Some(at), _) => Slot::Known(*at, raw_len),
                (None, Some(number)) => Slot::New(*number, raw_len),
                (None, None) => {
                    let number = self.run_chunks + fresh.len();
                    self.run_index.insert(piece.digest, number);
                    fresh.push(piece);
                    Slot::New(number, raw_len)
                }
            };
            self.slots.push(slot);
        }
        self.encode(fresh, total).await?;
        if self.run_bytes >= run_limit || self.slots.len() >= SLOTS_MAX { self.pack().await } else { Ok(()) }
    }

    /// Where the store has chunks of these already: in packs that are being written, else in the index.
    async fn look_up(&mut self, pieces: &[Piece]) -> Result<HashMap<Digest, Location>, StoreError> {
        let mut wanted: Vec<Digest> = pieces.iter().map(|piece| piece.digest).collect();
        wanted.sort_unstable();
        wanted.dedup();
        wanted.retain(|digest| !self.run_index.contains_key(digest));
        let mut known = HashMap::with_capacity(wanted.len());
        let mut unknown = Vec::new();
        for (digest, found) in wanted.iter().zip(self.packer.session().find(&wanted)) {
            match found {
                Some((at, ticket)) => {
                    self.tickets.add(ticket);
                    known.insert(*digest, at);
                }
                None => unknown.push(*digest),
            }
        }
        let keys: Vec<Vec<u8>> = unknown.iter().map(key::chunk).collect();
        for (digest, found) in unknown.into_iter().zip(self.meta.get_many(&keys).await?) {
            if let Some(bytes) = found {
                known.insert(digest, row::decode_location(&bytes)?);
            }
        }
        Ok(known)
    }

    async fn encode(&mut self, fresh: Vec<Piece>, total: usize) -> Result<(), StoreError> {
        if fresh.is_empty() {
            return Ok(());
        }
        let count = fresh.len();
        let sparse = fresh.iter().map(|piece| piece.data.len()).sum::<usize>() < total / SPARSE;
        let mut encoder = std::mem::take(&mut self.encoder);
        let encoded = blocking(move || {
            let chunks: Vec<Bytes> = fresh.iter().map(|piece| piece.data.clone()).collect();
            let mut named = fresh.iter().map(|piece| (piece.digest, piece.data.len() as u32));
            let frames = encoder.encode(&chunks).into_iter().map(|Frame { codec, stored, chunks }| {
                let stored = if sparse && codec == Codec::Raw { Bytes::copy_from_slice(&stored) } else { stored };
                NewFrame { codec, stored, chunks: named.by_ref().take(chunks).collect() }
            });
            let frames: Vec<NewFrame> = frames.collect();
            (encoder, frames)
        });
        let (encoder, frames) = encoded.await.map_err(StoreError::step)?;
        self.encoder = encoder;
        self.run_chunks += count;
        self.run_bytes += frames.iter().map(|frame| frame.stored.len()).sum::<usize>();
        self.run.extend(frames);
        Ok(())
    }

    /// Hands the run to the packer, and turns all slots into terms.
    async fn pack(&mut self) -> Result<(), StoreError> {
        let run = std::mem::take(&mut self.run);
        let placed = if run.is_empty() { Vec::new() } else { self.packer.append(run).await? };
        (self.run_bytes, self.run_chunks) = (0, 0);
        self.run_index.clear();
        for slot in self.slots.drain(..) {
            let (at, raw_len) = match slot {
                Slot::Known(at, raw_len) => (at, raw_len),
                Slot::New(number, raw_len) => (placed[number].0, raw_len),
            };
            manifest::push(&mut self.terms, at, raw_len);
        }
        placed.into_iter().for_each(|(_, ticket)| self.tickets.add(ticket));
        Ok(())
    }

    /// Waits until all chunks are durable.
    async fn finish(mut self) -> Result<Vec<Term>, StoreError> {
        self.pack().await?;
        self.packer.flush(self.tickets).await?;
        Ok(self.terms)
    }
}
