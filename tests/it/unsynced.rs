//! A sync that failed leaves bytes which programs go on to read and the disk never gets. Where the process ends then, the next one writes
//! them again before it relies on them: what it acknowledges outlives a power cut.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bedplate::meta::{Embedded, Meta, MetaError};
use bedplate::store::{ByteStream, PackHome, PutRequest, Store, StoreError};
use bedplate::sys::volume::{Volume, VolumeFile};
use bedplate::sys::worker::Workers;
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};

/// A file as programs see it and as the disk has it.
#[derive(Default)]
struct Pages {
    seen: Vec<u8>,
    kept: Vec<u8>,
    dirty: Vec<Range<usize>>,
}

fn put_at(image: &mut Vec<u8>, at: usize, bytes: &[u8]) {
    image.resize(image.len().max(at + bytes.len()), 0);
    image[at..at + bytes.len()].copy_from_slice(bytes);
}

/// What becomes of syncs.
const WELL: u8 = 0;
/// The next one fails, and with it all that the process does after it.
const NEXT_IS_LAST: u8 = 1;
const ENDED: u8 = 2;

#[derive(Clone)]
struct CachedFile(Arc<Mutex<Pages>>, Arc<AtomicU8>);

impl CachedFile {
    fn changes(&self) -> io::Result<()> {
        if self.1.load(Ordering::SeqCst) == ENDED { Err(io::ErrorKind::Other.into()) } else { Ok(()) }
    }
}

impl VolumeFile for CachedFile {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.changes()?;
        let mut pages = self.0.lock().unwrap();
        put_at(&mut pages.seen, offset as usize, bytes);
        pages.dirty.push(offset as usize..offset as usize + bytes.len());
        Ok(())
    }

    fn read_at(&self, offset: u64, len: usize) -> io::Result<Bytes> {
        let pages = self.0.lock().unwrap();
        let start = pages.seen.len().min(offset as usize);
        let end = pages.seen.len().min(start + len);
        Ok(Bytes::copy_from_slice(&pages.seen[start..end]))
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.0.lock().unwrap().seen.len() as u64)
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.changes()?;
        let mut pages = self.0.lock().unwrap();
        let Pages { seen, kept, dirty } = &mut *pages;
        seen.resize(len as usize, 0);
        kept.truncate(len as usize);
        dirty.iter_mut().for_each(|range| range.end = range.end.min(len as usize));
        dirty.retain(|range| range.start < range.end);
        Ok(())
    }

    /// As Linux does it: pages whose write failed are clean afterwards, and no later sync writes them.
    fn sync(&self) -> io::Result<()> {
        self.changes()?;
        let mut pages = self.0.lock().unwrap();
        let Pages { seen, kept, dirty } = &mut *pages;
        let dirty = std::mem::take(dirty);
        if self.1.compare_exchange(NEXT_IS_LAST, ENDED, Ordering::SeqCst, Ordering::SeqCst).is_ok() {
            return Err(io::ErrorKind::Other.into());
        }
        dirty.into_iter().for_each(|range| put_at(kept, range.start, &seen[range]));
        Ok(())
    }
}

/// Files behind a cache that a power cut empties. Folders are always durable.
#[derive(Clone, Default)]
struct CachedVolume {
    files: Arc<Mutex<BTreeMap<String, Arc<Mutex<Pages>>>>>,
    syncs: Arc<AtomicU8>,
}

impl CachedVolume {
    fn power_cut(&self) {
        for file in self.files.lock().unwrap().values() {
            let mut pages = file.lock().unwrap();
            pages.seen = pages.kept.clone();
            pages.dirty.clear();
        }
    }

    fn file(&self, pages: &Arc<Mutex<Pages>>) -> Arc<dyn VolumeFile> {
        Arc::new(CachedFile(pages.clone(), self.syncs.clone()))
    }
}

impl Volume for CachedVolume {
    fn create(&self, path: &str) -> io::Result<Arc<dyn VolumeFile>> {
        let pages = Arc::default();
        assert!(self.files.lock().unwrap().insert(path.to_owned(), Arc::clone(&pages)).is_none());
        Ok(self.file(&pages))
    }

    fn open(&self, path: &str) -> io::Result<Arc<dyn VolumeFile>> {
        self.files.lock().unwrap().get(path).map(|pages| self.file(pages)).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.files.lock().unwrap().keys().cloned().collect())
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        self.files.lock().unwrap().remove(path).map(drop).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut files = self.files.lock().unwrap();
        let file = files.remove(from).ok_or(io::ErrorKind::NotFound)?;
        files.insert(to.to_owned(), file);
        Ok(())
    }

    fn sync_folder(&self, _: &str) -> io::Result<()> {
        Ok(())
    }
}

/// Opens the store; threads of the one before may take a moment to let go of the rows.
async fn open(dir: &Path, volume: &CachedVolume) -> (Store, Arc<dyn Meta>, Workers) {
    for _ in 0..500 {
        match Embedded::open(&dir.join("meta")) {
            Err(MetaError::Locked(_)) => tokio::time::sleep(Duration::from_millis(10)).await,
            meta => {
                let (meta, workers) = (meta.unwrap(), Workers::new());
                let home = PackHome::on(Arc::new(volume.clone()));
                return (Store::open(meta.clone(), home, &workers).await.unwrap(), meta, workers);
            }
        }
    }
    panic!("the rows are still open")
}

/// The process ends where it is.
async fn kill((store, meta, workers): (Store, Arc<dyn Meta>, Workers)) {
    drop((store, meta));
    workers.stop().await;
}

async fn put(store: &Store, key: &str, bytes: &Bytes) -> Result<(), StoreError> {
    let body: ByteStream = stream::iter([Ok(bytes.clone())]).boxed();
    store.put(&"kept".parse().unwrap(), &key.parse().unwrap(), body, PutRequest::default()).await.map(drop)
}

async fn get(store: &Store, key: &str) -> Result<Vec<u8>, StoreError> {
    let (_, mut bytes) = store.get(&"kept".parse().unwrap(), &key.parse().unwrap(), None).await?;
    let mut all = Vec::new();
    while let Some(piece) = bytes.next().await {
        all.extend_from_slice(&piece.map_err(|error| *error.downcast::<StoreError>().unwrap())?);
    }
    Ok(all)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_failed_sync_left_behind_is_written_again() {
    let (dir, volume) = (tempfile::tempdir().unwrap(), CachedVolume::default());
    let noise = |seed: u64| Bytes::from(crate::support::noise(seed, 300_000));
    let (before, lost) = (noise(1), noise(2));

    let first = open(dir.path(), &volume).await;
    first.0.create_bucket(&"kept".parse().unwrap(), "root").await.unwrap();
    put(&first.0, "before", &before).await.unwrap();
    volume.syncs.store(NEXT_IS_LAST, Ordering::SeqCst);
    put(&first.0, "lost", &lost).await.unwrap_err();
    let open_packs = first.1.scan(b"f/", b"f0", 10).await.unwrap().len();
    assert_eq!(open_packs, 1, "a pack is being filled");
    kill(first).await;
    volume.syncs.store(WELL, Ordering::SeqCst);

    let second = open(dir.path(), &volume).await;
    let stored: u64 = volume.files.lock().unwrap().values().map(|file| file.lock().unwrap().seen.len() as u64).sum();
    put(&second.0, "again", &lost).await.unwrap();
    let after: u64 = volume.files.lock().unwrap().values().map(|file| file.lock().unwrap().seen.len() as u64).sum();
    assert!(after - stored < 100_000, "the store found the chunks that the failed put had left");
    kill(second).await;
    volume.power_cut();

    let third = open(dir.path(), &volume).await;
    assert_eq!(get(&third.0, "before").await.unwrap(), before);
    assert_eq!(get(&third.0, "again").await.unwrap(), lost);
    kill(third).await;
}
