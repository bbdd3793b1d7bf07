//! Bytes out: terms become ranged reads of packs, coalesced and read ahead within bounds; each chunk is decoded and
//! checked against its digest before it is given out.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::{BoxStream, FuturesOrdered};
use futures_util::{FutureExt as _, StreamExt as _, TryStreamExt as _, stream};
use tokio::sync::OwnedSemaphorePermit;

use super::error::StoreError;
use super::session::{OpenPack, Ticket};
use super::{Inner, Store};
use crate::format::codec::Decoder;
use crate::format::digest::chunk_digest;
use crate::format::manifest::{Location, Term};
use crate::format::pack::{Directory, Entry};
use crate::format::row::{PackRow, PackState, key};
use crate::model::{Digest, PackId};
use crate::sys::volume::VolumeFile;

/// Stored bytes of one read.
const READ_BYTES: u64 = 1024 * 1024;
/// Bytes that one read may decode to.
const READ_RAW_BYTES: u64 = 2 * 1024 * 1024;
/// Reads under way for one stream.
const READ_AHEAD: usize = 8;
/// Bytes that the reads of all streams, but the first of each, may decode to.
pub(super) const READ_BUDGET: usize = 256 * 1024 * 1024;
/// What is said where a pack's file is gone.
const NO_FILE: &str = "the pack's file is missing";
/// Directory entries kept in memory: about 15 MiB.
const ENTRIES_KEPT: usize = 256 * 1024;

/// Directories of packs that were used lately.
#[derive(Default)]
pub(super) struct Directories(Mutex<Kept>);

#[derive(Default)]
struct Kept {
    by_pack: HashMap<PackId, (Arc<Directory>, u64)>,
    entries: usize,
    clock: u64,
}

impl Directories {
    fn find(&self, pack: PackId) -> Option<Arc<Directory>> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.clock += 1;
        let now = kept.clock;
        let (directory, used) = kept.by_pack.get_mut(&pack)?;
        *used = now;
        Some(directory.clone())
    }

    /// Forgets the directory of a pack that goes.
    pub(super) fn forget(&self, pack: PackId) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((directory, _)) = kept.by_pack.remove(&pack) {
            kept.entries -= directory.entries.len();
        }
    }

    fn keep(&self, directory: &Arc<Directory>) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = kept.clock;
        if kept.by_pack.insert(directory.pack, (directory.clone(), now)).is_none() {
            kept.entries += directory.entries.len();
        }
        while kept.entries > ENTRIES_KEPT && kept.by_pack.len() > 1 {
            let Some(oldest) = kept.by_pack.iter().min_by_key(|(_, (_, used))| *used).map(|(pack, _)| *pack) else {
                return;
            };
            if let Some((directory, _)) = kept.by_pack.remove(&oldest) {
                kept.entries -= directory.entries.len();
            }
        }
    }
}

/// The chunks of a pack: by its directory, or, while it is filled, as it has them so far.
#[derive(Clone)]
pub(super) enum Chunks {
    Sealed(Arc<Directory>),
    Open(Arc<OpenPack>),
}

impl Chunks {
    pub(super) fn entry(&self, chunk: u32) -> Option<Entry> {
        match self {
            Self::Sealed(directory) => directory.entries.get(chunk as usize).copied(),
            Self::Open(open) => open.entry(chunk),
        }
    }

    /// How to wait for a chunk, where the pack is still being filled; none if it does not have the chunk, or not any more.
    pub(super) fn ticket(&self, chunk: u32) -> Option<Option<Ticket>> {
        match self {
            Self::Sealed(directory) => directory.entries.get(chunk as usize).map(|_| None),
            Self::Open(open) => open.ticket(chunk).map(Some),
        }
    }

    /// The number of each chunk, by its digest.
    pub(super) fn numbers(&self) -> HashMap<Digest, u32> {
        match self {
            Self::Sealed(directory) => {
                (0..).zip(&directory.entries).map(|(number, entry)| (entry.digest, number)).collect()
            }
            Self::Open(open) => (0..).zip(open.entries()).map(|(number, entry)| (entry.digest, number)).collect(),
        }
    }

    fn pack(&self) -> PackId {
        match self {
            Self::Sealed(directory) => directory.pack,
            Self::Open(open) => open.pack,
        }
    }
}

impl Inner {
    /// A pack's chunks. `chunk` is the one that is wanted, for the error.
    pub(super) async fn chunks(&self, pack: PackId, chunk: u32) -> Result<Chunks, StoreError> {
        match self.packer.session().pack(pack) {
            Some(open) => Ok(Chunks::Open(open)),
            None => Ok(Chunks::Sealed(self.directory(pack, chunk).await?)),
        }
    }

    /// A sealed pack's directory, read and checked, or remembered. `chunk` is the one that is wanted, for the error.
    pub(super) async fn directory(&self, pack: PackId, chunk: u32) -> Result<Arc<Directory>, StoreError> {
        if let Some(directory) = self.directories.find(pack) {
            return Ok(directory);
        }
        let corrupt = |what: String| StoreError::Corrupt { pack, chunk, what };
        let row = self.meta.get(&key::pack(pack)).await?;
        let row = PackRow::decode(&row.ok_or_else(|| corrupt("the pack is not in the list of packs".to_owned()))?)?;
        if row.state == PackState::Open {
            return Err(corrupt("the pack was cut off while it was filled, and could not be sealed since".to_owned()));
        }
        let mut read = self.read_directory(pack, &row).await;
        if matches!(read, Err(StoreError::NoSuchPack(_) | StoreError::CorruptRow(_))) {
            // As with a chunk: what is believed damaged was read twice.
            read = self.read_directory(pack, &row).await;
        }
        let what = match read {
            Ok(directory) => {
                let directory = Arc::new(directory);
                self.directories.keep(&directory);
                return Ok(directory);
            }
            Err(StoreError::NoSuchPack(_)) => NO_FILE.to_owned(),
            Err(StoreError::CorruptRow(damage)) => damage.to_string(),
            Err(other) => return Err(other),
        };
        self.met_unreadable(pack, &what).await;
        Err(corrupt(what))
    }

    /// Reads a pack's directory from its file; damage answers [`StoreError::CorruptRow`].
    pub(super) async fn read_directory(&self, pack: PackId, row: &PackRow) -> Result<Directory, StoreError> {
        let tail = self.packs.read(pack, row.directory_offset, row.bytes).await?;
        let directory = Directory::decode(&tail)?;
        let damaged = |why| crate::format::field::Damaged { what: "pack directory", why };
        if directory.pack != pack {
            return Err(damaged("it is another pack's").into());
        }
        if directory.entries.len() != row.chunks as usize || directory.offset() != row.directory_offset {
            return Err(damaged("it does not agree with the list of packs").into());
        }
        Ok(directory)
    }

    /// Reads, decodes and checks the chunks of one read.
    async fn fetch(&self, read: Read) -> Result<Vec<(Bytes, u64)>, StoreError> {
        let Read { pack, first, wanted } = read;
        let (Some((head, ..)), Some((tail, ..))) = (wanted.first(), wanted.last()) else { return Ok(Vec::new()) };
        let (start, end) = (head.offset, tail.end());
        // Read and decoded in one step: once it has begun, it ends without anybody's help.
        let work = move |file: &dyn VolumeFile| {
            let bytes = file.read_at(start, (end - start) as usize)?;
            let mut decoded = Vec::with_capacity(wanted.len());
            let mut decoder = Decoder::new();
            for (chunk, (entry, from, to, times)) in (first..).zip(wanted) {
                let at = (entry.offset - start) as usize;
                let stored = at..at + entry.stored_len as usize;
                let stored = if stored.end <= bytes.len() { bytes.slice(stored) } else { Bytes::new() };
                match verified(&mut decoder, &entry, &stored) {
                    Ok(raw) => decoded.push((raw.slice(from as usize..to as usize), times)),
                    Err(what) => return Ok(Err((chunk, entry.digest, what))),
                }
            }
            Ok(Ok(decoded))
        };
        match self.packs.with(pack, "read a pack", work).await {
            Ok(Ok(decoded)) => Ok(decoded),
            Ok(Err((chunk, digest, what))) => {
                self.distrust(&digest, Location { pack, chunk }, what, true).await;
                Err(StoreError::Corrupt { pack, chunk, what: what.to_owned() })
            }
            Err(StoreError::NoSuchPack(_)) => {
                self.met_unreadable(pack, NO_FILE).await;
                Err(StoreError::Corrupt { pack, chunk: first, what: NO_FILE.to_owned() })
            }
            Err(other) => Err(other),
        }
    }

    /// One chunk's bytes, verified.
    pub(super) async fn chunk(&self, at: Location) -> Result<Bytes, StoreError> {
        let entry = self.chunks(at.pack, at.chunk).await?.entry(at.chunk).ok_or_else(|| StoreError::Corrupt {
            pack: at.pack,
            chunk: at.chunk,
            what: "the pack has no such chunk".to_owned(),
        })?;
        let read = Read { pack: at.pack, first: at.chunk, wanted: vec![(entry, 0, entry.raw_len, 1)] };
        Ok(self.fetch(read).await?.pop().map(|(bytes, _)| bytes).unwrap_or_default())
    }
}

/// The chunk's bytes, when they are what the directory says.
pub(super) fn verified(decoder: &mut Decoder, entry: &Entry, stored: &Bytes) -> Result<Bytes, &'static str> {
    if stored.len() != entry.stored_len as usize {
        return Err("its bytes are cut short");
    }
    let raw = decoder.chunk(entry.offset, entry.codec, stored, entry.within, entry.raw_len);
    let raw = raw.map_err(|damage| damage.why)?;
    if chunk_digest(&raw) == entry.digest { Ok(raw) } else { Err("its bytes do not have its digest") }
}

/// One ranged read: consecutive chunks from `first` on; of each the bytes from and to, and how often they follow.
struct Read {
    pack: PackId,
    first: u32,
    wanted: Vec<(Entry, u32, u32, u64)>,
}

/// Turns terms into reads, one after the other.
struct Planner {
    inner: Arc<Inner>,
    terms: std::vec::IntoIter<Term>,
    current: Option<(Chunks, Term, u32)>,
    skip: u64,
    left: u64,
}

impl Planner {
    /// The next read; none when all bytes are planned.
    async fn next(&mut self) -> Result<Option<Read>, StoreError> {
        while self.left > 0 {
            let Some((chunks, term, at)) = self.current.take() else {
                let Some(term) = self.terms.next() else {
                    let damage = crate::format::field::Damaged { what: "manifest", why: "it ends too soon" };
                    return Err(damage.into());
                };
                if self.skip >= term.bytes {
                    self.skip -= term.bytes;
                    continue;
                }
                self.current = Some((self.inner.chunks(term.pack, term.first).await?, term, 0));
                continue;
            };
            let read =
                if term.repeats { self.plan_repeat(chunks, term, at)? } else { self.plan_run(chunks, term, at)? };
            if read.is_some() {
                return Ok(read);
            }
        }
        Ok(None)
    }

    fn entry(chunks: &Chunks, chunk: u32) -> Result<Entry, StoreError> {
        chunks.entry(chunk).ok_or_else(|| StoreError::Corrupt {
            pack: chunks.pack(),
            chunk,
            what: "the pack has no such chunk".to_owned(),
        })
    }

    /// A repeated chunk is read once: whole repeats together, a part at either end by itself.
    fn plan_repeat(&mut self, chunks: Chunks, term: Term, at: u32) -> Result<Option<Read>, StoreError> {
        let entry = Self::entry(&chunks, term.first)?;
        let raw = u64::from(entry.raw_len);
        let skipped = (self.skip / raw).min(u64::from(term.count - at));
        self.skip -= skipped * raw;
        let at = at + skipped as u32;
        if at == term.count {
            return Ok(None);
        }
        let (from, times) = match self.skip {
            0 if self.left >= raw => (0, (self.left / raw).min(u64::from(term.count - at))),
            from => (from, 1),
        };
        let to = raw.min(from + self.left);
        self.skip = 0;
        self.left -= (to - from) * times;
        self.current = Some((chunks, term, at + times as u32)).filter(|_| at + (times as u32) < term.count);
        Ok(Some(Read { pack: term.pack, first: term.first, wanted: vec![(entry, from as u32, to as u32, times)] }))
    }

    fn plan_run(&mut self, chunks: Chunks, term: Term, mut at: u32) -> Result<Option<Read>, StoreError> {
        let mut read = Read { pack: term.pack, first: 0, wanted: Vec::new() };
        let (mut stored, mut decoded) = (0, 0);
        while at < term.count && self.left > 0 {
            let entry = Self::entry(&chunks, term.first + at)?;
            let raw = u64::from(entry.raw_len);
            if self.skip >= raw {
                self.skip -= raw;
                at += 1;
                continue;
            }
            let shares = read.wanted.last().is_some_and(|(before, ..)| before.offset == entry.offset);
            stored += if shares { 0 } else { u64::from(entry.stored_len) };
            decoded += raw;
            // Chunks that share a frame are read together: a frame is decoded once.
            if !shares && !read.wanted.is_empty() && (stored > READ_BYTES || decoded > READ_RAW_BYTES) {
                break;
            }
            if read.wanted.is_empty() {
                read.first = term.first + at;
            }
            let to = raw.min(self.skip + self.left);
            read.wanted.push((entry, self.skip as u32, to as u32, 1));
            self.left -= to - self.skip;
            self.skip = 0;
            at += 1;
        }
        self.current = Some((chunks, term, at)).filter(|_| at < term.count);
        Ok(Some(read).filter(|read| !read.wanted.is_empty()))
    }
}

/// Reads ahead: several reads under way, as long as all streams together stay within the budget. The read that is wanted next
/// needs no budget, so that a stream whose client sleeps holds up nobody.
struct Ahead {
    inner: Arc<Inner>,
    planner: Planner,
    under_way: FuturesOrdered<BoxFuture<'static, Result<Decoded, StoreError>>>,
    ended: bool,
}

impl Ahead {
    /// Starts reads, as many as may be under way.
    async fn fill(&mut self) -> Result<(), StoreError> {
        while !self.ended && self.under_way.len() < READ_AHEAD {
            let budget = self.inner.read_budget.clone().try_acquire_many_owned(READ_RAW_BYTES as u32).ok();
            if budget.is_none() && !self.under_way.is_empty() {
                return Ok(());
            }
            let Some(read) = self.planner.next().await? else {
                self.ended = true;
                return Ok(());
            };
            let inner = self.inner.clone();
            self.under_way.push_back(
                async move {
                    let pieces = inner.fetch(read).await?;
                    Ok(Decoded { pieces, _budget: budget })
                }
                .boxed(),
            );
        }
        Ok(())
    }

    /// The next pieces; none at the end.
    async fn next(&mut self) -> Result<Option<Decoded>, StoreError> {
        self.fill().await?;
        self.under_way.next().await.transpose()
    }
}

/// What one read came to: pieces, how often each follows itself, and the memory that was set aside for them.
struct Decoded {
    pieces: Vec<(Bytes, u64)>,
    _budget: Option<OwnedSemaphorePermit>,
}

impl Decoded {
    /// All pieces, one after the other; the budget is given back with the last.
    fn stream(self) -> impl futures_util::Stream<Item = Result<Bytes, StoreError>> {
        let Self { pieces, _budget } = self;
        let repeated = pieces.into_iter().flat_map(|(bytes, times)| (0..times).map(move |_| bytes.clone()));
        stream::iter(repeated.map(move |bytes| {
            let _held = &_budget;
            Ok(bytes)
        }))
    }
}

impl Store {
    /// `len` bytes of the terms from `skip` on, verified.
    pub(super) fn read(&self, terms: Vec<Term>, skip: u64, len: u64) -> BoxStream<'static, Result<Bytes, StoreError>> {
        let inner = self.inner.clone();
        let planner = Planner { inner: inner.clone(), terms: terms.into_iter(), current: None, skip, left: len };
        let ahead = Ahead { inner, planner, under_way: FuturesOrdered::new(), ended: false };
        stream::try_unfold(ahead, |mut ahead| async move {
            Ok::<_, StoreError>(ahead.next().await?.map(|read| (read, ahead)))
        })
        .map_ok(Decoded::stream)
        .try_flatten()
        .boxed()
    }
}
