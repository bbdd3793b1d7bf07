//! `cargo xtask bench`: our figure, the rivals' and the physical limit, measured in one run and printed as ratios.
//!
//! A subject (the store, its S3 door, a cluster's node) brings its data sets and its parts; measuring a process, describing the machine and
//! writing the report are shared by all subjects.

mod cluster;
mod data;
mod machine;
mod process;
mod report;
mod s3;
mod store;

use anyhow::Result;
use clap::{Args, Subcommand};

/// What to measure.
#[derive(Args)]
pub struct Arguments {
    #[command(subcommand)]
    subject: Subject,
}

#[derive(Subcommand)]
enum Subject {
    /// The store engine: its stages against their limits, and all of it against restic, borg and rustic
    Store(store::Arguments),
    /// The S3 door, from a separate process, against s3s-fs and a bare HTTP server
    S3(s3::Arguments),
    /// A cluster's node: mounts beside rclone's and s3fs's, uploads beside aws-cli's and rclone's
    Cluster(cluster::Arguments),
}

/// Measures it.
pub fn run(arguments: &Arguments) -> Result<()> {
    match &arguments.subject {
        Subject::Store(arguments) => store::run(arguments),
        Subject::S3(arguments) => s3::run(arguments),
        Subject::Cluster(arguments) => cluster::run(arguments),
    }
}
