//! Figures: what users stored, what that is after deduplication, and what it takes. They are counted from the rows when
//! asked for, so that they are right whatever was deleted or overwritten.

use std::collections::HashMap;

use bytes::Bytes;

use super::bucket::bucket_name;
use super::error::StoreError;
use super::list::object_key;
use super::types::Stats;
use super::view::past_object;
use super::{Inner, Store};
use crate::format::field::Damaged;
use crate::format::manifest::Term;
use crate::format::row::{Body, ObjectRow, PackRow, PackState, key};
use crate::meta::prefix_end;
use crate::model::{BucketName, ObjectKey, PackId};

/// Rows read at once.
const PAGE: usize = 256;

/// Which chunks of which packs are in use: one bit each.
#[derive(Default)]
pub(super) struct Marks(HashMap<PackId, Vec<u64>>);

impl Marks {
    pub(super) fn mark(&mut self, term: &Term) {
        let bits = self.0.entry(term.pack).or_default();
        let chunks = term.chunks();
        let words = (chunks.end as usize).div_ceil(64);
        if bits.len() < words {
            bits.resize(words, 0);
        }
        for chunk in chunks {
            bits[chunk as usize / 64] |= 1 << (chunk % 64);
        }
    }

    fn has(bits: &[u64], chunk: usize) -> bool {
        bits.get(chunk / 64).is_some_and(|word| word >> (chunk % 64) & 1 == 1)
    }
}

/// An object, or an older version of one, as the walk meets it.
pub(super) struct Met {
    pub(super) row_key: Bytes,
    pub(super) bucket: BucketName,
    pub(super) key: ObjectKey,
    pub(super) row: ObjectRow,
    pub(super) row_bytes: u64,
    /// Whether only snapshots show it.
    pub(super) past: bool,
}

/// Walks objects in order, then their older versions, then what snapshots keep of them, a page of rows at a time.
pub(super) struct Walk {
    /// What is still to be walked, the next one last.
    ranges: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Walk {
    /// Over one bucket, or all.
    pub(super) fn new(bucket: Option<&BucketName>) -> Self {
        let objects = bucket.map_or_else(|| b"o/".to_vec(), key::objects);
        let versions = bucket.map_or_else(|| b"v/".to_vec(), key::versions);
        let pasts = bucket.map_or_else(|| b"h/".to_vec(), key::pasts);
        let ranges = [pasts, versions, objects].map(|start| {
            let end = prefix_end(&start);
            (start, end)
        });
        Self { ranges: ranges.into() }
    }

    /// The next page; `None` at the end. Rows that cannot be read come with their key as text.
    pub(super) async fn next(
        &mut self,
        inner: &Inner,
    ) -> Result<Option<Vec<Result<Met, (String, Damaged)>>>, StoreError> {
        let Some((start, end)) = self.ranges.last_mut() else { return Ok(None) };
        let rows = inner.meta.scan(start, end, PAGE).await?;
        match rows.last() {
            Some((last, _)) if rows.len() == PAGE => *start = [last, &b"\0"[..]].concat(),
            _ => drop(self.ranges.pop()),
        }
        let met = rows.iter().map(|(row_key, value)| {
            meet(row_key, value).map_err(|damage| (String::from_utf8_lossy(row_key).replace('\0', "/"), damage))
        });
        Ok(Some(met.collect()))
    }
}

fn meet(row_key: &Bytes, value: &[u8]) -> Result<Met, Damaged> {
    let damaged = Damaged { what: "row key", why: "it holds no object's key" };
    let past = row_key.starts_with(b"h/");
    let (bucket, key) = if past {
        let (bucket, object, _) = past_object(row_key)?;
        (bucket, object)
    } else if row_key.starts_with(b"v/") {
        let (bucket, object, _) = key::read_version(row_key)?;
        (bucket_name(bucket)?, object_key(&object)?)
    } else {
        let split = row_key.iter().position(|byte| *byte == 0).ok_or(damaged)?;
        (bucket_name(row_key.get(2..split).ok_or(damaged)?)?, object_key(&row_key[split + 1..])?)
    };
    let row_bytes = (row_key.len() + value.len()) as u64;
    Ok(Met { row_key: row_key.clone(), bucket, key, row: ObjectRow::decode(value)?, row_bytes, past })
}

impl Store {
    /// Figures of the whole store, or of one bucket.
    pub async fn stats(&self, bucket: Option<&BucketName>) -> Result<Stats, StoreError> {
        if let Some(bucket) = bucket {
            self.inner.bucket_row(bucket).await?;
        }
        // What it sees stays until it ends.
        let _activity = self.inner.activities.begin();
        let mut stats = Stats::default();
        let mut marks = Marks::default();
        let mut walk = Walk::new(bucket);
        while let Some(page) = walk.next(&self.inner).await? {
            for met in page {
                let met = met.map_err(|(_, damage)| damage)?;
                stats.objects += u64::from(!met.row.marker && !met.past);
                stats.logical_bytes += if met.past { 0 } else { met.row.size };
                stats.metadata_bytes += met.row_bytes;
                match &met.row.body {
                    Body::Inline(bytes) => stats.unique_bytes += bytes.len() as u64,
                    _ if met.row.size == 0 => {}
                    body => match self.inner.terms(body, 0, met.row.size).await {
                        Ok((terms, _)) => terms.iter().for_each(|term| marks.mark(term)),
                        // Deleted or replaced since its row was read: its manifest went with it.
                        Err(StoreError::CorruptRow(_)) if self.inner.is_changed(&met).await? => {}
                        Err(error) => return Err(error),
                    },
                }
            }
        }
        let used_stored = self.count_marks(&marks, &mut stats).await?;
        let damage = self.inner.all_damage().await?;
        let counts = |pack: &PackId| bucket.is_none() || marks.0.contains_key(pack);
        stats.damaged = damage.iter().filter(|(at, row)| row.needed && counts(&at.pack)).count() as u64;
        if bucket.is_some() {
            stats.stored_bytes = used_stored;
            stats.packs = marks.0.len() as u64;
            return Ok(stats);
        }
        (stats.packs, stats.stored_bytes) = self.inner.all_packs().await?;
        stats.metadata_bytes = self.inner.meta.disk_bytes().await?;
        Ok(stats)
    }

    /// Adds the marked chunks to the figures; answers their stored bytes.
    async fn count_marks(&self, marks: &Marks, stats: &mut Stats) -> Result<u64, StoreError> {
        let mut used_stored = 0;
        for (pack, bits) in &marks.0 {
            let marked = bits.iter().map(|word| u64::from(word.count_ones())).sum::<u64>();
            stats.chunks += marked;
            let row = self.inner.meta.get(&key::pack(*pack)).await?.ok_or(StoreError::NoSuchPack(*pack))?;
            let row = PackRow::decode(&row)?;
            let open = self.inner.packer.session().pack(*pack);
            if open.is_none() && marked == u64::from(row.chunks) {
                stats.unique_bytes += row.raw_bytes;
                used_stored += row.directory_offset - crate::format::pack::MAGIC.len() as u64;
                continue;
            }
            let entries = match open {
                Some(open) => open.entries(),
                None => self.inner.directory(*pack, 0).await?.entries.clone(),
            };
            let used = entries.iter().enumerate().filter(|(chunk, _)| Marks::has(bits, *chunk));
            let mut frame = 0;
            for (_, entry) in used {
                stats.unique_bytes += u64::from(entry.raw_len);
                // Chunks that share a frame share its stored bytes.
                used_stored += if entry.offset == frame { 0 } else { u64::from(entry.stored_len) };
                frame = entry.offset;
            }
        }
        Ok(used_stored)
    }
}

impl Inner {
    /// Whether an object's row is another than the one that was met.
    pub(super) async fn is_changed(&self, met: &Met) -> Result<bool, StoreError> {
        Ok(self.meta.get(&met.row_key).await? != Some(met.row.encode()))
    }

    /// How many packs there are, and their bytes.
    async fn all_packs(&self) -> Result<(u64, u64), StoreError> {
        let (mut count, mut bytes) = (0, 0);
        let mut start = b"p/".to_vec();
        loop {
            let rows = self.meta.scan(&start, b"p0", PAGE).await?;
            for (row_key, value) in &rows {
                count += 1;
                let row = PackRow::decode(value)?;
                bytes += match row_key.last_chunk::<16>() {
                    Some(id) if row.state == PackState::Open => self.packs.size(PackId(*id)).await.unwrap_or(0),
                    _ => row.bytes,
                };
            }
            match rows.last() {
                Some((last, _)) if rows.len() == PAGE => start = [last, &b"\0"[..]].concat(),
                _ => return Ok((count, bytes)),
            }
        }
    }
}
