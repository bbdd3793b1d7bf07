//! Reads of one object. One that goes on from where the last ended is answered out of whole groups of chunks, some of which are
//! brought ahead of it; any other brings the chunks that cover it, and nothing else. All readers share one budget of memory.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::{Bytes, BytesMut};
use tokio::sync::{OnceCell, OwnedSemaphorePermit, Semaphore};

use super::cache::Cache;
use super::load::Loader;
use super::recipes::Recipes;
use super::statistics::Statistics;
use super::stretch::{Content, STRETCH, Stretch};
use crate::model::ByteRange;
use crate::pull::{FetchError, ObjectSource, PullError, SnapshotId};
use crate::sys::worker::Workers;

/// How far a read may lie from where the last one ended and still go on from it, in bytes: the kernel asks for several neighbouring
/// ranges at once, and they come in any order.
const NEAR: u64 = 8 * 1024 * 1024;
/// Objects up to this size are brought whole at the first read of them, in bytes.
const SMALL: u64 = 1024 * 1024;
/// Bytes that are brought ahead of one reader: at first, and at most.
const AHEAD_FIRST: u64 = 4 * 1024 * 1024;
const AHEAD_MOST: u64 = 16 * 1024 * 1024;
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

/// What all readers share.
pub(super) struct Pool {
    source: ObjectSource,
    loader: Loader,
    recipes: Recipes,
    budget: Arc<Semaphore>,
    budget_bytes: u64,
    /// One clone for each reader that goes on.
    streams: Arc<()>,
    workers: Workers,
}

impl Pool {
    /// Of a snapshot, with its id; `read_ahead` is memory in bytes.
    pub(super) fn new(
        source: ObjectSource,
        snapshot: Option<SnapshotId>,
        cache: Option<Cache>,
        read_ahead: usize,
        workers: Workers,
        statistics: Arc<Statistics>,
    ) -> Self {
        Self {
            source: source.clone(),
            recipes: Recipes::new(source.clone(), snapshot, cache.clone(), statistics.clone()),
            loader: Loader::new(source, cache, statistics),
            budget: Arc::new(Semaphore::new(read_ahead)),
            budget_bytes: read_ahead as u64,
            streams: Arc::new(()),
            workers,
        }
    }

    /// Bytes of recipes and packs that came over the wire so far.
    pub(super) fn bytes_fetched(&self) -> u64 {
        self.source.bytes_fetched()
    }

    /// Opens an object as it is now.
    pub(super) async fn open(self: &Arc<Self>, key: String) -> Result<Arc<Reader>, ReadError> {
        let key: Arc<str> = key.into();
        let stretch = self.recipes.open(&key).await?;
        let (size, modified, etag) = (stretch.size, stretch.modified, stretch.etag.clone());
        let (state, asking) = (Mutex::default(), tokio::sync::Mutex::default());
        Ok(Arc::new(Reader { pool: self.clone(), key, size, modified, etag, state, asking }))
    }

    /// What of the budget one reader may take that goes on.
    fn share(&self) -> u64 {
        // One count is the pool's own.
        let streams = Arc::strong_count(&self.streams) as u64 - 1;
        self.budget_bytes / streams.max(1)
    }
}

/// A group's bytes, once they are there, and the memory that was set aside for them.
struct Segment {
    range: ByteRange,
    bytes: OnceCell<Bytes>,
    /// How many of its bytes the kernel has.
    given: AtomicU64,
    _budget: OwnedSemaphorePermit,
}

/// Where a reader is.
#[derive(Default)]
struct State {
    /// By where they begin.
    segments: BTreeMap<u64, Arc<Segment>>,
    /// Where a reader that goes on reads next, and how many reads it has gone on for.
    next: u64,
    steps: u32,
    /// Bytes that are brought ahead.
    ahead: u64,
    /// The stretch whose recipe is asked for ahead.
    asked: Option<u64>,
    stream: Option<Arc<()>>,
}

/// An open object.
pub(super) struct Reader {
    pool: Arc<Pool>,
    key: Arc<str>,
    pub(super) size: u64,
    pub(super) modified: u64,
    etag: String,
    state: Mutex<State>,
    /// Held while a recipe is asked for: reads at once ask once.
    asking: tokio::sync::Mutex<()>,
}

impl Reader {
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes of the object: fewer than asked for only at its end.
    pub(super) async fn read(self: &Arc<Self>, offset: u64, len: u64) -> Result<Bytes, ReadError> {
        let range = ByteRange { start: offset.min(self.size), end: offset.saturating_add(len).min(self.size) };
        let goes_on = !range.is_empty() && self.note(range);
        let (mut at, mut parts) = (range.start, Vec::new());
        while at < range.end {
            let part = self.part(ByteRange { start: at, end: range.end }, goes_on).await?;
            at += part.len() as u64;
            parts.push(part);
        }
        if parts.len() == 1 {
            return Ok(parts.swap_remove(0));
        }
        let mut whole = BytesMut::with_capacity(range.len() as usize);
        parts.iter().for_each(|part| whole.extend_from_slice(part));
        Ok(whole.freeze())
    }

    /// Notes where the reader is; whether it goes on from where it was, so that whole groups pay.
    fn note(&self, range: ByteRange) -> bool {
        let mut state = self.lock();
        if range.start.abs_diff(state.next) > NEAR {
            *state = State::default();
        }
        state.next = state.next.max(range.end);
        state.steps = state.steps.saturating_add(1);
        let goes_on = state.steps > 1 || self.size <= SMALL;
        if goes_on && state.stream.is_none() {
            state.stream = Some(self.pool.streams.clone());
        }
        goes_on
    }

    /// The first bytes of a range that is not empty.
    async fn part(self: &Arc<Self>, range: ByteRange, goes_on: bool) -> Result<Bytes, ReadError> {
        let number = range.start / STRETCH;
        let stretch = self.stretch(number).await?;
        let range = ByteRange { start: range.start, end: range.end.min((number + 1) * STRETCH) };
        let chunks = match &stretch.content {
            Content::Inline(bytes) => return Ok(bytes.slice(range.start as usize..range.end as usize)),
            Content::Chunks(chunks) => chunks,
        };
        if goes_on && let Some(around) = chunks.group_around(range.start) {
            let around = within(around, number, self.size);
            let segment = self.segment(around);
            self.bring_ahead(around.end);
            if let Some(segment) = segment {
                let bytes = self.fill(&segment).await?;
                let end = range.end.min(around.end);
                self.gave(&segment, end - range.start);
                return Ok(bytes.slice((range.start - around.start) as usize..(end - around.start) as usize));
            }
        }
        self.bytes(range).await
    }

    /// The segment of a group; none where there is no memory for it.
    fn segment(&self, range: ByteRange) -> Option<Arc<Segment>> {
        let mut state = self.lock();
        // Groups may be others once a recipe was asked for anew.
        if let Some(segment) = state.segments.get(&range.start).filter(|segment| segment.range == range) {
            return Some(segment.clone());
        }
        self.add(&mut state, range)
    }

    fn add(&self, state: &mut State, range: ByteRange) -> Option<Arc<Segment>> {
        let budget = self.pool.budget.clone().try_acquire_many_owned(range.len() as u32).ok()?;
        let segment = Arc::new(Segment { range, bytes: OnceCell::new(), given: AtomicU64::new(0), _budget: budget });
        state.segments.insert(range.start, segment.clone());
        Some(segment)
    }

    /// Lets go of a segment that the kernel has all of.
    fn gave(&self, segment: &Segment, len: u64) {
        if segment.given.fetch_add(len, Ordering::Relaxed) + len >= segment.range.len() {
            self.lock().segments.remove(&segment.range.start);
        }
    }

    /// Brings the groups that follow, as far ahead as is worth it and as memory allows.
    fn bring_ahead(self: &Arc<Self>, from: u64) {
        let mut state = self.lock();
        // What lies far behind is not asked for any more.
        let next = state.next;
        state.segments.retain(|_, segment| segment.range.end + NEAR >= next);
        let most = AHEAD_MOST.min(self.pool.share());
        state.ahead = (state.ahead * 2).clamp(AHEAD_FIRST, AHEAD_MOST).min(most);
        let until = (next + state.ahead).min(self.size);
        let mut at = from;
        while at < until {
            let number = at / STRETCH;
            let Some(stretch) = self.pool.recipes.get(&self.key, number).filter(|it| self.is_mine(it)) else {
                if state.asked.replace(number) != Some(number) {
                    let reader = self.clone();
                    // Who comes to read there meets the error.
                    self.pool.workers.spawn("recipe ahead", async move { drop(reader.stretch(number).await) });
                }
                return;
            };
            let Content::Chunks(chunks) = &stretch.content else { return };
            let Some(range) = chunks.group_around(at).map(|range| within(range, number, self.size)) else { return };
            if !state.segments.contains_key(&range.start) {
                let Some(segment) = self.add(&mut state, range) else { return };
                let reader = self.clone();
                self.pool.workers.spawn("read ahead", async move { drop(reader.fill(&segment).await) });
            }
            at = range.end;
        }
    }

    async fn fill(&self, segment: &Segment) -> Result<Bytes, ReadError> {
        segment.bytes.get_or_try_init(|| self.bytes(segment.range)).await.cloned()
    }

    /// Bytes of one stretch, which has chunks; asks for its recipe again where that has become void.
    async fn bytes(&self, range: ByteRange) -> Result<Bytes, ReadError> {
        let number = range.start / STRETCH;
        let mut tries = 0;
        loop {
            let stretch = self.stretch(number).await?;
            let Content::Chunks(chunks) = &stretch.content else { return Err(ReadError::Replaced) };
            let wanted = chunks.covering(range);
            let span = chunks.span(&wanted);
            if span.start > range.start || span.end < range.end {
                return Err(ReadError::Replaced);
            }
            match self.pool.loader.load(&stretch, wanted).await {
                Ok(bytes) => {
                    return Ok(bytes.slice((range.start - span.start) as usize..(range.end - span.start) as usize));
                }
                // The seals are void, or the chunks were moved: the recipe of now says where they are.
                Err(FetchError::Pull { source, .. }) if tries < TRIES && is_void(&source) => {
                    tries += 1;
                    let _asking = self.asking.lock().await;
                    // Another read may have asked meanwhile.
                    if self.pool.recipes.get(&self.key, number).is_none_or(|known| Arc::ptr_eq(&known, &stretch)) {
                        self.pool.recipes.ask(&self.key, number).await?;
                    }
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    async fn stretch(&self, number: u64) -> Result<Arc<Stretch>, ReadError> {
        let known = || self.pool.recipes.get(&self.key, number).filter(|stretch| self.is_mine(stretch));
        if let Some(stretch) = known() {
            return Ok(stretch);
        }
        let _asking = self.asking.lock().await;
        if let Some(stretch) = known() {
            return Ok(stretch);
        }
        let mut stretch = self.pool.recipes.find(&self.key, number).await?;
        if !self.is_mine(&stretch) {
            // It was of what the object was before; only the first stretch is asked for at every open.
            stretch = self.pool.recipes.ask(&self.key, number).await?;
        }
        if self.is_mine(&stretch) { Ok(stretch) } else { Err(ReadError::Replaced) }
    }

    /// Whether a recipe is of the object that was opened.
    fn is_mine(&self, stretch: &Stretch) -> bool {
        stretch.etag == self.etag && stretch.size == self.size
    }
}

/// A group's range, as far as it lies in its stretch: neighbouring stretches share the chunk that lies across their border.
fn within(range: ByteRange, number: u64, size: u64) -> ByteRange {
    let (first, end) = (number * STRETCH, ((number + 1) * STRETCH).min(size));
    ByteRange { start: range.start.max(first), end: range.end.min(end) }
}

/// Whether an answer means that the recipe has become void.
fn is_void(error: &PullError) -> bool {
    error.status().is_some_and(|status| matches!(status.as_u16(), 403 | 404 | 416))
}
