//! The main job on a virtual rack, as a technician and a cluster do it: a dataset is put, read back, and snapshotted; survey, plan,
//! apply; the nodes boot the agent, are imaged from the store, and boot their disks; then each mounts the snapshot, reads it like a
//! training job, saves a checkpoint and reads another's back. It ends with one screen of times, bytes and ratios, exits with an error when anything failed, and always takes the rack down.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use crate::lab::{self, Lab};
use crate::{image, install, shell};

mod appliance;
mod cluster;
mod dataset;
mod summary;

use appliance::Appliance;
use summary::Summary;

const BUCKET: &str = "corpus";
/// Where in the bucket the dataset is that the nodes read.
const FOLDER: &str = "first";

/// How the demonstration is played.
#[derive(clap::Args)]
pub struct Arguments {
    /// Machines in the rack
    #[arg(long, default_value_t = 2)]
    nodes: u8,
    /// Folder of the lab (default: target/lab)
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Kill the appliance with SIGKILL while a node is writing its disk, and start it again
    #[arg(long)]
    crash: bool,
    /// End when the nodes are imaged: no mounts and no checkpoints
    #[arg(long)]
    no_cluster: bool,
    /// Play it with this `bedplate` instead of building one
    #[arg(long, value_name = "FILE")]
    bedplate: Option<PathBuf>,
}

/// Plays it.
pub fn run(arguments: &Arguments) -> Result<()> {
    ensure!(install::is_root(), "the demonstration takes root (namespaces, libvirt): run it with sudo");
    for needs in [install::BUILD, install::IMAGE, install::LAB] {
        install::debian(needs)?;
    }
    let mut summary = Summary::default();
    let built = Instant::now();
    say("building bedplate, the agent and the images (minutes, the first time)");
    let bedplate = match &arguments.bedplate {
        Some(path) => path.canonicalize().with_context(|| format!("no program {}", path.display()))?,
        None => build()?,
    };
    let (boot, _) = image::build("agent")?;
    let (node, facts) = image::build("node-minimal")?;
    summary.built(built.elapsed());

    let dir = lab::folder(arguments.dir.as_deref())?;
    let guard = Guard::set(&dir)?;
    let began = Instant::now();
    let done = play(arguments, &dir, &bedplate, &boot.join("agent.iso"), &node.join(&facts.file), &mut summary);
    let down = lab::down(&dir);
    guard.release()?;
    if let Err(error) = done {
        return Err(error.context(format!("the demonstration failed; logs are in {}", dir.join("log").display())));
    }
    down?;
    summary.print(began.elapsed());
    Ok(())
}

fn play(
    arguments: &Arguments,
    dir: &Path,
    bedplate: &Path,
    boot: &Path,
    disk: &Path,
    summary: &mut Summary,
) -> Result<()> {
    let started = Instant::now();
    say("bringing the virtual rack up");
    let lab = Lab::up(dir, arguments.nodes)?;
    summary.step("rack up", started);
    let started = Instant::now();
    let data = dir.join("state/bedplate-data");
    let mut appliance = Appliance::start(&lab, bedplate, boot, &data)?;
    summary.step("appliance ready", started);

    let spec = lab.spec.to_string_lossy().into_owned();
    let started = Instant::now();
    appliance.show(&["image", "import", "node-minimal@1", &disk.to_string_lossy()])?;
    summary.step("image imported", started);
    let imported = appliance.ask(&["store", "stats"])?;
    summary.imported(&imported);
    let work = dir.join("state");
    let dataset = serve_data(&appliance, &work, summary)?;
    let cluster = if arguments.no_cluster {
        None
    } else {
        say("a snapshot of it, a key for the nodes, and what they do at their first start");
        Some(cluster::prepare(&appliance, &lab, BUCKET, FOLDER, &dataset)?)
    };
    say("the rack: survey, plan, apply");
    appliance.show(&["rack", "survey", &spec])?;
    appliance.show(&["rack", "plan", &spec])?;

    let started = Instant::now();
    let mut apply = appliance.command(&["rack", "apply", &spec, "--yes", "--wait"]).stdin(Stdio::null()).spawn()?;
    if arguments.crash {
        crash(&mut appliance, &spec, &mut apply)?;
    }
    let status = apply.wait()?;
    ensure!(status.success(), "rack apply ended with {status}");
    summary.step("rack applied", started);
    nodes(&appliance.ask(&["rack", "status", &spec])?, &lab, summary)?;

    if let Some(cluster) = cluster {
        say("the nodes train: two epochs over the mounted snapshot, checkpoints saved and read back");
        cluster.finish(&appliance, &lab, &work, summary)?;
    }
    appliance.stop()
}

/// Every node must have said that it runs the image that the spec asked for, from the disk that it asked for.
fn nodes(status: &Value, lab: &Lab, summary: &mut Summary) -> Result<()> {
    let nodes = status["job"]["nodes"].as_array().context("rack status names no nodes")?;
    ensure!(nodes.len() == lab.nodes.len(), "{} of {} nodes were worked on", nodes.len(), lab.nodes.len());
    for (node, machine) in nodes.iter().zip(&lab.nodes) {
        let image = node["booted"]["image"].as_str().unwrap_or("nothing");
        ensure!(node["state"] == "imaged", "{} is {}, not imaged: {}", machine.name, node["state"], node["error"]);
        ensure!(image == "node-minimal@1", "{} reports {image} and was to report node-minimal@1", machine.name);
        let root = node["booted"]["root_device"].as_str().unwrap_or_default();
        ensure!(root.starts_with("/dev/nvme"), "{} runs from {root}, which is not its NVMe drive", machine.name);
        let serial = node["installed"]["disk_serial"].as_str().unwrap_or_default();
        ensure!(serial == machine.disk_serial, "{}: {serial} was written, not {}", machine.name, machine.disk_serial);
        summary.node(node);
    }
    Ok(())
}

/// A dataset is put, put again under another name, got back, and compared. Answers the folder that it was put from.
fn serve_data(appliance: &Appliance<'_>, work: &Path, summary: &mut Summary) -> Result<PathBuf> {
    say("a dataset of 200 MB: put, get, compare");
    let (given, taken) = (work.join("dataset"), work.join("dataset-back"));
    let bytes = dataset::generate(&given)?;
    appliance.show(&["bucket", "create", BUCKET])?;
    let mut put = |name: &str, label: &str| -> Result<()> {
        let started = Instant::now();
        let path = format!("{BUCKET}/{name}/");
        appliance.show(&["put", "--recursive", &given.to_string_lossy(), &path])?;
        summary.moved(label, bytes, started);
        Ok(())
    };
    put(FOLDER, "dataset put")?;
    put("second", "same dataset put again")?;
    let started = Instant::now();
    appliance.show(&["get", "--recursive", &format!("{BUCKET}/{FOLDER}/"), &taken.to_string_lossy()])?;
    summary.moved("dataset got back", bytes, started);
    dataset::compare(&given, &taken)?;
    summary.stored(&appliance.ask(&["store", "stats", "--bucket", BUCKET])?);
    Ok(given)
}

/// Kills the appliance with SIGKILL while a node is writing its disk, and starts it again.
fn crash(appliance: &mut Appliance<'_>, spec: &str, apply: &mut Child) -> Result<()> {
    let limit = Instant::now() + Duration::from_secs(600);
    loop {
        ensure!(Instant::now() < limit, "no node began to write within ten minutes");
        if let Some(status) = apply.try_wait()? {
            bail!("rack apply ended with {status} before a node was writing");
        }
        let status = appliance.ask(&["rack", "status", spec])?;
        let nodes = status["job"]["nodes"].as_array().cloned().unwrap_or_default();
        if nodes.iter().any(|node| node["phase"] == "write" && node["bytes_done"].as_u64() > Some(0)) {
            break;
        }
        std::thread::sleep(Duration::from_millis(500));
    }
    say("a node is writing its disk: the appliance is killed (SIGKILL) and started again");
    appliance.kill()?;
    std::thread::sleep(Duration::from_secs(5));
    appliance.restart()
}

/// Static, because the nodes run it too, whatever libraries their image has.
fn build() -> Result<PathBuf> {
    let mut cargo = shell::cargo(&["build", "--quiet", "--release", "--ignore-rust-version", "--package", "bedplate"]);
    cargo.args(["--bin", "bedplate", "--target", image::TRIPLE]);
    cargo.env("RUSTFLAGS", "-C target-feature=+crt-static").current_dir(shell::root());
    shell::show(&mut cargo)?;
    Ok(shell::target().join(image::TRIPLE).join("release/bedplate"))
}

fn say(text: &str) {
    println!("\n== {text}");
}

/// Takes the rack down even when we are interrupted or killed: a process of its own that waits for our end.
struct Guard(Child);

impl Guard {
    fn set(dir: &Path) -> Result<Self> {
        use std::os::unix::process::CommandExt as _;
        let mut guard = Command::new("sh");
        guard.args(["-c", "cat >/dev/null; exec \"$0\" lab down --dir \"$1\""]);
        guard.arg(std::env::current_exe()?).arg(dir).process_group(0);
        Ok(Self(guard.stdin(Stdio::piped()).spawn().context("cannot start the guard")?))
    }

    /// The rack is down already: the guard finds nothing to do.
    fn release(mut self) -> Result<()> {
        drop(self.0.stdin.take());
        self.0.wait()?;
        Ok(())
    }
}
