//! The whole door as a service over a real store: who may call, what images do, what agents may pull, and that the
//! OpenAPI document and the router know the same addresses.

mod node;

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::body::{Body, to_bytes};
use axum::http::{Method, Request, StatusCode};
use bytes::Bytes;
use serde_json::{Value, json};
use tower::ServiceExt as _;

use super::*;
use crate::auth::{MasterSource, RootCredentials};
use crate::bmc::MemoryPins;
use crate::format::chunk_list::ChunkList;
use crate::format::codec::Decoder;
use crate::format::digest::chunk_digest;
use crate::meta::{Embedded, Meta};
use crate::model::Secret;
use crate::rack::redfish::RedfishMachines;
use crate::rack::{ConductorConfig, Machines, Pace};
use crate::store::PackHome;
use crate::sys::wire::{Peer, ShownPin};
use crate::sys::worker::Workers;

const ADMIN: &str = "Basic cm9vdDpyb290LXNlY3JldA==";

struct Door {
    _folder: tempfile::TempDir,
    router: Router,
    state: ApiState,
    meta: Arc<dyn Meta>,
}

impl Door {
    async fn open() -> Self {
        Self::open_with(Arc::new(RedfishMachines::new(Arc::new(MemoryPins::default()))), None).await
    }

    async fn open_with(machines: Arc<dyn Machines>, boot: Option<BootMedia>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let workers = Workers::new();
        let meta = Embedded::open(&folder.path().join("meta")).unwrap();
        let store = Store::open(meta.clone(), PackHome::local(folder.path().join("packs")), &workers).await.unwrap();
        let catalogue = Catalogue::new(store.clone());
        catalogue.prepare().await.unwrap();
        let desk = ConductorConfig {
            public_url: "https://127.0.0.1:9100".into(),
            media_url: "http://127.0.0.1:9100".into(),
            certificate_pin: ShownPin::new([0xab; 32]),
            pace: Pace::default(),
            evidence: None,
        };
        let conductor = Conductor::new(meta.clone(), Arc::new(catalogue.clone()), machines, &workers, desk);
        conductor.resume_all().await.unwrap();
        let root = RootCredentials { access_key: "root".into(), secret_key: Secret::new("root-secret") };
        let master = MasterSource { data: folder.path().to_owned(), file: None };
        let state = ApiState::new(ApiParts {
            store,
            catalogue,
            conductor,
            auth: Auth::open(meta.clone(), root, &master).await.unwrap(),
            gate: Arc::new(Nobody),
            boot,
            public_url: "https://127.0.0.1:9100".into(),
            certificate_pin: ShownPin::new([0xab; 32]),
        });
        Self { _folder: folder, router: router(state.clone()), state, meta }
    }

    async fn send(&self, request: Request<Body>) -> (StatusCode, Bytes) {
        let response = self.router.clone().oneshot(request).await.unwrap();
        let status = response.status();
        (status, to_bytes(response.into_body(), usize::MAX).await.unwrap())
    }

    async fn json(&self, method: Method, path: &str, body: Value) -> (StatusCode, Value) {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("authorization", ADMIN)
            .header("content-type", "application/json")
            .body(Body::from(if body.is_null() { String::new() } else { body.to_string() }))
            .unwrap();
        let (status, bytes) = self.send(request).await;
        (status, serde_json::from_slice(&bytes).unwrap_or(Value::Null))
    }

    async fn import(&self, image: &str, content: &[u8]) -> (StatusCode, Value) {
        let request = Request::put(format!("/api/v1/images/{image}"))
            .header("authorization", ADMIN)
            .header("content-length", content.len())
            .body(Body::from(content.to_vec()))
            .unwrap();
        let (status, bytes) = self.send(request).await;
        (status, serde_json::from_slice(&bytes).unwrap())
    }
}

/// Bytes that repeat nowhere, with 3 MiB of zeros in the middle.
fn content(seed: u64) -> Vec<u8> {
    let mut state = seed;
    let mut noise = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    let mut bytes: Vec<u8> = (0..1_500_000).map(|_| noise()).collect();
    bytes.resize(bytes.len() + 3 * 1024 * 1024, 0);
    bytes.extend((0..700_000).map(|_| noise()));
    bytes
}

fn get(path: &str) -> axum::http::request::Builder {
    Request::get(path)
}

#[tokio::test]
async fn an_image_goes_in_and_comes_out_bit_for_bit() {
    let door = Door::open().await;
    let content = content(1);
    let (status, imported) = door.import("node@1", &content).await;
    assert_eq!(status, StatusCode::OK, "{imported}");
    assert_eq!((imported["bytes"].as_u64(), imported["existed"].as_bool()), (Some(content.len() as u64), Some(false)));
    let request = get("/api/v1/pull/images/node@1").header("authorization", ADMIN).body(Body::empty()).unwrap();
    let (status, bytes) = door.send(request).await;
    assert_eq!(status, StatusCode::OK);
    let list = ChunkList::decode(&bytes).unwrap();
    assert_eq!(list.root_digest.to_string(), imported["root_digest"]);
    let mut rebuilt = Vec::new();
    for chunk in &list.chunks {
        let range = format!("bytes={}-{}", chunk.offset, chunk.offset + u64::from(chunk.stored_len) - 1);
        let path = format!("/api/v1/pull/packs/{}", list.packs[chunk.pack as usize]);
        let request = get(&path).header("authorization", ADMIN).header("range", range).body(Body::empty()).unwrap();
        let (status, stored) = door.send(request).await;
        assert_eq!(status, StatusCode::PARTIAL_CONTENT);
        let raw = Decoder::new().chunk(chunk.offset, chunk.codec, &stored, chunk.within, chunk.raw_len).unwrap();
        assert_eq!(chunk_digest(&raw), chunk.digest);
        rebuilt.extend_from_slice(&raw);
    }
    assert!(rebuilt == content);
}

#[tokio::test]
async fn a_version_never_changes() {
    let door = Door::open().await;
    let (_, first) = door.import("node@1", &content(1)).await;
    let (status, again) = door.import("node@1", &content(1)).await;
    assert_eq!((status, again["existed"].as_bool()), (StatusCode::OK, Some(true)));
    assert_eq!(again["root_digest"], first["root_digest"]);
    let (status, refused) = door.import("node@1", &content(2)).await;
    assert_eq!((status, refused["error"]["kind"].as_str()), (StatusCode::CONFLICT, Some("exists")));
    let (_, shown) = door.json(Method::GET, "/api/v1/images/node@1", Value::Null).await;
    assert_eq!(shown["root_digest"], first["root_digest"]);
    let (_, list) = door.json(Method::GET, "/api/v1/images", Value::Null).await;
    assert_eq!(list.as_array().unwrap().len(), 1, "nothing of the refused import is left: {list}");
    let (status, _) = door.json(Method::DELETE, "/api/v1/images/node@1", Value::Null).await;
    assert_eq!(status, StatusCode::NO_CONTENT);
    let (status, gone) = door.json(Method::GET, "/api/v1/images/node@1", Value::Null).await;
    assert_eq!((status, gone["error"]["kind"].as_str()), (StatusCode::NOT_FOUND, Some("not-found")));
    let request = get("/api/v1/pull/images/node@1").header("authorization", ADMIN).body(Body::empty()).unwrap();
    assert_eq!(door.send(request).await.0, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn what_is_no_disk_image_is_refused() {
    let door = Door::open().await;
    for (content, word) in [(&b""[..], "empty"), (b"QFI\xfb....", "qemu-img"), (b"\x1f\x8b\x08....", "gzip")] {
        let (status, refused) = door.import("node@1", content).await;
        assert_eq!(status, StatusCode::BAD_REQUEST);
        assert!(refused["error"]["message"].as_str().unwrap().contains(word), "{refused}");
    }
    let (status, refused) = door.import("nonsense", b"x").await;
    assert_eq!((status, refused["error"]["kind"].as_str()), (StatusCode::BAD_REQUEST, Some("bad-request")));
    let (_, list) = door.json(Method::GET, "/api/v1/images", Value::Null).await;
    assert_eq!(list, json!([]));
}

#[tokio::test]
async fn a_body_that_breaks_off_imports_nothing() {
    let door = Door::open().await;
    let pieces = vec![Ok(Bytes::from(vec![1; 500_000])), Err(std::io::Error::other("the wire broke"))];
    let request = Request::put("/api/v1/images/node@1")
        .header("authorization", ADMIN)
        .body(Body::from_stream(futures_util::stream::iter(pieces)))
        .unwrap();
    let (status, body) = door.send(request).await;
    assert_eq!(status, StatusCode::BAD_REQUEST, "{body:?}");
    let (status, body) = {
        let request = Request::put("/api/v1/images/node@1")
            .header("authorization", ADMIN)
            .header("content-length", 10)
            .body(Body::from_stream(futures_util::stream::iter([Ok::<_, std::io::Error>(Bytes::from("short"))])))
            .unwrap();
        door.send(request).await
    };
    assert_eq!(status, StatusCode::BAD_REQUEST, "{body:?}");
    let (_, list) = door.json(Method::GET, "/api/v1/images", Value::Null).await;
    assert_eq!(list, json!([]));
}

#[tokio::test]
async fn a_diff_counts_what_would_travel() {
    let door = Door::open().await;
    let old = content(1);
    let mut new = old.clone();
    new[100_000..100_010].fill(0xaa);
    door.import("node@1", &old).await;
    door.import("node@2", &new).await;
    let (status, diff) = door.json(Method::GET, "/api/v1/images/node@2/diff?from=node@1", Value::Null).await;
    assert_eq!(status, StatusCode::OK, "{diff}");
    let count = |name: &str| diff[name].as_u64().unwrap();
    assert_eq!(count("bytes_shared") + count("bytes_different"), new.len() as u64);
    assert!(count("chunks_different") >= 1 && count("bytes_different") < 600_000, "{diff}");
    assert!(count("bytes_to_fetch") > 0 && count("bytes_to_fetch") <= count("bytes_different") + 1000, "{diff}");
    let (status, _) = door.json(Method::GET, "/api/v1/images/node@2/diff?from=other@1", Value::Null).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    let (status, _) = door.json(Method::GET, "/api/v1/images/node@2/diff", Value::Null).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn pack_ranges_are_bounded_and_exact() {
    let door = Door::open().await;
    door.import("node@1", &content(1)).await;
    let request = get("/api/v1/pull/images/node@1").header("authorization", ADMIN).body(Body::empty()).unwrap();
    let list = ChunkList::decode(&door.send(request).await.1).unwrap();
    let path = format!("/api/v1/pull/packs/{}", list.packs[0]);
    for (range, want) in [
        (Some("bytes=0-99"), StatusCode::PARTIAL_CONTENT),
        (Some("bytes=0-2000000"), StatusCode::PARTIAL_CONTENT),
        (Some("bytes=0-16777216"), StatusCode::RANGE_NOT_SATISFIABLE),
        (Some("bytes=16000000-16000001"), StatusCode::RANGE_NOT_SATISFIABLE),
        (Some("bytes=5-"), StatusCode::RANGE_NOT_SATISFIABLE),
        (None, StatusCode::RANGE_NOT_SATISFIABLE),
    ] {
        let mut request = get(&path).header("authorization", ADMIN);
        if let Some(range) = range {
            request = request.header("range", range);
        }
        let (status, body) = door.send(request.body(Body::empty()).unwrap()).await;
        assert_eq!(status, want, "{range:?}");
        if range == Some("bytes=0-2000000") {
            assert_eq!(body.len(), 2_000_001, "a range of several blocks is whole");
        }
    }
    let request = get(&format!("/api/v1/pull/packs/{}", "0".repeat(32)))
        .header("authorization", ADMIN)
        .header("range", "bytes=0-1")
        .body(Body::empty())
        .unwrap();
    assert_eq!(door.send(request).await.0, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn strangers_and_plain_http_are_refused() {
    let door = Door::open().await;
    let ask = |path: &'static str, authorization: Option<&'static str>, tls: bool| {
        let mut request = get(path);
        if let Some(value) = authorization {
            request = request.header("authorization", value);
        }
        let addr = "127.0.0.1:1".parse().unwrap();
        door.send(request.extension(Peer { addr, tls }).body(Body::empty()).unwrap())
    };
    for (path, authorization, tls, want) in [
        ("/api/v1/images", None, false, 401),
        ("/api/v1/images", Some("Basic cm9vdDp3cm9uZw=="), false, 401),
        ("/api/v1/images", Some("Bearer token"), true, 401),
        ("/api/v1/images", Some("nonsense"), true, 401),
        ("/api/v1/images", Some(ADMIN), false, 200),
        ("/agent/v1/order", None, false, 403),
        ("/agent/v1/order", Some("Bearer token"), false, 403),
        ("/agent/v1/order", None, true, 401),
        ("/agent/v1/order", Some(ADMIN), true, 401),
        ("/agent/v1/order", Some("Bearer token"), true, 401),
        ("/agent/v1/seed", Some("Bearer token"), true, 401),
        ("/api/v1/pull/images/node@1", Some("Bearer token"), false, 403),
        ("/api/v1/pull/images/node@1", Some("Bearer token"), true, 401),
        ("/api/v1/pull/images/node@1", None, true, 401),
        ("/media/00000000000000000000000000000000/boot.iso", None, false, 404),
        ("/healthz", None, false, 200),
        ("/readyz", None, false, 503),
        ("/metrics", None, false, 200),
        ("/nowhere", None, false, 404),
    ] {
        let (status, body) = ask(path, authorization, tls).await;
        assert_eq!(status.as_u16(), want, "{path} {authorization:?} tls={tls}: {body:?}");
        if status.is_client_error() {
            let error: Value = serde_json::from_slice(&body).unwrap();
            let complete = ["kind", "message", "hint"].iter().all(|name| error["error"][name].is_string());
            assert!(complete, "{path}: {error}");
        }
    }
    door.state.set_ready(true);
    assert_eq!(ask("/readyz", None, false).await.0, StatusCode::OK);
}

#[tokio::test]
async fn tenants_have_no_say_here() {
    let door = Door::open().await;
    let (status, _) = door.json(Method::POST, "/api/v1/tenants", json!({"name": "research"})).await;
    assert_eq!(status, StatusCode::CREATED);
    let wanted = json!({"tenant": "research", "access_key": "research-key", "secret_key": "research-secret"});
    let (status, key) = door.json(Method::POST, "/api/v1/keys", wanted.clone()).await;
    assert_eq!((status, key["access_key"].as_str()), (StatusCode::CREATED, Some("research-key")));
    assert_eq!(door.json(Method::POST, "/api/v1/keys", wanted).await.0, StatusCode::CONFLICT);
    let (_, keys) = door.json(Method::GET, "/api/v1/keys", Value::Null).await;
    assert!(keys[0]["secret_key"].is_null(), "{keys}");
    let request = get("/api/v1/images")
        .header("authorization", "Basic cmVzZWFyY2gta2V5OnJlc2VhcmNoLXNlY3JldA==")
        .body(Body::empty())
        .unwrap();
    assert_eq!(door.send(request).await.0, StatusCode::FORBIDDEN);
    let half = json!({"tenant": "research", "access_key": "only-half"});
    assert_eq!(door.json(Method::POST, "/api/v1/keys", half).await.0, StatusCode::BAD_REQUEST);
    let unknown = json!({"name": "other", "quota": 5});
    assert_eq!(door.json(Method::POST, "/api/v1/tenants", unknown).await.0, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn nothing_is_applied_without_a_boot_image() {
    let door = Door::open().await;
    door.import("node@1", &content(1)).await;
    let spec = json!({"name": "rack", "node": [{
        "name": "n1", "bmc": "https://127.0.0.1:1", "image": "node@1", "disk": {"serial": "S1"}
    }]});
    let (status, refused) = door.json(Method::POST, "/api/v1/jobs", json!({"spec": spec})).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{refused}");
    assert_eq!(refused["error"]["kind"], "no-boot-image");
}

/// Every endpoint of the table is in the document and is routed; every schema that is named exists.
#[tokio::test]
async fn the_document_and_the_router_agree() {
    let door = Door::open().await;
    let (status, bytes) = door.send(get("/api/v1/openapi.json").body(Body::empty()).unwrap()).await;
    assert_eq!(status, StatusCode::OK);
    let document: Value = serde_json::from_slice(&bytes).unwrap();
    let mut ids = BTreeSet::new();
    let mut operations = 0;
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            operations += 1;
            assert!(ids.insert(operation["operationId"].as_str().unwrap().to_owned()), "{path} {method} has a used id");
            assert!(!operation["summary"].as_str().unwrap().is_empty(), "{path} {method} says nothing");
            let path = path.replace("{image}", "no@1").replace("{pack}", &"0".repeat(32)).replace(['{', '}'], "");
            let request = Request::builder()
                .method(method.to_ascii_uppercase().as_str())
                .uri(&path)
                .header("authorization", ADMIN)
                .header("content-type", "application/json")
                .body(Body::empty())
                .unwrap();
            let (status, body) = door.send(request).await;
            assert_ne!(status, StatusCode::METHOD_NOT_ALLOWED, "{method} {path}");
            assert!(!String::from_utf8_lossy(&body).contains("no such address"), "{method} {path} is not routed");
        }
    }
    assert_eq!(operations, endpoints().len());
    let schemas = document["components"]["schemas"].as_object().unwrap();
    let mut used = BTreeSet::new();
    references(&document, &mut used);
    for name in &used {
        assert!(schemas.contains_key(name), "no schema {name}");
    }
    for name in schemas.keys() {
        assert!(used.contains(name), "schema {name} is used by nothing");
    }
}

fn references(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => {
            if let Some(Value::String(reference)) = fields.get("$ref") {
                found.insert(reference.rsplit('/').next().unwrap().to_owned());
            }
            fields.values().for_each(|value| references(value, found));
        }
        Value::Array(values) => values.iter().for_each(|value| references(value, found)),
        _ => {}
    }
}

/// What a schema requires is what the program sends.
#[tokio::test]
async fn schemas_tell_the_truth() {
    let door = Door::open().await;
    let (_, imported) = door.import("node@1", &content(1)).await;
    let (_, info) = door.json(Method::GET, "/api/v1/images/node@1", Value::Null).await;
    let (_, diff) = door.json(Method::GET, "/api/v1/images/node@1/diff?from=node@1", Value::Null).await;
    let (_, stats) = door.json(Method::GET, "/api/v1/store/stats", Value::Null).await;
    let (status, fsck) = door.json(Method::POST, "/api/v1/store/fsck", json!({"data": true})).await;
    assert_eq!(status, StatusCode::OK, "{fsck}");
    assert_eq!(fsck["errors"], json!([]));
    let (status, gc) = door.json(Method::POST, "/api/v1/store/gc", json!({"dry_run": true})).await;
    assert_eq!((status, &gc["dry_run"]), (StatusCode::OK, &json!(true)), "{gc}");
    let (_, scrub) = door.json(Method::GET, "/api/v1/store/scrub", Value::Null).await;
    let (status, scrubbed) = door.json(Method::POST, "/api/v1/store/scrub", json!({"all": true, "repair": true})).await;
    assert_eq!((status, &scrubbed["damage"]), (StatusCode::OK, &json!([])), "{scrubbed}");
    let (_, rebuilt) = door.json(Method::POST, "/api/v1/store/rebuild-index", json!({})).await;
    assert_eq!(rebuilt["failures"], json!([]), "{rebuilt}");
    let repaired = scrubbed["repair"].clone();
    let document = openapi::document(&endpoints());
    let (plan, done) = (gc["plan"].clone(), gc["done"].clone());
    for (name, value) in [
        ("Imported", imported),
        ("ImageInfo", info),
        ("ImageDiff", diff),
        ("Stats", stats),
        ("FsckReport", fsck),
        ("GcReport", gc),
        ("GcPlan", plan),
        ("GcDone", done),
        ("ScrubStatus", scrub),
        ("ScrubReport", scrubbed),
        ("RepairReport", repaired),
        ("RebuildReport", rebuilt),
    ] {
        let schema = &document["components"]["schemas"][name];
        let sent: BTreeSet<&str> = value.as_object().unwrap().keys().map(String::as_str).collect();
        let described: BTreeSet<&str> = schema["properties"].as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(sent, described, "{name}");
        assert!(
            schema["required"].as_array().unwrap().iter().all(|field| value.get(field.as_str().unwrap()).is_some())
        );
    }
}

/// Nobody reads or writes objects here: the gate is S3's, and is tested with it.
struct Nobody;

#[async_trait::async_trait]
impl crate::api::Gate for Nobody {
    async fn may_get(
        &self,
        _: &crate::auth::Principal,
        _: Option<crate::sys::wire::Peer>,
        _: &str,
        _: &str,
    ) -> Result<bool, crate::store::BoxError> {
        Ok(false)
    }

    async fn may_list(
        &self,
        _: &crate::auth::Principal,
        _: Option<crate::sys::wire::Peer>,
        _: &str,
    ) -> Result<bool, crate::store::BoxError> {
        Ok(false)
    }

    async fn may_put(
        &self,
        _: &crate::auth::Principal,
        _: Option<crate::sys::wire::Peer>,
        _: &str,
        _: &str,
    ) -> Result<crate::api::Leave, crate::store::BoxError> {
        Ok(crate::api::Leave::Refused)
    }
}
