//! `cargo xtask test`: everything that must hold, in the order in which it is cheapest to learn that it does not.
//!
//! Each stage prints how long it took, and the first failure stops the run: a broken format is not worth a lab.

use std::path::Path;
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use clap::Args;

use crate::{clients, install, shell};

/// Which stages to run.
#[derive(Args)]
pub struct TestArgs {
    /// Leave out the lab: no images, no virtual machines
    #[arg(long)]
    no_lab: bool,
}

/// s3s declares a newer compiler than the one that builds it; cargo refuses without this (docs/decisions/0001).
pub const IGNORE_RUST_VERSION: &str = "--ignore-rust-version";

/// Runs every stage.
pub fn run(root: &Path, args: &TestArgs) -> Result<()> {
    let began = Instant::now();
    stage("format", || {
        cargo(root, &["fmt", "--all", "--check"])?;
        for package in ["fuzz/Cargo.toml", "tests/clients/rust/Cargo.toml", "benches/s3/Cargo.toml"] {
            cargo(root, &["fmt", "--manifest-path", package, "--check"])?;
        }
        Ok(())
    })?;
    stage("tidy", || crate::tidy::run(root))?;
    stage("lint", || {
        install::debian(install::BUILD)?;
        cargo(root, &["clippy", IGNORE_RUST_VERSION, "-p", "bedplate", "--all-targets", "--", "-D", "warnings"])?;
        let agent = ["--no-default-features", "-p", "bedplate", "--lib", "--bins", "--", "-D", "warnings"];
        cargo(root, &[&["clippy", IGNORE_RUST_VERSION][..], &agent].concat())?;
        cargo(root, &["clippy", "-p", "xtask", "--all-targets", "--", "-D", "warnings"])
    })?;
    // One package at a time: together they would share features, and so build the same libraries once more.
    stage("tests", || {
        cargo(root, &["test", "-p", "xtask"])?;
        // The oracle is worth having, not worth failing for: its test says aloud when it is skipped.
        if let Err(error) = install::oracle() {
            println!("no oracle of root digests (the test is skipped): {error:#}");
        }
        cargo(root, &["test", IGNORE_RUST_VERSION, "-p", "bedplate", "--", "--skip", "lab::"])
    })?;
    // With the program that the tests were built with.
    stage("clients", || clients::small(root, &shell::target().join("debug/bedplate")))?;
    if args.no_lab {
        println!("lab: left out, as asked");
    } else {
        stage("images", || {
            crate::image::build("agent")?;
            crate::image::build("node-minimal").map(drop)
        })?;
        // One at a time: each of these tests fills both cores with virtual machines.
        stage("lab", || {
            let lab = ["--test", "it", "--", "lab::", "--test-threads", "1", "--nocapture"];
            cargo(root, &[&["test", IGNORE_RUST_VERSION, "-p", "bedplate"][..], &lab].concat())
        })?;
    }
    println!("everything holds ({:.0} s)", began.elapsed().as_secs_f64());
    Ok(())
}

fn stage(name: &str, run: impl FnOnce() -> Result<()>) -> Result<()> {
    println!("== {name}");
    let began = Instant::now();
    run().with_context(|| format!("stage {name}"))?;
    println!("== {name}: {:.0} s", began.elapsed().as_secs_f64());
    Ok(())
}

fn cargo(root: &Path, args: &[&str]) -> Result<()> {
    let status = shell::cargo(args).current_dir(root).status().context("start cargo")?;
    if !status.success() {
        bail!("`cargo {}` failed: {status}", args.join(" "));
    }
    Ok(())
}
