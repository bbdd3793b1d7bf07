//! A real `bedplate serve`, killed with SIGKILL under load again and again, at instants that nobody chose: what was acknowledged is there
//! after each start, bit for bit, and when all is deleted the collector gives all space back. The slowest start's
//! time is printed, and held against nothing here.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::path::Path;
use object_store::{ClientOptions, ObjectStoreExt as _, RetryConfig};

use super::{chance, kills};
use crate::support::{ACCESS_KEY, SECRET_KEY, Server, noise};

/// Clients that write at the same time, each to keys of its own.
const CLIENTS: u64 = 6;
/// Keys of one client.
const KEYS: u64 = 8;
/// Longest object, in bytes.
const LONGEST: u64 = 3_000_000;

/// What an object may be: what was acknowledged last, and what was under way when the power failed. Nothing stands for no
/// object.
#[derive(Clone, Debug, Default)]
struct Known {
    acknowledged: Option<Content>,
    doubtful: Option<Option<Content>>,
}

/// Bytes that follow from a seed and a length. A few seeds, so that objects share chunks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Content {
    seed: u64,
    len: usize,
}

impl Content {
    fn bytes(self) -> Vec<u8> {
        noise(self.seed, self.len)
    }
}

fn client(server: &Server) -> AmazonS3 {
    let retry = RetryConfig { max_retries: 0, ..RetryConfig::default() };
    AmazonS3Builder::new()
        .with_endpoint(server.s3_url())
        .with_region("us-east-1")
        .with_bucket_name("kept")
        .with_access_key_id(ACCESS_KEY)
        .with_secret_access_key(SECRET_KEY)
        .with_client_options(ClientOptions::new().with_allow_http(true).with_timeout(Duration::from_secs(60)))
        .with_retry(retry)
        .build()
        .unwrap()
}

fn key(client: u64, number: u64) -> String {
    format!("{client}/{number}")
}

/// Writes and deletes until the appliance is gone; answers what is known of this client's objects.
async fn load(store: Arc<AmazonS3>, client: u64, mut known: BTreeMap<String, Known>) -> BTreeMap<String, Known> {
    loop {
        let key = key(client, chance(KEYS));
        let entry = known.entry(key.clone()).or_default();
        let path = Path::from(key);
        let (next, done) = if chance(5) == 0 {
            entry.doubtful = Some(None);
            (None, store.delete(&path).await.is_ok())
        } else {
            let len = if chance(3) == 0 { chance(9000) } else { chance(LONGEST) };
            let content = Content { seed: 1 + chance(12), len: len as usize };
            entry.doubtful = Some(Some(content));
            (Some(content), store.put(&path, content.bytes().into()).await.is_ok())
        };
        if !done {
            return known;
        }
        *entry = Known { acknowledged: next, doubtful: None };
    }
}

/// Reads every object and compares; what was in doubt is known afterwards.
async fn check(store: &AmazonS3, known: &mut BTreeMap<String, Known>) {
    for (key, known) in known {
        let found = match store.get(&Path::from(key.as_str())).await {
            Ok(answer) => Some(answer.bytes().await.unwrap()),
            Err(object_store::Error::NotFound { .. }) => None,
            Err(error) => panic!("{key}: {error}"),
        };
        let is = |content: &Option<Content>| match (content, &found) {
            (None, None) => true,
            (Some(content), Some(bytes)) => content.len == bytes.len() && content.bytes() == bytes[..],
            _ => false,
        };
        let now = [Some(known.acknowledged), known.doubtful].into_iter().flatten().find(is);
        let len = found.as_ref().map(bytes::Bytes::len);
        let now = now.unwrap_or_else(|| panic!("{key} has {len:?} bytes, which are none of {known:?}"));
        *known = Known { acknowledged: now, doubtful: None };
    }
}

#[test]
fn nothing_acknowledged_is_lost_and_no_space_leaks() {
    let kills = kills();
    bedplate::sys::wire::install_crypto();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut server = Server::start();
    server.run(&["bucket", "create", "kept"]);
    let store = Arc::new(client(&server));
    let mut known: Vec<BTreeMap<String, Known>> = vec![BTreeMap::new(); CLIENTS as usize];
    let mut starts = Vec::new();
    for _ in 0..kills {
        let loads: Vec<_> = (0..).zip(&known).map(|(n, known)| load(store.clone(), n, known.clone())).collect();
        let loads = runtime.handle().clone().block_on(async {
            let tasks: Vec<_> = loads.into_iter().map(|load| runtime.spawn(load)).collect();
            tokio::time::sleep(Duration::from_millis(50 + chance(700))).await;
            tasks
        });
        server.kill();
        known = runtime.block_on(futures_util::future::join_all(loads)).into_iter().map(Result::unwrap).collect();
        let began = Instant::now();
        server.restart();
        starts.push(began.elapsed());
        for known in &mut known {
            runtime.block_on(check(&store, known));
        }
        if chance(3) == 0 {
            server.run(&["store", "gc"]);
        }
    }
    let slowest = starts.iter().max().unwrap();
    eprintln!("{kills} kills; the slowest start took {:.2} s", slowest.as_secs_f64());
    assert_eq!(server.json(&["store", "fsck", "--read-data"])["errors"], serde_json::json!([]));
    server.run(&["rm", "--recursive", "--yes", "kept"]);
    server.run(&["store", "gc", "--rounds", "4"]);
    let stats = server.json(&["store", "stats"]);
    assert_eq!((&stats["packs"], &stats["stored_bytes"]), (&0.into(), &0.into()), "{stats}");
    let left = std::fs::read_dir(server.path("data/packs")).unwrap();
    let left: usize = left.map(|folder| std::fs::read_dir(folder.unwrap().path()).unwrap().count()).sum();
    assert_eq!(left, 0, "files that nothing names are left");
}
