//! bedplate: from a powered rack of bare GPU servers to imaged, verified nodes, and the store that serves them.
//!
//! This file is the map. Modules are numbered layers; a module imports only from a lower number, and siblings on one
//! level do not import each other. `cargo xtask tidy` reads the table below and checks every `crate::` path against it.
//!
//! ```text
//! 9 cli        the command line: one file a command; output.rs prints people's words or JSON from one value
//! 8 s3         the S3 door: translate, authorise, call the store, translate back
//! 8 api        the control door: racks, jobs, images, the agent's endpoint, boot media
//! 8 mount      a bucket as a folder: inodes, reads ahead, the node's cache, writes
//! 7 rack       spec + survey -> plan -> job
//! 6 bmc        one Redfish controller: gateway, verbs, quirks, inventory
//! 6 image      the catalogue of images, and the boot media made from them
//! 6 job        journalled execution: what must survive a killed appliance
//! 6 auth       access keys, tenants, and who may call
//! 6 node       the agent: from boot to report (sees 0-3 and pull only)
//! 5 store      the deduplicating engine
//! 5 push       files into the store, of which only new chunks travel
//! 4 meta       ordered transactional key-value rows
//! 4 pull       verified reads of images and objects over the wire
//! 3 format     every byte layout we own: pure, versioned, fuzzed
//! 2 telemetry  what the program says about itself: logs and metrics
//! 1 sys        every effect: clock, entropy, disk, wire, workers, processes; the only unsafe
//! 0 model      ids, digests, names, sizes, limits
//! ```

pub mod format;
pub mod model;
pub mod node;
pub mod pull;
pub mod sys;
pub mod telemetry;

#[cfg(feature = "appliance")]
pub mod api;
#[cfg(feature = "appliance")]
pub mod auth;
#[cfg(feature = "appliance")]
pub mod bmc;
#[cfg(feature = "appliance")]
pub mod cli;
#[cfg(feature = "appliance")]
pub mod image;
#[cfg(feature = "appliance")]
pub mod job;
#[cfg(feature = "appliance")]
pub mod meta;
#[cfg(feature = "appliance")]
pub mod mount;
#[cfg(feature = "appliance")]
pub mod push;
#[cfg(feature = "appliance")]
pub mod rack;
#[cfg(feature = "appliance")]
pub mod s3;
#[cfg(feature = "appliance")]
pub mod store;
