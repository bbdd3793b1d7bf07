//! What happens between two looks of one call at the store, on the real rows: somebody else's call, to its end, at the very place where it
//! matters. The call then answers as if it had come before that other one, or after it, and never of a mixture.

use std::path::Path;
use std::sync::Arc;

use bedplate::format::row::key as row;
use bedplate::meta::Embedded;
use bedplate::model::{BucketName, ObjectKey, UploadId};
use bedplate::store::{ByteStream, PackHome, Precondition, PutRequest, Store, StoreError};
use bedplate::sys::worker::Workers;
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};

use crate::support::hooked::Hooked;

fn bucket() -> BucketName {
    "between".parse().unwrap()
}

fn key(text: &str) -> ObjectKey {
    text.parse().unwrap()
}

fn body(bytes: &[u8]) -> ByteStream {
    stream::iter([Ok(Bytes::copy_from_slice(bytes))]).boxed()
}

/// A store with one bucket, and its rows.
async fn open(dir: &Path) -> (Store, Arc<Hooked>, Workers) {
    let workers = Workers::new();
    let rows = Hooked::over(Embedded::open(&dir.join("meta")).unwrap());
    let store = Store::open(rows.clone(), PackHome::local(dir.join("packs")), &workers).await.unwrap();
    store.create_bucket(&bucket(), "root").await.unwrap();
    (store, rows, workers)
}

/// An upload with one part; its number and entity tag.
async fn upload_of_one_part(store: &Store, name: &str) -> (UploadId, Vec<(u32, String)>) {
    let upload = store.create_upload(&bucket(), &key(name), PutRequest::default()).await.unwrap();
    let bytes = body(&[7; 100_000]);
    let part = store.put_part(&bucket(), &key(name), &upload, 1, bytes, PutRequest::default()).await.unwrap();
    (upload, vec![(1, part.etag)])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_completion_that_another_overtakes_is_told_so() {
    let dir = tempfile::tempdir().unwrap();
    let (store, rows, workers) = open(dir.path()).await;
    let absent = Precondition { if_none_match_any: true, ..Precondition::default() };
    // Before the parts are read, and they are gone; or after that, and there is an object by now.
    for (name, condition) in [("plain", Precondition::default()), ("conditional", absent)] {
        let (upload, parts) = upload_of_one_part(&store, name).await;
        let (other, theirs) = (store.clone(), parts.clone());
        let after_parts = condition.if_none_match_any.then(|| row::bucket(&bucket()));
        let at = after_parts.unwrap_or_else(|| row::upload(&bucket(), &key(name), upload));
        rows.after_next_get(at, async move {
            other.complete_upload(&bucket(), &key(name), &upload, &theirs, &Precondition::default()).await.unwrap();
        });
        let late = store.complete_upload(&bucket(), &key(name), &upload, &parts, &condition).await;
        assert!(rows.has_happened());
        assert!(matches!(late, Err(StoreError::NoSuchUpload(id)) if id == upload), "{late:?}");
    }
    // What really is wrong is still said.
    let (upload, parts) = upload_of_one_part(&store, "plain").await;
    let wrong = [(1, "0".repeat(32))];
    let refused = store.complete_upload(&bucket(), &key("plain"), &upload, &wrong, &Precondition::default()).await;
    assert!(matches!(refused, Err(StoreError::InvalidPart { number: 1 })), "{refused:?}");
    let absent = Precondition { if_none_match_any: true, ..Precondition::default() };
    let refused = store.complete_upload(&bucket(), &key("plain"), &upload, &parts, &absent).await;
    assert!(matches!(refused, Err(StoreError::PreconditionFailed)), "{refused:?}");
    store.close().await;
    workers.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_push_that_is_completed_twice_at_once_is_told_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let (store, rows, workers) = open(dir.path()).await;
    let (upload, parts) = upload_of_one_part(&store, "pushed").await;
    let (other, theirs) = (store.clone(), parts.clone());
    rows.after_next_get(row::upload(&bucket(), &key("pushed"), upload), async move {
        other.complete_push(&bucket(), &key("pushed"), &upload, &theirs).await.unwrap();
    });
    let late = store.complete_push(&bucket(), &key("pushed"), &upload, &parts).await.unwrap();
    assert!(rows.has_happened());
    assert_eq!(late, store.head(&bucket(), &key("pushed")).await.unwrap());
    store.close().await;
    workers.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parts_are_listed_of_open_uploads_only() {
    let dir = tempfile::tempdir().unwrap();
    let (store, rows, workers) = open(dir.path()).await;
    let (upload, parts) = upload_of_one_part(&store, "listed").await;
    let other = store.clone();
    rows.after_next_get(row::upload(&bucket(), &key("listed"), upload), async move {
        other.complete_upload(&bucket(), &key("listed"), &upload, &parts, &Precondition::default()).await.unwrap();
    });
    let listed = store.list_parts(&bucket(), &key("listed"), &upload).await;
    assert!(rows.has_happened());
    // As they were before the completion, or that the upload is gone.
    assert!(
        listed.as_ref().map_or_else(|error| matches!(error, StoreError::NoSuchUpload(_)), |parts| parts.len() == 1)
    );
    let listed = store.list_parts(&bucket(), &key("listed"), &upload).await;
    assert!(matches!(listed, Err(StoreError::NoSuchUpload(_))), "{listed:?}");
    store.close().await;
    workers.stop().await;
}
