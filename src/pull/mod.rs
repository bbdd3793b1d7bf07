//! Verified reads of an image over the wire, as the agent does them.

mod appliance;

pub use appliance::{Appliance, Login, Patience, PullError};
