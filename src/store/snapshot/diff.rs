//! What changed between two snapshots, or between a snapshot and a bucket as it is.

use serde::{Deserialize, Serialize};

use crate::format::row::ObjectRow;
use crate::model::{BucketName, ObjectKey};
use crate::store::Store;
use crate::store::error::StoreError;
use crate::store::rows::Rows;
use crate::store::view::View;

/// How an object changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ChangeKind {
    /// It is there only in the second.
    Added,
    /// It has another content, or other headers.
    Changed,
    /// It is there only in the first.
    Removed,
}

/// One object that changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// How.
    pub kind: ChangeKind,
    /// Its key.
    pub key: ObjectKey,
    /// Its length in bytes: in the second, or of a removed one in the first.
    pub bytes: u64,
}

/// What changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotDiff {
    /// The first.
    pub from: String,
    /// The second.
    pub to: String,
    /// Objects that are there only in the second, and their bytes.
    pub added: u64,
    /// Bytes of these.
    pub added_bytes: u64,
    /// Objects with another content, or other headers.
    pub changed: u64,
    /// Bytes of these, in the second.
    pub changed_bytes: u64,
    /// Objects that are there only in the first.
    pub removed: u64,
    /// Bytes of these.
    pub removed_bytes: u64,
    /// The changes in the order of the keys, as far as the limit goes.
    pub changes: Vec<Change>,
    /// Whether there are more changes than are listed.
    pub truncated: bool,
}

impl SnapshotDiff {
    fn note(&mut self, kind: ChangeKind, key: ObjectKey, bytes: u64, limit: usize) {
        let (count, sum) = match kind {
            ChangeKind::Added => (&mut self.added, &mut self.added_bytes),
            ChangeKind::Changed => (&mut self.changed, &mut self.changed_bytes),
            ChangeKind::Removed => (&mut self.removed, &mut self.removed_bytes),
        };
        *count += 1;
        *sum += bytes;
        if self.changes.len() < limit {
            self.changes.push(Change { kind, key, bytes });
        } else {
            self.truncated = true;
        }
    }
}

/// Whether a reader can tell the two apart by more than the time at which they were written.
fn differ(one: &ObjectRow, other: &ObjectRow) -> bool {
    one.size != other.size || one.etag != other.etag || one.described != other.described
}

impl Store {
    /// What changed from one bucket or snapshot to another; lists at most `limit` of the changes, and counts all. Takes time with the
    /// number of objects, and fails where one of the two goes meanwhile.
    pub async fn snapshot_diff(
        &self,
        from: &BucketName,
        to: &BucketName,
        limit: usize,
    ) -> Result<SnapshotDiff, StoreError> {
        let views = (self.inner.view(from).await?, self.inner.view(to).await?);
        let empty = SnapshotDiff {
            from: from.to_string(),
            to: to.to_string(),
            added: 0,
            added_bytes: 0,
            changed: 0,
            changed_bytes: 0,
            removed: 0,
            removed_bytes: 0,
            changes: Vec::new(),
            truncated: false,
        };
        let diff = self.diff_of(&views, empty, limit).await?;
        self.inner.still_shows(from, &views.0).await?;
        self.inner.still_shows(to, &views.1).await?;
        Ok(diff)
    }

    async fn diff_of(
        &self,
        views: &(View, View),
        mut diff: SnapshotDiff,
        limit: usize,
    ) -> Result<SnapshotDiff, StoreError> {
        let mut rows = (Rows::new(&self.inner, &views.0, b"", b""), Rows::new(&self.inner, &views.1, b"", b""));
        let (mut before, mut after) = (rows.0.next().await?, rows.1.next().await?);
        loop {
            let order = match (&before, &after) {
                (None, None) => return Ok(diff),
                (Some(_), None) => std::cmp::Ordering::Less,
                (None, Some(_)) => std::cmp::Ordering::Greater,
                (Some((before, _)), Some((after, _))) => before.cmp(after),
            };
            let removed = if order.is_le() { before.take() } else { None };
            let added = if order.is_ge() { after.take() } else { None };
            if removed.is_some() {
                before = rows.0.next().await?;
            }
            if added.is_some() {
                after = rows.1.next().await?;
            }
            match (removed, added) {
                (Some((_, one)), Some((key, other))) if differ(&one, &other) => {
                    diff.note(ChangeKind::Changed, key, other.size, limit);
                }
                (Some((key, row)), None) => diff.note(ChangeKind::Removed, key, row.size, limit),
                (None, Some((key, row))) => diff.note(ChangeKind::Added, key, row.size, limit),
                _ => {}
            }
        }
    }
}
