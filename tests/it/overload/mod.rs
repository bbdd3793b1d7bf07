//! The doors under clients that stall, trickle, lie about lengths or break off, and over TLS: the real program, raw
//! sockets, and an ordinary client beside.

mod bodies;
mod flood;
mod heads;
mod sign;
mod tls;

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::support::Server;

const MIB: usize = 1024 * 1024;
/// For anything that should come at once, on a busy machine.
const SOON: Duration = Duration::from_secs(60);

/// An appliance with one bucket, `b`.
fn server_with(args: &[&str]) -> Server {
    let server = Server::start_with(args);
    server.run(&["bucket", "create", "b-bucket"]);
    server
}

/// One connection that says what it is told to say.
struct Raw(TcpStream);

impl Raw {
    async fn open(address: SocketAddr) -> Self {
        Self(TcpStream::connect(address).await.unwrap())
    }

    async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        timeout(SOON, self.0.write_all(bytes.as_ref())).await.unwrap().unwrap();
    }

    /// What comes until an answer's head and its announced body are there.
    async fn answer(&mut self) -> String {
        let mut got = Vec::new();
        loop {
            let text = String::from_utf8_lossy(&got).into_owned();
            if let Some((head, body)) = text.split_once("\r\n\r\n") {
                let length = head
                    .lines()
                    .find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ").map(str::to_owned));
                if length.is_none_or(|length| body.len() >= length.parse::<usize>().unwrap()) {
                    return text;
                }
            }
            let mut some = [0; 4096];
            let count = timeout(SOON, self.0.read(&mut some)).await.expect("no answer in time").unwrap_or(0);
            if count == 0 {
                return text;
            }
            got.extend_from_slice(&some[..count]);
        }
    }

    /// Everything that comes until the connection is closed, within `limit`.
    async fn rest(&mut self, limit: Duration) -> String {
        let mut got = Vec::new();
        let read = timeout(limit, self.0.read_to_end(&mut got)).await;
        assert!(read.is_ok(), "the connection stays open after {:?}", String::from_utf8_lossy(&got));
        String::from_utf8_lossy(&got).into_owned()
    }
}

/// Sends a whole request, and closes with its answer.
async fn ask(address: SocketAddr, head: &str, body: &[u8]) -> String {
    let mut raw = Raw::open(address).await;
    raw.send(head).await;
    raw.send(body).await;
    raw.answer().await
}

fn is_status(answer: &str, status: u16, code: &str) {
    let good = answer.starts_with(&format!("HTTP/1.1 {status}"))
        && (code.is_empty() || answer.contains(&format!("<Code>{code}</Code>")));
    assert!(good, "expected {status} {code}, got {answer}");
}
