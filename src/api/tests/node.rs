//! What a node being installed may do, with a machine whose BMC obeys and tells nothing: it gets its boot media, its
//! order, its seed and its own image, and nothing else, until its job is over.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use async_trait::async_trait;

use super::*;
use crate::format::boot_region::{self, BootRegion};
use crate::format::chunk_list::ChunkRef;
use crate::format::order::Order;
use crate::image::seed;
use crate::rack::machine::{BootFrom, Found, Power};
use crate::rack::{Machine, MachineError, NodeSpec};

/// A machine that does as it is told and never starts anything.
#[derive(Clone, Default)]
struct Obedient {
    media: Arc<Mutex<Option<String>>>,
    on: Arc<AtomicBool>,
}

#[async_trait]
impl Machines for Obedient {
    async fn connect(&self, _node: &NodeSpec) -> Result<Box<dyn Machine>, MachineError> {
        Ok(Box::new(self.clone()))
    }
}

#[async_trait]
impl Machine for Obedient {
    async fn look(&self) -> Result<Found, MachineError> {
        Ok(Found {
            vendor: None,
            model: None,
            serial: Some("M1".into()),
            uuid: None,
            power: self.power().await?,
            bios: None,
            bmc_firmware: None,
            cpus: None,
            memory_bytes: None,
            gpus: 0,
            drives: Vec::new(),
            health: None,
            gaps: Vec::new(),
        })
    }

    async fn power(&self) -> Result<Power, MachineError> {
        Ok(if self.on.load(Ordering::Relaxed) { Power::On } else { Power::Off })
    }

    async fn power_on(&self) -> Result<(), MachineError> {
        self.on.store(true, Ordering::Relaxed);
        Ok(())
    }

    async fn power_off(&self) -> Result<(), MachineError> {
        self.on.store(false, Ordering::Relaxed);
        Ok(())
    }

    async fn insert_media(&self, url: &str) -> Result<(), MachineError> {
        *self.media.lock().unwrap() = Some(url.to_owned());
        Ok(())
    }

    async fn eject_media(&self) -> Result<(), MachineError> {
        *self.media.lock().unwrap() = None;
        Ok(())
    }

    async fn boot_from(&self, _from: BootFrom) -> Result<(), MachineError> {
        Ok(())
    }

    async fn bios_differs(&self, _: &BTreeMap<String, String>) -> Result<Vec<String>, MachineError> {
        Ok(vec![])
    }

    async fn set_bios(&self, _: &BTreeMap<String, String>) -> Result<(), MachineError> {
        Ok(())
    }

    async fn identify(&self, _on: bool) -> Result<(), MachineError> {
        Ok(())
    }

    async fn close(&self) {}
}

fn boot_media() -> BootMedia {
    let mut bytes = vec![5_u8; 100_000];
    let at = boot_region::OFFSET as usize;
    bytes[at..at + boot_region::LENGTH].copy_from_slice(&boot_region::empty());
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), bytes).unwrap();
    BootMedia::open(file.path()).unwrap()
}

/// Asks as a node does: over TLS, with a token.
async fn ask(door: &Door, token: &str, path: &str, range: Option<&str>) -> (StatusCode, Bytes) {
    let addr = "127.0.0.1:1".parse().unwrap();
    let mut request = get(path).header("authorization", format!("Bearer {token}")).extension(Peer { addr, tls: true });
    if let Some(range) = range {
        request = request.header("range", range);
    }
    door.send(request.body(Body::empty()).unwrap()).await
}

async fn chunk_list(door: &Door, image: &str) -> ChunkList {
    let path = format!("/api/v1/pull/images/{image}");
    let request = get(&path).header("authorization", ADMIN).body(Body::empty()).unwrap();
    ChunkList::decode(&door.send(request).await.1).unwrap()
}

async fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    for _ in 0..2000 {
        if let Some(found) = look() {
            return found;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{what} did not happen within 20 s");
}

/// A text that did not come along, or that no node could use; neither is repeated.
async fn refuses_bad_user_data(door: &Door, mut spec: Value) {
    let (status, refused) = door.json(Method::POST, "/api/v1/jobs", json!({"spec": spec})).await;
    assert!(
        status == StatusCode::CONFLICT && refused.to_string().contains("did not come with the spec"),
        "{status} {refused}"
    );
    spec["user-data"] = json!({"/racks/start": "hunter2"});
    let (status, refused) = door.json(Method::POST, "/api/v1/jobs", json!({"spec": spec})).await;
    let said = refused.to_string();
    assert!(status == StatusCode::BAD_REQUEST && said.contains("#cloud-config") && !said.contains("hunter2"), "{said}");
}

/// With a job its user data is gone, and no row that is kept tells it.
async fn forgot_user_data(door: &Door) {
    for (key, row) in door.meta.scan(b"j/", b"j0", 100).await.unwrap() {
        let tells = row.windows(7).any(|window| window == b"hunter2");
        assert!(!key.starts_with(b"j/u/") && !tells, "{}", String::from_utf8_lossy(&key));
    }
}

#[tokio::test]
async fn a_token_opens_its_own_node_and_nothing_else() {
    let machine = Obedient::default();
    let door = Door::open_with(Arc::new(machine.clone()), Some(boot_media())).await;
    door.import("node@1", &content(1)).await;
    door.import("other@1", &content(2)).await;
    let mut spec = json!({"name": "rack", "node": [{
        "name": "n1", "bmc": "https://10.0.0.1", "image": "node@1", "disk": {"serial": "S1"}, "user-data": "/racks/start"
    }]});
    refuses_bad_user_data(&door, spec.clone()).await;
    let script = "#!/bin/sh\necho hunter2\n";
    spec["user-data"] = json!({"/racks/start": script});
    let (status, started) = door.json(Method::POST, "/api/v1/jobs", json!({"spec": spec})).await;
    assert_eq!(status, StatusCode::CREATED, "{started}");
    let media = until("media", || machine.media.lock().unwrap().clone()).await;
    until("power on", || machine.on.load(Ordering::Relaxed).then_some(())).await;

    let path = media.strip_prefix("http://127.0.0.1:9100").unwrap();
    let (status, iso) = door.send(get(path).body(Body::empty()).unwrap()).await;
    assert_eq!((status, iso.len()), (StatusCode::OK, 100_000));
    let region = BootRegion::decode(&iso[boot_region::OFFSET as usize..]).unwrap();
    assert_eq!((region.node.as_str(), region.url.as_str()), ("n1", "https://127.0.0.1:9100"));
    let head = Request::head(path).body(Body::empty()).unwrap();
    let answer = door.router.clone().oneshot(head).await.unwrap();
    assert_eq!(answer.headers()["content-length"], "100000");
    let token = region.token.as_str();

    let (status, order) = ask(&door, token, "/agent/v1/order", None).await;
    assert_eq!(status, StatusCode::OK, "{order:?}");
    let order: Order = serde_json::from_slice(&order).unwrap();
    assert_eq!(order.image.to_string(), "node@1");
    let (status, volume) = ask(&door, token, "/agent/v1/seed", None).await;
    assert_eq!((status, volume.len()), (StatusCode::OK, seed::SEED_BYTES));
    let holds = |text: &str| volume.windows(text.len()).any(|window| window == text.as_bytes());
    assert!(holds(&order.boot_token) && holds(script));

    let (own, other) = (chunk_list(&door, "node@1").await, chunk_list(&door, "other@1").await);
    assert_eq!(ask(&door, token, "/api/v1/pull/images/node@1", None).await.0, StatusCode::OK);
    assert_eq!(ask(&door, token, "/api/v1/pull/images/other@1", None).await.0, StatusCode::NOT_FOUND);
    let pack = |pack| format!("/api/v1/pull/packs/{pack}");
    let bytes = |chunk: &ChunkRef| format!("bytes={}-{}", chunk.offset, chunk.offset + u64::from(chunk.stored_len) - 1);
    let (first, own_pack) = (bytes(&own.chunks[0]), pack(own.packs[own.chunks[0].pack as usize]));
    assert_eq!(ask(&door, token, &own_pack, Some(&first)).await.0, StatusCode::PARTIAL_CONTENT);
    // The two images share a pack, and not its bytes.
    let foreign = other.chunks.iter().find(|chunk| own.chunks.iter().all(|own| own.digest != chunk.digest)).unwrap();
    let foreign_pack = pack(other.packs[foreign.pack as usize]);
    assert_eq!(ask(&door, token, &foreign_pack, Some(&bytes(foreign))).await.0, StatusCode::NOT_FOUND);
    assert_eq!(ask(&door, token, &own_pack, Some("bytes=0-9")).await.0, StatusCode::NOT_FOUND);
    assert_eq!(ask(&door, &order.boot_token, &own_pack, Some(&first)).await.0, StatusCode::UNAUTHORIZED);
    assert_eq!(ask(&door, token, "/api/v1/images", None).await.0, StatusCode::UNAUTHORIZED);

    let (status, refused) = door.json(Method::DELETE, "/api/v1/images/node@1", Value::Null).await;
    assert_eq!((status, refused["error"]["kind"].as_str()), (StatusCode::CONFLICT, Some("in-use")));
    let job = started["job"].as_str().unwrap();
    let (status, _) = door.json(Method::POST, &format!("/api/v1/jobs/{job}/cancel"), Value::Null).await;
    assert_eq!(status, StatusCode::OK);
    until("power off", || (!machine.on.load(Ordering::Relaxed)).then_some(())).await;
    for _ in 0..500 {
        let (_, view) = door.json(Method::GET, &format!("/api/v1/jobs/{job}"), Value::Null).await;
        if view["state"] == "cancelled" && !view["ended"].is_null() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(ask(&door, token, "/agent/v1/order", None).await.0, StatusCode::UNAUTHORIZED);
    forgot_user_data(&door).await;
    assert_eq!(ask(&door, token, &own_pack, Some(&first)).await.0, StatusCode::UNAUTHORIZED);
    assert_eq!(door.send(get(path).body(Body::empty()).unwrap()).await.0, StatusCode::NOT_FOUND);
    assert_eq!(door.json(Method::DELETE, "/api/v1/images/node@1", Value::Null).await.0, StatusCode::NO_CONTENT);
}
