//! Requests whose heads do not come, or are larger than S3 allows.

use std::time::{Duration, Instant};

use futures_util::future::join_all;

use super::sign::{self, UNSIGNED};
use super::{Raw, SOON, ask, is_status, server_with};
use crate::support::Server;

#[tokio::test]
async fn a_head_that_does_not_come_ends_the_connection() {
    let server = Server::start();
    let begun = ["P", "GET", "GET /readyz HTTP/1.1\r\nhost: x\r\n", "PRI * HTTP/2.0", ""];
    let before = Instant::now();
    let waits = begun.iter().flat_map(|begun| [(begun, server.s3()), (begun, server.api())]).map(
        |(begun, address)| async move {
            let mut raw = Raw::open(address).await;
            raw.send(begun).await;
            raw.rest(Duration::from_secs(60)).await;
        },
    );
    // A header now and then is no progress.
    let drip = async {
        let mut raw = Raw::open(server.s3()).await;
        raw.send("GET /readyz HTTP/1.1\r\nhost: x\r\n").await;
        let mut sent = 0;
        while raw.0.try_write(b"x-a: b\r\n").is_ok() && sent < 600 {
            tokio::time::sleep(Duration::from_millis(100)).await;
            sent += 1;
        }
        assert!(sent < 400, "the connection lives on one header at a time");
    };
    tokio::join!(join_all(waits), drip);
    assert!(before.elapsed() > Duration::from_secs(10), "no time is given at all");
    let answer = ask(server.s3(), "GET /readyz HTTP/1.1\r\nhost: x\r\n\r\n", b"").await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[tokio::test]
async fn heads_are_as_large_as_s3_allows() {
    let server = server_with(&[]);
    let host = server.s3().to_string();
    let put = |path: &str, headers: &[(&str, &str)]| {
        let signed = sign::Unsigned { method: "PUT", path, host: &host, content: UNSIGNED, headers }.sign();
        signed.head("PUT", path, &[("content-length", "2")])
    };
    let (most, more) = ("v".repeat(2047), "v".repeat(2048));
    is_status(&ask(server.s3(), &put("/b-bucket/a", &[("x-amz-meta-n", &most)]), b"ok").await, 200, "");
    let large = put("/b-bucket/b", &[("x-amz-meta-n", &more)]);
    is_status(&ask(server.s3(), &large, b"ok").await, 400, "MetadataTooLarge");
    let large = put("/b-bucket/c", &[("x-other", &"v".repeat(8192))]);
    is_status(&ask(server.s3(), &large, b"ok").await, 400, "RequestHeaderSectionTooLarge");
    let mut raw = Raw::open(server.s3()).await;
    raw.send(put("/b-bucket/d", &[("x-other", &"v".repeat(100_000))])).await;
    let heard = raw.rest(SOON).await;
    assert!(heard.starts_with("HTTP/1.1 431"), "{heard}");
    let listed = server.json(&["ls", "b-bucket/"]);
    assert_eq!(listed["objects"].as_array().unwrap().len(), 1, "{listed}");
}
