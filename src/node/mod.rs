//! The agent: from boot to report.
//!
//! Invariant: nothing is written to a disk before the order has been fetched, exactly one disk fits it, and that disk
//! may be lost by the order's own words.

pub mod boot;
pub mod console;
pub mod dhcp;
pub mod efi;
pub mod init;
pub mod modules;
pub mod network;
pub mod report;
pub mod run;
