//! Many clients that take hold of the server and do nothing with it: it stays within its memory, and serves others.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

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

/// Sends `head` and `begin`, then stalls until `over`; answers what the server said meanwhile.
async fn stall(server: std::net::SocketAddr, head: String, begin: Vec<u8>, over: Arc<AtomicBool>) -> String {
    let mut stream = TcpStream::connect(server).await.unwrap();
    let (mut read, mut write) = stream.split();
    let mut said = Vec::new();
    let send = async {
        // The server may close while this is under way.
        let _sent = write.write_all(head.as_bytes()).await.is_ok() && write.write_all(&begin).await.is_ok();
        while !over.load(Ordering::Relaxed) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let hear = async { while read.read_buf(&mut said).await.is_ok_and(|count| count > 0) {} };
    tokio::select! {
        () = send => {}
        () = hear => {}
    }
    String::from_utf8_lossy(&said).into_owned()
}

/// Trickles the data of one unsigned frame of 4 GiB until `over`, or until the server hangs up.
async fn trickle(server: std::net::SocketAddr, head: String, over: Arc<AtomicBool>) {
    let mut stream = TcpStream::connect(server).await.unwrap();
    if stream.write_all(head.as_bytes()).await.is_err() || stream.write_all(b"ffffffff\r\n").await.is_err() {
        return;
    }
    while !over.load(Ordering::Relaxed) && stream.write_all(&[7; 1000]).await.is_ok() {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_bodies_and_endless_frames_leave_room_for_others() {
    let server = server_with(&[]);
    let host = server.s3().to_string();
    let alone = ordinary(&server, 3).await;
    let over = Arc::new(AtomicBool::new(false));
    let mut clients = JoinSet::new();
    for number in 0..256_u64 {
        // Some stop where the store has begun to work, some before.
        let length = if number % 2 == 0 { 2 * MIB } else { 16 * MIB };
        let head = sign::put(&host, &format!("/b-bucket/half-{number}"), length as u64, &[]);
        clients.spawn(stall(server.s3(), head, noise(number, length / 2), over.clone()));
    }
    for number in 0..64 {
        let path = format!("/b-bucket/framed-{number}");
        // One half says that the frame has 4 GiB, the other sends half of a frame that is as long as one may be.
        let size: u64 = if number % 2 == 0 { 0xffff_ffff } else { 8 * MIB as u64 };
        let (head, _) = sign::framed(&host, &path, FRAMES, size, size + 1000);
        let frame = format!("{size:x};chunk-signature={}\r\n", "a".repeat(64));
        let begin = [frame.as_bytes(), &noise(number, 4 * MIB)].concat();
        clients.spawn(stall(server.s3(), head, begin, over.clone()));
    }
    let mut trickles = JoinSet::new();
    for number in 0..64 {
        let path = format!("/b-bucket/trickled-{number}");
        let (head, _) = sign::framed(&host, &path, UNSIGNED_FRAMES, 0xffff_ffff, 0xffff_ffff + 100);
        trickles.spawn(trickle(server.s3(), head, over.clone()));
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    let beside = ordinary(&server, 10).await;
    over.store(true, Ordering::Relaxed);
    let said = clients.join_all().await;
    let count = |code: &str| said.iter().filter(|said| said.contains(code)).count();
    let held = server.peak_memory();
    eprintln!(
        "slowest ordinary request: {alone:?} alone, {beside:?} beside; {} MiB held; {} told to slow down, {} too large",
        held / MIB as u64,
        count("<Code>SlowDown</Code>"),
        count("<Code>EntityTooLarge</Code>")
    );
    assert!(held < MEMORY, "the server held {held} bytes");
    assert!(beside < LATENCY, "an ordinary request took {beside:?}");
    assert_eq!(count("<Code>EntityTooLarge</Code>"), 32);
    let listed = server.json(&["ls", "b-bucket/"]);
    assert_eq!(listed["objects"].as_array().unwrap().len(), 10, "{listed}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_that_take_nothing_leave_room_for_others() {
    let server = server_with(&[]);
    let host = server.s3().to_string();
    let large = noise(1, 48 * MIB);
    is_status(&ask(server.s3(), &sign::put(&host, "/b-bucket/large", large.len() as u64, &[]), &large).await, 200, "");
    let mut readers = Vec::new();
    for _ in 0..128 {
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
    let over = Arc::new(AtomicBool::new(false));
    let mut clients = JoinSet::new();
    for number in 0..256 {
        let path = "/b-bucket?delete=";
        let signed = sign::Unsigned { method: "POST", path, host: &host, content: sign::UNSIGNED, headers: &[] }.sign();
        let head = signed.head("POST", path, &[("content-length", &(4 * MIB).to_string())]);
        clients.spawn(stall(server.s3(), head, noise(number, 3 * MIB), over.clone()));
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
    over.store(true, Ordering::Relaxed);
    drop(clients.join_all().await);
    let held = server.peak_memory();
    eprintln!("slowest ordinary request: {beside:?}, a batch delete {batch:?}; {} MiB held", held / MIB as u64);
    assert!(beside < LATENCY && batch < LATENCY, "{beside:?} {batch:?}");
    assert!(held < MEMORY, "the server held {held} bytes");
}
