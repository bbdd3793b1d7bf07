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

/// What comes after the markers, in the order of keys and of ids, grouped at the delimiter; and whether there is more.
fn page(mut uploads: Vec<UploadInfo>, input: &ListMultipartUploadsInput, most: usize) -> (Vec<Entry>, bool) {
    uploads.sort_by(|a, b| (a.key.as_str(), a.id).cmp(&(b.key.as_str(), b.id)));
    let prefix = input.prefix.as_deref().unwrap_or_default();
    let delimiter = input.delimiter.as_deref().filter(|delimiter| !delimiter.is_empty());
    let key_marker = input.key_marker.as_deref().filter(|marker| !marker.is_empty());
    let id_marker = input.upload_id_marker.as_deref().filter(|id| !id.is_empty());
    let mut entries: Vec<Entry> = Vec::new();
    for upload in uploads {
        let key = upload.key.as_str();
        let after = match (key_marker, id_marker) {
            (None, _) => true,
            (Some(marker), Some(id)) => (key, upload.id.to_string().as_str()) > (marker, id),
            (Some(marker), None) => key > marker,
        };
        if !after || !key.starts_with(prefix) {
            continue;
        }
        let rest = &key[prefix.len()..];
        let group =
            delimiter.and_then(|delimiter| Some(&key[..prefix.len() + rest.find(delimiter)? + delimiter.len()]));
        // A marker that is a group stands for all of it.
        if group.is_some() && group == key_marker {
            continue;
        }
        match (group, entries.last()) {
            (Some(group), Some(Entry::Prefix(last))) if last == group => continue,
            _ if entries.len() == most => return (entries, true),
            (Some(group), _) => entries.push(Entry::Prefix(group.to_owned())),
            (None, _) => entries.push(Entry::Upload(upload)),
        }
    }
    (entries, false)
}

impl Door {
    pub(super) async fn list_multipart_uploads(
        &self,
        request: S3Request<ListMultipartUploadsInput>,
    ) -> S3Result<S3Response<ListMultipartUploadsOutput>> {
        let place = bucket_of(&request)?;
        let input = request.input;
        let names = Names::new(input.encoding_type.as_ref())?;
        let limit = page_limit(input.max_uploads)?;
        let uploads = self.store.list_uploads(&convert::bucket(&input.bucket)?).await.map_err(store_error)?;
        let (entries, more) = page(uploads, &input, usize::try_from(limit).unwrap_or_default());
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
