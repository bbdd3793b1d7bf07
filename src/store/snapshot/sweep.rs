//! What only a removed snapshot showed goes, a page of rows at a time.

use super::PAGE;
use crate::format::row::{BucketRow, ObjectRow, SnapshotRow, key};
use crate::meta::{MetaError, Transaction, prefix_end};
use crate::model::{BucketName, SnapshotName};
use crate::store::Inner;
use crate::store::error::StoreError;

impl Inner {
    /// Removes the rows of a bucket's past that no snapshot shows any more, then the row of the one that left. No snapshot that is made
    /// meanwhile can need one of them: each was replaced before it.
    pub(super) async fn sweep_snapshot(&self, bucket: &BucketName, name: &SnapshotName) -> Result<(), StoreError> {
        let prefix = key::pasts(bucket);
        let (end, mut start) = (prefix_end(&prefix), prefix);
        loop {
            let rows = self.meta.scan(&start, &end, PAGE).await?;
            let found = self.meta.get(&key::bucket(bucket)).await?;
            let bucket_row = found.as_deref().map(BucketRow::decode).transpose()?;
            let (mut tx, mut bodies) = (Transaction::new(), Vec::new());
            for (row_key, value) in &rows {
                let (_, _, replaced) = key::read_past(row_key)?;
                let row = ObjectRow::decode(value)?;
                if !bucket_row.as_ref().is_some_and(|bucket| bucket.shows(row.epoch, replaced)) {
                    tx = tx.expect(&row_key[..], Some(value.clone())).delete(&row_key[..]);
                    bodies.push(row.body);
                }
            }
            if !tx.is_empty() {
                match self.meta.commit(tx).await {
                    Ok(()) => {}
                    // The collector has moved one of them, or another sweep has removed it.
                    Err(MetaError::Conflict) => continue,
                    Err(error) => return Err(error.into()),
                }
            }
            for body in bodies {
                self.drop_manifest(&body).await;
            }
            match rows.last() {
                Some((last, _)) if rows.len() == PAGE => start = [last, &b"\0"[..]].concat(),
                _ => break,
            }
        }
        let snapshot_key = key::snapshot(bucket, name);
        let Some(bytes) = self.meta.get(&snapshot_key).await? else { return Ok(()) };
        if !SnapshotRow::decode(&bytes)?.leaving {
            return Ok(());
        }
        let tx = Transaction::new().expect(snapshot_key.clone(), Some(bytes)).delete(snapshot_key);
        match self.meta.commit(tx).await {
            // Another sweep was faster.
            Ok(()) | Err(MetaError::Conflict) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}
