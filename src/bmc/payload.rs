//! What goes out to a BMC: JSON in one piece, or a firmware file in a form of several parts, read from the disk as it is sent. Its
//! length is always told beforehand: many BMCs take no chunked bodies.

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use hyper::body::{Body, Frame, SizeHint};
use tokio::io::{AsyncRead as _, ReadBuf};

/// Bytes that are read from a file at once.
const READ_BYTES: usize = 64 * 1024;

/// A file to upload, alone or as one part of a form.
#[derive(Clone)]
pub(super) struct Upload {
    file: PathBuf,
    bytes: u64,
    before: Bytes,
    after: Bytes,
    content_type: String,
    /// A cookie that must come with it.
    pub(super) cookie: Option<String>,
}

/// One field of a form: its name, its kind, and its text.
pub(super) struct Field<'a> {
    pub(super) name: &'a str,
    pub(super) kind: Option<&'a str>,
    pub(super) text: String,
}

/// Marks the parts of a form; nothing in a JSON document looks like it.
const BOUNDARY: &str = "bedplate-firmware-5b1f8c0d2e7a4936";

impl Upload {
    /// The file alone.
    pub(super) async fn plain(file: &Path) -> io::Result<Self> {
        let bytes = tokio::fs::metadata(file).await?.len();
        let content_type = "application/octet-stream".to_owned();
        Ok(Self { file: file.to_owned(), bytes, before: Bytes::new(), after: Bytes::new(), content_type, cookie: None })
    }

    /// A form: some fields, and the file under the name `file_field`.
    pub(super) async fn form(file: &Path, fields: &[Field<'_>], file_field: &str) -> io::Result<Self> {
        let bytes = tokio::fs::metadata(file).await?.len();
        let name: String = file.file_name().unwrap_or_default().to_string_lossy().replace(['"', '\r', '\n'], "_");
        let mut before = String::new();
        for Field { name, kind, text } in fields {
            let kind = kind.map(|kind| format!("Content-Type: {kind}\r\n")).unwrap_or_default();
            before.push_str(&format!(
                "--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"{name}\"\r\n{kind}\r\n{text}\r\n"
            ));
        }
        before.push_str(&format!(
            "--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"{file_field}\"; filename=\"{name}\"\r\n\
             Content-Type: application/octet-stream\r\n\r\n"
        ));
        let after = format!("\r\n--{BOUNDARY}--\r\n");
        let content_type = format!("multipart/form-data; boundary={BOUNDARY}");
        Ok(Self {
            file: file.to_owned(),
            bytes,
            before: before.into(),
            after: after.into(),
            content_type,
            cookie: None,
        })
    }

    /// The form of DSP0266, "Multipart HTTP push updates": the parameters, then the file.
    pub(super) async fn update(file: &Path, parameters: &serde_json::Value) -> io::Result<Self> {
        let field = Field { name: "UpdateParameters", kind: Some("application/json"), text: parameters.to_string() };
        Self::form(file, &[field], "UpdateFile").await
    }

    pub(super) fn content_type(&self) -> &str {
        &self.content_type
    }

    /// The file's name and size, for the audit log.
    pub(super) fn name(&self) -> String {
        format!("{} ({} bytes)", self.file.display(), self.bytes)
    }

    /// Opens it for sending.
    pub(super) async fn open(&self) -> io::Result<Payload> {
        let file = tokio::fs::File::open(&self.file).await?;
        let parts = [Part::Bytes(self.before.clone()), Part::File(file, self.bytes), Part::Bytes(self.after.clone())];
        Ok(Payload { left: self.before.len() as u64 + self.bytes + self.after.len() as u64, parts: parts.into() })
    }
}

enum Part {
    Bytes(Bytes),
    /// A file, and how much of it is still to be sent.
    File(tokio::fs::File, u64),
}

/// The body of one request.
pub(super) struct Payload {
    parts: VecDeque<Part>,
    left: u64,
}

impl From<Bytes> for Payload {
    fn from(bytes: Bytes) -> Self {
        Self { left: bytes.len() as u64, parts: VecDeque::from([Part::Bytes(bytes)]) }
    }
}

impl Payload {
    fn give(&mut self, bytes: Bytes) -> Frame<Bytes> {
        self.left -= bytes.len() as u64;
        Frame::data(bytes)
    }
}

impl Body for Payload {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        loop {
            let read = match self.parts.front_mut() {
                None => return Poll::Ready(None),
                Some(Part::Bytes(bytes)) => std::mem::take(bytes),
                Some(Part::File(_, 0)) => Bytes::new(),
                Some(Part::File(file, left)) => {
                    let want = usize::try_from(*left).unwrap_or(READ_BYTES).min(READ_BYTES);
                    let mut buffer = BytesMut::zeroed(want);
                    let mut into = ReadBuf::new(&mut buffer);
                    match Pin::new(file).poll_read(cx, &mut into) {
                        Poll::Pending => return Poll::Pending,
                        Poll::Ready(Err(error)) => return Poll::Ready(Some(Err(error))),
                        Poll::Ready(Ok(())) => {}
                    }
                    let count = into.filled().len();
                    if count == 0 {
                        let why = "the file became shorter while it was sent";
                        return Poll::Ready(Some(Err(io::Error::new(io::ErrorKind::UnexpectedEof, why))));
                    }
                    *left -= count as u64;
                    buffer.truncate(count);
                    let frame = self.give(buffer.freeze());
                    return Poll::Ready(Some(Ok(frame)));
                }
            };
            self.parts.pop_front();
            if !read.is_empty() {
                let frame = self.give(read);
                return Poll::Ready(Some(Ok(frame)));
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

#[cfg(test)]
mod tests {
    //! A form's length is told right, and its bytes are its parts in order.
    use http_body_util::BodyExt as _;

    use super::*;

    #[tokio::test]
    async fn a_form_is_as_long_as_it_says() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("bmc.bin");
        let bytes: Vec<u8> = (0..200_000u32).map(|n| n as u8).collect();
        std::fs::write(&file, &bytes).unwrap();
        let form = Upload::update(&file, &serde_json::json!({ "Targets": [] })).await.unwrap();
        let payload = form.open().await.unwrap();
        let told = payload.size_hint().exact().unwrap();
        let sent = payload.collect().await.unwrap().to_bytes();
        assert_eq!(sent.len() as u64, told);
        let at = sent.windows(4).rposition(|w| w == b"\r\n\r\n").map(|at| at + 4).unwrap();
        assert!(sent.starts_with(b"--bedplate-") && sent.ends_with(b"--\r\n"));
        assert!(at < 600 && sent[at..].starts_with(&bytes));
        assert_eq!(
            Upload::plain(&file).await.unwrap().open().await.unwrap().collect().await.unwrap().to_bytes(),
            bytes
        );
    }
}
