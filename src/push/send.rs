//! Sends files: asks what the store has of their chunks, and sends the rest. However many files there are and however large they are, no
//! more than [`ROOM`] of their bytes are held.

use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::io::Read as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::PushError;
use super::body::{Load, Plan};
use super::cut::{Cutting, Stretch};
use super::door::{Answer, Part, PushDoor};
use super::patch::Base;
use crate::model::limit::PARTS_MAX;
use crate::model::{ByteRange, Digest};
use crate::sys::worker::blocking;

/// What is longer travels in parts of this length, in bytes.
pub const PART_BYTES: u64 = 32 * 1024 * 1024;
/// Files of together so many bytes are asked about at once.
pub const GROUP_BYTES: u64 = 8 * 1024 * 1024;
/// Objects of a group that travel at once.
const GROUP_AT_ONCE: usize = 4;
/// Parts of one file that are under way at once.
const PARTS_AT_ONCE: usize = 4;
/// Bytes that are held at once, in MiB.
const ROOM: u32 = 128;
/// Chunks of a load, spread over it, by which it is guessed whether all are known.
const SAMPLES: usize = 16;
/// How often the store may lose chunks between its answer and the push.
const ROUNDS: usize = 6;

/// Of a part, at least one byte in so many must be lacking before the store is asked what the object that is there is made of: its answer
/// is about an eightieth of the part.
const LACKING: u64 = 25;
/// How far from where they are now bytes are looked for in the object that is there; and as much further as it is longer or shorter.
const DRIFT: u64 = 1024 * 1024;
/// But no further than this.
const DRIFT_MAX: u64 = 15 * 1024 * 1024;

/// What was pushed so far, in bytes of the sources.
#[derive(Debug, Default)]
pub struct Tally {
    done: AtomicU64,
    known: AtomicU64,
}

impl Tally {
    /// Bytes that are stored now.
    #[must_use]
    pub fn done(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }

    /// Those of them that did not travel, because the store had them.
    #[must_use]
    pub fn known(&self) -> u64 {
        self.known.load(Ordering::Relaxed)
    }
}

/// A small file of a group.
#[derive(Clone, Debug)]
pub struct GroupFile {
    /// Where it is.
    pub file: PathBuf,
    /// Its key in the store.
    pub key: String,
    /// Its length in bytes.
    pub bytes: u64,
}

/// A file that is to be pushed.
#[derive(Clone, Copy, Debug)]
pub struct PushFile<'a> {
    /// Its key in the store.
    pub key: &'a str,
    /// What it is called in errors.
    pub what: &'a str,
    /// How long it probably is, in bytes.
    pub bytes: u64,
    /// What its upload is found again by, where it comes to that.
    pub name: &'a str,
    /// How long the object is that is there now under the key, in bytes; it may be what the file was before.
    pub old: Option<u64>,
}

/// What is called when more is stored.
type Told = dyn Fn(&Tally, u64) + Send + Sync;

/// Sends files. Cheap to clone.
#[derive(Clone)]
pub struct Pusher {
    door: PushDoor,
    room: Arc<Semaphore>,
    tally: Arc<Tally>,
    told: Arc<Told>,
}

/// Where a load goes.
enum Target<'a> {
    Object,
    Part { upload: &'a str, number: u32 },
}

/// A part that is to be sent, with its place among what is held.
struct Cut {
    number: u32,
    /// Where it begins in the file.
    start: u64,
    stretch: Stretch,
    held: OwnedSemaphorePermit,
}

impl Pusher {
    /// A sender that calls `told` whenever more is stored, with how many bytes that is.
    pub fn new(door: PushDoor, told: impl Fn(&Tally, u64) + Send + Sync + 'static) -> Self {
        let room = Arc::new(Semaphore::new(ROOM as usize));
        Self { door, room, tally: Arc::default(), told: Arc::new(told) }
    }

    /// What was pushed so far.
    #[must_use]
    pub fn tally(&self) -> &Tally {
        &self.tally
    }

    /// The door that it sends to.
    #[must_use]
    pub fn door(&self) -> &PushDoor {
        &self.door
    }

    /// Sends what can be read of `input`.
    pub async fn push(&self, input: File, file: &PushFile<'_>) -> Result<(), PushError> {
        let target = PART_BYTES.max(file.bytes / u64::from(PARTS_MAX - 1000));
        let held = self.hold(file.bytes.min(target)).await;
        let (cutting, stretch) = next(Cutting::new(input), target, file.what).await?;
        if stretch.last {
            let load = name(stretch).await?;
            return self.send(file, &Target::Object, load, 0).await;
        }
        self.parts(file, Cut { number: 1, start: 0, stretch, held }, cutting, target).await
    }

    async fn parts(
        &self,
        file: &PushFile<'_>,
        first: Cut,
        cutting: Cutting<File>,
        target: u64,
    ) -> Result<(), PushError> {
        let upload = self.door.upload(file.key, file.name).await?;
        let there: BTreeMap<u32, Part> = upload.parts.into_iter().map(|part| (part.number, part)).collect();
        let (number, start) = (2, first.stretch.bytes);
        let cuts =
            stream::try_unfold((Some(first), cutting, number, start), |(first, cutting, number, start)| async move {
                if let Some(first) = first {
                    return Ok(Some((first, (None, cutting, number, start))));
                }
                let held = self.hold(target).await;
                let (cutting, stretch) = next(cutting, target, file.what).await?;
                if stretch.chunks.is_empty() {
                    return Ok::<_, PushError>(None);
                }
                let after = start + stretch.bytes;
                Ok(Some((Cut { number, start, stretch, held }, (None, cutting, number + 1, after))))
            });
        let (there, id) = (&there, upload.upload.as_str());
        let sends = cuts.map_ok(|Cut { number, start, stretch, held }| async move {
            let load = name(stretch).await?;
            let part = Part { number, etag: hex::encode(&load.root.0[..16]), size: load.bytes };
            if there.get(&number) == Some(&part) {
                // An earlier put came as far as this.
                self.count(load.bytes, load.bytes);
            } else {
                self.send(file, &Target::Part { upload: id, number }, load, start).await?;
            }
            drop(held);
            Ok(part)
        });
        let mut parts: Vec<Part> = sends.try_buffer_unordered(PARTS_AT_ONCE).try_collect().await?;
        parts.sort_unstable_by_key(|part| part.number);
        self.door.complete(file.key, id, parts).await
    }

    /// Sends small files, about whose chunks it asks at once.
    pub async fn push_group(&self, files: &[GroupFile]) -> Result<(), PushError> {
        let Some(first) = files.first() else { return Ok(()) };
        let _held = self.hold(files.iter().map(|file| file.bytes).sum()).await;
        let list = files.to_vec();
        let loads = blocking(move || list.iter().map(read_small).collect::<Result<Vec<Load>, PushError>>()).await??;
        let digests = loads.iter().flat_map(|load| load.chunks.iter().map(|(digest, _)| *digest)).collect();
        let known = self.known(&first.key, digests).await?;
        let known = &known;
        let sends = files.iter().zip(loads).map(|(file, load)| async move {
            self.send_knowing(&file.key, &Target::Object, load, known.clone(), None).await
        });
        stream::iter(sends).buffer_unordered(GROUP_AT_ONCE).try_collect().await
    }

    /// Waits for room for so many bytes.
    async fn hold(&self, bytes: u64) -> OwnedSemaphorePermit {
        let wanted = u32::try_from(bytes >> 20).unwrap_or(ROOM).saturating_add(1).min(ROOM);
        self.room.clone().acquire_many_owned(wanted).await.expect("the room is never closed")
    }

    fn count(&self, done: u64, known: u64) {
        self.tally.done.fetch_add(done, Ordering::Relaxed);
        self.tally.known.fetch_add(known, Ordering::Relaxed);
        (self.told)(&self.tally, done);
    }

    /// Those of the chunks that the store has.
    async fn known(&self, key: &str, mut digests: Vec<Digest>) -> Result<HashSet<Digest>, PushError> {
        digests.sort_unstable();
        digests.dedup();
        let known = self.door.known(key, &digests).await?;
        Ok(digests.into_iter().zip(known).filter(|(_, known)| *known).map(|(digest, _)| digest).collect())
    }

    /// Sends a load. Where some of its chunks, here and there, are all known, all are named without asking: a name costs as much as a
    /// question, and what is lacking is told.
    async fn send(&self, file: &PushFile<'_>, target: &Target<'_>, load: Load, start: u64) -> Result<(), PushError> {
        let step = load.chunks.len().div_ceil(SAMPLES);
        let mut known = HashSet::new();
        if step > 1 {
            let sample = load.chunks.iter().step_by(step).map(|(digest, _)| *digest).collect();
            known = self.known(file.key, sample).await?;
        }
        let all_known = step > 1 && load.chunks.iter().step_by(step).all(|(digest, _)| known.contains(digest));
        let all = load.chunks.iter().map(|(digest, _)| *digest);
        known = if all_known { all.collect() } else { self.known(file.key, all.collect()).await? };
        self.send_knowing(file.key, target, load, known, Some((file, start))).await
    }

    /// What the object that is there is made of about where this load will be, when that may save something.
    async fn base(&self, file: &PushFile<'_>, load: &Load, known: &HashSet<Digest>, start: u64) -> Option<Arc<Base>> {
        let old = file.old?;
        let lacks = load.chunks.iter().filter(|(digest, _)| !known.contains(digest));
        let lacking: u64 = lacks.map(|(_, data)| data.len() as u64).sum();
        let drift = DRIFT + old.abs_diff(file.bytes).min(DRIFT_MAX);
        let stretch = ByteRange { start: start.saturating_sub(drift), end: old.min(start + load.bytes + drift) };
        if lacking <= load.bytes / LACKING || stretch.start >= stretch.end {
            return None;
        }
        let signature = self.door.signature(file.key, stretch).await?;
        blocking(move || Arc::new(Base::new(signature))).await.ok()
    }

    async fn send_knowing(
        &self,
        key: &str,
        target: &Target<'_>,
        load: Load,
        mut known: HashSet<Digest>,
        place: Option<(&PushFile<'_>, u64)>,
    ) -> Result<(), PushError> {
        // Chunks that the store could not make: they come along whole.
        let mut whole: HashSet<Digest> = HashSet::new();
        let mut base = None;
        for _ in 0..ROUNDS {
            if let (None, Some((file, start))) = (&base, place) {
                base = self.base(file, &load, &known, start).await;
            }
            let plan = Plan { known, whole, base: base.clone(), prove: self.door.prove() };
            let made = load.clone();
            let (body, saved, plan) = blocking(move || {
                let (body, saved) = made.body(&plan);
                (body, saved, plan)
            })
            .await?;
            Plan { known, whole, .. } = plan;
            let etag = base.as_deref().map(|base| base.etag.as_str());
            let answer = match target {
                Target::Object => self.door.object(key, body, etag).await?,
                Target::Part { upload, number } => self.door.part(key, upload, *number, body, etag).await?,
            };
            match answer {
                Answer::Taken => {
                    self.count(load.bytes, saved);
                    return Ok(());
                }
                Answer::Missing(missing) => {
                    whole.extend(missing.into_iter().filter(|digest| !known.remove(digest)));
                }
            }
        }
        Err(PushError::Losing)
    }
}

/// Cuts on.
async fn next(mut cutting: Cutting<File>, target: u64, what: &str) -> Result<(Cutting<File>, Stretch), PushError> {
    let (cutting, stretch) = blocking(move || {
        let stretch = cutting.next(target);
        (cutting, stretch)
    })
    .await?;
    Ok((cutting, stretch.map_err(|source| PushError::Read { what: what.to_owned(), source })?))
}

/// A small file's chunks. Blocks.
fn read_small(file: &GroupFile) -> Result<Load, PushError> {
    let unreadable = |source| PushError::Read { what: file.file.display().to_string(), source };
    let input = File::open(&file.file).map_err(unreadable)?;
    let stretch = Cutting::new(input.take(file.bytes)).next(u64::MAX).map_err(unreadable)?;
    Ok(Load::name(stretch))
}

/// Hashes a stretch's chunks.
async fn name(stretch: Stretch) -> Result<Load, PushError> {
    Ok(blocking(move || Load::name(stretch)).await?)
}
