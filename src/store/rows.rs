//! All that a name shows, in the order of the keys: its layers' rows, merged.

use std::collections::{BTreeMap, VecDeque};

use super::Inner;
use super::error::StoreError;
use super::list::object_key;
use super::view::{Layer, View};
use crate::format::row::{ObjectRow, key};
use crate::meta::prefix_end;
use crate::model::ObjectKey;

/// Rows of the first scan; later ones double up to the most, as long as nothing is skipped.
const SCAN_FIRST: usize = 16;
const SCAN_MOST: usize = 512;
/// Rows of what was that one step looks at, unless they are all of one key.
const PAST_MOST: usize = 1_024;

/// One layer's rows.
struct LayerRows {
    layer: Layer,
    /// The first key that was not looked at, and the beginning that all keys have.
    next: Vec<u8>,
    prefix: Vec<u8>,
    batch: usize,
    done: bool,
    ready: VecDeque<(Vec<u8>, ObjectRow)>,
}

impl LayerRows {
    fn new(layer: Layer, prefix: &[u8], start: &[u8]) -> Self {
        let (next, prefix) = (start.max(prefix).to_vec(), prefix.to_vec());
        Self { layer, next, prefix, batch: SCAN_FIRST, done: false, ready: VecDeque::new() }
    }

    /// Goes on from the key `start`.
    fn seek(&mut self, start: &[u8]) {
        while self.ready.front().is_some_and(|(key, _)| **key < *start) {
            self.ready.pop_front();
        }
        if self.ready.is_empty() && *self.next < *start {
            self.next = start.to_vec();
            self.batch = SCAN_FIRST;
        }
    }

    async fn peek(&mut self, inner: &Inner) -> Result<Option<&[u8]>, StoreError> {
        while self.ready.is_empty() && !self.done {
            self.step(inner).await?;
        }
        Ok(self.ready.front().map(|(key, _)| &key[..]))
    }

    /// Looks at the next keys: at what is, then at what was. Rows move from the one to the other, so that none is missed.
    async fn step(&mut self, inner: &Inner) -> Result<(), StoreError> {
        let base = key::objects(&self.layer.bucket);
        let (from, end) = ([&base[..], &self.next].concat(), prefix_end(&[&base[..], &self.prefix].concat()));
        let rows = if from < end { inner.meta.scan(&from, &end, self.batch).await? } else { Vec::new() };
        let mut stop = match rows.last() {
            Some((last, _)) if rows.len() == self.batch => Some([&last[base.len()..], b"\0"].concat()),
            _ => None,
        };
        let mut found = BTreeMap::new();
        if let Some(epoch) = self.layer.at {
            self.past(inner, epoch, &mut stop, &mut found).await?;
        }
        for (row_key, value) in &rows {
            let row_key = &row_key[base.len()..];
            let row = ObjectRow::decode(value)?;
            if stop.as_ref().is_none_or(|stop| row_key < &stop[..]) && self.layer.shows(&row) {
                found.insert(row_key.to_vec(), row);
            }
        }
        self.ready = found.into_iter().collect();
        self.batch = (self.batch * 2).min(SCAN_MOST);
        match stop {
            Some(stop) => self.next = stop,
            None => self.done = true,
        }
        Ok(())
    }

    /// What was, up to the key `stop`, which is brought nearer where there is much of it.
    async fn past(
        &self,
        inner: &Inner,
        epoch: u64,
        stop: &mut Option<Vec<u8>>,
        found: &mut BTreeMap<Vec<u8>, ObjectRow>,
    ) -> Result<(), StoreError> {
        let base = key::pasts(&self.layer.bucket);
        let mut from = [&base[..], &key::escaped(&self.next)].concat();
        let end = match stop {
            Some(stop) => [&base[..], &key::escaped(&*stop)].concat(),
            None => prefix_end(&[&base[..], &key::escaped(&self.prefix)].concat()),
        };
        let mut first: Option<Vec<u8>> = None;
        while from < end {
            let rows = inner.meta.scan(&from, &end, PAST_MOST).await?;
            let mut last = Vec::new();
            for (row_key, value) in &rows {
                let (_, object, replaced) = key::read_past(row_key)?;
                first.get_or_insert_with(|| object.clone());
                if replaced > epoch && !found.contains_key(&object) {
                    let row = ObjectRow::decode(value)?;
                    if self.layer.shows(&row) {
                        found.insert(object.clone(), row);
                    }
                }
                last = object;
            }
            match rows.last() {
                // The last key may have more rows: it is for the next step, unless it is the only one of this.
                Some(_) if rows.len() == PAST_MOST && first.as_ref() != Some(&last) => {
                    found.remove(&last);
                    *stop = Some(last);
                    return Ok(());
                }
                Some((row_key, _)) if rows.len() == PAST_MOST => from = [row_key, &b"\0"[..]].concat(),
                _ => return Ok(()),
            }
        }
        Ok(())
    }
}

/// The objects that a name shows, one after the other. What it shows as deleted is left out.
pub(super) struct Rows<'a> {
    inner: &'a Inner,
    layers: Vec<LayerRows>,
}

impl<'a> Rows<'a> {
    /// Of the keys that begin with `prefix`, from `start` on.
    pub(super) fn new(inner: &'a Inner, view: &View, prefix: &[u8], start: &[u8]) -> Self {
        let layers = view.layers.iter().map(|layer| LayerRows::new(layer.clone(), prefix, start)).collect();
        Self { inner, layers }
    }

    /// Goes on from the key `start`.
    pub(super) fn seek(&mut self, start: &[u8]) {
        self.layers.iter_mut().for_each(|layer| layer.seek(start));
    }

    /// The next object.
    pub(super) async fn next(&mut self) -> Result<Option<(ObjectKey, ObjectRow)>, StoreError> {
        loop {
            let mut least: Option<Vec<u8>> = None;
            for layer in &mut self.layers {
                if let Some(key) = layer.peek(self.inner).await?
                    && least.as_deref().is_none_or(|least| key < least)
                {
                    least = Some(key.to_vec());
                }
            }
            let Some(least) = least else { return Ok(None) };
            let mut shown = None;
            for layer in &mut self.layers {
                let row = layer.ready.pop_front_if(|(key, _)| *key == least);
                shown = shown.or(row);
            }
            if let Some((key, row)) = shown.filter(|(_, row)| !row.marker) {
                return Ok(Some((object_key(&key)?, row)));
            }
        }
    }
}
