//! What lies under the store: its rows and its files, read by the documented formats alone. Sound is a store whose every name leads
//! to what it names; tidy is one that keeps nothing which nobody names.

use std::collections::{BTreeMap, BTreeSet};

use bedplate::format::manifest::Term;
use bedplate::format::pack::Directory;
use bedplate::format::row::{
    Body, BucketRow, ObjectRow, PackRow, PackState, PartRow, SnapshotRow, decode_location, decode_terms, key,
};
use bedplate::model::{BucketName, ObjectKey, PackId};

use super::decay::Decay;
use super::model::{Place, Violation, WRITE};
use super::rows::Rows;
use super::volume::SimVolume;

/// Below this part of a full pack a pack is small, and of small packs there are never as many for long.
const SMALL_PART: u64 = 4;
const SMALL_PACKS: usize = 4;

/// One pack.
pub(super) struct Pack {
    pub row: PackRow,
    /// Absent while the pack is open.
    pub directory: Option<Directory>,
    /// Its chunks that a root names.
    pub used: BTreeSet<u32>,
}

/// Rows and files.
pub(super) struct Ground {
    pub packs: BTreeMap<PackId, Pack>,
    files: BTreeSet<PackId>,
    /// Manifests that rows make up, and those that roots name.
    manifests: BTreeSet<Vec<u8>>,
    named: BTreeSet<Vec<u8>>,
    /// Uploads that are open, and those that have parts.
    uploads: BTreeSet<Vec<u8>>,
    parted: BTreeSet<Vec<u8>>,
    filling: usize,
    /// Rows of what objects were that no snapshot shows.
    forgotten: Vec<String>,
}

/// All rows whose keys begin so, without that beginning.
pub(super) fn under<'a>(rows: &'a Rows, prefix: &'a [u8]) -> impl Iterator<Item = (&'a [u8], &'a [u8])> {
    let begin = rows.range(prefix.to_vec()..).take_while(move |(key, _)| key.starts_with(prefix));
    begin.map(move |(key, value)| (&key[prefix.len()..], &value[..]))
}

fn id(bytes: &[u8]) -> Result<[u8; 16], Violation> {
    bytes.try_into().map_err(|_| format!("a key ends in {bytes:?}, which is no id"))
}

/// Where the pack's file is.
pub(super) fn path(pack: PackId) -> String {
    format!("{:02x}/{pack}.pack", pack.0[15])
}

/// The row that a key of a bucket, a branch or a snapshot shows.
fn row_of(rows: &Rows, (name, object): &Place) -> Option<ObjectRow> {
    let (bucket, at) = match name.snapshot() {
        None => (name.clone(), None),
        Some((bucket, snapshot)) => {
            let row = SnapshotRow::decode(rows.get(&key::snapshot(&bucket, &snapshot))?).ok()?;
            (bucket, Some(row.epoch))
        }
    };
    let row = BucketRow::decode(rows.get(&key::bucket(&bucket))?).ok()?;
    let below = row.origins.into_iter().map(|origin| (origin.bucket, Some(origin.epoch)));
    let mut layers = std::iter::once((bucket, at)).chain(below);
    layers.find_map(|(bucket, at)| row_in(rows, &bucket, object, at)).filter(|row| !row.is_tombstone())
}

/// The row of a bucket's key as it is, or as it was in an epoch.
fn row_in(rows: &Rows, bucket: &BucketName, object: &ObjectKey, at: Option<u64>) -> Option<ObjectRow> {
    let now = rows.get(&key::object(bucket, object)).and_then(|row| ObjectRow::decode(row).ok());
    let Some(epoch) = at else { return now };
    let prefix = key::past_of(bucket, object);
    let replaced = |(key, _): &(&[u8], &[u8])| <[u8; 8]>::try_from(*key).is_ok_and(|at| u64::from_be_bytes(at) > epoch);
    let past = under(rows, &prefix).find(replaced).and_then(|(_, row)| ObjectRow::decode(row).ok());
    now.into_iter().chain(past).find(|row| row.epoch <= epoch)
}

/// The terms of an object; none where there is none, or it is not of this write.
pub(super) fn terms_of(rows: &Rows, place: &Place, write: Option<u64>) -> Option<Vec<Term>> {
    let row = row_of(rows, place)?;
    if write.is_some_and(|write| row.described.headers.get(WRITE) != Some(&write.to_string())) {
        return None;
    }
    match row.body {
        Body::Inline(_) => None,
        Body::Terms(terms) => Some(terms),
        Body::Rows(manifest) => {
            let prefix = [&b"m/"[..], &manifest].concat();
            let parts = under(rows, &prefix).map(|(_, value)| decode_terms(value).map(|(terms, _)| terms));
            Some(parts.collect::<Result<Vec<_>, _>>().ok()?.concat())
        }
    }
}

impl Ground {
    /// Looks at everything; what cannot be read or does not lead anywhere is a violation.
    pub(super) fn survey(rows: &Rows, volume: &SimVolume, decay: &Decay) -> Result<Self, Violation> {
        let mut ground = Self {
            packs: BTreeMap::new(),
            files: BTreeSet::new(),
            manifests: under(rows, b"m/").filter_map(|(key, _)| key.get(..16).map(<[u8]>::to_vec)).collect(),
            named: BTreeSet::new(),
            uploads: BTreeSet::new(),
            parted: BTreeSet::new(),
            filling: under(rows, b"f/").count(),
            forgotten: Vec::new(),
        };
        for name in volume.files().keys() {
            let pack = name.split_once('/').and_then(|(_, file)| file.strip_suffix(".pack")?.parse().ok());
            ground.files.insert(pack.ok_or_else(|| format!("the file {name} is no pack"))?);
        }
        for (key, value) in under(rows, b"p/") {
            let pack = PackId(id(key)?);
            let row = PackRow::decode(value).map_err(|error| format!("pack {pack}: {error}"))?;
            let directory = directory(pack, &row, volume, decay).map_err(|what| format!("pack {pack}: {what}"))?;
            ground.packs.insert(pack, Pack { row, directory, used: BTreeSet::new() });
        }
        ground.index(rows)?;
        ground.roots(rows)?;
        Ok(ground)
    }

    /// Every index row leads to its chunk.
    fn index(&self, rows: &Rows) -> Result<(), Violation> {
        for (key, value) in under(rows, b"c/") {
            let at = decode_location(value).map_err(|error| error.to_string())?;
            let wrong = |what: &str| {
                format!("the index says that {} is chunk {} of {}, {what}", hex::encode(key), at.chunk, at.pack)
            };
            let pack = self.packs.get(&at.pack).ok_or_else(|| wrong("a pack that has no row"))?;
            let Some(directory) = &pack.directory else { continue };
            let entry = directory.entries.get(at.chunk as usize).ok_or_else(|| wrong("which has fewer"))?;
            if entry.digest.0 != *key {
                return Err(wrong("which is another chunk"));
            }
        }
        Ok(())
    }

    /// Every object and every part names chunks that are there.
    fn roots(&mut self, rows: &Rows) -> Result<(), Violation> {
        for (key, value) in under(rows, b"o/") {
            let row = ObjectRow::decode(value).map_err(|error| error.to_string())?;
            let name = String::from_utf8_lossy(key).replace('\0', "/");
            self.root(rows, &row.body).map_err(|what| format!("{name}: {what}"))?;
        }
        for (key, value) in under(rows, b"h/") {
            let row = ObjectRow::decode(value).map_err(|error| error.to_string())?;
            let past = [b"h/", key].concat();
            let (bucket, object, replaced) = key::read_past(&past).map_err(|error| error.to_string())?;
            let name = format!("{}/{}", String::from_utf8_lossy(bucket), String::from_utf8_lossy(&object));
            self.root(rows, &row.body).map_err(|what| format!("{name}, replaced in epoch {replaced}: {what}"))?;
            let bucket = rows.get(&[b"b/", bucket].concat()).and_then(|row| BucketRow::decode(row).ok());
            if !bucket.is_some_and(|bucket| bucket.snapshots.iter().any(|at| (row.epoch..replaced).contains(at))) {
                self.forgotten.push(name);
            }
        }
        for (key, value) in under(rows, b"u/") {
            match key.strip_prefix(b"p/") {
                Some(part) => {
                    let row = PartRow::decode(value).map_err(|error| error.to_string())?;
                    self.parted.insert(part[..16].to_vec());
                    self.root(rows, &row.body).map_err(|what| format!("part {}: {what}", hex::encode(part)))?;
                }
                None => drop(self.uploads.insert(key[key.len() - 16..].to_vec())),
            }
        }
        Ok(())
    }

    fn root(&mut self, rows: &Rows, body: &Body) -> Result<(), Violation> {
        match body {
            Body::Inline(_) => Ok(()),
            Body::Terms(terms) => terms.iter().try_for_each(|term| self.term(term)),
            Body::Rows(manifest) => {
                self.named.insert(manifest.to_vec());
                let prefix = [&b"m/"[..], manifest].concat();
                for (_, value) in under(rows, &prefix) {
                    let (terms, _) = decode_terms(value).map_err(|error| error.to_string())?;
                    terms.iter().try_for_each(|term| self.term(term))?;
                }
                Ok(())
            }
        }
    }

    fn term(&mut self, term: &Term) -> Result<(), Violation> {
        let Some(pack) = self.packs.get_mut(&term.pack) else {
            return Err(format!("it needs pack {}, which has no row", term.pack));
        };
        if !matches!(pack.row.state, PackState::Open | PackState::Sealed) {
            return Err(format!("it needs pack {}, which is {:?}", term.pack, pack.row.state));
        }
        if let Some(directory) = &pack.directory
            && term.chunks().end as usize > directory.entries.len()
        {
            return Err(format!("it needs chunks {:?} of pack {}, which has fewer", term.chunks(), term.pack));
        }
        pack.used.extend(term.chunks());
        Ok(())
    }

    /// Files that no row names.
    pub(super) fn orphans(&self) -> BTreeSet<PackId> {
        self.files.iter().filter(|pack| !self.packs.contains_key(pack)).copied().collect()
    }

    /// Nothing is kept that nobody names, after the garbage was collected and while nobody does anything.
    pub(super) fn is_tidy(&self, pack_bytes: u64) -> Result<(), Violation> {
        if let Some(pack) = self.packs.keys().find(|pack| !self.files.contains(pack)) {
            return Err(format!("pack {pack} has a row and no file"));
        }
        // Where more files lack a row than have one, it may be the rows that were lost: then the collector keeps them.
        let orphans = self.orphans();
        if !orphans.is_empty() && orphans.len() <= self.packs.len() {
            return Err(format!("no row names {orphans:?}"));
        }
        if let Some(name) = self.forgotten.first() {
            return Err(format!("what {name} was is kept, and no snapshot shows it"));
        }
        if self.filling > 0 {
            return Err(format!("{} packs are still to be sealed", self.filling));
        }
        let mut small = Vec::<PackId>::new();
        for (id, pack) in &self.packs {
            let Some(directory) = &pack.directory else { return Err(format!("pack {id} is {:?}", pack.row.state)) };
            if pack.row.state != PackState::Sealed {
                return Err(format!("pack {id} is {:?}", pack.row.state));
            }
            // Chunks that share a frame share its bytes.
            let frames: BTreeMap<u64, u64> = pack
                .used
                .iter()
                .map(|chunk| &directory.entries[*chunk as usize])
                .map(|entry| (entry.offset, u64::from(entry.stored_len)))
                .collect();
            let live: u64 = frames.values().sum();
            if pack.used.is_empty() || (live * 2 < pack.row.bytes && pack.used.len() * 4 < directory.entries.len() * 3)
            {
                return Err(format!("of {} bytes of pack {id} {live} are in use", pack.row.bytes));
            }
            small.extend((pack.row.bytes < pack_bytes / SMALL_PART).then_some(*id));
        }
        if small.len() >= SMALL_PACKS {
            return Err(format!("{small:?} are small packs that could be one"));
        }
        if let Some(manifest) = self.manifests.difference(&self.named).next() {
            return Err(format!("nothing names manifest {}", hex::encode(manifest)));
        }
        match self.parted.difference(&self.uploads).next() {
            Some(upload) => Err(format!("upload {} is gone, and its parts are not", hex::encode(upload))),
            None => Ok(()),
        }
    }
}

/// The directory of a pack that is not open; none of one that is, or whose file is being removed.
fn directory(pack: PackId, row: &PackRow, volume: &SimVolume, decay: &Decay) -> Result<Option<Directory>, Violation> {
    if row.state == PackState::Open {
        return Ok(None);
    }
    let Some(bytes) = volume.bytes(&path(pack)) else {
        return if row.state == PackState::Deleting { Ok(None) } else { Err("its file is missing".to_owned()) };
    };
    if bytes.len() as u64 != row.bytes {
        return Err(format!("its file has {} bytes and its row says {}", bytes.len(), row.bytes));
    }
    let directory = match decay.directory(pack) {
        Some(directory) => directory.clone(),
        None => Directory::decode(&bytes[row.directory_offset as usize..]).map_err(|error| error.to_string())?,
    };
    if directory.pack != pack || directory.entries.len() != row.chunks as usize {
        return Err("its directory is not the one that its row is about".to_owned());
    }
    Ok(Some(directory))
}
