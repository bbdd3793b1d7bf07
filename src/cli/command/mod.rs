//! One file a command: its arguments and what it does.

pub mod bmc;
pub mod bucket;
pub mod completions;
mod gc;
pub mod get;
pub mod image;
pub mod key;
mod local;
pub mod ls;
pub mod man;
pub mod mount;
pub mod node;
pub mod put;
pub mod rack;
pub mod rm;
mod scrub;
pub mod serve;
pub mod snapshot;
pub mod store;
pub mod tenant;
