//! What failures are to the kernel.

use fuser::Errno;

use super::bucket::BucketError;
use super::reader::ReadError;
use crate::pull::with_causes;

/// What S3's refusal is.
pub(super) fn refused(error: &BucketError) -> Errno {
    match error.status().map(|status| status.as_u16()) {
        Some(404) => Errno::ENOENT,
        Some(401 | 403) => Errno::EACCES,
        Some(412) => Errno::ESTALE,
        Some(507) => Errno::ENOSPC,
        _ => {
            tracing::error!(error = %with_causes(error), "a request failed");
            Errno::EIO
        }
    }
}

/// What a failed upload in parts is.
pub(super) fn unstored(error: &object_store::Error) -> Errno {
    use object_store::Error as Cause;
    let said = with_causes(error);
    tracing::error!(error = %said, "an upload failed");
    match error {
        Cause::NotFound { .. } => Errno::ENOENT,
        Cause::Unauthenticated { .. } | Cause::PermissionDenied { .. } => Errno::EACCES,
        // The library has no kind for it; S3 has a code.
        _ if said.contains("InsufficientStorage") => Errno::ENOSPC,
        _ => Errno::EIO,
    }
}

/// What a failed read is.
pub(super) fn failed(error: &ReadError) -> Errno {
    let status = match error {
        ReadError::Pull(error) => error.status().map(|status| status.as_u16()),
        _ => None,
    };
    match status {
        Some(403) => Errno::EACCES,
        Some(404) => Errno::ENOENT,
        _ if matches!(error, ReadError::Replaced) => Errno::ESTALE,
        _ => {
            tracing::error!(error = %with_causes(error), "a read failed");
            Errno::EIO
        }
    }
}
