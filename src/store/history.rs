//! Listing of versions: the newest ones and the older ones, merged by key.

use std::collections::VecDeque;

use bytes::Bytes;

use super::error::StoreError;
use super::list::{group_of, object_key};
use super::types::{ListRequest, ObjectInfo, VersionInfo, VersionListRequest, VersionPage};
use super::{Inner, Store};
use crate::format::row::{ObjectRow, key};
use crate::meta::{Range, prefix_end};
use crate::model::{BucketName, ObjectKey, Version, VersionId};

/// Rows of the first scan; later ones double up to the most, as long as nothing is skipped.
const SCAN_FIRST: usize = 16;
const SCAN_MOST: usize = 512;

/// Rows of a range in order, a page at a time.
struct Cursor {
    /// Where the rows begin that come next.
    start: Vec<u8>,
    end: Vec<u8>,
    rows: VecDeque<(Bytes, Bytes)>,
    /// Whether there are no more than these.
    done: bool,
}

impl Cursor {
    fn new(start: Vec<u8>, end: Vec<u8>) -> Self {
        Self { start, end, rows: VecDeque::new(), done: false }
    }

    /// Goes on from `start`.
    fn seek(&mut self, start: Vec<u8>) {
        while self.rows.front().is_some_and(|(key, _)| **key < *start) {
            self.rows.pop_front();
        }
        if self.start < start {
            self.start = start;
        }
    }

    fn is_short(&self) -> bool {
        self.rows.is_empty() && !self.done
    }

    fn range(&self, limit: usize) -> Range {
        Range { start: self.start.clone(), end: self.end.clone(), limit }
    }

    fn fill(&mut self, rows: Vec<(Bytes, Bytes)>, limit: usize) {
        self.done = rows.len() < limit;
        self.rows = rows.into();
    }
}

/// The newest and the older versions of a bucket, side by side. Rows move from the one side to the other, so that what is merged is of
/// one moment: when one side runs out, both are read again, from where the merge is.
struct Merge<'a> {
    inner: &'a Inner,
    bucket: &'a BucketName,
    newest: Cursor,
    older: Cursor,
    /// Rows of each side that are read at once.
    batch: usize,
    /// The key of the version before, and where it stands, or stood, among the older ones: what comes next of its key is older.
    passed: Option<(ObjectKey, Vec<u8>)>,
}

impl Merge<'_> {
    /// Goes on from there on both sides.
    fn seek(&mut self, newest: Vec<u8>, older: Vec<u8>) {
        self.newest.seek(newest);
        self.older.seek(older);
        if self.newest.is_short() || self.older.is_short() {
            self.batch = SCAN_FIRST;
        }
    }

    /// Goes on after a version of a key.
    fn pass(&mut self, object: ObjectKey, place: Vec<u8>) {
        // A version before it may be the newest by the time that both sides are read again.
        self.newest.start = key::object(self.bucket, &object);
        self.older.start = [&place[..], b"\0"].concat();
        self.passed = Some((object, place));
    }

    async fn fill(&mut self) -> Result<(), StoreError> {
        while self.newest.is_short() || self.older.is_short() {
            let limit = self.batch;
            let read = self.inner.meta.scan_many(&[self.newest.range(limit), self.older.range(limit)]).await?;
            let mut read = read.into_iter();
            self.newest.fill(read.next().unwrap_or_default(), limit);
            self.older.fill(read.next().unwrap_or_default(), limit);
            self.batch = (limit * 2).min(SCAN_MOST);
            if let Some((object, place)) = &self.passed
                && let Some((row_key, value)) = self.newest.rows.front()
                && **row_key == *key::object(self.bucket, object)
                && place_of(self.bucket, object, &ObjectRow::decode(value)?) <= *place
            {
                self.newest.rows.pop_front();
                self.newest.start = [&key::object(self.bucket, object)[..], b"\0"].concat();
            }
        }
        Ok(())
    }

    /// The next version, by key and then from the newest on.
    async fn next(&mut self) -> Result<Option<VersionInfo>, StoreError> {
        self.fill().await?;
        let base = key::objects(self.bucket).len();
        let older = match self.older.rows.front() {
            Some((row_key, _)) => Some(key::read_version(row_key)?.1),
            None => None,
        };
        let newest = self.newest.rows.front().map(|(row_key, _)| &row_key[base..]);
        let latest = match (newest, &older) {
            (None, None) => return Ok(None),
            (Some(newest), Some(older)) => newest <= &older[..],
            (newest, _) => newest.is_some(),
        };
        let cursor = if latest { &mut self.newest } else { &mut self.older };
        let Some((row_key, value)) = cursor.rows.pop_front() else { return Ok(None) };
        let row = ObjectRow::decode(&value)?;
        let (object, place) = match older {
            Some(older) if !latest => (object_key(&older)?, row_key.to_vec()),
            _ => {
                let object = object_key(&row_key[base..])?;
                let place = place_of(self.bucket, &object, &row);
                (object, place)
            }
        };
        self.pass(object.clone(), place);
        Ok(Some(VersionInfo { info: ObjectInfo::from_row(object, &row), latest }))
    }
}

/// Where a version stands once it is not the newest any more.
fn place_of(bucket: &BucketName, object: &ObjectKey, row: &ObjectRow) -> Vec<u8> {
    key::version(bucket, object, Version { stamp: row.stamp(), ..row.version })
}

impl Store {
    /// A page of a bucket's versions and delete markers: by key, in the order of the keys' bytes, the newest first.
    pub async fn list_versions(
        &self,
        bucket: &BucketName,
        request: &VersionListRequest,
    ) -> Result<VersionPage, StoreError> {
        if !self.inner.view(bucket).await?.is_plain() {
            return self.list_only_versions(bucket, request).await;
        }
        let (objects, versions) = (key::objects(bucket), key::versions(bucket));
        let under = |key: &str| ([&objects[..], key.as_bytes()].concat(), [&versions[..], &key::escaped(key)].concat());
        let (first_newest, first_older) = under(&request.prefix);
        let mut merge = Merge {
            inner: &self.inner,
            bucket,
            newest: Cursor::new(first_newest.clone(), prefix_end(&first_newest)),
            older: Cursor::new(first_older.clone(), prefix_end(&first_older)),
            batch: SCAN_FIRST,
            passed: None,
        };
        if let Some(after) = &request.key_after {
            match after.parse::<ObjectKey>() {
                Ok(after) if !ends_group(request) => self.begin(&mut merge, after, request.version_after).await?,
                _ if after.is_empty() => {}
                _ => {
                    let (newest, older) = under(after);
                    merge.seek(prefix_end(&newest), prefix_end(&older));
                }
            }
        }
        let mut page = VersionPage::default();
        while let Some(version) = merge.next().await? {
            if page.versions.len() + page.prefixes.len() >= request.limit {
                return Ok(page);
            }
            match group_of(&version.info.key, &request.prefix, request.delimiter.as_deref()) {
                Some(group) => {
                    let (newest, older) = under(group);
                    merge.seek(prefix_end(&newest), prefix_end(&older));
                    page.next = Some((group.to_owned(), None));
                    page.prefixes.push(group.to_owned());
                }
                None => {
                    page.next = Some((version.info.key.to_string(), Some(version.info.version.id())));
                    page.versions.push(version);
                }
            }
        }
        page.next = None;
        Ok(page)
    }

    /// A page of the versions of a snapshot, or of a branch: neither has others than its objects.
    async fn list_only_versions(
        &self,
        bucket: &BucketName,
        request: &VersionListRequest,
    ) -> Result<VersionPage, StoreError> {
        let objects = ListRequest {
            prefix: request.prefix.clone(),
            delimiter: request.delimiter.clone(),
            start_after: request.key_after.clone(),
            limit: request.limit,
        };
        let page = self.list(bucket, &objects).await?;
        let is_group = |next: &String| page.prefixes.last() == Some(next);
        let next = page.next.as_ref().map(|next| (next.clone(), (!is_group(next)).then_some(VersionId::Null)));
        let versions = page.objects.into_iter().map(|info| VersionInfo { info, latest: true }).collect();
        Ok(VersionPage { versions, prefixes: page.prefixes, next })
    }

    /// Goes on after a version of a key, or after all of them.
    async fn begin(
        &self,
        merge: &mut Merge<'_>,
        object: ObjectKey,
        after: Option<VersionId>,
    ) -> Result<(), StoreError> {
        let (bucket, newest) = (merge.bucket, key::object(merge.bucket, &object));
        let version = match after {
            None => None,
            Some(VersionId::Of(version)) => Some(version),
            Some(id @ VersionId::Null) => {
                let found = self.inner.version(bucket, &object, id).await?;
                found.map(|(found, _)| Version { stamp: found.row.stamp(), random: 0 })
            }
        };
        match version {
            Some(version) => {
                let place = key::version(bucket, &object, version);
                merge.seek(newest, [&place[..], b"\0"].concat());
                merge.passed = Some((object, place));
            }
            // It is gone, and where it stood is not known: twice is better than never.
            None if after.is_some() => merge.seek(newest, key::versions_of(bucket, &object)),
            None => merge.seek([&newest[..], b"\0"].concat(), prefix_end(&key::versions_of(bucket, &object))),
        }
        Ok(())
    }
}

/// Whether the page begins after a group of keys.
fn ends_group(request: &VersionListRequest) -> bool {
    let delimiter = request.delimiter.as_deref().filter(|delimiter| !delimiter.is_empty());
    request.version_after.is_none()
        && request
            .key_after
            .as_ref()
            .zip(delimiter)
            .is_some_and(|(after, delimiter)| after.len() > request.prefix.len() && after.ends_with(delimiter))
}
