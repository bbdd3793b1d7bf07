//! Chunks of a stretch: from the node's cache, else from the appliance, decoded to where they belong and verified either way.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use tokio::sync::Semaphore;

use super::cache::Cache;
use super::statistics::Statistics;
use super::stretch::{Chunks, Content, Stretch};
use crate::format::digest::chunk_digest;
use crate::pull::{Damage, Fetch, FetchError, ObjectSource, fetches, is_plain, place, verify};
use crate::sys::disk::Aligned;
use crate::sys::sparse::are_zeros;
use crate::sys::worker::blocking;

/// Requests for one read under way at once.
const REQUESTS: usize = 8;

/// What brings chunks.
pub(super) struct Loader {
    source: ObjectSource,
    cache: Option<Cache>,
    /// Who decodes and verifies: as many as there are cores.
    decoders: Arc<Semaphore>,
    statistics: Arc<Statistics>,
}

/// Room that chunks are brought to, and the chunks that are not there yet.
struct Room {
    stretch: Arc<Stretch>,
    wanted: Range<usize>,
    /// Aligned, so that a whole group goes to the cache past the page cache.
    out: Aligned,
}

/// A request, and what it brought; none where that is where it belongs.
type Brought = (Fetch, Option<Bytes>);

impl Loader {
    pub(super) fn new(source: ObjectSource, cache: Option<Cache>, statistics: Arc<Statistics>) -> Self {
        let cores = std::thread::available_parallelism().map_or(2, usize::from);
        Self { source, cache, decoders: Arc::new(Semaphore::new(cores)), statistics }
    }

    /// All bytes of consecutive chunks.
    pub(super) async fn load(&self, stretch: &Arc<Stretch>, wanted: Range<usize>) -> Result<Bytes, FetchError> {
        let Content::Chunks(chunks) = &stretch.content else { return Ok(Bytes::new()) };
        let (span, len) = (chunks.span(&wanted), wanted.len());
        let (cache, stretch) = (self.cache.clone(), stretch.clone());
        let (mut room, missing) = self.work(move || Room::new(stretch, wanted).take_cached(cache.as_ref())).await?;
        if self.cache.is_some() {
            let missed = missing.iter().map(|at| u64::from(chunks.list.chunks[*at].raw_len)).sum::<u64>();
            self.statistics.looked_up(len, missing.len(), span.len() - missed);
        }
        if missing.is_empty() {
            return Ok(Bytes::from_owner(room.out));
        }
        let mut plan = fetches(&chunks.list.chunks, &missing);
        for is_again in [false, true] {
            let fetched = self.fetch(&mut room, plan, is_again).await?;
            let failed;
            (room, failed) = self.work(move || room.decode(fetched)).await?;
            match failed.first() {
                None => break,
                Some((_, damage)) if is_again => return Err(damaged(chunks, damage)),
                // What comes damaged is asked for once more.
                Some(_) => {}
            }
            plan = failed.into_iter().map(|(fetch, _)| fetch).collect();
        }
        let bytes = Bytes::from_owner(room.out);
        if let Some(cache) = &self.cache {
            keep(cache, chunks, &missing, span.start, &bytes);
        }
        Ok(bytes)
    }

    /// Work that keeps a core busy, as much at a time as there are cores.
    async fn work<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, FetchError> {
        let _decoder = self.decoders.acquire().await.map_err(|_| FetchError::Interrupted)?;
        blocking(work).await.map_err(|_| FetchError::Interrupted)
    }

    async fn fetch(&self, room: &mut Room, plan: Vec<Fetch>, is_again: bool) -> Result<Vec<Brought>, FetchError> {
        let Content::Chunks(chunks) = &room.stretch.content else { return Ok(Vec::new()) };
        let start = chunks.span(&room.wanted).start;
        let places = places(chunks, start, &mut room.out, plan).into_iter();
        let requests: Vec<_> = places.map(|(fetch, place)| self.bring(chunks, fetch, place, is_again)).collect();
        stream::iter(requests).buffer_unordered(REQUESTS).try_collect().await
    }

    async fn bring(
        &self,
        chunks: &Chunks,
        fetch: Fetch,
        place: Option<&mut [u8]>,
        is_again: bool,
    ) -> Result<Brought, FetchError> {
        if let Some(stored) = chunks.stored(&fetch).filter(|_| !is_again) {
            return Ok((fetch, Some(stored)));
        }
        self.statistics.requested();
        let (list, runs) = (&chunks.list, &chunks.runs);
        let Some(place) = place else {
            let stored = self.source.stored(list, runs, &fetch).await?;
            return Ok((fetch, Some(stored)));
        };
        self.source.stored_into(list, runs, &fetch, place).await?;
        Ok((fetch, None))
    }
}

impl Room {
    fn new(stretch: Arc<Stretch>, wanted: Range<usize>) -> Self {
        let len = match &stretch.content {
            Content::Chunks(chunks) => chunks.span(&wanted).len() as usize,
            Content::Inline(_) => 0,
        };
        Self { stretch, wanted, out: Aligned::zeroed(len) }
    }

    /// Takes what the cache has; answers what it has not.
    fn take_cached(mut self, cache: Option<&Cache>) -> (Self, Vec<usize>) {
        let stretch = self.stretch.clone();
        let Content::Chunks(chunks) = &stretch.content else { return (self, Vec::new()) };
        let Some(cache) = cache else {
            let all = self.wanted.clone().collect();
            return (self, all);
        };
        let start = chunks.span(&self.wanted).start;
        let mut missing = Vec::new();
        for part in chunks.parts(self.wanted.clone()) {
            let span = chunks.span(&part.chunks);
            let name = &chunks.group(part.group).name;
            let out = &mut self.out[(span.start - start) as usize..(span.end - start) as usize];
            if !cache.read(name, part.offset, out) {
                missing.extend(part.chunks);
                continue;
            }
            for at in part.chunks {
                let room = room(chunks, at, span.start);
                let bytes = &mut out[room.clone()];
                let digest = chunks.list.chunks[at].digest;
                if chunk_digest(bytes) == digest {
                    continue;
                }
                missing.push(at);
                if are_zeros(bytes) {
                    continue;
                }
                // Another mount may have been writing it.
                let mut again = vec![0; room.len()];
                cache.read(name, part.offset + room.start as u64, &mut again);
                if chunk_digest(&again) == digest {
                    bytes.copy_from_slice(&again);
                    missing.pop();
                } else {
                    let group = name.short();
                    tracing::warn!(group, chunk = at, "a cached chunk is damaged; it is fetched again");
                }
            }
        }
        (self, missing)
    }

    /// Decodes what was fetched; answers what of it is damaged.
    fn decode(mut self, fetched: Vec<Brought>) -> (Self, Vec<(Fetch, Damage)>) {
        let stretch = self.stretch.clone();
        let Content::Chunks(chunks) = &stretch.content else { return (self, Vec::new()) };
        let start = chunks.span(&self.wanted).start;
        let mut failed = Vec::new();
        for (fetch, stored) in fetched {
            let room = |at| room(chunks, at, start);
            let right = match stored {
                Some(stored) => place(&chunks.list, &fetch, &stored, &mut self.out, room),
                None => fetch.chunks.iter().try_for_each(|at| verify(&chunks.list, *at, &self.out[room(*at)])),
            };
            if let Err(damage) = right {
                failed.push((fetch, damage));
            }
        }
        (self, failed)
    }
}

/// Gives what was fetched to the cache.
fn keep(cache: &Cache, chunks: &Chunks, fetched: &[usize], start: u64, bytes: &Bytes) {
    for run in fetched.chunk_by(|one, next| one + 1 == *next) {
        for part in chunks.parts(run[0]..run[run.len() - 1] + 1) {
            let span = chunks.span(&part.chunks);
            let kept = bytes.slice((span.start - start) as usize..(span.end - start) as usize);
            // A slice holds all that it was cut out of until it is written.
            let kept = if kept.len() * 2 < bytes.len() { Bytes::copy_from_slice(&kept) } else { kept };
            cache.keep(&chunks.group(part.group).name, part.offset, kept);
        }
    }
}

/// Requests, each with the room for what it brings where that needs no decoding. `out` begins at `start`.
fn places<'a>(
    chunks: &Chunks,
    start: u64,
    out: &'a mut [u8],
    mut plan: Vec<Fetch>,
) -> Vec<(Fetch, Option<&'a mut [u8]>)> {
    plan.sort_by_key(|fetch| fetch.chunks.first().copied());
    let (mut rest, mut before) = (out, 0);
    let place = |fetch: Fetch| {
        let place = fetch.chunks.first().filter(|_| is_plain(&chunks.list, &fetch)).map(|first| {
            let at = room(chunks, *first, start).start;
            let (place, behind) = std::mem::take(&mut rest)[at - before..].split_at_mut(fetch.range.len() as usize);
            (rest, before) = (behind, at + place.len());
            place
        });
        (fetch, place)
    };
    plan.into_iter().map(place).collect()
}

/// Where a chunk belongs in what begins at `start`.
fn room(chunks: &Chunks, at: usize, start: u64) -> Range<usize> {
    let span = chunks.span(&(at..at + 1));
    (span.start - start) as usize..(span.end - start) as usize
}

fn damaged(chunks: &Chunks, damage: &Damage) -> FetchError {
    let chunk = &chunks.list.chunks[damage.chunk];
    let pack = chunks.list.packs[chunk.pack as usize];
    FetchError::Damaged { pack, chunk: damage.chunk, offset: chunk.offset, what: damage.what.clone() }
}
