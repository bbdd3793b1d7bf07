//! `bedplate store import` and `export`: files into a data folder and out of it, with no appliance in between.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use futures_util::{StreamExt as _, TryStreamExt as _};
use indicatif::ProgressBar;
use serde::Serialize;

use crate::cli::Context;
use crate::cli::exit::{CliError, DONE, Exit};
use crate::cli::files::files_below;
use crate::cli::remote::Place;
use crate::meta::{Embedded, Meta, MetaError};
use crate::model::{BucketName, ByteSize, ObjectKey};
use crate::store::{ENCRYPTION, ListRequest, ObjectInfo, PackHome, Store, StoreError};
use crate::sys::space::Reserve;
use crate::sys::sparse::are_zeros;
use crate::sys::worker::{Workers, blocking};

/// Files that are read or written at once.
const FILES_AT_ONCE: usize = 4;
/// Objects listed at once.
const PAGE: usize = 1000;

/// What an import or an export did.
#[derive(Debug, Serialize)]
struct Summary {
    files: u64,
    bytes_total: u64,
    seconds: f64,
}

impl Summary {
    fn text(&self, done: &str) -> String {
        format!("{} files {done}, {} in {:.1} s", self.files, ByteSize(self.bytes_total), self.seconds)
    }
}

/// A data folder that this process has open.
pub(super) struct Opened {
    pub(super) store: Store,
    engine: Workers,
}

impl Opened {
    async fn new(context: &Context) -> Result<Self, CliError> {
        let reserve = context.config.serve.reserve()?;
        Self::over(context, Embedded::open_with(&context.data.join("meta"), reserve)?, reserve).await
    }

    /// Opens the folder, unless another process has it open.
    pub(super) async fn unless_used(context: &Context) -> Result<Option<Self>, CliError> {
        let reserve = context.config.serve.reserve()?;
        match Embedded::open_with(&context.data.join("meta"), reserve) {
            Err(MetaError::Locked(_)) => Ok(None),
            meta => Self::over(context, meta?, reserve).await.map(Some),
        }
    }

    async fn over(context: &Context, meta: Arc<dyn Meta>, reserve: Reserve) -> Result<Self, CliError> {
        let engine = Workers::new();
        let packs = PackHome::local(context.data.join("packs")).with_reserve(reserve);
        let packs = packs.with_ration(context.config.serve.ration());
        Ok(Self { store: Store::open(meta, packs, &engine).await?, engine })
    }

    pub(super) async fn close(self) {
        self.store.close().await;
        self.engine.stop().await;
    }
}

/// Brings files into the data folder.
pub(super) async fn import(context: &Context, place: &Place, source: &Path) -> Result<Exit, CliError> {
    let started = Instant::now();
    let files = files_below(source, &place.key)?;
    let bytes_total = files.iter().map(|file| file.bytes).sum();
    let opened = Opened::new(context).await?;
    match opened.store.create_bucket(&place.bucket, "root").await {
        Ok(()) | Err(StoreError::BucketExists(_)) => {}
        Err(error) => return Err(error.into()),
    }
    let bar = context.output.byte_bar(bytes_total, "import");
    let imports = files.iter().map(|file| import_one(&opened.store, &place.bucket, &file.file, &file.key, &bar));
    let outcome = futures_util::stream::iter(imports).buffer_unordered(FILES_AT_ONCE).try_collect::<Vec<()>>().await;
    opened.close().await;
    bar.finish_and_clear();
    outcome?;
    let summary = Summary { files: files.len() as u64, bytes_total, seconds: started.elapsed().as_secs_f64() };
    context.output.value(&summary, |summary| summary.text("imported"))?;
    Ok(DONE)
}

async fn import_one(
    store: &Store,
    bucket: &BucketName,
    path: &Path,
    key: &str,
    bar: &ProgressBar,
) -> Result<(), CliError> {
    let key: ObjectKey = key.parse().map_err(|error| CliError::usage(format!("{}: {error}", path.display())))?;
    let file = File::open(path).map_err(|error| CliError::because(format!("read {}", path.display()), &error))?;
    let info = store.put_file(bucket, &key, file).await?;
    bar.inc(info.size);
    Ok(())
}

/// Takes objects out of the data folder.
pub(super) async fn export(context: &Context, place: &Place, target: &Path) -> Result<Exit, CliError> {
    let started = Instant::now();
    let opened = Opened::new(context).await?;
    let objects = objects_below(&opened.store, place).await?;
    if objects.is_empty() {
        return Err(CliError::failed(format!("nothing in the store begins with {place}"))
            .hint("`bedplate ls` lists what there is, once the appliance runs"));
    }
    let bytes_total = objects.iter().map(|object| object.size).sum();
    let bar = context.output.byte_bar(bytes_total, "export");
    let written = Arc::new(AtomicU64::new(0));
    let exports = objects.iter().map(|object| {
        let path = path_of(target, place, object.key.as_str());
        export_one(&opened.store, &place.bucket, object, path, &bar, &written)
    });
    let outcome = futures_util::stream::iter(exports).buffer_unordered(FILES_AT_ONCE).try_collect::<Vec<()>>().await;
    opened.close().await;
    bar.finish_and_clear();
    outcome?;
    let files = written.load(Ordering::Relaxed);
    let summary = Summary { files, bytes_total, seconds: started.elapsed().as_secs_f64() };
    context.output.value(&summary, |summary| summary.text("exported"))?;
    Ok(DONE)
}

async fn objects_below(store: &Store, place: &Place) -> Result<Vec<ObjectInfo>, CliError> {
    let mut found = Vec::new();
    let mut start_after = None;
    loop {
        let request = ListRequest { prefix: place.key.clone(), delimiter: None, start_after, limit: PAGE };
        let page = store.list(&place.bucket, &request).await?;
        found.extend(page.objects);
        start_after = page.next;
        if start_after.is_none() {
            return Ok(found);
        }
    }
}

/// The file that an object becomes: what its key has beyond the prefix's last slash, below the target.
fn path_of(target: &Path, place: &Place, key: &str) -> Result<PathBuf, CliError> {
    let cut = place.key.rfind('/').map_or(0, |at| at + 1);
    let rest = key.get(cut..).unwrap_or(key);
    let is_safe = !rest.is_empty() && rest.split('/').all(|part| !matches!(part, "" | "." | ".."));
    if is_safe {
        Ok(target.join(rest))
    } else {
        Err(CliError::failed(format!("{key:?} has no place in a folder"))
            .hint("get this object alone, with `bedplate get BUCKET/KEY FILE`"))
    }
}

async fn export_one(
    store: &Store,
    bucket: &BucketName,
    object: &ObjectInfo,
    path: Result<PathBuf, CliError>,
    bar: &ProgressBar,
    written: &AtomicU64,
) -> Result<(), CliError> {
    if object.headers.contains_key(ENCRYPTION) {
        return Err(CliError::failed(format!("{bucket}/{} is encrypted", object.key))
            .hint("get it from the running server: `bedplate get BUCKET/KEY`, or any S3 client with the key that it was put with"));
    }
    let path = path?;
    let at = |error: &io::Error| CliError::because(format!("write {}", path.display()), error);
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(|error| at(&error))?;
    }
    let file = Arc::new(File::create(&path).map_err(|error| at(&error))?);
    let (_, mut bytes) = store.get(bucket, &object.key, None).await?;
    let mut offset = 0;
    while let Some(first) = bytes.next().await {
        let first = first.map_err(|error| CliError::because(format!("read {bucket}/{}", object.key), &*error))?;
        // All that is ready is written at once.
        let mut pieces = vec![first];
        while pieces.len() < 64
            && let Some(Some(next)) = futures_util::FutureExt::now_or_never(bytes.next())
        {
            pieces.push(next.map_err(|error| CliError::because(format!("read {bucket}/{}", object.key), &*error))?);
        }
        let len: u64 = pieces.iter().map(|piece| piece.len() as u64).sum();
        let (file, start) = (file.clone(), offset);
        let write = blocking(move || {
            let mut at = start;
            for piece in &pieces {
                // The file is new: what is not written is a hole.
                if !are_zeros(piece) {
                    file.write_all_at(piece, at)?;
                }
                at += piece.len() as u64;
            }
            Ok::<(), io::Error>(())
        });
        write.await?.map_err(|error| at(&error))?;
        offset += len;
        bar.inc(len);
    }
    file.set_len(offset).map_err(|error| at(&error))?;
    written.fetch_add(1, Ordering::Relaxed);
    Ok(())
}
