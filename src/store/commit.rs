//! The one transaction that makes an object visible: conditions checked, packs touched and live, row written. And what follows from
//! it: the manifest rows of the object before it go.

use std::collections::BTreeSet;

use futures_util::FutureExt as _;

use super::Inner;
use super::error::StoreError;
use super::faults::Fault;
use super::ingest::Content;
use super::types::{ObjectInfo, Precondition};
use super::version::Succession;
use crate::format::field::Damaged;
use crate::format::manifest::Term;
use crate::format::row::{self, Body, ObjectRow, key};
use crate::meta::{MetaError, Transaction, prefix_end};
use crate::model::limit::TRANSACTION_KEYS_MAX;
use crate::model::{BucketName, ObjectKey, PackId};
use crate::sys::entropy;

/// Terms that stand in the object's own row; more go to manifest rows.
const TERMS_IN_ROW: usize = 16;
/// Terms in one manifest row: about 10 KiB.
const TERMS_IN_MANIFEST: usize = 1024;
/// Manifest rows in one transaction.
const MANIFESTS_AT_ONCE: usize = 64;
/// Tries against writers that keep changing the same object.
const TRIES: usize = 64;

impl Inner {
    /// Turns content into a row's body; long manifests are written to rows of their own first, which nobody reads
    /// before an object names them.
    pub(super) async fn lay_down(&self, content: Content) -> Result<Body, StoreError> {
        let terms = match content {
            Content::Inline(bytes) => return Ok(Body::Inline(bytes)),
            Content::Terms(terms) if terms.len() <= TERMS_IN_ROW => return Ok(Body::Terms(terms)),
            Content::Terms(terms) => terms,
        };
        let id = entropy::fresh_id();
        let mut end = 0;
        let rows: Vec<(Vec<u8>, &[Term])> = terms
            .chunks(TERMS_IN_MANIFEST)
            .map(|terms| {
                end += terms.iter().map(|term| term.bytes).sum::<u64>();
                (key::manifest(&id, end), terms)
            })
            .collect();
        for rows in rows.chunks(MANIFESTS_AT_ONCE) {
            let tx =
                rows.iter().fold(Transaction::new(), |tx, (key, terms)| tx.put(key.clone(), row::encode_terms(terms)));
            self.meta.commit(tx).await?;
        }
        Ok(Body::Rows(id))
    }

    /// All terms of a body, or those that cover its bytes from `start` to `end`, with the offset of the first.
    pub(super) async fn terms(&self, body: &Body, start: u64, end: u64) -> Result<(Vec<Term>, u64), StoreError> {
        let id = match body {
            Body::Inline(_) => return Ok((Vec::new(), 0)),
            Body::Terms(terms) => return Ok((terms.clone(), 0)),
            Body::Rows(id) => id,
        };
        let stop = prefix_end(&key::manifests(id));
        let mut from = key::manifest(id, start + 1);
        let mut stretch = Stretch::from(start);
        loop {
            let rows = self.meta.scan(&from, &stop, MANIFESTS_AT_ONCE).await?;
            for (key, value) in &rows {
                if stretch.take(key, value)? >= end {
                    return Ok((stretch.terms, stretch.first.unwrap_or_default()));
                }
            }
            match rows.last() {
                Some((key, _)) if rows.len() == MANIFESTS_AT_ONCE => from = [key, &b"\0"[..]].concat(),
                _ => return Err(INCOMPLETE.into()),
            }
        }
    }

    /// Removes the manifest rows of a body after the commit of the row that was to name them has failed.
    pub(super) async fn give_up_manifest(&self, body: &Body, failure: &StoreError) {
        if !failure.leaves_doubt() {
            self.drop_manifest(body).await;
        }
    }

    /// Removes the manifest rows of a body that nothing names any more. What fails here costs only space.
    pub(super) async fn drop_manifest(&self, body: &Body) {
        let Body::Rows(id) = body else { return };
        let prefix = key::manifests(id);
        loop {
            let outcome = match self.meta.scan(&prefix, &prefix_end(&prefix), TRANSACTION_KEYS_MAX).await {
                Ok(rows) if rows.is_empty() => return,
                Ok(rows) => {
                    let tx = rows.into_iter().fold(Transaction::new(), |tx, (key, _)| tx.delete(key));
                    self.meta.commit(tx).await
                }
                Err(error) => Err(error),
            };
            if let Err(error) = outcome {
                tracing::warn!(%error, "manifest rows that nothing names could not be removed");
                return;
            }
        }
    }

    /// All packs that a body refers to.
    pub(super) async fn packs_of(&self, body: &Body, size: u64) -> Result<BTreeSet<PackId>, StoreError> {
        let (terms, _) = if size == 0 { (Vec::new(), 0) } else { self.terms(body, 0, size).await? };
        Ok(terms.iter().map(|term| term.pack).collect())
    }

    /// Makes a transaction expect that all of these packs are live, having touched each of them.
    pub(super) async fn with_packs(
        &self,
        tx: Transaction,
        packs: &BTreeSet<PackId>,
    ) -> Result<Transaction, StoreError> {
        if packs.is_empty() {
            return Ok(tx);
        }
        Ok(tx.expect(key::epoch(), self.standing.touch(packs).await?))
    }

    /// Writes the object's row when the precondition holds; `with` adds to the transaction. On failure the row's own
    /// manifest rows are removed again.
    pub(super) async fn commit_object(
        &self,
        bucket: &BucketName,
        object: &ObjectKey,
        row: ObjectRow,
        precondition: &Precondition,
        with: impl Fn(Transaction) -> Transaction,
    ) -> Result<ObjectInfo, StoreError> {
        let outcome = self.try_commit(bucket, object, &row, precondition, with).await;
        match outcome {
            Ok((row, replaced)) => {
                if let Some(replaced) = replaced {
                    self.drop_manifest(&replaced.body).await;
                }
                Ok(ObjectInfo::from_row(object.clone(), &row))
            }
            Err(error) => {
                self.give_up_manifest(&row.body, &error).await;
                Err(error)
            }
        }
    }

    /// The row as it was written, and the one that is gone for it.
    async fn try_commit(
        &self,
        bucket: &BucketName,
        object: &ObjectKey,
        row: &ObjectRow,
        precondition: &Precondition,
        with: impl Fn(Transaction) -> Transaction,
    ) -> Result<(ObjectRow, Option<ObjectRow>), StoreError> {
        let packs = self.packs_of(&row.body, row.size).await?;
        for _ in 0..TRIES {
            let bucket_row = self.same_bucket(bucket, precondition.bucket.as_ref()).await?;
            let found = self.newest(bucket, &bucket_row.0, object).await?;
            let there = found.as_ref().map(|found| &found.row).filter(|row| !row.marker);
            check(precondition, there, object)?;
            let Succession { row, tx, replaced } = self.succeed(bucket, object, bucket_row, found, row).await?;
            let tx = with(self.with_packs(tx, &packs).await?);
            if self.faults.has(Fault::AcknowledgeEarly) {
                let _ = self.meta.commit(tx).now_or_never();
                return Ok((row, replaced));
            }
            match self.meta.commit(tx).await {
                Ok(()) => return Ok((row, replaced)),
                Err(MetaError::Conflict) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(StoreError::Busy)
    }
}

/// A manifest of which not all rows are there: it is damaged, or on its way out.
const INCOMPLETE: Damaged = Damaged { what: "manifest", why: "rows of it are missing" };

/// The terms of one stretch of a manifest, as its rows come. Somebody may remove rows between two looks at them, from the front on: each
/// row must begin where the one before it ended.
struct Stretch {
    terms: Vec<Term>,
    /// Offset of the first term, once there is one.
    first: Option<u64>,
    /// Where the next row begins; before the first row, what that must not begin behind.
    at: u64,
}

impl Stretch {
    fn from(start: u64) -> Self {
        Self { terms: Vec::new(), first: None, at: start }
    }

    /// Adds the next row; where it ends.
    fn take(&mut self, key: &[u8], value: &[u8]) -> Result<u64, Damaged> {
        let end = manifest_end(key)?;
        let (mut terms, bytes) = row::decode_terms(value)?;
        let begin = end.checked_sub(bytes).ok_or(INCOMPLETE)?;
        let follows = if self.first.is_none() { begin <= self.at } else { begin == self.at };
        if !follows {
            return Err(INCOMPLETE);
        }
        self.terms.append(&mut terms);
        self.first.get_or_insert(begin);
        self.at = end;
        Ok(end)
    }
}

/// Whether what is there is as the precondition wants it.
pub(super) fn check(
    precondition: &Precondition,
    found: Option<&ObjectRow>,
    object: &ObjectKey,
) -> Result<(), StoreError> {
    let unwanted = match (&precondition.if_none_match, found) {
        (Some(etag), Some(row)) => *etag == row.etag,
        _ => precondition.if_none_match_any && found.is_some(),
    };
    if unwanted {
        return Err(StoreError::PreconditionFailed);
    }
    match (&precondition.if_match, found) {
        (None, _) => Ok(()),
        (Some(_), None) => Err(StoreError::NoSuchKey(object.clone())),
        (Some(etag), Some(row)) if etag == "*" || *etag == row.etag => Ok(()),
        (Some(_), Some(_)) => Err(StoreError::PreconditionFailed),
    }
}

/// The offset at which a manifest row's terms end, out of its key.
pub(super) fn manifest_end(key: &[u8]) -> Result<u64, Damaged> {
    let bytes = key.last_chunk::<8>().ok_or(Damaged { what: "row key", why: "it is cut short" })?;
    Ok(u64::from_be_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    //! A manifest some of whose rows went while it was read is never taken for a shorter one.
    use super::*;

    /// Rows of 100 bytes each, of two terms, that end at these offsets.
    fn rows(ends: &[u64]) -> Vec<(Vec<u8>, bytes::Bytes)> {
        let term = |bytes| Term { pack: PackId([7; 16]), first: 0, count: 1, repeats: false, bytes };
        ends.iter().map(|end| (key::manifest(&[1; 16], *end), row::encode_terms(&[term(60), term(40)]))).collect()
    }

    /// The number of terms and the offset of the first, or why there are none.
    fn read(start: u64, ends: &[u64]) -> Result<(usize, u64), Damaged> {
        let mut stretch = Stretch::from(start);
        for (key, value) in rows(ends) {
            stretch.take(&key, &value)?;
        }
        Ok((stretch.terms.len(), stretch.first.unwrap()))
    }

    #[test]
    fn rows_follow_each_other_without_a_hole() {
        assert_eq!(read(0, &[100, 200, 300]), Ok((6, 0)));
        assert_eq!(read(100, &[200, 300]), Ok((4, 100)));
        assert_eq!(read(199, &[200]), Ok((2, 100)));
        for (start, ends) in [
            // In the middle: between two looks, the rows from the front up to there were removed.
            (0, &[100, 300][..]),
            (0, &[100, 200, 1_300]),
            // At the front: before the first look.
            (0, &[200, 300]),
            (99, &[200]),
            (100, &[300]),
            // What overlaps, repeats or begins before the object does is no manifest either.
            (0, &[100, 150]),
            (0, &[100, 100]),
            (0, &[99]),
        ] {
            assert_eq!(read(start, ends), Err(INCOMPLETE), "{start}, {ends:?}");
        }
    }
}
