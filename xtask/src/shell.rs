//! Other programs: run one, wait for it, and say what it said when it fails. Paths of the working tree.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

/// The root of the working tree.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies inside the working tree").to_path_buf()
}

/// Where everything that is built goes.
pub fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

/// A command of `program` with `arguments`.
pub fn command(program: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(arguments);
    command
}

/// The cargo that runs this chore, without what it says of this chore's own package: build scripts that ask for it would take
/// each build for a new one.
pub fn cargo(arguments: &[&str]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    let own = |name: &str| {
        ["CARGO_MANIFEST_", "CARGO_PKG_", "CARGO_CRATE_", "CARGO_BIN_"].iter().any(|start| name.starts_with(start))
    };
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_str().is_some_and(own)) {
        command.env_remove(name);
    }
    command.args(arguments);
    command
}

/// Runs the command to its end; its output appears only in the error of a failure.
pub fn run(command: &mut Command) -> Result<()> {
    output(command).map(drop)
}

/// Runs the command to its end and returns its standard output.
pub fn output(command: &mut Command) -> Result<String> {
    let name = describe(command);
    let done = command.stdin(Stdio::null()).output().with_context(|| format!("cannot start {name}"))?;
    let text = String::from_utf8_lossy(&done.stdout).into_owned();
    if !done.status.success() {
        let said = String::from_utf8_lossy(&done.stderr);
        let tail: Vec<&str> = said.lines().chain(text.lines()).collect();
        let tail = tail[tail.len().saturating_sub(20)..].join("\n");
        bail!("{name} failed ({}):\n{tail}", done.status);
    }
    Ok(text)
}

/// Runs the command with the terminal's own output.
pub fn show(command: &mut Command) -> Result<()> {
    let name = describe(command);
    let status = command.stdin(Stdio::null()).status().with_context(|| format!("cannot start {name}"))?;
    if !status.success() {
        bail!("{name} failed ({status})");
    }
    Ok(())
}

/// Asks `ready` four times a second until it answers true, at most `seconds` long.
pub fn wait_for(what: &str, seconds: u64, mut ready: impl FnMut() -> bool) -> Result<()> {
    let limit = Instant::now() + Duration::from_secs(seconds);
    while Instant::now() < limit {
        if ready() {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(250));
    }
    bail!("waited {seconds} s for {what}, in vain")
}

fn describe(command: &Command) -> String {
    let mut words = vec![command.get_program().to_string_lossy().into_owned()];
    words.extend(command.get_args().map(|word| word.to_string_lossy().into_owned()));
    let mut text = words.join(" ");
    if text.len() > 200 {
        let end = (0..=200).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        text.truncate(end);
        text.push('…');
    }
    text
}
