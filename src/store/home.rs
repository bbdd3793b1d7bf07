//! Where packs live: files of a volume, opened once and kept open while they are used.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

use super::error::StoreError;
use crate::model::PackId;
use crate::model::limit::{CHUNKS_PER_TERM, FRAME_MAX, PACK_TARGET, SPARE_TERMS};
use crate::sys::space::{Need, Reserve};
use crate::sys::volume::{LocalVolume, Volume, VolumeFile};
use crate::sys::worker::blocking;

/// Files that are kept open.
const OPEN_MAX: usize = 256;

/// A pack must hold a frame, whatever else.
const PACK_BYTES_MIN: u64 = 2 * FRAME_MAX as u64;

/// Where packs are to live.
pub struct PackHome {
    place: Place,
    reserve: Reserve,
    pack_bytes: u64,
    ration: Ration,
}

/// How many terms an object may have, as far as sharing goes: known chunks that would exceed it are stored again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ration {
    /// Chunks that a term must have on average; 0 shares everything.
    pub chunks_per_term: u32,
    /// Terms that each object may have besides, so that small ones share all they can.
    pub spare_terms: u32,
}

impl Default for Ration {
    fn default() -> Self {
        Self { chunks_per_term: CHUNKS_PER_TERM, spare_terms: SPARE_TERMS }
    }
}

enum Place {
    Local(PathBuf),
    Volume(Arc<dyn Volume>),
}

impl PackHome {
    /// In a folder of this machine, made when it is absent. File and folder are synced before a pack counts.
    #[must_use]
    pub fn local(dir: impl Into<PathBuf>) -> Self {
        Self::at(Place::Local(dir.into()))
    }

    /// On a volume.
    #[must_use]
    pub fn on(volume: Arc<dyn Volume>) -> Self {
        Self::at(Place::Volume(volume))
    }

    fn at(place: Place) -> Self {
        Self { place, pack_bytes: PACK_TARGET, ration: Ration::default(), reserve: Reserve::default() }
    }

    /// How much of its disk is kept free: new data is refused before the disk is really full.
    #[must_use]
    pub fn with_reserve(self, reserve: Reserve) -> Self {
        Self { reserve, ..self }
    }

    /// Fills packs up to so many bytes only: at least two frames, at most what the format allows.
    #[must_use]
    pub fn with_pack_bytes(mut self, bytes: u64) -> Self {
        self.pack_bytes = bytes.clamp(PACK_BYTES_MIN, PACK_TARGET);
        self
    }

    /// Rations the sharing of chunks: less of it stores more and reads faster.
    #[must_use]
    pub fn with_ration(self, ration: Ration) -> Self {
        Self { ration, ..self }
    }

    /// Opens it.
    pub(super) fn open(self) -> Result<Packs, StoreError> {
        let volume = match self.place {
            Place::Volume(volume) => volume,
            Place::Local(dir) => {
                Arc::new(LocalVolume::open(dir).map_err(|source| StoreError::volume("open the packs' folder", source))?)
            }
        };
        let Self { reserve, pack_bytes, ration, .. } = self;
        Ok(Packs { volume, reserve, pack_bytes, ration, files: Arc::default() })
    }
}

/// The packs, opened.
#[derive(Clone)]
pub(super) struct Packs {
    volume: Arc<dyn Volume>,
    reserve: Reserve,
    /// A pack is sealed rather than filled beyond this.
    pub(super) pack_bytes: u64,
    /// How many terms an object may have.
    pub(super) ration: Ration,
    files: Arc<Mutex<Files>>,
}

/// Open files; the one that was used longest ago is closed first.
#[derive(Default)]
struct Files {
    by_pack: BTreeMap<PackId, (Arc<dyn VolumeFile>, u64)>,
    clock: u64,
}

/// Where a pack lies: spread over 256 folders by the last, random, byte of its id.
fn path(pack: PackId) -> String {
    format!("{:02x}/{pack}.pack", pack.0[15])
}

/// The pack that lies at a path.
fn pack_at(path: &str) -> Option<PackId> {
    path.split_once('/')?.1.strip_suffix(".pack")?.parse().ok()
}

impl Packs {
    /// The pack's file.
    fn file(&self, pack: PackId) -> io::Result<Arc<dyn VolumeFile>> {
        {
            let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
            files.clock += 1;
            let now = files.clock;
            if let Some((file, used)) = files.by_pack.get_mut(&pack) {
                *used = now;
                return Ok(file.clone());
            }
        }
        let file = self.volume.open(&path(pack))?;
        self.keep(pack, &file);
        Ok(file)
    }

    fn keep(&self, pack: PackId, file: &Arc<dyn VolumeFile>) {
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        let now = files.clock;
        files.by_pack.insert(pack, (file.clone(), now));
        if files.by_pack.len() > OPEN_MAX
            && let Some(oldest) = files.by_pack.iter().min_by_key(|(_, (_, used))| *used).map(|(pack, _)| *pack)
        {
            files.by_pack.remove(&oldest);
        }
    }

    /// Whether there is room for a write of that need; a full disk is the error. Blocks.
    pub(super) fn admit(&self, need: Need) -> io::Result<()> {
        match self.volume.space()? {
            Some(space) if !self.reserve.admits(space, need) => Err(io::ErrorKind::StorageFull.into()),
            _ => Ok(()),
        }
    }

    fn forget(&self, pack: PackId) {
        self.files.lock().unwrap_or_else(PoisonError::into_inner).by_pack.remove(&pack);
    }

    /// Does blocking work on a pack's file.
    pub(super) async fn with<T: Send + 'static>(
        &self,
        pack: PackId,
        action: &'static str,
        work: impl FnOnce(&dyn VolumeFile) -> io::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let packs = self.clone();
        let outcome = blocking(move || {
            let file = packs.file(pack)?;
            work(file.as_ref())
        });
        outcome.await.map_err(StoreError::step)?.map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => StoreError::NoSuchPack(pack),
            _ => StoreError::volume(action, error),
        })
    }

    /// Bytes `start..end` of a pack; fewer where it ends before.
    pub(super) async fn read(&self, pack: PackId, start: u64, end: u64) -> Result<Bytes, StoreError> {
        let len = end.saturating_sub(start) as usize;
        self.with(pack, "read a pack", move |file| file.read_at(start, len)).await
    }

    /// A pack's length in bytes, of the file that has its name now.
    pub(super) async fn size(&self, pack: PackId) -> Result<u64, StoreError> {
        self.forget(pack);
        self.with(pack, "look at a pack", VolumeFile::len).await
    }

    /// All packs that there are, in order.
    pub(super) async fn list(&self) -> Result<Vec<PackId>, StoreError> {
        let volume = self.volume.clone();
        let paths = blocking(move || volume.list()).await.map_err(StoreError::step)?;
        let paths = paths.map_err(|error| StoreError::volume("list the packs", error))?;
        let mut packs: Vec<PackId> = paths.iter().filter_map(|path| pack_at(path)).collect();
        packs.sort_unstable();
        Ok(packs)
    }

    /// Makes a pack's file. Blocks.
    pub(super) fn create(&self, pack: PackId) -> io::Result<Arc<dyn VolumeFile>> {
        let file = self.volume.create(&path(pack))?;
        self.keep(pack, &file);
        Ok(file)
    }

    /// Makes it durable that a pack's file is there, or is not. Blocks.
    pub(super) fn sync_folder(&self, pack: PackId) -> io::Result<()> {
        self.volume.sync_folder(&path(pack))
    }

    /// Removes a pack's file, durably; an absent one is no error.
    pub(super) async fn remove(&self, pack: PackId) -> Result<(), StoreError> {
        let packs = self.clone();
        let removed = blocking(move || {
            let removed = packs.volume.remove(&path(pack));
            // A file that is kept open keeps its blocks.
            packs.forget(pack);
            match removed {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                _ => packs.volume.sync_folder(&path(pack)),
            }
        });
        let removed = removed.await.map_err(StoreError::step)?;
        removed.map_err(|error| StoreError::volume("remove a pack", error))
    }
}
