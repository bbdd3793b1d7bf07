//! Multipart uploads: each part is stored like an object of its own; completion cuts the seams anew, so that the object has the chunks that
//! it would have had in one piece, and names it in one transaction.

use std::collections::BTreeMap;

use bytes::Bytes;
use md5::{Digest as _, Md5};

use super::Store;
use super::error::StoreError;
use super::ingest::{Content, Expected, Source, ingest, join};
use super::list::object_key;
use super::types::{ByteStream, ObjectInfo, PUSHED, PartInfo, Precondition, PutRequest, UploadInfo};
use crate::format::manifest::Term;
use crate::format::row::{Described, ObjectRow, PartList, PartRow, UploadRow, key};
use crate::meta::{MetaError, Transaction, prefix_end};
use crate::model::limit::{PART_MIN, PARTS_MAX, TRANSACTION_KEYS_MAX};
use crate::model::{BucketName, Digest, ObjectKey, UploadId};
use crate::sys::{clock, entropy};

/// Rows read at once.
const PAGE: usize = 500;
/// Tries against a part that is uploaded twice at the same time.
const TRIES: usize = 64;

/// An upload's parts by number, the terms of those that were put together, and the digest of what they are together.
type Joined = (Vec<(u32, PartRow)>, Vec<Term>, Digest);

impl Store {
    /// Begins an upload. The request's content type and headers become the object's.
    pub async fn create_upload(
        &self,
        bucket: &BucketName,
        object: &ObjectKey,
        request: PutRequest,
    ) -> Result<UploadId, StoreError> {
        let upload = UploadId(entropy::fresh_id());
        let row = UploadRow { created: clock::now(), described: request.described() };
        for _ in 0..TRIES {
            let (_, bucket_bytes) = self.inner.same_bucket(bucket, request.precondition.bucket.as_ref()).await?;
            let tx = Transaction::new()
                .expect(key::bucket(bucket), Some(bucket_bytes))
                .put(key::upload(bucket, object, upload), row.encode());
            match self.inner.meta.commit(tx).await {
                Ok(()) => return Ok(upload),
                Err(MetaError::Conflict) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(StoreError::Busy)
    }

    pub(super) async fn upload_row(
        &self,
        bucket: &BucketName,
        object: &ObjectKey,
        id: UploadId,
    ) -> Result<UploadRow, StoreError> {
        match self.inner.meta.get(&key::upload(bucket, object, id)).await? {
            Some(bytes) => Ok(UploadRow::decode(&bytes)?),
            None => {
                self.inner.bucket_row(bucket).await?;
                Err(StoreError::NoSuchUpload(id))
            }
        }
    }

    /// Stores a part, in place of an earlier one of the same number. Durable when it returns.
    pub async fn put_part(
        &self,
        bucket: &BucketName,
        object: &ObjectKey,
        upload: &UploadId,
        number: u32,
        body: ByteStream,
        request: PutRequest,
    ) -> Result<PartInfo, StoreError> {
        if !(1..=PARTS_MAX).contains(&number) {
            return Err(StoreError::InvalidPart { number });
        }
        self.upload_row(bucket, object, *upload).await?;
        let _activity = self.inner.activities.begin();
        let sums = request.given_md5.is_none();
        let expected = Expected { may_inline: false, sums, bytes: request.expected_bytes, md5: request.expected_md5 };
        let ingested = ingest(&self.inner, Source::Stream(body), expected).await?;
        let row = PartRow {
            size: ingested.size,
            md5: request.md5(ingested.md5),
            modified: clock::now(),
            root_digest: ingested.root_digest,
            body: self.inner.lay_down(ingested.content).await?,
            described: Described { content_type: None, headers: request.described().headers },
        };
        match self.commit_part(bucket, object, *upload, number, &row).await {
            Ok(()) => Ok(part_info(number, &row)),
            Err(error) => {
                self.inner.give_up_manifest(&row.body, &error).await;
                Err(error)
            }
        }
    }

    pub(super) async fn commit_part(
        &self,
        bucket: &BucketName,
        object: &ObjectKey,
        upload: UploadId,
        number: u32,
        row: &PartRow,
    ) -> Result<(), StoreError> {
        let upload_key = key::upload(bucket, object, upload);
        let part_key = key::part(upload, number);
        let packs = self.inner.packs_of(&row.body, row.size).await?;
        for _ in 0..TRIES {
            let open = self.inner.meta.get(&upload_key).await?.ok_or(StoreError::NoSuchUpload(upload))?;
            let found = self.inner.meta.get(&part_key).await?;
            let replaced = found.as_deref().map(PartRow::decode).transpose()?;
            let tx = Transaction::new()
                .expect(upload_key.clone(), Some(open))
                .expect(part_key.clone(), found)
                .put(part_key.clone(), row.encode());
            let tx = self.inner.with_packs(tx, &packs).await?;
            match self.inner.meta.commit(tx).await {
                Ok(()) => {
                    if let Some(replaced) = replaced {
                        self.inner.drop_manifest(&replaced.body).await;
                    }
                    return Ok(());
                }
                Err(MetaError::Conflict) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(StoreError::Busy)
    }

    /// All parts of an upload, by number.
    async fn part_rows(&self, upload: UploadId) -> Result<Vec<(u32, PartRow)>, StoreError> {
        let prefix = key::parts(upload);
        let (mut start, end) = (prefix.clone(), prefix_end(&prefix));
        let mut parts = Vec::new();
        loop {
            let rows = self.inner.meta.scan(&start, &end, PAGE).await?;
            for (row_key, value) in &rows {
                let number = row_key.last_chunk::<4>().map(|bytes| u32::from_be_bytes(*bytes)).unwrap_or_default();
                parts.push((number, PartRow::decode(value)?));
            }
            match rows.last() {
                Some((row_key, _)) if rows.len() == PAGE => start = [row_key, &b"\0"[..]].concat(),
                _ => return Ok(parts),
            }
        }
    }

    /// The parts that are named, put together: all parts of the upload, the terms, and the digest of the whole. A part whose
    /// manifest goes while it is read was replaced, or moved: then all is read again.
    async fn joined(&self, upload: UploadId, named: &[(u32, String)]) -> Result<Joined, StoreError> {
        for _ in 0..TRIES {
            let stored = self.part_rows(upload).await?;
            match join(&self.inner, &choose(&stored, named)?).await {
                Ok((terms, root_digest)) => return Ok((stored, terms, root_digest)),
                Err(StoreError::CorruptRow(damage)) if self.part_rows(upload).await? == stored => {
                    return Err(damage.into());
                }
                Err(StoreError::CorruptRow(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Err(StoreError::Busy)
    }

    /// Joins the parts, named by number and entity tag in ascending order, into the object.
    pub async fn complete_upload(
        &self,
        bucket: &BucketName,
        object: &ObjectKey,
        upload: &UploadId,
        parts: &[(u32, String)],
        precondition: &Precondition,
    ) -> Result<ObjectInfo, StoreError> {
        let plainly = |_: &UploadInfo, _: &[PartInfo]| Ok((BTreeMap::new(), Bytes::new()));
        self.complete_upload_as(bucket, object, upload, parts, precondition, plainly).await
    }

    /// As [`Store::complete_upload`]; `sum_up` says, given the upload and the parts that were chosen, what headers the object has
    /// besides those of the upload, and the checksum of each part, one after the other.
    pub async fn complete_upload_as(
        &self,
        bucket: &BucketName,
        object: &ObjectKey,
        upload: &UploadId,
        parts: &[(u32, String)],
        precondition: &Precondition,
        sum_up: impl Fn(&UploadInfo, &[PartInfo]) -> Result<(BTreeMap<String, String>, Bytes), StoreError>,
    ) -> Result<ObjectInfo, StoreError> {
        let _activity = self.inner.activities.begin();
        let completed = async {
            let upload_row = self.upload_row(bucket, object, *upload).await?;
            let upload_bytes = upload_row.encode();
            let (stored, terms, root_digest) = self.joined(*upload, parts).await?;
            let chosen = choose(&stored, parts)?;
            let mut sums = Md5::new();
            chosen.iter().for_each(|part| sums.update(part.md5));
            let size = chosen.iter().map(|part| part.size).sum();
            let infos: Vec<_> = parts.iter().zip(&chosen).map(|((number, _), row)| part_info(*number, row)).collect();
            let about = upload_info(object.clone(), *upload, upload_row.clone());
            let (headers, part_sums) = sum_up(&about, &infos)?;
            let mut part_list = PartList { sums: part_sums, ..PartList::default() };
            infos.iter().for_each(|part| part_list.push(part.number, part.size));
            let mut described = upload_row.described;
            // What was pushed has no MD5: nobody has seen all of its bytes but the client.
            let etag = match described.headers.remove(PUSHED) {
                Some(_) => root_digest.to_string(),
                None => format!("{}-{}", hex::encode(sums.finalize()), chosen.len()),
            };
            described.headers.extend(headers);
            let row = ObjectRow {
                size,
                etag,
                modified: clock::now(),
                described,
                root_digest: Some(root_digest),
                parts: chosen.len() as u32,
                body: self.inner.lay_down(Content::Terms(terms)).await?,
                part_list,
                ..ObjectRow::empty()
            };
            let upload_key = key::upload(bucket, object, *upload);
            let with =
                |tx: Transaction| tx.expect(upload_key.clone(), Some(upload_bytes.clone())).delete(upload_key.clone());
            let info = self.inner.commit_object(bucket, object, row, precondition, with).await?;
            self.drop_parts(*upload, stored).await;
            Ok(info)
        };
        match completed.await {
            // Another call may have completed or aborted the upload meanwhile: its parts, its row and what it was to replace are then no
            // longer what they were, and that is no fault of what this call says.
            Err(
                error @ (StoreError::InvalidPart { .. }
                | StoreError::PreconditionFailed
                | StoreError::NoSuchKey(_)
                | StoreError::Busy),
            ) => {
                self.upload_row(bucket, object, *upload).await?;
                Err(error)
            }
            other => other,
        }
    }

    /// Ends an upload and forgets its parts.
    pub async fn abort_upload(
        &self,
        bucket: &BucketName,
        object: &ObjectKey,
        upload: &UploadId,
    ) -> Result<(), StoreError> {
        let row = self.upload_row(bucket, object, *upload).await?;
        let upload_key = key::upload(bucket, object, *upload);
        let tx = Transaction::new().expect(upload_key.clone(), Some(row.encode())).delete(upload_key);
        match self.inner.meta.commit(tx).await {
            Err(MetaError::Conflict) => return Err(StoreError::NoSuchUpload(*upload)),
            other => other?,
        }
        let stored = self.part_rows(*upload).await?;
        self.drop_parts(*upload, stored).await;
        Ok(())
    }

    /// Removes the rows of parts whose upload is gone. What fails here costs only space.
    async fn drop_parts(&self, upload: UploadId, parts: Vec<(u32, PartRow)>) {
        for parts in parts.chunks(TRANSACTION_KEYS_MAX) {
            let tx = parts.iter().fold(Transaction::new(), |tx, (number, _)| tx.delete(key::part(upload, *number)));
            if let Err(error) = self.inner.meta.commit(tx).await {
                tracing::warn!(%error, "parts of an ended upload could not be removed");
                return;
            }
            for (_, part) in parts {
                self.inner.drop_manifest(&part.body).await;
            }
        }
    }

    /// An open upload.
    pub async fn upload(
        &self,
        bucket: &BucketName,
        object: &ObjectKey,
        upload: &UploadId,
    ) -> Result<UploadInfo, StoreError> {
        Ok(upload_info(object.clone(), *upload, self.upload_row(bucket, object, *upload).await?))
    }

    /// The parts of an open upload, by number.
    pub async fn list_parts(
        &self,
        bucket: &BucketName,
        object: &ObjectKey,
        upload: &UploadId,
    ) -> Result<Vec<PartInfo>, StoreError> {
        let parts = self.part_rows(*upload).await?;
        // An upload goes before its parts do: if it is there now, these were all.
        self.upload_row(bucket, object, *upload).await?;
        Ok(parts.iter().map(|(number, row)| part_info(*number, row)).collect())
    }

    /// A bucket's open uploads, by key and then by age.
    pub async fn list_uploads(&self, bucket: &BucketName) -> Result<Vec<UploadInfo>, StoreError> {
        let mut uploads: Vec<UploadInfo> = Vec::new();
        loop {
            let after = uploads.last().map(|last| (last.key.clone(), Some(last.id)));
            let mut page = self.list_uploads_after(bucket, "", after, PAGE).await?;
            let is_last = page.len() < PAGE;
            uploads.append(&mut page);
            if is_last {
                return Ok(uploads);
            }
        }
    }

    /// At most `limit` open uploads of keys that begin with `prefix`, by key and then by age: those that come after an upload, or after
    /// all of a key.
    pub async fn list_uploads_after(
        &self,
        bucket: &BucketName,
        prefix: &str,
        after: Option<(ObjectKey, Option<UploadId>)>,
        limit: usize,
    ) -> Result<Vec<UploadInfo>, StoreError> {
        self.inner.bucket_row(bucket).await?;
        let base = key::uploads(bucket);
        let first = [&base[..], prefix.as_bytes()].concat();
        let end = prefix_end(&first);
        let start = after.map_or_else(Vec::new, |(object, upload)| {
            let last = upload.unwrap_or(UploadId([0xff; 16]));
            [&key::upload(bucket, &object, last)[..], b"\0"].concat()
        });
        let rows = self.inner.meta.scan(&start.max(first), &end, limit).await?;
        let uploads = rows.iter().map(|(row_key, value)| {
            let damaged = crate::format::field::Damaged { what: "row key", why: "it names no upload" };
            let (head, id) = row_key[base.len()..].split_last_chunk::<16>().ok_or(damaged)?;
            let (_, head) = head.split_last().ok_or(damaged)?;
            Ok(upload_info(object_key(head)?, UploadId(*id), UploadRow::decode(value)?))
        });
        uploads.collect()
    }
}

/// The parts that a completion names, when it may name them so.
fn choose<'a>(stored: &'a [(u32, PartRow)], named: &[(u32, String)]) -> Result<Vec<&'a PartRow>, StoreError> {
    if named.windows(2).any(|pair| pair[0].0 >= pair[1].0) {
        return Err(StoreError::InvalidPartOrder);
    }
    if named.is_empty() {
        return Err(StoreError::InvalidPart { number: 1 });
    }
    let mut chosen = Vec::with_capacity(named.len());
    for (n, (number, etag)) in named.iter().enumerate() {
        let invalid = StoreError::InvalidPart { number: *number };
        let Ok(at) = stored.binary_search_by_key(number, |(number, _)| *number) else { return Err(invalid) };
        let part = &stored[at].1;
        if hex::encode(part.md5) != etag.trim_matches('"') {
            return Err(invalid);
        }
        if part.size < PART_MIN && n + 1 < named.len() {
            return Err(StoreError::EntityTooSmall { number: *number, size: part.size });
        }
        chosen.push(part);
    }
    Ok(chosen)
}

pub(super) fn part_info(number: u32, row: &PartRow) -> PartInfo {
    let headers = row.described.headers.clone();
    PartInfo { number, size: row.size, etag: hex::encode(row.md5), modified: row.modified, headers }
}

fn upload_info(key: ObjectKey, id: UploadId, row: UploadRow) -> UploadInfo {
    UploadInfo { key, id, created: row.created, headers: row.described.headers }
}
