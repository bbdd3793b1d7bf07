//! Repair from a second copy: a chunk that is stored elsewhere too, or was put again, stands in for the damaged one; a
//! directory is made again from the heads of its groups, and they from it.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::Pace;
use super::rebuild::agrees;
use super::verify::verify;
use crate::format::damage::{DamageRow, WHOLE};
use crate::format::manifest::{self, Location, Term};
use crate::format::pack::{Directory, Group, MAGIC};
use crate::format::row::{self, PackRow, PackState, key};
use crate::meta::{MetaError, Transaction};
use crate::model::{Digest, PackId};
use crate::store::error::{StoreError, chain};
use crate::store::gc::roots::{Root, Roots, each_term};
use crate::store::ingest::Content;
use crate::store::recover::read_groups;
use crate::store::{Inner, Store};
use crate::sys::volume::VolumeFile;
use crate::sys::worker::blocking;

/// Rows of packs read at once.
const PAGE: usize = 256;
/// Tries to rewrite a row while epochs change.
const TRIES: usize = 8;
/// Failures that a report names.
const FAILURES_MAX: usize = 100;

/// What was repaired.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepairReport {
    /// Damaged chunks of which another copy was found.
    pub copies: u64,
    /// Objects and parts that refer to good copies now.
    pub rewritten: u64,
    /// Directories of packs that were made again.
    pub directories: u64,
    /// What could not be done, and why.
    pub failures: Vec<String>,
}

/// Where good copies are, of damaged chunks.
type Copies = BTreeMap<Location, Location>;

impl Store {
    /// Repairs what can be repaired. What has no second copy stays as it is, and is told until it has one.
    pub async fn repair(&self) -> Result<RepairReport, StoreError> {
        let inner = &self.inner;
        let mut report = RepairReport::default();
        let damage = inner.all_damage().await?;
        if damage.is_empty() {
            return Ok(report);
        }
        let _activity = inner.activities.begin();
        // What was put again is in the index then.
        inner.packer.seal().await?;
        for (at, _) in damage.iter().filter(|(at, _)| at.chunk == WHOLE) {
            match inner.repair_directory(at.pack).await {
                Ok(done) => report.directories += u64::from(done),
                Err(error @ (StoreError::Closed | StoreError::Meta(_))) => return Err(error),
                Err(error) => report.failures.push(format!("pack {}: {}", at.pack, chain(&error))),
            }
        }
        // What a directory that was made again has shown is among it now.
        let damage = if report.directories > 0 { inner.all_damage().await? } else { damage };
        let copies = inner.find_copies(&damage).await?;
        report.copies = copies.len() as u64;
        if !copies.is_empty() {
            inner.rewrite_all(&copies, &mut report).await?;
        }
        report.failures.truncate(FAILURES_MAX);
        Ok(report)
    }
}

impl Inner {
    /// Finds good copies of damaged chunks: where the index has them now, else in any pack.
    async fn find_copies(&self, damage: &[(Location, DamageRow)]) -> Result<Copies, StoreError> {
        let bad: BTreeSet<(PackId, u32)> = damage.iter().map(|(at, _)| (at.pack, at.chunk)).collect();
        let mut wanted: BTreeMap<Digest, Vec<Location>> = BTreeMap::new();
        for (at, row) in damage {
            if let Some(digest) = row.digest {
                wanted.entry(digest).or_default().push(*at);
            }
        }
        let mut copies = Copies::new();
        let mut unknown = BTreeMap::new();
        for (digest, places) in wanted {
            let indexed = self.meta.get(&key::chunk(&digest)).await?;
            let at = indexed.and_then(|bytes| row::decode_location(&bytes).ok());
            match at.filter(|at| !bad.contains(&(at.pack, at.chunk))) {
                Some(at) if self.is_usable(at.pack).await? && self.is_good(at, &digest).await => {
                    copies.extend(places.iter().map(|place| (*place, at)));
                }
                _ => drop(unknown.insert(digest, places)),
            }
        }
        self.search_packs(unknown, &bad, &mut copies).await?;
        Ok(copies)
    }

    /// Looks for chunks in the directories of all packs.
    async fn search_packs(
        &self,
        mut wanted: BTreeMap<Digest, Vec<Location>>,
        bad: &BTreeSet<(PackId, u32)>,
        copies: &mut Copies,
    ) -> Result<(), StoreError> {
        let mut start = b"p/".to_vec();
        while !wanted.is_empty() {
            let rows = self.meta.scan(&start, b"p0", PAGE).await?;
            for (row_key, value) in &rows {
                let Some(pack) = row_key.last_chunk::<16>().map(|id| PackId(*id)) else { continue };
                let Ok(row) = PackRow::decode(value) else { continue };
                if row.state != PackState::Sealed {
                    continue;
                }
                let Ok(directory) = self.read_directory(pack, &row).await else { continue };
                for (chunk, entry) in (0..).zip(&directory.entries) {
                    let at = Location { pack, chunk };
                    if wanted.contains_key(&entry.digest)
                        && !bad.contains(&(pack, chunk))
                        && self.is_good(at, &entry.digest).await
                    {
                        let places = wanted.remove(&entry.digest).unwrap_or_default();
                        copies.extend(places.iter().map(|place| (*place, at)));
                    }
                }
            }
            match rows.last() {
                Some((last, _)) if rows.len() == PAGE => start = [last, &b"\0"[..]].concat(),
                _ => break,
            }
        }
        Ok(())
    }

    /// Whether the pack may be relied on until the repair ends: one that was condemned comes back, unless it is going.
    async fn is_usable(&self, pack: PackId) -> Result<bool, StoreError> {
        Ok(self.standing.usable(BTreeSet::from([pack])).await?.contains(&pack))
    }

    /// Whether the chunk can be read there, and is this one.
    async fn is_good(&self, at: Location, digest: &Digest) -> bool {
        let is_this = match self.chunks(at.pack, at.chunk).await {
            Ok(chunks) => chunks.entry(at.chunk).is_some_and(|entry| entry.digest == *digest),
            Err(_) => false,
        };
        is_this && self.chunk(at).await.is_ok()
    }

    async fn rewrite_all(&self, copies: &Copies, report: &mut RepairReport) -> Result<(), StoreError> {
        let packs: BTreeSet<PackId> = copies.keys().map(|at| at.pack).collect();
        let mut roots = Roots::all();
        while let Some(page) = roots.next(self).await? {
            for root in &page {
                match self.rewrite(root, copies, &packs).await {
                    Ok(done) => report.rewritten += u64::from(done),
                    Err(error @ (StoreError::Closed | StoreError::DiskFull | StoreError::Meta(_))) => {
                        return Err(error);
                    }
                    Err(error) => report.failures.push(format!("{}: {}", root.name(), chain(&error))),
                }
            }
        }
        Ok(())
    }

    /// Lets one row refer to good copies, if it refers to a damaged chunk that has one and nobody changes it meanwhile.
    async fn rewrite(&self, root: &Root, copies: &Copies, packs: &BTreeSet<PackId>) -> Result<bool, StoreError> {
        let mut terms: Vec<Term> = Vec::new();
        let read = each_term(self, root, |some| {
            terms.extend(some);
            Ok(())
        });
        match read.await {
            // Its manifest went while it was read: somebody else has changed it.
            Err(StoreError::CorruptRow(_)) => return Ok(false),
            other => other?,
        }
        let has_copy = |term: &Term, chunk| copies.contains_key(&Location { pack: term.pack, chunk });
        if !terms.iter().any(|term| packs.contains(&term.pack) && term.chunks().any(|chunk| has_copy(term, chunk))) {
            return Ok(false);
        }
        let mut repaired = Vec::with_capacity(terms.len());
        for term in terms {
            if !term.chunks().any(|chunk| has_copy(&term, chunk)) {
                manifest::push_term(&mut repaired, term);
                continue;
            }
            if term.repeats {
                let at = copies[&Location { pack: term.pack, chunk: term.first }];
                manifest::push_term(&mut repaired, Term { pack: at.pack, first: at.chunk, ..term });
                continue;
            }
            let chunks = self.chunks(term.pack, term.first).await?;
            for chunk in term.chunks() {
                let at = Location { pack: term.pack, chunk };
                let what = || "the pack has no such chunk".to_owned();
                let entry =
                    chunks.entry(chunk).ok_or_else(|| StoreError::Corrupt { pack: at.pack, chunk, what: what() })?;
                manifest::push(&mut repaired, copies.get(&at).copied().unwrap_or(at), entry.raw_len);
            }
        }
        let needed: BTreeSet<PackId> = repaired.iter().map(|term| term.pack).collect();
        let body = self.lay_down(Content::Terms(repaired)).await?;
        let swapped = self.swap(root, root.moved_to(body.clone()), &needed).await;
        match &swapped {
            Ok(true) => self.drop_manifest(root.body()).await,
            Ok(false) => self.drop_manifest(&body).await,
            // It may have happened: then the row names the new manifest.
            Err(error) => self.give_up_manifest(&body, error).await,
        }
        swapped
    }

    async fn swap(&self, root: &Root, new: Bytes, packs: &BTreeSet<PackId>) -> Result<bool, StoreError> {
        for _ in 0..TRIES {
            let epoch = self.standing.touch(packs).await?;
            let tx = Transaction::new()
                .expect(key::epoch(), epoch)
                .expect(&root.key[..], Some(root.bytes.clone()))
                .put(&root.key[..], new.clone());
            match self.meta.commit(tx).await {
                Ok(()) => return Ok(true),
                Err(MetaError::Conflict) => {}
                Err(error) => return Err(error.into()),
            }
            if self.meta.get(&root.key).await?.as_ref() != Some(&root.bytes) {
                return Ok(false);
            }
        }
        Ok(false)
    }

    /// Makes a damaged directory again, where the pack's groups still say what its row says.
    pub(super) async fn repair_directory(&self, pack: PackId) -> Result<bool, StoreError> {
        let Some(bytes) = self.meta.get(&key::pack(pack)).await? else { return Ok(false) };
        let row = PackRow::decode(&bytes)?;
        if !matches!(row.state, PackState::Sealed | PackState::Condemned) {
            return Ok(false);
        }
        if !matches!(self.read_directory(pack, &row).await, Err(StoreError::CorruptRow(_))) {
            return Ok(false);
        }
        self.restore_directory(pack, &row).await?;
        // Its chunks could not be looked at as long as nothing said where they are.
        let verdict = verify(self, pack, &row, true, &mut Pace::new(None)).await?;
        self.write_down(pack, &verdict, &[]).await?;
        self.index_pack(pack).await?;
        self.forgive(&[Location { pack, chunk: WHOLE }]).await?;
        Ok(true)
    }

    /// Writes a directory out of the pack's groups over a damaged one.
    pub(super) async fn restore_directory(&self, pack: PackId, row: &PackRow) -> Result<Directory, StoreError> {
        let directory = from_groups(self, pack, row.directory_offset, row.directory_offset).await?;
        if !agrees(&directory, row) {
            let what = "its directory is damaged, and its groups do not say what the list of packs says".to_owned();
            return Err(StoreError::Corrupt { pack, chunk: 0, what });
        }
        write_directory(self, &directory).await?;
        tracing::info!(%pack, "made a damaged directory again from the pack's groups");
        Ok(directory)
    }

    /// Writes group heads, and the first bytes, again, out of the directory.
    pub(super) async fn repair_heads(&self, directory: &Directory, heads: Vec<Range<u64>>) -> Result<(), StoreError> {
        let pack = directory.pack;
        let mut writes = Vec::with_capacity(heads.len());
        for gap in heads {
            if gap.start == 0 {
                writes.push((0, MAGIC.to_vec()));
                continue;
            }
            let Some(first) = directory.entries.iter().position(|entry| entry.offset == gap.end) else { continue };
            // A head is as long as its group has chunks.
            let len = (gap.end - gap.start) as usize;
            let count = (1..=directory.entries.len() - first).find(|count| Group::head_len(*count) == len);
            let Some(count) = count else { continue };
            let entries = directory.entries[first..first + count].to_vec();
            // Of a sealed pack all is durable; a head may say no more than what is before it.
            let group = Group { durable: gap.start, entries };
            writes.push((gap.start, group.encode(pack)));
        }
        let write = move |file: &dyn VolumeFile| {
            for (at, head) in &writes {
                file.write_at(*at, head)?;
            }
            file.sync()
        };
        self.packs.with(pack, "repair a pack", write).await
    }
}

/// A pack's directory, out of the groups in its first `len` bytes, of which `durable` are known to have been durable.
pub(super) async fn from_groups(inner: &Inner, pack: PackId, len: u64, durable: u64) -> Result<Directory, StoreError> {
    let bytes = inner.packs.read(pack, 0, len).await?;
    let (entries, _) = blocking(move || read_groups(pack, &bytes, durable)).await.map_err(StoreError::step)??;
    Ok(Directory { pack, entries })
}

/// Writes a pack's directory behind its last chunk, durably; answers the file's length.
pub(super) async fn write_directory(inner: &Inner, directory: &Directory) -> Result<u64, StoreError> {
    let (tail, offset) = (directory.encode(), directory.offset());
    let bytes = offset + tail.len() as u64;
    let write = move |file: &dyn VolumeFile| {
        // The bytes first: a crash in between leaves what the groups say all the same.
        file.write_at(offset, &tail)?;
        file.truncate(bytes)?;
        file.sync()
    };
    inner.packs.with(directory.pack, "repair a pack", write).await?;
    Ok(bytes)
}
