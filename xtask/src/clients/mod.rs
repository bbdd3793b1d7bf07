//! `cargo xtask clients`: real S3 clients, as their registries carry them, each doing its ordinary work (a script of
//! tests/clients) against a running `bedplate serve`, as a tenant.
//!
//! A client that cannot be had is reported, and fails the run unless that is allowed: a test that is left out in silence
//! proves nothing.

mod catalogue;
mod session;

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use clap::Args;
use serde_json::Value;

use crate::served::{self, Served};
use crate::shell;
use catalogue::{CLIENTS, Client, Cost};
pub use catalogue::{aws, rclone};
use session::{Account, Outcome};

/// Which clients to run.
#[derive(Args)]
pub struct Arguments {
    /// Only these clients
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    only: Vec<String>,
    /// The large ones too: PyTorch is gigabytes from PyPI
    #[arg(long, conflicts_with = "only")]
    all: bool,
    /// Run against this `bedplate` instead of building one
    #[arg(long, value_name = "BIN")]
    bedplate: Option<PathBuf>,
    /// Do not fail for a client that cannot be installed here
    #[arg(long)]
    allow_missing: bool,
}

/// What became of one client: it ran, or why it could not.
type Ran = Result<Outcome>;

/// Runs the clients that were asked for; fails when a step of any of them did.
pub fn run(root: &Path, args: &Arguments) -> Result<()> {
    let chosen = choose(args)?;
    let program = served::program(args.bedplate.as_deref())?;
    against(root, &program, &chosen, args.allow_missing)
}

/// Runs the small ones against this program; part of `cargo xtask test`.
pub fn small(root: &Path, program: &Path) -> Result<()> {
    let fuse = Path::new("/dev/fuse").exists();
    let small = CLIENTS.iter().filter(|client| client.cost == Cost::Small);
    let (chosen, left_out): (Vec<_>, Vec<_>) = small.partition(|client| fuse || !client.needs_fuse());
    for client in left_out {
        println!("SKIPPED: {}: this machine has no /dev/fuse", client.name);
    }
    against(root, program, &chosen, false)
}

fn choose(args: &Arguments) -> Result<Vec<&'static Client>> {
    if let Some(name) = args.only.iter().find(|name| CLIENTS.iter().all(|client| client.name != **name)) {
        let known: Vec<&str> = CLIENTS.iter().map(|client| client.name).collect();
        bail!("there is no client {name:?}; there are {}", known.join(", "));
    }
    let wanted = |client: &&Client| {
        if args.only.is_empty() {
            args.all || client.cost != Cost::Large
        } else {
            args.only.iter().any(|name| name == client.name)
        }
    };
    Ok(CLIENTS.iter().filter(wanted).collect())
}

fn against(root: &Path, program: &Path, chosen: &[&Client], allow_missing: bool) -> Result<()> {
    let folder = std::env::temp_dir().join(format!("bedplate-clients-{}", std::process::id()));
    let mut served = Served::start(program, &folder.join("served"))?;
    let account = tenant(&served, program)?;
    let mut results: Vec<(&Client, Ran)> = Vec::new();
    let mut missing = Vec::new();
    for client in chosen {
        match client.prepare(root) {
            Ok(ready) => {
                println!("-- {}", client.name);
                let outcome = session::run(client, &ready, &account, &folder.join(client.name))?;
                for failure in &outcome.failures {
                    println!("   FAILED {failure}");
                }
                results.push((client, Ok(outcome)));
            }
            Err(error) => {
                println!("-- {}: NOT INSTALLED: {error:#}", client.name);
                missing.push(client.name);
                results.push((client, Err(error)));
            }
        }
    }
    served.stop().context("the server did not outlive its clients")?;
    table(&results);
    let failed: Vec<&str> = results
        .iter()
        .filter(|(_, result)| result.as_ref().is_ok_and(|one| !one.failures.is_empty()))
        .map(|(client, _)| client.name)
        .collect();
    if !failed.is_empty() {
        bail!("{} failed; what they and the server said is in {}", failed.join(", "), folder.display());
    }
    std::fs::remove_dir_all(&folder)?;
    if !missing.is_empty() && !allow_missing {
        bail!("{} could not be installed (--allow-missing runs the others only)", missing.join(", "));
    }
    Ok(())
}

/// A tenant with a key: clients are never root.
fn tenant(served: &Served, program: &Path) -> Result<Account> {
    shell::run(&mut served.command(&["tenant", "create", "clients"]))?;
    let text = shell::output(&mut served.command(&["key", "create", "--tenant", "clients", "--output", "json"]))?;
    let key: Value = serde_json::from_str(&text).context("`bedplate key create` printed no JSON")?;
    let field = |name: &str| key[name].as_str().map(str::to_owned).with_context(|| format!("the key has no {name}"));
    Ok(Account {
        program: program.to_owned(),
        url: served.url(),
        data: served.data().to_owned(),
        endpoint: served.s3_url(),
        access_key: field("access_key")?,
        secret_key: field("secret_key")?,
    })
}

fn table(results: &[(&Client, Ran)]) {
    println!("{:<14} {:<30} {:>7} {:>8}", "client", "version", "steps", "seconds");
    for (client, result) in results {
        match result {
            Ok(outcome) => {
                let steps = format!("{}/{}", outcome.passed, outcome.passed + outcome.failures.len());
                println!("{:<14} {:<30} {steps:>7} {:>8.1}", client.name, outcome.version, outcome.seconds);
            }
            Err(_) => println!("{:<14} not installed", client.name),
        }
    }
}
