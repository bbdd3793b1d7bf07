//! Listing: a walk that seeks past each group of keys instead of reading through it.

use super::Store;
use super::error::StoreError;
use super::rows::Rows;
use super::types::{ListPage, ListRequest, ObjectInfo};
use super::view::View;
use crate::format::field::Damaged;
use crate::meta::prefix_end;
use crate::model::{BucketName, ObjectKey};

impl Store {
    /// A page of a bucket's objects, or of a snapshot's, in the order of their keys' bytes.
    pub async fn list(&self, bucket: &BucketName, request: &ListRequest) -> Result<ListPage, StoreError> {
        let view = self.inner.view(bucket).await?;
        let page = self.list_of(&view, request).await?;
        self.inner.still_shows(bucket, &view).await?;
        Ok(page)
    }

    async fn list_of(&self, view: &View, request: &ListRequest) -> Result<ListPage, StoreError> {
        let mut rows = Rows::new(&self.inner, view, request.prefix.as_bytes(), &begin(request));
        let mut page = ListPage::default();
        while let Some((object, row)) = rows.next().await? {
            if page.objects.len() + page.prefixes.len() >= request.limit {
                return Ok(page);
            }
            match group_of(&object, &request.prefix, request.delimiter.as_deref()) {
                Some(group) => {
                    rows.seek(&prefix_end(group.as_bytes()));
                    page.next = Some(group.to_owned());
                    page.prefixes.push(group.to_owned());
                }
                None => {
                    page.next = Some(object.to_string());
                    page.objects.push(ObjectInfo::from_row(object, &row));
                }
            }
        }
        page.next = None;
        Ok(page)
    }
}

/// The first key that the page may hold.
fn begin(request: &ListRequest) -> Vec<u8> {
    let Some(after) = &request.start_after else { return Vec::new() };
    let is_group = after.len() > request.prefix.len()
        && request.delimiter.as_ref().is_some_and(|delimiter| !delimiter.is_empty() && after.ends_with(delimiter));
    if is_group { prefix_end(after.as_bytes()) } else { [after.as_bytes(), b"\0"].concat() }
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
