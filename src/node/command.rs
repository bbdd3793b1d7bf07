//! `bedplate-agent write`: the agent's writer on a running system, for a disk that its operator named.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::report::Gauge;
use super::verify::{self, VerifyError};
use super::write::{self, WriteError, WriteOptions};
use crate::format::order::{Installed, Phase};
use crate::model::ImageRef;
use crate::pull::{Appliance, FetchError, ImageSource, Patience};
use crate::sys::disk::{Access, Disk};

/// An appliance that is away longer than this is not coming back while someone waits at a prompt.
const PATIENCE: Patience = Patience::For(Duration::from_secs(10 * 60));

/// What to write, and where.
#[derive(Clone, Debug)]
pub struct WriteRequest {
    /// The image.
    pub image: ImageRef,
    /// A block device, or a file.
    pub disk: PathBuf,
    /// Whether a file will do.
    pub allow_file: bool,
    /// Read the disk first, and fetch only what it lacks.
    pub reuse: bool,
}

/// Why nothing, or not everything, was written.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// The disk may not be written.
    #[error("{0}")]
    Refused(String),
    /// The disk cannot be opened.
    #[error("{} cannot be opened for writing", path.display())]
    Open {
        /// The disk.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The image cannot be had.
    #[error("the image cannot be read from the appliance")]
    Fetch(#[source] FetchError),
    /// Writing failed; the disk is partly written.
    #[error("the image was not written")]
    Write(#[source] WriteError),
    /// The disk failed at the end; it is partly written.
    #[error("the disk failed while its beginning was written")]
    Commit(#[source] io::Error),
    /// What was written does not read back.
    #[error("the image was written and does not read back")]
    Verify(#[source] VerifyError),
}

impl CommandError {
    /// Whether it was refused before anything was touched, for safety's sake.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        matches!(self, Self::Refused(_))
    }
}

/// Writes the image, reads it back, and answers with the figures.
pub async fn write(appliance: &Appliance, request: &WriteRequest, gauge: &Gauge) -> Result<Installed, CommandError> {
    let began = Instant::now();
    let mut disk = open(&request.disk, request.allow_file)?;
    let source = ImageSource::open(appliance, &request.image, PATIENCE).await.map_err(CommandError::Fetch)?;
    let size = source.list().size;
    let opened = |source| CommandError::Open { path: request.disk.clone(), source };
    disk.set_len(disk.len().max(size)).map_err(opened)?;
    if disk.len() < size {
        let (path, has) = (request.disk.display(), disk.len());
        let text = format!("{path} has {has} bytes and {} needs {size}: name a larger disk", request.image);
        return Err(CommandError::Refused(text));
    }
    let hold_head = disk.is_block();
    let disk = Arc::new(disk);
    if hold_head {
        disk.zero(0, write::HEAD.min(disk.len())).map_err(CommandError::Commit)?;
    }
    gauge.begin(Phase::Write, size);
    let options = WriteOptions { reuse: request.reuse, hold_head };
    let (counts, head) = write::write_image(&source, &disk, options, gauge).await.map_err(CommandError::Write)?;
    head.commit(&disk).map_err(CommandError::Commit)?;
    gauge.begin(Phase::Verify, size);
    let root_digest = verify::verify(&source, &disk, gauge).await.map_err(CommandError::Verify)?;
    Ok(Installed {
        disk: request.disk.display().to_string(),
        disk_serial: None,
        bytes_fetched: source.bytes_fetched(),
        bytes_reused: counts.reused,
        bytes_written: counts.written,
        bytes_zero: counts.zero,
        seconds: began.elapsed().as_secs_f64(),
        root_digest,
    })
}

/// Opens what was named, or says why it will not.
fn open(path: &Path, allow_file: bool) -> Result<Disk, CommandError> {
    use std::os::unix::fs::FileTypeExt;
    let failed = |source| CommandError::Open { path: path.to_owned(), source };
    let shown = path.display();
    match std::fs::metadata(path) {
        Ok(found) if found.file_type().is_block_device() => {}
        Ok(found) if found.is_file() && allow_file => {}
        Ok(found) if found.is_file() => {
            let text = format!("{shown} is a file, not a disk: give --allow-file if it is to be overwritten");
            return Err(CommandError::Refused(text));
        }
        Ok(_) => return Err(CommandError::Refused(format!("{shown} is neither a disk nor a file"))),
        Err(error) if error.kind() == io::ErrorKind::NotFound && allow_file => {
            std::fs::File::create_new(path).map_err(failed)?;
        }
        Err(error) => return Err(failed(error)),
    }
    Disk::open(path, Access::Write).map_err(|source| match source.kind() {
        io::ErrorKind::ResourceBusy => CommandError::Refused(format!(
            "{shown} is in use: it or a partition of it is mounted, swap, or part of a RAID or volume group; \
             release it, or name another disk"
        )),
        _ => failed(source),
    })
}
