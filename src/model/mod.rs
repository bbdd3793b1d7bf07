//! Nouns without behaviour: ids, digests, names, sizes, limits. Pure values, checked when they are made.

pub mod digest;
pub mod id;
pub mod limit;
pub mod name;
pub mod secret;
pub mod size;
pub mod version;

pub use digest::Digest;
pub use id::{JobId, PackId, UploadId};
pub use name::{BucketName, ImageRef, NodeName, ObjectKey, SnapshotName};
pub use secret::Secret;
pub use size::{ByteRange, ByteSize};
pub use version::{Version, VersionId, Versioning};
