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
use crate::pull::{Damage, Fetch, FetchError, ObjectSource, fetches, place};
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
    out: Vec<u8>,
}

impl Loader {
    pub(super) fn new(source: ObjectSource, cache: Option<Cache>, statistics: Arc<Statistics>) -> Self {
        let cores = std::thread::available_parallelism().map_or(2, usize::from);
        Self { source, cache, decoders: Arc::new(Semaphore::new(cores)), statistics }
    }

    /// All bytes of consecutive chunks.
    pub(super) async fn load(&self, stretch: &Arc<Stretch>, wanted: Range<usize>) -> Result<Bytes, FetchError> {
        let Content::Chunks(chunks) = &stretch.content else { return Ok(Bytes::new()) };
        let span = chunks.span(&wanted);
        let mut room = Room { stretch: stretch.clone(), wanted: wanted.clone(), out: Vec::new() };
        let mut missing: Vec<usize> = wanted.clone().collect();
        match self.cache.clone() {
            Some(cache) => {
                (room, missing) = self.work(move || room.take_cached(&cache, span.len())).await?;
                let missed = missing.iter().map(|at| u64::from(chunks.list.chunks[*at].raw_len)).sum::<u64>();
                self.statistics.looked_up(wanted.len(), missing.len(), span.len() - missed);
            }
            None => room.out = vec![0; span.len() as usize],
        }
        if missing.is_empty() {
            return Ok(room.out.into());
        }
        let mut plan = fetches(&chunks.list.chunks, &missing);
        for is_again in [false, true] {
            let fetched = self.fetch(chunks, plan, is_again).await?;
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
        let bytes = Bytes::from(room.out);
        self.keep(chunks, &missing, span.start, &bytes);
        Ok(bytes)
    }

    /// Work that keeps a core busy, as much at a time as there are cores.
    async fn work<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, FetchError> {
        let _decoder = self.decoders.acquire().await.map_err(|_| FetchError::Interrupted)?;
        blocking(work).await.map_err(|_| FetchError::Interrupted)
    }

    async fn fetch(
        &self,
        chunks: &Chunks,
        plan: Vec<Fetch>,
        is_again: bool,
    ) -> Result<Vec<(Fetch, Bytes)>, FetchError> {
        let answers = stream::iter(plan).map(|fetch| async move {
            let stored = match chunks.stored(&fetch).filter(|_| !is_again) {
                Some(stored) => stored,
                None => {
                    self.statistics.requested();
                    self.source.stored(&chunks.list, &chunks.runs, &fetch).await?
                }
            };
            Ok((fetch, stored))
        });
        answers.buffer_unordered(REQUESTS).try_collect().await
    }

    /// Gives what was fetched to the cache.
    fn keep(&self, chunks: &Chunks, fetched: &[usize], start: u64, bytes: &Bytes) {
        let Some(cache) = &self.cache else { return };
        for run in fetched.chunk_by(|one, next| one + 1 == *next) {
            for part in chunks.parts(run[0]..run[run.len() - 1] + 1) {
                let span = chunks.span(&part.chunks);
                let bytes = bytes.slice((span.start - start) as usize..(span.end - start) as usize);
                cache.keep(&chunks.group(part.group).name, part.offset, bytes);
            }
        }
    }
}

impl Room {
    /// Takes what the cache has; answers what it has not.
    fn take_cached(mut self, cache: &Cache, len: u64) -> (Self, Vec<usize>) {
        self.out.reserve_exact(len as usize);
        let stretch = self.stretch.clone();
        let Content::Chunks(chunks) = &stretch.content else { return (self, Vec::new()) };
        let mut missing = Vec::new();
        for part in chunks.parts(self.wanted.clone()) {
            let (span, before) = (chunks.span(&part.chunks), self.out.len());
            let name = &chunks.group(part.group).name;
            if !cache.read(name, part.offset, span.len() as usize, &mut self.out) {
                missing.extend(part.chunks);
                continue;
            }
            for at in part.chunks {
                let room = room(chunks, at, span.start);
                let bytes = &mut self.out[before..][room.clone()];
                let digest = chunks.list.chunks[at].digest;
                if chunk_digest(bytes) == digest {
                    continue;
                }
                missing.push(at);
                if are_zeros(bytes) {
                    continue;
                }
                // Another mount may have been writing it.
                let mut again = Vec::new();
                cache.read(name, part.offset + room.start as u64, room.len(), &mut again);
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
    fn decode(mut self, fetched: Vec<(Fetch, Bytes)>) -> (Self, Vec<(Fetch, Damage)>) {
        let stretch = self.stretch.clone();
        let Content::Chunks(chunks) = &stretch.content else { return (self, Vec::new()) };
        let start = chunks.span(&self.wanted).start;
        let mut failed = Vec::new();
        for (fetch, stored) in fetched {
            if let Err(damage) = place(&chunks.list, &fetch, &stored, &mut self.out, |at| room(chunks, at, start)) {
                failed.push((fetch, damage));
            }
        }
        (self, failed)
    }
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
