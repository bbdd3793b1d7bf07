//! A volume whose power can fail: what was written and not synced survives wholly, in part or not at all, and so does
//! every change of a folder.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bedplate::sys::volume::{Volume, VolumeFile};
use bytes::Bytes;

use super::random::Random;
use super::world::{Cause, Exposure, Fate, World, power_is_off};

/// What a disk writes as a whole, or not.
const SECTOR: usize = 512;

/// A change of a file that is not durable yet.
#[derive(Clone)]
enum Change {
    Write(usize, Bytes),
    Truncate(usize),
}

#[derive(Default)]
struct File {
    /// As programs see it.
    seen: Vec<u8>,
    /// As it is on the disk.
    kept: Vec<u8>,
    /// What `seen` has over `kept`, in order.
    changes: Vec<Change>,
}

/// A change of a folder that is not durable yet.
#[derive(Clone)]
enum Entry {
    Created(String, u64),
    Removed(String, u64),
    Renamed(String, String, u64),
}

impl Entry {
    fn folders(&self) -> Vec<&str> {
        match self {
            Self::Created(path, _) | Self::Removed(path, _) => vec![folder(path)],
            Self::Renamed(from, to, _) => vec![folder(from), folder(to)],
        }
    }

    fn apply(&self, names: &mut BTreeMap<String, u64>) {
        match self {
            Self::Created(path, file) => {
                names.insert(path.clone(), *file);
            }
            Self::Removed(path, file) => {
                names.retain(|name, of| !(name == path && of == file));
            }
            Self::Renamed(from, to, file) => {
                names.retain(|name, of| !(name == from && of == file));
                names.insert(to.clone(), *file);
            }
        }
    }
}

fn folder(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(folder, _)| folder)
}

#[derive(Default)]
struct Disk {
    files: BTreeMap<u64, File>,
    next: u64,
    names: BTreeMap<String, u64>,
    kept_names: BTreeMap<String, u64>,
    kept_folders: BTreeSet<String>,
    entries: Vec<Entry>,
}

/// The volume; clones share the disk.
#[derive(Clone)]
pub(super) struct SimVolume {
    world: World,
    disk: Arc<Mutex<Disk>>,
}

impl SimVolume {
    pub(super) fn new(world: &World) -> Self {
        Self { world: world.clone(), disk: Arc::default() }
    }

    fn disk(&self) -> MutexGuard<'_, Disk> {
        self.disk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs `work` as the operation's fate has it. A write that fails may have done a part: `work` is told what went
    /// wrong.
    fn run<T>(
        &self,
        what: &'static str,
        (name, from, len): (&str, u64, u64),
        exposed: Exposure,
        work: impl FnOnce(&mut Disk, Option<Cause>) -> io::Result<T>,
    ) -> io::Result<T> {
        let fate = self.world.begin(what, name, from, len, exposed).ok_or_else(power_is_off)?;
        match fate {
            Fate::Well => work(&mut self.disk(), None),
            Fate::Fails(cause) => work(&mut self.disk(), Some(cause)),
            Fate::CutBefore => {
                self.world.power_fails();
                Err(power_is_off())
            }
            Fate::CutAfter => {
                let _ = work(&mut self.disk(), None);
                self.world.power_fails();
                Err(power_is_off())
            }
        }
    }

    /// The power comes back: what was not synced survives as chance has it.
    pub(super) fn recover(&self, random: &mut Random) {
        let mut disk = self.disk();
        let mood = Mood::of(random);
        let entries = std::mem::take(&mut disk.entries);
        for entry in entries {
            if mood.survives(random) {
                disk.kept_folders.extend(entry.folders().into_iter().map(str::to_owned).collect::<Vec<_>>());
                entry.apply(&mut disk.kept_names);
            }
        }
        let Disk { names, kept_names, kept_folders, files, .. } = &mut *disk;
        kept_names.retain(|path, _| kept_folders.contains(folder(path)));
        *names = kept_names.clone();
        let named: BTreeSet<u64> = names.values().copied().collect();
        files.retain(|file, _| named.contains(file));
        for file in files.values_mut() {
            let mood = Mood::of(random);
            for change in std::mem::take(&mut file.changes) {
                if mood.survives(random) {
                    change.survive(&mut file.kept, mood, random);
                }
            }
            file.seen = file.kept.clone();
        }
    }

    /// The files there are, with their lengths.
    pub(super) fn files(&self) -> BTreeMap<String, u64> {
        let disk = self.disk();
        disk.names.iter().map(|(path, file)| (path.clone(), disk.files[file].seen.len() as u64)).collect()
    }

    /// A file's bytes, as programs see them.
    pub(super) fn bytes(&self, path: &str) -> Option<Vec<u8>> {
        let disk = self.disk();
        Some(disk.files.get(disk.names.get(path)?)?.seen.clone())
    }

    /// Turns a bit of a file, on the disk and for everyone who reads.
    pub(super) fn rot(&self, path: &str, at: u64, bit: u64) {
        let mut disk = self.disk();
        let number = disk.names[path];
        let Some(file) = disk.files.get_mut(&number) else { return };
        for image in [&mut file.seen, &mut file.kept] {
            if let Some(byte) = image.get_mut(at as usize) {
                *byte ^= 1 << bit;
            }
        }
    }
}

/// How much of what was not synced survives one power cut: disks differ.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mood {
    All,
    Nothing,
    Some,
}

impl Mood {
    fn of(random: &mut Random) -> Self {
        *random.pick(&[Self::All, Self::Nothing, Self::Some, Self::Some])
    }

    fn survives(self, random: &mut Random) -> bool {
        match self {
            Self::All => true,
            Self::Nothing => false,
            Self::Some => random.chance(500),
        }
    }
}

impl Change {
    fn apply(&self, image: &mut Vec<u8>) {
        match self {
            Self::Write(offset, bytes) => put(image, *offset, bytes),
            Self::Truncate(len) => image.truncate(*len),
        }
    }

    /// Survives a power cut: wholly, up to some byte, or in some of its sectors.
    fn survive(&self, image: &mut Vec<u8>, mood: Mood, random: &mut Random) {
        let Self::Write(offset, bytes) = self else { return self.apply(image) };
        if mood == Mood::All || random.chance(300) {
            return self.apply(image);
        }
        if random.chance(500) {
            let cut = random.below(bytes.len() as u64 + 1) as usize;
            return put(image, *offset, &bytes[..cut]);
        }
        // The file grew, and what was to be written in some sectors never came: they read as they did before, or as zeros.
        let end = offset + bytes.len();
        if image.len() < end && random.chance(500) {
            grow(image, end);
        }
        let mut at = *offset;
        while at < end {
            let stop = (at / SECTOR + 1) * SECTOR;
            let stop = stop.min(end);
            if random.chance(500) {
                put(image, at, &bytes[at - offset..stop - offset]);
            }
            at = stop;
        }
    }
}

fn put(image: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    if bytes.is_empty() {
        return;
    }
    if image.len() == offset {
        return image.extend_from_slice(bytes);
    }
    let end = offset + bytes.len();
    grow(image, end);
    image[offset..end].copy_from_slice(bytes);
}

/// Fills up with zeros to the length.
fn grow(image: &mut Vec<u8>, len: usize) {
    let zeros = vec![0; len.saturating_sub(image.len())];
    image.extend_from_slice(&zeros);
}

fn missing(path: &str) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, format!("simulated: there is no file {path}"))
}

impl Volume for SimVolume {
    fn create(&self, path: &str) -> io::Result<Arc<dyn VolumeFile>> {
        let number = self.run("create", (path, 0, 0), Exposure::Grows, |disk, fault| {
            if let Some(cause) = fault {
                return Err(cause.into());
            }
            if disk.names.contains_key(path) {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            disk.next += 1;
            let number = disk.next;
            disk.files.insert(number, File::default());
            disk.names.insert(path.to_owned(), number);
            disk.entries.push(Entry::Created(path.to_owned(), number));
            Ok(number)
        })?;
        Ok(Arc::new(SimFile { volume: self.clone(), number, path: path.to_owned() }))
    }

    fn open(&self, path: &str) -> io::Result<Arc<dyn VolumeFile>> {
        let number = self.run("open", (path, 0, 0), Exposure::Reads, |disk, fault| match fault {
            Some(cause) => Err(cause.into()),
            None => disk.names.get(path).copied().ok_or_else(|| missing(path)),
        })?;
        Ok(Arc::new(SimFile { volume: self.clone(), number, path: path.to_owned() }))
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let mut found = self.run("list", ("", 0, 0), Exposure::Reads, |disk, fault| match fault {
            Some(cause) => Err(cause.into()),
            None => Ok(disk.names.keys().cloned().collect::<Vec<_>>()),
        })?;
        // In any order, says the trait.
        self.world.random(|random| {
            for at in (1..found.len()).rev() {
                found.swap(at, random.below(at as u64 + 1) as usize);
            }
        });
        Ok(found)
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        self.run("remove", (path, 0, 0), Exposure::Changes, |disk, fault| {
            if let Some(cause) = fault {
                return Err(cause.into());
            }
            let number = disk.names.remove(path).ok_or_else(|| missing(path))?;
            disk.entries.push(Entry::Removed(path.to_owned(), number));
            Ok(())
        })
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.run("rename", (from, 0, 0), Exposure::Changes, |disk, fault| {
            if let Some(cause) = fault {
                return Err(cause.into());
            }
            let number = disk.names.remove(from).ok_or_else(|| missing(from))?;
            disk.names.insert(to.to_owned(), number);
            disk.entries.push(Entry::Renamed(from.to_owned(), to.to_owned(), number));
            Ok(())
        })
    }

    fn sync_folder(&self, path: &str) -> io::Result<()> {
        let synced = folder(path);
        self.run("sync folder", (synced, 0, 0), Exposure::Changes, |disk, fault| {
            if let Some(cause) = fault {
                return Err(cause.into());
            }
            let entries = std::mem::take(&mut disk.entries);
            for entry in entries {
                if entry.folders().contains(&synced) {
                    entry.apply(&mut disk.kept_names);
                } else {
                    disk.entries.push(entry);
                }
            }
            disk.kept_folders.insert(synced.to_owned());
            Ok(())
        })
    }
}

struct SimFile {
    volume: SimVolume,
    number: u64,
    path: String,
}

impl SimFile {
    fn run<T>(
        &self,
        what: &'static str,
        range: (u64, u64),
        exposed: Exposure,
        work: impl FnOnce(&mut File, Option<Cause>) -> io::Result<T>,
    ) -> io::Result<T> {
        self.volume.run(what, (&self.path, range.0, range.1), exposed, |disk, fault| {
            // A removed file lives on for who has it open.
            let file = disk.files.get_mut(&self.number).ok_or_else(|| missing(&self.path))?;
            work(file, fault)
        })
    }
}

impl VolumeFile for SimFile {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.volume.world.trace(bytes);
        let partly = self.volume.world.random(|random| random.below(bytes.len() as u64 + 1)) as usize;
        self.run("write", (offset, bytes.len() as u64), Exposure::Grows, |file, fault| {
            // A write that fails may have written some of it.
            let done = if fault.is_some() { &bytes[..partly] } else { bytes };
            let change = Change::Write(offset as usize, Bytes::copy_from_slice(done));
            change.apply(&mut file.seen);
            file.changes.push(change);
            fault.map_or(Ok(()), |cause| Err(cause.into()))
        })
    }

    fn read_at(&self, offset: u64, len: usize) -> io::Result<Bytes> {
        self.run("read", (offset, len as u64), Exposure::Reads, |file, fault| match fault {
            Some(cause) => Err(cause.into()),
            None => {
                let begin = (offset as usize).min(file.seen.len());
                let end = (begin + len).min(file.seen.len());
                Ok(Bytes::copy_from_slice(&file.seen[begin..end]))
            }
        })
    }

    fn len(&self) -> io::Result<u64> {
        self.run("length", (0, 0), Exposure::Reads, |file, fault| match fault {
            Some(cause) => Err(cause.into()),
            None => Ok(file.seen.len() as u64),
        })
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.run("truncate", (len, 0), Exposure::Changes, |file, fault| {
            if let Some(cause) = fault {
                return Err(cause.into());
            }
            let change = Change::Truncate(len as usize);
            change.apply(&mut file.seen);
            file.changes.push(change);
            Ok(())
        })
    }

    fn sync(&self) -> io::Result<()> {
        let world = &self.volume.world;
        self.run("sync", (0, 0), Exposure::Changes, |file, fault| {
            let changes = std::mem::take(&mut file.changes);
            match fault {
                None => changes.iter().filter(|_| !world.loses_write()).for_each(|change| change.apply(&mut file.kept)),
                // What a failed sync did not write is not tried again by the next one, as Linux has it.
                Some(_) => {
                    changes.iter().filter(|_| world.chance(500)).for_each(|change| change.apply(&mut file.kept));
                }
            }
            fault.map_or(Ok(()), |cause| Err(cause.into()))
        })
    }
}
