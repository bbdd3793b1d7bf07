//! The list of a bucket's open uploads.

use s3s::dto::{CommonPrefix, ListMultipartUploadsInput, ListMultipartUploadsOutput, MultipartUpload};
use s3s::{S3Request, S3Response, S3Result};

use super::access::bucket_of;
use super::bucket::owner;
use super::error::store_error;
use super::list::{Names, page_limit};
use super::multipart::{initiator, storage_class};
use super::{Door, convert};
use crate::store::UploadInfo;

/// An upload, or what the keys of several have in common.
enum Entry {
    Upload(UploadInfo),
    Prefix(String),
}

/// Uploads read at once.
const PAGE: usize = 1_000;

/// A page as it fills: uploads in order, grouped at the delimiter.
struct Page<'a> {
    prefix: &'a str,
    delimiter: Option<&'a str>,
    /// A group that an earlier page has told, all of it.
    told: Option<&'a str>,
    entries: Vec<Entry>,
    most: usize,
}

impl Page<'_> {
    /// Adds the next upload; whether the page had room for it.
    fn add(&mut self, upload: UploadInfo) -> bool {
        let key = upload.key.as_str();
        let rest = &key[self.prefix.len()..];
        let group = self
            .delimiter
            .and_then(|delimiter| Some(&key[..self.prefix.len() + rest.find(delimiter)? + delimiter.len()]));
        if group.is_some() && group == self.told {
            return true;
        }
        match (group, self.entries.last()) {
            (Some(group), Some(Entry::Prefix(last))) if last == group => {}
            _ if self.entries.len() == self.most => return false,
            (Some(group), _) => self.entries.push(Entry::Prefix(group.to_owned())),
            (None, _) => self.entries.push(Entry::Upload(upload)),
        }
        true
    }
}

impl Door {
    /// What comes after the markers, and whether there is more.
    async fn upload_page(&self, input: &ListMultipartUploadsInput, most: usize) -> S3Result<(Vec<Entry>, bool)> {
        let bucket = convert::bucket(&input.bucket)?;
        let prefix = input.prefix.as_deref().unwrap_or_default();
        let key_marker = input.key_marker.as_deref().filter(|marker| !marker.is_empty());
        let id_marker = input.upload_id_marker.as_deref().filter(|id| !id.is_empty());
        let id_marker = id_marker.map(convert::upload).transpose()?;
        let mut after = key_marker.map(convert::key).transpose()?.map(|key| (key, id_marker));
        let delimiter = input.delimiter.as_deref().filter(|delimiter| !delimiter.is_empty());
        let mut page = Page { prefix, delimiter, told: key_marker, entries: Vec::new(), most };
        loop {
            let uploads = self.store.list_uploads_after(&bucket, prefix, after, PAGE).await.map_err(store_error)?;
            let is_last = uploads.len() < PAGE;
            after = uploads.last().map(|last| (last.key.clone(), Some(last.id)));
            for upload in uploads {
                if !page.add(upload) {
                    return Ok((page.entries, true));
                }
            }
            if is_last {
                return Ok((page.entries, false));
            }
        }
    }

    pub(super) async fn list_multipart_uploads(
        &self,
        request: S3Request<ListMultipartUploadsInput>,
    ) -> S3Result<S3Response<ListMultipartUploadsOutput>> {
        let place = bucket_of(&request)?;
        let input = request.input;
        let names = Names::new(input.encoding_type.as_ref())?;
        let limit = page_limit(input.max_uploads)?;
        let (entries, more) = self.upload_page(&input, usize::try_from(limit).unwrap_or_default()).await?;
        let (mut uploads, mut prefixes, mut next) = (Vec::new(), Vec::new(), (None, None));
        for entry in entries {
            match entry {
                Entry::Prefix(prefix) => {
                    next = (Some(names.write(&prefix)), None);
                    prefixes.push(CommonPrefix { prefix: Some(names.write(&prefix)) });
                }
                Entry::Upload(upload) => {
                    next = (Some(names.write(upload.key.as_str())), Some(upload.id.to_string()));
                    uploads.push(MultipartUpload {
                        key: Some(names.write(upload.key.as_str())),
                        upload_id: Some(upload.id.to_string()),
                        initiated: Some(convert::time(upload.created)),
                        owner: Some(owner(&place.owner)),
                        initiator: Some(initiator(&place.owner)),
                        storage_class: Some(storage_class(&upload)),
                        ..MultipartUpload::default()
                    });
                }
            }
        }
        let (next_key_marker, next_upload_id_marker) = if more { next } else { (None, None) };
        Ok(S3Response::new(ListMultipartUploadsOutput {
            uploads: Some(uploads),
            common_prefixes: Some(prefixes),
            bucket: Some(input.bucket),
            is_truncated: Some(more && limit > 0),
            next_key_marker,
            next_upload_id_marker,
            key_marker: Some(names.write(&input.key_marker.unwrap_or_default())),
            upload_id_marker: input.upload_id_marker,
            max_uploads: Some(limit),
            prefix: Some(names.write(&input.prefix.unwrap_or_default())),
            delimiter: input.delimiter.map(|delimiter| names.write(&delimiter)),
            encoding_type: input.encoding_type,
            ..ListMultipartUploadsOutput::default()
        }))
    }
}
