//! The control door of the real appliance: an image file goes in by the command line and comes out through the pull
//! endpoints bit for bit; strangers and plain HTTP are refused; what a wrong call is told says what to do.

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use bedplate::format::chunk_list::ChunkList;
use bedplate::format::codec::Decoder;
use bedplate::format::digest::chunk_digest;
use bedplate::sys::wire::{self, Client, ClientConfig, Trust};
use bytes::Bytes;
use http_body_util::Full;
use hyper::{Request, StatusCode};
use serde_json::Value;

const KEY: (&str, &str) = ("AKAPITESTROOT0000001", "secret-of-the-api-tests-root-key-000001");
/// `KEY` as the Basic scheme writes it.
const BASIC: &str = "Basic QUtBUElURVNUUk9PVDAwMDAwMDE6c2VjcmV0LW9mLXRoZS1hcGktdGVzdHMtcm9vdC1rZXktMDAwMDAx";

struct Appliance {
    folder: tempfile::TempDir,
    api: u16,
    process: Child,
}

impl Drop for Appliance {
    fn drop(&mut self) {
        // It may have ended by itself, which the test then says.
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn bedplate() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bedplate"));
    command.env("BEDPLATE_ACCESS_KEY", KEY.0).env("BEDPLATE_SECRET_KEY", KEY.1);
    command.env("BEDPLATE_ROOT_ACCESS_KEY", KEY.0).env("BEDPLATE_ROOT_SECRET_KEY", KEY.1);
    command
}

impl Appliance {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (s3, api) = (free_port(), free_port());
        let log = std::fs::File::create(folder.path().join("serve.log")).unwrap();
        let process = bedplate()
            .arg("--data")
            .arg(folder.path().join("data"))
            .args(["serve", "--s3-listen", &format!("127.0.0.1:{s3}"), "--api-listen", &format!("127.0.0.1:{api}")])
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        let appliance = Self { folder, api, process };
        let deadline = Instant::now() + Duration::from_secs(60);
        while std::net::TcpStream::connect(("127.0.0.1", api)).is_err() {
            let log = std::fs::read_to_string(appliance.path("serve.log")).unwrap();
            assert!(Instant::now() < deadline, "the appliance did not start: {log}");
            std::thread::sleep(Duration::from_millis(50));
        }
        appliance
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn image(&self, args: &[&str]) -> Output {
        let url = format!("http://127.0.0.1:{}", self.api);
        bedplate().args(["--output", "json", "--url", &url, "image"]).args(args).output().unwrap()
    }

    /// Asks over TLS, with the certificate that the appliance made for itself.
    async fn tls(&self, path: &str, authorization: Option<&str>) -> (StatusCode, Bytes) {
        let folder = self.path("data");
        let identity = bedplate::api::identity::ServerIdentity::load_or_create(&folder).unwrap();
        let client = Client::new(Trust::Pin(identity.pin()), ClientConfig::default());
        ask(&client, &format!("https://127.0.0.1:{}{path}", self.api), authorization, None).await
    }

    async fn plain(&self, path: &str, authorization: Option<&str>, range: Option<&str>) -> (StatusCode, Bytes) {
        let client = Client::new(Trust::Plain, ClientConfig::default());
        ask(&client, &format!("http://127.0.0.1:{}{path}", self.api), authorization, range).await
    }
}

async fn ask(client: &Client, url: &str, authorization: Option<&str>, range: Option<&str>) -> (StatusCode, Bytes) {
    let mut request = Request::get(url);
    if let Some(value) = authorization {
        request = request.header("authorization", value);
    }
    if let Some(value) = range {
        request = request.header("range", value);
    }
    let answer = client.request(request.body(Full::<Bytes>::default()).unwrap()).await.unwrap();
    (answer.status(), wire::read_all(answer.into_body(), 64 << 20).await.unwrap())
}

fn json(output: &Output) -> Value {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Noise, a hole of 40 MiB, and noise: the file has it as a hole too.
fn write_sparse(path: &std::path::Path) -> Vec<u8> {
    use std::os::unix::fs::FileExt;
    let mut state = 42_u64;
    let mut noise = |length: usize| -> Vec<u8> {
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) as u8
        };
        (0..length).map(|_| next()).collect()
    };
    let (head, tail) = (noise(3_000_000), noise(1_000_000));
    let mut content = vec![0; 48 << 20];
    let at = content.len() - tail.len();
    content[..head.len()].copy_from_slice(&head);
    content[at..].copy_from_slice(&tail);
    let file = std::fs::File::create(path).unwrap();
    file.set_len(content.len() as u64).unwrap();
    file.write_all_at(&head, 0).unwrap();
    file.write_all_at(&tail, at as u64).unwrap();
    content
}

#[tokio::test]
async fn an_image_goes_in_and_comes_out_bit_for_bit() {
    let appliance = Appliance::start();
    let file = appliance.path("disk.img");
    let content = write_sparse(&file);
    let file = file.to_str().unwrap();
    let imported = json(&appliance.image(&["import", "node@1", file]));
    assert_eq!((imported["name"].as_str(), imported["version"].as_str()), (Some("node"), Some("1")));
    assert_eq!(imported["bytes"].as_u64(), Some(content.len() as u64));
    assert!(imported["seconds"].as_f64().unwrap() > 0.0);
    assert_eq!(json(&appliance.image(&["import", "node@1", file]))["existed"], true);
    let list = json(&appliance.image(&["list"]));
    assert_eq!(list[0]["root_digest"], imported["root_digest"]);

    let (status, bytes) = appliance.plain("/api/v1/pull/images/node@1", Some(BASIC), None).await;
    assert_eq!(status, StatusCode::OK);
    let list = ChunkList::decode(&bytes).unwrap();
    let mut rebuilt = Vec::new();
    let mut last: Option<(_, Vec<u8>)> = None;
    for chunk in &list.chunks {
        let raw = match &last {
            Some((before, raw)) if before == chunk => raw.clone(),
            _ => {
                let path = format!("/api/v1/pull/packs/{}", list.packs[chunk.pack as usize]);
                let range = format!("bytes={}-{}", chunk.offset, chunk.offset + u64::from(chunk.stored_len) - 1);
                let (status, stored) = appliance.plain(&path, Some(BASIC), Some(&range)).await;
                assert_eq!(status, StatusCode::PARTIAL_CONTENT);
                Decoder::new().chunk(chunk.offset, chunk.codec, &stored, chunk.within, chunk.raw_len).unwrap().to_vec()
            }
        };
        assert_eq!(chunk_digest(&raw), chunk.digest);
        rebuilt.extend_from_slice(&raw);
        last = Some((*chunk, raw));
    }
    assert!(rebuilt == content, "what was pulled is what was imported");
    let shown = json(&appliance.image(&["diff", "node@1", "node@1"]));
    assert_eq!((shown["bytes_different"].as_u64(), shown["bytes_to_fetch"].as_u64()), (Some(0), Some(0)));
    assert!(json(&appliance.image(&["remove", "node@1"]))["removed"].is_string());
    assert_eq!(json(&appliance.image(&["list"])), serde_json::json!([]));
}

#[tokio::test]
async fn the_wrong_file_is_refused_with_what_to_do() {
    let appliance = Appliance::start();
    let path = appliance.path("disk.qcow2");
    std::fs::write(&path, b"QFI\xfb and so on").unwrap();
    let (qcow, folder) = (path.to_str().unwrap(), appliance.folder.path().to_str().unwrap());
    for (args, code, word) in [
        (["import", "node@1", qcow], 1, "qemu-img convert"),
        (["import", "node@1", folder], 1, "folder"),
        (["import", "node@1", "/nowhere/disk.img"], 1, "/nowhere/disk.img"),
        (["import", "node", qcow], 2, "NAME@VERSION"),
        (["diff", "node@1", "node@2"], 1, "bedplate image list"),
    ] {
        let output = appliance.image(&args);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{args:?}: {said}");
        assert!(said.contains(word), "{args:?}: {said}");
        assert!(output.stdout.is_empty(), "{args:?} printed data");
    }
}

#[tokio::test]
async fn strangers_and_plain_http_are_refused() {
    let appliance = Appliance::start();
    let kind =
        |body: &Bytes| serde_json::from_slice::<Value>(body).unwrap()["error"]["kind"].as_str().unwrap().to_owned();
    let (status, body) = appliance.plain("/agent/v1/order", Some("Bearer token"), None).await;
    assert_eq!((status, kind(&body).as_str()), (StatusCode::FORBIDDEN, "tls-required"));
    let (status, _) = appliance.tls("/agent/v1/order", Some("Bearer token")).await;
    assert_eq!(status, StatusCode::UNAUTHORIZED);
    let (status, _) = appliance.tls("/api/v1/images", None).await;
    assert_eq!(status, StatusCode::UNAUTHORIZED);
    let (status, _) = appliance.tls("/api/v1/images", Some(BASIC)).await;
    assert_eq!(status, StatusCode::OK);
    for path in ["/healthz", "/readyz", "/metrics", "/api/v1/openapi.json"] {
        assert_eq!(appliance.plain(path, None, None).await.0, StatusCode::OK, "{path}");
    }
    let (_, metrics) = appliance.plain("/metrics", None, None).await;
    let text = String::from_utf8_lossy(&metrics);
    assert!(text.contains("bedplate_requests_total") && !text.contains("token"), "{text}");
    let other = Client::new(Trust::Pin([7; 32]), ClientConfig::default());
    let request = Request::get(format!("https://127.0.0.1:{}/healthz", appliance.api)).body(Full::<Bytes>::default());
    assert!(other.request(request.unwrap()).await.is_err(), "another pin was believed");
}
