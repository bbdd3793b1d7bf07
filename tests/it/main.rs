//! The one integration binary: a module per area, each driving the real program.
#![expect(
    clippy::panic,
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test that cannot go on panics, one that is skipped says so"
)]

mod agent;
mod api;
mod batch;
mod between;
mod bmc;
mod care;
mod damage;
mod decoders;
mod fixtures;
mod full;
mod gc;
mod gc_model;
mod identity;
mod jobs;
mod kills;
mod lab;
mod mount;
mod oracle;
mod overload;
mod push;
mod rack;
mod rehearse;
mod s3;
mod sharing;
mod sim;
mod snapshot;
mod store;
mod support;
mod unsynced;
mod versions;
