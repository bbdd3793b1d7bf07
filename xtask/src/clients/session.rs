//! One client's script or program, run to its end: its environment, its time limit, and what it says.

use std::fs::File;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use super::catalogue::{Client, Ready};
use crate::shell;

/// Whom the clients are to the server, where it is, and what mounts its buckets. Snapshots are made by its operator, whose key is in
/// its data folder.
pub struct Account {
    pub program: PathBuf,
    pub url: String,
    pub data: PathBuf,
    pub endpoint: String,
    pub access_key: String,
    pub secret_key: String,
}

/// What came of it.
#[derive(Debug, Default, PartialEq)]
pub struct Outcome {
    pub version: String,
    pub passed: usize,
    pub failures: Vec<String>,
    pub seconds: f64,
}

/// Runs the client in `folder`, which it makes: an empty `work`, and `said` with everything that it printed.
pub fn run(client: &Client, ready: &Ready, account: &Account, folder: &Path) -> Result<Outcome> {
    let work = folder.join("work");
    std::fs::create_dir_all(&work)?;
    let said = folder.join("said");
    let (program, arguments) = ready.command.split_first().context("a client without a command")?;
    let mut command = Command::new(program);
    command.args(arguments).current_dir(&work).process_group(0);
    environment(&mut command, ready, account, &work)?;
    command.stdin(Stdio::null()).stdout(File::create(&said)?).stderr(File::create(folder.join("errors"))?);
    let began = Instant::now();
    let mut child = command.spawn().with_context(|| format!("cannot start {}", program.display()))?;
    let ended = wait(&mut child, Duration::from_secs(client.patience))?;
    let mut outcome = read(&std::fs::read_to_string(&said)?);
    outcome.seconds = began.elapsed().as_secs_f64();
    let last = std::fs::read_to_string(folder.join("errors"))?.lines().last().unwrap_or_default().to_owned();
    match ended {
        None => outcome.failures.push(format!("no end after {} s", client.patience)),
        Some(status) if !status.success() && outcome.failures.is_empty() => {
            outcome.failures.push(format!("ended with {status}: {last}"));
        }
        Some(_) if outcome.passed == 0 && outcome.failures.is_empty() => {
            outcome.failures.push("it did nothing".to_owned());
        }
        Some(_) => {}
    }
    Ok(outcome)
}

/// Nothing of the caller's environment but where programs are: no settings, keys or proxies of a person's own.
fn environment(command: &mut Command, ready: &Ready, account: &Account, work: &Path) -> Result<()> {
    let found = std::env::var_os("PATH").unwrap_or_default();
    let programs = ready.programs.iter().cloned().chain(std::env::split_paths(&found));
    command.env_clear().env("PATH", std::env::join_paths(programs)?);
    command.env("HOME", work).env("WORK", work).env("TMPDIR", work).env("LANG", "C.UTF-8");
    command.env("S3_ENDPOINT", &account.endpoint);
    command.env("BEDPLATE", &account.program).env("BEDPLATE_URL", &account.url);
    command.env("BEDPLATE_DATA", &account.data);
    command.env("AWS_ACCESS_KEY_ID", &account.access_key).env("AWS_SECRET_ACCESS_KEY", &account.secret_key);
    command.env("AWS_REGION", "us-east-1").env("AWS_DEFAULT_REGION", "us-east-1");
    command.env("AWS_EC2_METADATA_DISABLED", "true").env("HF_HUB_DISABLE_TELEMETRY", "1");
    command.env("PYTHONDONTWRITEBYTECODE", "1");
    Ok(())
}

/// Waits for the end; after `limit` ends the process and all that it started, gently first. `None`: it had to be ended.
fn wait(child: &mut Child, limit: Duration) -> Result<Option<ExitStatus>> {
    let group = format!("-{}", child.id());
    let mut deadline = Instant::now() + limit;
    let mut signals = ["-TERM", "-KILL"].iter();
    let mut in_time = true;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(in_time.then_some(status));
        }
        if Instant::now() > deadline {
            let Some(signal) = signals.next() else { anyhow::bail!("process {} does not end", child.id()) };
            // A group that has ended meanwhile is what we want.
            drop(shell::run(&mut shell::command("kill", &[*signal, "--", &group])));
            in_time = false;
            deadline = Instant::now() + Duration::from_secs(20);
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Reads what scripts and programs print: `version TEXT`, `ok SECONDS NAME`, `failed NAME: WHY`; the rest is talk.
fn read(text: &str) -> Outcome {
    let mut outcome = Outcome::default();
    for line in text.lines() {
        match line.split_once(' ') {
            Some(("version", version)) => version.clone_into(&mut outcome.version),
            Some(("ok", _)) => outcome.passed += 1,
            Some(("failed", what)) => outcome.failures.push(what.to_owned()),
            _ => {}
        }
    }
    outcome
}

#[cfg(test)]
mod tests {
    //! What a script prints is counted; one that hangs is ended with all that it started.
    use super::*;

    #[test]
    fn counts_steps() {
        let outcome = read("version 1.2\nok 0.10 mb and ls\nsome talk\nfailed cp: no such key\nok 1.00 rm\n");
        assert_eq!((outcome.version.as_str(), outcome.passed), ("1.2", 2));
        assert_eq!(outcome.failures, ["cp: no such key"]);
    }

    #[test]
    fn ends_what_hangs() {
        let mut shell = Command::new("sh");
        let mut child = shell.args(["-c", "sleep 600 & wait"]).process_group(0).spawn().unwrap();
        assert!(wait(&mut child, Duration::from_millis(100)).unwrap().is_none());
        let mut quick = Command::new("true").process_group(0).spawn().unwrap();
        assert!(wait(&mut quick, Duration::from_secs(10)).unwrap().is_some_and(|status| status.success()));
    }
}
