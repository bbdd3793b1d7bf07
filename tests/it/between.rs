//! What happens between two looks of one call at the store, on the real rows: somebody else's call, to its end, at the very place where it
//! matters. The call then answers as if it had come before that other one, or after it, and never of a mixture.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bedplate::auth::{Auth, MasterSource, RootCredentials};
use bedplate::format::digest::RootDigest;
use bedplate::format::push::Record;
use bedplate::format::row::key as row;
use bedplate::meta::{Embedded, Meta};
use bedplate::model::{BucketName, ByteRange, ObjectKey, Secret, UploadId, VersionId, Versioning};
use bedplate::s3::{Lifecycle, S3Config, S3Door};
use bedplate::store::{
    ByteStream, DeleteRequest, Given, ListRequest, ObjectInfo, PackHome, Placed, Precondition, PutRequest, Store,
    StoreError, VersionListRequest,
};
use bedplate::sys::clock;
use bedplate::sys::wire::{self, Patience, Tls};
use bedplate::sys::worker::Workers;
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::support::stepped::{Call, Stepped};

fn bucket() -> BucketName {
    "between".parse().unwrap()
}

fn key(text: &str) -> ObjectKey {
    text.parse().unwrap()
}

fn body(bytes: &[u8]) -> ByteStream {
    stream::iter([Ok(Bytes::copy_from_slice(bytes))]).boxed()
}

/// The rows, and the step that a test takes between two looks at them.
struct Rows {
    step: Stepped,
    meta: Arc<dyn Meta>,
}

/// A store with one bucket, and its rows.
async fn open(dir: &Path) -> (Store, Rows, Workers) {
    let workers = Workers::new();
    let (step, meta) = Stepped::over(Embedded::open(&dir.join("meta")).unwrap());
    let store = Store::open(meta.clone(), PackHome::local(dir.join("packs")), &workers).await.unwrap();
    store.create_bucket(&bucket(), "root").await.unwrap();
    (store, Rows { step, meta }, workers)
}

async fn put(store: &Store, name: &str, bytes: &[u8]) {
    store.put(&bucket(), &key(name), body(bytes), PutRequest::default()).await.unwrap();
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
        rows.step.at(Call::Got, at, 0, async move {
            other.complete_upload(&bucket(), &key(name), &upload, &theirs, &Precondition::default()).await.unwrap();
        });
        let late = store.complete_upload(&bucket(), &key(name), &upload, &parts, &condition).await;
        assert!(rows.step.is_taken());
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
    rows.step.at(Call::Got, row::upload(&bucket(), &key("pushed"), upload), 0, async move {
        other.complete_push(&bucket(), &key("pushed"), &upload, &theirs).await.unwrap();
    });
    let late = store.complete_push(&bucket(), &key("pushed"), &upload, &parts).await.unwrap();
    assert!(rows.step.is_taken());
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
    rows.step.at(Call::Got, row::upload(&bucket(), &key("listed"), upload), 0, async move {
        other.complete_upload(&bucket(), &key("listed"), &upload, &parts, &Precondition::default()).await.unwrap();
    });
    let listed = store.list_parts(&bucket(), &key("listed"), &upload).await;
    assert!(rows.step.is_taken());
    // As they were before the completion, or that the upload is gone.
    assert!(
        listed.as_ref().map_or_else(|error| matches!(error, StoreError::NoSuchUpload(_)), |parts| parts.len() == 1)
    );
    let listed = store.list_parts(&bucket(), &key("listed"), &upload).await;
    assert!(matches!(listed, Err(StoreError::NoSuchUpload(_))), "{listed:?}");
    store.close().await;
    workers.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_object_is_removed_as_its_bucket_was_found() {
    let dir = tempfile::tempdir().unwrap();
    let (store, rows, workers) = open(dir.path()).await;
    put(&store, "one", b"content").await;
    let other = store.clone();
    rows.step.at(Call::Got, row::bucket(&bucket()), 0, async move {
        other.set_versioning(&bucket(), Versioning::Enabled).await.unwrap();
    });
    let request = DeleteRequest { version: Some(VersionId::Null), ..DeleteRequest::default() };
    let deleted = store.delete_as(&bucket(), &key("one"), &request).await.unwrap();
    assert!(rows.step.is_taken());
    // The version that was named is gone for good, and no marker is there in its place.
    assert!(deleted.existed && !deleted.marker, "{deleted:?}");
    let all = VersionListRequest { limit: 10, ..VersionListRequest::default() };
    let left = store.list_versions(&bucket(), &all).await.unwrap().versions;
    assert!(left.is_empty(), "{left:?}");
    store.close().await;
    workers.stop().await;
}

/// S3 over the store, and a policy that lets everybody read and put. Its address.
async fn open_door(dir: &Path, store: &Store, rows: &Rows, workers: &Workers) -> SocketAddr {
    let root = RootCredentials { access_key: "ROOT".into(), secret_key: Secret::new("root-secret") };
    let auth = Auth::open(rows.meta.clone(), root, &MasterSource { data: dir.to_owned(), file: None }).await.unwrap();
    let door = S3Door::new(store.clone(), auth, &S3Config::default()).unwrap();
    let policy = serde_json::json!({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Principal": "*",
        "Action": ["s3:GetObject", "s3:PutObject"], "Resource": "arn:aws:s3:::between/*"}]});
    store.set_setting(&bucket(), "policy", Some(policy.to_string().into())).await.unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    workers.spawn("S3 door", wire::serve(listener, Tls::Off, door, Patience::default(), workers.token()));
    address
}

/// The answer to a request with these headers and this body, head and all.
async fn ask(address: SocketAddr, what: &str, headers: &str, body: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let head = format!("{what} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n{headers}\r\n");
    stream.write_all((head + body).as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    tokio::time::timeout(Duration::from_secs(30), stream.read_to_end(&mut answer)).await.unwrap().unwrap();
    String::from_utf8(answer).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_range_of_an_object_that_shrinks_is_one_of_what_it_was_or_is() {
    let dir = tempfile::tempdir().unwrap();
    let (store, rows, workers) = open(dir.path()).await;
    let address = open_door(dir.path(), &store, &rows, &workers).await;
    for (range, expected) in [("bytes=0-", "206"), ("bytes=0-5999", "206"), ("bytes=5000-", "416")] {
        put(&store, "shrinks", &[b'a'; 9_000]).await;
        let other = store.clone();
        rows.step.at(Call::Got, row::object(&bucket(), &key("shrinks")), 0, async move {
            put(&other, "shrinks", &[b'b'; 100]).await;
        });
        let answer = ask(address, "GET /between/shrinks", &format!("Range: {range}\r\n"), "").await;
        assert!(rows.step.is_taken());
        assert!(answer.starts_with(&format!("HTTP/1.1 {expected}")), "{range}: {answer}");
        assert!(expected == "416" || answer.ends_with(&format!("\r\n\r\n{}", "b".repeat(100))), "{answer}");
    }
    store.close().await;
    workers.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_signature_is_of_one_object() {
    let dir = tempfile::tempdir().unwrap();
    let (store, rows, workers) = open(dir.path()).await;
    put(&store, "shrinks", &[b'a'; 300_000]).await;
    let other = store.clone();
    rows.step.at(Call::Got, row::object(&bucket(), &key("shrinks")), 0, async move {
        put(&other, "shrinks", &[b'b'; 100]).await;
    });
    let whole = ByteRange { start: 0, end: 300_000 };
    let signature = store.signature(&bucket(), &key("shrinks"), whole).await.unwrap();
    assert!(rows.step.is_taken());
    // What was found first is what is read, to its end.
    assert_eq!(signature.pieces.iter().map(|piece| u64::from(piece.len)).sum::<u64>(), 300_000);
    store.close().await;
    workers.stop().await;
}

/// Removes the bucket, and lets somebody else make one of its name.
async fn give_away(store: &Store) {
    let owner = format!("not {}", store.bucket(&bucket()).await.unwrap().owner);
    store.delete_bucket(&bucket()).await.unwrap();
    store.create_bucket(&bucket(), &owner).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_meant_for_one_bucket_never_comes_into_another_of_its_name() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _, workers) = open(dir.path()).await;
    let elsewhere: BucketName = "elsewhere".parse().unwrap();
    store.create_bucket(&elsewhere, "root").await.unwrap();
    let source = store.put(&elsewhere, &key("source"), body(&[1; 50_000]), PutRequest::default()).await.unwrap();
    let kept = |_: &ObjectInfo, _: &BTreeMap<String, String>, _| Ok(BTreeMap::new());
    // A body between whose bytes the name is given away.
    let slow = || -> ByteStream {
        let store = store.clone();
        let middle = stream::once(async move {
            give_away(&store).await;
            Ok(Bytes::from(vec![2; 50_000]))
        });
        body(&[1; 50_000]).chain(middle).boxed()
    };
    let put = store.put(&bucket(), &key("put"), slow(), PutRequest::default()).await;
    assert!(matches!(put, Err(StoreError::NoSuchBucket(_))), "{put:?}");
    let append = store.append(&bucket(), &key("append"), 0, slow(), PutRequest::default(), kept).await;
    assert!(matches!(append, Err(StoreError::NoSuchBucket(_))), "{append:?}");
    let (upload, parts) = upload_of_one_part(&store, "parts").await;
    let part = store.put_part(&bucket(), &key("parts"), &upload, 2, slow(), PutRequest::default()).await;
    assert!(matches!(part, Err(StoreError::NoSuchUpload(_))), "{part:?}");
    let whole = store.complete_upload(&bucket(), &key("parts"), &upload, &parts, &Precondition::default()).await;
    assert!(matches!(whole, Err(StoreError::NoSuchUpload(_))), "{whole:?}");
    let (other, from) = (store.clone(), (&elsewhere, &source.key, None));
    let describe = |info: &ObjectInfo| {
        tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(give_away(&other)));
        Ok(PutRequest::like(info))
    };
    let copy = store.copy_version(from, (&bucket(), &key("copy")), describe, &Precondition::default()).await;
    assert!(matches!(copy, Err(StoreError::NoSuchBucket(_))), "{copy:?}");
    let records = stream::once({
        let store = store.clone();
        async move {
            give_away(&store).await;
            Ok(Record::End { size: 0, root_digest: RootDigest::new().finish() })
        }
    });
    let given = Given { records: records.boxed(), prove: None, base: None };
    let pushed = store.put_given(&bucket(), &key("pushed"), given, PutRequest::default()).await;
    assert!(matches!(pushed, Err(StoreError::NoSuchBucket(_))), "{pushed:?}");
    let listed = store.list(&bucket(), &ListRequest { limit: 10, ..ListRequest::default() }).await.unwrap();
    assert!(listed.objects.is_empty(), "{listed:?}");
    // The same bucket is the same, however much is written to it and set of it meanwhile.
    let other = store.clone();
    let changes = stream::once(async move {
        other.set_versioning(&bucket(), Versioning::Enabled).await.unwrap();
        Ok(Bytes::from_static(b"all"))
    });
    assert_eq!(store.put(&bucket(), &key("put"), changes.boxed(), PutRequest::default()).await.unwrap().size, 3);
    store.close().await;
    workers.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_was_let_into_a_bucket_is_not_let_into_another_of_its_name() {
    let dir = tempfile::tempdir().unwrap();
    let (store, rows, workers) = open(dir.path()).await;
    let address = open_door(dir.path(), &store, &rows, &workers).await;
    let length = "Content-Length: 4\r\n";
    let answer = ask(address, "PUT /between/put", length, "mine").await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(store.delete(&bucket(), &key("put")).await.unwrap());
    // The policy is the last that the gate reads.
    let other = store.clone();
    rows.step.at(Call::Got, row::setting(&bucket(), "policy"), 0, async move { give_away(&other).await });
    let answer = ask(address, "PUT /between/put", length, "mine").await;
    assert!(rows.step.is_taken());
    assert!(answer.starts_with("HTTP/1.1 404") && answer.contains("NoSuchBucket"), "{answer}");
    let listed = store.list(&bucket(), &ListRequest { limit: 10, ..ListRequest::default() }).await.unwrap();
    assert!(listed.objects.is_empty(), "{listed:?}");
    store.close().await;
    workers.stop().await;
}

/// A rule by which all that is there now is long over.
const ALL_IS_OVER: &str = "<LifecycleConfiguration><Rule><ID>all</ID><Filter></Filter><Status>Enabled</Status>\
     <Expiration><Date>2020-01-01T00:00:00Z</Date></Expiration></Rule></LifecycleConfiguration>";

async fn how_many(store: &Store) -> usize {
    store.list(&bucket(), &ListRequest { limit: 10_000, ..ListRequest::default() }).await.unwrap().objects.len()
}

/// A page of a walk has 1,000 versions; rules that are taken back while the first is at work delete nothing of the second.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rules_that_were_taken_back_delete_nothing_more() {
    let dir = tempfile::tempdir().unwrap();
    let (store, rows, workers) = open(dir.path()).await;
    store.set_setting(&bucket(), "lifecycle", Some(ALL_IS_OVER.into())).await.unwrap();
    let names: Vec<_> = (0..1_050).map(|number| format!("{number:04}")).collect();
    for some in names.chunks(210) {
        futures_util::future::join_all(some.iter().map(|name| put(&store, name, b"old"))).await;
    }
    let other = store.clone();
    rows.step.at(Call::Got, row::object(&bucket(), &key("0100")), 0, async move {
        other.set_setting(&bucket(), "lifecycle", None).await.unwrap();
    });
    let swept = Lifecycle::new(store.clone()).sweep(clock::now()).await.unwrap();
    assert!(rows.step.is_taken());
    assert!((1..=1_000).contains(&swept.expired), "{swept:?}");
    assert_eq!(how_many(&store).await as u64, 1_050 - swept.expired);
    store.set_setting(&bucket(), "lifecycle", Some(ALL_IS_OVER.into())).await.unwrap();
    Lifecycle::new(store.clone()).sweep(clock::now()).await.unwrap();
    assert_eq!(how_many(&store).await, 0);
    store.close().await;
    workers.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_rules_of_a_bucket_are_not_those_of_the_next_of_its_name() {
    let dir = tempfile::tempdir().unwrap();
    let (store, rows, workers) = open(dir.path()).await;
    store.set_setting(&bucket(), "lifecycle", Some(ALL_IS_OVER.into())).await.unwrap();
    let other = store.clone();
    // Right before its versions are listed.
    rows.step.at(Call::Scan, row::objects(&bucket()), 0, async move {
        give_away(&other).await;
        put(&other, "theirs", b"new").await;
    });
    Lifecycle::new(store.clone()).sweep(clock::now()).await.unwrap();
    assert!(rows.step.is_taken());
    assert_eq!(how_many(&store).await, 1);
    store.close().await;
    workers.stop().await;
}

/// What a sweep saw holds when it deletes: where a version stood, and what it was marked with.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_version_is_removed_only_where_it_was_seen() {
    let dir = tempfile::tempdir().unwrap();
    let (store, rows, workers) = open(dir.path()).await;
    store.set_versioning(&bucket(), Versioning::Enabled).await.unwrap();
    put(&store, "key", b"first").await;
    put(&store, "key", b"second").await;
    let asked = VersionListRequest { limit: 9, ..VersionListRequest::default() };
    let versions = store.list_versions(&bucket(), &asked).await.unwrap().versions;
    let of = |at: usize, placed| DeleteRequest {
        version: Some(versions[at].info.version.id()),
        if_placed: Some(placed),
        ..DeleteRequest::default()
    };
    let remove = async |wanted: &DeleteRequest| store.delete_as(&bucket(), &key("key"), wanted).await;
    for refused in [of(0, Placed::Alone), of(0, Placed::Superseded), of(1, Placed::Alone)] {
        assert!(matches!(remove(&refused).await, Err(StoreError::PreconditionFailed)), "{refused:?}");
    }
    let marked = [("x-amz-tagging".to_owned(), "keep=yes".to_owned())].into();
    let otherwise = DeleteRequest { if_headers: Some(marked), ..of(1, Placed::Superseded) };
    assert!(matches!(remove(&otherwise).await, Err(StoreError::PreconditionFailed)));
    // The newest goes right before the older one is removed: that one is the object by then, and stays.
    let (other, newest) =
        (store.clone(), DeleteRequest { version: of(0, Placed::Alone).version, ..DeleteRequest::default() });
    rows.step.at(Call::Got, row::object(&bucket(), &key("key")), 0, async move {
        assert!(other.delete_as(&bucket(), &key("key"), &newest).await.unwrap().existed);
    });
    assert!(matches!(remove(&of(1, Placed::Superseded)).await, Err(StoreError::PreconditionFailed)));
    assert!(rows.step.is_taken());
    assert!(remove(&of(1, Placed::Alone)).await.unwrap().existed);
    store.close().await;
    workers.stop().await;
}
