//! Files into the store, as `bedplate put` sends them: cut and hashed here, as the store would; the store is asked which chunks it has, and
//! the others travel, compressed. What is large travels in parts, which a put that was cut off finds again by what is in them.
//!
//! The other side is `api::push`; docs/decisions/0008 says why it is so.

mod body;
mod cut;
mod door;
mod patch;
mod send;

pub use cut::root_digest;
pub use door::PushDoor;
pub use send::{GROUP_BYTES, GroupFile, PART_BYTES, PushFile, Pusher, Tally};

use crate::pull::PullError;

/// Why a push failed.
#[derive(Debug, thiserror::Error)]
pub enum PushError {
    /// The appliance did not take it.
    #[error("the appliance did not take it")]
    Appliance(#[from] PullError),
    /// The source could not be read.
    #[error("read {what}")]
    Read {
        /// What was being read.
        what: String,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The store went on losing chunks that it had.
    #[error("the store lost chunks again and again while they were referred to; put it again")]
    Losing,
    /// A step on another thread broke off.
    #[error("a step of the push broke off")]
    Step(#[from] tokio::task::JoinError),
}
