//! A virtual rack: QEMU machines with UEFI, each behind a Redfish emulator of its own, in a network namespace.
//!
//! Everything of a lab lies in one folder and one namespace, and its libvirtd sees private copies of libvirt's folders,
//! so that labs stand side by side and leave the machine's own libvirt alone. Stopping a lab ends what lives in its
//! namespace, by process id, and removes the namespace.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use serde::{Deserialize, Serialize};

use crate::{install, shell};

mod bmc;
mod machine;
mod network;
mod probe;

/// The appliance's address in the lab.
pub const ADDRESS: &str = "10.99.0.1";
/// First port of the emulated BMCs.
const BMC_PORT: u16 = 8443;

/// What to do with a lab.
#[derive(clap::Args)]
pub struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(clap::Subcommand)]
enum Verb {
    /// Bring a rack up: its machines are off and their disks are blank
    Up {
        /// Machines in the rack
        #[arg(long, default_value_t = 2)]
        nodes: u8,
        /// Folder of the lab (default: target/lab)
        #[arg(long)]
        dir: Option<PathBuf>,
    },
    /// Take it down; nothing is left running
    Down {
        /// Folder of the lab (default: target/lab)
        #[arg(long)]
        dir: Option<PathBuf>,
    },
}

/// A rack that is up; the content of `lab.toml`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Lab {
    /// The lab's folder.
    pub dir: PathBuf,
    /// Its network namespace.
    pub netns: String,
    /// A script that runs a command inside the lab.
    pub enter: PathBuf,
    /// Where the appliance listens: address without port.
    pub address: String,
    /// How the machines run: `kvm` or `tcg`.
    pub accelerator: String,
    /// A spec of the rack for `bedplate rack`.
    pub spec: PathBuf,
    /// The machines.
    #[serde(rename = "node")]
    pub nodes: Vec<Node>,
}

/// One machine of the rack.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Node {
    /// Name, of the machine and of its node in the spec.
    pub name: String,
    /// libvirt's and Redfish's id.
    pub uuid: String,
    /// MAC address of its NIC.
    pub mac: String,
    /// URL of its BMC, inside the lab.
    pub bmc: String,
    /// The file behind its NVMe drive.
    pub disk: PathBuf,
    /// That drive's serial number.
    pub disk_serial: String,
    /// What it printed on its serial console.
    pub console: PathBuf,
}

/// Does what was asked.
pub fn run(arguments: &Arguments) -> Result<()> {
    match &arguments.verb {
        Verb::Up { nodes, dir } => {
            let lab = Lab::up(&folder(dir.as_deref())?, *nodes)?;
            println!("the rack is up ({} machines, {}): {}", lab.nodes.len(), lab.accelerator, lab.spec.display());
            println!("run things in it with {} COMMAND", lab.enter.display());
            Ok(())
        }
        Verb::Down { dir } => down(&folder(dir.as_deref())?),
    }
}

/// The lab's folder, absolute.
pub fn folder(dir: Option<&Path>) -> Result<PathBuf> {
    let dir = dir.map_or_else(|| shell::target().join("lab"), Path::to_path_buf);
    std::fs::create_dir_all(&dir)?;
    Ok(dir.canonicalize()?)
}

impl Lab {
    /// Brings a rack of `count` machines up in `dir`, from nothing.
    pub fn up(dir: &Path, count: u8) -> Result<Self> {
        ensure!(install::is_root(), "a lab takes root (namespaces, libvirt): run it with sudo");
        ensure!((1..=16).contains(&count), "a lab has 1 to 16 machines");
        install::debian(install::LAB)?;
        let venv = install::emulator()?;
        down(dir)?;
        let accelerator = probe::accelerator(dir)?;
        let netns = netns(dir);
        let lab = Self {
            dir: dir.to_path_buf(),
            enter: dir.join("enter"),
            address: ADDRESS.to_owned(),
            accelerator,
            spec: dir.join("rack.toml"),
            nodes: (1..=count).map(|index| node(dir, index)).collect(),
            netns,
        };
        let done = lab.start(&venv);
        if done.is_err() {
            down(dir)?;
        }
        done.map(|()| lab)
    }

    /// A command inside the lab.
    pub fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(&self.enter);
        command.arg(program);
        command
    }

    fn start(&self, venv: &Path) -> Result<()> {
        network::up(self)?;
        machine::up(self)?;
        bmc::up(self, venv)?;
        std::fs::write(&self.spec, self.spec_text())?;
        std::fs::write(self.dir.join("lab.toml"), toml::to_string(self)?)?;
        Ok(())
    }

    fn spec_text(&self) -> String {
        let mut text = String::from(
            "# The virtual rack, as `bedplate rack` takes it.\nname = \"lab\"\nimage = \"node-minimal@1\"\n\n\
             [bmc]\nusername = \"admin\"\npassword-file = \"bmc-password\"\n\n[install]\nwipe = \"blank\"\n",
        );
        for node in &self.nodes {
            text.push_str(&format!(
                "\n[[node]]\nname = \"{}\"\nbmc = \"{}\"\ndisk = {{ serial = \"{}\" }}\n",
                node.name, node.bmc, node.disk_serial
            ));
        }
        text
    }
}

/// Ends everything that lives in the lab and removes what it made; keeps logs and what is costly to make again.
pub fn down(dir: &Path) -> Result<()> {
    network::down(&netns(dir))?;
    for name in ["disks", "pool", "nvram", "state", "bmc", "var", "run", "etc"] {
        let path = dir.join(name);
        if path.exists() {
            std::fs::remove_dir_all(&path).with_context(|| format!("cannot remove {}", path.display()))?;
        }
    }
    for name in ["rack.toml", "lab.toml", "enter", "bmc-password", "first-start"] {
        let path = dir.join(name);
        if path.exists() {
            std::fs::remove_file(&path)?;
        }
    }
    Ok(())
}

fn netns(dir: &Path) -> String {
    let hash = blake3::hash(dir.to_string_lossy().as_bytes()).to_hex();
    format!("bedplate-{}", &hash[..8])
}

fn node(dir: &Path, index: u8) -> Node {
    let name = format!("node-{index}");
    Node {
        uuid: format!("bed91a7e-0000-4000-8000-{index:012x}"),
        mac: format!("52:54:00:be:d0:{index:02x}"),
        bmc: format!("https://127.0.0.1:{}", BMC_PORT + u16::from(index) - 1),
        disk: dir.join(format!("disks/{name}.img")),
        disk_serial: format!("{name}-nvme"),
        console: dir.join(format!("log/{name}.console")),
        name,
    }
}

/// Starts a program that outlives us inside the lab, its output in `log/NAME.log`.
fn spawn(lab: &Lab, name: &str, command: &mut Command) -> Result<()> {
    use std::os::unix::process::CommandExt as _;
    let log = std::fs::File::create(lab.dir.join(format!("log/{name}.log")))?;
    command.stdin(std::process::Stdio::null()).stdout(log.try_clone()?).stderr(log).process_group(0);
    command.spawn().with_context(|| format!("cannot start {name}"))?;
    Ok(())
}
