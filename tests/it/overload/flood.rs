//! Many clients that take hold of the server and do nothing with it: it stays within its memory, and serves others.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::sign::{self, FRAMES, UNSIGNED_FRAMES};
use super::{MIB, ask, is_status, server_with};
use crate::support::{Server, noise};

/// What the server may hold at most.
const MEMORY: u64 = 512 * MIB as u64;
/// How long one ordinary request may take beside all that.
const LATENCY: Duration = Duration::from_secs(30);

/// Puts an object and gets it back, so many times; answers the longest that one of the requests took.
async fn ordinary(server: &Server, times: usize) -> Duration {
    let host = server.s3().to_string();
    let mut longest = Duration::ZERO;
    for number in 0..times {
        let body = noise(number as u64, MIB + number);
        let path = format!("/b-bucket/ordinary-{number}");
        let before = Instant::now();
        let answer = ask(server.s3(), &sign::put(&host, &path, body.len() as u64, &[]), &body).await;
        is_status(&answer, 200, "");
        longest = longest.max(before.elapsed());
        let before = Instant::now();
        assert!(get(server, &path).await == body, "{path} came back different");
        longest = longest.max(before.elapsed());
    }
    longest
}

async fn get(server: &Server, path: &str) -> Vec<u8> {
    let mut stream = TcpStream::connect(server.s3()).await.unwrap();
    stream.write_all(sign::bare("GET", &server.s3().to_string(), path).as_bytes()).await.unwrap();
    let mut got = Vec::new();
    let mut begin = None;
    loop {
        if begin.is_none() {
            begin = got.windows(4).position(|window| window == b"\r\n\r\n").map(|at| at + 4);
        }
        if let Some(begin) = begin {
            let head = String::from_utf8_lossy(&got[..begin]).to_ascii_lowercase();
            assert!(head.starts_with("http/1.1 200"), "{head}");
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
            if got.len() - begin == length.parse::<usize>().unwrap() {
                return got.split_off(begin);
            }
        }
        assert!(stream.read_buf(&mut got).await.unwrap() > 0, "the connection broke off");
    }
}

/// Over and over until `over`: sends `head` and `begin`, stalls, and comes again once it is sent away. Answers what the server
/// said.
async fn stall(server: SocketAddr, head: impl Fn() -> String, begin: Vec<Bytes>, over: CancellationToken) -> String {
    let mut said = Vec::new();
    while !over.is_cancelled() {
        let mut stream = TcpStream::connect(server).await.unwrap();
        let (mut read, mut write) = stream.split();
        let send = async {
            let mut sent = write.write_all(head().as_bytes()).await;
            for piece in &begin {
                // The server may close while this is under way.
                if sent.is_ok() {
                    sent = write.write_all(piece).await;
                }
            }
            over.cancelled().await;
        };
        let hear = async { while read.read_buf(&mut said).await.is_ok_and(|count| count > 0) {} };
        tokio::select! {
            () = send => {}
            () = hear => {}
        }
    }
    String::from_utf8_lossy(&said).into_owned()
}

/// Over and over until `over`: trickles the data of one unsigned frame of 4 GiB.
async fn trickle(server: SocketAddr, head: impl Fn() -> String, over: CancellationToken) {
    while !over.is_cancelled() {
        let mut stream = TcpStream::connect(server).await.unwrap();
        let mut sent = stream.write_all(format!("{}ffffffff\r\n", head()).as_bytes()).await;
        while sent.is_ok() && !over.is_cancelled() {
            tokio::time::sleep(Duration::from_millis(100)).await;
            sent = stream.write_all(&[7; 1000]).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_bodies_and_endless_frames_leave_room_for_others() {
    let server = server_with(&[]);
    let host = server.s3().to_string();
    let alone = ordinary(&server, 3).await;
    let over = CancellationToken::new();
    let data = Bytes::from(noise(7, 24 * MIB));
    let mut clients = JoinSet::new();
    for number in 0..256 {
        // Some stop where the store has begun to work, some before.
        let length = if number % 2 == 0 { 2 * MIB } else { 16 * MIB };
        let begin = vec![data.slice(number * 50_000..number * 50_000 + length / 2)];
        let (host, path) = (host.clone(), format!("/b-bucket/half-{number}"));
        let head = move || sign::put(&host, &path, length as u64, &[]);
        clients.spawn(stall(server.s3(), head, begin, over.clone()));
    }
    for number in 0..64 {
        // One half says that the frame has 4 GiB, the other sends half of a frame that is as long as one may be.
        let size: u64 = if number % 2 == 0 { 0xffff_ffff } else { 8 * MIB as u64 };
        let frame = format!("{size:x};chunk-signature={}\r\n", "a".repeat(64));
        let begin = vec![Bytes::from(frame), data.slice(number * 99_999..number * 99_999 + 4 * MIB)];
        let (host, path) = (host.clone(), format!("/b-bucket/framed-{number}"));
        let head = move || sign::framed(&host, &path, FRAMES, size, size + 1000).0;
        clients.spawn(stall(server.s3(), head, begin, over.clone()));
    }
    let mut trickles = JoinSet::new();
    for number in 0..64 {
        let (host, path) = (host.clone(), format!("/b-bucket/trickled-{number}"));
        let head = move || sign::framed(&host, &path, UNSIGNED_FRAMES, 0xffff_ffff, 0xffff_ffff + 100).0;
        trickles.spawn(trickle(server.s3(), head, over.clone()));
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    let beside = ordinary(&server, 4).await;
    over.cancel();
    let said = clients.join_all().await;
    trickles.join_all().await;
    let count = |code: &str| said.iter().map(|said| said.matches(code).count()).sum::<usize>();
    let held = server.peak_memory();
    eprintln!(
        "slowest ordinary request: {alone:?} alone, {beside:?} beside; {} MiB held; {} told to slow down, {} too large",
        held / MIB as u64,
        count("<Code>SlowDown</Code>"),
        count("<Code>EntityTooLarge</Code>")
    );
    assert!(held < MEMORY, "the server held {held} bytes");
    assert!(beside < LATENCY, "an ordinary request took {beside:?}");
    assert!(count("<Code>EntityTooLarge</Code>") > 0 && count("<Code>SlowDown</Code>") > 0, "nobody was sent away");
    let listed = server.json(&["ls", "b-bucket/"]);
    assert_eq!(listed["objects"].as_array().unwrap().len(), 4, "{listed}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_that_take_nothing_leave_room_for_others() {
    let server = server_with(&[]);
    let host = server.s3().to_string();
    let large = noise(1, 48 * MIB);
    is_status(&ask(server.s3(), &sign::put(&host, "/b-bucket/large", large.len() as u64, &[]), &large).await, 200, "");
    let mut readers = Vec::new();
    for _ in 0..192 {
        let mut reader = TcpStream::connect(server.s3()).await.unwrap();
        reader.write_all(sign::bare("GET", &host, "/b-bucket/large").as_bytes()).await.unwrap();
        readers.push(reader);
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    let beside = ordinary(&server, 3).await;
    let held = server.peak_memory();
    eprintln!("slowest ordinary request: {beside:?}; {} MiB held", held / MIB as u64);
    assert!(beside < LATENCY, "an ordinary request took {beside:?}");
    assert!(held < MEMORY, "the server held {held} bytes");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_documents_leave_room_for_others() {
    let server = server_with(&[]);
    let host = server.s3().to_string();
    let over = CancellationToken::new();
    let data = Bytes::from(noise(1, 3 * MIB));
    let mut clients = JoinSet::new();
    for _ in 0..256 {
        let host = host.clone();
        let head = move || {
            let path = "/b-bucket?delete=";
            let signed = sign::Unsigned { method: "POST", path, host: &host, content: sign::UNSIGNED, headers: &[] };
            signed.sign().head("POST", path, &[("content-length", &(4 * MIB).to_string())])
        };
        clients.spawn(stall(server.s3(), head, vec![data.clone()], over.clone()));
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    let beside = ordinary(&server, 3).await;
    let batch = b"<Delete><Object><Key>ordinary-1</Key></Object></Delete>";
    let path = "/b-bucket?delete=";
    let signed = sign::Unsigned { method: "POST", path, host: &host, content: &sign::sha256(batch), headers: &[] };
    let head = signed.sign().head("POST", path, &[("content-length", &batch.len().to_string())]);
    let before = Instant::now();
    let answer = ask(server.s3(), &head, batch).await;
    is_status(&answer, 200, "");
    assert!(answer.contains("<Deleted>"), "{answer}");
    let batch = before.elapsed();
    over.cancel();
    drop(clients.join_all().await);
    let held = server.peak_memory();
    eprintln!("slowest ordinary request: {beside:?}, a batch delete {batch:?}; {} MiB held", held / MIB as u64);
    assert!(beside < LATENCY && batch < LATENCY, "{beside:?} {batch:?}");
    assert!(held < MEMORY, "the server held {held} bytes");
}
