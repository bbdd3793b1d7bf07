//! The agent: from boot to report.
//!
//! Invariant: nothing is written to a disk before the order has been fetched, exactly one disk fits it, and that disk
//! may be lost by the order's own words.

pub mod boot;
pub mod command;
pub mod console;
pub mod dhcp;
pub mod disks;
pub mod efi;
pub mod fat;
pub mod gpt;
pub mod guard;
pub mod init;
pub mod install;
pub mod modules;
pub mod network;
pub mod report;
pub mod run;
pub mod seed;
pub mod verify;
pub mod write;
