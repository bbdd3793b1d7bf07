//! Bodies that break off, are late, or are not what they are said to be: the right code, nothing stored, and what was not read
//! is never taken for a request.

use std::time::{Duration, Instant};

use super::sign::{self, FRAMES, UNSIGNED};
use super::{MIB, Raw, SOON, ask, is_status, server_with};
use crate::support::{Server, noise};

/// Nothing is in the bucket.
fn is_empty(server: &Server) {
    let listed = server.json(&["ls", "b-bucket/"]);
    assert_eq!(listed["objects"].as_array().map(Vec::len), Some(0), "{listed}");
}

/// How many answers are in what was heard.
fn answers(heard: &str) -> usize {
    heard.matches("HTTP/1.1 ").count()
}

#[tokio::test]
async fn a_refused_put_is_not_read_and_not_asked_for() {
    let server = server_with(&[]);
    let host = server.s3().to_string();
    let expect = [("expect", "100-continue")];
    let forged = |head: String| {
        let at = head.find("Signature=").unwrap() + "Signature=".len();
        let other = if head.as_bytes()[at] == b'0' { "1" } else { "0" };
        format!("{}{other}{}", &head[..at], &head[at + 1..])
    };
    let cases = [
        (forged(sign::put(&host, "/b-bucket/x", 100_000, &expect)), 403, "SignatureDoesNotMatch"),
        (sign::put(&host, "/absent-bucket/x", 100_000, &expect), 404, "NoSuchBucket"),
    ];
    for (head, status, code) in cases {
        let mut raw = Raw::open(server.s3()).await;
        raw.send(head).await;
        let answer = raw.rest(SOON).await;
        is_status(&answer, status, code);
        assert!(answer.to_ascii_lowercase().contains("connection: close"), "{answer}");
    }

    // Without waiting for leave: the body, which looks like a request, is thrown away with the connection.
    let inner = sign::bare("DELETE", &host, "/b-bucket");
    let body = format!("{inner}{}", inner.repeat(200));
    let head = forged(sign::put(&host, "/b-bucket/x", body.len() as u64, &[]));
    let mut raw = Raw::open(server.s3()).await;
    raw.send(head + &body).await;
    let heard = raw.rest(SOON).await;
    is_status(&heard, 403, "SignatureDoesNotMatch");
    assert_eq!(answers(&heard), 1, "{heard}");
    is_empty(&server);

    let mut raw = Raw::open(server.s3()).await;
    raw.send(sign::put(&host, "/b-bucket/good", 5, &expect)).await;
    let leave = raw.answer().await;
    assert!(leave.starts_with("HTTP/1.1 100 Continue"), "{leave}");
    raw.send("hello").await;
    is_status(&raw.answer().await, 200, "");
}

#[tokio::test]
async fn a_large_refused_put_can_read_why() {
    let server = server_with(&[]);
    let body = noise(1, 24 * MIB);
    let head = sign::put(&server.s3().to_string(), "/absent-bucket/x", body.len() as u64, &[]);
    // Sends everything before it reads, as simple clients do.
    is_status(&ask(server.s3(), &head, &body).await, 404, "NoSuchBucket");
}

#[tokio::test]
async fn a_body_that_is_not_as_announced_is_refused() {
    let server = server_with(&[]);
    let host = server.s3().to_string();
    let body = noise(3, 300_000);

    // Breaks off.
    let mut raw = Raw::open(server.s3()).await;
    raw.send(sign::put(&host, "/b-bucket/short", 300_000, &[])).await;
    raw.send(&body[..200_000]).await;
    drop(raw);

    // Another digest; the connection goes on with the next request.
    let mut raw = Raw::open(server.s3()).await;
    raw.send(sign::put(&host, "/b-bucket/md5", 300_000, &[("content-md5", "1B2M2Y8AsgTpgAmY7PhCfg==")])).await;
    raw.send(&body).await;
    is_status(&raw.answer().await, 400, "BadDigest");
    raw.send(sign::put(&host, "/b-bucket/md5", 3, &[("content-md5", "AAAA")])).await;
    is_status(&raw.answer().await, 400, "InvalidDigest");
    drop(raw);

    // Another SHA-256 than was signed.
    let content = sign::sha256(b"other");
    let signed = sign::Unsigned { method: "PUT", path: "/b-bucket/sha", host: &host, content: &content, headers: &[] };
    let head = signed.sign().head("PUT", "/b-bucket/sha", &[("content-length", "300000")]);
    let answer = ask(server.s3(), &head, &body).await;
    is_status(&answer, 400, "XAmzContentSHA256Mismatch");

    // Another checksum.
    let headers = [("x-amz-checksum-crc32", "AAAAAA==")];
    let signed =
        sign::Unsigned { method: "PUT", path: "/b-bucket/crc", host: &host, content: UNSIGNED, headers: &headers };
    let head = signed.sign().head("PUT", "/b-bucket/crc", &[("content-length", "300000")]);
    is_status(&ask(server.s3(), &head, &body).await, 400, "BadDigest");
    is_empty(&server);

    // Longer than announced: the object is what was announced, and the rest is no request.
    let mut raw = Raw::open(server.s3()).await;
    raw.send(sign::put(&host, "/b-bucket/long", 5, &[])).await;
    raw.send(b"helloNONSENSE\r\n\r\n").await;
    let heard = raw.rest(SOON).await;
    is_status(&heard, 200, "");
    assert!(answers(&heard) == 2 && heard.contains("HTTP/1.1 400"), "{heard}");
}

#[tokio::test]
async fn frames_that_are_not_as_announced_are_refused() {
    let server = server_with(&[]);
    let host = server.s3().to_string();
    let data = noise(5, 700_000);
    let encode = |path: &str, decoded: u64, cuts: &[usize], change: &dyn Fn(&mut Vec<u8>)| {
        let (_, mut signed) = sign::framed(&host, path, FRAMES, decoded, 0);
        let mut body = Vec::new();
        let mut from = 0;
        for to in cuts {
            body.extend(signed.frame(&data[from..*to]));
            from = *to;
        }
        body.extend(signed.frame(b""));
        change(&mut body);
        (signed.head("PUT", path, &[("content-length", &body.len().to_string())]), body)
    };
    let all = [65_536, 500_000, 700_000];
    let (head, body) = encode("/b-bucket/forged", 700_000, &all, &|body| body[600_000] ^= 1);
    is_status(&ask(server.s3(), &head, &body).await, 403, "SignatureDoesNotMatch");
    let (head, body) = encode("/b-bucket/short", 700_000, &all[..2], &|_| {});
    is_status(&ask(server.s3(), &head, &body).await, 400, "IncompleteBody");
    let (head, body) = encode("/b-bucket/long", 500_000, &all, &|_| {});
    is_status(&ask(server.s3(), &head, &body).await, 400, "IncompleteBody");
    let (head, body) = encode("/b-bucket/noise", 700_000, &all, &|body| body[..4].fill(b'z'));
    is_status(&ask(server.s3(), &head, &body).await, 400, "IncompleteBody");
    for length in ["900000", "fffffff", "100000000"] {
        let frame = format!("{length};chunk-signature={}\r\n", "0".repeat(64));
        let (head, _) = sign::framed(&host, "/b-bucket/large", FRAMES, 1 << 30, frame.len() as u64 + (1 << 30));
        is_status(&ask(server.s3(), &head, frame.as_bytes()).await, 400, "EntityTooLarge");
    }
    is_empty(&server);

    // Frames as clients send them, in pieces that end anywhere.
    let (head, body) = encode("/b-bucket/good", 700_000, &all, &|_| {});
    let mut raw = Raw::open(server.s3()).await;
    raw.send(head).await;
    for piece in body.chunks(33_333) {
        raw.send(piece).await;
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let answer = raw.answer().await;
    is_status(&answer, 200, "");
    let back = server.path("back");
    server.run(&["get", "b-bucket/good", back.to_str().unwrap()]);
    assert!(std::fs::read(back).unwrap() == data, "the object came back different");
}

#[tokio::test]
async fn a_body_that_does_not_come_times_out() {
    let server = server_with(&["--body-timeout", "2s"]);
    let host = server.s3().to_string();
    let batch =
        sign::Unsigned { method: "POST", path: "/b-bucket?delete=", host: &host, content: UNSIGNED, headers: &[] };
    let heads = [
        sign::put(&host, "/b-bucket/late", 1_000_000, &[]),
        sign::framed(&host, "/b-bucket/late", FRAMES, 1_000_000, 1_001_000).0,
        batch.sign().head("POST", "/b-bucket?delete=", &[("content-length", "1000")]),
    ];
    for head in heads {
        let mut raw = Raw::open(server.s3()).await;
        let before = Instant::now();
        raw.send(head + "10").await;
        let heard = raw.rest(SOON).await;
        is_status(&heard, 400, "RequestTimeout");
        assert!(before.elapsed() >= Duration::from_secs(2), "{heard}");
    }
    // A pause that is shorter, over and over, is none.
    let mut raw = Raw::open(server.s3()).await;
    raw.send(sign::put(&host, "/b-bucket/slow", 5, &[])).await;
    for byte in b"hello" {
        tokio::time::sleep(Duration::from_millis(700)).await;
        raw.send([*byte]).await;
    }
    is_status(&raw.answer().await, 200, "");
}
