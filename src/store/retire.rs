//! What becomes of a row that another takes the place of, in a bucket that keeps no versions: where a snapshot shows it, it moves to
//! what was; else it goes, and its manifest after it.

use std::collections::BTreeSet;

use super::Inner;
use super::error::StoreError;
use super::ingest::Content;
use super::version::Found;
use crate::format::row::{Body, BucketRow, ObjectRow, key};
use crate::meta::Transaction;
use crate::model::{BucketName, ObjectKey, PackId};
use crate::sys::clock;

/// Whether a row goes on to be shown, by a snapshot, once it was replaced.
pub(super) fn stays(bucket_row: &BucketRow, found: &Found) -> bool {
    found.home.is_some() || bucket_row.shows(found.row.epoch, bucket_row.epoch)
}

/// Adds to a transaction, which replaces or deletes the row that was found, what keeps it for the snapshots that show it. Answers the row
/// that is gone afterwards. The transaction must expect the bucket's row: a snapshot comes before it or after it.
pub(super) fn retire(
    tx: Transaction,
    bucket: &BucketName,
    bucket_row: &BucketRow,
    object: &ObjectKey,
    found: Option<Found>,
) -> (Transaction, Option<ObjectRow>) {
    let Some(found) = found else { return (tx, None) };
    if !stays(bucket_row, &found) {
        return (tx, Some(found.row));
    }
    let tx = match found.home {
        None => tx.put(key::past(bucket, object, bucket_row.epoch), found.bytes),
        Some(_) => tx,
    };
    (tx, None)
}

impl Inner {
    /// Adds to a transaction what deletes a key's row, or what a branch has of its origin. Answers the row that is gone afterwards.
    pub(super) async fn vacate(
        &self,
        tx: Transaction,
        bucket: &BucketName,
        bucket_row: &BucketRow,
        object: &ObjectKey,
        found: Found,
    ) -> Result<(Transaction, Option<ObjectRow>), StoreError> {
        let row_key = key::object(bucket, object);
        let shines_through = match (&found.home, bucket_row.origins.is_empty()) {
            (Some(_), _) => true,
            (None, true) => false,
            (None, false) => self.inherited(bucket_row, object).await?.is_some(),
        };
        let tx = tx.expect(row_key.clone(), found.expected());
        let (tx, gone) = retire(tx, bucket, bucket_row, object, Some(found));
        if !shines_through {
            return Ok((tx.delete(row_key), gone));
        }
        let (marker, modified, epoch) = (true, clock::now(), bucket_row.epoch);
        let tombstone = ObjectRow { marker, modified, epoch, ..ObjectRow::empty() };
        Ok((tx.put(row_key, tombstone.encode()), gone))
    }

    /// The body of a row that is written anew, with a list of chunks of its own, and the packs that it needs.
    pub(super) async fn body_of_its_own(&self, found: &Found) -> Result<(Body, BTreeSet<PackId>), StoreError> {
        let terms = self.terms_of(&found.row).await?;
        let packs = terms.iter().map(|term| term.pack).collect();
        let body = match &found.row.body {
            Body::Rows(_) => self.lay_down(Content::Terms(terms)).await?,
            other => other.clone(),
        };
        Ok((body, packs))
    }
}
