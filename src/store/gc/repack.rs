//! Moves what is in use out of packs that are mostly dead or small: read, verified and appended like new data, then every row that
//! refers to an old place is rewritten to the new one. The old packs are found unmarked by the next round.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::GcDone;
use super::mark::Marks;
use super::pace::Pace;
use super::plan::PlannedPack;
use super::roots::{Root, Roots, each_term};
use crate::format::codec::{Decoder, Encoder};
use crate::format::manifest::{self, Location, Term};
use crate::format::pack::Entry;
use crate::format::row::{PackRow, key};
use crate::meta::{MetaError, Transaction};
use crate::model::{Digest, PackId};
use crate::store::Inner;
use crate::store::error::StoreError;
use crate::store::fetch::verified;
use crate::store::ingest::Content;
use crate::store::packer::NewFrame;
use crate::store::session::Tickets;
use crate::sys::space::Need;
use crate::sys::worker::blocking;

/// Stored bytes that are read and appended at once.
const READ_BYTES: u64 = 4 * 1024 * 1024;
/// Tries to rewrite a row against rounds of other collectors; there are none, so that one is enough but for bad luck.
const TRIES: usize = 8;

/// Where a pack's chunks went, by their old numbers, each with its length.
type Moved = BTreeMap<u32, (Location, u32)>;

/// Moves packs.
pub(super) struct Mover<'a> {
    inner: &'a Inner,
    moved: BTreeMap<PackId, Moved>,
    tickets: Tickets,
}

impl<'a> Mover<'a> {
    pub(super) fn new(inner: &'a Inner) -> Self {
        Self { inner, moved: BTreeMap::new(), tickets: Tickets::default() }
    }

    /// Appends the chunks of all these packs that are in use. A pack that cannot be read stays as it is: what is damaged is the scrub's
    /// to tell and a person's to decide.
    pub(super) async fn append(
        &mut self,
        packs: &[PlannedPack],
        marks: &Marks,
        done: &mut GcDone,
        pace: &mut Pace,
    ) -> Result<(), StoreError> {
        for planned in packs {
            match self.append_one(planned.pack, &marks.live(planned.pack), pace).await {
                Ok(bytes) => {
                    done.repacked += 1;
                    done.moved_bytes += bytes;
                }
                Err(error @ (StoreError::Closed | StoreError::DiskFull | StoreError::Meta(_))) => return Err(error),
                Err(error) => {
                    self.moved.remove(&planned.pack);
                    tracing::warn!(pack = %planned.pack, %error, "a pack could not be repacked");
                    done.failures.push(format!("pack {}: {error}", planned.pack));
                }
            }
        }
        Ok(())
    }

    async fn append_one(&mut self, pack: PackId, live: &[u32], pace: &mut Pace) -> Result<u64, StoreError> {
        let row = self.inner.meta.get(&key::pack(pack)).await?.ok_or(StoreError::NoSuchPack(pack))?;
        let directory = match self.inner.read_directory(pack, &PackRow::decode(&row)?).await {
            Ok(directory) => directory,
            Err(error) => {
                if let StoreError::CorruptRow(_) | StoreError::NoSuchPack(_) = error {
                    self.inner.met_unreadable(pack, &error.to_string()).await;
                }
                return Err(error);
            }
        };
        let entry = |chunk: u32| directory.entries.get(chunk as usize).copied();
        let wanted: Vec<(u32, Entry)> = live.iter().filter_map(|chunk| Some((*chunk, entry(*chunk)?))).collect();
        let (mut at, mut bytes) = (0, 0);
        while at < wanted.len() {
            let start = wanted[at].1.offset;
            let count = wanted[at..].iter().take_while(|(_, entry)| entry.end() - start <= READ_BYTES).count().max(1);
            bytes += self.append_some(pack, &wanted[at..at + count]).await?;
            at += count;
            pace.rest().await;
        }
        Ok(bytes)
    }

    /// Reads a run of chunks, verifies each, and appends them encoded anew.
    async fn append_some(&mut self, pack: PackId, wanted: &[(u32, Entry)]) -> Result<u64, StoreError> {
        let (Some((_, head)), Some((_, tail))) = (wanted.first(), wanted.last()) else { return Ok(0) };
        let start = head.offset;
        let stored = self.inner.packs.read(pack, start, tail.end()).await?;
        let chunks = wanted.to_vec();
        let work = move || {
            let mut decoder = Decoder::new();
            let mut raw: Vec<Bytes> = Vec::with_capacity(chunks.len());
            for (chunk, entry) in &chunks {
                let at = (entry.offset - start) as usize;
                let end = at + entry.stored_len as usize;
                let bytes = if end <= stored.len() { stored.slice(at..end) } else { Bytes::new() };
                raw.push(verified(&mut decoder, entry, &bytes).map_err(|what| (*chunk, entry.digest, what))?);
            }
            let mut named = chunks.iter().map(|(_, entry)| (entry.digest, entry.raw_len));
            let frames: Vec<NewFrame> = Encoder::new()
                .encode(&raw)
                .into_iter()
                .map(|frame| {
                    let chunks: Vec<(Digest, u32)> = named.by_ref().take(frame.chunks).collect();
                    NewFrame { codec: frame.codec, stored: frame.stored, chunks, again: false }
                })
                .collect();
            Ok::<_, (u32, Digest, &'static str)>(frames)
        };
        let frames = match blocking(work).await.map_err(StoreError::step)? {
            Ok(frames) => frames,
            Err((chunk, digest, what)) => {
                self.inner.distrust(&digest, Location { pack, chunk }, what, true).await;
                return Err(StoreError::Corrupt { pack, chunk, what: what.to_owned() });
            }
        };
        let bytes = frames.iter().map(|frame| frame.stored.len() as u64).sum();
        let placed = self.inner.packer.append(frames, Need::Upkeep).await?;
        let moved = self.moved.entry(pack).or_default();
        for ((chunk, entry), (at, ticket)) in wanted.iter().zip(placed) {
            moved.insert(*chunk, (at, entry.raw_len));
            self.tickets.add(ticket);
        }
        Ok(bytes)
    }

    /// Makes the new places durable, then rewrites every row that refers to an old one.
    pub(super) async fn rewrite(mut self, done: &mut GcDone, pace: &mut Pace) -> Result<(), StoreError> {
        if self.moved.is_empty() {
            return Ok(());
        }
        self.inner.packer.flush(std::mem::take(&mut self.tickets)).await?;
        let mut roots = Roots::all();
        while let Some(page) = roots.next(self.inner).await? {
            for root in &page {
                if !root.pins() && self.rewrite_one(root).await? {
                    done.rewritten += 1;
                }
            }
            pace.rest().await;
        }
        Ok(())
    }

    /// Rewrites one row, if it refers to a pack that has moved and is not changed by somebody else.
    async fn rewrite_one(&self, root: &Root) -> Result<bool, StoreError> {
        let (mut terms, mut concerned, mut complete) = (Vec::new(), false, true);
        let read = each_term(self.inner, root, |some| {
            for term in some {
                match self.moved.get(&term.pack) {
                    None => manifest::push_term(&mut terms, term),
                    Some(moved) => {
                        concerned = true;
                        complete &= push_moved(&mut terms, &term, moved);
                    }
                }
            }
            Ok(())
        });
        match read.await {
            // Its manifest went while it was read: somebody else has changed it.
            Err(StoreError::CorruptRow(_)) => return Ok(false),
            other => other?,
        }
        if !concerned || !complete {
            return Ok(false);
        }
        let packs: BTreeSet<PackId> = terms.iter().map(|term| term.pack).collect();
        let body = self.inner.lay_down(Content::Terms(terms)).await?;
        let swapped = self.swap(root, root.moved_to(body.clone()), &packs).await;
        match &swapped {
            Ok(true) => self.inner.drop_manifest(root.body()).await,
            Ok(false) => self.inner.drop_manifest(&body).await,
            Err(error) => self.inner.give_up_manifest(&body, error).await,
        }
        swapped
    }

    async fn swap(&self, root: &Root, new: Bytes, packs: &BTreeSet<PackId>) -> Result<bool, StoreError> {
        for _ in 0..TRIES {
            let epoch = self.inner.standing.touch(packs).await?;
            let tx = Transaction::new()
                .expect(key::epoch(), epoch)
                .expect(&root.key[..], Some(root.bytes.clone()))
                .put(&root.key[..], new.clone());
            match self.inner.meta.commit(tx).await {
                Ok(()) => return Ok(true),
                Err(MetaError::Conflict) => {}
                Err(error) => return Err(error.into()),
            }
            if self.inner.meta.get(&root.key).await?.as_ref() != Some(&root.bytes) {
                return Ok(false);
            }
        }
        Ok(false)
    }
}

/// Adds a term with its chunks in their new places; whether all of them have one. One that has none was not in use when the marks were
/// made: the next round moves it.
fn push_moved(terms: &mut Vec<Term>, term: &Term, moved: &Moved) -> bool {
    if term.repeats {
        let Some((at, _)) = moved.get(&term.first) else { return false };
        manifest::push_term(terms, Term { pack: at.pack, first: at.chunk, ..*term });
        return true;
    }
    for chunk in term.chunks() {
        let Some((at, raw_len)) = moved.get(&chunk) else { return false };
        manifest::push(terms, *at, *raw_len);
    }
    true
}
