//! HTTP over TCP and TLS: the pooled client that the agent and the command line use, trust in one certificate by its
//! digest, and the accept loop behind every front door.

mod client;
#[cfg(feature = "appliance")]
mod idle;
mod pin;
#[cfg(feature = "appliance")]
mod serve;
#[cfg(feature = "appliance")]
mod timed;
#[cfg(feature = "appliance")]
mod tls;

pub use client::{Client, ClientConfig, Trust, WireError, ca_config, read_all, read_into};
#[cfg(feature = "appliance")]
pub use idle::{IdleBody, TooSlow};
pub use pin::{PinMismatch, PinVerifier, ShownPin, install_crypto, pin_of};
#[cfg(feature = "appliance")]
pub use serve::{HangUp, Patience, Peer, Tls, serve};
#[cfg(feature = "appliance")]
pub use tls::{ServerTls, TlsError, tls_acceptor};

/// Any error, boxed, as HTTP bodies carry them.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;
