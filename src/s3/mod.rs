//! The S3 door: translate, authorise, call the store, translate back.
//!
//! The protocol itself (signatures, aws-chunked bodies, XML) is s3s's; this module decides who may do what, and turns
//! each operation into calls of the store. Bodies stream both ways; nothing here holds more than one piece of one. The
//! door never answers with a redirect, and serves nobody who has not signed but where a bucket's policy says so.

mod access;
mod acl;
mod address;
mod admission;
mod answer;
mod batch;
mod body;
mod bucket;
mod bucket_policy;
mod checksum;
mod conditions;
mod convert;
mod copy;
mod cors;
mod cross_origin;
mod delete;
mod digests;
mod encryption;
mod error;
mod fixed;
mod get;
mod head;
mod intake;
mod lifecycle;
mod list;
mod lock;
mod multipart;
mod offered;
mod operations;
mod put;
mod rename;
mod routes;
mod service;
mod settings;
mod sts;
mod tags;
mod uploads;
mod versioning;

pub use access::{Leave, SideGate};
pub use lifecycle::{Lifecycle, LifecycleSettings};
pub use service::{BODY_PATIENCE, S3Config, S3ConfigError, S3Door};

/// What every operation works with.
#[derive(Clone)]
struct Door {
    store: crate::store::Store,
    /// What seals the keys of encrypted objects.
    keys: crate::auth::ObjectKeys,
    /// Who may send and receive bodies now.
    turns: admission::Turns,
}
