//! Bits that turn in stored packs: what each of them harms, and what of it is harmed now.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use bedplate::format::codec::Decoder;
use bedplate::format::digest::chunk_digest;
use bedplate::format::manifest::Location;
use bedplate::format::pack::{Directory, Entry, Group, MAGIC};
use bedplate::format::row::{PackRow, PackState};
use bedplate::model::PackId;
use bytes::Bytes;

use super::ground::{path, under};
use super::random::Random;
use super::rows::Rows;
use super::volume::SimVolume;

/// The packs in which a bit has turned, ever.
#[derive(Default)]
pub(super) struct Decay {
    packs: BTreeMap<PackId, Turned>,
}

/// What turned in one pack.
struct Turned {
    /// The pack's directory, from before.
    directory: Directory,
    /// Chunks of frames that were hit.
    chunks: BTreeSet<u32>,
    /// The directory was hit.
    directory_hit: bool,
}

/// What is harmed in one pack now.
#[derive(Debug)]
pub(super) struct Harm {
    pub directory: bool,
    /// The heads of groups: without the directory nothing but they say what is in the pack.
    pub heads: bool,
    /// The first bytes.
    pub magic: bool,
    pub chunks: BTreeSet<u32>,
}

impl Harm {
    pub(super) fn is_none(&self) -> bool {
        !self.directory && !self.heads && !self.magic && self.chunks.is_empty()
    }

    /// Whether the chunk cannot be read.
    pub(super) fn is_of(&self, chunk: u32) -> bool {
        self.directory || self.chunks.contains(&chunk)
    }
}

impl Decay {
    /// Turns a bit of some pack whose bytes are final. Answers what to tell.
    pub(super) fn turn(&mut self, rows: &Rows, volume: &SimVolume, random: &mut Random) -> Option<String> {
        let is_final = |row: &PackRow| matches!(row.state, PackState::Sealed | PackState::Condemned) && row.chunks > 0;
        let packs: Vec<(PackId, PackRow)> = under(rows, b"p/")
            .filter_map(|(key, value)| Some((PackId(key.try_into().ok()?), PackRow::decode(value).ok()?)))
            .filter(|(_, row)| is_final(row))
            .collect();
        if packs.is_empty() {
            return None;
        }
        let (pack, row) = random.pick(&packs);
        let bytes = volume.bytes(&path(*pack))?;
        if !self.packs.contains_key(pack) {
            let directory = Directory::decode(bytes.get(row.directory_offset as usize..)?).ok()?;
            self.packs.insert(*pack, Turned { directory, chunks: BTreeSet::new(), directory_hit: false });
        }
        let turned = self.packs.get_mut(pack)?;
        let entries = &turned.directory.entries;
        let (what, range) = match random.weighted(&[12, 2, 2, 1]) {
            0 => {
                let hit = random.pick(entries);
                ("a chunk", hit.offset..hit.end())
            }
            1 => ("the directory", row.directory_offset..row.bytes),
            2 => ("a group's head", random.pick(&heads(entries)).clone()),
            _ => ("the first bytes", 0..MAGIC.len() as u64),
        };
        let at = range.start + random.below(range.end - range.start);
        let hit = |entry: &Entry| (entry.offset..entry.end()).contains(&at);
        turned.chunks.extend((0..).zip(entries).filter(|(_, entry)| hit(entry)).map(|(chunk, _)| chunk));
        turned.directory_hit |= at >= row.directory_offset;
        volume.rot(&path(*pack), at, random.below(8));
        Some(format!("a bit of {what} of pack {pack} turns at {at}"))
    }

    /// The directory that the pack has but for the bits that turned; none where the pack's own may be read.
    pub(super) fn directory(&self, pack: PackId) -> Option<&Directory> {
        self.packs.get(&pack).map(|turned| &turned.directory)
    }

    /// Whether anything ever turned there that keeps the chunk from being read.
    pub(super) fn explains(&self, pack: PackId, chunk: u32) -> bool {
        self.packs.get(&pack).is_some_and(|turned| turned.directory_hit || turned.chunks.contains(&chunk))
    }

    /// Whether a text names a pack in which a bit has turned.
    pub(super) fn is_named_by(&self, text: &str) -> bool {
        self.packs.keys().any(|pack| text.contains(&pack.to_string()))
    }

    /// All packs that are harmed now, of those that have a file.
    pub(super) fn all(&self, volume: &SimVolume) -> BTreeMap<PackId, Harm> {
        let harms = self.packs.keys().filter_map(|pack| Some((*pack, self.harm(*pack, volume)?)));
        harms.filter(|(_, harm)| !harm.is_none()).collect()
    }

    /// What is harmed in a pack now; none without a file, and where nothing ever turned.
    pub(super) fn harm(&self, pack: PackId, volume: &SimVolume) -> Option<Harm> {
        let turned = self.packs.get(&pack)?;
        let bytes = Bytes::from(volume.bytes(&path(pack))?);
        let entries = &turned.directory.entries;
        let part = |range: Range<u64>| {
            let len = bytes.len() as u64;
            bytes.slice(range.start.min(len) as usize..range.end.min(len) as usize)
        };
        let says = |gap: &Range<u64>| {
            let first = entries.iter().position(|entry| entry.offset == gap.end).unwrap_or_default();
            let group = Group::decode(pack, gap.start, &part(gap.clone()));
            group.is_ok_and(|group| entries[first..].starts_with(&group.entries))
        };
        let mut decoder = Decoder::new();
        let mut is_whole = |entry: &Entry| {
            let stored = part(entry.offset..entry.end());
            let raw = decoder.chunk(entry.offset, entry.codec, &stored, entry.within, entry.raw_len);
            raw.is_ok_and(|raw| chunk_digest(&raw) == entry.digest)
        };
        let directory = Directory::decode(&part(turned.directory.offset()..u64::MAX));
        Some(Harm {
            directory: !directory.is_ok_and(|directory| directory == turned.directory),
            heads: !heads(entries).iter().all(says),
            magic: !bytes.starts_with(MAGIC),
            chunks: turned.chunks.iter().copied().filter(|chunk| !is_whole(&entries[*chunk as usize])).collect(),
        })
    }

    /// Those of the places whose chunks cannot be read now.
    pub(super) fn harmed(&self, places: impl IntoIterator<Item = Location>, volume: &SimVolume) -> BTreeSet<Place> {
        let mut harms = BTreeMap::new();
        let mut harmed = BTreeSet::new();
        for Location { pack, chunk } in places {
            let harm = harms.entry(pack).or_insert_with(|| self.harm(pack, volume));
            if harm.as_ref().is_some_and(|harm| harm.is_of(chunk)) {
                harmed.insert((pack, chunk));
            }
        }
        harmed
    }
}

/// A pack and a chunk of it.
pub(super) type Place = (PackId, u32);

/// Where the heads of groups lie: before each chunk that does not begin where the one before ends.
fn heads(entries: &[Entry]) -> Vec<Range<u64>> {
    let mut at = MAGIC.len() as u64;
    let mut heads = Vec::new();
    for entry in entries {
        if entry.offset > at {
            heads.push(at..entry.offset);
        }
        at = entry.end();
    }
    heads
}
