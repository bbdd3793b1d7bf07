//! A bare HTTP server over files: what a server of S3 cannot beat. It knows no bucket, no key and no checksum.

use std::convert::Infallible;
use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::body::{Body, Frame, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use crate::Error;
use crate::words::Words;

/// Bytes that are read at once.
const PIECE: usize = 256 * 1024;
/// Plain bytes of a compressed frame.
const FRAME: usize = 1 << 20;
/// Pieces that lie ready to be sent.
const AHEAD: usize = 4;

/// What happens to bodies.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Keep {
    /// They are received and forgotten.
    Nothing,
    /// They are written to a file.
    Raw,
    /// They are compressed on their way in and decoded on their way out.
    Zstd,
}

/// Serves the folder `root=` on `listen=`, keeping bodies as `keep=` says, until it is killed.
pub fn run(words: &Words) -> Result<(), Error> {
    let keep = match words.text("keep")? {
        "nothing" => Keep::Nothing,
        "raw" => Keep::Raw,
        "zstd" => Keep::Zstd,
        other => return Err(format!("keep={other} is not known").into()),
    };
    let root: Arc<Path> = PathBuf::from(words.text("root")?).into();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async move {
        let listener = TcpListener::bind(words.text("listen")?).await?;
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            let root = root.clone();
            let service = service_fn(move |request| {
                let root = root.clone();
                async move { Ok::<_, Infallible>(answer(&root, keep, request).await) }
            });
            let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
            drop(tokio::task::spawn(async move { drop(connection.await) }));
        }
    })
}

async fn answer(root: &Path, keep: Keep, request: Request<Incoming>) -> Response<Pieces> {
    let path = root.join(request.uri().path().trim_start_matches('/'));
    let outcome = if request.method() == Method::PUT {
        put(path, keep, request.into_body()).await.map(|()| Response::new(Pieces::default()))
    } else {
        get(path, keep, request).await
    };
    outcome.unwrap_or_else(|error| {
        let mut response = Response::new(Pieces::from(Bytes::from(error.to_string())));
        *response.status_mut() = hyper::StatusCode::INTERNAL_SERVER_ERROR;
        response
    })
}

async fn put(path: PathBuf, keep: Keep, mut body: Incoming) -> Result<(), Error> {
    // A bucket is a folder.
    if body.size_hint().exact() == Some(0) {
        return Ok(std::fs::create_dir_all(path)?);
    }
    let (sender, mut receiver) = mpsc::channel::<Bytes>(AHEAD);
    let writer = tokio::task::spawn_blocking(move || -> Result<(), Error> {
        if keep == Keep::Nothing {
            while receiver.blocking_recv().is_some() {}
            return Ok(());
        }
        let mut file = File::create(&path)?;
        let mut zstd = zstd::bulk::Compressor::new(1)?;
        let mut gathered = Vec::with_capacity(FRAME);
        while let Some(piece) = receiver.blocking_recv() {
            if keep == Keep::Raw {
                file.write_all(&piece)?;
                continue;
            }
            gathered.extend_from_slice(&piece);
            while gathered.len() >= FRAME {
                let rest = gathered.split_off(FRAME);
                frame(&mut file, &mut zstd, &std::mem::replace(&mut gathered, rest))?;
            }
        }
        if gathered.is_empty() { Ok(()) } else { frame(&mut file, &mut zstd, &gathered) }
    });
    while let Some(part) = body.frame().await {
        if let Ok(piece) = part?.into_data() {
            drop(sender.send(piece).await);
        }
    }
    drop(sender);
    writer.await?
}

fn frame(file: &mut File, zstd: &mut zstd::bulk::Compressor<'_>, plain: &[u8]) -> Result<(), Error> {
    let stored = zstd.compress(plain)?;
    file.write_all(&u32::try_from(stored.len())?.to_le_bytes())?;
    Ok(file.write_all(&stored)?)
}

async fn get(path: PathBuf, keep: Keep, request: Request<Incoming>) -> Result<Response<Pieces>, Error> {
    let range = request.headers().get("range").and_then(|value| value.to_str().ok()).and_then(bounds);
    let (sender, receiver) = mpsc::channel(AHEAD);
    let (length_sender, length) = tokio::sync::oneshot::channel();
    // Not awaited: it ends with the file, or with the connection.
    drop(tokio::task::spawn_blocking(move || -> Result<(), Error> {
        let mut file = File::open(&path)?;
        if keep == Keep::Zstd {
            length_sender.send(None).ok();
            return decode(&mut file, &sender);
        }
        let size = file.metadata()?.len();
        let (start, end) = range.map_or((0, size), |(first, last)| (first, (last + 1).min(size)));
        length_sender.send(Some(end - start)).ok();
        if start > 0 {
            file.seek(SeekFrom::Start(start))?;
        }
        let mut left = end - start;
        while left > 0 {
            let mut piece = Vec::with_capacity(PIECE.min(left as usize));
            let read = (&mut file).take(left.min(PIECE as u64)).read_to_end(&mut piece)?;
            left -= read as u64;
            if read == 0 || sender.blocking_send(Bytes::from(piece)).is_err() {
                break;
            }
        }
        Ok(())
    }));
    let length = length.await.map_err(|_| "there is no such file")?;
    let mut response = Response::new(Pieces { first: None, rest: Some(receiver) });
    if let Some(length) = length {
        response.headers_mut().insert("content-length", length.into());
    }
    Ok(response)
}

fn decode(file: &mut File, sender: &mpsc::Sender<Bytes>) -> Result<(), Error> {
    let mut decoder = zstd::bulk::Decompressor::new()?;
    let (mut head, mut stored) = ([0; 4], Vec::new());
    while file.read_exact(&mut head).is_ok() {
        stored.resize(u32::from_le_bytes(head) as usize, 0);
        file.read_exact(&mut stored)?;
        if sender.blocking_send(Bytes::from(decoder.decompress(&stored, FRAME)?)).is_err() {
            break;
        }
    }
    Ok(())
}

/// The first and the last byte of a range.
fn bounds(text: &str) -> Option<(u64, u64)> {
    let (first, last) = text.strip_prefix("bytes=")?.split_once('-')?;
    Some((first.parse().ok()?, last.parse().ok()?))
}

/// A body of pieces as they come.
#[derive(Default)]
struct Pieces {
    first: Option<Bytes>,
    rest: Option<mpsc::Receiver<Bytes>>,
}

impl From<Bytes> for Pieces {
    fn from(all: Bytes) -> Self {
        Self { first: Some(all), rest: None }
    }
}

impl Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let piece = match (self.first.take(), &mut self.rest) {
            (Some(first), _) => Some(first),
            (None, None) => None,
            (None, Some(rest)) => std::task::ready!(rest.poll_recv(context)),
        };
        Poll::Ready(piece.map(|piece| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.first.is_none() && self.rest.is_none()
    }
}
