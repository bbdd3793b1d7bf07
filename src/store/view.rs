//! What a name shows: a bucket as it is, or as a snapshot has it, and below it what it branched off from. Layer by layer, from the nearest
//! down; the first that has a row of a key decides.

use super::Inner;
use super::error::StoreError;
use super::version::Found;
use crate::format::field::Damaged;
use crate::format::row::{BucketRow, ObjectRow, SnapshotRow, key};
use crate::meta::prefix_end;
use crate::model::{BucketName, ObjectKey, SnapshotName};

/// One bucket's rows, as they are or as they were.
#[derive(Clone, Debug)]
pub(super) struct Layer {
    pub(super) bucket: BucketName,
    /// The epoch that is shown; none is the present one.
    pub(super) at: Option<u64>,
}

impl Layer {
    /// Whether the layer shows a row of the bucket's objects as they are.
    pub(super) fn shows(&self, row: &ObjectRow) -> bool {
        self.at.is_none_or(|epoch| row.epoch <= epoch)
    }
}

/// A name, resolved.
#[derive(Clone, Debug)]
pub(super) struct View {
    /// The row of the bucket, or of the one that the snapshot is of.
    pub(super) row: BucketRow,
    /// The snapshot's row, where it is one.
    pub(super) snapshot: Option<SnapshotRow>,
    /// From the nearest down.
    pub(super) layers: Vec<Layer>,
}

impl View {
    /// Whether all there is to see are the bucket's rows of now.
    pub(super) fn is_plain(&self) -> bool {
        matches!(self.layers[..], [Layer { at: None, .. }])
    }
}

/// What lies below a bucket's own rows.
pub(super) fn below(row: &BucketRow) -> Vec<Layer> {
    let layer = |origin: &crate::format::row::Origin| Layer { bucket: origin.bucket.clone(), at: Some(origin.epoch) };
    row.origins.iter().map(layer).collect()
}

impl Inner {
    /// What a bucket's or a snapshot's name shows.
    pub(super) async fn view(&self, name: &BucketName) -> Result<View, StoreError> {
        let (bucket, snapshot) = match name.snapshot() {
            None => (name.clone(), None),
            Some((bucket, snapshot)) => {
                let (row, _) = self.snapshot_row(&bucket, &snapshot).await?;
                (bucket, Some(row))
            }
        };
        let (row, _) = self.bucket_row(&bucket).await?;
        let mut layers = below(&row);
        layers.insert(0, Layer { bucket, at: snapshot.as_ref().map(|row| row.epoch) });
        Ok(View { row, snapshot, layers })
    }

    /// Fails where the name has come to show something else since it was resolved: a snapshot that leaves keeps nothing any more, and
    /// a branch that goes has let go of its origin. What was looked for and not found says nothing until this was asked.
    pub(super) async fn still_shows(&self, name: &BucketName, view: &View) -> Result<(), StoreError> {
        if view.is_plain() {
            return Ok(());
        }
        let now = self.view(name).await?;
        let which = |view: &View| {
            let snapshot = view.snapshot.as_ref().map(|row| (row.created, row.epoch));
            (snapshot, view.row.created, view.row.origins.clone())
        };
        match view.snapshot {
            _ if which(view) == which(&now) => Ok(()),
            Some(_) => Err(StoreError::NoSuchSnapshot(name.clone())),
            None => Err(StoreError::NoSuchBucket(name.clone())),
        }
    }

    /// A snapshot's row, and its bytes as a transaction expects them. One that is being removed is none.
    pub(super) async fn snapshot_row(
        &self,
        bucket: &BucketName,
        snapshot: &SnapshotName,
    ) -> Result<(SnapshotRow, bytes::Bytes), StoreError> {
        let Some(bytes) = self.meta.get(&key::snapshot(bucket, snapshot)).await? else {
            self.bucket_row(bucket).await?;
            return Err(StoreError::NoSuchSnapshot(bucket.at(snapshot)));
        };
        let row = SnapshotRow::decode(&bytes)?;
        if row.leaving { Err(StoreError::NoSuchSnapshot(bucket.at(snapshot))) } else { Ok((row, bytes)) }
    }

    /// A key as these layers show it: the first row of it, whatever it says.
    pub(super) async fn find(&self, layers: &[Layer], object: &ObjectKey) -> Result<Option<Found>, StoreError> {
        for layer in layers {
            if let Some(found) = self.find_in(layer, object).await? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// What is there now is looked at first: it moves to what was, and never back.
    async fn find_in(&self, layer: &Layer, object: &ObjectKey) -> Result<Option<Found>, StoreError> {
        let home = layer.at.map(|_| layer.bucket.clone());
        let row_key = key::object(&layer.bucket, object);
        if let Some(bytes) = self.meta.get(&row_key).await? {
            let row = ObjectRow::decode(&bytes)?;
            if layer.shows(&row) {
                return Ok(Some(Found { key: row_key, bytes, row, home }));
            }
        }
        let Some(epoch) = layer.at else { return Ok(None) };
        let (start, end) =
            (key::past(&layer.bucket, object, epoch + 1), prefix_end(&key::past_of(&layer.bucket, object)));
        let rows = self.meta.scan(&start, &end, 1).await?;
        let Some((row_key, bytes)) = rows.into_iter().next() else { return Ok(None) };
        let row = ObjectRow::decode(&bytes)?;
        Ok(layer.shows(&row).then(|| Found { key: row_key.to_vec(), bytes, row, home }))
    }

    /// What a reader sees of a key: the newest version of it in a bucket, what it was in a snapshot, or what a branch has of its origin.
    /// A delete marker is one, a branch's own note that it has nothing is none.
    pub(super) async fn seen(&self, name: &BucketName, object: &ObjectKey) -> Result<Option<Found>, StoreError> {
        let own = if name.is_snapshot() { None } else { self.own(name, object).await? };
        if let Some(own) = own {
            return Ok(Some(own).filter(|found| !found.row.is_tombstone()));
        }
        let view = self.view(name).await?;
        let layers = if view.snapshot.is_some() { &view.layers[..] } else { &view.layers[1..] };
        let found = self.find(layers, object).await?;
        let nearest = layers.first().map(|layer| &layer.bucket);
        if found.as_ref().is_none_or(|found| found.home.as_ref() != nearest) {
            self.still_shows(name, &view).await?;
        }
        Ok(found.filter(|found| !found.row.is_tombstone()))
    }

    /// The row of a key in the bucket itself.
    pub(super) async fn own(&self, bucket: &BucketName, object: &ObjectKey) -> Result<Option<Found>, StoreError> {
        let key = key::object(bucket, object);
        let Some(bytes) = self.meta.get(&key).await? else { return Ok(None) };
        Ok(Some(Found { row: ObjectRow::decode(&bytes)?, key, bytes, home: None }))
    }

    /// What a writer finds at a key: a row of the bucket, or what a branch has of its origin.
    pub(super) async fn newest(
        &self,
        bucket: &BucketName,
        row: &BucketRow,
        object: &ObjectKey,
    ) -> Result<Option<Found>, StoreError> {
        match self.own(bucket, object).await? {
            Some(found) => Ok(Some(found)),
            None if row.origins.is_empty() => Ok(None),
            None => self.inherited(row, object).await,
        }
    }

    /// What a branch has of a key of its origin.
    pub(super) async fn inherited(&self, row: &BucketRow, object: &ObjectKey) -> Result<Option<Found>, StoreError> {
        let found = self.find(&below(row), object).await?;
        Ok(found.filter(|found| !found.row.is_tombstone()))
    }
}

/// The bucket and the key of a row of what an object was.
pub(super) fn past_object(row_key: &[u8]) -> Result<(BucketName, ObjectKey, u64), Damaged> {
    let (bucket, object, replaced) = key::read_past(row_key)?;
    Ok((super::bucket::bucket_name(bucket)?, super::list::object_key(&object)?, replaced))
}
