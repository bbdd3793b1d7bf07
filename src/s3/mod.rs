//! The S3 door: translate, authorise, call the store, translate back.
//!
//! The protocol itself (signatures, aws-chunked bodies, XML) is s3s's; this module decides who may do what, and turns
//! each operation into calls of the store. Bodies stream both ways; nothing here holds more than one piece of one. The
//! door never answers with a redirect, and never serves anyone who has not signed.

mod access;
mod admission;
mod body;
mod bucket;
mod convert;
mod copy;
mod error;
mod head;
mod intake;
mod lane;
mod list;
mod multipart;
mod object;
mod operations;
mod service;

pub use service::{BODY_PATIENCE, S3Config, S3ConfigError, S3Door};

/// What every operation works with.
#[derive(Clone)]
struct Door {
    store: crate::store::Store,
    /// Who may send and receive bodies now.
    turns: admission::Turns,
}
