//! One file a command: its arguments and what it does.

pub mod bmc;
pub mod completions;
pub mod image;
pub mod key;
pub mod man;
pub mod node;
pub mod rack;
pub mod tenant;
