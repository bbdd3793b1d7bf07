//! A client that lies, breaks off, or has no right to what it names is refused, and leaves nothing.

use bedplate::format::codec::Codec;
use bedplate::format::digest::{RootDigest, chunk_digest};
use bedplate::format::known::{decode_digests, encode_digests};
use bedplate::format::push::{self as wire, Named, Op, Patched, Record, Reference};
use bedplate::model::Secret;
use bedplate::pull::{Appliance, Login, PullError};
use bytes::Bytes;
use hyper::{Method, StatusCode};

use super::*;

const OCTETS: &str = "application/octet-stream";

fn appliance(server: &Server, access_key: &str, secret_key: &str) -> Appliance {
    let login = Login::Key { access_key: access_key.to_owned(), secret_key: Secret::new(secret_key) };
    Appliance::new(&format!("http://{}", server.api()), None, &login).unwrap()
}

fn root(server: &Server) -> Appliance {
    appliance(server, crate::support::ACCESS_KEY, crate::support::SECRET_KEY)
}

async fn send(door: &Appliance, path: &str, body: Vec<u8>) -> (StatusCode, Bytes) {
    let body = Bytes::from(body);
    for _ in 0..20 {
        match door.exchange(Method::PUT, path, body.clone(), OCTETS).await {
            Ok(answer) => return answer,
            // Who is refused before the body was read may find the connection closed before the answer.
            Err(PullError::Wire(_)) => {}
            Err(error) => panic!("{error}"),
        }
    }
    panic!("{path} is never answered")
}

fn named(chunk: &[u8]) -> Named {
    Named { digest: chunk_digest(chunk), len: chunk.len() as u32 }
}

fn end(chunks: &[&[u8]]) -> Record {
    let mut root = RootDigest::new();
    chunks.iter().for_each(|chunk| root.push(chunk_digest(chunk), chunk.len() as u64));
    Record::End { size: chunks.iter().map(|chunk| chunk.len() as u64).sum(), root_digest: root.finish() }
}

fn frame(chunks: Vec<Named>, codec: Codec, stored: &[u8]) -> Record {
    Record::Frame { chunks, codec, stored: Bytes::copy_from_slice(stored) }
}

fn body(records: &[Record]) -> Vec<u8> {
    let mut out = wire::begin();
    records.iter().for_each(|record| record.encode(&mut out));
    out.take()
}

fn reference(chunk: &[u8], prove: Option<[u8; 32]>) -> Record {
    let proof = prove.map(|key| wire::proof(&key, chunk));
    Record::References(vec![Reference { chunk: named(chunk), proof }])
}

/// Each lie is told as one, and nothing is there afterwards.
#[tokio::test]
async fn lies_are_refused() {
    let server = server();
    let door = root(&server);
    let (good, other) = (noise(1, 20_000), noise(2, 20_000));
    let stored = zstd::bulk::compress(&vec![7; 50_000], 1).unwrap();
    let bomb = zstd::bulk::compress(&vec![0; 64 << 20], 1).unwrap();
    let one = |chunk: Named, codec, stored: &[u8]| vec![frame(vec![chunk], codec, stored), end(&[&good])];
    let mut short = body(&one(named(&good), Codec::Raw, &good));
    short.truncate(short.len() - 1);
    let mut longer = body(&one(named(&good), Codec::Raw, &good));
    longer.push(0);
    let lies: Vec<(&str, Vec<u8>)> = vec![
        ("another digest", body(&one(named(&other), Codec::Raw, &good))),
        ("another length", body(&one(Named { len: 19_999, ..named(&good) }, Codec::Raw, &good))),
        ("not a frame", body(&one(named(&good), Codec::Zstd, &good))),
        ("a bomb", body(&one(Named { len: 131_072, ..named(&good) }, Codec::Zstd, &bomb))),
        ("a bomb of several", body(&one(named(&good), Codec::ZstdFrame, &bomb))),
        ("less than it decodes to", body(&one(Named { len: 20_000, ..named(&good) }, Codec::ZstdFrame, &stored))),
        ("another root", body(&[frame(vec![named(&good)], Codec::Raw, &good), end(&[&other])])),
        ("another size", {
            let Record::End { root_digest, .. } = end(&[&good]) else { unreachable!() };
            body(&[frame(vec![named(&good)], Codec::Raw, &good), Record::End { size: 1, root_digest }])
        }),
        ("no end", body(&[frame(vec![named(&good)], Codec::Raw, &good)])),
        ("cut short", short),
        ("more than the end", longer),
        ("short chunks", {
            let tiny = &good[..100];
            body(&[
                frame(vec![named(tiny)], Codec::Raw, tiny),
                frame(vec![named(&good)], Codec::Raw, &good),
                end(&[tiny, &good]),
            ])
        }),
        ("nothing", Vec::new()),
        ("something else", b"GET / HTTP/1.1".to_vec()),
    ];
    for (what, lie) in lies {
        let (status, answer) = send(&door, "/api/v1/push/objects/data?key=lie", lie).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{what}: {}", String::from_utf8_lossy(&answer));
    }
    // What is not there is named.
    let lie = body(&[reference(&good, None), reference(&other, None), end(&[&good, &other])]);
    let (status, answer) = send(&door, "/api/v1/push/objects/data?key=lie", lie).await;
    assert_eq!(status, StatusCode::CONFLICT);
    assert_eq!(decode_digests(&answer).unwrap(), [chunk_digest(&good), chunk_digest(&other)]);
    assert_eq!(number(&server.json(&["store", "stats"]), "objects"), 0);
    // And the same without the lie is taken.
    let truth = body(&one(named(&good), Codec::Raw, &good));
    let (status, _) = send(&door, "/api/v1/push/objects/data?key=truth", truth).await;
    assert_eq!(status, StatusCode::OK);
    assert!(read(&server, "data/truth") == good);
    let lie = body(&[
        Record::References(vec![Reference { chunk: Named { len: 10_000, ..named(&good) }, proof: None }]),
        end(&[&good]),
    ]);
    assert_eq!(send(&door, "/api/v1/push/objects/data?key=lie", lie).await.0, StatusCode::BAD_REQUEST);
    for path in
        ["/api/v1/push/objects/none?key=k", "/api/v1/push/objects/.images?key=k", "/api/v1/push/objects/data@s?key=k"]
    {
        let (status, _) = send(&door, path, body(&one(named(&good), Codec::Raw, &good))).await;
        assert!(status.is_client_error(), "{path}: {status}");
    }
}

/// The key of a tenant that owns a bucket.
fn tenant(server: &Server, name: &str) -> Appliance {
    server.run(&["tenant", "create", name]);
    let key = server.json(&["key", "create", "--tenant", name]);
    let (access, secret) = (key["access_key"].as_str().unwrap(), key["secret_key"].as_str().unwrap());
    let made = server
        .program()
        .env("BEDPLATE_ACCESS_KEY", access)
        .env("BEDPLATE_SECRET_KEY", secret)
        .args(["bucket", "create", &format!("{name}-data")])
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    appliance(server, access, secret)
}

/// Who may not put an object may not push it, nor ask; and a digest alone gives a tenant no other tenant's bytes.
#[tokio::test]
async fn strangers_get_nothing() {
    let server = server();
    let (alice, bob) = (tenant(&server, "alice"), tenant(&server, "bob"));
    let secret = noise(11, 30_000);
    let whole = body(&[frame(vec![named(&secret)], Codec::Raw, &secret), end(&[&secret])]);
    let (status, _) = send(&alice, "/api/v1/push/objects/alice-data?key=secret", whole.clone()).await;
    assert_eq!(status, StatusCode::OK);
    for path in ["objects/alice-data?key=k", "objects/data?key=k", "parts/alice-data?key=k&part=1&upload=00"] {
        let (status, _) = send(&bob, &format!("/api/v1/push/{path}"), whole.clone()).await;
        assert_eq!(status, StatusCode::FORBIDDEN, "{path}");
    }
    let question = encode_digests(&[chunk_digest(&secret)]);
    for (method, path) in [(Method::POST, "known/alice-data?key=k"), (Method::POST, "uploads/alice-data?key=k&name=n")]
    {
        let asked =
            bob.exchange(method, &format!("/api/v1/push/{path}"), question.clone().into(), OCTETS).await.unwrap();
        assert_eq!(asked.0, StatusCode::FORBIDDEN, "{path}");
    }
    let nobody = appliance(&server, "nobody", "nothing");
    assert_eq!(send(&nobody, "/api/v1/push/objects/alice-data?key=k", whole).await.0, StatusCode::UNAUTHORIZED);

    // Bob knows the digest, and not the bytes.
    let terms: Value = bob.get_json("/api/v1/push/terms/bob-data?key=k").await.unwrap();
    let shown = terms["prove"].as_str().unwrap();
    let key = shown.parse::<bedplate::model::Digest>().unwrap().0;
    let alices: Value = alice.get_json("/api/v1/push/terms/alice-data?key=k").await.unwrap();
    assert_ne!(alices["prove"], terms["prove"]);
    let path = format!("/api/v1/push/objects/bob-data?key=stolen&prove={shown}");
    let guess = Reference { chunk: named(&secret), proof: Some([3; 16]) };
    // Nor does a proof help that alice made for herself.
    let alices = alices["prove"].as_str().unwrap().parse::<bedplate::model::Digest>().unwrap().0;
    for references in [
        reference(&secret, None),
        Record::References(vec![guess]),
        reference(&secret, Some(alices)),
        reference(&secret, Some([0; 32])),
    ] {
        let (status, answer) = send(&bob, &path, body(&[references, end(&[&secret])])).await;
        assert_eq!(status, StatusCode::CONFLICT);
        assert_eq!(decode_digests(&answer).unwrap(), [chunk_digest(&secret)]);
    }
    let zeros = format!("/api/v1/push/objects/bob-data?key=stolen&prove={}", "0".repeat(64));
    let (status, _) = send(&bob, &zeros, body(&[reference(&secret, Some([0; 32])), end(&[&secret])])).await;
    assert_eq!(status, StatusCode::CONFLICT, "a key of one's own choice proves nothing");
    let root = root(&server);
    let missing = server.program().args(["get", "bob-data/stolen", "nowhere"]).output().unwrap();
    assert!(!missing.status.success());
    // Who has the bytes shows it, and root needs no proof.
    let (status, _) = send(&bob, &path, body(&[reference(&secret, Some(key)), end(&[&secret])])).await;
    assert_eq!(status, StatusCode::OK);
    let (status, _) =
        send(&root, "/api/v1/push/objects/data?key=k", body(&[reference(&secret, None), end(&[&secret])])).await;
    assert_eq!(status, StatusCode::OK);
    assert!(read(&server, "data/k") == secret && read(&server, "bob-data/stolen") == secret);
}

fn copy(at: u64, len: u32) -> Op {
    Op::Copy { at, len }
}

/// A push of one chunk, `new`, that is said to be so.
fn patch(chunk: Named, ops: Vec<Op>, inserted: &[u8], new: &[u8]) -> Vec<u8> {
    let stored = Bytes::copy_from_slice(inserted);
    let chunks = vec![Patched { chunk, ops }];
    body(&[Record::Patch { chunks, inserted: inserted.len() as u32, codec: Codec::Raw, stored }, end(&[new])])
}

/// A patch makes what it says of what the caller may read, or its chunk must come along.
#[tokio::test]
async fn patches_are_compared_with_their_digests() {
    let server = server();
    let door = root(&server);
    let old = noise(21, 100_000);
    let whole = body(&[frame(vec![named(&old)], Codec::Raw, &old), end(&[&old])]);
    let path = "/api/v1/push/objects/data?key=k";
    let (status, answer) = send(&door, path, whole).await;
    assert_eq!(status, StatusCode::OK);
    let etag = serde_json::from_slice::<Value>(&answer).unwrap()["etag"].as_str().unwrap().to_owned();
    let new = [&old[..40_000], b"between", &old[50_000..]].concat();
    let patch = |chunk: Named, ops: Vec<Op>, inserted: &[u8]| patch(chunk, ops, inserted, &new);
    let right = vec![copy(0, 40_000), Op::Insert { len: 7 }, copy(50_000, 50_000)];
    let based = format!("{path}&base={etag}");
    let lies = [
        (&based, patch(named(&new), right.clone(), b"BETWEEN"), "other bytes between"),
        (&based, patch(named(&new), vec![copy(1, 40_000), right[1], right[2]], b"between"), "from elsewhere"),
        (&based, patch(named(&new), vec![right[0], right[1], copy(60_000, 50_000)], b"between"), "from beyond the end"),
        (
            &based,
            patch(named(&new), vec![copy(1 << 50, 40_000), right[1], copy((1 << 50) + 50_000, 50_000)], b"between"),
            "from far beyond",
        ),
        (&format!("{path}&base=other"), patch(named(&new), right.clone(), b"between"), "of another object"),
        (&path.to_owned(), patch(named(&new), right.clone(), b"between"), "of nothing"),
    ];
    for (path, lie, what) in lies {
        let (status, answer) = send(&door, path, lie).await;
        assert_eq!(status, StatusCode::CONFLICT, "{what}: {}", String::from_utf8_lossy(&answer));
        assert_eq!(decode_digests(&answer).unwrap(), [chunk_digest(&new)], "{what}");
    }
    assert!(read(&server, "data/k") == old);
    let (status, _) = send(&door, &based, patch(named(&new), right, b"between")).await;
    assert_eq!(status, StatusCode::OK);
    assert!(read(&server, "data/k") == new);
}

/// Who may put and not get is told nothing of what is there, and no patch reads it for them.
#[tokio::test]
async fn a_patch_reads_nothing_that_its_caller_may_not() {
    let server = server();
    let door = root(&server);
    let old = noise(21, 100_000);
    let path = "/api/v1/push/objects/data?key=k";
    let whole = body(&[frame(vec![named(&old)], Codec::Raw, &old), end(&[&old])]);
    let (status, answer) = send(&door, path, whole.clone()).await;
    assert_eq!(status, StatusCode::OK);
    let etag = serde_json::from_slice::<Value>(&answer).unwrap()["etag"].as_str().unwrap().to_owned();
    let stranger = tenant(&server, "dora");
    let policy = serde_json::json!({"Version": "2012-10-17", "Statement": [{
        "Effect": "Allow", "Principal": {"AWS": "arn:aws:iam::dora:root"}, "Action": "s3:PutObject", "Resource": "arn:aws:s3:::data/*",
    }]});
    let file = server.path("policy.json");
    fs::write(&file, policy.to_string()).unwrap();
    let done = std::process::Command::new(crate::support::aws_cli())
        .env("AWS_ACCESS_KEY_ID", crate::support::ACCESS_KEY)
        .env("AWS_SECRET_ACCESS_KEY", crate::support::SECRET_KEY)
        .env("AWS_DEFAULT_REGION", "us-east-1")
        .args(["--endpoint-url", &server.s3_url(), "s3api", "put-bucket-policy", "--bucket", "data", "--policy"])
        .arg(format!("file://{}", file.display()))
        .output()
        .unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let signature = "/api/v1/push/signature/data?key=k&start=0&end=100000";
    assert!(door.get(signature, None, 1 << 20).await.is_ok());
    let refused = stranger.get(signature, None, 1 << 20).await.unwrap_err();
    assert_eq!(refused.status(), Some(StatusCode::FORBIDDEN));
    let again = patch(named(&old), vec![copy(0, 100_000)], b"", &old);
    let based = format!("{path}&base={etag}");
    assert_eq!(send(&door, &based, again.clone()).await.0, StatusCode::OK);
    let (status, _) = send(&stranger, &based, again).await;
    assert_eq!(status, StatusCode::CONFLICT, "a patch may not read for the caller");
    assert_eq!(send(&stranger, path, whole).await.0, StatusCode::OK);
}

/// A tenant's own put saves what it saves root: its client proves what it has.
#[test]
fn a_tenants_put_proves_what_it_has() {
    let server = server();
    server.run(&["tenant", "create", "carol"]);
    let key = server.json(&["key", "create", "--tenant", "carol"]);
    let carol = |args: &[&str]| {
        let mut command = server.program();
        command.env("BEDPLATE_ACCESS_KEY", key["access_key"].as_str().unwrap());
        command.env("BEDPLATE_SECRET_KEY", key["secret_key"].as_str().unwrap());
        let output = command.args(["--output", "json"]).args(args).output().unwrap();
        serde_json::from_str::<Value>(&crate::support::success(output, args)).unwrap_or_default()
    };
    carol(&["bucket", "create", "carols"]);
    let file = server.path("file.jsonl");
    fs::write(&file, lines(3, 350_000)).unwrap();
    let file = file.to_str().unwrap();
    carol(&["put", file, "carols/a"]);
    let again = carol(&["put", file, "carols/b"]);
    assert!(number(&again, "bytes_sent") * 500 < number(&again, "bytes_total"), "{again}");
    assert_eq!(number(&carol(&["put", file, "carols/b"]), "files_skipped"), 1);
}

/// The root key as the Basic scheme writes it.
const BASIC: &str = "Basic VEVTVFJPT1RLRVk6dGVzdC1yb290LXNlY3JldA==";

/// Bodies that do not come on hold every place, and lose them to whoever has something to send.
#[tokio::test]
async fn who_trickles_makes_room() {
    let server = server();
    let stalled: Vec<TcpStream> = (0..40)
        .map(|n| {
            let mut stream = TcpStream::connect(server.api()).unwrap();
            let head = format!(
                "PUT /api/v1/push/objects/data?key=slow{n} HTTP/1.1\r\nHost: h\r\nAuthorization: {BASIC}\r\n\
                 Content-Length: 1000000\r\n\r\nbedplate-push-01"
            );
            stream.write_all(head.as_bytes()).unwrap();
            stream
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(500)).await;
    let (door, chunk) = (root(&server), noise(1, 20_000));
    let whole = body(&[frame(vec![named(&chunk)], Codec::Raw, &chunk), end(&[&chunk])]);
    let began = Instant::now();
    let (status, answer) = send(&door, "/api/v1/push/objects/data?key=quick", whole).await;
    assert_eq!(status, StatusCode::OK, "{}", String::from_utf8_lossy(&answer));
    assert!(began.elapsed() < Duration::from_secs(40), "it waited {:?}", began.elapsed());
    assert!(read(&server, "data/quick") == chunk);
    drop(stalled);
    assert_eq!(number(&server.json(&["store", "stats"]), "objects"), 1);
}
