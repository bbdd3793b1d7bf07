//! One batch as a client has it: the request on a socket, the answer's chunks, and the tar stream in them.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::identity::signed::Signer;

/// An answer that is being read.
pub(super) struct Answering(TcpStream);

/// An answer that was read.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) head: String,
    /// Its body, out of its chunks.
    pub(super) body: Vec<u8>,
    /// Whether HTTP says that the body is whole.
    pub(super) is_whole: bool,
}

/// A file in a tar stream.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Member {
    pub(super) name: String,
    pub(super) bytes: Vec<u8>,
    pub(super) records: BTreeMap<String, String>,
}

impl Member {
    /// The code by which an object is marked that could not be had.
    pub(super) fn error(&self) -> Option<&str> {
        self.records.get("BEDPLATE.error").map(String::as_str)
    }
}

/// Asks for a batch.
pub(super) fn ask(signer: &Signer, address: SocketAddr, bucket: &str, list: &str) -> Answering {
    let path = format!("/{bucket}?batch-get=");
    let headers = signer.headers(address, "POST", &path, list, "s3", &[]);
    send(address, &path, &headers, list)
}

/// Sends a request as it is.
pub(super) fn send(address: SocketAddr, path: &str, headers: &[(&str, String)], body: &str) -> Answering {
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(5)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let mut text = format!("POST {path} HTTP/1.1\r\nconnection: close\r\ncontent-length: {}\r\n", body.len());
    headers.iter().for_each(|(name, value)| text.push_str(&format!("{name}: {value}\r\n")));
    stream.write_all(format!("{text}\r\n{body}").as_bytes()).unwrap();
    Answering(stream)
}

impl Answering {
    /// Waits for the first bytes, and takes them not.
    pub(super) fn begun(&self) {
        let count = self.0.peek(&mut [0; 64]).unwrap();
        assert!(count > 0, "no answer");
    }

    /// Reads all that comes.
    pub(super) fn read(mut self) -> Answer {
        let mut bytes = Vec::new();
        // A connection that is reset ends it as well.
        drop(self.0.read_to_end(&mut bytes));
        let end = bytes.windows(4).position(|four| four == b"\r\n\r\n").unwrap() + 4;
        let head = String::from_utf8_lossy(&bytes[..end]).to_ascii_lowercase();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let (body, is_whole) = if head.contains("transfer-encoding: chunked") {
            chunks(&bytes[end..])
        } else {
            (bytes[end..].to_vec(), true)
        };
        Answer { status, head, body, is_whole }
    }
}

/// The data of chunks, and whether the last was there.
fn chunks(mut rest: &[u8]) -> (Vec<u8>, bool) {
    let mut data = Vec::new();
    while let Some(end) = rest.windows(2).position(|two| two == b"\r\n") {
        let length = usize::from_str_radix(std::str::from_utf8(&rest[..end]).unwrap(), 16).unwrap();
        if length == 0 {
            return (data, true);
        }
        let chunk = &rest[end + 2..];
        data.extend_from_slice(&chunk[..length.min(chunk.len())]);
        rest = chunk.get(length + 2..).unwrap_or_default();
    }
    (data, false)
}

impl Answer {
    /// The code of a refusal.
    pub(super) fn code(&self) -> String {
        let text = String::from_utf8_lossy(&self.body).into_owned();
        assert!(self.status >= 400, "{}", self.head);
        text.split_once("<Code>").unwrap().1.split_once("</Code>").unwrap().0.to_owned()
    }

    /// The members of a stream that is whole.
    pub(super) fn members(&self) -> Vec<Member> {
        assert_eq!(self.status, 200, "{} {}", self.head, String::from_utf8_lossy(&self.body));
        let (members, ended) = self.cut_members();
        assert!(self.is_whole && ended, "the stream was cut after {} members", members.len());
        members
    }

    /// The members that came whole, and whether the stream has its end.
    pub(super) fn cut_members(&self) -> (Vec<Member>, bool) {
        let (mut members, mut records, mut rest) = (Vec::new(), BTreeMap::new(), &self.body[..]);
        while rest.len() >= 512 {
            let (head, after) = rest.split_at(512);
            if head.iter().all(|byte| *byte == 0) {
                assert!(
                    after.len() == 512 && after.iter().all(|byte| *byte == 0),
                    "the end is not two blocks of nothing"
                );
                return (members, true);
            }
            assert_eq!(&head[257..265], b"ustar\x0000");
            let text = |range: std::ops::Range<usize>| {
                String::from_utf8(head[range].iter().copied().take_while(|byte| *byte != 0).collect()).unwrap()
            };
            let mut length = usize::from_str_radix(&text(124..136), 8).unwrap();
            if head[156] == b'0'
                && let Some(size) = records.get("size")
            {
                let size: &String = size;
                length = size.parse().unwrap();
            }
            let padded = length.next_multiple_of(512);
            if after.len() < padded {
                break;
            }
            let (bytes, next) = (&after[..length], &after[padded..]);
            assert!(after[length..padded].iter().all(|byte| *byte == 0));
            match head[156] {
                b'x' => records = read_records(bytes),
                b'0' => {
                    let name = records.get("path").cloned().unwrap_or_else(|| text(0..100));
                    members.push(Member { name, bytes: bytes.to_vec(), records: std::mem::take(&mut records) });
                }
                kind => panic!("a member of kind {kind}"),
            }
            rest = next;
        }
        (members, false)
    }
}

fn read_records(mut bytes: &[u8]) -> BTreeMap<String, String> {
    let mut records = BTreeMap::new();
    while !bytes.is_empty() {
        let blank = bytes.iter().position(|byte| *byte == b' ').unwrap();
        let length: usize = std::str::from_utf8(&bytes[..blank]).unwrap().parse().unwrap();
        let record = std::str::from_utf8(&bytes[blank + 1..length - 1]).unwrap();
        let (name, value) = record.split_once('=').unwrap();
        assert_eq!(bytes[length - 1], b'\n');
        records.insert(name.to_owned(), value.to_owned());
        bytes = &bytes[length..];
    }
    records
}
