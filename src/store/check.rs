//! The check of all that is stored: packs against their rows and their own checksums, every chunk against its digest,
//! every object's manifest against the packs.

use std::collections::{HashMap, HashSet};

use super::care::{BadChunk, Pace, Sweep, verify};
use super::error::StoreError;
use super::stats::{Met, Walk};
use super::types::{FsckError, FsckOptions, FsckReport};
use super::{Inner, Store};
use crate::format::manifest::{Location, Term};
use crate::format::row::{self, Body, PackRow, PackState, key};
use crate::meta::Transaction;
use crate::model::PackId;
use crate::model::limit::TRANSACTION_KEYS_MAX;

/// Rows read at once.
const PAGE: usize = 256;
/// Errors that one report holds; a store with more is past listing.
const ERRORS_MAX: usize = 10_000;

/// What is known of a pack after it was looked at.
struct Seen {
    /// Lengths of its chunks.
    raw_lens: Vec<u32>,
    /// The chunks that are damaged.
    bad: HashSet<u32>,
    /// Where it was in its life: nothing may need one that is condemned or being removed.
    state: PackState,
}

struct Check<'a> {
    inner: &'a Inner,
    options: FsckOptions,
    report: FsckReport,
    packs: HashMap<PackId, Option<Seen>>,
}

impl Store {
    /// Checks the store while it runs. With `data` every pack is read whole; without, only directories and manifests.
    pub async fn fsck(&self, options: FsckOptions) -> Result<FsckReport, StoreError> {
        // What is on disk is listed before the rows: a pack that is published in between is then in the rows.
        // So is what is open, which is sealed first.
        self.inner.packer.seal().await?;
        // What it sees stays until it ends.
        let _activity = self.inner.activities.begin();
        let on_disk: HashSet<PackId> = self.inner.packs.list().await?.into_iter().collect();
        let mut check = Check { inner: &self.inner, options, report: FsckReport::default(), packs: HashMap::new() };
        check.all_packs().await?;
        let mut orphans: Vec<PackId> = on_disk.into_iter().filter(|pack| !check.packs.contains_key(pack)).collect();
        orphans.sort_unstable();
        for pack in orphans {
            // A pack that was being published when the rows were read has its row by now.
            if self.inner.meta.get(&key::pack(pack)).await?.is_none() {
                check.report.orphans.push(pack);
            }
        }
        check.all_objects().await?;
        check.all_index_rows().await?;
        check.forget_unreadable().await?;
        Ok(check.report)
    }
}

impl Check<'_> {
    fn error(&mut self, pack: Option<PackId>, chunk: Option<u32>, object: Option<String>, what: impl Into<String>) {
        if self.report.errors.len() < ERRORS_MAX {
            self.report.errors.push(FsckError { pack, chunk, object, what: what.into() });
        }
    }

    async fn all_packs(&mut self) -> Result<(), StoreError> {
        let mut start = b"p/".to_vec();
        loop {
            let rows = self.inner.meta.scan(&start, b"p0", PAGE).await?;
            for (row_key, value) in &rows {
                let Some(id) = row_key.get(2..).and_then(|id| id.try_into().ok()) else {
                    self.error(None, None, None, "a row in the list of packs has no pack's id");
                    continue;
                };
                let pack = PackId(id);
                let seen = match PackRow::decode(value) {
                    Ok(row) => self.one_pack(pack, &row).await?,
                    Err(damage) => {
                        self.error(Some(pack), None, None, damage.to_string());
                        None
                    }
                };
                self.packs.insert(pack, seen);
            }
            match rows.last() {
                Some((last, _)) if rows.len() == PAGE => start = [last, &b"\0"[..]].concat(),
                _ => return Ok(()),
            }
        }
    }

    /// Takes the chunks of packs that cannot be read at all out of the index: bytes that are put again are stored again.
    async fn forget_unreadable(&self) -> Result<(), StoreError> {
        if self.packs.values().all(Option::is_some) {
            return Ok(());
        }
        let mut start = b"c/".to_vec();
        loop {
            let rows = self.inner.meta.scan(&start, b"c0", TRANSACTION_KEYS_MAX).await?;
            let lost = rows.iter().filter(|(_, value)| {
                row::decode_location(value).is_ok_and(|at| matches!(self.packs.get(&at.pack), Some(None)))
            });
            let tx = lost.fold(Transaction::new(), |tx, (key, _)| tx.delete(&key[..]));
            if !tx.is_empty() {
                self.inner.meta.commit(tx).await?;
            }
            match rows.last() {
                Some((last, _)) if rows.len() == TRANSACTION_KEYS_MAX => start = [last, &b"\0"[..]].concat(),
                _ => return Ok(()),
            }
        }
    }

    /// Looks at one pack; none when its directory cannot be used.
    async fn one_pack(&mut self, pack: PackId, row: &PackRow) -> Result<Option<Seen>, StoreError> {
        self.report.packs_checked += 1;
        if row.state == PackState::Open {
            let Some(open) = self.inner.packer.session().pack(pack) else {
                self.error(Some(pack), None, None, "it was cut off while it was filled, and could not be sealed since");
                return Ok(None);
            };
            let raw_lens = open.entries().iter().map(|entry| entry.raw_len).collect();
            return Ok(Some(Seen { raw_lens, bad: HashSet::new(), state: row.state }));
        }
        // Its file may have gone already. Whether anything needs it all the same is seen by the objects.
        let going = Seen { raw_lens: Vec::new(), bad: HashSet::new(), state: PackState::Deleting };
        if row.state == PackState::Deleting {
            return Ok(Some(going));
        }
        let verdict = verify(self.inner, pack, row, self.options.data, &mut Pace::new(None)).await?;
        if !verdict.whole.is_empty() && matches!(self.state_now(pack).await?, None | Some(PackState::Deleting)) {
            return Ok(Some(going));
        }
        self.report.chunks_checked += verdict.chunks;
        for what in &verdict.whole {
            self.error(Some(pack), None, None, what);
        }
        for head in &verdict.heads {
            let what = match head.start {
                0 => "its first bytes are not a pack's: the directory still says what is in it".to_owned(),
                at => format!("the head of the group at byte {at} is damaged: the directory still says what is in it"),
            };
            self.error(Some(pack), None, None, what);
        }
        let mut bad = HashSet::new();
        for BadChunk { chunk, digest, what } in verdict.bad {
            self.inner.distrust(&digest, Location { pack, chunk }, &what, false).await;
            self.error(Some(pack), Some(chunk), None, what);
            bad.insert(chunk);
        }
        let Some(directory) = verdict.directory else {
            self.inner.distrust_pack(pack, verdict.whole.first().map_or("it cannot be read", String::as_str)).await;
            return Ok(None);
        };
        if !self.options.data {
            // What an earlier look has found is told until it is repaired.
            for (at, row) in self.inner.damage_of(pack).await? {
                if row.needed && row.digest.is_some() {
                    self.error(Some(pack), Some(at.chunk), None, row.what);
                    bad.insert(at.chunk);
                }
            }
        }
        let raw_lens = directory.entries.iter().map(|entry| entry.raw_len).collect();
        Ok(Some(Seen { raw_lens, bad, state: row.state }))
    }

    /// Compares the index with the packs.
    async fn all_index_rows(&mut self) -> Result<(), StoreError> {
        let mut sweep = Sweep::new();
        while let Some(wrong) = sweep.next(self.inner).await? {
            for row in wrong {
                let (pack, chunk) = row.at.map_or((None, None), |at| (Some(at.pack), Some(at.chunk)));
                self.error(pack, chunk, None, row.what);
            }
        }
        Ok(())
    }

    async fn all_objects(&mut self) -> Result<(), StoreError> {
        let mut walk = Walk::new(None);
        while let Some(page) = walk.next(self.inner).await? {
            for met in page {
                match met {
                    Ok(met) => self.one_object(met).await?,
                    Err((name, damage)) => self.error(None, None, Some(name), damage.to_string()),
                }
            }
        }
        Ok(())
    }

    async fn one_object(&mut self, met: Met) -> Result<(), StoreError> {
        self.report.objects_checked += 1;
        if met.row.size == 0 || matches!(met.row.body, Body::Inline(_)) {
            return Ok(());
        }
        let name = format!("{}/{}", met.bucket, met.key);
        let terms = match self.inner.terms(&met.row.body, 0, met.row.size).await {
            Ok((terms, _)) => terms,
            Err(StoreError::CorruptRow(damage)) => {
                // Deleted or replaced since its row was read: its manifest went with it.
                if !self.inner.is_changed(&met).await? {
                    self.error(None, None, Some(name), damage.to_string());
                }
                return Ok(());
            }
            Err(other) => return Err(other),
        };
        let mut found: Vec<_> = terms.iter().filter_map(|term| self.wrong_with(term)).collect();
        found.dedup();
        for (pack, chunk, what) in found {
            // A pack that was published or found of use again since the list of packs was read.
            let seen = self.packs.get(&pack).map(|seen| seen.as_ref().map(|seen| seen.state));
            if chunk.is_none() && !matches!(seen, Some(None)) && self.is_live(pack).await? {
                continue;
            }
            self.error(Some(pack), chunk, Some(name.clone()), what);
        }
        Ok(())
    }

    async fn state_now(&self, pack: PackId) -> Result<Option<PackState>, StoreError> {
        let found = self.inner.meta.get(&key::pack(pack)).await?;
        Ok(found.and_then(|bytes| PackRow::decode(&bytes).ok()).map(|row| row.state))
    }

    /// Whether objects may need the pack now.
    async fn is_live(&self, pack: PackId) -> Result<bool, StoreError> {
        Ok(matches!(self.state_now(pack).await?, Some(PackState::Open | PackState::Sealed)))
    }

    fn wrong_with(&self, term: &Term) -> Option<(PackId, Option<u32>, &'static str)> {
        let seen = match self.packs.get(&term.pack) {
            None => return Some((term.pack, None, "the object needs a pack that is not in the list of packs")),
            Some(None) => return Some((term.pack, None, "the object needs a pack that cannot be read")),
            Some(Some(Seen { state: PackState::Deleting, .. })) => {
                return Some((term.pack, None, "the object needs a pack that is being removed"));
            }
            Some(Some(Seen { state: PackState::Condemned, .. })) => {
                return Some((
                    term.pack,
                    None,
                    "the object needs a pack that is condemned: run `bedplate store gc`, which rescues it",
                ));
            }
            Some(Some(seen)) => seen,
        };
        let lens: Option<Vec<u64>> =
            term.chunks().map(|chunk| seen.raw_lens.get(chunk as usize).map(|len| u64::from(*len))).collect();
        let Some(lens) = lens else {
            return Some((term.pack, Some(term.first), "the object needs a chunk that the pack does not have"));
        };
        let bytes = lens.iter().sum::<u64>() * if term.repeats { u64::from(term.count) } else { 1 };
        if bytes != term.bytes {
            return Some((term.pack, Some(term.first), "the object's manifest disagrees with the pack about lengths"));
        }
        let bad = term.chunks().find(|chunk| seen.bad.contains(chunk))?;
        Some((term.pack, Some(bad), "the object needs a damaged chunk"))
    }
}
