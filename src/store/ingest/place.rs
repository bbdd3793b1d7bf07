//! The second stage: each chunk found in the store, or encoded and packed; and the terms that say where they all are.

use std::collections::{BTreeSet, HashMap};
use std::ops::RangeInclusive;
use std::sync::Arc;

use bytes::Bytes;

use super::claim::{Awaited, Claims};
use super::cut::Piece;
use super::guard::Guard;
use crate::format::codec::{Codec, Encoder, Frame};
use crate::format::manifest::{self, Location, Term};
use crate::format::row::{self, key};
use crate::model::limit::FRAME_TARGET;
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

/// A chunk of the upload: where it is, or which it is of the run's new chunks or of those that another upload stores.
#[derive(Clone, Copy)]
enum Place {
    Known(Location),
    New(usize),
    Late(usize),
}

/// A chunk is to be stored that is not at hand.
const NO_BYTES: StoreError = StoreError::Unfit("A chunk is to be stored whose bytes did not come.");

/// Finds each chunk, or packs it, and adds up the terms.
pub(super) struct Placer {
    inner: Arc<Inner>,
    guard: Guard,
    claims: Claims,
    encoders: Vec<Encoder>,
    run: Vec<NewFrame>,
    run_chunks: usize,
    run_bytes: usize,
    run_index: HashMap<Digest, Place>,
    /// Chunks that another upload is about to store.
    late: Vec<(Piece, Awaited)>,
    slots: Vec<(Place, u32)>,
    terms: Vec<Term>,
    tickets: Tickets,
}

impl Placer {
    pub(super) fn new(inner: Arc<Inner>) -> Self {
        Self {
            guard: Guard::new(inner.packs.ration),
            claims: Claims::new(inner.underway.clone()),
            inner,
            encoders: Vec::new(),
            run: Vec::new(),
            run_chunks: 0,
            run_bytes: 0,
            run_index: HashMap::new(),
            late: Vec::new(),
            slots: Vec::new(),
            terms: Vec::new(),
            tickets: Tickets::default(),
        }
    }

    /// Places a batch's chunks; packs the run when it has reached `run_limit` bytes. Answers the pack in which the last of
    /// them that had to be looked up was found.
    pub(super) async fn place(&mut self, pieces: Vec<Piece>, run_limit: usize) -> Result<Option<PackId>, StoreError> {
        let unplaced = || pieces.iter().filter(|piece| piece.at.is_none()).map(|piece| piece.digest);
        let known = self.look_up(unplaced().filter(|digest| !self.run_index.contains_key(digest)).collect()).await?;
        let hint = unplaced().rev().find_map(|digest| known.get(&digest)).map(|at| at.pack);
        let mut placed: Vec<_> = pieces
            .iter()
            .map(|piece| (piece.at.or_else(|| known.get(&piece.digest).copied()), !piece.data.is_empty()))
            .collect();
        let moved = self.look_again(&pieces, &mut placed).await?;
        let hint = moved.or(hint);
        let total: usize = pieces.iter().map(|piece| piece.len as usize).sum();
        let mut fresh = Vec::new();
        let shared = self.guard.choose(&placed);
        for (mut piece, (shared, (known, _))) in pieces.into_iter().zip(shared.into_iter().zip(placed)) {
            let (digest, raw_len) = (piece.digest, piece.len);
            let place = match (shared, self.run_index.get(&digest)) {
                (Some(at), _) => {
                    // A guess names a chunk that may not be durable yet, as a lookup does.
                    if let Some(ticket) = piece.ticket.take() {
                        self.tickets.add(ticket);
                    }
                    Place::Known(at)
                }
                (None, Some(place)) => *place,
                // What has no bytes at hand can only be shared, whatever the ration says.
                (None, None) if piece.data.is_empty() => Place::Known(known.ok_or(NO_BYTES)?),
                (None, None) => self.take(piece, known.is_some(), &mut fresh),
            };
            if shared.is_none() {
                self.run_index.insert(digest, place);
            }
            self.slots.push((place, raw_len));
        }
        self.encode(fresh, total).await?;
        let late: usize = self.late.iter().map(|(piece, _)| piece.data.len()).sum();
        let is_full = self.run_bytes.max(late) >= run_limit || self.slots.len() >= SLOTS_MAX;
        if is_full || self.claims.are_wanted() {
            self.pack().await?;
        }
        Ok(hint)
    }

    /// Looks up what was guessed and would be stored again: there may be a later copy of it, which was stored together with its
    /// neighbours. Answers a pack that has such copies.
    async fn look_again(
        &mut self,
        pieces: &[Piece],
        placed: &mut [(Option<Location>, bool)],
    ) -> Result<Option<PackId>, StoreError> {
        let shared = self.guard.clone().choose(placed);
        let refused = |number: usize| shared[number].is_none() && pieces[number].at.is_some();
        let doubtful: Vec<usize> = (0..pieces.len()).filter(|number| refused(*number)).collect();
        let found = self.look_up(doubtful.iter().map(|number| pieces[*number].digest).collect()).await?;
        let mut pack = None;
        for number in doubtful {
            let later = found.get(&pieces[number].digest).filter(|at| Some(**at) != placed[number].0);
            if let Some(at) = later {
                placed[number].0 = Some(*at);
                pack = Some(at.pack);
            }
        }
        Ok(pack)
    }

    /// Takes a chunk to be stored, unless another upload is at it. One that is stored `again` is here for its neighbours' sake.
    fn take(&mut self, piece: Piece, again: bool, fresh: &mut Vec<Piece>) -> Place {
        if !again && let Err(awaited) = self.claims.claim(piece.digest) {
            // Copied out: the batch's memory is to be used again.
            let data = Bytes::copy_from_slice(&piece.data);
            self.late.push((Piece { data, ..piece }, awaited));
            return Place::Late(self.late.len() - 1);
        }
        fresh.push(Piece { again, ..piece });
        Place::New(self.run_chunks + fresh.len() - 1)
    }

    /// Whether the chunk waits to be packed, so that no lookup finds it yet.
    pub(super) fn holds(&self, digest: &Digest) -> bool {
        self.run_index.contains_key(digest)
    }

    /// Of chunks that the store has, and whose bytes are not at hand, those that the guard would have stored again if they were.
    pub(super) fn unshared(&self, pieces: &[Piece]) -> Vec<usize> {
        let chunks: Vec<_> = pieces.iter().map(|piece| (piece.at, true)).collect();
        let shared = self.guard.clone().choose(&chunks);
        let is_unshared = |number: &usize| {
            shared[*number].is_none() && pieces[*number].at.is_some() && pieces[*number].data.is_empty()
        };
        (0..pieces.len()).filter(is_unshared).collect()
    }

    /// Where the store has chunks of these already: in packs that are being written, else in the index.
    pub(super) async fn look_up(&mut self, mut wanted: Vec<Digest>) -> Result<HashMap<Digest, Location>, StoreError> {
        wanted.sort_unstable();
        wanted.dedup();
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
        Ok(known)
    }

    /// Encodes new chunks, on all cores where there are enough of them.
    async fn encode(&mut self, fresh: Vec<Piece>, total: usize) -> Result<(), StoreError> {
        if fresh.is_empty() {
            return Ok(());
        }
        // A chunk without bytes would make its whole pack unreadable.
        if fresh.iter().any(|piece| piece.data.is_empty()) {
            return Err(NO_BYTES);
        }
        let bytes: usize = fresh.iter().map(|piece| piece.data.len()).sum();
        let is_sparse = bytes < total / SPARSE;
        self.run_chunks += fresh.len();
        let parts = (bytes / FRAME_TARGET).clamp(1, ENCODERS);
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
        let mut used = Vec::with_capacity(parts);
        for encoded in futures_util::future::join_all(jobs).await {
            let (encoder, frames) = encoded.map_err(StoreError::step)?;
            used.push(encoder);
            self.run_bytes += frames.iter().map(|frame| frame.stored.len()).sum::<usize>();
            self.run.extend(frames);
        }
        // Each part goes on with the encoder that it had.
        self.encoders.extend(used.into_iter().rev());
        Ok(())
    }

    /// Hands the run to the packer, and turns all slots into terms.
    pub(super) async fn pack(&mut self) -> Result<(), StoreError> {
        let new = self.append().await?;
        self.run_index.clear();
        self.claims.release();
        let late = self.find_late().await?;
        for (place, raw_len) in self.slots.drain(..) {
            let at = match place {
                Place::Known(at) => at,
                Place::New(number) => new[number],
                Place::Late(number) => late[number],
            };
            manifest::push(&mut self.terms, at, raw_len);
        }
        Ok(())
    }

    /// Appends the run's frames to the open pack; answers where each of their chunks is.
    async fn append(&mut self) -> Result<Vec<Location>, StoreError> {
        let run = std::mem::take(&mut self.run);
        (self.run_bytes, self.run_chunks) = (0, 0);
        if run.is_empty() {
            return Ok(Vec::new());
        }
        let placed = self.inner.packer.append(run, Need::Data).await?;
        let at = placed.iter().map(|(at, _)| *at).collect();
        placed.into_iter().for_each(|(_, ticket)| self.tickets.add(ticket));
        Ok(at)
    }

    /// Where the chunks are that another upload was to store; those that it has not stored in time are stored now.
    async fn find_late(&mut self) -> Result<Vec<Location>, StoreError> {
        if self.late.is_empty() {
            return Ok(Vec::new());
        }
        let (pieces, awaited): (Vec<Piece>, Vec<Awaited>) = std::mem::take(&mut self.late).into_iter().unzip();
        Claims::wait(&awaited).await;
        let mut found = self.look_up(pieces.iter().map(|piece| piece.digest).collect()).await?;
        let digests: Vec<Digest> = pieces.iter().map(|piece| piece.digest).collect();
        let missing: Vec<Piece> = pieces.into_iter().filter(|piece| !found.contains_key(&piece.digest)).collect();
        let missed: Vec<Digest> = missing.iter().map(|piece| piece.digest).collect();
        self.encode(missing, 0).await?;
        found.extend(missed.into_iter().zip(self.append().await?));
        Ok(digests.iter().map(|digest| found[digest]).collect())
    }

    /// Waits until what was found so far is durable: until then nobody can read it.
    pub(super) async fn settle(&mut self) -> Result<(), StoreError> {
        self.inner.packer.flush(std::mem::take(&mut self.tickets)).await
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
    let mut at = 0;
    let frames = encoder.encode(&chunks).into_iter().map(|Frame { codec, stored, chunks }| {
        let stored = if is_sparse && codec == Codec::Raw { Bytes::copy_from_slice(&stored) } else { stored };
        let again = pieces[at..at + chunks].iter().any(|piece| piece.again);
        at += chunks;
        NewFrame { codec, stored, chunks: named.by_ref().take(chunks).collect(), again }
    });
    frames.collect()
}
