//! What a cluster does with its storage: every imaged node mounts a snapshot of the dataset, reads it like a training job, saves a
//! checkpoint and reads another node's back. The nodes are told so by user data, with a key that may do no more than that.

use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use serde::Deserialize;
use serde_json::{Value, json};

use super::appliance::Appliance;
use super::dataset::SUMS;
use super::summary::Summary;
use crate::lab::{Lab, Node};
use crate::shell;

const SNAPSHOT: &str = "epoch-zero";
const CHECKPOINTS: &str = "checkpoints";
const TOOLS: &str = "tools";
const TENANT: &str = "training";
const USER: &str = "trainer";
/// What a node runs at its first start; the lines above it are written by [`prepare`].
const SCRIPT: &str = include_str!("train.sh");
/// Name of the file, beside the spec.
const USER_DATA: &str = "first-start";
/// Shards that a node reads at a time.
const READERS: u32 = 4;
/// The longest that all nodes may take, from the end of the job, on two cores without KVM.
const PATIENCE: Duration = Duration::from_secs(15 * 60);
/// The second epoch may move this share of the dataset over the network at most: answers that say that nothing has changed.
const SECOND_EPOCH_SHARE: f64 = 0.01;

/// What the nodes were told to do.
pub struct Cluster {
    /// The dataset on this machine, which the nodes have in the store.
    dataset: PathBuf,
    bytes: u64,
    /// SHA-256 of the list of its digests.
    sums: String,
}

/// What a node reports.
#[derive(Debug, Deserialize)]
pub struct Outcome {
    /// The node.
    pub node: String,
    /// Its two epochs.
    pub epochs: [Epoch; 2],
    /// Its own checkpoint.
    pub saved: Checkpoint,
    /// Another node's.
    pub read_back: Checkpoint,
}

/// One pass over the dataset.
#[derive(Debug, Deserialize)]
pub struct Epoch {
    /// How long it took.
    pub milliseconds: u64,
    /// What came over the network.
    pub network_bytes: u64,
    /// What came from the node's disk.
    pub cache_bytes: u64,
    /// SHA-256 of the digests of what was read.
    pub sums: String,
}

/// A checkpoint that was written or read.
#[derive(Debug, Deserialize)]
pub struct Checkpoint {
    /// Whose it is, where it was read.
    #[serde(default)]
    pub node: String,
    /// How long it took.
    pub milliseconds: u64,
    /// Of its content.
    pub sha256: String,
}

/// Makes the snapshot of `bucket`, the buckets, the key and the user data, and names the latter in the spec. `folder` of the bucket
/// is the dataset, which `dataset` holds too.
pub fn prepare(appliance: &Appliance<'_>, lab: &Lab, bucket: &str, folder: &str, dataset: &Path) -> Result<Cluster> {
    appliance.show(&["snapshot", "create", bucket, SNAPSHOT])?;
    appliance.show(&["bucket", "create", CHECKPOINTS])?;
    appliance.show(&["bucket", "create", TOOLS])?;
    let program = appliance.program().to_string_lossy().into_owned();
    appliance.show(&["put", &program, &format!("{TOOLS}/bedplate")])?;
    appliance.show(&["tenant", "create", TENANT])?;
    let key = appliance.ask(&["key", "create", "--tenant", TENANT, "--user", USER, "--expires-in", "12h"])?;
    for (bucket, policy) in policies(bucket, lab) {
        appliance.set_policy(&bucket, &policy)?;
    }
    let text = format!(
        "#!/bin/sh\nS3=http://{address}:9000 API=http://{address}:9100\nACCESS_KEY={} SECRET_KEY={}\nPROGRAM={}\n\
         TOOLS={TOOLS} DATA={bucket}@{SNAPSHOT}/{folder} CHECKPOINTS={CHECKPOINTS}\nNODES='{}' READERS={READERS}\n{SCRIPT}",
        text_of(&key, "access_key")?,
        text_of(&key, "secret_key")?,
        sha256(appliance.program())?,
        lab.nodes.iter().map(|node| node.name.as_str()).collect::<Vec<_>>().join(" "),
        address = lab.address,
    );
    // It holds the key.
    let path = lab.spec.with_file_name(USER_DATA);
    let mut file = std::fs::File::options().create(true).truncate(true).write(true).mode(0o600).open(&path)?;
    std::io::Write::write_all(&mut file, text.as_bytes())?;
    let spec = std::fs::read_to_string(&lab.spec)?;
    ensure!(spec.contains("[install]\n"), "{} has no [install]", lab.spec.display());
    std::fs::write(&lab.spec, spec.replace("[install]\n", &format!("[install]\nuser-data = \"{USER_DATA}\"\n")))?;
    let sums = sha256(&dataset.join(SUMS))?;
    Ok(Cluster { dataset: dataset.to_path_buf(), bytes: super::dataset::listed_bytes(dataset)?, sums })
}

/// Who may do what: the key reads the dataset and its snapshots, and reads and writes checkpoints; the program may be fetched by
/// whoever is in the rack.
fn policies(dataset: &str, lab: &Lab) -> [(String, Value); 3] {
    let trainer = format!("arn:aws:iam::{TENANT}:user/{USER}");
    let allow = |bucket: &str, actions: &[&str]| {
        let resources = [format!("arn:aws:s3:::{bucket}"), format!("arn:aws:s3:::{bucket}/*")];
        json!({"Effect": "Allow", "Principal": {"AWS": trainer}, "Action": actions, "Resource": resources})
    };
    let rack = lab.address.rsplit_once('.').map_or_else(String::new, |(net, _)| format!("{net}.0/24"));
    let fetch = json!({
        "Effect": "Allow", "Principal": "*", "Action": "s3:GetObject", "Resource": format!("arn:aws:s3:::{TOOLS}/*"),
        "Condition": {"IpAddress": {"aws:SourceIp": rack}}
    });
    let policy = |statement: Value| json!({"Version": "2012-10-17", "Statement": [statement]});
    let write = ["s3:ListBucket", "s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload"];
    [
        (dataset.to_owned(), policy(allow(dataset, &["s3:ListBucket", "s3:GetObject"]))),
        (CHECKPOINTS.to_owned(), policy(allow(CHECKPOINTS, &write))),
        (TOOLS.to_owned(), policy(fetch)),
    ]
}

impl Cluster {
    /// Waits until every node has reported, and checks what they say against what is known here.
    pub fn finish(&self, appliance: &Appliance<'_>, lab: &Lab, work: &Path, summary: &mut Summary) -> Result<()> {
        let started = Instant::now();
        let mut outcomes = Vec::new();
        for node in &lab.nodes {
            let what = || format!("{} did not train; its console is {}", node.name, node.console.display());
            let outcome = outcome(appliance, node, started, work).with_context(what)?;
            self.check(&outcome, &node.name).with_context(what)?;
            outcomes.push(outcome);
        }
        summary.step("cluster trained, after that", started);
        for outcome in &outcomes {
            let file = work.join(format!("checkpoint-of-{}", outcome.node));
            fetch(appliance, &format!("{CHECKPOINTS}/{}/step-2", outcome.node), &file)?;
            ensure!(sha256(&file)? == outcome.saved.sha256, "{}: another checkpoint is in the store", outcome.node);
            let owner = outcomes.iter().find(|other| other.node == outcome.read_back.node);
            let owner = owner.with_context(|| format!("{} read the checkpoint of a stranger", outcome.node))?;
            let same = owner.saved.sha256 == outcome.read_back.sha256;
            ensure!(same, "{} did not read the checkpoint that {} saved", outcome.node, owner.node);
            summary.trained(outcome, self.bytes, std::fs::metadata(&file)?.len());
        }
        Ok(())
    }

    fn check(&self, outcome: &Outcome, node: &str) -> Result<()> {
        ensure!(outcome.node == node, "it reports as {}", outcome.node);
        for (number, epoch) in (1..).zip(&outcome.epochs) {
            ensure!(epoch.sums == self.sums, "epoch {number} read other bytes than {}", self.dataset.display());
        }
        let [first, second] = &outcome.epochs;
        ensure!(first.network_bytes > 0, "the first epoch read nothing over the network");
        ensure!(
            (second.network_bytes as f64) <= self.bytes as f64 * SECOND_EPOCH_SHARE,
            "the second epoch moved {} bytes over the network, and was to read the node's cache",
            second.network_bytes
        );
        ensure!(second.cache_bytes > 0, "the second epoch read nothing from the node's cache");
        Ok(())
    }
}

/// Waits for a node's report; one that fails before it has mounted anything says so on its console alone.
fn outcome(appliance: &Appliance<'_>, node: &Node, started: Instant, work: &Path) -> Result<Outcome> {
    let file = work.join(format!("result-{}", node.name));
    let place = format!("{CHECKPOINTS}/results/{}", node.name);
    let failed = format!("training on {} failed", node.name);
    while started.elapsed() < PATIENCE {
        if fetch(appliance, &format!("{place}.json"), &file).is_ok() {
            let text = std::fs::read_to_string(&file)?;
            return serde_json::from_str(&text).with_context(|| format!("it reported {text:?}"));
        }
        if fetch(appliance, &format!("{place}.failed"), &file).is_ok() {
            bail!("it failed while {}", std::fs::read_to_string(&file)?.trim());
        }
        let console = String::from_utf8_lossy(&std::fs::read(&node.console)?).into_owned();
        if let Some(line) = console.lines().find(|line| line.contains(&failed)) {
            bail!("its console says: {}", line.trim());
        }
        std::thread::sleep(Duration::from_secs(1));
    }
    bail!("it said nothing within {} s", PATIENCE.as_secs())
}

fn fetch(appliance: &Appliance<'_>, object: &str, file: &Path) -> Result<()> {
    if file.exists() {
        std::fs::remove_file(file)?;
    }
    shell::run(&mut appliance.command(&["get", object, &file.to_string_lossy()]))
}

fn sha256(file: &Path) -> Result<String> {
    let said = shell::output(Command::new("sha256sum").arg("--binary").stdin(Stdio::null()).arg(file))?;
    Ok(said.split_whitespace().next().context("sha256sum said nothing")?.to_owned())
}

fn text_of<'a>(value: &'a Value, key: &str) -> Result<&'a str> {
    value[key].as_str().with_context(|| format!("there is no {key} in the answer"))
}
