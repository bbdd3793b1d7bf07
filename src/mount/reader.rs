//! Reads of one object: stretches by their recipes, segments of chunks ahead of a reader who goes on, within one budget of
//! memory for all readers; chunks come from the node's cache, or from the appliance, and are verified either way.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use tokio::sync::{OnceCell, OwnedSemaphorePermit, Semaphore};

use super::cache::Cache;
use super::statistics::Statistics;
use crate::format::chunk_list::ChunkList;
use crate::format::recipe::{Content, Recipe, Run};
use crate::model::ByteRange;
use crate::pull::{FetchError, ObjectSource, PullError, fetches};
use crate::sys::worker::{Workers, blocking};

/// Bytes of an object that one recipe covers.
const STRETCH: u64 = 256 * 1024 * 1024;
/// Bytes that are read together.
const SEGMENT: u64 = 1024 * 1024;
/// Segments that are read ahead of one reader, at most.
const AHEAD_MOST: u64 = 16;
/// Requests for one segment under way at once.
const REQUESTS: usize = 8;
/// How often a recipe that has become void is asked for anew.
const TRIES: u32 = 3;

/// Why a read failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReadError {
    #[error("the object was replaced while it was open: open it again")]
    Replaced,
    #[error(transparent)]
    Pull(#[from] PullError),
    #[error(transparent)]
    Fetch(#[from] FetchError),
}

/// What all readers share. Cheap to clone.
#[derive(Clone)]
pub(super) struct Pool {
    source: ObjectSource,
    cache: Option<Cache>,
    budget: Arc<Semaphore>,
    workers: Workers,
    statistics: Arc<Statistics>,
}

impl Pool {
    pub(super) fn new(
        source: ObjectSource,
        cache: Option<Cache>,
        read_ahead: usize,
        workers: Workers,
        statistics: Arc<Statistics>,
    ) -> Self {
        Self { source, cache, budget: Arc::new(Semaphore::new(read_ahead)), workers, statistics }
    }

    /// Bytes of recipes and packs that came over the wire so far.
    pub(super) fn bytes_fetched(&self) -> u64 {
        self.source.bytes_fetched()
    }

    /// Opens an object: asks for the recipe of its first stretch.
    pub(super) async fn open(&self, key: String) -> Result<Arc<Reader>, ReadError> {
        self.statistics.requested();
        let recipe = self.source.recipe(&key, ByteRange { start: 0, end: STRETCH }).await?;
        let (size, modified, etag) = (recipe.size, recipe.modified, recipe.etag.clone());
        let state = State { stretches: BTreeMap::from([(0, Arc::new(Stretch::new(recipe)))]), ..State::default() };
        Ok(Arc::new(Reader { pool: self.clone(), key, size, modified, etag, state: Mutex::new(state) }))
    }

    /// All bytes of some chunks of a stretch, in order.
    async fn load(
        &self,
        stretch: &Stretch,
        list: &Arc<ChunkList>,
        runs: &Arc<[Run]>,
        wanted: Vec<usize>,
    ) -> Result<Vec<u8>, FetchError> {
        let start = stretch.offsets[wanted[0]];
        let last = wanted[wanted.len() - 1];
        let end = stretch.offsets[last] + u64::from(list.chunks[last].raw_len);
        let mut whole = vec![0; (end - start) as usize];
        let place = |whole: &mut Vec<u8>, at: usize, bytes: &[u8]| {
            let from = (stretch.offsets[at] - start) as usize;
            whole[from..from + bytes.len()].copy_from_slice(bytes);
        };
        let mut missing = wanted;
        if let Some(cache) = self.cache.clone() {
            let (list, asked) = (list.clone(), std::mem::take(&mut missing));
            let find = move || {
                let find = |at: &usize| (*at, cache.find(&list.chunks[*at].digest, list.chunks[*at].raw_len));
                asked.iter().map(find).collect::<Vec<_>>()
            };
            for (at, found) in blocking(find).await.map_err(|_| FetchError::Interrupted)? {
                self.statistics.looked_up(found.as_ref().map(Vec::len));
                match found {
                    Some(bytes) => place(&mut whole, at, &bytes),
                    None => missing.push(at),
                }
            }
        }
        let plan = fetches(&list.chunks, &missing);
        let answers = stream::iter(plan).map(|fetch| {
            let (source, list, runs) = (self.source.clone(), list.clone(), runs.clone());
            self.statistics.requested();
            async move { source.fetch(&list, &runs, &fetch).await }
        });
        let mut answers = answers.buffer_unordered(REQUESTS);
        while let Some(chunks) = answers.try_next().await? {
            for (at, bytes) in &chunks {
                place(&mut whole, *at, bytes);
            }
            if let Some(cache) = self.cache.clone() {
                let list = list.clone();
                let keep =
                    move || chunks.iter().try_for_each(|(at, bytes)| cache.keep(&list.chunks[*at].digest, bytes));
                // A cache that is full or gone slows reads down and fails none.
                if let Ok(Err(error)) = blocking(keep).await {
                    tracing::warn!(%error, "a chunk was not cached");
                }
            }
        }
        Ok(whole)
    }
}

/// A recipe, and where its chunks begin.
struct Stretch {
    recipe: Recipe,
    list: Option<(Arc<ChunkList>, Arc<[Run]>)>,
    /// Where each chunk begins in the object.
    offsets: Vec<u64>,
}

impl Stretch {
    fn new(mut recipe: Recipe) -> Self {
        let content = std::mem::replace(&mut recipe.content, Content::Inline(Bytes::new()));
        let mut at = recipe.start;
        match content {
            Content::Inline(bytes) => {
                recipe.content = Content::Inline(bytes);
                Self { recipe, list: None, offsets: Vec::new() }
            }
            Content::Chunks { list, runs } => {
                let begin = |chunk: &crate::format::chunk_list::ChunkRef| {
                    let begin = at;
                    at += u64::from(chunk.raw_len);
                    begin
                };
                let offsets = list.chunks.iter().map(begin).collect();
                Self { recipe, list: Some((Arc::new(list), runs.into())), offsets }
            }
        }
    }

    /// The chunks that cover a range.
    fn covering(&self, range: ByteRange) -> Vec<usize> {
        let first = self.offsets.partition_point(|at| *at <= range.start).saturating_sub(1);
        let end = self.offsets.partition_point(|at| *at < range.end);
        (first..end).collect()
    }
}

/// A segment's bytes, once they are there, and the memory that was set aside for them.
struct Segment {
    bytes: OnceCell<Bytes>,
    _budget: Option<OwnedSemaphorePermit>,
}

#[derive(Default)]
struct State {
    /// By stretch number.
    stretches: BTreeMap<u64, Arc<Stretch>>,
    /// By segment number.
    segments: BTreeMap<u64, Arc<Segment>>,
    /// Where a reader that goes on reads next, and how many segments are read ahead of it.
    next: u64,
    ahead: u64,
}

/// An open object.
pub(super) struct Reader {
    pool: Pool,
    key: String,
    pub(super) size: u64,
    pub(super) modified: u64,
    etag: String,
    state: Mutex<State>,
}

impl Reader {
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes of the object: fewer than asked for only at its end.
    pub(super) async fn read(self: &Arc<Self>, offset: u64, len: u64) -> Result<Vec<u8>, ReadError> {
        let range = ByteRange { start: offset.min(self.size), end: offset.saturating_add(len).min(self.size) };
        if range.is_empty() {
            return Ok(Vec::new());
        }
        let goes_on = self.note(range);
        if !goes_on {
            return self.bytes(range).await;
        }
        let mut out = Vec::with_capacity(range.len() as usize);
        let mut at = range.start;
        while at < range.end {
            let number = at / SEGMENT;
            let bytes = self.segment(number).await?;
            let from = (at - number * SEGMENT) as usize;
            let to = bytes.len().min((range.end - number * SEGMENT) as usize);
            out.extend_from_slice(&bytes[from..to]);
            at = number * SEGMENT + to as u64;
        }
        Ok(out)
    }

    /// Notes where the reader is; whether it goes on from where it was, so that reading ahead pays.
    fn note(self: &Arc<Self>, range: ByteRange) -> bool {
        let mut state = self.lock();
        let distance = range.start.abs_diff(state.next);
        // The kernel asks for neighbouring ranges at once, in any order.
        let goes_on = distance <= SEGMENT;
        if !goes_on {
            state.segments.clear();
            (state.next, state.ahead) = (range.end, 0);
            return false;
        }
        state.next = state.next.max(range.end);
        let current = range.start / SEGMENT;
        state.segments.retain(|number, _| *number + 1 >= current);
        let last = (self.size - 1) / SEGMENT;
        let until = (range.end / SEGMENT + state.ahead).min(last);
        state.ahead = (state.ahead * 2).clamp(1, AHEAD_MOST);
        for number in current + 1..=until {
            if state.segments.contains_key(&number) {
                continue;
            }
            let Ok(budget) = self.pool.budget.clone().try_acquire_many_owned(SEGMENT as u32) else { break };
            let segment = Arc::new(Segment { bytes: OnceCell::new(), _budget: Some(budget) });
            state.segments.insert(number, segment.clone());
            let reader = self.clone();
            self.pool.workers.spawn("read ahead", async move {
                // Who comes to read it meets the error.
                drop(reader.fill(number, &segment).await);
            });
        }
        true
    }

    async fn segment(&self, number: u64) -> Result<Bytes, ReadError> {
        let fresh = || Arc::new(Segment { bytes: OnceCell::new(), _budget: None });
        let segment = self.lock().segments.entry(number).or_insert_with(fresh).clone();
        self.fill(number, &segment).await
    }

    async fn fill(&self, number: u64, segment: &Segment) -> Result<Bytes, ReadError> {
        let range = ByteRange { start: number * SEGMENT, end: ((number + 1) * SEGMENT).min(self.size) };
        let load = || async move { self.bytes(range).await.map(Bytes::from) };
        segment.bytes.get_or_try_init(load).await.cloned()
    }

    /// Bytes of the object, by way of its recipes.
    async fn bytes(&self, range: ByteRange) -> Result<Vec<u8>, ReadError> {
        let mut out = Vec::with_capacity(range.len() as usize);
        let mut at = range.start;
        let mut tries = 0;
        while at < range.end {
            let number = at / STRETCH;
            let stretch = self.stretch(number).await?;
            let end = range.end.min((number + 1) * STRETCH);
            let Some((list, runs)) = &stretch.list else {
                if let Content::Inline(bytes) = &stretch.recipe.content {
                    out.extend_from_slice(&bytes[at as usize..end as usize]);
                }
                at = end;
                continue;
            };
            let wanted = stretch.covering(ByteRange { start: at, end });
            let Some(first) = wanted.first().map(|first| stretch.offsets[*first]) else {
                return Err(ReadError::Replaced);
            };
            match self.pool.load(&stretch, list, runs, wanted).await {
                Ok(bytes) => {
                    let from = (at - first) as usize;
                    out.extend_from_slice(&bytes[from..from + (end - at) as usize]);
                    at = end;
                }
                // The seals are void, or the chunks were moved: the recipe of now says where they are.
                Err(FetchError::Pull { source, .. }) if tries < TRIES && is_void(&source) => {
                    tries += 1;
                    self.lock().stretches.remove(&number);
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(out)
    }

    async fn stretch(&self, number: u64) -> Result<Arc<Stretch>, ReadError> {
        if let Some(stretch) = self.lock().stretches.get(&number) {
            return Ok(stretch.clone());
        }
        let range = ByteRange { start: number * STRETCH, end: (number + 1) * STRETCH };
        self.pool.statistics.requested();
        let recipe = self.pool.source.recipe(&self.key, range).await?;
        if recipe.etag != self.etag || recipe.size != self.size {
            return Err(ReadError::Replaced);
        }
        let stretch = Arc::new(Stretch::new(recipe));
        let mut state = self.lock();
        // Two: a reader that crosses from one to the next.
        while state.stretches.len() >= 2 {
            let far = state.stretches.keys().copied().max_by_key(|other| other.abs_diff(number));
            far.map(|far| state.stretches.remove(&far));
        }
        state.stretches.insert(number, stretch.clone());
        Ok(stretch)
    }
}

/// Whether an answer means that the recipe has become void.
fn is_void(error: &PullError) -> bool {
    error.status().is_some_and(|status| matches!(status.as_u16(), 403 | 404 | 416))
}
