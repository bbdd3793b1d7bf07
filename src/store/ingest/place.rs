//! The second stage: each chunk found in the store, or encoded and packed; and the terms that say where they all are.

use std::collections::{BTreeSet, HashMap};
use std::ops::RangeInclusive;
use std::sync::Arc;

use bytes::Bytes;

use super::cut::Piece;
use crate::format::codec::{Codec, Encoder, Frame};
use crate::format::manifest::{self, Location, Term};
use crate::format::row::{self, key};
use crate::model::limit::FRAME_MAX;
use crate::model::{Digest, PackId};
use crate::store::Inner;
use crate::store::error::StoreError;
use crate::store::packer::NewFrame;
use crate::store::session::Tickets;
use crate::sys::space::Need;
use crate::sys::worker::blocking;

/// Bytes that all uploads together may gather in runs of new chunks: each takes its share.
pub(super) const RUNS_BYTES: usize = 40 * 1024 * 1024;
pub(super) const RUN: RangeInclusive<usize> = 256 * 1024..=4 * 1024 * 1024;
/// Known chunks that may wait for a run to be packed.
const SLOTS_MAX: usize = 8192;
/// A batch of which less than this share is new is not kept alive by its new chunks: they are copied out.
const SPARSE: usize = 2;
/// Encoders that work for one upload at the same time.
const ENCODERS: usize = 2;

/// A chunk of the upload: where it is, or which of the run's new chunks it is.
#[derive(Clone, Copy)]
enum Slot {
    Known(Location, u32),
    New(usize, u32),
}

/// Finds each chunk, or packs it, and adds up the terms.
pub(super) struct Placer {
    inner: Arc<Inner>,
    encoders: Vec<Encoder>,
    run: Vec<NewFrame>,
    run_chunks: usize,
    run_bytes: usize,
    run_index: HashMap<Digest, usize>,
    slots: Vec<Slot>,
    terms: Vec<Term>,
    tickets: Tickets,
}

impl Placer {
    pub(super) fn new(inner: Arc<Inner>) -> Self {
        Self {
            inner,
            encoders: Vec::new(),
            run: Vec::new(),
            run_chunks: 0,
            run_bytes: 0,
            run_index: HashMap::new(),
            slots: Vec::new(),
            terms: Vec::new(),
            tickets: Tickets::default(),
        }
    }

    /// Places a batch's chunks; packs the run when it has reached `run_limit` bytes. Answers the pack in which the last of
    /// them that had to be looked up was found.
    pub(super) async fn place(&mut self, pieces: Vec<Piece>, run_limit: usize) -> Result<Option<PackId>, StoreError> {
        let (known, hint) = self.look_up(&pieces).await?;
        let total: usize = pieces.iter().map(|piece| piece.len as usize).sum();
        let mut fresh = Vec::new();
        for mut piece in pieces {
            // A guess names a chunk that may not be durable yet, as a lookup does.
            if let Some(ticket) = piece.ticket.take() {
                self.tickets.add(ticket);
            }
            let raw_len = piece.len;
            let at = piece.at.or_else(|| known.get(&piece.digest).copied());
            let slot = match (at, self.run_index.get(&piece.digest)) {
                (Some(at), _) => Slot::Known(at, raw_len),
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
        if self.run_bytes >= run_limit || self.slots.len() >= SLOTS_MAX {
            self.pack().await?;
        }
        Ok(hint)
    }

    /// Where the store has chunks of these already: in packs that are being written, else in the index.
    async fn look_up(&mut self, pieces: &[Piece]) -> Result<(HashMap<Digest, Location>, Option<PackId>), StoreError> {
        let unplaced = pieces.iter().filter(|piece| piece.at.is_none()).map(|piece| piece.digest);
        let mut wanted: Vec<Digest> = unplaced.clone().collect();
        wanted.sort_unstable();
        wanted.dedup();
        wanted.retain(|digest| !self.run_index.contains_key(digest));
        let mut known = HashMap::with_capacity(wanted.len());
        let mut unknown = Vec::new();
        for (digest, found) in wanted.iter().zip(self.inner.packer.session().find(&wanted)) {
            match found {
                Some((at, ticket)) => {
                    self.tickets.add(ticket);
                    known.insert(*digest, at);
                }
                None => unknown.push(*digest),
            }
        }
        let keys: Vec<Vec<u8>> = unknown.iter().map(key::chunk).collect();
        let mut indexed = Vec::new();
        for (digest, found) in unknown.into_iter().zip(self.inner.meta.get_many(&keys).await?) {
            if let Some(bytes) = found {
                indexed.push((digest, row::decode_location(&bytes)?));
            }
        }
        // What the index says counts only where the pack may be relied on. It may be until the upload ends: so may what is guessed.
        let packs: BTreeSet<PackId> = indexed.iter().map(|(_, at)| at.pack).collect();
        let usable = self.inner.standing.usable(packs).await?;
        known.extend(indexed.into_iter().filter(|(_, at)| usable.contains(&at.pack)));
        let hint = unplaced.rev().find_map(|digest| known.get(&digest)).map(|at| at.pack);
        Ok((known, hint))
    }

    /// Encodes new chunks, on all cores where there are enough of them.
    async fn encode(&mut self, fresh: Vec<Piece>, total: usize) -> Result<(), StoreError> {
        let bytes: usize = fresh.iter().map(|piece| piece.data.len()).sum();
        let is_sparse = bytes < total / SPARSE;
        self.run_chunks += fresh.len();
        let parts = (bytes / FRAME_MAX).clamp(1, ENCODERS);
        let mut rest = fresh;
        let mut jobs = Vec::with_capacity(parts);
        for left in (1..=parts).rev() {
            let after = rest.split_off(split_at(&rest, left));
            let mut encoder = self.encoders.pop().unwrap_or_default();
            let part = std::mem::replace(&mut rest, after);
            jobs.push(blocking(move || {
                let frames = encode_part(&mut encoder, &part, is_sparse);
                (encoder, frames)
            }));
        }
        for encoded in futures_util::future::join_all(jobs).await {
            let (encoder, frames) = encoded.map_err(StoreError::step)?;
            self.encoders.push(encoder);
            self.run_bytes += frames.iter().map(|frame| frame.stored.len()).sum::<usize>();
            self.run.extend(frames);
        }
        // Each part goes on with the encoder that it had.
        self.encoders.reverse();
        Ok(())
    }

    /// Hands the run to the packer, and turns all slots into terms.
    async fn pack(&mut self) -> Result<(), StoreError> {
        let run = std::mem::take(&mut self.run);
        let placed = if run.is_empty() { Vec::new() } else { self.inner.packer.append(run, Need::Data).await? };
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
    pub(super) async fn finish(mut self) -> Result<Vec<Term>, StoreError> {
        self.pack().await?;
        self.inner.packer.flush(self.tickets).await?;
        Ok(self.terms)
    }
}

/// How many of the pieces make one of so many parts of equal bytes.
fn split_at(pieces: &[Piece], parts: usize) -> usize {
    let total: usize = pieces.iter().map(|piece| piece.data.len()).sum();
    let mut bytes = 0;
    let within = |piece: &&Piece| {
        bytes += piece.data.len();
        bytes <= total.div_ceil(parts)
    };
    pieces.iter().take_while(within).count().max(usize::from(!pieces.is_empty()))
}

fn encode_part(encoder: &mut Encoder, pieces: &[Piece], is_sparse: bool) -> Vec<NewFrame> {
    let chunks: Vec<Bytes> = pieces.iter().map(|piece| piece.data.clone()).collect();
    let mut named = pieces.iter().map(|piece| (piece.digest, piece.data.len() as u32));
    let frames = encoder.encode(&chunks).into_iter().map(|Frame { codec, stored, chunks }| {
        let stored = if is_sparse && codec == Codec::Raw { Bytes::copy_from_slice(&stored) } else { stored };
        NewFrame { codec, stored, chunks: named.by_ref().take(chunks).collect() }
    });
    frames.collect()
}
