//! An appliance for a test: the real binary on ports of its own, in a folder of its own, gone when dropped.

pub(crate) mod rows;
pub(crate) mod simulated;
pub(crate) mod stepped;

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The root key of every test's appliance.
pub(crate) const ACCESS_KEY: &str = "TESTROOTKEY";
/// Its secret.
pub(crate) const SECRET_KEY: &str = "test-root-secret";

/// How long a start may take on a busy machine.
const START_LIMIT: Duration = Duration::from_secs(60);

/// A running `bedplate serve`.
pub(crate) struct Server {
    folder: tempfile::TempDir,
    process: Option<Child>,
    s3: SocketAddr,
    api: SocketAddr,
    /// More for `serve`'s command line.
    args: Vec<String>,
    /// More for its environment.
    env: Vec<(String, String)>,
}

impl Server {
    /// Starts an appliance on an empty data folder, and waits until it is ready.
    pub(crate) fn start() -> Self {
        Self::start_with(&[])
    }

    /// Starts one with more on its command line.
    pub(crate) fn start_with(args: &[&str]) -> Self {
        Self::start_with_env(args, &[])
    }

    /// Starts one with more on its command line and in its environment.
    pub(crate) fn start_with_env(args: &[&str], env: &[(&str, &str)]) -> Self {
        let (s3, api) = (free_address(), free_address());
        let args = args.iter().map(|arg| (*arg).to_owned()).collect();
        let env = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let mut server = Self { folder: tempfile::tempdir().unwrap(), process: None, s3, api, args, env };
        server.restart();
        server
    }

    /// Starts it again, on the same data and the same ports.
    pub(crate) fn restart(&mut self) {
        assert!(self.process.is_none(), "stop it first");
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.path("serve.log")).unwrap();
        let mut command = self.program();
        command.args(["serve", "--s3-listen", &self.s3.to_string(), "--api-listen", &self.api.to_string()]);
        command.args(&self.args);
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        command.env("BEDPLATE_ROOT_ACCESS_KEY", ACCESS_KEY).env("BEDPLATE_ROOT_SECRET_KEY", SECRET_KEY);
        self.process = Some(command.stdout(Stdio::null()).stderr(log).spawn().unwrap());
        let deadline = Instant::now() + START_LIMIT;
        while !self.is_ready(self.s3) || !self.is_ready(self.api) {
            let ended = self.process.as_mut().unwrap().try_wait().unwrap();
            assert!(ended.is_none() && Instant::now() < deadline, "no start ({ended:?}): {}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn is_ready(&self, address: SocketAddr) -> bool {
        get(address, "/readyz").is_some_and(|answer| answer.starts_with("HTTP/1.1 200"))
    }

    /// SIGKILL: what a power cut leaves, but for the disk's own cache.
    pub(crate) fn kill(&mut self) {
        let mut process = self.process.take().unwrap();
        process.kill().unwrap();
        process.wait().unwrap();
    }

    /// SIGTERM, and the exit code that follows.
    pub(crate) fn stop(&mut self) -> Option<i32> {
        let mut process = self.process.take().unwrap();
        let done = Command::new("kill").arg(process.id().to_string()).status().unwrap();
        assert!(done.success());
        process.wait().unwrap().code()
    }

    /// `bedplate` with this appliance's addresses, data folder and root key.
    pub(crate) fn program(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_bedplate"));
        command
            .env("BEDPLATE_DATA", self.path("data"))
            .env("BEDPLATE_URL", format!("http://{}", self.api))
            .env("BEDPLATE_S3_URL", self.s3_url())
            .env("BEDPLATE_ACCESS_KEY", ACCESS_KEY)
            .env("BEDPLATE_SECRET_KEY", SECRET_KEY);
        command
    }

    /// Runs a command that must succeed; answers its standard output.
    pub(crate) fn run(&self, args: &[&str]) -> String {
        success(self.program().args(args).output().unwrap(), args)
    }

    /// Runs a command with `--output json` that must succeed; answers its value.
    pub(crate) fn json(&self, args: &[&str]) -> serde_json::Value {
        serde_json::from_str(&self.run(&[&["--output", "json"], args].concat())).unwrap()
    }

    /// The address of S3.
    pub(crate) fn s3_url(&self) -> String {
        format!("http://{}", self.s3)
    }

    /// The port of S3.
    pub(crate) fn s3(&self) -> SocketAddr {
        self.s3
    }

    /// The control port.
    pub(crate) fn api(&self) -> SocketAddr {
        self.api
    }

    /// A path in the test's folder, beside the data.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// What the appliance logged.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.path("serve.log")).unwrap_or_default()
    }

    /// Most memory that the process has held, in bytes.
    pub(crate) fn peak_memory(&self) -> u64 {
        let id = self.process.as_ref().unwrap().id();
        let status = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            drop(process.kill());
            drop(process.wait());
        }
    }
}

/// A loopback address that nobody listens on.
fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// The answer to a plain GET, as text; nothing where nobody answers.
pub(crate) fn get(address: SocketAddr, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(1)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").as_bytes()).ok()?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).ok()?;
    Some(String::from_utf8_lossy(&answer).into_owned())
}

/// The standard output of a command that must have succeeded.
pub(crate) fn success(output: Output, what: &[&str]) -> String {
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{what:?} ended with {:?}: {said}", output.status.code());
    String::from_utf8(output.stdout).unwrap()
}

/// Bytes that do not compress and do not repeat, the same for the same seed.
pub(crate) fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.wrapping_mul(0x2545_F491_4F6C_DD1D).to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// aws-cli: the one on the machine, or one installed beside the build.
pub(crate) fn aws_cli() -> PathBuf {
    if Command::new("aws").arg("--version").output().is_ok_and(|output| output.status.success()) {
        return PathBuf::from("aws");
    }
    aws_programs().join("aws")
}

/// A Python that has the AWS SDK on which aws-cli stands.
pub(crate) fn python_with_sdk() -> PathBuf {
    if Command::new("python3").args(["-c", "import botocore"]).output().is_ok_and(|output| output.status.success()) {
        return PathBuf::from("python3");
    }
    aws_programs().join("python")
}

/// Where the programs of an aws-cli are that was installed beside the build.
fn aws_programs() -> PathBuf {
    static ONCE: Mutex<()> = Mutex::new(());
    let _alone = ONCE.lock().unwrap_or_else(PoisonError::into_inner);
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/venv-aws");
    let program = root.join("bin/aws");
    if !program.exists() {
        let made = Command::new("python3").args(["-m", "venv"]).arg(&root).status().unwrap();
        assert!(made.success(), "python3 -m venv failed: install python3-venv");
        let installed = Command::new(root.join("bin/pip")).args(["install", "--quiet", "awscli"]).status().unwrap();
        assert!(installed.success(), "pip could not install awscli");
    }
    root.join("bin")
}
