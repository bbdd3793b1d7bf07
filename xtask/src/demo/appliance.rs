//! `bedplate serve` in the lab, and commands to it.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::lab::Lab;
use crate::shell;

/// The running appliance.
pub struct Appliance<'a> {
    lab: &'a Lab,
    program: PathBuf,
    boot: PathBuf,
    data: PathBuf,
    process: Child,
}

impl<'a> Appliance<'a> {
    /// Starts it with its data in `data` and waits until it is ready.
    pub fn start(lab: &'a Lab, program: &Path, boot: &Path, data: &Path) -> Result<Self> {
        let process = spawn(lab, program, boot, data)?;
        let (program, boot, data) = (program.to_path_buf(), boot.to_path_buf(), data.to_path_buf());
        let appliance = Self { lab, program, boot, data, process };
        appliance.ready()?;
        Ok(appliance)
    }

    /// A command line of ours to it.
    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = self.lab.command(&self.program);
        command.args(words).args(["--url", &format!("http://{}:9100", self.lab.address)]);
        command.args(["--s3-url", &format!("http://{}:9000", self.lab.address)]);
        command.arg("--data").arg(&self.data).stdin(Stdio::null());
        command
    }

    /// Runs a command with its output on the terminal.
    pub fn show(&self, words: &[&str]) -> Result<()> {
        println!("$ bedplate {}", words.join(" "));
        let status = self.command(words).status()?;
        ensure!(status.success(), "`bedplate {}` ended with {status}", words.join(" "));
        Ok(())
    }

    /// Runs a command and reads its JSON.
    pub fn ask(&self, words: &[&str]) -> Result<Value> {
        let text = shell::output(self.command(words).args(["--output", "json"]))?;
        serde_json::from_str(&text).with_context(|| format!("`bedplate {}` printed no JSON: {text}", words.join(" ")))
    }

    /// The program that it runs.
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// Gives a bucket a policy, as its owner, over S3.
    pub fn set_policy(&self, bucket: &str, policy: &Value) -> Result<()> {
        let text = std::fs::read_to_string(self.data.join("root-credentials.toml"))?;
        let root: toml::Table = toml::from_str(&text).context("root-credentials.toml is no TOML")?;
        let of = |key: &str| root.get(key).and_then(toml::Value::as_str).with_context(|| format!("root has no {key}"));
        let mut curl = self.lab.command("/usr/bin/curl".as_ref());
        curl.args(["--silent", "--show-error", "--fail-with-body", "--max-time", "30", "--request", "PUT"]);
        curl.args(["--aws-sigv4", "aws:amz:us-east-1:s3", "--config", "-", "--data-binary", &policy.to_string()]);
        curl.args(["--header", "Content-Type: application/json", "--header", "x-amz-content-sha256: UNSIGNED-PAYLOAD"]);
        curl.arg(format!("http://{}:9000/{bucket}?policy=", self.lab.address));
        // On its standard input: a command line can be seen by everyone.
        let user = format!("user = \"{}:{}\"\n", of("access_key")?, of("secret_key")?);
        let mut curl = curl.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn()?;
        curl.stdin.take().context("curl has no standard input")?.write_all(user.as_bytes())?;
        let done = curl.wait_with_output()?;
        ensure!(done.status.success(), "the policy of {bucket} was refused: {}", String::from_utf8_lossy(&done.stdout));
        println!("$ curl --request PUT --data-binary '{policy}' http://.../{bucket}?policy");
        Ok(())
    }

    /// Ends it as a power loss would.
    pub fn kill(&mut self) -> Result<()> {
        self.process.kill()?;
        self.process.wait()?;
        Ok(())
    }

    /// Starts it again on the same data.
    pub fn restart(&mut self) -> Result<()> {
        self.process = spawn(self.lab, &self.program, &self.boot, &self.data)?;
        self.ready()
    }

    /// Asks it to stop, and sees that it does so cleanly.
    pub fn stop(mut self) -> Result<()> {
        shell::run(&mut shell::command("kill", &["-TERM", &self.process.id().to_string()]))?;
        let limit = Instant::now() + Duration::from_secs(30);
        while Instant::now() < limit {
            if let Some(status) = self.process.try_wait()? {
                ensure!(status.success(), "bedplate serve ended with {status}");
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        self.kill()?;
        anyhow::bail!("bedplate serve did not stop within 30 s")
    }

    fn ready(&self) -> Result<()> {
        let url = format!("http://{}:9100/readyz", self.lab.address);
        shell::wait_for("bedplate serve (log/serve.log)", 30, || {
            let mut curl = self.lab.command("/usr/bin/curl".as_ref());
            shell::run(curl.args(["--silent", "--fail", "--max-time", "2", "--output", "/dev/null", &url])).is_ok()
        })
    }
}

fn spawn(lab: &Lab, program: &Path, boot: &Path, data: &Path) -> Result<Child> {
    let log = std::fs::File::options().create(true).append(true).open(lab.dir.join("log/serve.log"))?;
    let mut serve = lab.command(program);
    serve.arg("serve").arg("--data").arg(data).arg("--boot-image").arg(boot);
    serve.args(["--s3-listen", &format!("{}:9000", lab.address), "--api-listen", &format!("{}:9100", lab.address)]);
    serve.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    serve.spawn().context("cannot start bedplate serve")
}
