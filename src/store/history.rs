//! Listing of versions: the newest ones and the older ones, merged by key.

use std::collections::VecDeque;

use bytes::Bytes;

use super::error::StoreError;
use super::list::{group_of, object_key};
use super::types::{ListRequest, ObjectInfo, VersionInfo, VersionListRequest, VersionPage};
use super::{Inner, Store};
use crate::format::row::{ObjectRow, key};
use crate::meta::prefix_end;
use crate::model::{BucketName, ObjectKey, Version, VersionId};

/// Rows of the first scan; later ones double up to the most, as long as nothing is skipped.
const SCAN_FIRST: usize = 16;
const SCAN_MOST: usize = 512;

/// Rows of a range in order, a page at a time.
struct Cursor {
    start: Vec<u8>,
    end: Vec<u8>,
    rows: VecDeque<(Bytes, Bytes)>,
    batch: usize,
    done: bool,
}

impl Cursor {
    fn new(start: Vec<u8>, end: Vec<u8>) -> Self {
        Self { start, end, rows: VecDeque::new(), batch: SCAN_FIRST, done: false }
    }

    /// Goes on from `start`.
    fn seek(&mut self, start: Vec<u8>) {
        while self.rows.front().is_some_and(|(key, _)| **key < *start) {
            self.rows.pop_front();
        }
        if self.rows.is_empty() && self.start < start {
            self.start = start;
            self.batch = SCAN_FIRST;
        }
    }

    async fn peek(&mut self, inner: &Inner) -> Result<Option<&(Bytes, Bytes)>, StoreError> {
        if self.rows.is_empty() && !self.done && self.start < self.end {
            self.rows = inner.meta.scan(&self.start, &self.end, self.batch).await?.into();
            self.done = self.rows.len() < self.batch;
            self.batch = (self.batch * 2).min(SCAN_MOST);
            if let Some((last, _)) = self.rows.back() {
                self.start = [last, &b"\0"[..]].concat();
            }
        }
        Ok(self.rows.front())
    }
}

/// The newest and the older versions of a bucket, side by side.
struct Merge<'a> {
    inner: &'a Inner,
    newest: Cursor,
    older: Cursor,
    /// Length of what stands before the key in the newest ones' row keys.
    base: usize,
}

impl Merge<'_> {
    /// The next version, by key and then from the newest on.
    async fn next(&mut self) -> Result<Option<VersionInfo>, StoreError> {
        let older = match self.older.peek(self.inner).await? {
            Some((row_key, _)) => Some(key::read_version(row_key)?.1),
            None => None,
        };
        let newest = self.newest.peek(self.inner).await?.map(|(row_key, _)| &row_key[self.base..]);
        let latest = match (newest, &older) {
            (None, None) => return Ok(None),
            (Some(newest), Some(older)) => newest <= &older[..],
            (newest, _) => newest.is_some(),
        };
        let cursor = if latest { &mut self.newest } else { &mut self.older };
        let Some((row_key, value)) = cursor.rows.pop_front() else { return Ok(None) };
        let object = match older {
            Some(older) if !latest => object_key(&older)?,
            _ => object_key(&row_key[self.base..])?,
        };
        Ok(Some(VersionInfo { info: ObjectInfo::from_row(object, &ObjectRow::decode(&value)?), latest }))
    }
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
            newest: Cursor::new(first_newest.clone(), prefix_end(&first_newest)),
            older: Cursor::new(first_older.clone(), prefix_end(&first_older)),
            base: objects.len(),
        };
        if let Some(after) = &request.key_after {
            let (newest, older) = match after.parse::<ObjectKey>() {
                Ok(after) if !ends_group(request) => self.begin(bucket, &after, request.version_after).await?,
                _ => {
                    let (newest, older) = under(after);
                    if after.is_empty() { (newest, older) } else { (prefix_end(&newest), prefix_end(&older)) }
                }
            };
            merge.newest.seek(newest);
            merge.older.seek(older);
        }
        let mut page = VersionPage::default();
        while let Some(version) = merge.next().await? {
            if page.versions.len() + page.prefixes.len() >= request.limit {
                return Ok(page);
            }
            match group_of(&version.info.key, &request.prefix, request.delimiter.as_deref()) {
                Some(group) => {
                    let (newest, older) = under(group);
                    merge.newest.seek(prefix_end(&newest));
                    merge.older.seek(prefix_end(&older));
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

    /// Where the newest and the older versions begin that come after a version of a key, or after all of them.
    async fn begin(
        &self,
        bucket: &BucketName,
        object: &ObjectKey,
        after: Option<VersionId>,
    ) -> Result<(Vec<u8>, Vec<u8>), StoreError> {
        let newest = [&key::object(bucket, object)[..], b"\0"].concat();
        let version = match after {
            None => None,
            Some(VersionId::Of(version)) => Some(version),
            Some(id @ VersionId::Null) => {
                let found = self.inner.version(bucket, object, id).await?;
                found.map(|(found, _)| Version { stamp: found.row.stamp(), random: 0 })
            }
        };
        let older = match version {
            Some(version) => [&key::version(bucket, object, version)[..], b"\0"].concat(),
            None => prefix_end(&key::versions_of(bucket, object)),
        };
        Ok((newest, older))
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
