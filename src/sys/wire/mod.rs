//! HTTP over TCP and TLS: the pooled client that the agent and the command line use, trust in one certificate by its
//! digest, and the accept loop behind every front door.

mod client;
mod pin;
#[cfg(feature = "appliance")]
mod serve;

pub use client::{Client, ClientConfig, Trust, WireError, read_all};
pub use pin::{PinMismatch, PinVerifier, install_crypto, pin_of};
#[cfg(feature = "appliance")]
pub use serve::{Peer, TlsError, serve, tls_acceptor};

/// Any error, boxed, as HTTP bodies carry them.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;
