//! Bytes that a client has cut and hashed itself: chunks, or only their names where the store has them. Nothing that it says is
//! believed: what comes along is decoded and its digest compared, what is named is looked up, and may be relied on as what an upload
//! finds by itself; all else goes the way of any upload.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use super::cut::Piece;
use super::feed::Share;
use super::patch::{Base, open_patch};
use super::place::{Placer, RUN, RUNS_BYTES};
use super::{Content, Ingested};
use crate::format::codec::{Codec, Decoder};
use crate::format::digest::{RootDigest, chunk_digest};
use crate::format::manifest::Location;
use crate::format::push::{Named, Record, Reference, proof, span};
use crate::model::Digest;
use crate::model::limit::{CHUNK_MIN, PUT_MAX};
use crate::store::Inner;
use crate::store::error::StoreError;
use crate::store::types::{Given, RecordStream};
use crate::sys::worker::blocking;

/// Chunks that are placed at once.
const BATCH: usize = 1024;
/// Bytes of chunks that come along and are placed at once; so much of a push is in memory, and a record.
const BATCH_BYTES: usize = 2 * 1024 * 1024;
/// Chunks of which those that are to be stored again are in memory.
const AT_HAND: usize = 64;
/// Chunks of the store that are read at once, for a proof, or to be stored again.
const READS: usize = 8;
/// Bytes of chunks that are read of a push which was refused.
const READ_ON: usize = 64 * 1024 * 1024;
/// Missing chunks that are told at once.
const MISSING_MAX: usize = 8192;

/// Which of the chunks the store has.
pub(in crate::store) async fn known(inner: &Arc<Inner>, digests: &[Digest]) -> Result<Vec<bool>, StoreError> {
    let found = Placer::new(inner.clone()).look_up(digests.to_vec()).await?;
    Ok(digests.iter().map(|digest| found.contains_key(digest)).collect())
}

/// Stores what is given. It is durable when this returns.
pub(in crate::store) async fn take(inner: &Arc<Inner>, given: Given) -> Result<Ingested, StoreError> {
    let Given { mut records, prove, base } = given;
    let base = match base {
        Some(base) => Base::open(inner, base).await,
        None => None,
    };
    let taken = take_records(inner, &mut records, prove, base.as_ref()).await;
    if let Err(error) = &taken
        && !matches!(error, StoreError::Body(_))
    {
        // The rest is read all the same, so that its sender hears why and not that the connection broke.
        let mut left = READ_ON;
        while left > 0
            && let Some(Ok(record)) = records.next().await
        {
            let (chunks, bytes) = weight(&record);
            left = left.saturating_sub(bytes + chunks * 32);
        }
    }
    taken
}

async fn take_records(
    inner: &Arc<Inner>,
    records: &mut RecordStream,
    prove: Option<[u8; 32]>,
    base: Option<&Base>,
) -> Result<Ingested, StoreError> {
    let share = Share::of(&inner.uploads);
    let mut taker = Taker {
        inner: inner.clone(),
        placer: Placer::new(inner.clone()),
        root: RootDigest::new(),
        prove,
        size: 0,
        last: None,
        missing: Vec::new(),
    };
    let mut end = None;
    while end.is_none() {
        let mut batch = Vec::new();
        let (mut chunks, mut bytes) = (0, 0);
        while end.is_none() && chunks < BATCH && bytes < BATCH_BYTES {
            match records.next().await {
                None => return Err(StoreError::Unfit("The push ends before its last record.")),
                Some(Err(error)) => return Err(StoreError::Body(error)),
                Some(Ok(Record::End { size, root_digest })) => end = Some((size, root_digest)),
                Some(Ok(record)) => {
                    let (more, along) = weight(&record);
                    (chunks, bytes) = (chunks + more, bytes + along);
                    batch.push(record);
                }
            }
        }
        let mut spans = Vec::new();
        for record in &batch {
            if let (Record::Patch { chunks, .. }, Some(base)) = (record, base) {
                spans.push(base.span(chunks).await);
            }
        }
        let items = blocking(move || open(batch, spans)).await.map_err(StoreError::step)??;
        taker.place(items, share.part(RUNS_BYTES, RUN)).await?;
    }
    match records.next().await {
        None => {}
        Some(Ok(_)) => return Err(StoreError::Unfit("The push goes on after its last record.")),
        Some(Err(error)) => return Err(StoreError::Body(error)),
    }
    taker.finish(end.unwrap_or_default()).await
}

/// How many chunks a record has, and how many bytes it takes to open it: what comes along, what that decodes to, and what a patch
/// copies from.
fn weight(record: &Record) -> (usize, usize) {
    match record {
        Record::References(references) => (references.len(), 0),
        Record::Frame { chunks, stored, .. } => {
            (chunks.len(), stored.len() + chunks.iter().map(|chunk| chunk.len as usize).sum::<usize>())
        }
        Record::Patch { chunks, stored, .. } => {
            let spanned = span(chunks.iter().flat_map(|patched| &patched.ops)).map_or(0, |(from, to)| to - from);
            let made: usize = chunks.iter().map(|patched| patched.chunk.len as usize).sum();
            (chunks.len(), stored.len() + made + usize::try_from(spanned).unwrap_or(usize::MAX / 2))
        }
        Record::End { .. } => (0, 0),
    }
}

/// A chunk as it was given.
pub(super) enum Item {
    Known(Reference),
    New(Digest, Bytes),
    /// It was to be made of the base, and could not.
    Lost(Named),
}

impl Item {
    fn name(&self) -> Named {
        match self {
            Self::Known(reference) => reference.chunk,
            Self::Lost(chunk) => *chunk,
            Self::New(digest, data) => Named { digest: *digest, len: data.len() as u32 },
        }
    }
}

/// Decodes what comes along; a chunk that has another digest than it is said to have ends the push.
fn open(records: Vec<Record>, spans: Vec<Option<(u64, Bytes)>>) -> Result<Vec<Item>, StoreError> {
    let (mut items, mut decoder, mut spans) = (Vec::new(), Decoder::new(), spans.into_iter());
    for record in records {
        match record {
            Record::References(references) => items.extend(references.into_iter().map(Item::Known)),
            Record::Frame { chunks, codec, stored } => open_frame(&mut decoder, &chunks, codec, &stored, &mut items)?,
            Record::Patch { chunks, inserted, codec, stored } => {
                let inserted = decoder.decode(codec, &stored, inserted as usize);
                let inserted = inserted.map_err(|_| StoreError::Unfit("The bytes of a patch do not decode."))?;
                open_patch(&chunks, &inserted, spans.next().flatten().as_ref(), &mut items)?;
            }
            Record::End { .. } => {}
        }
    }
    Ok(items)
}

fn open_frame(
    decoder: &mut Decoder,
    chunks: &[Named],
    codec: Codec,
    stored: &Bytes,
    items: &mut Vec<Item>,
) -> Result<(), StoreError> {
    let unfit = || StoreError::Unfit("A frame does not decode to the chunks that it is said to hold.");
    let total: usize = chunks.iter().map(|chunk| chunk.len as usize).sum();
    let first = chunks.first().map_or(0, |chunk| chunk.len as usize);
    let raw = decoder.decode(codec, stored, first).map_err(|_| unfit())?;
    if raw.len() != total {
        return Err(unfit());
    }
    let mut at = 0;
    for chunk in chunks {
        let data = raw.slice(at..at + chunk.len as usize);
        at += data.len();
        if chunk_digest(&data) != chunk.digest {
            return Err(StoreError::Unfit("A chunk has another digest than it is said to have."));
        }
        items.push(Item::New(chunk.digest, data));
    }
    Ok(())
}

struct Taker {
    inner: Arc<Inner>,
    placer: Placer,
    root: RootDigest,
    prove: Option<[u8; 32]>,
    size: u64,
    /// Length of the last chunk.
    last: Option<u32>,
    missing: Vec<Digest>,
}

impl Taker {
    async fn place(&mut self, items: Vec<Item>, run_limit: usize) -> Result<(), StoreError> {
        for Named { digest, len } in items.iter().map(Item::name) {
            // A bound on the number of chunks, and on what each costs.
            if self.last.is_some_and(|last| (last as usize) < CHUNK_MIN) {
                return Err(StoreError::Unfit("A chunk that is not the last is shorter than 8 KiB."));
            }
            self.last = Some(len);
            self.size += u64::from(len);
            self.root.push(digest, u64::from(len));
        }
        if self.size > PUT_MAX {
            return Err(StoreError::Unfit("A push holds at most 5 GiB: push it in parts."));
        }
        let mut pieces = self.resolve(items).await?;
        if !self.missing.is_empty() {
            // Nothing comes of this push; the rest is looked at to find all that is missing.
            return Ok(());
        }
        while !pieces.is_empty() {
            let rest = pieces.split_off(pieces.len().min(AT_HAND));
            let mut now = std::mem::replace(&mut pieces, rest);
            self.fill(&mut now).await?;
            self.placer.place(now, run_limit).await?;
        }
        Ok(())
    }

    /// Finds what is named. What is not there, or not this caller's to name, is noted as missing.
    async fn resolve(&mut self, items: Vec<Item>) -> Result<Vec<Piece>, StoreError> {
        let along: HashMap<Digest, Bytes> = items
            .iter()
            .filter_map(|item| match item {
                Item::New(digest, data) => Some((*digest, data.clone())),
                Item::Known(_) | Item::Lost(_) => None,
            })
            .collect();
        let named: Vec<Reference> = items
            .iter()
            .filter_map(|item| match item {
                Item::Known(reference) if !along.contains_key(&reference.chunk.digest) => Some(*reference),
                _ => None,
            })
            .collect();
        if named.iter().any(|reference| self.placer.holds(&reference.chunk.digest)) {
            // It came along earlier: once it is packed, it is found.
            self.placer.pack().await?;
        }
        let found = self.find(named).await?;
        let mut pieces = Vec::with_capacity(items.len());
        for item in items {
            let Named { digest, len } = item.name();
            match (item, along.get(&digest), found.get(&digest)) {
                (Item::New(_, data), _, _) => pieces.push(Piece::new(digest, data, None)),
                (Item::Known(_), Some(data), _) if data.len() == len as usize => {
                    pieces.push(Piece::new(digest, data.clone(), None));
                }
                (Item::Known(_), None, Some((at, found))) if *found == len => {
                    pieces.push(Piece::known(digest, len, *at));
                }
                (Item::Known(_), None, None) | (Item::Lost(_), ..) => {
                    if self.missing.len() < MISSING_MAX {
                        self.missing.push(digest);
                    }
                }
                _ => return Err(StoreError::Unfit("A reference says another length than its chunk has.")),
            }
        }
        Ok(pieces)
    }

    /// Where the store has what is named, and its length there.
    async fn find(&mut self, named: Vec<Reference>) -> Result<HashMap<Digest, (Location, u32)>, StoreError> {
        let places = self.placer.look_up(named.iter().map(|reference| reference.chunk.digest).collect()).await?;
        let mut found = HashMap::with_capacity(places.len());
        for (digest, at) in places {
            // A pack that cannot be read is no help; who sends the chunk makes it whole again.
            let Ok(chunks) = self.inner.chunks(at.pack, at.chunk).await else { continue };
            if let Some(entry) = chunks.entry(at.chunk).filter(|entry| entry.digest == digest) {
                found.insert(digest, (at, entry.raw_len));
            }
        }
        let Some(key) = self.prove else { return Ok(found) };
        self.placer.settle().await?;
        // The same chunk may be named more than once, and one good proof is enough.
        let claims = named
            .into_iter()
            .filter_map(|Reference { chunk, proof }| Some((chunk.digest, proof?, found.get(&chunk.digest)?.0)));
        let claims: HashMap<(Digest, _), Location> = claims.map(|(digest, proof, at)| ((digest, proof), at)).collect();
        let inner = &self.inner;
        let checks = stream::iter(claims).map(|((digest, claimed), at)| async move {
            let Ok(data) = inner.chunk(at).await else { return Ok(None) };
            let holds = blocking(move || proof(&key, &data) == claimed).await.map_err(StoreError::step)?;
            Ok::<_, StoreError>(holds.then_some(digest))
        });
        let proven: Vec<Option<Digest>> = checks.buffer_unordered(READS).try_collect().await?;
        let proven: std::collections::HashSet<Digest> = proven.into_iter().flatten().collect();
        found.retain(|digest, _| proven.contains(digest));
        Ok(found)
    }

    /// Reads the bytes of chunks that are to be stored again, beside their neighbours: sharing is rationed for a push as for any upload.
    async fn fill(&mut self, pieces: &mut [Piece]) -> Result<(), StoreError> {
        let wanted = self.placer.unshared(pieces);
        if wanted.is_empty() {
            return Ok(());
        }
        self.placer.settle().await?;
        let places: Vec<(usize, Location)> =
            wanted.into_iter().filter_map(|number| Some((number, pieces[number].at?))).collect();
        let inner = &self.inner;
        let reads = stream::iter(places).map(|(number, at)| async move {
            // Where it cannot be read it is shared, as it was meant.
            (number, inner.chunk(at).await.unwrap_or_default())
        });
        let read: Vec<(usize, Bytes)> = reads.buffer_unordered(READS).collect().await;
        for (number, data) in read {
            pieces[number].data = data;
        }
        Ok(())
    }

    async fn finish(self, (size, root_digest): (u64, Digest)) -> Result<Ingested, StoreError> {
        if !self.missing.is_empty() {
            return Err(StoreError::MissingChunks(self.missing));
        }
        let found = self.root.finish();
        if self.size != size || found != root_digest {
            return Err(StoreError::Unfit(
                "The chunks do not add up to the size and the root digest at the push's end.",
            ));
        }
        let terms = self.placer.finish().await?;
        Ok(Ingested { size, md5: [0; 16], root_digest: found, content: Content::Terms(terms) })
    }
}
