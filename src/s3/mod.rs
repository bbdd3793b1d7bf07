//! The S3 door: translate, authorise, call the store, translate back.
//!
//! The protocol itself (signatures, aws-chunked bodies, XML) is s3s's; this module decides who may do what, and turns
//! each operation into calls of the store. Bodies stream both ways; nothing here holds more than one piece of one. The
//! door never answers with a redirect, and never serves anyone who has not signed.

mod access;
mod body;
mod bucket;
mod convert;
mod copy;
mod error;
mod list;
mod multipart;
mod object;
mod operations;
mod service;
mod sts;

pub use service::{S3Config, S3ConfigError, S3Door};

/// What every operation works with.
#[derive(Clone)]
struct Door {
    store: crate::store::Store,
    /// Bodies being received; each holds a pipeline's buffers.
    writes: std::sync::Arc<tokio::sync::Semaphore>,
    /// Bodies being sent; each holds a few read-ahead pieces.
    reads: std::sync::Arc<tokio::sync::Semaphore>,
}
