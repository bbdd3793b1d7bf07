//! The check of all that is stored: packs against their rows and their own checksums, every chunk against its digest,
//! every object's manifest against the packs.

use std::collections::{HashMap, HashSet};

use bytes::Bytes;

use super::error::StoreError;
use super::fetch::verified;
use super::stats::{Met, Walk};
use super::types::{FsckError, FsckOptions, FsckReport};
use super::{Inner, Store};
use crate::format::codec::Decoder;
use crate::format::manifest::{Location, Term};
use crate::format::pack::{Directory, Entry, MAGIC};
use crate::format::row::{self, Body, PackRow, PackState, key};
use crate::meta::Transaction;
use crate::model::limit::TRANSACTION_KEYS_MAX;
use crate::model::{Digest, PackId};
use crate::sys::worker::blocking;

/// Rows read at once.
const PAGE: usize = 256;
/// Stored bytes read at once.
const READ_BYTES: u64 = 4 * 1024 * 1024;
/// Errors that one report holds; a store with more is past listing.
const ERRORS_MAX: usize = 10_000;

/// What is known of a pack after it was looked at.
struct Seen {
    /// Lengths of its chunks.
    raw_lens: Vec<u32>,
    /// The chunks that are damaged.
    bad: HashSet<u32>,
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
        if row.state == PackState::Deleting {
            // It is on its way out, and nothing may refer to it.
            return Ok(None);
        }
        self.report.packs_checked += 1;
        if row.state == PackState::Open {
            let Some(open) = self.inner.packer.session().pack(pack) else {
                self.error(Some(pack), None, None, "it was cut off while it was filled, and could not be sealed since");
                return Ok(None);
            };
            let raw_lens = open.entries().iter().map(|entry| entry.raw_len).collect();
            return Ok(Some(Seen { raw_lens, bad: HashSet::new() }));
        }
        match self.inner.packs.size(pack).await {
            Ok(size) if size != row.bytes => {
                self.error(Some(pack), None, None, format!("its file has {size} bytes instead of {}", row.bytes));
            }
            Ok(_) => {}
            Err(StoreError::NoSuchPack(_)) => {
                // Condemned before the check began, it may have been deleted since.
                if row.state != PackState::Condemned
                    || self.inner.meta.get(&key::pack(pack)).await? == Some(row.encode())
                {
                    self.error(Some(pack), None, None, "its file is missing");
                }
                return Ok(None);
            }
            Err(other) => return Err(other),
        }
        let directory = match self.inner.read_directory(pack, row).await {
            Ok(directory) => directory,
            Err(StoreError::CorruptRow(damage)) => {
                self.error(Some(pack), None, None, damage.to_string());
                return Ok(None);
            }
            Err(error) => {
                self.error(Some(pack), None, None, error_text(&error));
                return Ok(None);
            }
        };
        let bad = if self.options.data { self.all_chunks(pack, &directory).await? } else { HashSet::new() };
        let raw_lens = directory.entries.iter().map(|entry| entry.raw_len).collect();
        Ok(Some(Seen { raw_lens, bad }))
    }

    /// Reads a pack front to back and checks each chunk; answers those that are damaged.
    async fn all_chunks(&mut self, pack: PackId, directory: &Directory) -> Result<HashSet<u32>, StoreError> {
        let mut bad = HashSet::new();
        match self.inner.packs.read(pack, 0, MAGIC.len() as u64).await {
            Ok(magic) if magic[..] == MAGIC[..] => {}
            _ => self.error(Some(pack), None, None, "its first bytes are not a pack's"),
        }
        let mut first = 0u32;
        while (first as usize) < directory.entries.len() {
            let rest = &directory.entries[first as usize..];
            let count = rest.iter().take_while(|entry| entry.end() - rest[0].offset <= READ_BYTES).count().max(1);
            let entries = rest[..count].to_vec();
            let digests: Vec<Digest> = entries.iter().map(|entry| entry.digest).collect();
            let bytes = self.inner.packs.read(pack, entries[0].offset, entries[count - 1].end()).await;
            let bytes = bytes.unwrap_or_else(|error| {
                self.error(Some(pack), Some(first), None, error_text(&error));
                Bytes::new()
            });
            let work = move || check_entries(&entries, &bytes);
            let damaged = blocking(work).await.map_err(StoreError::step)?;
            self.report.chunks_checked += count as u64;
            for (n, what) in damaged {
                let chunk = first + n;
                self.error(Some(pack), Some(chunk), None, what);
                self.inner.distrust(&digests[n as usize], Location { pack, chunk }).await;
                bad.insert(chunk);
            }
            first += count as u32;
        }
        Ok(bad)
    }

    async fn all_objects(&mut self) -> Result<(), StoreError> {
        let mut walk = Walk::new(None);
        loop {
            let page = walk.next(self.inner).await?;
            if page.is_empty() {
                return Ok(());
            }
            for met in page {
                match met {
                    Ok(met) => self.one_object(met).await?,
                    Err((name, damage)) => self.error(None, None, Some(name), damage.to_string()),
                }
            }
        }
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
                if self.inner.meta.get(&key::object(&met.bucket, &met.key)).await? == Some(met.row.encode()) {
                    self.error(None, None, Some(name), damage.to_string());
                }
                return Ok(());
            }
            Err(other) => return Err(other),
        };
        let mut found: Vec<_> = terms.iter().filter_map(|term| self.wrong_with(term)).collect();
        found.dedup();
        for (pack, chunk, what) in found {
            if chunk.is_none() && self.is_new(pack).await? {
                continue;
            }
            self.error(Some(pack), chunk, Some(name.clone()), what);
        }
        Ok(())
    }

    /// Whether a pack was published after the list of packs was read.
    async fn is_new(&self, pack: PackId) -> Result<bool, StoreError> {
        Ok(!self.packs.contains_key(&pack) && self.inner.meta.get(&key::pack(pack)).await?.is_some())
    }

    fn wrong_with(&self, term: &Term) -> Option<(PackId, Option<u32>, &'static str)> {
        let seen = match self.packs.get(&term.pack) {
            None => return Some((term.pack, None, "the object needs a pack that is not in the list of packs")),
            Some(None) => return Some((term.pack, None, "the object needs a pack that cannot be read")),
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

/// The chunks that are not what the directory says, by their place in `entries`.
fn check_entries(entries: &[Entry], bytes: &Bytes) -> Vec<(u32, &'static str)> {
    let mut damaged = Vec::new();
    let mut decoder = Decoder::new();
    for (n, entry) in (0..).zip(entries) {
        let at = (entry.offset - entries[0].offset) as usize;
        let end = at + entry.stored_len as usize;
        let stored = if end <= bytes.len() { bytes.slice(at..end) } else { Bytes::new() };
        if let Err(what) = verified(&mut decoder, entry, &stored) {
            damaged.push((n, what));
        }
    }
    damaged
}

/// An error with its causes, in one line.
fn error_text(error: &StoreError) -> String {
    let mut text = error.to_string();
    let mut next = std::error::Error::source(error);
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}
