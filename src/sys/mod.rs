//! Every effect the program has: clock, entropy, disk, wire, workers, processes. The only home of unsafe code.

pub mod clock;
pub mod entropy;
pub mod wire;
pub mod worker;
