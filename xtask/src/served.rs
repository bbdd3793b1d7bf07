//! A running `bedplate serve` on ports of its own, whose memory and CPU time are read while it runs.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use crate::shell;

/// The program, built for release unless one is given.
pub fn program(given: Option<&Path>) -> Result<PathBuf> {
    if let Some(path) = given {
        return path.canonicalize().with_context(|| format!("no program {}", path.display()));
    }
    println!("building bedplate");
    let mut cargo = shell::cargo(&["build", "--quiet", "--release", "--ignore-rust-version"]);
    shell::show(cargo.args(["--package", "bedplate", "--bin", "bedplate"]).current_dir(shell::root()))?;
    Ok(shell::target().join("release/bedplate"))
}

/// The appliance.
pub struct Served {
    process: Child,
    program: PathBuf,
    data: PathBuf,
    s3: u16,
    api: u16,
}

impl Served {
    /// Starts it on an empty data folder and waits until it listens.
    pub fn start(program: &Path, folder: &Path) -> Result<Self> {
        if folder.exists() {
            std::fs::remove_dir_all(folder)?;
        }
        std::fs::create_dir_all(folder)?;
        let (s3, api) = (free_port()?, free_port()?);
        let data = folder.join("data");
        let log = std::fs::File::create(folder.join("log"))?;
        let mut command = Command::new(program);
        command.arg("serve").arg("--data").arg(&data).args(["--s3-listen", &format!("127.0.0.1:{s3}")]);
        command.args(["--api-listen", &format!("127.0.0.1:{api}")]);
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let process = command.spawn().context("cannot start bedplate serve")?;
        let served = Self { process, program: program.to_path_buf(), data, s3, api };
        shell::wait_for("bedplate serve", 30, || [s3, api].iter().all(|port| is_ready(*port).unwrap_or(false)))?;
        Ok(served)
    }

    /// A command of ours to it.
    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.args(words).arg(format!("--url={}", self.url()));
        command.arg(format!("--s3-url={}", self.s3_url())).arg("--data").arg(&self.data);
        command
    }

    /// Its data folder.
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// Where the control API listens.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.api)
    }

    /// Where S3 listens.
    pub fn s3_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.s3)
    }

    /// Most bytes that were resident so far.
    pub fn peak(&self) -> Result<u64> {
        memory_of(self.process.id(), "VmHWM:")
    }

    /// Seconds of processor time so far.
    pub fn cpu(&self) -> Result<f64> {
        cpu_of(self.process.id())
    }

    /// Its number among the processes.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// The access key and the secret key of root.
    pub fn root_key(&self) -> Result<(String, String)> {
        let path = self.data.join("root-credentials.toml");
        let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let table: toml::Table = text.parse()?;
        let field = |name: &str| {
            let value = table.get(name).and_then(toml::Value::as_str);
            value.map(str::to_owned).with_context(|| format!("{} has no {name}", path.display()))
        };
        Ok((field("access_key")?, field("secret_key")?))
    }

    /// Stops it cleanly.
    pub fn stop(&mut self) -> Result<()> {
        shell::run(&mut shell::command("kill", &["-TERM", &self.process.id().to_string()]))?;
        let status = self.process.wait()?;
        ensure!(status.success(), "bedplate serve ended with {status}");
        Ok(())
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        // After a clean stop there is nothing left to kill, which is no harm.
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

/// Seconds of processor time that a process has had so far.
pub fn cpu_of(id: u32) -> Result<f64> {
    let text = std::fs::read_to_string(format!("/proc/{id}/stat"))?;
    // The name of the program may hold blanks; what follows it does not.
    let (_, fields) = text.rsplit_once(')').context("the process has no accounts")?;
    let ticks = fields.split_whitespace().skip(11).take(2).map(str::parse::<u64>);
    let ticks: u64 = ticks.sum::<Result<_, _>>()?;
    let hertz: f64 = shell::output(Command::new("getconf").arg("CLK_TCK"))?.trim().parse()?;
    Ok(ticks as f64 / hertz)
}

/// Bytes in a field of a process's account of its memory, such as `VmRSS:`.
pub fn memory_of(id: u32, field: &str) -> Result<u64> {
    let text = std::fs::read_to_string(format!("/proc/{id}/status"))?;
    let line = text.lines().find_map(|line| line.strip_prefix(field)).context("the process has ended")?;
    let kib: u64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kib << 10)
}

/// Whether it answers that it is ready: it listens before it has its keys.
fn is_ready(port: u16) -> Result<bool> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    stream.write_all(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer.starts_with("HTTP/1.1 200"))
}

/// A port that nobody listens on now.
pub fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}
