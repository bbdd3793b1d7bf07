//! What the program says about itself.

pub mod log;
#[cfg(feature = "appliance")]
pub mod metrics;
