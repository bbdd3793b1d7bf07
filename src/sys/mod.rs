//! Every effect the program has: clock, entropy, disk, wire, workers, processes. The only home of unsafe code.

pub mod clock;
pub mod disk;
pub mod double;
pub mod entropy;
pub mod folder;
#[cfg(feature = "appliance")]
pub mod keyboard;
#[cfg(feature = "appliance")]
pub mod lane;
pub mod memory;
pub mod module;
pub mod net;
pub mod process;
pub mod space;
pub mod sparse;
pub mod volume;
pub mod wire;
pub mod worker;
