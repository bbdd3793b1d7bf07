//! Listing: a range scan that seeks past each group of keys instead of reading through it.

use super::Store;
use super::error::StoreError;
use super::types::{ListPage, ListRequest, ObjectInfo};
use crate::format::field::Damaged;
use crate::format::row::{ObjectRow, key};
use crate::meta::prefix_end;
use crate::model::{BucketName, ObjectKey};

/// Rows of the first scan; later ones double up to the most, as long as nothing is skipped.
const SCAN_FIRST: usize = 16;
const SCAN_MOST: usize = 512;

impl Store {
    /// A page of a bucket's objects, in the order of their keys' bytes.
    pub async fn list(&self, bucket: &BucketName, request: &ListRequest) -> Result<ListPage, StoreError> {
        self.inner.bucket_row(bucket).await?;
        let base = key::objects(bucket);
        let prefix = [&base[..], request.prefix.as_bytes()].concat();
        let end = prefix_end(&prefix);
        let mut start = begin(&base, &prefix, request);
        let mut page = ListPage::default();
        let mut batch = SCAN_FIRST;
        loop {
            let rows = self.inner.meta.scan(&start, &end, batch).await?;
            let exhausted = rows.len() < batch;
            let mut jumped = false;
            for (row_key, value) in &rows {
                let object = object_key(&row_key[base.len()..])?;
                let row = ObjectRow::decode(value)?;
                if row.marker {
                    start = [row_key, &b"\0"[..]].concat();
                    continue;
                }
                let group = group_of(&object, &request.prefix, request.delimiter.as_deref());
                if page.objects.len() + page.prefixes.len() >= request.limit {
                    return Ok(page);
                }
                page.next = Some(group.unwrap_or(object.as_str()).to_owned());
                if let Some(group) = group {
                    page.prefixes.push(group.to_owned());
                    start = prefix_end(&[&base[..], group.as_bytes()].concat());
                    jumped = true;
                    break;
                }
                start = [row_key, &b"\0"[..]].concat();
                page.objects.push(ObjectInfo::from_row(object, &row));
            }
            if exhausted && !jumped {
                page.next = None;
                return Ok(page);
            }
            batch = if jumped { SCAN_FIRST } else { (batch * 2).min(SCAN_MOST) };
        }
    }
}

/// The first key that the page may hold.
fn begin(base: &[u8], prefix: &[u8], request: &ListRequest) -> Vec<u8> {
    let Some(after) = &request.start_after else { return prefix.to_vec() };
    let after_key = [base, after.as_bytes()].concat();
    let is_group = after.len() > request.prefix.len()
        && request.delimiter.as_ref().is_some_and(|delimiter| !delimiter.is_empty() && after.ends_with(delimiter));
    let after_key = if is_group { prefix_end(&after_key) } else { [&after_key[..], b"\0"].concat() };
    after_key.max(prefix.to_vec())
}

/// What the key's group has in common, when it belongs to one.
pub(super) fn group_of<'a>(object: &'a ObjectKey, prefix: &str, delimiter: Option<&str>) -> Option<&'a str> {
    let delimiter = delimiter.filter(|delimiter| !delimiter.is_empty())?;
    let at = object.as_str().get(prefix.len()..)?.find(delimiter)?;
    object.as_str().get(..prefix.len() + at + delimiter.len())
}

/// An object's key as it stands in a row's key.
pub(super) fn object_key(bytes: &[u8]) -> Result<ObjectKey, Damaged> {
    let damaged = Damaged { what: "row key", why: "it holds no object's key" };
    std::str::from_utf8(bytes).map_err(|_| damaged)?.parse().map_err(|_| damaged)
}
